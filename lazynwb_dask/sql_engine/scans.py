"""A frame as DuckDB scans it: it asks for columns and rows when it needs them, and Dask reads these alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset

from lazynwb_dask import expr
from lazynwb_dask.stream.arrow import ROWS, arrow_schema, record_batches

if TYPE_CHECKING:
    import dask.dataframe as dd


class FrameScan(pa.dataset.Dataset):  # type: ignore[misc]
    """A frame under names of columns that no statement and no file can have, so that DuckDB's plan can be read.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
    prefix : str
        Begins the names.
    lengths : mapping
        For columns of lists, in lower case: the name of a column with their lengths, which replaces them.
    """

    def __init__(self, frame: dd.DataFrame, prefix: str, lengths: Mapping[str, str]) -> None:
        self.frame, self.prefix = frame, prefix
        self.failed: BaseException | None = None
        self.lengths: dict[str, str] = {}
        types = arrow_schema(frame._meta)
        self._fields = [pa.field(f"{prefix}_", pa.bool_())]  # of which only the rows are counted
        self.names: dict[str, str] = {}  # by the names that DuckDB knows, those of the frame
        for i, field in enumerate(types):
            kind, name = readable(field.type), f"{prefix}_{i}"
            if pa.types.is_list(kind) and (length := lengths.get(field.name.lower())):
                self.lengths[name], kind = length, pa.int64()
            self._fields.append(pa.field(name, kind))
            self.names[name] = field.name
        self._safe = re.compile(rf"{prefix}_\d*")

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(self._fields)

    def shown(self) -> list[tuple[str, str]]:
        """The columns as DuckDB knows them and as a statement names them. Names that differ by case alone get
        a number, as in a frame of pandas that DuckDB reads."""
        found: dict[str, str] = {}
        for name, of in self.names.items():
            wanted = shown = self.lengths.get(name, of)
            number = 0
            while shown.lower() in found:
                number += 1
                shown = f"{wanted}_{number}"
            found[shown.lower()] = name
            found[name] = shown
        return [(name, found[name]) for name in self.names]

    def is_called(self, column: str) -> bool:
        """Whether a statement names a column of the frame as it is called there."""
        return (column, column) in [(self.names[name], shown) for name, shown in self.shown()]

    def column(self, name: str) -> Any:
        """The series of a column. Raises KeyError if it is none of the frame's."""
        series = self.frame[self.names[name]]
        return series.nwb.len() if name in self.lengths else series

    def named(self, text: str) -> list[str]:
        """The columns that are named in a text of DuckDB's."""
        return list(dict.fromkeys(self._safe.findall(text)))

    def said(self, text: str) -> str:
        """The text with the frame's own names."""
        return self._safe.sub(lambda found: self.lengths.get(found[0], self.names.get(found[0], "rows")), text)

    def lists(self, columns: Sequence[str]) -> list[str]:
        """Those of the columns that have lists."""
        return [name for name in columns if pa.types.is_list(self.schema.field(name).type)]

    def narrowed(self, columns: Sequence[str]) -> dd.DataFrame:
        """The frame with these columns, under DuckDB's names."""
        plain = list(dict.fromkeys(self.names[c] for c in columns if c in self.names and c not in self.lengths))
        counted = [name for name in columns if name in self.lengths]
        if not plain:
            plain = ["_table_index" if "_table_index" in self.frame.columns else self.frame.columns[0]]
        if not counted:
            return self.frame[plain]
        whole = self.frame[[*plain, *(self.names[name] for name in counted)]]
        return whole.assign(**{name: whole[self.names[name]].nwb.len() for name in counted})[[*plain, *counted]]

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None, **kwargs: Any) -> _Scanner:
        """Called by DuckDB as that of any dataset of Arrow."""
        return _Scanner(self, list(self.schema.names if columns is None else columns), filter)

    def batches(self, columns: Sequence[str], condition: Any) -> Iterator[pa.RecordBatch]:
        needed = list(dict.fromkeys([*columns, *self.named(str(condition) if condition is not None else "")]))
        schema = pa.schema([self.schema.field(name) for name in needed])
        stored = [name for name in needed if name in self.names]
        try:
            if not stored and condition is None and is_counted(self.frame):
                yield from _rows(len(self.frame), schema)
                return
            frame = self.narrowed(stored)
            where = {name: name if name in self.lengths else self.names[name] for name in stored}
            for batch in record_batches(frame):
                arrays = [
                    _as(batch.column(where[name]), schema.field(name).type) if name in where
                    else pa.nulls(batch.num_rows, pa.bool_())
                    for name in needed
                ]  # fmt: skip
                made = pa.RecordBatch.from_arrays(arrays, schema=schema)
                if condition is not None:
                    made = made.filter(condition)
                yield made.select(list(columns))
        except Exception as exc:
            self.failed = exc
            raise


class _Scanner:
    """What DuckDB takes for a scanner of Arrow."""

    def __init__(self, scan: FrameScan, columns: list[str], condition: Any) -> None:
        self._scan, self._columns, self._condition = scan, columns, condition

    @property
    def projected_schema(self) -> pa.Schema:
        return pa.schema([self._scan.schema.field(name) for name in self._columns])

    def to_reader(self) -> pa.RecordBatchReader:
        made = self._scan.batches(self._columns, self._condition)
        return pa.RecordBatchReader.from_batches(self.projected_schema, made)


def is_counted(frame: dd.DataFrame) -> bool:
    """Whether the length of a frame is known without reading it."""
    found = expr.taken_apart(frame)
    return found is not None and found[2] is None and found[0].lengths is not None


def _rows(count: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    whole = pa.RecordBatch.from_arrays([pa.nulls(ROWS, field.type) for field in schema], schema=schema)
    for start in range(0, count, ROWS):
        yield whole.slice(0, min(ROWS, count - start))


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return values if values.type == kind else values.cast(kind)


def readable(kind: pa.DataType) -> pa.DataType:
    """The type that DuckDB reads a type as."""
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(readable(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, readable(field.type)) for field in kind])
    return kind
