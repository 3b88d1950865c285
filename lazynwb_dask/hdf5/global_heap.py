"""Collections of the global heap, which store variable-length values.

See the HDF5 File Format Specification, version 3.0, section III.E "Disk Format: Level 1E - Global Heap".
"""

from __future__ import annotations

from struct import Struct

import numpy as np

from lazynwb_dask.errors import NWBReadError

HEADER = 16  # bytes: "GCOL", version, three reserved bytes, collection size
OBJECT = 16  # bytes: heap object index, reference count, four reserved bytes, object size
FIRST = 4096  # bytes: the smallest collection
MAX_COLLECTION = 1 << 30  # bytes of one collection
MAX_OBJECTS = 1 << 16  # of one collection: an index has two bytes
_object = Struct("<H6xQ").unpack_from  # index and size


def collection_size(data: bytes | memoryview) -> int:
    """The size that a collection's header declares."""
    if bytes(data[:4]) != b"GCOL" or len(data) < HEADER:
        raise NWBReadError("damaged: a string points to no collection of the global heap")
    size = int.from_bytes(data[8:16], "little")
    if not HEADER <= size <= MAX_COLLECTION:
        raise NWBReadError(f"damaged: a global heap collection of {size} bytes")
    return size


def objects(data: memoryview) -> tuple[np.ndarray, np.ndarray]:
    """The starts and sizes in bytes of a collection's objects, by heap object index; start -1 for none.

    This loops over the objects, since each object's size tells where the next one begins.
    """
    end = len(data)
    numbers: list[int] = []
    starts: list[int] = []
    sizes: list[int] = []
    at = HEADER
    while at + OBJECT <= end:
        number, size = _object(data, at)
        if number == 0:  # free space
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
    last = max(numbers, default=0)
    first, length = np.full(last + 1, -1, np.int64), np.zeros(last + 1, np.int64)
    first[where], length[where] = starts, sizes
    if int((first >= 0).sum()) < len(numbers):
        raise NWBReadError("damaged: a global heap collection with two objects of one number")
    return first, length
