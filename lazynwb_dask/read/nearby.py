"""Bytes that are likely to be needed next, where they are few: they come along with what is needed now."""

from __future__ import annotations

import math

import numpy as np

from lazynwb_dask.decode.runs import merged
from lazynwb_dask.model.elements import walk
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, Extents, Layout

SMALL = 128 * 1024  # bytes of a dataset that come along: a request more takes as long
RANGES = 4  # of a dataset whose chunks are scattered over more, none comes along
TEXT = 40  # bytes of the global heap that a text is guessed to take
COLLECTION = 16 * 1024  # bytes that may lie between a text's descriptor and its collection of the heap


def nearby(array: ArrayIndex, extents: Extents, start: int, stop: int, reach: int) -> list[tuple[int, int]]:
    """The byte ranges of some rows of a dataset, and of their texts; none where they are many bytes.

    `extents` list the chunks, and no range goes beyond `reach`.
    """
    layout = array.layout
    if layout.external or layout.computed or layout.view is not None or stop <= start:
        return []
    begins, ends = _chunks(layout, extents, start, stop)
    if int((ends - begins).sum()) > SMALL:
        return []
    begins, ends = merged(begins, ends)
    if len(begins) > RANGES or int((ends - begins).sum()) > SMALL:
        return []
    return [*zip(begins.tolist(), ends.tolist(), strict=True), *heap_nearby(array, extents, reach)]


def heap_nearby(array: ArrayIndex, extents: Extents, reach: int) -> list[tuple[int, int]]:
    """Where the texts of a small dataset lie, or probably do: libhdf5 stores them just before and after it."""
    layout = array.layout
    kinds = {element[0] for element in walk(layout.element)}
    guess = TEXT * array.rows * math.prod(layout.item)
    if not kinds & {"string", "sequence"} or layout.external:
        return []
    if extents.heap:
        seen = [(a, b) for a, b in zip(extents.heap[::2], extents.heap[1::2], strict=True) if a < b]
        return seen if sum(b - a for a, b in seen) <= SMALL else []
    if guess > SMALL // 4:
        return []
    begins, ends = _chunks(layout, extents, 0, array.rows)
    if not begins.size or int(ends.max() - begins.min()) > SMALL // 4:
        return []
    low, high = int(begins.min()) - 2 * guess - COLLECTION, int(ends.max()) + guess + COLLECTION // 2
    return [(max(low, 0), min(high, reach))]


def _chunks(layout: Layout, extents: Extents, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the chunks with some rows begin and end in the file; of data without filters, the rows alone."""
    chunk = layout.chunk or (max(extents.rows, 1), *layout.item)
    across = layout.chunks(chunk[0])
    at = slice(start // chunk[0] * across, -(-stop // chunk[0]) * across)
    offsets, sizes = extents.offsets[at], extents.sizes[at].astype(np.int64)
    skipped = np.zeros(len(sizes), np.int64)
    if not layout.filters:
        row = sizes // chunk[0]
        skipped[:across] = row[:across] * (start % chunk[0])
        sizes[-across:] = row[-across:] * ((stop - 1) % chunk[0] + 1)
    stored = (offsets != UNDEFINED) & (sizes > 0)
    begins = offsets[stored].astype(np.int64)
    return begins + skipped[stored], begins + sizes[stored]
