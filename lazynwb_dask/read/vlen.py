"""Variable-length elements: where each lies in the global heap, in a few round trips for all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5.global_heap import FIRST, HEADER, collection_size, objects
from lazynwb_dask.model.index import UNDEFINED
from lazynwb_dask.read.steps import Steps, Wave
from lazynwb_dask.storage import Request

PEEKED = 64  # collections that are looked for among the bytes that are here
SLACK = 8 << 20  # overlapping elements may hold this many bytes more than are stored
SHARED = 4  # strings may be this many times as long as the heap that holds them, if they share it


def heap_bytes(
    descriptors: np.ndarray, width: int, base: int, reach: int
) -> Steps[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The steps to the heap bytes of variable-length elements, from their `DESCRIPTOR` array.

    A value has `width` bytes. Addresses count from the file position `base`, and none is beyond `reach`.
    Returns a buffer, and where each element starts in it, and its size, in bytes. NWBReadError if the heap
    is damaged.
    """
    sizes = descriptors["length"].astype(np.int64) * width
    address = descriptors["address"]
    null = (address == 0) | (address == UNDEFINED)
    sizes[null] = 0
    if int(address[~null].max(initial=0)) + base + HEADER > reach:
        raise NWBReadError("damaged: a string lies outside the file")
    starts = np.zeros(len(sizes), np.int64)
    unique = np.unique(address[sizes > 0])
    # empty ones need nothing; those in collections that are read anyway are checked as all others
    null |= (sizes == 0) & ~np.isin(address, unique)
    which = np.searchsorted(unique, address[~null])
    if not unique.size:
        return np.zeros(0, np.uint8), starts, sizes
    begins = unique.astype(np.int64) + base
    # collections lie side by side: each is taken to end where the next begins, the last to
    # hold what its strings need
    need = np.bincount(which, sizes[~null] + 24).astype(np.int64) + HEADER + 16
    need = np.maximum(-(-need // FIRST) * FIRST, FIRST)
    # (few collections: rather some bytes more than another round trip)
    least = FIRST * (16 if len(begins) <= 4 else 4 if len(begins) <= 16 else 1)
    following = np.append(begins[1:], reach)
    ends = np.minimum(begins + np.maximum(2 * need, least), following)
    parts: list[bytes] = [b""] * len(begins)

    def keep(i: int) -> Callable[[memoryview], None]:
        def sink(data: memoryview) -> None:
            parts[i] = parts[i] + bytes(data)

        return sink

    if len(begins) <= PEEKED:  # those that are here already tell their sizes
        yield Wave(peeks=[Request(at, at + HEADER, keep(i)) for i, at in enumerate(begins.tolist())])
        for i, part in enumerate(parts):
            if part:
                ends[i], parts[i] = _end(int(begins[i]), part, int(following[i])), b""
    ranges = zip(begins.tolist(), ends.tolist(), strict=True)
    yield Wave([Request(a, b, keep(i)) for i, (a, b) in enumerate(ranges)])
    more = []
    for i, part in enumerate(parts):
        size = collection_size(part)
        if size > len(part):
            end = _end(int(begins[i]), part, int(following[i]))
            more.append(Request(int(begins[i]) + len(part), end, keep(i)))
        else:
            parts[i] = part[:size]
    if more:
        yield Wave(more)
    number = descriptors["index"][~null].astype(np.int64)
    placed = np.zeros(len(which), np.int64)
    length = np.zeros(len(which), np.int64)
    order = np.argsort(which, kind="stable")
    border = np.searchsorted(which[order], np.arange(len(parts) + 1))
    at = 0
    for i, part in enumerate(parts):
        where = order[border[i] : border[i + 1]]
        first, held = objects(memoryview(part))
        numbers_here = number[where]
        if (numbers_here >= len(first)).any() or (first[numbers_here] < 0).any():
            raise NWBReadError("damaged: a string that its global heap collection doesn't hold")
        placed[where] = first[numbers_here] + at
        length[where] = held[numbers_here]
        at += len(part)
    if (length != sizes[~null]).any():
        raise NWBReadError("damaged: a string of another length than the global heap holds")
    starts[~null] = placed
    if int(sizes.sum()) > SHARED * at + SLACK:
        raise NWBReadError("damaged: strings that together are longer than what is stored")
    return np.frombuffer(b"".join(parts), np.uint8), starts, sizes


def _end(begin: int, data: bytes, following: int) -> int:
    """Where a collection ends, before the next one begins."""
    end = begin + collection_size(data)
    if end > following:
        raise NWBReadError("damaged: a global heap collection reaches beyond the file or into another")
    return end
