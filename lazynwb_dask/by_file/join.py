"""Two tables of the same files joined file by file, as a scan. pandas matches and orders the rows by the
keys alone. Other columns are taken, and large ones read, only for the rows that the join, conditions on
both tables and limits leave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lazynwb_dask.by_file.alignment import LONGEST, ByFile, Ints, Plan, Rows, Side, align, hold
from lazynwb_dask.by_file.join_columns import KEY, PATH, Output, outputs_of
from lazynwb_dask.by_file.row_labels import packed, unpacked
from lazynwb_dask.errors import NWBError
from lazynwb_dask.predicate.tree import Labelled, Predicate, Renamed, conjuncts, then
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.util.threads import at_once

LATE = 64 * 1024  # larger columns (bytes a partition) are read only for the rows that are left
MOST = 1 << 62  # labels of a whole frame
# The sides whose rows are all in the result.
_KEPT: Mapping[str, tuple[bool, bool]] = {
    "inner": (False, False), "left": (True, False), "right": (False, True), "outer": (True, True),
}  # fmt: skip


class _Pushed(NamedTuple):
    """A predicate on the result: the parts that the sides apply, and the rest."""

    sides: tuple[Predicate | None, Predicate | None]
    rest: Predicate | None


def join(
    sides: tuple[Plan, Plan],
    keys: Sequence[tuple[str, str]],
    how: str,
    suffixes: Sequence[Any],
    by: str = "_nwb_path",
) -> Pairs:
    """The scan of two tables joined file by file. Each of `keys` has the name on the left and on the right;
    `how` and `suffixes` are as in `pandas.merge`; `by` is as in `align`."""
    outputs = outputs_of(*sides, keys, suffixes, by)

    def wanted(there: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_]:
        kept = [here for here, keep in zip(there, _KEPT[how], strict=True) if keep]
        return np.any(kept, axis=0) if kept else there[0] & there[1]

    made = Pairs(align(sides, wanted, by), None, how, tuple(keys), tuple(outputs))
    return replace(made, offset=made._offset_known())


@dataclass(frozen=True, eq=False)
class Pairs(ByFile):
    """Two tables joined file by file. Made by `join`."""

    how: str
    keys: tuple[tuple[str, str], ...]
    outputs: tuple[Output, ...]
    certain = False
    kind = "join"

    @cached_property
    def meta(self) -> pd.DataFrame:
        rows = [Rows(s.scan.meta, *np.zeros((2, 0), np.int64)) for s in self.sides]
        pairs = self._match(*rows)
        return pd.DataFrame({o.name: self._column(o, rows, pairs) for o in self.outputs}, index=pairs.labels)

    @cached_property
    def extents(self) -> Ints | None:
        if self.offset is None:
            return None
        left, right = self._counts()
        return (left + 1) * (right + 1)

    def _counts(self) -> list[Ints]:
        """The labels that each file has on each side, without sides where they are unknown."""
        return [side.sums(side.sizes) for side in self.sides if side.sizes is not None]

    def _offset_known(self) -> Ints | None:
        """The first label of each file; None if labels are unknown, or would be too many."""
        counts = self._counts()
        if len(counts) < len(self.sides):
            return None
        left, right = counts
        if float(((left + 1.0) * (right + 1.0)).sum()) >= MOST:
            return None
        extents = (left + 1) * (right + 1)
        offset: Ints = np.cumsum(extents) - extents
        return offset

    @property
    def constants(self) -> frozenset[str]:
        found = {self.by}
        for output in self.outputs if self.by == "_nwb_path" else ():  # a session has several files
            if self._is_whole(output.side) and output.source in self.sides[output.side].scan.constants:
                found.add(output.name)
        return frozenset(found)

    def constant_frame(self, columns: Iterable[str]) -> pd.DataFrame:
        data = {}
        for name in columns:
            side, source = self._origin[name]
            data[name] = self.urls if side == PATH else self.sides[side].constant(source)
        return pd.DataFrame(data)

    @property
    def statistics(self) -> Any:
        """Not None if a side has statistics."""
        held = [getattr(side.scan, "statistics", None) for side in self.sides]
        return next((one for one in held if one is not None), None)

    def possible(self, predicate: Predicate) -> NDArray[np.bool_] | None:
        """Whether each file may hold rows that satisfy the predicate."""
        found = None
        for i, condition in enumerate(self._split(predicate).sides):
            if condition is None or not self._is_whole(i):
                continue  # the other side's rows may be in the result by themselves
            told = self.sides[i].possible(condition)
            if told is not None:
                found = told if found is None else found & told
        return found

    def nbytes(self, columns: Iterable[str]) -> Ints:
        left, right = self._sources(columns)
        return self.sides[0].nbytes(left) + self.sides[1].nbytes(right)

    def narrow(self, columns: Iterable[str], parts: Sequence[int]) -> Pairs:
        kept = {*columns}
        outputs = tuple(output for output in self.outputs if output.name in kept)
        narrowed: Pairs = replace(self._of_files(self._sources(kept), parts), outputs=outputs)
        return narrowed

    def leaves(self, selection: Selection) -> Iterator[tuple[Side, Plan]]:
        pushed = self._split(selection.predicate)
        rest = replace(selection, predicate=pushed.rest)
        turns = self._in_turn(rest)
        for side, early, late, condition in zip(self.sides, *turns, pushed.sides, strict=True):
            yield side, side.plan(early, condition)
            if late:
                yield side, side.plan(late, condition)

    def remaining(self, predicate: Predicate | None) -> Predicate | None:
        return self._split(predicate).rest

    def _what(self) -> tuple[Any, ...]:
        return "join", self.how, self.keys, self.outputs

    def read(self, selection: Selection, settings: Any) -> pd.DataFrame:
        """All files, one after the other."""
        if self.offset is None and self.nparts > 1:
            names = [output.name for output in self.outputs]
            each = [self.narrow(names, [i]) for i in range(self.nparts)]
            return pd.concat([one.read(selection, settings) for one in each])
        pushed = self._split(selection.predicate)
        try:
            return self._read(replace(selection, predicate=pushed.rest), pushed.sides, settings)
        except NWBError:
            raise
        except Exception:
            # A condition may fail on rows that the join or an earlier condition would have left out.
            if pushed.sides == (None, None):
                raise
        return self._read(selection, (None, None), settings)

    def _read(self, selection: Selection, pushed: Sequence[Predicate | None], settings: Any) -> pd.DataFrame:
        """The selection of the pairs of rows, once the sides have applied their `pushed` predicates."""
        early, late = self._in_turn(selection)
        rows = at_once(
            [
                lambda side=side, names=names, condition=condition: (  # type: ignore[misc]
                    side.read(names, condition, settings)
                )
                for side, names, condition in zip(self.sides, early, pushed, strict=True)
            ]
        )
        pairs = self._match(*rows)
        if _chooses(selection):
            pairs = pairs.take(self._kept(rows, pairs, selection))
        if any(late):
            completed = at_once(
                [
                    lambda one=one, side=side, at=at, names=names: (  # type: ignore[misc]
                        _completed(one, side, names, at, settings)
                    )
                    for one, side, names, at in zip(rows, self.sides, late, pairs.at, strict=True)
                ]
            )
            rows, at = [one for one, _ in completed], [at for _, at in completed]
            pairs = pairs._replace(at=at)
        hold(rows, self.urls, len(pairs.labels), settings)
        found = {o.name: o for o in self.outputs}
        data = {name: self._column(found[name], rows, pairs) for name in selection.columns}
        return pd.DataFrame(data, index=pairs.labels, copy=False)

    def _in_turn(self, selection: Selection) -> tuple[list[list[str]], list[list[str]]]:
        """The columns of each side to read before and after the remaining rows are known."""
        some = _chooses(selection)
        now, whole = self._sources(selection.deciding), self._sources(selection.used)
        early: list[list[str]] = []
        late: list[list[str]] = []
        for i, side in enumerate(self.sides):
            later = whole[i] - now[i]
            if (_KEPT[self.how][i] and not some) or side.starts is None or isinstance(side.scan, ByFile):
                later = set()
            most = LATE * max(len(side.parts), 1)
            late.append(sorted(name for name in later if side.nbytes([name]).sum() > most))
            early.append(sorted(whole[i] - {*late[i]}))
        return early, late

    def _kept(self, rows: Sequence[Rows], pairs: _Matched, selection: Selection) -> NDArray[np.intp]:
        """Which pairs satisfy the predicate and the limit."""
        rest, limit, names = selection.predicate, selection.limit, selection.deciding
        data = {o.name: self._column(o, rows, pairs) for o in self.outputs if o.name in names}
        frame = pd.DataFrame(data, index=pairs.labels, copy=False)
        keep = np.arange(len(frame)) if rest is None else rest.rows(frame)
        if limit is None:
            return keep
        borders = np.searchsorted(pairs.file[keep], np.arange(self.nparts + 1)).tolist()
        of_each = [keep[a:b] for a, b in pairwise(borders) if a < b]
        return np.concatenate([keep[:0], *[k[limit.rows(frame.iloc[k])] for k in of_each]])

    def _match(self, left: Rows, right: Rows) -> _Matched:
        frames = []
        keys = [exact(*comparable(left.frame[a], right.frame[b])) for a, b in self.keys]
        for i, rows in enumerate((left, right)):
            held = {f"key{n}": pair[i].array for n, pair in enumerate(keys)}
            held |= {"file": rows.file, f"at{i}": np.arange(len(rows.file))}
            frames.append(pd.DataFrame(held, copy=False))
        on = ["file", *[f"key{n}" for n in range(len(self.keys))]]
        matched = frames[0].merge(frames[1], on=on, how=self.how)  # type: ignore[arg-type]
        at = [matched[f"at{i}"].fillna(-1).to_numpy(np.int64) for i in (0, 1)]
        file = matched["file"].to_numpy(np.int64)
        labels = self._labels(file, at, (left.number, right.number))
        return _Matched(at, file, pd.Index(labels, dtype="int64"))

    def _labels(self, file: Ints, at: Sequence[Ints], numbers: Sequence[Ints]) -> Ints:
        """A number for each pair, unique and the same whatever else is read; sorted except for outer
        joins."""
        i, j = self._order
        if self.offset is not None:
            counts = self._counts()
            filled = [
                np.where(a < 0, c[file], np.append(n, 0)[a])
                for a, c, n in zip(at, counts, numbers, strict=True)
            ]
            known: Ints = filled[i] * (counts[j][file] + 1) + filled[j] + self.offset[file]
            return known
        # of one file
        parts = [
            np.append(part, 0)[at[side]]
            for side in (i, j)
            for part in apart(self.sides[side], numbers[side], np.zeros_like(numbers[side]))
        ]
        labels = packed(parts)
        if labels is None:
            raise NWBError(
                f"{self.urls[0]}: there are too many rows to number in a join of "
                f"{self.tables} tables as long as these. Join them in one function, of which the rows "
                "are numbered anew: map_files(lambda a, b, c: a.merge(b, ...).merge(c, ...), a=a, b=b, "
                "c=c)"
            )
        return labels

    @property
    def _order(self) -> tuple[int, int]:
        """The side that labels are ordered by, and the other."""
        return (1, 0) if self.how == "right" else (0, 1)

    @property
    def tables(self) -> int:
        return sum(s.scan.tables if isinstance(s.scan, Pairs) else 1 for s in self.sides)

    @property
    def width(self) -> int:
        """How many numbers a label is made of."""
        return sum(width(side) for side in self.sides)

    def apart(self, number: Ints, file: Ints) -> list[Ints]:
        """The numbers that labels are made of, counted from 0 in each file; all 0 if a side has no row."""
        if self.offset is None:
            return unpacked(number, self.width)
        i, j = self._order
        counts = [count[file] for count in self._counts()]
        of_side = dict(zip((i, j), np.divmod(number, counts[j] + 1), strict=True))
        found = []
        for side in (i, j):
            there = np.flatnonzero(of_side[side] < counts[side])
            for part in apart(self.sides[side], of_side[side][there], file[there]):
                found.append(np.zeros_like(number))
                found[-1][there] = part
        return found

    def _column(self, output: Output, rows: Sequence[Rows], pairs: _Matched) -> Any:
        if output.side == PATH:
            return self.urls.take(pairs.file)
        if output.side != KEY:
            values = rows[output.side].frame[output.source]
            return taken(values, pairs.at[output.side], not self._is_whole(output.side))
        left, right = (one.frame[output.source] for one in rows)
        if self.how in ("inner", "left"):
            return left.array.take(pairs.at[0])
        left, right = comparable(left, right)
        both = pd.concat([left, right], ignore_index=True).array
        return both.take(np.where(pairs.at[0] < 0, len(left) + pairs.at[1], pairs.at[0]))

    @cached_property
    def _origin(self) -> dict[str, tuple[int, str]]:
        found = {output.name: (output.side, output.source) for output in self.outputs}
        return found | {self.by: (PATH, self.by)}

    def _is_whole(self, side: int) -> bool:
        """Whether each row of the result has a row of this side."""
        return side >= 0 and not _KEPT[self.how][1 - side]

    def _sources(self, columns: Iterable[str]) -> list[set[str]]:
        """The columns that each side needs for some columns of the result, always with the keys."""
        found = [{pair[i] for pair in self.keys} for i in (0, 1)]
        for name in columns:
            side, source = self._origin[name]
            if side >= 0:
                found[side].add(source)
        return found

    def _split(self, predicate: Predicate | None) -> _Pushed:
        """Split a predicate into what each side can apply and what needs both."""
        pushed: list[Predicate | None] = [None, None]
        rest: Predicate | None = None
        for term in conjuncts(predicate):
            sides = self._takers(term)
            for i in sides:
                pushed[i] = then(pushed[i], _as_on(term, self._origin))
            if not sides:
                rest = then(rest, term)
        return _Pushed((pushed[0], pushed[1]), rest)

    def _takers(self, term: Predicate) -> list[int]:
        """The sides that can apply a term of a predicate."""
        if not term.inputs or None in term.inputs:
            return []
        places = {self._origin[name][0] for name in term.columns}
        keys = [name for name in term.columns if self._origin[name][0] == KEY]
        # The result has the left key's values. For a condition, equal values can differ: by their dtype,
        # or by the sign of a zero.
        dtypes = [[side.scan.meta[name].dtype for name in keys] for side in self.sides]
        wanted = [self.meta[name].dtype for name in keys]
        same = [dtypes[0] == wanted, dtypes[1] == wanted and all(d.kind != "f" for d in wanted)]
        if places <= {KEY, PATH} and all(same):
            return [0, 1]
        return [i for i in (0, 1) if places <= {KEY, PATH, i} and self._is_whole(i) and same[i]]


def _chooses(selection: Selection) -> bool:
    """Whether the selection may leave out rows."""
    return selection.predicate is not None or selection.limit is not None


def apart(side: Side, number: Ints, file: Ints) -> list[Ints]:
    """The numbers that a side's row numbers are made of, for each of its tables. They are never all 0."""
    if isinstance(side.scan, Pairs):
        return side.scan.apart(number, side.parts[side.borders[file]])
    if side.sizes is not None:
        return [number + 1]
    part, row = np.divmod(number, LONGEST)
    return [part, row + 1]


