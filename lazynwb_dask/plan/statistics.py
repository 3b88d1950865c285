"""The smallest and largest value of each column in each file, as pruning uses them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.scan.fields import Field
from lazynwb_dask.scan.records import Files
from lazynwb_dask.scan.to_pandas import series

_TEXTS = pa.list_(pa.string())


@dataclass(frozen=True, eq=False)
class Columns:
    """The rows of the catalog's `columns` for the scan's files, sorted by column, then file."""

    rows: pa.Table
    at: np.ndarray  # for each row the position of its file
    runs: dict[str, slice]  # by column, in the frame's order
    extents: pa.LargeBinaryArray


@dataclass(frozen=True, eq=False)
class Ends:
    """The statistics of one column, with one element for each file."""

    known: np.ndarray  # bool
    there: np.ndarray  # bool: there are values besides null and NaN
    missing: np.ndarray  # bool: there are nulls or NaN
    low: Any  # smallest value, of the frame's dtype; undefined if there are no values
    high: Any  # largest value
    few_files: np.ndarray  # of each of `few_values`, its file
    few_values: Any  # all distinct values of the files that are `complete`
    complete: np.ndarray  # bool: all distinct values are known


class ColumnEnds:
    """The statistics of a scan's columns. `columns` come from a catalog, if there is one; `rows` has the
    number of rows of each file."""

    def __init__(self, columns: Columns | None, rows: np.ndarray, files: Files) -> None:
        self._columns, self._rows, self._files = columns, rows, files

    @cached_property
    def _ends(self) -> dict[str, Ends | None]:
        return {}

    def ends(self, field: Field) -> Ends | None:
        """The statistics of a column, converted to the type of `field`."""
        if field.name not in self._ends:
            self._ends[field.name] = self._found(field)
        return self._ends[field.name]

    @property
    def count(self) -> int:
        return len(self._rows)

    def _found(self, field: Field) -> Ends | None:
        if field.name in ("_nwb_path", "_table_path"):
            return self._constant(field)
        columns, kind = self._columns, field.type
        if columns is None or field.name not in columns.runs:
            return None
        run = columns.runs[field.name]
        if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return self._numbers(field, columns, run)
        return self._texts(field, columns, run) if pa.types.is_string(kind) else None

    def _constant(self, field: Field) -> Ends:
        files = self._files
        if field.name == "_nwb_path":
            values = pa.array(files.urls, pa.string())
        else:
            values = pa.array(files.tables, pa.string()).take(pa.array(files.table))
        held = _as(values, field)
        yes, every = self._rows > 0, np.arange(self.count)
        always = np.ones(self.count, bool)
        return Ends(always, yes, ~always, held, held, every[yes], held[yes], always)

    def _base(
        self, columns: Columns, run: slice
    ) -> tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The rows of a column, their files, and for each file `known`, `there` and `missing` as in
        `Ends`."""
        rows = columns.rows.slice(run.start, run.stop - run.start)
        at = columns.at[run]
        told = rows["nulls"].is_valid().to_numpy()
        absent = rows["nulls"].fill_null(0).to_numpy() + rows["nans"].fill_null(0).to_numpy()
        known, there, missing = np.ones(self.count, bool), *np.zeros((2, self.count), bool)
        missing[:] = self._rows > 0  # of files that lack the column
        known[at] = told
        there[at] = ~told | (absent < self._rows[at])
        missing[at] = ~told | (absent > 0)
        return rows, at, known, there, missing

    def _numbers(self, field: Field, columns: Columns, run: slice) -> Ends | None:
        rows, at, known, there, missing = self._base(columns, run)
        whole = rows["min_int"].is_valid().to_numpy()
        real = rows["min_float"].is_valid().to_numpy()
        ends = []
        for side in ("min", "max"):
            numbers = rows[f"{side}_int"].fill_null(0).to_numpy()
            if pa.types.is_floating(field.type):
                numbers = np.where(real, rows[f"{side}_float"].fill_null(0).to_numpy(), numbers)
            full = np.zeros(self.count, numbers.dtype)
            full[at] = numbers
            ends.append(full)
        if pa.types.is_boolean(field.type):
            whole &= (rows["min_int"].fill_null(0).to_numpy() >= 0) & (
                rows["max_int"].fill_null(0).to_numpy() <= 1
            )
        told = whole | real if pa.types.is_floating(field.type) else whole
        known[at] &= told | ~there[at]
        low, high = (_as(pa.array(end), field) for end in ends)
        one = known & there & (ends[0] == ends[1])
        single = np.flatnonzero(one)
        few_files, few = single, ends[0][single]
        complete = one | (known & ~there)
        if pa.types.is_boolean(field.type):
            both = np.flatnonzero(known & there & ~one)
            few_files = np.concatenate([few_files, both, both])
            few = np.concatenate([few, np.zeros(len(both), few.dtype), np.ones(len(both), few.dtype)])
            complete = known
        return Ends(known, there, missing, low, high, few_files, _as(pa.array(few), field), complete)

    def _texts(self, field: Field, columns: Columns, run: slice) -> Ends | None:
        rows, at, known, there, missing = self._base(columns, run)
        told = rows["min_text"].is_valid().to_numpy()
        listed = rows["texts"].is_valid().to_numpy()
        numeric = rows["min_int"].is_valid().to_numpy() | rows["min_float"].is_valid().to_numpy()
        known[at] &= ~numeric  # which become text only in the frame
        complete = known & ~there
        complete[at] |= known[at] & listed
        told_texts = rows["texts"].unify_dictionaries().combine_chunks()
        held = told_texts.chunk(0) if isinstance(told_texts, pa.ChunkedArray) else told_texts
        codes, which = np.unique(held.indices.fill_null(-1).to_numpy(), return_inverse=True)
        names = held.dictionary.take(pa.array(np.maximum(codes, 0))).to_pylist() if listed.any() else []
        parsed = [json.loads(t) if c >= 0 else None for c, t in zip(codes.tolist(), names, strict=False)]
        lists = pa.array(parsed or [None], _TEXTS).take(pa.array(which.reshape(-1)))
        counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        few_files = np.repeat(at, counts)
        known[at] &= told | listed | ~there[at]
        ends = []
        for side in ("min_text", "max_text"):
            place = np.full(self.count, -1)
            place[at] = np.where(told, np.arange(len(at)), -1)
            picked = pa.array(place, mask=place < 0)
            ends.append(_as(rows[side].combine_chunks().take(picked), field))
        low, high = ends
        unbounded = known.copy()
        unbounded[at] &= told | ~there[at]
        return Ends(unbounded, there, missing, low, high, few_files, _as(lists.flatten(), field), complete)


def of_rows(start: np.ndarray, stop: np.ndarray) -> Ends:
    """The statistics of the row numbers of partitions from `start` to `stop`."""
    always = np.ones(len(start), bool)
    return Ends(
        always, stop > start, ~always, start, stop - 1, start[:0], start[:0], ~always
    )  # fmt: skip


def _as(values: Any, field: Field) -> Any:
    """Values of the statistics in the frame's dtype."""
    held = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if not len(held):
        return pd.Series([], dtype=field.dtype).array
    made = series([pc.cast(held, field.type, safe=False)], Field(field.name, field.type, field.nullable))
    return made
