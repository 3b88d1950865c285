"""Reads the index of a catalog, whole or for one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from lazynwb_dask.catalog.batch import Batch
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.catalog.manifest import Manifest
from lazynwb_dask.catalog.tables_schema import COLUMNS, INDEX
from lazynwb_dask.errors import NWBReadError, TableNotFoundError
from lazynwb_dask.metadata.queries import open_file
from lazynwb_dask.model.index import ArrayIndex, ColumnIndex, Extents, Layout, TableIndex
from lazynwb_dask.model.packing import layout_of, parts_of
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.jobs import IndexTable, ListSeries
from lazynwb_dask.nwb.names import table_path
from lazynwb_dask.storage import parquet

Variant = tuple[tuple[Layout, ...], tuple[str, ...] | None, bool]


@dataclass(frozen=True, eq=False)
class IndexReader:
    """The index of one snapshot of a catalog. Files are numbered by their rows in ``files``."""

    folder: Folder
    manifest: Manifest

    def rows(self, kind: str, names: Sequence[str] | None = None) -> pa.Table:
        return self.folder.table(*self.manifest.index[kind], names)

    def section(self, kind: str, table: str, names: Sequence[str]) -> pa.Table:
        """The rows of `tables` or `columns` for one table."""
        at = self.manifest.sections.get(table, (0, 0, 0, 0))
        start, stop = at[:2] if kind == "tables" else at[2:]
        if stop <= start:
            return pa.schema([INDEX[kind].field(name) for name in names]).empty_table()
        file, access = self.file(kind), self.folder.access
        groups, first = parquet.groups_of(file, start, stop, access)
        rows = parquet.table(file, names, groups, access)
        return rows.slice(start - first, stop - start)

    def file(self, kind: str) -> parquet.ParquetFile:
        return self.folder.parquet(*self.manifest.index[kind])

    def batch(self) -> Batch:
        tables = {kind: self.rows(kind).cast(schema) for kind, schema in INDEX.items()}
        return Batch(tables, self.manifest.values)

    @cached_property
    def files(self) -> pa.Table:
        return self.rows("files", ["url", "size", "etag", "parts", "document", "problem"])

    @cached_property
    def variants(self) -> list[str]:
        found: list[str] = self.rows("variants")["variant"].to_pylist()
        return found

    def source(self, number: int) -> Source:
        return source_of(self.files.slice(number, 1).to_pylist()[0])

    def table_paths(self, number: int) -> list[str]:
        rows = self.rows("tables", ["table", "file"])
        found: list[str] = _of_files(rows, [number])["table"].to_pylist()
        return found

    def table_indexes(self, table: str, numbers: Sequence[int]) -> list[TableIndex]:
        """One table of some files, equal to that read from the files. Raises TableNotFoundError if a file
        doesn't have it."""
        path = table_path(table)
        names = ["file", "rows", "notes", "attributes", "damage", "problem"]
        tables = _of_files(self.section("tables", path, names), numbers)
        heads = {row["file"]: row for row in tables.to_pylist()}
        rows = _of_files(self.section("columns", path, COLUMNS.names), numbers)
        columns: dict[int, list[dict[str, Any]]] = {number: [] for number in numbers}
        for row in rows.to_pylist():
            columns[row["file"]].append(row)
        used = rows["variant"].unique().drop_null().to_pylist()
        variants = {number: variant_of(self.variants[number]) for number in used}
        found = []
        for number in numbers:
            if number not in heads:
                raise TableNotFoundError(f"no table {path} in {shown(self.source(number).url)}")
            if heads[number]["problem"]:
                raise NWBReadError(heads[number]["problem"])
            found.append(_table_index(path, heads[number], columns[number], variants))
        return found

    def contents(self, number: int, names: Sequence[str] | None) -> list[TableIndex]:
        """A file's tables, from the index, and TimeSeries, from the file, at these paths; None: all."""
        source, tables = self.source(number), self.table_paths(number)
        paths = None if names is None else [table_path(name) for name in names]
        wanted = None if paths is None else [path for path in paths if path not in tables]
        series = {} if wanted == [] else self._read_series(source, wanted)
        for path in paths or ():
            if path not in tables and path not in series:
                raise TableNotFoundError(
                    f"no table or TimeSeries {path} in {shown(source.url)}. Its tables: {', '.join(tables)}"
                )
        return [
            series[path] if path in series else self.table_indexes(path, [number])[0]
            for path in ([*tables, *series] if paths is None else paths)
        ]

    def _read_series(self, source: Source, paths: Sequence[str] | None) -> dict[str, TableIndex]:
        passes = open_file(source, self.folder.access)
        paths = passes.run(ListSeries()) if paths is None else paths
        found = {path: passes.run(IndexTable((path,), details=True)) for path in paths}
        return {path: table for path, table in found.items() if table is not None}


def _of_files(rows: pa.Table, numbers: Sequence[int]) -> pa.Table:
    return rows.filter(pa.array(np.isin(rows["file"].to_numpy(), list(numbers))))


def source_of(row: dict[str, Any]) -> Source:
    """The file of a row of `files`."""
    parts = parts_of(json.loads(row["parts"] or "[]"))
    return Source(row["url"], row["size"], row["etag"], parts, row["document"] or "")


def variant_of(text: str) -> Variant:
    """Layouts, labels, and whether it is a region, from the text of a row of `variants`."""
    try:
        layouts, labels, region = json.loads(text)
        return (
            tuple(layout_of(layout) for layout in layouts),
            None if labels is None else tuple(labels),
            bool(region),
        )
    except (ValueError, TypeError):
        raise NWBReadError(
            "a damaged catalog, or one of another version: build it again with catalog.refresh(anew=True)"
        ) from None


def _table_index(
    path: str, head: dict[str, Any], columns: list[dict[str, Any]], variants: dict[int, Variant]
) -> TableIndex:
    """One file's table, from its rows of `tables` and `columns`."""
    made: dict[str, ColumnIndex] = {}
    for row in sorted(columns, key=lambda row: int(row["position"])):
        name = row["column"]
        common: dict[str, Any] = {
            "rows": head["rows"],
            "notes": tuple(json.loads(row["notes"] or "[]")),
            "attributes": json.loads(row["attributes"] or "{}"),
        }
        if row["variant"] is None:
            made[name] = ColumnIndex(name, problem=row["problem"] or "it can't be read", **common)
            continue
        layouts, labels, region = variants[row["variant"]]
        arrays, at = [], 0
        for layout in layouts:
            extents, at = Extents.unpack(row["extents"], at)
            arrays.append(ArrayIndex(layout, extents))
        made[name] = ColumnIndex(name, tuple(arrays), labels=labels, region=region, **common)
    return TableIndex(
        path, head["rows"], made, tuple(json.loads(head["notes"] or "[]")),
        json.loads(head["attributes"] or "{}"), head["damage"] or "",
    )  # fmt: skip
