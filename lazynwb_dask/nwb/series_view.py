"""Views of a TimeSeries: one column for each channel, and values in their unit.

They are applied to the index of the stored `data`, so that a file's index doesn't depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from lazynwb_dask.errors import ColumnNotFoundError, NWBReadError
from lazynwb_dask.model.index import ArrayIndex, ColumnIndex, FileIndex, TableIndex, View
from lazynwb_dask.model.series_view import Shown
from lazynwb_dask.model.source import shown
from lazynwb_dask.nwb.series import SERIES


def show(table: TableIndex, how: Shown | None, name: str) -> TableIndex:
    """The index of a TimeSeries with a view of `data`. `name` is the file, for messages.

    Raises NWBReadError if it is no TimeSeries, or its data have no channels or are no numbers.
    """
    if how is None:
        return table
    where = f"{name}: {table.path}"
    if SERIES not in table.attributes:
        raise NWBReadError(f"{where} is a table: channels= and scaled= are for TimeSeries")
    data = table.columns.get("data")
    if data is None or data.problem:
        return table
    if how.scaled and data.arrays[0].layout.element[0] not in ("number", "odd", "bool"):
        raise NWBReadError(f"{where}: scaled=True is for numbers; data holds {data.type}")
    factors, offset = _factors(table, where) if how.scaled else ((), 0.0)
    if how.channels is None:
        views = {"data": _viewed(data, "data", View(None, factors, offset))}
    else:
        views = {
            f"data_{n}": _viewed(data, f"data_{n}", View(n, factors, offset))
            for n in _channels(how.channels, data.arrays[0], where)
        }
    columns = {k: v for k, v in table.columns.items() if k != "data"} | views
    return replace(table, columns=columns)


def _channels(wanted: Sequence[int], array: ArrayIndex, where: str) -> Sequence[int]:
    item = array.layout.item
    if len(item) != 1:
        raise NWBReadError(
            f"{where}: channels= needs data of two dimensions, time and channel; these have {1 + len(item)}"
        )
    return [n for n in wanted if n < item[0]] if wanted else range(item[0])


def _viewed(data: ColumnIndex, name: str, view: View) -> ColumnIndex:
    array = data.arrays[0]
    viewed = replace(array, layout=replace(array.layout, view=view))
    return replace(data, name=name, arrays=(viewed, *data.arrays[1:]))


def stored_conversion(table: TableIndex) -> tuple[float, float, tuple[float, ...] | None]:
    """The conversion and the offset of a series' data, and its channel_conversion if there is one."""
    known = table.attributes
    factor, offset = (_number(known.get(k), d) for k, d in (("conversion", 1.0), ("offset", 0.0)))
    text = known.get("channel_conversion")
    return factor, offset, None if text is None else tuple(float(v) for v in json.loads(text))


def check_channels(where: str, factors: int, item: Sequence[int]) -> None:
    """Raise unless there is one factor of channel_conversion for each channel.

    `item` is the shape of a sample; a scalar one has one channel. `where` is the series, for messages.
    """
    channels = item[0] if item else 1
    if factors != channels:
        raise NWBReadError(
            f"{where}: channel_conversion has {factors} values, data {channels} channels: what they are "
            "in their unit can't be told. Read them as they are stored, without scaled"
        )


def _factors(table: TableIndex, where: str) -> tuple[tuple[float, ...], float]:
    """The factors of a `View`, one for all channels or one for each, and its offset."""
    factor, offset, each = stored_conversion(table)
    if each is None:
        return (factor,), offset
    check_channels(where, len(each), table.columns["data"].arrays[0].layout.item)
    return tuple(factor * v for v in each), offset


def _number(text: str | None, default: float) -> float:
    try:
        return default if text is None else float(text)
    except ValueError:
        return default


def show_all(found: Sequence[FileIndex], how: Shown | None) -> list[FileIndex]:
    """Views of many files' TimeSeries. A file that lacks a channel lacks that column.

    Raises ColumnNotFoundError if no file has a channel.
    """
    if how is None:
        return list(found)
    tables = [None if f.table is None else show(f.table, how, shown(f.source.url)) for f in found]
    names = {name for table in tables if table is not None for name in table.columns}
    for n in how.channels or ():
        if f"data_{n}" not in names and names:
            raise ColumnNotFoundError(f"channels=: no channel {n} in any of the files; they are counted from 0")
    return [replace(f, table=table) for f, table in zip(found, tables, strict=True)]
