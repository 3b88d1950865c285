"""Which samples of a TimeSeries a range of times can be in, found without reading all its timestamps.

With a rate, by arithmetic. Stored timestamps that are known to rise (see `time_order`) are read page by page:
the first and the last, then those where the range must begin and end if samples are evenly spaced. NWB asks for
timestamps that rise, but no file guarantees it: until it is known, and where they don't, all are read. So are
those of short series. The condition is still evaluated on the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lazynwb_dask.decode.arrays import numbers
from lazynwb_dask.model.index import ArrayIndex
from lazynwb_dask.predicate.intervals import EVERYTHING, bounds
from lazynwb_dask.predicate.tree import Predicate
from lazynwb_dask.read.column import Reader
from lazynwb_dask.read.steps import Steps
from lazynwb_dask.read.time_order import TimeOrder, is_long, page_rows, place
from lazynwb_dask.scan.records import Part
from lazynwb_dask.storage.settings import Run
from lazynwb_dask.util.locks import Lock
from lazynwb_dask.util.lru import Cache

FEW = 4  # guesses by the even passing of time, before the range is halved each time

_pages = Cache[np.ndarray]("timestamps")
_locks = [Lock() for _ in range(64)]


class _OutOfOrder(Exception):
    """Timestamps don't rise."""


@dataclass(frozen=True)
class File:
    """What is searched, and how."""

    reader: Reader
    order: TimeOrder
    run: Callable[[Steps[Any]], Any]  # runs steps to their end


def ranges(part: Part, predicate: Predicate, names: Iterable[str]) -> Iterator[tuple[ArrayIndex, float, float]]:
    """The timestamps of which a predicate wants a range, and between which values.

    `names` are the columns that the frame has as float64.
    """
    for name in sorted(predicate.columns & part.columns.keys() & set(names)):
        array = part.columns[name][0][-1]
        if array.layout.rising is None or (part.held is not None and name in part.held.values):
            continue
        low, high = bounds(predicate, name)
        if (low, high) != EVERYTHING:
            yield array, low, high


def narrowed(part: Part, predicate: Predicate, names: Iterable[str], file: File) -> Part:
    """A partition without rows at its ends that the predicate can't leave, as far as times tell."""
    for array, low, high in ranges(part, predicate, names):
        start, stop = _rows_between(array, low, high, part, file)
        start = min(max(start, part.start), part.stop)
        stop = min(max(stop, start), part.stop)
        part = replace(part, start=start, stop=stop, offset=part.offset + start - part.start)
    return part


def _rows_between(array: ArrayIndex, low: float, high: float, part: Part, file: File) -> tuple[int, int]:
    """Rows of a partition outside of which none has a time from `low` to `high`; all where that isn't known."""
    rows, layout = array.rows, array.layout
    if low > high:
        return part.start, part.start
    if layout.computed:
        _, start, rate = layout.element
        return _by_rate(start, rate, rows, low, high)
    run = file.order.of(array, part.start, part.stop) if is_long(array) else None
    if run is None or math.isnan(run[2]):
        return part.start, part.stop
    if high < run[2] or low > run[3]:
        return part.start, part.start
    search = _Search(array, run, low, high)
    if file.order.key is None:
        return _found(search, file)
    search.key = (file.order.key, place(array))
    with _locks[hash(search.key) % len(_locks)]:  # one partition looks, the others know
        return _found(search, file)


def _found(search: _Search, file: File) -> tuple[int, int]:
    found: tuple[int, int] | None = file.run(search.run(file.reader))
    if found is None:
        return 0, search.array.rows
    search.hand_over(file.reader, *found)
    return found


def _by_rate(start: float, rate: float, rows: int, low: float, high: float) -> tuple[int, int]:
    # limits far from all times mean the same as those just beyond them
    before, behind = start - 2 / rate, start + (rows + 1) / rate
    low, high = (min(max(limit, before), behind) for limit in (low, high))
    if not math.isfinite(before) or not math.isfinite(behind * rate):
        return 0, rows
    # rounding: the times themselves, and the way back from a time to a row
    reach = max(abs(before), abs(behind))
    slack = 2 + math.ceil(8 * np.finfo(float).eps * (reach * rate + rows))

    def row(limit: float, side: str) -> int:
        """The first row not before a limit: about there, then by the very times that are read."""
        about = min(max((limit - start) * rate, 0.0), float(rows))
        first = max(0, int(about) - slack)
        near = start + np.arange(first, min(rows, int(about) + slack)) / rate
        return first + int(np.searchsorted(near, limit, side))  # type: ignore[call-overload]

    begin, end = row(low, "left"), row(high, "right")
    return min(begin, end), end


