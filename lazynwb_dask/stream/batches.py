"""The partitions of a frame as frames of pandas: in order, and never all of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lazynwb_dask import expr

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

LARGEST = 256 << 20  # decoded bytes that are read at a time, where partitions are smaller


def batches(
    frame: dd.DataFrame, limit: int | None = None, told: Callable[[int], object] = int
) -> Iterator[pd.DataFrame]:
    """All rows of a frame, or the first so many, as frames of pandas, at least one.

    First come the rows of one partition; then twice as many partitions each time, up to `LARGEST` bytes.
    `told` is called with how many partitions these were. What Dask must have whole, as for a sort or a join of
    two frames, is computed first and held in memory.
    """
    frame = expr.apart(frame)
    weights = _weights(frame)
    begin, most, left = 0, 1, limit
    while begin < len(weights) and (left is None or left > 0 or begin == 0):
        end, size = begin + 1, weights[begin]
        while end < min(begin + most, len(weights)) and size + weights[end] <= LARGEST:
            size += weights[end]
            end += 1
        part = frame.partitions[begin:end]
        if left is None:
            rows = part.compute()
        else:
            rows = part.head(left, npartitions=-1)
            left -= len(rows)
        yield rows
        told(end - begin)
        begin, most = end, 2 * most
    if not weights:
        yield frame._meta


def _weights(frame: dd.DataFrame) -> list[int]:
    """The decoded bytes of each partition; `LARGEST`, where that isn't known."""
    weights = expr.partition_bytes(frame)
    return weights if len(weights) == frame.npartitions else [LARGEST] * frame.npartitions
