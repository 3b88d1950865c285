"""Columns that are made of another one while it is read, so that less of it is: the lengths of its lists.

One is named by its column, a NUL, which no column's name has, and what is called: ``spike_times\\0len()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from lazynwb_dask.decode.lists import is_list
from lazynwb_dask.scan.fields import Field

LENGTHS = "\0len()"


def lengths_of(name: str) -> str:
    """The column whose lists' lengths a derived column has; "" for all other columns."""
    return name.removesuffix(LENGTHS) if name.endswith(LENGTHS) else ""


def source(name: str) -> str:
    """The column that is read."""
    return lengths_of(name) or name


def derived(fields: Mapping[str, Field], column: str, function: str) -> str | None:
    """The name of the column that a function of lists makes; None if it is not made while reading."""
    known = fields.get(column)
    return column + LENGTHS if function == "len" and known is not None and is_list(known.type) else None


def field(fields: Mapping[str, Field], name: str) -> Field:
    """The field of a column of a scan, or of one derived from it."""
    return Field(name, pa.int32(), True, fields[source(name)]) if lengths_of(name) else fields[name]


def ordered(columns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of a frame's columns that are named, in its order; then those named that are derived from them."""
    wanted = {*names}
    return [name for name in columns if name in wanted] + sorted(name for name in wanted if lengths_of(name))
