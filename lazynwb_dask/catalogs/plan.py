"""From a catalog to the scan of one table: by columns, with no object for each file."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .. import parquet
from ..assembly import assemble
from ..decode import arrow
from ..errors import Failure, NWBReadError, TableNotFoundError
from ..formats.hdf5 import Table, table_path
from ..index import TableIndex, column_type
from ..inlined import NONE, Inlined, Slots
from ..packing import parts_of
from ..read import read_column
from ..records import ABSENT, Files, Records
from ..scan import Scan
from ..schema import Found, Schema, report, settle
from ..sources import Source, shown
from .catalog import Catalog
from .layout import COLUMNS, STATISTICS
from .pruning import FileStatistics
from .tables import Variant, section, variant_of, whole

_PLANNED = [
    "column", "file", "position", "variant", "short", "bytes", "values", "index", "problem",
    *STATISTICS.names,
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tables:
    """The table that was asked for, over the catalog's files.

    Attributes
    ----------
    number : numpy.ndarray of int64
        The files that have it, as rows of the index.
    path : numpy.ndarray of int32
        For each which table it is, into `paths`.
    paths : list of str
    rows, first : numpy.ndarray of int64
    parquet : numpy.ndarray of int32
        Where its values are, into `parquets`.
    parquets : list of str
    absent : numpy.ndarray of int64
        The files that don't have it.
    failures : list of Failure
    """

    number: np.ndarray
    path: np.ndarray
    paths: list[str]
    rows: np.ndarray
    first: np.ndarray
    parquet: np.ndarray
    parquets: list[str]
    absent: np.ndarray
    failures: list[Failure]


@dataclass(frozen=True, eq=False)
class Columns:
    """The rows of `columns` of the files in question, sorted by column, then file."""

    rows: pa.Table
    at: np.ndarray  # for each row the position of its file
    runs: dict[str, slice]  # by column, in the frame's order
    extents: pa.LargeBinaryArray


def find_tables(catalog: Catalog, table: Table) -> Tables:
    """Which table each of the catalog's files has of those asked for."""
    where = np.full(catalog.manifest.files, -1, np.int64)
    where[catalog.numbers] = np.arange(len(catalog))
    picked = np.full(len(catalog), -1, np.int32)
    names = _candidates(catalog, table)
    columns = ["file", "rows", "values", "first", "problem"]
    held = []
    for i, (name, mine) in enumerate(names.items()):
        rows = section(catalog.place, catalog.manifest, "tables", name, columns)
        at = where[rows["file"].to_numpy()]
        free = at >= 0
        free[free] = picked[at[free]] < 0
        if mine is not None:
            free &= np.isin(at, mine)
        picked[at[free]] = i
        held.append((at[free], rows.filter(pa.array(free))))
    at = np.concatenate([np.zeros(0, np.int64), *[a for a, _ in held]])
    order = np.argsort(at, kind="stable")
    joined = pa.concat_tables(
        [pa.schema([f for f in _TABLE if f.name in columns]).empty_table(), *[r for _, r in held]]
    ).unify_dictionaries()
    joined, at = joined.take(pa.array(order)).combine_chunks(), at[order]
    bad = joined["problem"].is_valid().to_numpy()
    failures = []
    for i in np.flatnonzero(bad).tolist():
        url = shown(catalog.paths[int(at[i])])
        failures.append(Failure(url, "plan", joined["problem"][i].as_py()))
    joined, at = joined.filter(pa.array(~bad)).combine_chunks(), at[~bad]
    values = _array(joined["values"])
    codes = _codes(values)
    used, renumbered = np.unique(codes[codes >= 0], return_inverse=True)
    codes[codes >= 0] = renumbered.reshape(-1)
    return Tables(
        catalog.numbers[at],
        picked[at],
        list(names),
        joined["rows"].to_numpy(),
        joined["first"].fill_null(0).to_numpy(),
        codes,
        values.dictionary.take(pa.array(used)).to_pylist(),
        catalog.numbers[picked < 0],
        failures,
    )


