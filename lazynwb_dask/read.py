"""One partition, or several at once: the columns of the predicate first, then the rest for the rows it leaves.

Knows no Dask. Reads on whatever threads it is called from, and from a few of its own for the partitions of
a fused task; all of them share the storage's bounded set of connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from .cache import LRU
from .column import Reader, Steps, Wave, together
from .decode import Values, empty
from .errors import Failure, NWBError, NWBReadError, TableNotFoundError
from .formats import foreign, hdf5, tree
from .index import ArrayIndex, Extents, TableIndex
from .options import Options
from .scan import Part, Scan
from .schema import PROVENANCE, Field, convert, nothing, series
from .sources import Source, shown
from .storage import Request, Settings, fetch

if TYPE_CHECKING:
    from .predicate import Limit, Predicate

AHEAD = 64 * 1024  # a column of so few bytes comes along with the predicate's, rather than later
READERS = 32  # partitions of one task that are read at a time

_tables: LRU[TableIndex] = LRU(64 << 20)
_chunks: LRU[Extents] = LRU(64 << 20)
_paths: LRU[str] = LRU(16 << 20)


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

    Returns
    -------
    pandas.DataFrame
        With the global row number as index.
    """

    def read(i: int) -> Piece:
        try:
            return _read_part(scan, i, columns, predicate, limit, settings)
        except NWBError as exc:
            if scan.on_error != "skip":
                raise
            url = scan.files.urls[int(scan.file[i])]
            if failed is not None:
                failed.append(Failure.of(shown(url), "read", exc))
            nothing_read = {name: empty(scan.fields[name].type) for name in columns}
            return Piece(scan.part(i), np.zeros(0, np.int64), nothing_read)

    if scan.nparts == 1:
        pieces = [read(0)]
    else:
        with ThreadPoolExecutor(min(READERS, scan.nparts), "lazynwb-read") as pool:
            pieces = list(pool.map(read, range(scan.nparts)))
    fields = [scan.fields[name] for name in columns]
    return _frame(pieces, fields, scan.numbered)


def read_column(
    source: Source, table: TableIndex, name: str, options: Options, settings: Settings
) -> Values:
    """One whole column of one file, as its own type."""
    column = table.columns[name]
    reader = Reader(source.size or 0, _ChunkMaps(source))
    rows = np.arange(table.rows)
    return _run(reader.column(column.arrays, column.labels, rows), source, options, settings)


def _read_part(
    scan: Scan,
    i: int,
    columns: Sequence[str],
    predicate: Predicate | None,
    limit: Limit | None,
    settings: Settings,
) -> Piece:
    part = scan.part(i)
    if not scan.indexed:
        part = _index(part, scan, settings)
    reader = Reader(part.source.size or 0, _ChunkMaps(part.source))
    rows = np.arange(part.start, part.stop)
    first: set[str] = set()
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
        steps: list[Steps[Values | None]] = [
            _column(reader, part, scan.fields[name], rows) for name in sorted(first)
        ]
        steps += [
            _guarded(_ahead(reader, arrays, part), part, name)
            for name in rest
            if name in part.columns
            for arrays in [part.columns[name][0]]
        ]
        found = _run(together(steps), part.source, scan.options, settings)
        values = {name: v for name, v in zip(sorted(first), found, strict=False) if v is not None}
        keep = _chosen(Piece(part, rows, values), scan, sorted(first), predicate, limit)
        rows = rows[keep]
        values = {name: v[keep] if isinstance(v, np.ndarray) else v.take(pa.array(keep))
                  for name, v in values.items()}  # fmt: skip
    todo = [name for name in columns if name not in values]
    read = _run(
        together([_column(reader, part, scan.fields[name], rows) for name in todo]),
        part.source,
        scan.options,
        settings,
    )
    values |= dict(zip(todo, read, strict=True))
    return Piece(part, rows, {name: values[name] for name in columns})


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
    return _guarded(_unified(reader, part, field, rows), part, field.name)


def _unified(reader: Reader, part: Part, field: Field, rows: np.ndarray) -> Steps[Values]:
    if field.name in PROVENANCE:
        if field.name == "_table_index":
            return rows
        text = part.source.url if field.name == "_nwb_path" else part.table
        return pa.repeat(pa.scalar(text, pa.large_string()), len(rows))
    if field.name not in part.columns:
        return nothing(len(rows), field)
    arrays, labels = part.columns[field.name]
    values = yield from reader.column(arrays, labels, rows)
    return convert(values, field.type)


def _ahead(reader: Reader, arrays: Sequence[ArrayIndex], part: Part) -> Steps[None]:
    """Fetch along with the predicate's columns what saves a round trip later and costs little."""
    outer = arrays[-1]
    start = max(part.start - 1, 0) if len(arrays) > 1 else part.start
    stop = min(part.stop, outer.rows)
    todo: list[Steps[None]] = []
    if (
        not outer.layout.foreign
        and stop > start
        and (stop - start) * outer.layout.row_bytes <= AHEAD
    ):
        todo.append(reader.hold(outer, start, stop))
    todo += [reader.locate(array) for array in arrays[:-1]]
    yield from together(todo)


