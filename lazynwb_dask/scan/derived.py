"""Columns that are made of another one while it is read, so that less of it is: the lengths of its lists, or of
their values those in a range.

One is named by its column, a NUL, which no column's name has, and what is called: ``spike_times\\0len()``,
``spike_times\\0between(0.0, None)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import pyarrow as pa

from lazynwb_dask.decode.lists import is_list
from lazynwb_dask.scan.fields import Field

LENGTHS = "\0len()"
BETWEEN = "\0between("

Limits = tuple[float | None, float | None]


def lengths_of(name: str) -> str:
    """The column whose lists' lengths a derived column has; "" for all other columns."""
    return name.removesuffix(LENGTHS) if name.endswith(LENGTHS) else ""


def limits(name: str) -> Limits | None:
    """From where to where a derived column has the values of lists; None for all other columns."""
    _, there, given = name.partition(BETWEEN)
    if not there:
        return None
    start, stop = (None if text == "None" else float(text) for text in given.removesuffix(")").split(", "))
    return start, stop


def source(name: str) -> str:
    """The column that is read."""
    return name.partition("\0")[0]


def lengths(fields: Mapping[str, Field], column: str) -> str | None:
    """The name of the lengths of a column's lists; None if it has no lists."""
    known = fields.get(column)
    return column + LENGTHS if known is not None and is_list(known.type) else None


def between(column: str, args: Iterable[Any]) -> str | None:
    """The name of the values of a column's lists between two limits; None for limits that aren't numbers."""
    given = tuple(args)
    if not all(v is None or (isinstance(v, Real) and float(v) == v) for v in given):
        return None
    start, stop = (None if v is None else float(v) for v in given)
    return f"{column}{BETWEEN}{start}, {stop})"


def field(fields: Mapping[str, Field], name: str) -> Field:
    """The field of a column of a scan, or of one derived from it."""
    if "\0" not in name:
        return fields[name]
    of = fields[source(name)]
    return Field(name, pa.int32() if lengths_of(name) else of.type, True, of)


def ordered(columns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of a frame's columns that are named, in its order; then those named that are derived from them."""
    wanted = {*names}
    return [name for name in columns if name in wanted] + sorted(name for name in wanted if "\0" in name)