def width(side: Side) -> int:
    if isinstance(side.scan, Pairs):
        return side.scan.width
    return 2 if side.sizes is None else 1


class _Matched(NamedTuple):
    """Pairs of rows: each side's row position or -1, the file, and the label of the pair."""

    at: list[Ints]
    file: Ints
    labels: pd.Index[int]

    def take(self, keep: NDArray[np.intp]) -> _Matched:
        return _Matched([at[keep] for at in self.at], self.file[keep], self.labels[keep])


def _completed(rows: Rows, side: Side, names: list[str], at: Ints, settings: Any) -> tuple[Rows, Ints]:
    """The rows that are used, with further columns, and their new positions."""
    if not names:
        return rows, at
    used = np.unique(at[at >= 0])
    labels = rows.frame.index[used]
    late = replace(side, predicate=None).read(names, Labelled(np.sort(labels)), settings).frame
    order = late.index.get_indexer(labels)
    more = {name: late[name].array.take(order) for name in names}
    found = Rows(rows.frame.iloc[used].assign(**more), rows.file[used], rows.number[used])
    return found, np.where(at < 0, -1, np.searchsorted(used, at))


def comparable(left: pd.Series[Any], right: pd.Series[Any]) -> tuple[Any, Any]:
    """Two keys in types that pandas can compare: floats can't be compared with nullable integers."""

    def is_float(key: pd.Series[Any]) -> bool:
        return isinstance(key.dtype, np.dtype) and key.dtype.kind == "f"

    def plain(key: pd.Series[Any], other: pd.Series[Any]) -> pd.Series[Any]:
        if is_float(other) and isinstance(key.dtype, pd.ArrowDtype) and key.dtype.kind in "iu":
            return pd.Series(key.to_numpy(np.float64, na_value=np.nan))
        return key

    return plain(left, right), plain(right, left)


