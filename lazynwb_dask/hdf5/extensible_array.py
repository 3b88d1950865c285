"""Chunks in an extensible array, the index of datasets with one unlimited dimension (HDF5 1.10 and later).

Chunks are numbered as if the unlimited dimension came first. libhdf5 reads them so, but `H5Dchunk_iter`
decodes the numbers with the dimensions in their own order, and reports other chunks. See the HDF5 File
Format Specification, version 3.0, section VII.D "The Extensible Array Index".
"""

from __future__ import annotations

from functools import cache

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from lazynwb_dask.hdf5.object_header import DATA_LAYOUT, FormatError, messages
from lazynwb_dask.hdf5.sparse_file import SparseFile

EXTENSIBLE = 4  # the chunk indexing type in a data layout message
_VERSION = 4  # the first one of that message that has the type


def grows_inside(dataset: h5d.DatasetID) -> bool:
    """Whether a dataset has just one unlimited dimension, and it is not the first."""
    most = dataset.get_space().get_simple_extent_dims(True)
    return h5s.UNLIMITED in most[1:] and most.count(h5s.UNLIMITED) == 1


def is_extensible(sparse: SparseFile, address: int, base: int) -> bool:
    """Whether the dataset whose object header is at an address has such an index."""
    for kind, _, body in messages(sparse, address, base):
        if kind == DATA_LAYOUT:
            at = 5 + body[3] * body[4] if body[0] >= _VERSION else len(body)
            return body[at : at + 1] == bytes([EXTENSIBLE])
    raise FormatError("no data layout message")


def corrected(dataset: h5d.DatasetID, start: np.ndarray, chunk: tuple[int, ...]) -> np.ndarray:
    """The first elements of chunks that libhdf5 reports as beginning at the rows of `start`.

    Its offsets are turned back into chunk numbers, which are decoded again. The dataset has such an index,
    and an unlimited dimension that is not the first.
    """
    if not lists_wrongly():
        return start
    most = dataset.get_space().get_simple_extent_dims(True)
    step = np.array(chunk, np.uint64)
    where, counts = start // step, [-(-n // c) for n, c in zip(most, chunk, strict=True)]
    number = np.zeros(len(where), np.uint64)
    for i, count in enumerate(counts):
        number = number * np.uint64(count) + where[:, i]
    free = most.index(h5s.UNLIMITED)
    for i in reversed(range(len(counts))):
        if i != free:
            number, where[:, i] = np.divmod(number, np.uint64(counts[i]))
    where[:, free] = number
    return where * step


@cache
def lists_wrongly() -> bool:
    """Whether this libhdf5 reports other chunks: tried on a dataset that has only the chunk (1, 0)."""
    with h5py.File.in_memory(libver="latest") as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((1, 1))
        space = h5s.create_simple((2, 2), (2, h5s.UNLIMITED))
        made = h5d.create(file.id, b"x", h5t.STD_I8LE, space, plist)
        made.write_direct_chunk((1, 0), b"\0")
        listed: list[tuple[int, ...]] = []
        made.chunk_iter(lambda info: listed.append(info.chunk_offset))
    return listed != [(1, 0)]
