"""Values of few files each, put together: what many refreshes have added becomes a few Parquet files again.

Values are written once for each table and part, so that whoever refreshes every day would soon have hundreds
of Parquet files to read. When there are many that hold the values of only a few NWB files, these become
one; and when there are many such again, larger ones. What is large in bytes stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lazynwb_dask.catalog.batch import Part
from lazynwb_dask.catalog.folder import Place
from lazynwb_dask.catalog.values import Writer, values_name
from lazynwb_dask.storage import parquet

SIZES = (8, 128)  # NWB files whose values a Parquet file should hold at least
MANY = 16  # that hold fewer may be left as they are
LARGE = 1 << 20  # bytes of a Parquet file that is worth its requests


def is_scattered(part: Part) -> bool:
    """Whether there is anything to put together."""
    return next(_groups(part.tables["tables"], part.values), None) is not None


def gathered(
    tables: Mapping[str, pa.Table], sizes: Mapping[str, int], place: Place, build: str
) -> tuple[dict[str, pa.Table], dict[str, bytes]]:
    """The index with values put together where they were scattered, and the Parquet files to write.

    Parameters
    ----------
    tables : dict of str to pyarrow.Table
        The index, sorted.
    sizes : dict
        The Parquet files of values that it refers to.
    place : Place
    build : str
    """
    result, files = dict(tables), dict[str, bytes]()
    groups = list(_groups(tables["tables"], sizes))
    if not groups:
        return result, files
    moved = _Moved(tables)
    for names in groups:
        writer, name = Writer(), values_name(build)
        for old in names:
            moved.move(old, _whole(place, old, sizes[old]), writer, name)
        files[name] = writer.parquet()
    result |= moved.tables()
    return result, files


def _whole(place: Place, name: str, size: int) -> pa.Table:
    file = place.parquet(name, size)
    footer = parquet.footer(file, place.access)
    names = footer.schema.to_arrow_schema().names
    groups = range(footer.num_row_groups)
    return parquet.table(file, names, groups, place.access).combine_chunks()


def _groups(rows: pa.Table, sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Parquet files of values to be put together, of one table each."""
    there = rows.filter(rows["values"].is_valid())
    counted = there.group_by(["table", "values"]).aggregate([("file", "count")]).to_pylist()
    by_table: dict[str, list[tuple[int, str]]] = {}
    for row in counted:
        if sizes[row["values"]] < LARGE:
            by_table.setdefault(row["table"], []).append((row["file_count"], row["values"]))
    for found in by_table.values():
        for size in SIZES:  # what is too small for a size comes first, then what is for the next
            small = [one for one in found if one[0] < size]
            if len(small) > MANY:
                yield from _cut(sorted(small, key=lambda one: one[1]))
                break


def _cut(small: Sequence[tuple[int, str]]) -> Iterator[list[str]]:
    """Groups of about as many NWB files as the largest size asks for."""
    held, total = [], 0
    for count, name in small:
        held.append(name)
        total += count
        if total >= SIZES[-1]:
            yield held
            held, total = [], 0
    if len(held) > 1:
        yield held


class _Moved:
    """Rows of the index whose values are moved to another Parquet file."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self._of_tables, self._of_columns = tables["tables"], tables["columns"]
        self._values: list[str | None] = self._of_tables["values"].to_pylist()
        self._first: list[int | None] = self._of_tables["first"].to_pylist()
        self._table: list[str] = self._of_tables["table"].to_pylist()
        self._file: list[int] = self._of_tables["file"].to_pylist()
        self._rows: list[int] = self._of_tables["rows"].to_pylist()
        self._held = {kind: self._of_columns[kind].to_pylist() for kind in ("values", "index")}
        self._column: list[str] = self._of_columns["column"].to_pylist()
        self._by_values: dict[str, list[int]] = {}
        for i, name in enumerate(self._values):
            if name is not None:
                self._by_values.setdefault(name, []).append(i)
        self._by_file: dict[tuple[str, int], list[int]] = {}
        held = self._of_columns["values"].is_valid().to_numpy()
        held = held | self._of_columns["index"].is_valid().to_numpy()
        names, numbers = self._of_columns["table"].to_pylist(), self._of_columns["file"].to_pylist()
        for i in np.flatnonzero(held).tolist():
            self._by_file.setdefault((names[i], numbers[i]), []).append(i)

    def move(self, old: str, values: pa.Table, writer: Writer, new: str) -> None:
        """All that is in one Parquet file."""
        for i in self._by_values[old]:
            columns = self._by_file[self._table[i], self._file[i]]
            first, rows = self._first[i] or 0, self._rows[i]
            at = writer.rows
            named = writer.add(rows, *(
                {
                    self._column[c]: _slice(values, held[c], first, rows)
                    for c in columns
                    if held[c] is not None
                }
                for held in self._held.values()
            ))  # fmt: skip
            for held, names in zip(self._held.values(), named, strict=True):
                for c in columns:
                    if held[c] is not None:
                        held[c] = names[self._column[c]]
            self._values[i], self._first[i] = new, at

    def tables(self) -> dict[str, pa.Table]:
        """The rows as they are now."""
        tables = _replaced(self._of_tables, "values", self._values)
        tables = _replaced(tables, "first", self._first)
        columns = self._of_columns
        for kind, held in self._held.items():
            columns = _replaced(columns, kind, held)
        return {"tables": tables, "columns": columns}


def _slice(values: pa.Table, name: str, first: int, rows: int) -> pa.Array:
    piece = values[name].slice(first, rows).combine_chunks()
    return piece.chunk(0) if isinstance(piece, pa.ChunkedArray) else piece


def _replaced(table: pa.Table, name: str, held: list[Any]) -> pa.Table:
    at = table.schema.get_field_index(name)
    field = table.schema.field(name)
    return table.set_column(at, field, pa.array(held, field.type))