def _candidates(catalog: Catalog, table: Table) -> dict[str, np.ndarray | None]:
    """The tables in question, and for each in which of the files; None for any."""
    if not callable(table):
        names = [table] if isinstance(table, str) else list(table)
        return {table_path(name): None for name in names}
    rows = whole(catalog.place, catalog.manifest, "tables", ["table", "file"])
    paths: dict[int, list[str]] = {}
    for file, path in zip(rows["file"].to_pylist(), rows["table"].to_pylist(), strict=True):
        paths.setdefault(file, []).append(path)
    found: dict[str, list[int]] = {}
    for at, number in enumerate(catalog.numbers.tolist()):
        choice = table(paths.get(number, []))
        if choice is not None:
            found.setdefault(table_path(choice), []).append(at)
    return {name: np.array(mine) for name, mine in found.items()}


def find_columns(catalog: Catalog, tables: Tables) -> Columns:
    """The columns of these tables."""
    where = np.full(catalog.manifest.files, -1, np.int64)
    where[tables.number] = np.arange(len(tables.number))
    pieces, ats, extents = [], [], []
    for i, path in enumerate(tables.paths):
        rows = section(catalog.place, catalog.manifest, "columns", path, _PLANNED)
        at = where[rows["file"].to_numpy()]
        mine = at >= 0
        mine[mine] = tables.path[at[mine]] == i
        outside = rows["values"].is_null().to_numpy() & rows["variant"].is_valid().to_numpy()
        packed = _extents(catalog, path, outside)
        if not mine.all():
            rows, at = rows.filter(pa.array(mine)), at[mine]
            packed = packed.filter(pa.array(mine))
        pieces.append(rows)
        ats.append(at)
        extents.append(packed)
    empty = pa.schema([COLUMNS.field(name) for name in _PLANNED]).empty_table()
    rows = pa.concat_tables([empty, *pieces]).unify_dictionaries().combine_chunks()
    at = np.concatenate([np.zeros(0, np.int64), *ats])
    packed = pa.concat_arrays([pa.array([], pa.large_binary()), *extents])
    names = _array(rows["column"])
    code = _codes(names)
    key = code.astype(np.int64) * max(len(tables.number), 1) + at
    if (np.diff(key) < 0).any():
        order = np.argsort(key, kind="stable")
        rows, at, code = rows.take(pa.array(order)).combine_chunks(), at[order], code[order]
        packed = packed.take(pa.array(order))
    begins = np.flatnonzero(np.diff(code, prepend=-1))
    ends = np.append(begins[1:], len(code))
    position = rows["position"].to_numpy()
    # as if the files were looked at one after the other: each adds what those before it lacked
    frame_order = np.lexsort((position[begins], at[begins]))
    labels = names.dictionary.to_pylist()
    runs = {labels[int(code[begins[i]])]: slice(int(begins[i]), int(ends[i])) for i in frame_order}
    return Columns(rows, at, runs, packed)


def _extents(catalog: Catalog, path: str, wanted: np.ndarray) -> pa.LargeBinaryArray:
    """The extents of the rows of a section that are wanted, nothing for the others.

    Only row groups that hold any are read: most columns' values are in the catalog itself.
    """
    place, manifest = catalog.place, catalog.manifest
    start, stop = manifest.sections.get(path, (0, 0, 0, 0))[2:]
    file = place.parquet(*manifest.index["columns"])
    groups, first = parquet.groups_of(file, start, stop, place.options, place.settings)
    footer = parquet.footer(file, place.options, place.settings)
    todo, spans, at = [], [], first
    for group in groups:
        end = at + footer.row_group(group).num_rows
        a, b = max(at, start) - start, min(end, stop) - start
        spans.append((a, b, at - start))
        if wanted[a:b].any():
            todo.append(group)
        at = end
    if todo:
        read = parquet.table(file, ["extents"], todo, place.options, place.settings)["extents"]
    pieces, offset = [pa.array([], pa.large_binary())], 0
    for group, (a, b, begin) in zip(groups, spans, strict=True):
        if group not in todo:
            pieces.append(pa.array([b""], pa.large_binary()).take(pa.array(np.zeros(b - a, int))))
            continue
        rows = footer.row_group(group).num_rows
        piece = _array(read.slice(offset + a - begin, b - a))
        offset += rows
        pieces.append(pc.if_else(pa.array(wanted[a:b]), piece, pa.scalar(b"", pa.large_binary())))
    return pa.concat_arrays(pieces)