def exact(left: pd.Series[Any], right: pd.Series[Any]) -> tuple[Any, Any]:
    """Two keys in types in which none but equal values are equal. Where one has unsigned integers of 64 bits
    and the other signed ones, pandas compares floats, of which 2**53 and 2**53 + 1 are the same; of floats and
    Arrow's integers it casts the floats, and refuses 1.5."""
    kinds = {key.dtype.kind: key.dtype for key in (left, right)}
    if kinds.keys() in ({"f", "i"}, {"f", "u"}):
        floats = [pd.Series(key.to_numpy(np.float64, na_value=np.nan)) for key in (left, right)]
        return floats[0], floats[1]
    if kinds.keys() != {"i", "u"} or getattr(kinds["u"], "itemsize", 0) < 8:
        return left, right

    def cast(key: pd.Series[Any]) -> pd.Series[Any]:
        held = pa.array(key.to_numpy() if isinstance(key.dtype, np.dtype) else key.array)
        return pd.Series(pd.arrays.ArrowExtensionArray(held.cast(kind)))

    highest = (left if left.dtype.kind == "u" else right).max()
    is_low = pd.isna(highest) or highest <= np.iinfo(np.int64).max
    kind = pa.int64() if is_low else pa.decimal128(20)
    return cast(left), cast(right)


def taken(column: pd.Series[Any], at: Ints, missing: bool) -> Any:
    """Values by position, missing where the position is -1."""
    values: Any = column.to_numpy() if isinstance(column.dtype, np.dtype) else column.array
    if not missing:
        return values.take(at)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iub":
        # integers stay integers if others are missing
        values = pd.array(values, dtype=pd.ArrowDtype(pa.from_numpy_dtype(column.dtype)))
    return pd.api.extensions.take(values, at, allow_fill=True)


def _as_on(term: Predicate, origin: Mapping[str, tuple[int, str]]) -> Predicate:
    """A term of a predicate, with the column names of the side that applies it."""
    names = tuple((name, origin[name][1]) for name in sorted(term.columns))
    return term if all(a == b for a, b in names) else Renamed(term, names)