def search_bound(array: ArrayIndex) -> tuple[int, int, int]:
    """The round trips, ranges and bytes of a search for two times, at most."""
    page, layout = page_rows(array), array.layout
    looks = FEW + math.ceil(math.log2(max(array.rows / page, 1))) + 2
    chunks = page // (layout.chunk[0] if layout.chunk else page) + 2
    # of each page as many bytes as it has decoded, or a few more where it doesn't get smaller
    most = page * layout.row_bytes * 9 // 8 + 256 * chunks
    return looks, 2 * looks * chunks, 2 * looks * most


class _Search:
    """Looks in a run of rows for the first time that is not below `low`, and the first above `high`."""

    def __init__(self, array: ArrayIndex, run: Run, low: float, high: float) -> None:
        self.array, self.page = array, page_rows(array)
        self.start, self.stop = run[:2]
        self.key: tuple[Any, ...] | None = None
        # pages are numbered from the dataset's first row; those at the run's ends may be cut
        self.first, self.count = self.start // self.page, -(-self.stop // self.page)
        self.raw: dict[int, np.ndarray] = {}
        self.times: dict[int, np.ndarray] = {}
        self.ends = [(low, "left"), (high, "right")]

    def run(self, reader: Reader) -> Steps[tuple[int, int] | None]:
        """The rows that may be in the range; None if the times are found not to rise."""
        try:
            return (yield from self._search(reader))
        except _OutOfOrder:
            return None

    def _search(self, reader: Reader) -> Steps[tuple[int, int]]:
        yield from self._look(reader, {self.first, self.count - 1})
        turn = 0
        while True:
            ahead = {k for limit, side in self.ends for k in self._next(limit, side, turn)}
            if not ahead:
                break
            yield from self._look(reader, ahead)
            turn += 1
        start, stop = (self._row(limit, side) for limit, side in self.ends)
        return start, max(start, stop)

    def hand_over(self, reader: Reader, start: int, stop: int) -> None:
        """Let the reader take timestamps that were looked at, if these are all that are wanted."""
        first, last = start // self.page, -(-max(stop, start + 1) // self.page)
        if stop > start and all(k in self.raw for k in range(first, last)):
            joined = np.concatenate([self.raw[k] for k in range(first, last)])
            reader.keep(self.array, self._span(first)[0], self._span(last - 1)[1], joined)

    def _span(self, page: int) -> tuple[int, int]:
        return max(page * self.page, self.start), min((page + 1) * self.page, self.stop)

    def _look(self, reader: Reader, pages: set[int]) -> Steps[None]:
        todo = []
        for k in sorted(pages - self.raw.keys()):
            held = None if self.key is None else _pages.get((self.key, self._span(k)))
            if held is None:
                todo.append(k)
            else:
                self._take(k, held)
        if todo:
            starts, stops = np.array([self._span(k) for k in todo], np.int64).T
            raw = yield from reader.raw(self.array, starts, stops)
            cuts = np.cumsum((stops - starts) * self.array.layout.row_bytes)[:-1]
            for k, piece in zip(todo, np.split(raw, cuts), strict=True):
                self._take(k, piece)
                if self.key is not None:
                    _pages.put((self.key, self._span(k)), piece.copy(), piece.nbytes)
        known = sorted(self.times)
        for a, b in itertools.pairwise(known):
            if self.times[a][-1] > self.times[b][0]:
                raise _OutOfOrder

    def _take(self, page: int, raw: np.ndarray) -> None:
        times = numbers(raw, self.array.layout.element).astype(np.float64)
        if not (times[1:] >= times[:-1]).all() or np.isnan(times[:1]).any():
            raise _OutOfOrder
        self.raw[page], self.times[page] = raw, times

    def _bracket(self, limit: float, side: str) -> tuple[int, int]:
        """The last page known to lie before the limit, and the first known not to."""
        before = [k for k, t in self.times.items() if _before(t[-1], limit, side)]
        after = [k for k, t in self.times.items() if not _before(t[-1], limit, side)]
        return max(before, default=self.first - 1), min(after, default=self.count)

    def _next(self, limit: float, side: str, turn: int) -> set[int]:
        """The page to look at next; none if the border is known."""
        a, b = self._bracket(limit, side)
        if b - a <= 1 or (b < self.count and _before(self.times[b][0], limit, side)):
            return set()
        if turn < FEW and a >= self.first and b < self.count:
            begin, end = float(self.times[a][-1]), float(self.times[b][0])
            share = (limit - begin) / (end - begin) if -math.inf < begin < end < math.inf else 0.5
            return {min(max(a + 1 + int(share * (b - a - 1)), a + 1), b - 1)}
        return {(a + b) // 2}

    def _row(self, limit: float, side: str) -> int:
        _, page = self._bracket(limit, side)
        if page == self.count:
            return self.stop
        found = np.searchsorted(self.times[page], limit, side)  # type: ignore[call-overload]
        return self._span(page)[0] + int(found)


def _before(time: float, limit: float, side: str) -> bool:
    return bool(time < limit if side == "left" else time <= limit)
