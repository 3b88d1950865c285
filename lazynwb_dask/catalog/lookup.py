"""The tables and columns of a catalog at some paths, as arrays over all files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.catalog.tables_schema import COLUMNS, STATISTICS, TABLES
from lazynwb_dask.errors import Failure
from lazynwb_dask.model.source import shown
from lazynwb_dask.nwb.names import table_path
from lazynwb_dask.plan.index_files import damaged
from lazynwb_dask.plan.statistics import Columns
from lazynwb_dask.scan.catalog_slots import NONE
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.storage import parquet

_OF_TABLES = ["file", "rows", "values", "first", "damage", "problem"]
_OF_COLUMNS = [
    "column", "file", "position", "variant", "short", "bytes", "values", "index", "problem",
    *STATISTICS.names,
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tables:
    """The requested table in the files of a catalog. `number` and `absent` are rows of the index."""

    number: np.ndarray  # int64: the files that have it
    path: np.ndarray  # int32: which table each has, into `paths`
    paths: list[str]
    rows: np.ndarray  # int64
    first: np.ndarray  # int64: their first rows in the Parquet files
    parquet: np.ndarray  # int32: where the values are, into `parquets`
    parquets: list[str]
    absent: np.ndarray  # int64: the files that don't have it
    failures: list[Failure]


def find_tables(catalog: Catalog, request: TableRequest) -> Tables:
    """Find the requested tables. With ``on_error="skip"`` a file with a column of invalid metadata counts
    as unreadable."""
    where = np.full(catalog.manifest.files, -1, np.int64)
    where[catalog.numbers] = np.arange(len(catalog))
    picked = np.full(len(catalog), -1, np.int32)
    names = _candidates(catalog, request)
    held = []
    for i, (name, mine) in enumerate(names.items()):
        rows = catalog.index.section("tables", name, _OF_TABLES)
        at = where[rows["file"].to_numpy()]
        free = at >= 0
        free[free] = picked[at[free]] < 0
        if mine is not None:
            free &= np.isin(at, mine)
        picked[at[free]] = i
        held.append((at[free], rows.filter(pa.array(free))))
    at = np.concatenate([np.zeros(0, np.int64), *[a for a, _ in held]])
    order = np.argsort(at, kind="stable")
    empty = pa.schema([TABLES.field(name) for name in _OF_TABLES]).empty_table()
    joined = pa.concat_tables([empty, *[rows for _, rows in held]]).unify_dictionaries()
    joined, at = joined.take(pa.array(order)).combine_chunks(), at[order]
    bad = joined["problem"].is_valid().to_numpy()
    if request.on_error == "skip":
        bad = bad | joined["damage"].is_valid().to_numpy()
    failures = []
    for i in np.flatnonzero(bad).tolist():
        url, problem = catalog.paths[int(at[i])], joined["problem"][i].as_py()
        if problem:
            failures.append(Failure(shown(url), "plan", problem))
        else:
            path = list(names)[picked[at[i]]]
            failures.append(damaged(url, path, joined["damage"][i].as_py()))
    joined, at = joined.filter(pa.array(~bad)).combine_chunks(), at[~bad]
    values = combined(joined["values"])
    codes = codes_of(values)
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


def _candidates(catalog: Catalog, request: TableRequest) -> dict[str, np.ndarray | None]:
    """The possible tables, each with the positions of the files in question; None: all files."""
    if not callable(request.table):
        return {table_path(name): None for name in request.table_names}
    rows = catalog.index.rows("tables", ["table", "file"])
    paths: dict[int, list[str]] = {}
    for file, path in zip(rows["file"].to_pylist(), rows["table"].to_pylist(), strict=True):
        paths.setdefault(file, []).append(path)
    found: dict[str, list[int]] = {}
    for at, number in enumerate(catalog.numbers.tolist()):
        choice = request.table(paths.get(number, []))
        if choice is not None:
            found.setdefault(table_path(choice), []).append(at)
    return {name: np.array(mine) for name, mine in found.items()}


def find_columns(catalog: Catalog, tables: Tables) -> Columns:
    where = np.full(catalog.manifest.files, -1, np.int64)
    where[tables.number] = np.arange(len(tables.number))
    pieces, ats, extents = [], [], []
    for i, path in enumerate(tables.paths):
        rows = catalog.index.section("columns", path, _OF_COLUMNS)
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
    empty = pa.schema([COLUMNS.field(name) for name in _OF_COLUMNS]).empty_table()
    rows = pa.concat_tables([empty, *pieces]).unify_dictionaries().combine_chunks()
    at = np.concatenate([np.zeros(0, np.int64), *ats])
    packed = pa.concat_arrays([pa.array([], pa.large_binary()), *extents])
    names = combined(rows["column"])
    code = codes_of(names)
    key = code.astype(np.int64) * max(len(tables.number), 1) + at
    if (np.diff(key) < 0).any():
        order = np.argsort(key, kind="stable")
        rows, at, code = rows.take(pa.array(order)).combine_chunks(), at[order], code[order]
        packed = packed.take(pa.array(order))
    begins = np.flatnonzero(np.diff(code, prepend=-1))
    ends = np.append(begins[1:], len(code))
    position = rows["position"].to_numpy()
    # order of first occurrence, file by file
    frame_order = np.lexsort((position[begins], at[begins]))
    labels = names.dictionary.to_pylist()
    runs = {labels[int(code[begins[i]])]: slice(int(begins[i]), int(ends[i])) for i in frame_order}
    return Columns(rows, at, runs, packed)


def _extents(catalog: Catalog, path: str, wanted: np.ndarray) -> pa.LargeBinaryArray:
    """The extents of the wanted rows of a section, empty for other rows. Row groups without wanted rows are
    not read: the values of most columns are in the catalog."""
    file, access = catalog.index.file("columns"), catalog.index.folder.access
    start, stop = catalog.manifest.sections.get(path, (0, 0, 0, 0))[2:]
    groups, first = parquet.groups_of(file, start, stop, access)
    footer = parquet.footer(file, access)
    todo, spans, at = [], [], first
    for group in groups:
        end = at + footer.row_group(group).num_rows
        a, b = max(at, start) - start, min(end, stop) - start
        spans.append((a, b, at - start))
        if wanted[a:b].any():
            todo.append(group)
        at = end
    if todo:
        read = parquet.table(file, ["extents"], todo, access)["extents"]
    pieces, offset = [pa.array([], pa.large_binary())], 0
    for group, (a, b, begin) in zip(groups, spans, strict=True):
        if group not in todo:
            pieces.append(pa.array([b""], pa.large_binary()).take(pa.array(np.zeros(b - a, int))))
            continue
        rows = footer.row_group(group).num_rows
        piece = combined(read.slice(offset + a - begin, b - a))
        offset += rows
        pieces.append(pc.if_else(pa.array(wanted[a:b]), piece, pa.scalar(b"", pa.large_binary())))
    return pa.concat_arrays(pieces)


def combined(column: pa.ChunkedArray) -> Any:
    held = column.unify_dictionaries().combine_chunks()
    return held.chunk(0) if isinstance(held, pa.ChunkedArray) else held


def codes_of(values: pa.DictionaryArray) -> np.ndarray:
    """Positions in the dictionary; NONE for nulls."""
    found: np.ndarray = values.indices.fill_null(NONE).to_numpy().astype(np.int32)
    return found
