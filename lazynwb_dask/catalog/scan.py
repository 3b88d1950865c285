"""From a catalog to the scan of one table, by columns, without an object for each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.catalog.lookup import Tables, codes_of, combined, find_columns, find_tables
from lazynwb_dask.catalog.reader import Variant, variant_of
from lazynwb_dask.decode.available import missing_filter
from lazynwb_dask.decode.convert import all_null, exceeds_float
from lazynwb_dask.errors import NWBReadError, TableNotFoundError
from lazynwb_dask.model.index import ColumnIndex, TableIndex, column_type
from lazynwb_dask.model.packing import parts_of
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.plan.checks import check_columns, check_overrides, warn_left_out
from lazynwb_dask.plan.partitions import assemble
from lazynwb_dask.plan.report import report
from lazynwb_dask.plan.schema import Found, may_be_null, settle
from lazynwb_dask.plan.statistics import Columns
from lazynwb_dask.plan.table_scan import warn_skipped
from lazynwb_dask.read.arrays import read_column
from lazynwb_dask.scan.catalog_slots import NONE, Inlined, Slots
from lazynwb_dask.scan.fields import Schema
from lazynwb_dask.scan.records import ABSENT, Files, Records
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.util.suggest import did_you_mean, listed
from lazynwb_dask.util.warn import warn


def schema_of(
    catalog: Catalog, tables: Tables, columns: Columns, request: TableRequest
) -> tuple[Schema, dict[int, Variant]]:
    """The schema of all files, and the variants that occur and can be decoded, by number."""
    variant = columns.rows["variant"]
    used = np.unique(variant.drop_null().to_numpy())
    texts = catalog.index.variants
    variants = {int(v): variant_of(texts[v]) for v in used.tolist()}
    types = {v: column_type(*one) for v, one in variants.items()}
    lacked = {v: missing_filter(layouts) for v, (layouts, _, _) in variants.items()}
    kinds = variant.fill_null(ABSENT).to_numpy()
    outside = columns.rows["values"].is_null().to_numpy()
    unusable = outside & np.isin(kinds, [v for v, reason in lacked.items() if reason])
    short = columns.rows["short"].to_numpy()
    found: dict[str, Found] = {}
    for name, run in columns.runs.items():
        kind, at = np.where(unusable[run], ABSENT, kinds[run]), columns.at[run]
        by_type: dict[pa.DataType, list[np.ndarray]] = {}
        for v in np.unique(kind).tolist():
            if v != ABSENT:
                by_type.setdefault(types[v], []).append(at[kind == v])
        problems = {}
        for i in np.flatnonzero(kind == ABSENT).tolist():
            reason = columns.rows["problem"][run.start + i].as_py() or lacked.get(int(kinds[run.start + i]), "")
            problems[int(at[i])] = reason
        held = {t: np.sort(np.concatenate(where)).tolist() for t, where in by_type.items()}
        empty: set[int] = set()
        if len(held) > 1:
            some = at[(kind != ABSENT) & short[run]].tolist()
            for i, (_, column) in _indexed(catalog, tables, name, some).items():
                if not column.arrays[-1].rows:
                    empty.add(i)
        found[name] = Found(len(at), held, bool(short[run].any()), problems, empty)
    urls = catalog.files["url"]
    place = {int(n): i for i, n in enumerate(catalog.numbers)} if len(found) else {}

    def url(i: int) -> str:
        return str(urls[place[int(tables.number[i])]])

    rows = tables.rows.tolist()
    unified = settle(found, rows, url, request.overrides, on_error=request.on_error)
    nulls = {
        name: _all_null(catalog, tables, columns, name, found[name])
        for name, conflict in unified.conflicts.items()
        if not conflict.unreadable
    }
    for name in unified.narrow:  # as far as statistics tell
        run = columns.runs[name]
        rows_of = columns.rows.slice(run.start, run.stop - run.start)
        floats = {i for kind, at in found[name].by_type.items() if pa.types.is_floating(kind) for i in at}
        nans = dict(zip(columns.at[run].tolist(), rows_of["nans"].to_pylist(), strict=True))
        if all(nans[i] == rows[i] for i in floats) and any(
            map(exceeds_float, (rows_of["min_int"], rows_of["max_int"]))
        ):
            nulls[name] = floats
    if any(nulls.values()):
        unified = settle(found, rows, url, request.overrides, nulls, request.on_error)
    return unified, {v: one for v, one in variants.items() if not lacked[v]}


def _indexed(
    catalog: Catalog, tables: Tables, name: str, where: Sequence[int]
) -> dict[int, tuple[TableIndex, ColumnIndex]]:
    """One column of the files at the positions `where`, by position."""
    found: dict[int, tuple[TableIndex, ColumnIndex]] = {}
    for path in {int(tables.path[i]) for i in where}:
        mine = [i for i in where if tables.path[i] == path]
        held = catalog.index.table_indexes(tables.paths[path], [int(tables.number[i]) for i in mine])
        found |= {i: (table, table.columns[name]) for i, table in zip(mine, held, strict=True)}
    return found


def _all_null(catalog: Catalog, tables: Tables, columns: Columns, name: str, found: Found) -> set[int]:
    """The files in which a column is all null or NaN, from statistics where there are any, else read."""
    run = columns.runs[name]
    nans = columns.rows["nans"].slice(run.start, run.stop - run.start).to_pylist()
    known = dict(zip(columns.at[run].tolist(), nans, strict=True))
    floats = {i for kind, at in found.by_type.items() if pa.types.is_floating(kind) for i in at}
    texts = {i for kind, at in found.by_type.items() if pa.types.is_string(kind) for i in at}
    result = {i for i in floats if known[i] == tables.rows[i]}
    unknown = sorted(texts | {i for i in floats if known[i] is None})
    folder = catalog.index.folder
    for i, (table, column) in _indexed(catalog, tables, name, unknown).items():
        if may_be_null(column):
            source = catalog.index.source(int(tables.number[i]))
            if all_null(read_column(source, table, name, folder.access)):
                result.add(i)
    return result


@dataclass(frozen=True, eq=False)
class _Known:
    tables: Tables
    columns: Columns
    variants: Mapping[int, Variant]


def _scan_of(catalog: Catalog, found: _Known, unified: Schema, request: TableRequest) -> Scan:
    tables, columns = found.tables, found.columns
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
        records[name] = _records(part, at, columns.extents, run, found.variants, count)
        for held, kind in ((values, "values"), (indexes, "index")):
            slots = _slots(part[kind], at, count)
            if slots is not None:
                held[name] = slots
    folder = catalog.index.folder
    sizes = catalog.manifest.values
    inlined = Inlined(
        tuple(folder.parquet(name, sizes[name]) for name in tables.parquets),
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
        documents=_documents(mine["document"]),
    )
    built = assemble(files, tables.rows, unified, request, folder.access.options, columns)
    failures = tuple((f.path, f.stage, f.error) for f in (*tables.failures, *unified.unread))
    token = _token(catalog, tables, built)
    return replace(built, known_token=token, failures=failures)


def _parts(column: pa.ChunkedArray) -> tuple[tuple[Source, ...], ...]:
    """The files that each file refers to; empty if no file refers to any."""
    if column.null_count == len(column):
        return ()
    return tuple(parts_of(json.loads(text or "[]")) for text in column.to_pylist())


def _documents(column: pa.ChunkedArray) -> tuple[str, ...]:
    return () if column.null_count == len(column) else tuple(column.fill_null("").to_pylist())


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
    outside = part["values"].is_null().to_numpy() & np.isin(kind, list(variants))
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
    held = combined(column)
    code = codes_of(held)
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
        scan.request.on_error, scan.request.on_missing, scan.options.token,
    )  # fmt: skip
    digest.update(repr(rest).encode())
    return digest.hexdigest()


def catalog_scan(catalog: Catalog, request: TableRequest) -> Scan:
    """The scan of a table over the files of a catalog, after all checks of the request."""
    tables = find_tables(catalog, request)
    if tables.failures and request.on_error == "raise":
        raise NWBReadError(tables.failures[0].error)
    if len(tables.absent) and (request.on_missing == "raise" or not len(tables.number)):
        raise TableNotFoundError(_no_table(catalog, tables.paths, tables.absent))
    if not len(tables.number) and tables.failures:
        failed = tables.failures[0]
        raise NWBReadError(
            f"none of the {len(tables.failures)} files can be read; the first: {failed.path}: {failed.error}"
        )
    if not len(tables.number):
        raise TableNotFoundError(f"{shown(catalog.url)}: the catalog has no files left")
    warn_skipped(tables.failures, len(catalog))
    if len(tables.absent):
        first = shown(catalog.index.source(int(tables.absent[0])).url)
        warn(
            f"{len(tables.absent)} of {len(catalog)} files have no table {_or(tables.paths)} and are "
            f"left out (the first: {first}); on_missing='raise' makes this an error"
        )
    columns = find_columns(catalog, tables)
    unified, variants = schema_of(catalog, tables, columns, request)
    check_overrides(request.overrides, unified)
    check_columns(request.named_columns, unified)
    warn_left_out(unified)
    return _scan_of(catalog, _Known(tables, columns, variants), unified, request)


def report_of(catalog: Catalog, request: TableRequest) -> pd.DataFrame:
    """See `lazynwb_dask.schema_report`."""
    tables = find_tables(catalog, request)
    if not len(tables.number):
        raise TableNotFoundError(_no_table(catalog, tables.paths, tables.absent))
    unified, _ = schema_of(catalog, tables, find_columns(catalog, tables), request)
    found: list[tuple[str, TableIndex]] = []
    numbers = tables.number.tolist()
    urls = dict(zip(catalog.numbers.tolist(), catalog.paths, strict=True))
    for i, path in enumerate(tables.paths):
        mine = [n for n, p in zip(numbers, tables.path.tolist(), strict=True) if p == i]
        pairs = zip(mine, catalog.index.table_indexes(path, mine), strict=True)
        found += [(urls[number], index) for number, index in pairs]
    return report(found, unified)


def _or(names: Iterable[str]) -> str:
    return " or ".join(names) or "as chosen"


def _no_table(catalog: Catalog, names: list[str], absent: np.ndarray) -> str:
    there = catalog.tables.index.tolist()
    first = shown(catalog.index.source(int(absent[0])).url)
    text = f"no table {_or(names)} in {first}"
    if len(absent) > 1:
        text += f" and {len(absent) - 1} more of the {len(catalog)} files"
    return f"{text}{did_you_mean(names, there)} The catalog's tables: {listed(there)}"
