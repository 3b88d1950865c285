"""Spike times as one flat array with the offset of each unit: searched, cut and counted around many events at
once. Nothing here loops over spikes, units or events."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lazynwb_dask.decode.runs import spread

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
AT_ONCE = 1 << 17  # numbers of an intermediate array, so that it stays in a processor's cache


class Lists(NamedTuple):
    """The numbers of many lists, one list after the other."""

    values: Floats
    offsets: Ints  # one more than lists

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def owner(self) -> Ints:
        """The list of each value."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def part(self, first: int, stop: int) -> Lists:
        a, b = self.offsets[first], self.offsets[stop]
        return Lists(self.values[a:b], self.offsets[first : stop + 1] - a)


def lists(column: pd.Series[Any]) -> Lists:
    """A column of lists of numbers; what is missing is an empty list. Lists of pairs are flattened."""
    pairs = False
    array = pa.array(column.array)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    lengths = np.ones(len(array), np.int64)
    while pa.types.is_nested(array.type):
        size = array.value_lengths() if hasattr(array, "value_lengths") else None
        if size is None:  # of a fixed size
            size = pa.array(np.where(array.is_null(), 0, array.type.list_size), pa.int64())
        inner = np.asarray(size.fill_null(0), np.int64)
        if pairs and not np.isin(inner, (0, 2)).all():
            raise ValueError(
                f"{column.name!r} has intervals of {inner.max()} numbers, not of a start and a stop"
            )
        pairs = True
        offsets = np.concatenate(([0], np.cumsum(inner)))[np.concatenate(([0], np.cumsum(lengths)))]
        lengths, array = np.diff(offsets), array.flatten()
    values = array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    return Lists(values, np.concatenate(([0], np.cumsum(lengths))))


def rising(found: Lists) -> Lists:
    """The same with the values of each list in order, NaN last; nothing is copied if they are."""
    values, offsets = found
    falls = ~(values[1:] >= values[:-1])
    borders = offsets[1:-1]
    falls[borders[(borders > 0) & (borders < len(values))] - 1] = False
    if not falls.any():
        return found
    return Lists(values[np.lexsort((values, found.owner))], offsets)


