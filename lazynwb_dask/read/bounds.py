"""What a column takes at most, where only bytes of the file say what: waves, ranges, and bytes of these.

All that is stored of the chunks that rows can touch; of what can lie anywhere, the size of the file.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np

from lazynwb_dask.decode.filters import stored_bound
from lazynwb_dask.hdf5.chunk_btree import tree_bound
from lazynwb_dask.hdf5.global_heap import FIRST
from lazynwb_dask.hdf5.sparse_file import BLOCK, MAX_METADATA
from lazynwb_dask.model.elements import walk
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, Layout
from lazynwb_dask.read.block import NEAR
from lazynwb_dask.read.part_columns import file_arrays
from lazynwb_dask.read.shards import asked_bytes
from lazynwb_dask.scan.derived import lengths_of, source
from lazynwb_dask.scan.records import Part

Bound = tuple[int, int, int]


def column_bounds(
    part: Part,
    name: str,
    rows: np.ndarray,
    split: int,
    most: int | None = None,
    requested: Collection[int] = (),
) -> Iterator[Bound]:
    """What a column takes from the file at most, one bound after the other.

    Parameters
    ----------
    part : Part
    name : str
    rows : numpy.ndarray of int64
    split : int
        Where ranges are cut that follow one another.
    most : int, optional
        Only so many of the rows are wanted, whichever they are.
    requested : collection of int
        The ids of datasets that don't count.
    """
    found = file_arrays(part, name)
    if not found:
        return
    arrays, reach = part.columns[source(name)][0], part.source.reach
    rows = rows[: int(np.searchsorted(rows, arrays[-1].rows))]
    if not rows.size:
        return
    runs = 1 + int(np.count_nonzero(np.diff(rows) != 1))
    if most is not None:
        runs = min(most, (len(rows) + 1) // 2)
    for array in found:
        start, stop = 0, array.rows
        if array is arrays[-1]:
            start, stop = max(int(rows[0]) - (len(arrays) > 1), 0), int(rows[-1]) + 1
        if id(array) not in requested and stop > start and not array.layout.external:
            if not array.located:
                yield _map(array.layout, array.rows, reach)
            yield from _dataset(array, start, stop, runs, split)
    if lengths_of(name) and found[0] is not arrays[0]:
        return
    texts = len(rows) if most is None else most
    yield from _elements(arrays[0], arrays[0].rows if len(arrays) > 1 else texts, reach)


def _map(layout: Layout, rows: int, reach: int) -> Bound:
    """A chunk map that was left unread, or the indexes of shards."""
    if layout.unlisted:
        return _metadata(reach)
    if layout.objects is not None and layout.objects.shard is not None:
        shape = zip((rows, *layout.item), layout.objects.shard, strict=True)
        count = math.prod(-(-n // s) for n, s in shape)
        return 1, count, count * asked_bytes(layout)
    return tree_bound(layout.chunks(rows), 1 + len(layout.item))


def _dataset(array: ArrayIndex, start: int, stop: int, runs: int, split: int) -> Iterator[Bound]:
    """So many runs of rows within a range."""
    layout, extents = array.layout, array.extents
    chunk = layout.chunk or (max(array.rows, 1), *layout.item)
    row_bytes, across = math.prod(chunk[1:]) * layout.element_bytes, layout.chunks(chunk[0])
    at = slice(start // chunk[0] * across, -(-stop // chunk[0]) * across)
    if layout.objects is not None:
        sizes = np.full(at.stop - at.start, stored_bound(layout))
        offsets = np.zeros_like(sizes)
    elif array.located:
        offsets, sizes = (v[at].astype(np.int64) for v in (extents.offsets, extents.sizes))
        sizes[extents.offsets[at] == UNDEFINED] = 0
    else:  # what doesn't get smaller is stored as it is, or with a few bytes more
        sizes = np.full(at.stop - at.start, chunk[0] * row_bytes * 9 // 8 + 256)
        offsets = np.zeros_like(sizes)
    if not layout.filters:
        sizes = np.minimum(sizes, (stop - start) * row_bytes)
    whole = layout.filters and extents.masks is None and not layout.raw_edges
    ranges = int((np.minimum(1 if whole else runs, sizes // NEAR + 1) * (sizes > 0)).sum())
    wanted = int(sizes.sum())
    if (
        across == 1 and layout.objects is None
    ):  # chunks of a run that follow one another are one range, cut where it gets long
        breaks = int(np.count_nonzero(np.diff(offsets) != sizes[:-1]))
        ranges = min(ranges, 2 * (runs + breaks + wanted // split))
    if ranges:
        yield 1, ranges, wanted


def _elements(values: ArrayIndex, rows: int, reach: int) -> Iterator[Bound]:
    """What elements refer to: texts and sequences in the heap, objects by their names."""
    if values.layout.objects is not None:
        return
    kinds = [element[0] for element in walk(values.layout.element)]
    heaps = kinds.count("string") + kinds.count("sequence")
    if heaps and rows and not values.layout.external:
        # they may lie anywhere, several in one collection; of some only a part comes at first
        count = rows * math.prod(values.layout.item) if len(kinds) == 1 else reach
        yield 2 * heaps, heaps + 2 * heaps * min(count, reach // FIRST + 1), heaps * reach
    if "reference" in kinds and rows:
        yield _metadata(reach)


def _metadata(reach: int) -> Bound:
    """What libhdf5 reads to look something up: no block of the file twice."""
    blocks = min(reach, MAX_METADATA) // BLOCK + 2
    return blocks, blocks, min(reach, MAX_METADATA)