# ------------------------------------------------------------------------------------------------ schema
def schema_of(
    catalog: Catalog, tables: Tables, columns: Columns, overrides: Mapping[str, Any]
) -> tuple[Schema, dict[int, Variant]]:
    """One schema of all files, and the variants that occur."""
    variant = columns.rows["variant"]
    used = np.unique(variant.drop_null().to_numpy())
    texts = catalog.variants
    variants = {int(v): variant_of(texts[v]) for v in used.tolist()}
    types = {v: column_type(*one) for v, one in variants.items()}
    kinds = variant.fill_null(ABSENT).to_numpy()
    short = columns.rows["short"].to_numpy()
    found: dict[str, Found] = {}
    for name, run in columns.runs.items():
        kind, at = kinds[run], columns.at[run]
        by_type: dict[pa.DataType, list[np.ndarray]] = {}
        for v in np.unique(kind).tolist():
            if v != ABSENT:
                by_type.setdefault(types[v], []).append(at[kind == v])
        problems = np.flatnonzero(kind == ABSENT)
        reason = ""
        if len(problems):
            reason = columns.rows["problem"][run.start + int(problems[0])].as_py() or ""
        held = {t: np.sort(np.concatenate(where)).tolist() for t, where in by_type.items()}
        found[name] = Found(len(at), held, bool(short[run].any()), at[problems].tolist(), reason)
    urls = catalog.files["url"]
    place = {int(n): i for i, n in enumerate(catalog.numbers)} if len(found) else {}

    def url(i: int) -> str:
        return str(urls[place[int(tables.number[i])]])

    rows = tables.rows.tolist()
    unified = settle(found, rows, url, overrides)
    nulls = {
        name: _all_nan(catalog, tables, columns, name, found[name])
        for name, conflict in unified.conflicts.items()
        if not conflict.unreadable
    }
    if any(nulls.values()):
        unified = settle(found, rows, url, overrides, nulls)
    return unified, variants


def _all_nan(
    catalog: Catalog, tables: Tables, columns: Columns, name: str, found: Found
) -> set[int]:
    """The files whose values of a column, floats, are all NaN: from the statistics, else read."""
    run = columns.runs[name]
    nans = columns.rows["nans"].slice(run.start, run.stop - run.start).to_pylist()
    known = dict(zip(columns.at[run].tolist(), nans, strict=True))
    result = set()
    for kind, where in found.by_type.items():
        if not pa.types.is_floating(kind):
            continue
        for i in where:
            if known[i] is None:
                number = int(tables.number[i])
                path = tables.paths[int(tables.path[i])]
                (table,) = catalog.indexes(path, [number])
                place = catalog.place
                values = read_column(
                    catalog.source(number), table, name, place.options, place.settings
                )
                if arrow(values).is_nan().false_count == 0:
                    result.add(i)
            elif known[i] == tables.rows[i]:
                result.add(i)
    return result


