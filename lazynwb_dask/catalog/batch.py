"""A batch: rows of the index of some files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lazynwb_dask.catalog.column_stats import statistics
from lazynwb_dask.catalog.survey import Surveyed
from lazynwb_dask.catalog.tables_schema import INDEX
from lazynwb_dask.catalog.values import Writer, values_name
from lazynwb_dask.model.index import ColumnIndex
from lazynwb_dask.model.packing import layout_json, parts_json

MAX_VALUES = 256  # tables of a batch whose values are kept, those of most files first


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of the index. Files and variants are numbered from 0."""

    tables: Mapping[str, pa.Table]  # as in `INDEX`
    values: Mapping[str, int]  # the Parquet files of values, and their sizes


def batch_of(files: Sequence[Surveyed]) -> tuple[Batch, dict[str, bytes]]:
    """The batch, and the Parquet files of values by name."""
    count = Counter(
        table.path
        for file in files
        for table in file.tables
        if file.values[table.path] or file.indexes[table.path]
    )
    writers = {path: (values_name(), Writer()) for path, _ in count.most_common(MAX_VALUES)}
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in INDEX}
    variants: dict[str, int] = {}
    for number, file in enumerate(files):
        rows["files"].append(_file_row(file))
        for path, problem in file.problems.items():
            rows["tables"].append({"table": path, "file": number, "rows": 0, "problem": problem})
        for table in file.tables:
            values, indexes = file.values[table.path], file.indexes[table.path]
            name, first = "", 0
            named, ends = dict[str, str](), dict[str, str]()
            if table.path in writers:
                name, writer = writers[table.path]
                first = writer.rows
                named, ends = writer.add(table.rows, values, indexes)
            rows["tables"].append({
                "table": table.path, "file": number, "rows": table.rows,
                "values": name if named or ends else None, "first": first,
                "notes": _json(table.notes), "attributes": _json(table.attributes),
                "damage": table.damage or None,
            })  # fmt: skip
            for position, column in enumerate(table.columns.values()):
                row = _column_row(column, variants)
                row |= {"table": table.path, "file": number, "position": position}
                row |= {"values": named.get(column.name), "index": ends.get(column.name)}
                if column.name in values:
                    row |= statistics(values[column.name])
                rows["columns"].append(row)
    rows["variants"] = [{"variant": text} for text in variants]
    tables = {kind: pa.Table.from_pylist(rows[kind], schema) for kind, schema in INDEX.items()}
    parquets = {name: writer.parquet() for name, writer in writers.values()}
    return Batch(tables, {name: len(data) for name, data in parquets.items()}), parquets


def _file_row(file: Surveyed) -> dict[str, Any]:
    return {
        "url": file.source.url, "size": file.source.size, "etag": file.source.etag,
        "parts": _json(parts_json(file.source.parts)), "document": file.source.document or None,
        "session": None if file.problem else json.dumps(file.session),
        "problem": file.problem or None, "rising": _json(file.rising),
    }  # fmt: skip


def _column_row(column: ColumnIndex, variants: dict[str, int]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "column": column.name,
        "extents": b"".join(replace(array.extents, heap=()).pack() for array in column.arrays),
        "notes": _json(column.notes),
        "attributes": _json(column.attributes),
    }
    if column.problem:
        return row | {"variant": None, "short": False, "bytes": 0, "problem": column.problem}
    layouts, labels = column.variant
    text = json.dumps([[layout_json(layout) for layout in layouts], labels, column.region])
    return row | {
        "variant": variants.setdefault(text, len(variants)),
        "short": column.short,
        "bytes": column.nbytes / max(column.rows, 1),
    }


def _json(value: Any) -> str | None:
    return json.dumps(value) if value else None
