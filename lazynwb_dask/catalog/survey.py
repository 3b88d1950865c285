"""Reads what a catalog stores of one file: its tables, its session, and values of small columns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from lazynwb_dask.catalog.folder import url_problem
from lazynwb_dask.catalog.manifest import Keeps
from lazynwb_dask.decode.arrays import Values
from lazynwb_dask.errors import NWBError, NWBReadError
from lazynwb_dask.metadata.formats import OpenedFile
from lazynwb_dask.metadata.queries import open_file
from lazynwb_dask.model.index import ArrayIndex, ColumnIndex, Extents, TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.jobs import IndexTable, ListSeries, ListTables
from lazynwb_dask.nwb.session import ReadSession
from lazynwb_dask.plan.index_cache import is_identified
from lazynwb_dask.read import time_order
from lazynwb_dask.read.arrays import Wanted, read_arrays
from lazynwb_dask.storage import open_source
from lazynwb_dask.storage.access import FileAccess

MAX_CHUNKS = 4096  # of a chunk map in the catalog; larger ones are read when needed


@dataclass
class Surveyed:
    """What a catalog stores of one file. `values` and `indexes` are by table and column."""

    source: Source  # with size and version
    session: dict[str, Any] = field(default_factory=dict)  # fields of session and subject by group
    tables: list[TableIndex] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)  # by path, why a table can't be read
    values: dict[str, dict[str, Values]] = field(default_factory=dict)  # of small columns
    indexes: dict[str, dict[str, Values]] = field(default_factory=dict)  # outermost, if ragged
    rising: list[str] = field(default_factory=list)  # timestamps of TimeSeries, by `place`
    problem: str = ""  # why the file can't be read; empty if it can


def survey(source: Source, access: FileAccess, keeps: Keeps) -> Surveyed:
    """Read what a catalog stores of one file. An unreadable file is recorded, not raised."""
    try:
        return _survey(source, access, keeps)
    except NWBError as exc:
        return Surveyed(source, problem=f"{type(exc).__name__}: {exc}")


def _survey(source: Source, access: FileAccess, keeps: Keeps) -> Surveyed:
    passes = open_file(source, access)
    found = Surveyed(passes.source)
    for part in found.source.parts:
        if why := url_problem(part.url):
            raise NWBReadError(f"{shown(source.url)}: it refers to another file. {why}")
    paths = passes.run(ListTables())
    found.session = passes.run(ReadSession()).value
    for path in paths:
        if keeps.tables is not None and path not in keeps.tables:
            continue
        try:
            table = passes.run(IndexTable((path,), details=True))
        except NWBError as exc:
            open_source(found.source, 1, access)  # raises if the whole file is unreachable
            found.problems[path] = f"{type(exc).__name__}: {exc}"
            continue
        if table is not None:
            found.tables.append(table)
    _read_values(found, access, keeps.values_limit)
    # (parts may change while the file that names them stays the same)
    if keeps.tables is None and is_identified(found.source) and not found.source.parts:
        found.rising = _rising(passes, access)
    return found


def _rising(passes: OpenedFile, access: FileAccess) -> list[str]:
    """Which stored timestamps of long TimeSeries rise. Each dataset is read once, however many have it."""
    known: dict[str, bool] = {}
    for path in passes.run(ListSeries(time_order.SMALL * time_order.PAGE)):
        try:
            series = passes.run(IndexTable((path,)))
            array = None if series is None else time_order.long_timestamps(series)
            if array is not None and (name := time_order.place(array)) not in known:
                known[name] = time_order.all_rise(array, passes.source, access)
        except NWBError:  # reading the series reports the error
            open_source(passes.source, 1, access)  # raises if the whole file is unreachable
    return [name for name, rises in known.items() if rises]


def _read_values(found: Surveyed, access: FileAccess, limit: int) -> None:
    """Read values of small columns and chunk maps, in a few round trips."""
    todo: list[tuple[Wanted, dict[str, Values], str]] = []
    for table in found.tables:
        values = found.values.setdefault(table.path, {})
        indexes = found.indexes.setdefault(table.path, {})
        left = limit
        for column in table.columns.values():
            if is_small(column) and column.nbytes <= left:
                left -= column.nbytes
                wanted = Wanted(column.arrays, column.labels, table.rows)
                todo.append((wanted, values, column.name))
            elif has_index(column) and column.arrays[-1].nbytes <= left:
                left -= column.arrays[-1].nbytes
                wanted = Wanted(column.arrays[-1:], None, table.rows)
                todo.append((wanted, indexes, column.name))
    unread = [
        array
        for table in found.tables
        for column in table.columns.values()
        for array in column.arrays
        if _is_unread(array)
    ]
    read, maps = read_arrays(found.source, [w for w, _, _ in todo], unread, access)
    for (_, target, name), column_values in zip(todo, read, strict=True):
        if column_values is not None:
            target[name] = column_values
    found.tables = [_simplified(table, maps) for table in found.tables]


def is_small(column: ColumnIndex) -> bool:
    """Whether each row is one number, boolean or text."""
    if column.problem or len(column.arrays) != 1:
        return False
    layout = column.arrays[0].layout
    if layout.item:
        return False
    kind = column.type
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_string(kind)
    )


def has_index(column: ColumnIndex) -> bool:
    """Whether the column is ragged with an outermost index that a catalog can store."""
    if column.problem or len(column.arrays) < 2:
        return False
    layout = column.arrays[-1].layout
    return layout.element[0] == "number" and not layout.item


def _is_unread(array: ArrayIndex) -> bool:
    layout = array.layout
    if layout.chunk is None or layout.external or layout.objects is not None:
        return False
    if array.extents.offsets.size or not array.rows:
        return False
    return layout.chunks(array.rows) <= MAX_CHUNKS


def _simplified(table: TableIndex, maps: dict[int | str, Extents]) -> TableIndex:
    columns = {
        name: replace(column, arrays=tuple(simplest(_mapped(a, maps)) for a in column.arrays))
        for name, column in table.columns.items()
    }
    return replace(table, columns=columns)


def _mapped(array: ArrayIndex, maps: dict[int | str, Extents]) -> ArrayIndex:
    found = maps.get(array.extents.root) if _is_unread(array) else None
    return array if found is None else ArrayIndex(array.layout, found)


def simplest(array: ArrayIndex) -> ArrayIndex:
    """The array in the layout that most files have: a single unfiltered chunk becomes contiguous."""
    layout, extents = array.layout, array.extents
    if layout.chunk is None or layout.filters or layout.external or extents.offsets.size != 1:
        return array
    if layout.chunk[0] < array.rows or layout.chunk[1:] != layout.item:
        return array
    plain = replace(layout, chunk=None, raw_edges=False)
    sizes = np.array([array.rows * layout.row_bytes], "<u8")
    return ArrayIndex(plain, Extents(array.rows, extents.offsets, sizes))