def _guarded(steps: Steps[Values], part: Part, name: str) -> Steps[Values]:
    """The same steps, whose errors name the file, the table and the column."""

    def guard(request: Request) -> Request:
        def sink(data: memoryview) -> None:
            try:
                request.sink(data)
            except Exception as exc:
                raise _named(exc, part, name) from None

        return Request(request.start, request.stop, sink)

    try:
        wave = next(steps)
        while True:
            asked = Wave([guard(r) for r in wave.requests], wave.addresses)
            asked.elsewhere = wave.elsewhere
            yield asked
            wave.paths = asked.paths
            wave = next(steps)
    except StopIteration as stop:
        return stop.value
    except Exception as exc:
        raise _named(exc, part, name) from None


def _named(exc: Exception, part: Part, name: str) -> Exception:
    where = f"{shown(part.source.url)}: {part.table}: column {name!r}: "
    text = str(exc)
    if text.startswith(where) or isinstance(exc, MemoryError):
        return exc
    if isinstance(exc, NWBError):
        return type(exc)(where + text)
    return NWBReadError(f"{where}damaged or not understood: {type(exc).__name__}: {text}")


def _run(steps: Steps[Values], source: Source, options: Options, settings: Settings) -> Values:
    """Run steps to their end, fetching what each wave asks for."""
    try:
        wave = next(steps)
        while True:
            if wave.addresses:
                wave.paths.update(_names(source, wave.addresses, options, settings))
            for asked in wave.elsewhere:
                asked.found = foreign.rows(source, asked.layout, asked.starts, asked.stops)
            if wave.requests:
                fetch(source, wave.requests, options, settings)
            wave = next(steps)
    except StopIteration as stop:
        return stop.value


# ---------------------------------------------------------------------------------- what is kept of files
def _key(source: Source) -> tuple[str, int | None, str | None]:
    return source.url, source.size, source.etag


class _ChunkMaps:
    """The process's chunk maps of one file; not kept for a file that nothing identifies."""

    def __init__(self, source: Source) -> None:
        self._source = _key(source)
        self._own: dict[int, Extents] = {}

    def get(self, root: int) -> Extents | None:
        if self._source[2] is None:
            return self._own.get(root)
        return _chunks.get((self._source, root))

    def put(self, root: int, extents: Extents) -> None:
        if self._source[2] is None:
            self._own[root] = extents
        else:
            _chunks.put((self._source, root), extents, 24 * extents.offsets.size + 100)


def _names(
    source: Source, addresses: set[int], options: Options, settings: Settings
) -> Mapping[int, str]:
    """The paths of objects by the addresses of their headers."""
    key = _key(source)
    known = {a: p for a in addresses if (p := _paths.get((key, a))) is not None}
    if len(known) == len(addresses):
        return {a: p for a, p in known.items() if p}
    found = tree.names_of(source, addresses, options, settings)
    if source.etag is not None:
        for address in addresses:
            path = found.get(address, "")
            _paths.put((key, address), path, len(path) + 100)
    return found


def _index(part: Part, scan: Scan, settings: Settings) -> Part:
    """The partition of a file that was not indexed while planning."""
    names = scan.table if isinstance(scan.table, str) else tuple(scan.table)
    key = (_key(part.source), names)
    table = _tables.get(key) if part.source.etag is not None else None
    source = part.source
    if table is None:
        found = hdf5.index_file(
            part.source,
            scan.table,
            scan.options,
            settings,
            allow_external_links=scan.allow_external_links,
        )
        source, table = found.source, found.table
        if table is None:
            if scan.on_missing == "skip":
                return Part(source, "", 0, 0, 0, {})
            raise TableNotFoundError(f"{shown(source.url)}: no table {scan.table}")
        _tables.put((_key(source), names), table, 2000 * len(table.columns))
    wanted: Iterable[str] = [name for name in scan.fields if name in table.columns]
    columns = {}
    for name in wanted:
        column = table.columns[name]
        if column.problem:
            raise NWBReadError(
                f"{shown(source.url)}: {table.path}: column {name!r}: {column.problem}"
            )
        columns[name] = (column.arrays, column.labels)
    absent = [name for name in scan.fields if name not in columns and name not in PROVENANCE]
    if absent and scan.on_missing == "raise":
        raise NWBReadError(f"{shown(source.url)}: {table.path}: no column {', '.join(absent)}")
    return Part(source, table.path, 0, table.rows, 0, columns)


# ------------------------------------------------------------------------------------------- the frame
def _frame(pieces: Sequence[Piece], fields: Sequence[Field], numbered: bool) -> pd.DataFrame:
    """The pieces one after the other."""
    data = {f.name: series([p.values[f.name] for p in pieces], f) for f in fields}
    labels = [p.rows - p.part.start + (p.part.offset if numbered else 0) for p in pieces]
    joined = labels[0] if len(labels) == 1 else np.concatenate(labels)
    whole = joined.size > 0 and int(joined[-1] - joined[0]) + 1 == joined.size
    index: pd.Index
    if whole:  # rows rise, so these are all of them
        index = pd.RangeIndex(int(joined[0]), int(joined[-1]) + 1)
    else:
        index = pd.Index(joined, dtype="int64")
    return pd.DataFrame(data, index=index, copy=False)
