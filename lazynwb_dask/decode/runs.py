"""Runs of consecutive positions, each given by its start and its length or end. No loop over positions."""

from __future__ import annotations

import numpy as np

POSITIONS = 1 << 20  # computed at a time


def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The positions in many runs, one run after the other.

    >>> spread(np.array([2, 7]), np.array([3, 1])).tolist()
    [2, 3, 4, 7]
    """
    ends = np.cumsum(counts)
    positions: np.ndarray = np.repeat(starts - (ends - counts), counts)
    positions += np.arange(positions.size, dtype=positions.dtype)
    return positions


def gather(source: np.ndarray, starts: np.ndarray, counts: np.ndarray, out: np.ndarray) -> None:
    """Copy many runs of `source` into `out`, one after the other, in limited extra memory.

    >>> out = np.empty(3, int)
    >>> gather(np.arange(10) * 10, np.array([2, 7]), np.array([1, 2]), out)
    >>> out.tolist()
    [20, 70, 80]
    """
    ends = np.cumsum(counts)
    first = done = 0
    while done < len(out):
        last = max(int(np.searchsorted(ends, done + POSITIONS, "right")), first + 1)
        stop = int(ends[last - 1])
        if last == first + 1:
            out[done:stop] = source[starts[first] : starts[first] + counts[first]]
        else:
            where = spread(starts[first:last], counts[first:last])
            np.take(source, where, axis=0, out=out[done:stop])
        first, done = last, stop


def merged(starts: np.ndarray, stops: np.ndarray, gap: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The union of intervals as sorted, disjoint ones; those less than `gap` apart are joined.

    >>> merged(np.array([5, 0, 9]), np.array([7, 6, 10]))
    (array([0, 9]), array([ 7, 10]))
    """
    keep = stops > starts
    starts, stops = starts[keep], stops[keep]
    if not starts.size:
        return starts.astype(np.int64), stops.astype(np.int64)
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], stops[order]
    reach = np.maximum.accumulate(stops)
    first = np.flatnonzero(np.concatenate([[True], starts[1:] > reach[:-1] + gap]))
    last = np.concatenate([first[1:] - 1, [starts.size - 1]])
    return starts[first].astype(np.int64), reach[last].astype(np.int64)