def before(found: Lists, points: Floats) -> Ints:
    """How many values of each list are less than each point, lists x points. `found` is rising, no point
    is NaN.

    Of the values each `stride`-th is looked up among the points, which says for each point between which of
    these values it lies; there it is searched by halving. The stride is the one that costs least."""
    values, offsets = found
    size = len(points)
    order = np.argsort(points, kind="stable") if (points[1:] < points[:-1]).any() else None
    points = points if order is None else points[order]
    stride = _stride(len(values), len(found), size)
    firsts = -(-offsets // stride)  # of the values that are looked up, the first of each list
    slot = np.searchsorted(points, values[::stride], side="right")
    slot += np.repeat(np.arange(len(found)) * (size + 1), np.diff(firsts))
    below = np.bincount(slot, minlength=len(found) * (size + 1)).reshape(len(found), size + 1)
    below = np.cumsum(below[:, :size], axis=1)
    if stride > 1 and len(values):
        end = np.minimum((below + firsts[:-1, None]) * stride, offsets[1:, None])
        below += firsts[:-1, None] - 1
        below *= stride
        below += 1
        np.maximum(below, offsets[:-1, None], out=below)
        step = stride
        while step := step // 2:
            ahead = below + step
            less = values.take(ahead - 1, mode="clip") < points
            less &= ahead <= end
            np.copyto(below, ahead, where=less)
        below -= offsets[:-1, None]
    if order is None:
        return below
    there = np.empty_like(below)
    there[:, order] = below
    return there


def _stride(values: int, units: int, points: int) -> int:
    """A power of two. Looking a value up among the points takes a third of the time of one halving."""

    def cost(power: int) -> float:
        return (values >> power) * math.log2(points + 2) + 3 * power * units * points

    return 1 << min(range(12), key=cost)


def blocks(units: int, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of units with at most `AT_ONCE` numbers, `size` for each unit."""
    step = max(1, AT_ONCE // max(size, 1))
    for first in range(0, units, step):
        yield first, min(first + step, units)


def around(found: Lists, events: Floats, window: tuple[float, float]) -> Lists:
    """The values from ``event + window[0]`` until before ``event + window[1]``, relative to the event: a list
    for each pair of a list and an event."""
    start, stop = (before(found, events + edge) for edge in window)
    counts = np.maximum(stop - start, 0).ravel()
    values = found.values[spread((start + found.offsets[:-1, None]).ravel(), counts)]
    values -= np.repeat(np.broadcast_to(events, start.shape).ravel(), counts)
    return Lists(values, np.concatenate(([0], np.cumsum(counts))))


def counts(found: Lists, edges: Floats) -> Ints:
    """How many values of each list are in each bin: lists x events x bins. `edges` are events x (bins + 1),
    rising; a bin has its first edge, and not its last."""
    events, width = edges.shape
    made = np.empty((len(found), events, width - 1), np.int64)
    for first, stop in blocks(len(found), edges.size):
        some = before(found.part(first, stop), edges.ravel()).reshape(stop - first, events, width)
        np.subtract(some[..., 1:], some[..., :-1], out=made[first:stop])
    return made


class Observed(NamedTuple):
    """When each unit was observed: `points` at which that changes, the seconds observed before each, and
    whether the unit is observed from there on."""

    points: Lists
    seconds: Floats
    on: NDArray[np.bool_]

    def until(self, times: Floats) -> Floats:
        """The seconds observed before each of some times, units x times."""
        at = before(self.points, np.nextafter(times, np.inf))  # the points that are not later
        there = at > 0
        if not there.any():
            return np.zeros(at.shape)
        at += self.points.offsets[:-1, None] - 1
        np.maximum(at, 0, out=at)
        passed = np.where(self.on[at], times - self.points.values[at], 0)
        return np.where(there, self.seconds[at] + passed, 0)


def observed(intervals: Lists, first: float, last: float) -> Observed:
    """What `obs_intervals` say of the time from `first` to `last`. Intervals may overlap, in any order."""
    starts, stops = (np.clip(intervals.values[i::2], first, last) for i in (0, 1))
    unit = intervals.owner[::2]
    good = starts < stops
    unit, starts, stops = unit[good], starts[good], stops[good]
    times = np.concatenate((starts, stops))
    change = np.repeat([1, -1], len(starts))
    unit = np.concatenate((unit, unit))
    order = np.lexsort((times, unit))
    times, unit, on = times[order], unit[order], np.cumsum(change[order]) > 0
    passed = np.where(on, np.diff(times, append=times[-1:]), 0)  # none across units: off after the last
    total = np.concatenate(([0], np.cumsum(passed, dtype=np.longdouble)))
    offsets = np.searchsorted(unit, np.arange(len(intervals) + 1))
    seconds = (total[:-1] - total[offsets[unit]]).astype(np.float64)
    return Observed(Lists(times, offsets), seconds, on)


def within(found: Lists, intervals: Lists) -> Lists:
    """The values that lie in one of the list's intervals, each from its start until before its stop."""
    starts, stops = intervals.values[::2], intervals.values[1::2]
    good = starts < stops
    owner = intervals.owner[::2][good]
    size = [len(owner), len(owner), len(found.values)]
    times = np.concatenate((starts[good], stops[good], found.values))
    unit = np.concatenate((owner, owner, found.owner))
    order = np.lexsort((np.repeat([0, 0, 1], size), times, unit))
    depth = np.cumsum(np.repeat([1, -1, 0], size)[order])
    keep = np.zeros(len(times), bool)
    keep[order] = depth > 0
    kept = keep[size[0] + size[1] :] & ~np.isnan(found.values)
    return Lists(found.values[kept], np.concatenate(([0], np.cumsum(kept)))[found.offsets])


def rates(some: Ints, seconds: Floats, starts: Ints) -> tuple[Floats, Floats]:
    """The mean rate and its standard error of groups of events: units x groups x bins.

    `some` are counts, and `seconds` how long each bin was observed, both units x events x bins (or what
    broadcasts to that). Events are sorted by group; group g begins with event `starts[g]`. The rate is a
    ratio, spikes by seconds, and its standard error that of a ratio estimator (Cochran, Sampling Techniques,
    1977, eq. 6.13, without the correction for finite populations). Where all bins are as long, that is the
    standard deviation of the events' rates by the root of their number."""
    seconds = np.broadcast_to(seconds, some.shape)
    many = np.add.reduceat((seconds > 0).astype(np.int64), starts, axis=1)
    total = np.add.reduceat(seconds, starts, axis=1)
    lengths = np.diff(np.append(starts, some.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.add.reduceat(some, starts, axis=1) / total
        apart = some - np.repeat(mean, lengths, axis=1) * seconds
        squares = np.add.reduceat(np.where(seconds > 0, apart**2, 0), starts, axis=1)
        error = np.sqrt(squares * many / np.maximum(many - 1, 0)) / total
    return mean, np.where(many > 1, error, np.nan)