# -------------------------------------------------------------------------------------------------- scan
def scan_of(
    catalog: Catalog,
    tables: Tables,
    columns: Columns,
    unified: Schema,
    variants: Mapping[int, Variant],
    blocksize: int | None,
    *,
    on_error: str,
    on_missing: str,
) -> Scan:
    """The scan of these tables."""
    count = len(tables.number)
    where = np.full(catalog.manifest.files, -1, np.int64)
    where[catalog.numbers] = np.arange(len(catalog))
    mine = catalog.files.take(pa.array(where[tables.number]))
    records: dict[str, Records] = {}
    values: dict[str, Slots] = {}
    indexes: dict[str, Slots] = {}
    for name, run in columns.runs.items():
        if name not in unified.fields:
            continue
        at = columns.at[run]
        part = columns.rows.slice(run.start, run.stop - run.start)
        records[name] = _records(part, at, columns.extents, run, variants, count)
        for held, kind in ((values, "values"), (indexes, "index")):
            slots = _slots(part[kind], at, count)
            if slots is not None:
                held[name] = slots
    place = catalog.place
    sizes = catalog.manifest.values
    inlined = Inlined(
        tuple(place.parquet(name, sizes[name]) for name in tables.parquets),
        tables.parquet, tables.first, values, indexes,
    )  # fmt: skip
    files = Files(
        tuple(mine["url"].to_pylist()),
        mine["size"].fill_null(-1).to_numpy(),
        tuple(mine["etag"].to_pylist()),
        tuple(tables.paths),
        tables.path,
        records,
        inlined,
        parts=_parts(mine["parts"]),
    )
    built = assemble(
        files, tables.rows, unified, place.options, blocksize,
        numbered=on_error == "raise", on_error=on_error, on_missing=on_missing,
    )  # fmt: skip
    failures = tuple((f.path, f.stage, f.error) for f in tables.failures)
    token = _token(catalog, tables, built)
    statistics = FileStatistics(columns, tables.rows, files)
    return replace(built, known_token=token, failures=failures, statistics=statistics)


def _parts(column: pa.ChunkedArray) -> tuple[tuple[Source, ...], ...]:
    """The files that each file refers to; nothing if none does."""
    if column.null_count == len(column):
        return ()
    return tuple(parts_of(json.loads(text or "[]")) for text in column.to_pylist())


def _records(
    part: pa.Table,
    at: np.ndarray,
    extents: pa.LargeBinaryArray,
    run: slice,
    variants: Mapping[int, Variant],
    count: int,
) -> Records:
    """One column's records; none for files whose values are in the catalog."""
    kind = part["variant"].fill_null(ABSENT).to_numpy()
    outside = part["values"].is_null().to_numpy() & (kind != ABSENT)
    weights = np.zeros(count, np.float32)
    weights[at] = part["bytes"].to_numpy()
    which = np.full(count, ABSENT, np.int32)
    used, renumbered = np.unique(kind[outside], return_inverse=True)
    which[at[outside]] = renumbered.reshape(-1)
    packed = extents.slice(run.start, run.stop - run.start)
    if not outside.all():
        packed = packed.filter(pa.array(outside))
    _, offsets, data = packed.buffers()
    ends = np.zeros(count, np.int64)
    held = b""
    if len(packed):
        borders = np.frombuffer(offsets, np.int64)[packed.offset : packed.offset + len(packed) + 1]
        held = data[int(borders[0]) : int(borders[-1])].to_pybytes() if data is not None else b""
        ends[at[outside]] = np.diff(borders)
    kinds = tuple((variants[int(v)][0], variants[int(v)][1]) for v in used.tolist())
    return Records(kinds, which, held, np.cumsum(ends), weights)


def _slots(column: pa.ChunkedArray, at: np.ndarray, count: int) -> Slots | None:
    if column.null_count == len(column):
        return None
    held = _array(column)
    code = _codes(held)
    used, renumbered = np.unique(code[code >= 0], return_inverse=True)
    which = np.full(count, NONE, np.int16)
    which[at[code >= 0]] = renumbered.reshape(-1)
    names = held.dictionary.to_pylist()
    return Slots(tuple(names[i] for i in used.tolist()), which)


def _token(catalog: Catalog, tables: Tables, scan: Scan) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(catalog.manifest.snapshot.encode())
    for array in (tables.number, tables.path, scan.start, scan.stop):
        digest.update(np.ascontiguousarray(array).tobytes() + b"|")
    fields = [(f.name, str(f.type), f.nullable) for f in scan.fields.values()]
    rest = (
        catalog.url, tables.paths, fields, scan.blocksize, scan.fusable, scan.numbered,
        scan.on_error, scan.on_missing, scan.options.token,
    )  # fmt: skip
    digest.update(repr(rest).encode())
    return digest.hexdigest()


