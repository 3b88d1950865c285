"""One partition, or several at once: the columns of the predicate first, then the rest for the rows it leaves.

Knows no Dask. Reads on whatever threads it is called from, and from a few of its own for the partitions of
a fused task; all of them share the storage's bounded set of connections.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.decode.arrays import Values, arrow, empty
from lazynwb_dask.decode.convert import convert
from lazynwb_dask.errors import (
    Failure,
    NWBError,
    NWBFileChangedError,
    NWBFileNotFoundError,
    NWBMemoryError,
    NWBPermissionError,
    NWBReadError,
    TableNotFoundError,
)
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.index import ArrayIndex, Extents, TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb import tables as hdf5
from lazynwb_dask.nwb.series_view import show
from lazynwb_dask.read import catalog_values as bulk
from lazynwb_dask.read import time_search as seek
from lazynwb_dask.read.block import Box, block
from lazynwb_dask.read.column import Reader
from lazynwb_dask.read.executor import Access, ChunkMaps, OwnMaps, file_key, guarded, run_steps
from lazynwb_dask.read.memory_need import needs
from lazynwb_dask.read.steps import Steps, Stored, Wave, together
from lazynwb_dask.scan.catalog_slots import Held
from lazynwb_dask.scan.records import Part
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.scan.schema import PROVENANCE, Field, check_nulls, nothing, series
from lazynwb_dask.storage import Settings
from lazynwb_dask.storage.options import Options
from lazynwb_dask.util.lru import Cache
from lazynwb_dask.util.threads import at_once

if TYPE_CHECKING:
    from lazynwb_dask.predicate.tree import Limit, Predicate

AHEAD = 64 * 1024  # a column of so few bytes comes along with the predicate's, rather than later
READERS = 32  # partitions of one task that are read at a time
_GONE = (NWBFileChangedError, NWBFileNotFoundError, NWBPermissionError)  # no other bytes will come

_tables = Cache[TableIndex]("tables")


@dataclass(frozen=True, eq=False)
class Piece:
    """What was read of one partition."""

    part: Part
    rows: np.ndarray  # row numbers in the file's table
    values: dict[str, Values]


def read_parts(
    scan: Scan,
    columns: Sequence[str],
    predicate: Predicate | None,
    limit: Limit | None,
    settings: Settings,
    failed: list[Failure] | None = None,
    lacking: list[Failure] | None = None,
) -> pd.DataFrame:
    """All partitions of a scan, read at once, one after the other in a frame.

    Parameters
    ----------
    scan : Scan
        Narrowed to the partitions and columns in question.
    columns : sequence of str
        The frame's columns, in order.
    predicate : Predicate or None
        Rows for which it is not true are left out; its columns need not be among `columns`.
    limit : Limit or None
        How many of the remaining rows of each partition to read.
    settings : Settings
    failed : list of Failure, optional
        Takes the failures that a scan with ``on_error="skip"`` leaves out.
    lacking : list of Failure, optional
        Takes the files that were not looked at while planning, and lack the table or a column.

    Returns
    -------
    pandas.DataFrame
        With the global row number as index.
    """

    chosen = None
    if limit is None and scan.indexed and scan.nparts > 1:
        chosen = _chosen_at_once(scan, columns, predicate, settings)
    if isinstance(chosen, pd.DataFrame):
        return chosen

    def read(i: int) -> Piece:
        try:
            return _read_part(scan, i, columns, predicate, limit, settings, chosen, lacking)
        except NWBError as exc:
            if scan.on_error != "skip" or isinstance(exc, NWBMemoryError):
                raise
            url = scan.files.urls[int(scan.file[i])]
            if failed is not None:
                failed.append(Failure.of(shown(url), "read", exc))
            nothing_read = {name: empty(scan.fields[name].type) for name in columns}
            return Piece(scan.part(i), np.zeros(0, np.int64), nothing_read)

    pieces = at_once([partial(read, i) for i in range(scan.nparts)], READERS)
    fields = [scan.fields[name] for name in columns]
    return _frame(pieces, fields, scan.numbered)


def _chosen_at_once(
    scan: Scan, columns: Sequence[str], predicate: Predicate | None, settings: Settings
) -> pd.DataFrame | _Choice | None:
    """The frame, or the rows that a condition leaves of each partition, where a catalog holds the values.

    None where it doesn't, or where something is wrong with them: reading file by file tells what.
    """
    wanted = sorted(predicate.columns) if predicate is not None else []
    held = bulk.in_catalog(scan, dict.fromkeys([*wanted, *columns]))
    if scan.files.inlined is None or not set(wanted) <= set(held):
        return None
    whole = set(columns) <= set(held)
    if predicate is None and not whole:
        return None
    rows = bulk.Rows(scan, settings)
    try:
        keep = None if predicate is None else predicate.rows(rows.frame(wanted))
        if whole:
            frame = rows.frame(columns)
            some: pd.DataFrame = frame if keep is None else frame.iloc[keep]
            return some
    except NWBError:
        return None
    assert keep is not None
    part, number = rows.part[keep], rows.number[keep]
    borders = np.searchsorted(part, np.arange(scan.nparts + 1))
    return _Choice(number, borders)


@dataclass(frozen=True, eq=False)
class _Choice:
    """The rows that a condition leaves of each partition."""

    number: np.ndarray  # row numbers in the files' tables, one partition after the other
    borders: np.ndarray

    def of(self, i: int) -> np.ndarray:
        return self.number[self.borders[i] : self.borders[i + 1]]


def read_column(
    source: Source, table: TableIndex, name: str, options: Options, settings: Settings
) -> Values:
    """One whole column of one file, as its own type."""
    column = table.columns[name]
    reader = Reader(source.reach, ChunkMaps(source))
    rows = np.arange(table.rows)
    return run_steps(reader.column(column.arrays, column.labels, rows), source, options, settings)


def read_block(
    source: Source,
    path: str,
    array: ArrayIndex,
    starts: np.ndarray,
    stops: np.ndarray,
    box: Box,
    options: Options,
    settings: Settings,
) -> np.ndarray:
    """Row ranges of a dataset, and of these a box: numbers, or texts as objects."""
    reader = Reader(source.reach, ChunkMaps(source))
    layout = array.layout
    rows = int((stops - starts).sum())
    shape = (rows, *[b - a for a, b in box])

    def steps() -> Steps[Values]:
        raw = yield from block(reader, array, starts, stops, box)
        return (
            yield from reader.elements(
                raw.reshape(-1), layout.element, math.prod(shape), layout.user_block
            )
        )

    careful = guarded(steps(), f"{shown(source.url)}: {path}: ")
    flat = run_steps(careful, source, options, settings)
    if isinstance(flat, np.ndarray):
        return flat.reshape(shape)
    texts: np.ndarray = flat.to_numpy(zero_copy_only=False).astype(object).reshape(shape)
    return texts


@dataclass(frozen=True, eq=False)
class Wanted:
    """A whole column, or one of the datasets that make it up."""

    arrays: Sequence[ArrayIndex]
    labels: tuple[str, ...] | None
    rows: int


def read_arrays(
    source: Source,
    wanted: Sequence[Wanted],
    unread: Sequence[ArrayIndex],
    options: Options,
    settings: Settings,
) -> tuple[list[Values | None], dict[int, Extents]]:
    """Whole columns of one file, and chunk maps that were left unread, in a few round trips.

    Returns
    -------
    list of Values or None
        None for what can't be read, which spoils nothing else.
    dict of int to Extents
        By the address of the B-tree.
    """
    maps = OwnMaps()

    def run(todo: Sequence[Wanted], trees: Sequence[ArrayIndex]) -> list[Values | None]:
        reader = Reader(source.reach, maps)
        steps: list[Steps[Values | None]] = [
            reader.column(w.arrays, w.labels, np.arange(w.rows)) for w in todo
        ]
        steps += [reader.locate(array) for array in trees]
        found: list[Values | None] = list(run_steps(together(steps), source, options, settings))
        return found[: len(todo)]

    try:
        return run(wanted, unread), maps.held
    except _GONE:
        raise
    except Exception:
        if len(wanted) + len(unread) == 1:
            return [None] * len(wanted), maps.held
    found: list[Values | None] = []
    for one in wanted:
        found += read_arrays(source, [one], [], options, settings)[0]
    for array in unread:
        maps.held |= read_arrays(source, [], [array], options, settings)[1]
    return found, maps.held


def _read_part(
    scan: Scan,
    i: int,
    columns: Sequence[str],
    predicate: Predicate | None,
    limit: Limit | None,
    settings: Settings,
    chosen: _Choice | None = None,
    lacking: list[Failure] | None = None,
) -> Piece:
    part = scan.part(i)
    if not scan.indexed:
        part = _index(part, scan, settings, [] if lacking is None else lacking)
    reader = Reader(part.source.reach, ChunkMaps(part.source))
    access = Access(part.source, scan.options, settings)
    if predicate is not None and settings.sorted_timestamps:
        exact = [name for name, field in scan.fields.items() if field.type == pa.float64()]
        part = seek.narrowed(part, predicate, exact, _file(part, reader, access))
    rows = np.arange(part.start, part.stop)
    first: set[str] = set()
    if chosen is not None:
        rows, predicate = chosen.of(i), None
        if not rows.size:
            none = {name: empty(scan.fields[name].type) for name in columns}
            return Piece(part, rows, none)
    if predicate is not None:
        first |= predicate.columns
    elif limit is not None and not limit.columns:
        rows = rows[limit.rows(pd.DataFrame(index=pd.RangeIndex(len(rows))))]
        limit = None
    if limit is not None:
        first |= limit.columns
    values: dict[str, Values] = {}
    if (predicate is not None or limit is not None) and rows.size:
        rest = [name for name in columns if name not in first]
        if part.held is not None and first <= part.held.values.keys() | set(PROVENANCE):
            rest = []  # the file itself isn't touched before it is known that rows are left
        _check_memory(part, sorted(first), len(rows), settings)
        steps: list[Steps[Values | None]] = [
            _column(reader, part, scan.fields[name], rows) for name in sorted(first)
        ]
        steps += [
            guarded(_ahead(reader, arrays, part, name), _where(part, name))
            for name in rest
            if name in part.columns and not (part.held is not None and name in part.held.values)
            for arrays in [part.columns[name][0]]
        ]
        found = access.run(together(steps), spare=True)
        values = {name: v for name, v in zip(sorted(first), found, strict=False) if v is not None}
        with access.turn():
            keep = _chosen(Piece(part, rows, values), scan, sorted(first), predicate, limit)
        rows = rows[keep]
        values = {name: v[keep] if isinstance(v, np.ndarray) else v.take(pa.array(keep))
                  for name, v in values.items()}  # fmt: skip
    todo = [name for name in columns if name not in values]
    _check_memory(part, todo, len(rows), settings, picked=len(rows) < part.stop - part.start)
    read = access.run(together([_column(reader, part, scan.fields[name], rows) for name in todo]))
    access.settle()
    values |= dict(zip(todo, read, strict=True))
    return Piece(part, rows, {name: values[name] for name in columns})


def _check_memory(
    part: Part, columns: Sequence[str], rows: int, settings: Settings, picked: bool = False
) -> None:
    """Raise rather than have the worker killed, where some rows can't fit."""
    if settings.memory is None:
        return
    decoded, most = needs(part, columns, rows, picked)
    settings.memory.take(
        most,
        lambda: (
            f"{shown(part.source.url)}: {part.table}: {rows} rows of {', '.join(columns)} take about "
            f"{decoded >> 20} MiB"
        ),
    )


