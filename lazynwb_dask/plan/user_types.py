"""Column types that users give in ``schema=``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask import dtypes
from lazynwb_dask.decode.convert import frame_type, is_number
from lazynwb_dask.scan.fields import PROVENANCE, Field


def parse_type(kind: Any) -> pa.DataType:
    """The Arrow type of an Arrow type, a pandas or NumPy dtype, or the name of one.

    >>> parse_type("float64"), parse_type(int), parse_type("list<double>[pyarrow]")
    (DataType(double), DataType(int64), ListType(list<item: double>))
    """
    if isinstance(kind, pa.DataType):
        return frame_type(kind)
    if isinstance(kind, pd.ArrowDtype):
        return frame_type(kind.pyarrow_dtype)
    if kind is str or isinstance(kind, pd.StringDtype):
        return pa.string()
    if isinstance(kind, str):
        name = kind.removesuffix(dtypes.SUFFIX)
        if name in ("str", "string", "object"):
            return pa.string()
        try:
            return frame_type(dtypes.parse(name))
        except ValueError:
            pass
    try:
        if kind is None:  # which NumPy takes for float64
            raise TypeError
        return pa.from_numpy_dtype(np.dtype(getattr(kind, "numpy_dtype", kind)))
    except (TypeError, pa.ArrowNotImplementedError):
        raise ValueError(f"schema: {kind!r} is not a type; give a pyarrow.DataType or a dtype") from None


def given_type(name: str, kind: Any) -> pa.DataType:
    """The Arrow type given for a column. Raises ValueError if it isn't a type, or not one for columns."""
    found = parse_type(kind)
    if not _has_place(found):
        raise ValueError(
            f"schema: the column {name!r} can't be {found}; give a type of numbers, booleans, texts or "
            "timestamps, or of lists or structs of these"
        )
    return found


def _has_place(kind: pa.DataType) -> bool:
    """Whether columns can have a type."""
    if pa.types.is_list(kind):
        return _has_place(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_has_place(f.type) for f in kind)
    return is_number(kind) or bool(pa.types.is_string(kind) or pa.types.is_timestamp(kind))


def given(schema: pa.Schema) -> list[Field]:
    """The fields of a schema that a user gave. Raises ValueError for duplicate columns."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ValueError(f"schema: there is more than one column {', '.join(twice)}")
    return [Field(f.name, given_type(f.name, f.type), f.nullable) for f in schema if f.name not in PROVENANCE]