_TABLE = [
    pa.field("file", pa.int32()),
    pa.field("rows", pa.int64()),
    pa.field("values", pa.dictionary(pa.int32(), pa.string())),
    pa.field("first", pa.int64()),
    pa.field("problem", pa.string()),
]


def _array(column: pa.ChunkedArray) -> Any:
    """A column in one piece."""
    held = column.unify_dictionaries().combine_chunks()
    return held.chunk(0) if isinstance(held, pa.ChunkedArray) else held


def _codes(values: pa.DictionaryArray) -> np.ndarray:
    """The positions in the dictionary; NONE for nulls."""
    found: np.ndarray = values.indices.fill_null(NONE).to_numpy().astype(np.int32)
    return found


# ------------------------------------------------------------------------------------------------- whole
def plan(
    catalog: Catalog,
    table: Table,
    overrides: Mapping[str, Any],
    blocksize: int | None,
    check: Callable[[Schema], None],
    *,
    on_error: str,
    on_missing: str,
) -> tuple[Scan, Schema]:
    """The scan of a table over a catalog's files, and its schema.

    Parameters
    ----------
    check : callable
        Told the schema before the scan is made.
    """
    tables = find_tables(catalog, table)
    if tables.failures and on_error == "raise":
        raise NWBReadError(tables.failures[0].error)
    if len(tables.absent) and (on_missing == "raise" or not len(tables.number)):
        raise TableNotFoundError(_no_table(catalog, tables.paths, tables.absent))
    if not len(tables.number):
        raise TableNotFoundError(f"{shown(catalog.url)}: no files are left of the catalog")
    if len(tables.absent):
        first = shown(catalog.source(int(tables.absent[0])).url)
        warnings.warn(
            f"{len(tables.absent)} of {len(catalog)} files have no table {_or(tables.paths)} and are "
            f"left out (the first: {first}); on_missing='raise' makes this an error",
            stacklevel=3,
        )
    columns = find_columns(catalog, tables)
    unified, variants = schema_of(catalog, tables, columns, overrides)
    check(unified)
    scan = scan_of(
        catalog, tables, columns, unified, variants, blocksize,
        on_error=on_error, on_missing=on_missing,
    )  # fmt: skip
    return scan, unified


def report_of(catalog: Catalog, table: Table) -> pd.DataFrame:
    """What each column is, and in how many files. See `lazynwb_dask.schema_report`."""
    tables = find_tables(catalog, table)
    if not len(tables.number):
        raise TableNotFoundError(_no_table(catalog, tables.paths, tables.absent))
    unified, _ = schema_of(catalog, tables, find_columns(catalog, tables), {})
    found: list[tuple[str, TableIndex]] = []
    numbers = tables.number.tolist()
    urls = dict(zip(catalog.numbers.tolist(), catalog.paths, strict=True))
    for i, path in enumerate(tables.paths):
        mine = [n for n, p in zip(numbers, tables.path.tolist(), strict=True) if p == i]
        pairs = zip(mine, catalog.indexes(path, mine), strict=True)
        found += [(urls[number], index) for number, index in pairs]
    return report(found, unified)


def _or(names: Iterable[str]) -> str:
    return " or ".join(names) or "as chosen"


def _no_table(catalog: Catalog, names: list[str], absent: np.ndarray) -> str:
    there = catalog.tables.index.tolist()
    first = shown(catalog.source(int(absent[0])).url)
    text = f"no table {_or(names)} in {first}"
    if len(absent) > 1:
        text += f" and {len(absent) - 1} more of the {len(catalog)} files"
    last = {name.rsplit("/", 1)[-1] for name in names}
    near = [t for name in names for t in get_close_matches(name, there, n=3, cutoff=0.5)]
    near += [t for t in there if t.rsplit("/", 1)[-1] in last]
    others = dict.fromkeys(t for t in near if t not in names)
    if others:
        text += f"; did you mean {_or(others)}?"
    return f"{text} The catalog's tables: {', '.join(there) or 'none'}"
