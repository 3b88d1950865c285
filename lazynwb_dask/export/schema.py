"""The one schema of a table's parts, and what of older parts can be copied into it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
import pyarrow as pa

from lazynwb_dask._version import __version__
from lazynwb_dask.errors import SchemaConflictError
from lazynwb_dask.plan.schema import common
from lazynwb_dask.scan.fields import PROVENANCE
from lazynwb_dask.scan.scan import Scan

_OF_FIELDS = ("description", "unit", "shape", "refers_to")  # of the report, as metadata of fields


def unified(scan: Scan, report: pd.DataFrame, others: Sequence[pa.Schema], table: str) -> pa.Schema:
    """The schema of a scan, and of parts of other files, which stay. Raises SchemaConflictError if there is
    none."""
    types = {name: stored(field.type) for name, field in scan.fields.items()}
    for other in others:
        for field in other:
            chosen = common([types.get(field.name, field.type), field.type])
            if chosen is None:
                raise SchemaConflictError(
                    f"{table}: the column {field.name!r} is {types[field.name]} in these files, and "
                    f"{field.type} in files exported before: prune=True removes those, overwrite=True all"
                )
            types[field.name] = chosen
    names = [name for name in types if name not in PROVENANCE] + [n for n in PROVENANCE if n in types]
    about: dict[str, str] = {"table_path": table, "lazynwb_dask": __version__}
    return pa.schema([pa.field(name, types[name], metadata=_about(name, report)) for name in names], about)


def _about(name: str, report: pd.DataFrame) -> dict[str, str] | None:
    if name not in report.index:
        return None
    held = report.loc[name]
    return {key: str(held[key]) for key in _OF_FIELDS if held[key]} or None


def stored(kind: pa.DataType) -> pa.DataType:
    """The type in Parquet, whose float16 not all readers know; and pandas' texts as all others."""
    if pa.types.is_list(kind):
        return pa.list_(stored(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(one.name, stored(one.type)) for one in kind])
    if pa.types.is_large_string(kind):
        return pa.string()
    return pa.float32() if kind == pa.float16() else kind


def can_copy(old: pa.Schema, new: pa.Schema, lacking: Iterable[str]) -> bool:
    """Whether rows of an older part are those of a new one, with other types. `lacking` are the columns that
    its files don't have."""
    absent = set(lacking)
    return all(
        _widens(old.field(one.name).type, one.type) if one.name in old.names else one.name in absent
        for one in new
    )


def _widens(old: pa.DataType, new: pa.DataType) -> bool:
    """Whether all values of a type are values of another, and are cast to it as they are read as it."""
    if old == new:
        return True
    if pa.types.is_list(old) and pa.types.is_list(new):
        return _widens(old.value_type, new.value_type)
    signed = (pa.types.is_signed_integer(old), pa.types.is_signed_integer(new))
    if pa.types.is_integer(old) and pa.types.is_integer(new):
        return bool(new.bit_width > old.bit_width and (signed[0] == signed[1] or signed[1]))
    if pa.types.is_floating(new):
        return bool(
            (pa.types.is_floating(old) and new.bit_width >= old.bit_width)
            or (pa.types.is_integer(old) and new.bit_width == 64 and old.bit_width < 64)
        )
    return False
