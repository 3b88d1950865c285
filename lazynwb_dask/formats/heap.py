"""Variable-length values: descriptors into the global heap (HDF5 specification, section III.E)."""

from __future__ import annotations

import numpy as np

from ..errors import NWBReadError

HEADER = 16  # "GCOL", version, three reserved bytes, the collection's size
OBJECT = 16  # number, reference count, four reserved bytes, the object's size
FIRST = 4096  # collections are at least so large
MAX_COLLECTION = 1 << 30  # bytes of one collection
MAX_OBJECTS = 1 << 16  # of one collection: their numbers have two bytes


def collection_size(data: bytes | memoryview) -> int:
    """The size that a collection's header declares."""
    if bytes(data[:4]) != b"GCOL" or len(data) < HEADER:
        raise NWBReadError("damaged: a string points to no collection of the global heap")
    size = int.from_bytes(data[8:16], "little")
    if not HEADER <= size <= MAX_COLLECTION:
        raise NWBReadError(f"damaged: a global heap collection of {size} bytes")
    return size


def objects(data: memoryview) -> tuple[np.ndarray, np.ndarray]:
    """The start and the size of each object of a whole collection, by its number.

    The one loop over stored items in this package: the objects' sizes chain them together.
    """
    size = len(data)
    starts, sizes = {}, {}
    at = HEADER
    while at + OBJECT <= size:
        number = data[at] | data[at + 1] << 8
        length = int.from_bytes(data[at + 8 : at + 16], "little")
        if number == 0:  # the free space at the end
            break
        if at + OBJECT + length > size:
            raise NWBReadError("damaged: an object reaches beyond its global heap collection")
        if number in starts:  # so there are at most `MAX_OBJECTS`
            raise NWBReadError("damaged: a global heap collection with two objects of one number")
        starts[number], sizes[number] = at + OBJECT, length
        at += OBJECT + -(-length // 8) * 8
    last = max(starts, default=0)
    first, length_of = np.full(last + 1, -1, np.int64), np.zeros(last + 1, np.int64)
    numbers = np.fromiter(starts, np.int64, len(starts))
    first[numbers] = np.fromiter(starts.values(), np.int64, len(starts))
    length_of[numbers] = np.fromiter(sizes.values(), np.int64, len(sizes))
    return first, length_of
