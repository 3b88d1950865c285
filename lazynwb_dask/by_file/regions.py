"""Rows of one table with columns of another one of the same file, that a column of the first refers to: by
row numbers or by a key, one for each row or a list. A join of which each row of the left table has a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.by_file.alignment import Ints, Plan, Rows, align, file_scans
from lazynwb_dask.by_file.join import Pairs, apart, comparable, exact, taken, width
from lazynwb_dask.by_file.join_columns import PATH, Output
from lazynwb_dask.by_file.row_labels import packed
from lazynwb_dask.cluster.failures import report_missing
from lazynwb_dask.decode.runs import spread
from lazynwb_dask.errors import Failure, NWBError

ROW = "_table_index"
ELEMENT = -3  # where the column that refers comes from, if each row of the result has one element of it


class Reference(NamedTuple):
    """A column that refers to rows of another table."""

    column: str
    key: str  # the column of the other table that has its values
    form: str  # "first", "list" or "explode"
    table: str  # the other one, for messages
    is_error: bool  # whether it has to lead somewhere
    origin: str = ""  # the token by which it is noted that it leads nowhere


def follow(left: Plan, right: Plan, reference: Reference, names: Sequence[tuple[str, str]]) -> Regions:
    """The scan of the left rows with columns of the right ones that they refer to. `names` are those of the
    result and of the right table."""
    sides = align([left, right], lambda there: there[0], "_nwb_path")
    special = {"_nwb_path": PATH} | ({reference.column: ELEMENT} if reference.form == "explode" else {})
    outputs = [Output(name, special.get(name, 0), name) for name in left.columns]
    if "_nwb_path" not in left.columns:
        outputs.append(Output("_nwb_path", PATH, "_nwb_path"))
    outputs += [Output(name, 1, source) for name, source in names]
    first = file_scans(left.scan)[0]
    reference = reference._replace(origin=getattr(first, "origin", "") or first.token)
    keys = ((reference.column, reference.key),)
    made = Regions(sides, None, "left", keys, tuple(outputs), reference)
    return replace(made, offset=made._offset_known())


@dataclass(frozen=True, eq=False)
class Regions(Pairs):
    """Rows, and those that they refer to. Made by `follow`. Rows have the labels that they had before, if
    these are known; elements of lists have labels of their own."""

    reference: Reference
    kind = "region"

    @cached_property
    def extents(self) -> Ints | None:
        side = self.sides[0]
        if side.sizes is None or self.reference.form == "explode":
            return None
        found: Ints = np.maximum(side.sums(side.sizes), 1)
        return found

    def _offset_known(self) -> Ints | None:
        side, extents = self.sides[0], self.extents
        if extents is None or side.sizes is None:
            return None
        before = np.cumsum(side.sizes) - side.sizes
        if side.starts is not None and len(side.parts) and side.there.all():
            first = side.borders[:-1]
            base = np.repeat(side.starts[first] - before[first], np.diff(side.borders))
            own: Ints = side.starts[first]
            if (side.starts == base + before).all() and (own[1:] >= (own + extents)[:-1]).all():
                return own
        numbered: Ints = np.cumsum(extents) - extents
        return numbered

    def _sources(self, columns: Iterable[str]) -> list[set[str]]:
        found = super()._sources(columns)
        found[1].add(ROW)
        return found

    def _what(self) -> tuple[Any, ...]:
        return "region", *self.reference, self.outputs

    @property
    def width(self) -> int:
        return width(self.sides[0]) + (self.reference.form == "explode")

    def apart(self, number: Ints, file: Ints) -> list[Ints]:
        if self.reference.form != "explode":
            return apart(self.sides[0], number, file)
        return super().apart(number, file)

    def _match(self, left: Rows, right: Rows) -> _Followed:  # type: ignore[override]
        values, counts = _elements(left.frame[self.reference.column])
        form, rows = self.reference.form, np.arange(len(counts))
        starts = np.cumsum(counts) - counts
        if form == "first":
            values, counts = values.iloc[starts[counts > 0]], np.minimum(counts, 1)
        found = self._found(values, left.file[np.repeat(rows, counts)], right)
        if form == "list":
            labels = self._numbered(left)
            return _Followed([rows, found], left.file, labels, np.append(0, np.cumsum(counts)))
        some = counts > 0
        counts = np.maximum(counts, 1)  # rows without an element stay, as one row
        row = np.repeat(rows, counts)
        at = np.full(len(row), -1)
        at[np.repeat(some, counts)] = found
        if form == "first":
            return _Followed([row, at], left.file, self._numbered(left))
        element = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        numbers = [part[row] for part in apart(self.sides[0], left.number, left.file)]
        packs = packed([*numbers, element])
        if packs is None:
            raise NWBError(
                f"{self.urls[0]}: there are too many rows to number in this join and the joins "
                "before: use how='list', or map_files"
            )
        return _Followed([row, at], left.file[row], pd.Index(packs, dtype="int64"), None, element)

    def _numbered(self, left: Rows) -> pd.Index[int]:
        numbers = left.number if self.offset is None else left.number + self.offset[left.file]
        return pd.Index(numbers, dtype="int64")

    def _found(self, values: pd.Series[Any], file: Ints, right: Rows) -> Ints:
        """The positions of the rows that are meant, or -1."""
        ref = self.reference
        held = pd.DataFrame({"file": right.file, ROW: right.frame[ROW].array, "at": np.arange(len(right.file))})
        values, keys = exact(*comparable(values, right.frame[ref.key]))
        held["key"] = keys.array
        held = held[held["key"].notna()].drop_duplicates(["file", ROW])  # of a file that is read twice
        twice = held.duplicated(["file", "key"])
        if twice.any():
            one = held[twice].iloc[0]
            raise NWBError(
                f"{self.urls[one['file']]}: {_said(ref, one['key'])} is there several times, so {ref.column!r} "
                f"doesn't tell which is meant: use merge_by_file, which gives all of them"
            )
        asked = pd.DataFrame({"file": file, "key": values.array})
        matched = asked.merge(held.drop(columns=ROW), on=["file", "key"], how="left")["at"]
        at = matched.fillna(-1).to_numpy(np.int64)
        lost = np.flatnonzero((at < 0) & values.notna().to_numpy(bool))
        if lost.size and ref.is_error:
            first = lost[0]
            raise NWBError(
                f"{self.urls[file[first]]}: {ref.column!r} refers to {_said(ref, values.iloc[first])}, which "
                "isn't there; on_missing='skip' gives missing values instead"
            )
        if lost.size:
            error = f"no row of {ref.table} for some values of {ref.column!r}"
            urls = [str(self.urls[i]) for i in np.unique(file[lost]).tolist()]
            report_missing(ref.origin, [Failure(url, "read", error) for url in urls])
        return at

    def _column(self, output: Output, rows: Sequence[Rows], pairs: Any) -> Any:
        if output.side == ELEMENT:
            values, counts = _elements(rows[0].frame[output.source])
            row, starts = pairs.at[0], np.cumsum(counts) - counts
            return taken(values, np.where(counts[row] > 0, starts[row] + pairs.element, -1), True)
        if output.side != 1 or pairs.borders is None:
            return super()._column(output, rows, pairs)
        values = pa.array(taken(rows[1].frame[output.source], pairs.at[1], True))
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks()
        if pa.types.is_large_string(values.type):
            values = values.cast(pa.string())
        is_null = rows[0].frame[self.reference.column].isna().to_numpy()[pairs.at[0]]
        borders = pa.array(pairs.borders, pa.int64())
        lists = pa.LargeListArray.from_arrays(borders, values, mask=pa.array(is_null))
        return pd.array(lists.cast(pa.list_(values.type)), dtype=pd.ArrowDtype(pa.list_(values.type)))


class _Followed(NamedTuple):
    """As `Pairs` has them: positions on both sides, the file and the label of each row. `borders`, if each
    row has several positions on the right; `element`, if it has one element of a list."""

    at: list[Ints]
    file: Ints
    labels: pd.Index[int]
    borders: Ints | None = None
    element: Ints | None = None

    def take(self, keep: Ints) -> _Followed:
        file, labels, row = self.file[keep], self.labels[keep], self.at[0][keep]
        if self.borders is None:
            element = None if self.element is None else self.element[keep]
            return _Followed([row, self.at[1][keep]], file, labels, None, element)
        counts = np.diff(self.borders)[keep]
        at = self.at[1][spread(self.borders[keep], counts)]
        return _Followed([row, at], file, labels, np.append(0, np.cumsum(counts)))


def _elements(column: pd.Series[Any]) -> tuple[pd.Series[Any], Ints]:
    """The elements of all rows, one after the other, and how many each row has. A value is one element, a
    missing one none."""
    dtype = column.dtype
    if not (isinstance(dtype, pd.ArrowDtype) and pa.types.is_nested(dtype.pyarrow_dtype)):
        there = column.notna().to_numpy(bool)
        return column[there].reset_index(drop=True), there.astype(np.int64)
    lists = pa.chunked_array(column.array.__arrow_array__()).combine_chunks()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = lists.flatten()
    return pd.Series(pd.array(values, dtype=pd.ArrowDtype(values.type))), counts


def _said(ref: Reference, value: Any) -> str:
    value = value.item() if isinstance(value, np.generic) else value
    return f"row {value} of {ref.table}" if ref.key == ROW else f"{ref.key} {value!r} of {ref.table}"
