"""A TimeSeries around events, sampled at the same relative times for each: of the file only the rows are read
that the windows touch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np

from lazynwb_dask.analysis import kernels
from lazynwb_dask.analysis.matrix import rows_per_block
from lazynwb_dask.decode.runs import merged, spread
from lazynwb_dask.errors import NWBError, UnsupportedColumnError
from lazynwb_dask.model.source import shown
from lazynwb_dask.timeseries.series import TimeSeries
from lazynwb_dask.timeseries.stored_array import StoredArray


@dataclass(frozen=True, eq=False)
class Around:
    """Values of a series, events x times x what a sample has, read when an index is taken. It travels in
    graphs in place of an open file."""

    data: StoredArray
    clock: StoredArray | tuple[float, float]  # the timestamps; or the first one and the rate
    rows: kernels.Ints  # for each event the first row that is needed, and the one after the last
    events: kernels.Floats
    offsets: kernels.Floats  # the relative times
    nearest: bool

    dtype = np.dtype(np.float64)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.events), len(self.offsets), *self.data.shape[1:])

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        clock = self.clock.__dask_tokenize__() if isinstance(self.clock, StoredArray) else self.clock
        arrays = [a.tobytes() for a in (self.events, self.offsets)]
        return "around", *self.data.__dask_tokenize__(), clock, *arrays, self.nearest

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        """The values at a slice or a number for each axis."""
        whole = tuple(slice(k, k + 1) if isinstance(k, (int, np.integer)) else k for k in key)
        times = (self.events[whole[0], None] + self.offsets[whole[1]]).ravel()
        starts, stops = merged(*self.rows[whole[0]].T)
        rows = spread(starts, stops - starts)
        shape = [len(self.events[whole[0]]), len(self.offsets[whole[1]])]
        values = self.data[(rows, *whole[2:])]
        found = self._at(times, rows, values).reshape(*shape, *values.shape[1:])
        single = tuple(0 if isinstance(k, (int, np.integer)) else slice(None) for k in key)
        there: np.ndarray = found[single]
        return there

    def _at(self, times: kernels.Floats, rows: kernels.Ints, values: np.ndarray) -> np.ndarray:
        """The values at some times, interpolated or the nearest; NaN before the first and after the last."""
        if not len(rows):
            return np.full((len(times), *values.shape[1:]), np.nan)
        clock = self.clock
        stamps = clock[0] + rows / clock[1] if isinstance(clock, tuple) else clock[rows].astype(np.float64)
        left = np.searchsorted(stamps, times, side="right") - 1
        right = np.minimum(left + 1, len(stamps) - 1)
        outside = (left < 0) | (times > stamps[-1])
        left = np.maximum(left, 0)
        column = (-1, *[1] * (values.ndim - 1))
        if self.nearest:
            later = stamps[right] - times < times - stamps[left]
            found = values[np.where(later, right, left)].astype(np.float64)
        else:
            long = stamps[right] - stamps[left]
            weight = np.where(long > 0, (times - stamps[left]) / np.where(long > 0, long, 1), 0).reshape(column)
            first, second = (values[at].astype(np.float64) for at in (left, right))
            with np.errstate(invalid="ignore", over="ignore"):  # infinite values
                found = np.where(weight > 0, first + weight * (second - first), first)
        found[outside] = np.nan
        return found


def series_around(
    series: TimeSeries, events: kernels.Floats, offsets: kernels.Floats, nearest: bool
) -> da.Array:
    """The values of a series at ``event + offset``, in blocks of events. Stored timestamps are looked through
    once, block by block."""
    what = f"align_timeseries: {shown(series.file)}: {series.path}"
    data, clock = series.stored
    if data is None or series.data is None:
        raise UnsupportedColumnError(f"{what}: its values are in other files, such as videos")
    if data.dtype.kind not in "buif":
        raise UnsupportedColumnError(f"{what}: its values are {data.dtype}, and no numbers")
    windows = events[:, None] + offsets[[0, -1]]
    if clock is None:
        raise UnsupportedColumnError(f"{what}: its timestamps can't be read")
    if isinstance(clock, tuple):
        if not (np.isfinite(clock).all() and clock[1] > 0):
            raise NWBError(f"{what}: its rate is {clock[1]}, from {clock[0]} s")
        # one row more at each side, for rounding
        rows = np.floor((windows - clock[0]) * clock[1]).clip(-9, data.rows + 9).astype(np.int64)
        rows += np.array([-1, 3])
    else:
        rows = _positions(series.timestamps, windows.ravel(), what).reshape(-1, 2) + np.array([-1, 1])
    rows = np.clip(rows, 0, data.rows)
    found = Around(data, clock, rows, events, offsets, nearest)
    item = series.data.chunks[1:]
    longest = max(len(offsets), int(np.diff(rows).max(initial=0)))  # what is read may be more than what is made
    row = longest * math.prod(max(sizes, default=1) for sizes in item)
    chunks = (min(max(len(events), 1), rows_per_block(row)), len(offsets), *item)
    name = f"align-timeseries-{dask.base.tokenize(found, chunks)}"
    meta = np.empty((0,) * found.ndim)
    return da.from_array(found, chunks=chunks, name=name, meta=meta, fancy=False)


def _positions(timestamps: da.Array | None, times: kernels.Floats, what: str) -> kernels.Ints:
    """How many timestamps aren't later than each time. NWBError if timestamps don't rise."""

    def look(block: np.ndarray) -> tuple[bool, float, float, kernels.Ints]:
        rises = bool((block[1:] >= block[:-1]).all() and not np.isnan(block[:1]).any())
        return rises, float(block[0]), float(block[-1]), np.searchsorted(block, times, side="right")

    assert timestamps is not None
    blocks = [dask.delayed(look)(block) for block in timestamps.to_delayed().ravel()] if len(timestamps) else []
    looked = dask.compute(*blocks)
    ends = [end for _, first, last, _ in looked for end in (first, last)]
    if not (all(rises for rises, *_ in looked) and (np.diff(ends) >= 0).all()):
        raise NWBError(
            f"{what}: its timestamps don't increase, so samples around an event can't be found: take rows by "
            "number, series.data[first:stop]"
        )
    return sum((count for *_, count in looked), np.zeros(len(times), np.int64))
