"""Where the texts of a small dataset lie in the global heap, if bytes that are here anyway tell.

So they can be read together with what points to them.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

import numpy as np

from lazynwb_dask.decode import codecs
from lazynwb_dask.decode.filters import chunk_bytes
from lazynwb_dask.hdf5.global_heap import FIRST, HEADER, collection_size
from lazynwb_dask.hdf5.sparse_file import SparseFile
from lazynwb_dask.model.elements import DESCRIPTOR
from lazynwb_dask.model.index import ArrayIndex

MOST = 64 * 1024  # bytes of descriptors that are looked at
OBJECT_GUESS = 40  # bytes of an object of the heap
PLACES = 8  # collections in which a dataset's texts may lie


def with_heap(array: ArrayIndex, sparse: SparseFile) -> ArrayIndex:
    """The index of a dataset, with where its texts lie if that is seen here. Nothing becomes missing."""
    layout, extents = array.layout, array.extents
    nbytes = (math.prod(layout.chunk) if layout.chunk else array.rows * math.prod(layout.item)) * 16
    if layout.element != ("string",) or extents.heap or not 0 < nbytes * extents.offsets.size <= MOST:
        return array
    if not {f.id for f in layout.filters} <= set(codecs.NATIVE):
        return array
    chunks = list(zip(extents.offsets.tolist(), extents.sizes.tolist(), strict=True))
    if not all(size and sparse.has(at, at + size) for at, size in chunks):
        return array
    with suppress(Exception):  # whoever reads the values says what is damaged
        raw = [memoryview(sparse.peek(at, at + size)) for at, size in chunks]
        masks = [0] * len(raw) if extents.masks is None else extents.masks.tolist()
        if layout.chunk is not None:
            raw = [chunk_bytes(data, layout, mask, nbytes) for data, mask in zip(raw, masks, strict=True)]
        heap = _places(np.frombuffer(b"".join(raw), DESCRIPTOR), layout.user_block, sparse)
        return replace(array, extents=replace(extents, heap=heap))
    return array


def _places(found: np.ndarray, base: int, sparse: SparseFile) -> tuple[int, ...]:
    """The starts and ends of the collections that descriptors refer to; none if these are many."""
    found = found[found["length"] > 0]
    if not found.size:
        return ()
    # objects are numbered as they come: before the last one wanted lie others, of the same length or so
    most: dict[int, int] = {}
    address = found["address"]
    runs = np.append(0, np.flatnonzero(address[1:] != address[:-1]) + 1)
    last = np.maximum.reduceat(found["index"], runs)
    for begin, number in zip(address[runs].tolist(), last.tolist(), strict=True):
        most[begin + base] = max(most.get(begin + base, 0), number)
    if len(most) > PLACES:
        return ()
    places: list[int] = []
    for begin, number in sorted(most.items()):
        size = min(-(-number * OBJECT_GUESS // FIRST) * FIRST, MOST)
        if sparse.has(begin, begin + HEADER):
            size = collection_size(sparse.peek(begin, begin + HEADER))
        if 0 <= begin < sparse.size:
            places += [begin, min(begin + size, sparse.size)]
    return tuple(places)
