"""Leaves out partitions in which no row can satisfy a condition, by statistics of each file's values and by
the row numbers of each partition. For each comparison it is determined whether it can be true and whether
it can be false; if that is unknown, both are assumed. pandas compares the smallest and largest value in the
column's own dtype; if all distinct values are known, the condition is evaluated on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_bool_dtype

from lazynwb_dask.plan.statistics import ColumnEnds, Ends, of_rows
from lazynwb_dask.predicate.query import Query
from lazynwb_dask.predicate.tree import Column, Constant, Operation, Predicate, Then
from lazynwb_dask.predicate.visitor import Visitor
from lazynwb_dask.scan.fields import PROVENANCE, Field
from lazynwb_dask.scan.scan import Scan

_NUMBERS = (int, float, np.integer, np.floating, np.bool_)


class Judged(NamedTuple):
    """For each partition or file: whether the condition can be true, and false or missing, for any row."""

    true: np.ndarray
    false: np.ndarray


class FileStatistics(ColumnEnds):
    def possible(self, predicate: Predicate, scan: Scan) -> np.ndarray | None:
        """Whether each partition may hold rows that satisfy the predicate; None if nothing is known."""
        known = {*PROVENANCE, *(() if self._columns is None else self._columns.runs)}
        if known.isdisjoint(predicate.columns):
            return None
        found = _Judge(self, scan).of(predicate).true
        return None if found.all() else found


class _Judge(Visitor[Judged]):
    """Evaluates one condition for each partition of the scan. `loose` is set inside a query, where a
    missing value may count as true in more cases than in a frame's own arithmetic (``not (x == 'a')`` of a
    missing x)."""

    def __init__(self, statistics: FileStatistics, scan: Scan, loose: bool = False) -> None:
        self.statistics, self.scan, self.loose = statistics, scan, loose

    @property
    def unknown(self) -> Judged:
        return Judged(*np.ones((2, self.scan.nparts), bool))

    def both(self, left: Judged, right: Judged) -> Judged:
        return Judged(left.true & right.true, left.false | right.false)

    def either(self, left: Judged, right: Judged) -> Judged:
        return Judged(left.true | right.true, left.false & right.false)

    def negated(self, of: Judged) -> Judged:
        return Judged(of.false, of.true)

    def one_by_one(self, steps: list[Judged]) -> Judged:
        return Judged(np.all([step.true for step in steps], axis=0), self.unknown.false)

    def query(self, query: Query) -> Judged:
        return _Judge(self.statistics, self.scan, loose=True).of(query.tree)

    def of(self, node: Predicate) -> Judged:
        try:
            found = super().of(node)
            tried = self._tried(node)
        except Exception:
            # pandas can't compare these values: reading raises the error
            return self.unknown
        if tried is not None:
            found = Judged(found.true & tried.true, found.false & tried.false)
        return found

    def missing(self, name: str, missing: bool) -> Judged:
        ends = self._ends(name)
        if ends is None:
            return self.unknown
        found = self._of_partitions(name, ends.missing | ~ends.known, ends.there | ~ends.known)
        return found if missing else self.negated(found)

    def among(self, name: str, values: Any) -> Judged:
        ends = self._ends(name)
        if ends is None:
            return self.unknown
        found = self._any_among(name, ends, values)
        return self._of_partitions(name, found, np.ones(len(found), bool))

    def _ends(self, name: str) -> Ends | None:
        """The statistics of a column in each file; for row numbers, in each partition."""
        if name == "_table_index":
            return of_rows(self.scan.start, self.scan.stop)
        field = self.scan.fields.get(name)
        return None if field is None else self.statistics.ends(field)

    def _of_partitions(self, name: str, true: np.ndarray, false: np.ndarray) -> Judged:
        if name == "_table_index":
            return Judged(true, false)
        return Judged(true[self.scan.file], false[self.scan.file])

    def compared(self, name: str, symbol: str, value: Any) -> Judged:
        ends = self._ends(name)
        if ends is None or np.ndim(value):
            return self.unknown
        true, false = np.zeros((2, len(ends.known)), bool)
        for low, high in _precisions(ends):

            def holds(values: Any, op: str) -> np.ndarray:
                return _mask(Operation(op, (Column(name), Constant(value))), name, values)

            if symbol in (">", ">="):
                may, must = holds(high, symbol), holds(low, symbol)
            elif symbol in ("<", "<="):
                may, must = holds(low, symbol), holds(high, symbol)
            else:
                may = holds(low, "<=") & holds(high, ">=")
                must = holds(low, "==") & holds(high, "==")
                if symbol == "!=":
                    may, must = ~must, ~may
            true |= may
            false |= ~must
        true, false = true & ends.there, (false & ends.there) | ends.missing
        if symbol == "!=":
            true = true | ends.missing
        return self._of_partitions(name, true | ~ends.known, false | ~ends.known)

    def _any_among(self, name: str, ends: Ends, values: Any) -> np.ndarray:
        """Whether any of the values lies between the smallest and largest of the column."""
        kind = self.scan.fields[name].type
        given = list(values)
        nulls = [bool(pd.api.types.is_scalar(v) and pd.isna(v)) for v in given]
        real = [v for v, null in zip(given, nulls, strict=True) if not null]
        some = np.zeros(len(ends.known), bool)
        if pa.types.is_string(kind):
            if not all(isinstance(v, str) for v in real):
                return ~some
            low, high = (pd.Series(end).fillna("") for end in (ends.low, ends.high))
            some = _any_between(np.sort(_encoded(real)), _encoded(low), _encoded(high))
        else:
            if not all(isinstance(v, _NUMBERS) for v in real):
                return ~some
            dtype = kind.to_pandas_dtype() if pa.types.is_floating(kind) else np.float64
            sought = np.array([float(v) for v in real], np.float64)
            sought = np.unique(np.concatenate([sought, sought.astype(dtype).astype(np.float64)]))
            lows, highs = (pd.Series(end).to_numpy(np.float64, na_value=0) for end in (ends.low, ends.high))
            some = _any_between(sought, lows, highs)
        found = some & ends.there
        if any(nulls):
            found |= ends.missing
        result: np.ndarray = found | ~ends.known
        return result

    def _tried(self, node: Predicate) -> Judged | None:
        """The condition evaluated on each distinct value of its only column, if these are known."""
        if len(node.inputs) != 1 or isinstance(node, Then):
            return None
        (name,) = node.inputs
        ends = None if name is None else self._ends(name)
        if ends is None or name is None or not ends.complete.any():
            return None
        field = self.scan.fields[name]
        if isinstance(node, Column) and not pa.types.is_boolean(field.type):
            return None
        true, false = np.zeros((2, len(ends.known)), bool)
        if len(ends.few_files):
            codes, distinct = pd.factorize(pd.Series(ends.few_values))
            values = pd.Series(distinct, dtype=field.dtype).array
            holds = _mask(node, name, values)[codes]
            np.logical_or.at(true, ends.few_files, holds)
            np.logical_or.at(false, ends.few_files, ~holds)
        if _nullable(field):
            null = pd.Series([None], dtype=field.dtype).array
            true |= ends.missing & (self.loose or bool(_mask(node, name, null)[0]))
            false |= ends.missing  # what is neither true nor false counts as both
        return self._of_partitions(name, true | ~ends.complete, false | ~ends.complete)


def _nullable(field: Field) -> bool:
    return not isinstance(field.dtype, np.dtype) or field.dtype.kind == "f"


def _precisions(ends: Ends) -> list[tuple[Any, Any]]:
    """The ends as they are and as float64, as a query may compare in a higher precision than the
    column's."""
    dtype = getattr(ends.low, "dtype", None)
    found = [(ends.low, ends.high)]
    if isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize < 8:
        found.append((ends.low.astype(np.float64), ends.high.astype(np.float64)))
    return found


def _mask(node: Predicate, name: str, values: Any) -> np.ndarray:
    """Where a condition is true for values of its only column."""
    frame = pd.DataFrame({name: values})
    found = node(frame)
    if not is_bool_dtype(found.dtype):
        raise TypeError("not a condition")
    result = np.zeros(len(frame), bool)
    kept = pd.Series(np.arange(len(frame)))[found if isinstance(found, np.ndarray) else found.array]
    result[kept.to_numpy()] = True
    return result


def _encoded(texts: Iterable[str]) -> np.ndarray:
    return np.array([text.encode() for text in texts], object)


def _any_between(sought: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> np.ndarray:
    """Whether any of the sorted values lies between each pair of ends."""
    if not len(sought):
        return np.zeros(len(lows), bool)
    first = np.searchsorted(sought, lows, "left")
    inside = first < len(sought)
    found: np.ndarray = inside & (sought[np.minimum(first, len(sought) - 1)] <= highs)
    return found.astype(bool)