def _file(part: Part, reader: Reader, access: Access) -> seek.File:
    """How to look for times in a partition's file."""

    def run(steps: Steps[Values]) -> Values:
        return access.run(guarded(steps, _where(part, "timestamps")))

    return seek.File(reader, None if part.source.etag is None else file_key(part.source), run)


def _chosen(
    piece: Piece, scan: Scan, names: list[str], predicate: Predicate | None, limit: Limit | None
) -> np.ndarray:
    """The positions of the rows that predicate and limit leave."""
    frame = _frame([piece], [scan.fields[name] for name in names], scan.numbered)
    keep = np.arange(len(frame))
    if predicate is not None:
        keep = predicate.rows(frame)
    if limit is not None:
        keep = keep[limit.rows(frame.iloc[keep])]
    return keep


# ------------------------------------------------------------------------------------------- one column
def _column(reader: Reader, part: Part, field: Field, rows: np.ndarray) -> Steps[Values]:
    """The steps that read some rows of a column as the schema's type."""
    return guarded(_unified(reader, part, field, rows), _where(part, field.name))


def _unified(reader: Reader, part: Part, field: Field, rows: np.ndarray) -> Steps[Values]:
    if field.name in PROVENANCE:
        if field.name == "_table_index":
            return rows
        text = part.source.url if field.name == "_nwb_path" else part.table
        return pa.repeat(pa.scalar(text, pa.large_string()), len(rows))
    if field.name in part.facts:
        return pa.repeat(part.facts[field.name], len(rows))
    held = part.held
    if held is not None and field.name in held.values:
        stored = yield from _stored(held, held.values[field.name], rows)
        return check_nulls(convert(stored, field.type), field)
    if field.name not in part.columns:
        return nothing(len(rows), field)
    arrays, labels = part.columns[field.name]
    if held is not None and field.name in held.indexes and rows.size:
        yield from _hold_index(reader, arrays[-1], part, held.indexes[field.name])
    values = yield from reader.column(arrays, labels, rows)
    return check_nulls(convert(values, field.type), field)


