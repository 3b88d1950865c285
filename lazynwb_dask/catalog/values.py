"""The values of small columns: one Parquet file for each table of a batch, with the rows of its NWB files
one file after the other. Columns have the table's names, where types differ ``name (type)``. The outermost
index of a ragged column is ``name (index)``."""

from __future__ import annotations

import io
import uuid
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from lazynwb_dask.decode.arrays import Values, arrow
from lazynwb_dask.storage import parquet

ROW_GROUP = 32_768  # rows: enough to be worth a request, and few if one file's are needed


def values_name() -> str:
    return f"values/{uuid.uuid4().hex}.parquet"


class Writer:
    """Collects one table of many files."""

    def __init__(self) -> None:
        self.rows = 0
        self._pieces: dict[str, list[tuple[int, pa.Array]]] = {}  # by name: first row, values
        self._types: dict[str, pa.DataType] = {}

    def add(
        self, rows: int, values: Mapping[str, Values], indexes: Mapping[str, Values]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Add one file's values. Returns their names in the Parquet file, and those of the indexes."""
        named = {name: self._keep(name, held) for name, held in values.items()}
        ends = {name: self._keep(f"{name} (index)", held) for name, held in indexes.items()}
        self.rows += rows
        return named, ends

    def _keep(self, name: str, values: Values) -> str:
        held = arrow(values)
        if self._types.setdefault(name, held.type) != held.type:
            name = f"{name} ({held.type})"
            while self._types.setdefault(name, held.type) != held.type:
                name += "'"
        self._pieces.setdefault(name, []).append((self.rows, held))
        return name

    def parquet(self) -> bytes:
        columns = {name: self._column(name, pieces) for name, pieces in self._pieces.items()}
        return written(pa.table(columns), ROW_GROUP)

    def _column(self, name: str, pieces: Sequence[tuple[int, pa.Array]]) -> pa.ChunkedArray:
        kind = self._types[name]
        chunks, at = [], 0
        for first, values in pieces:
            if first > at:
                chunks.append(pa.nulls(first - at, kind))
            chunks.append(values)
            at = first + len(values)
        if at < self.rows:
            chunks.append(pa.nulls(self.rows - at, kind))
        return pa.chunked_array(chunks, kind)


def written(table: pa.Table, group: int) -> bytes:
    """A table as a Parquet file with checksums."""
    sink = io.BytesIO()
    texts = [f.name for f in table.schema if _repeats(f.type)]
    pq.write_table(
        table, sink, row_group_size=group, compression="zstd", use_dictionary=texts,
        write_statistics=False, write_page_checksum=True,
    )  # fmt: skip
    return parquet.with_checksum(sink.getvalue())


def _repeats(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))
