"""Decoded values as the arrays that pandas holds."""

from __future__ import annotations

import copyreg
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.decode.arrays import Values, arrow
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.scan.fields import Field
from lazynwb_dask.util.buffers import blank


def series(parts: Sequence[Values], to: Field) -> Any:
    """The parts of one column as one pandas array."""
    dtype = to.dtype
    if isinstance(dtype, np.dtype):
        pieces = [p if isinstance(p, np.ndarray) else _numpy(p, to, dtype) for p in parts]
        joined = pieces[0]
        if len(pieces) > 1:
            joined = np.concatenate(pieces, out=blank(sum(map(len, pieces)), dtype))
        return joined if joined.flags.writeable else joined.copy()
    chunks = [arrow(p) for p in parts]
    if isinstance(dtype, pd.StringDtype):
        kind = pa.large_string()
    else:
        kind = to.type
    chunks = [c if c.type == kind else pc.cast(c, kind) for c in chunks]
    joined = chunks[0] if len(chunks) == 1 else pa.chunked_array(chunks, kind)
    if isinstance(joined, pa.Array):
        joined = pa.chunked_array([joined])
    return dtype.__from_arrow__(joined)  # type: ignore[attr-defined]


def check_nulls(values: Values, to: Field) -> Values:
    """The same values, if the frame's type can hold their nulls."""
    dtype = to.dtype
    if isinstance(values, np.ndarray) or not values.null_count:
        return values
    if isinstance(dtype, np.dtype) and dtype.kind != "f":
        raise NWBReadError(
            f"there are rows without a value, and {dtype} has no null; give schema= a type that has"
        )
    return values


def _numpy(values: pa.Array, to: Field, dtype: np.dtype) -> np.ndarray:
    """A column of numbers with missing values."""
    check_nulls(values, to)
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    return numbers


def nothing(rows: int, to: Field) -> Values:
    """The values of a column that the file doesn't have."""
    dtype = to.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind != "f":
            raise NWBReadError(f"the file has no column {to.name!r}, and {dtype} has no null")
        return np.full(rows, np.nan, dtype)
    return pa.nulls(rows, to.type)


def _reduced(values: Any) -> tuple[Any, ...]:
    """How Arrow values are pickled: pandas copies them all, so that a worker would take twice the memory of a
    result to write it to its disk. Only what is part of something larger is copied."""
    chunks = values._pa_array.chunks
    if not chunks or any(c.get_total_buffer_size() > 1.25 * c.nbytes + (1 << 16) for c in chunks):
        state = values.__getstate__()
    else:
        state = values.__dict__ | {"_pa_array": chunks} | ({"_cache": {}} if hasattr(values, "_cache") else {})
    return copyreg.__newobj__, (type(values),), state  # type: ignore[attr-defined]


for _kind in (pd.arrays.ArrowExtensionArray, pd.arrays.ArrowStringArray):
    copyreg.pickle(_kind, _reduced)