def _ahead(reader: Reader, arrays: Sequence[ArrayIndex], part: Part, name: str) -> Steps[None]:
    """Fetch along with the predicate's columns what saves a round trip later and costs little."""
    outer = arrays[-1]
    start = max(part.start - 1, 0) if len(arrays) > 1 else part.start
    stop = min(part.stop, outer.rows)
    todo: list[Steps[None]] = []
    if (
        not outer.layout.foreign
        and not outer.layout.computed
        and outer.layout.view is None
        and not (part.held is not None and name in part.held.indexes)
        and stop > start
        and (stop - start) * outer.layout.row_bytes <= AHEAD
    ):
        todo.append(reader.hold(outer, start, stop))
    todo += [reader.locate(array) for array in arrays[:-1]]
    yield from together(todo)


def _stored(held: Held, name: str, rows: np.ndarray) -> Steps[Values]:
    """Some rows of values that the catalog holds."""
    if not rows.size:
        rows, start, stop = np.zeros(1, np.int64), 0, 0
    else:
        start, stop = int(rows[0]), int(rows[-1]) + 1
    asked = Stored(held.parquet, name, held.first + start, held.first + stop)
    yield Wave(stored=[asked])
    assert asked.found is not None
    found = asked.found
    if stop - start and len(rows) < stop - start:
        found = found.take(pa.array(rows - start))
    return bulk.plain(found)


