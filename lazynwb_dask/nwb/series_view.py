"""How a TimeSeries is shown: one column for each channel, and values in their unit.

Both are views of the stored `data`: nothing of them is in a file's index, so the same index serves all.
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
    """A TimeSeries' index with `data` shown as asked for.

    Parameters
    ----------
    table : TableIndex
        As it was indexed.
    how : Shown or None
    name : str
        The file, for messages.

    Raises
    ------
    NWBReadError
        It isn't a TimeSeries, or its data have no channels, or are no numbers.
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


def _channels(asked: Sequence[int], array: ArrayIndex, where: str) -> Sequence[int]:
    item = array.layout.item
    if len(item) != 1:
        raise NWBReadError(
            f"{where}: channels= needs data of two dimensions, time and channel; these have "
            f"{1 + len(item)}"
        )
    return [n for n in asked if n < item[0]] if asked else range(item[0])


def _viewed(data: ColumnIndex, name: str, view: View) -> ColumnIndex:
    array = data.arrays[0]
    viewed = replace(array, layout=replace(array.layout, view=view))
    return replace(data, name=name, arrays=(viewed, *data.arrays[1:]))


def stored_conversion(table: TableIndex) -> tuple[float, float, tuple[float, ...] | None]:
    """The factor and the offset of a series' data, and the factors of its channels if it has such."""
    said = table.attributes
    factor, offset = (_number(said.get(k), d) for k, d in (("conversion", 1.0), ("offset", 0.0)))
    text = said.get("channel_conversion")
    return factor, offset, None if text is None else tuple(float(v) for v in json.loads(text))


def check_channels(where: str, factors: int, item: Sequence[int]) -> None:
    """Raise unless there is a factor for each channel of a sample; one of no dimension has one."""
    channels = item[0] if item else 1
    if factors != channels:
        raise NWBReadError(
            f"{where}: channel_conversion has {factors} values, data {channels} channels: what they are "
            "in their unit can't be told. Read them as they are stored, without scaled"
        )


def _factors(table: TableIndex, where: str) -> tuple[tuple[float, ...], float]:
    """What stored values are multiplied with, one for all or one for each channel, and what is added.

    Raises
    ------
    NWBReadError
        There are not as many factors as channels.
    """
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
    """Many files' TimeSeries, shown as asked for. A file that lacks a channel lacks that column.

    Raises
    ------
    ColumnNotFoundError
        No file has a channel.
    """
    if how is None:
        return list(found)
    tables = [None if f.table is None else show(f.table, how, shown(f.source.url)) for f in found]
    names = {name for table in tables if table is not None for name in table.columns}
    for n in how.channels or ():
        if f"data_{n}" not in names and names:
            raise ColumnNotFoundError(
                f"channels=: no channel {n} in any of the files; they are counted from 0"
            )
    return [replace(f, table=table) for f, table in zip(found, tables, strict=True)]
