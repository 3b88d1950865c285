"""Variable-length values: descriptors into the global heap (HDF5 specification, section III.E)."""

from __future__ import annotations

from struct import Struct

import numpy as np

from lazynwb_dask.errors import NWBReadError

HEADER = 16  # "GCOL", version, three reserved bytes, the collection's size
OBJECT = 16  # number, reference count, four reserved bytes, the object's size
FIRST = 4096  # collections are at least so large
MAX_COLLECTION = 1 << 30  # bytes of one collection
MAX_OBJECTS = 1 << 16  # of one collection: their numbers have two bytes
_object = Struct("<H6xQ").unpack_from  # its number and its size


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
    end = len(data)
    numbers: list[int] = []
    starts: list[int] = []
    sizes: list[int] = []
    at = HEADER
    while at + OBJECT <= end:
        number, size = _object(data, at)
        if number == 0:  # the free space at the end
            break
        at += OBJECT
        numbers.append(number)
        starts.append(at)
        sizes.append(size)
        at += size + 7 & -8
        if at > end and starts[-1] + size > end:
            raise NWBReadError("damaged: an object reaches beyond its global heap collection")
        if len(numbers) > MAX_OBJECTS:
            break
    where = np.array(numbers, np.int64)
    last = int(where.max(initial=0))
    first, length = np.full(last + 1, -1, np.int64), np.zeros(last + 1, np.int64)
    first[where], length[where] = starts, sizes
    if int((first >= 0).sum()) < len(numbers):
        raise NWBReadError("damaged: a global heap collection with two objects of one number")
    return first, length