def _hold_index(reader: Reader, outer: ArrayIndex, part: Part, name: str) -> Steps[None]:
    """Take a ragged column's index from the catalog rather than from the file."""
    start, stop = max(part.start - 1, 0), min(part.stop, outer.rows)
    if part.held is None or stop <= start:
        return
    values = yield from _stored(part.held, name, np.arange(start, stop))
    raw = arrow(values).to_numpy().astype(np.dtype(outer.layout.element[1])).view(np.uint8)
    reader.keep(outer, start, stop, raw)


def _where(part: Part, name: str) -> str:
    return f"{shown(part.source.url)}: {part.table}: column {name!r}: "


def _index(part: Part, scan: Scan, settings: Settings, lacking: list[Failure]) -> Part:
    """The partition of a file that was not indexed while planning."""
    names = (scan.table,) if isinstance(scan.table, str) else tuple(scan.table)
    key = (file_key(part.source), names)
    # nothing tells whether the files that this one names are still the same, or may still be opened
    alone = not scan.allow_external_links
    table = _tables.get(key) if part.source.etag is not None and alone else None
    source = part.source
    if table is None:
        found = queries.index_file(
            part.source,
            scan.table,
            scan.options,
            settings,
            allow_external_links=scan.allow_external_links,
        )
        source, table = found.source, found.table
        if table is None:
            none = f"no table {' or '.join(map(hdf5.table_path, names))}"
            if scan.on_missing == "skip":
                lacking.append(Failure(shown(source.url), "read", none))
                return Part(source, "", 0, 0, 0, {}, facts=part.facts)
            raise TableNotFoundError(f"{shown(source.url)}: {none}")
        if not source.parts and alone:
            _tables.put((file_key(source), names), table, 2000 * len(table.columns))
    table = show(table, scan.shown, shown(source.url))
    wanted: Iterable[str] = [name for name in scan.fields if name in table.columns]
    columns = {}
    for name in wanted:
        column = table.columns[name]
        if column.problem:
            raise NWBReadError(
                f"{shown(source.url)}: {table.path}: column {name!r}: {column.problem}"
            )
        columns[name] = (column.arrays, column.labels)
    known = {*columns, *part.facts, *PROVENANCE}
    absent = [name for name in scan.fields if name not in known]
    if absent:
        none = f"no column {', '.join(absent)}"
        if scan.on_missing == "raise":
            raise NWBReadError(f"{shown(source.url)}: {table.path}: {none}")
        lacking.append(Failure(shown(source.url), "read", f"{none} in {table.path}"))
    return Part(source, table.path, 0, table.rows, 0, columns, facts=part.facts)


# ------------------------------------------------------------------------------------------- the frame
def _frame(pieces: Sequence[Piece], fields: Sequence[Field], numbered: bool) -> pd.DataFrame:
    """The pieces one after the other."""
    data = {f.name: series([p.values[f.name] for p in pieces], f) for f in fields}
    labels = [p.rows - p.part.start + (p.part.offset if numbered else 0) for p in pieces]
    joined = labels[0] if len(labels) == 1 else np.concatenate(labels)
    return pd.DataFrame(data, index=bulk.index_of(joined), copy=False)
