"""Where the bytes of a dataset lie: its layout and extents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from h5py import h5d

from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.hdf5.chunk_btree import ChunkBTree, grid_positions, one_chunk
from lazynwb_dask.hdf5.dataset import Dataset, DatasetInfo
from lazynwb_dask.hdf5.extensible_array import corrected, grows_inside, is_extensible
from lazynwb_dask.hdf5.heap_places import with_heap
from lazynwb_dask.hdf5.object_header import DataLayout, FormatError, data_layout, stored_fill
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.elements import element_bytes
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, Extents, Layout
from lazynwb_dask.model.limits import check_extents, check_shape, expansion

_U8 = np.dtype("<u8")
EAGER_CHUNKS = 16  # the chunks of a column of up to so many are always listed while indexing
MAX_ALIKE = 64  # layouts of datasets of one chunk whose headers have the same messages
NEARBY_CHUNKS = 4096  # those of a column of up to so many, if the B-tree needs no further request


@dataclass(frozen=True)
class Locator:
    """Finds where the bytes of one file's datasets lie."""

    sparse: SparseFile
    base: int  # the superblock's base address, which all addresses count from
    standard_sizes: bool  # whether offsets and lengths have 8 bytes
    list_all: bool = False  # list all chunks, however many

    def array(self, dataset: Dataset) -> ArrayIndex:
        """The index of a dataset. Raises UnsupportedColumnError for values that a table can't show.

        Raises NWBReadError or FormatError for a damaged one.
        """
        if dataset.array is not None:
            return dataset.array
        if dataset.problem:
            raise UnsupportedColumnError(dataset.problem)
        if dataset.header is None:
            return with_heap(self._array(dataset), self.sparse)
        # this depends on nothing but the file's bytes, so that the next pass may use it again
        key = dataset.address, dataset.path, self.list_all
        found: ArrayIndex | None = self.sparse.parsed.get(key)
        if found is None:
            found = self._array(dataset)
        found = self.sparse.parsed[key] = with_heap(found, self.sparse)
        return found

    def _array(self, dataset: Dataset) -> ArrayIndex:
        info = dataset.info
        found = self._like_another(dataset, info)
        if found is not None:
            return found
        if not self.standard_sizes and info.has_addresses:
            raise UnsupportedColumnError("a file whose addresses are not of 8 bytes")
        fill = info.fill
        if info.has_addresses and fill:  # addresses of this file, which only its own bytes tell
            fill = stored_fill(self.sparse, dataset.address + self.base, self.base)
            if len(fill) != element_bytes(info.element):
                raise FormatError(f"a fill value of {len(fill)} bytes")
        message = self._data_layout(dataset, info)
        shape = info.shape or (1,)
        layout = Layout(
            info.element,
            shape[1:],
            info.chunk,
            info.filters,
            fill,
            message.raw_edges,
            self.base,
            unlisted=dataset.path if self._is_deferred(info, message) else "",
        )
        check_shape(layout, shape[0], self.sparse.size)
        extents = self._extents(dataset, layout, shape, message)
        check_extents(layout, extents, self.sparse.size, dataset.path)
        if layout.chunk is not None and extents.offsets.size == 1 and message.btree and fill is info.fill:
            chunk = math.prod(layout.chunk) * layout.element_bytes
            mask = 0 if extents.masks is None else int(extents.masks[0])
            if len(info.one_chunk) < MAX_ALIKE:
                info.one_chunk[self.base, mask] = layout, -(-chunk // expansion(layout, mask))
        return ArrayIndex(layout, extents)

    def _like_another(self, dataset: Dataset, info: DatasetInfo) -> ArrayIndex | None:
        """The index of a dataset of one chunk, if one with the same messages in its header was found valid."""
        if dataset.header is None or not info.one_chunk:
            return None
        only = one_chunk(self.sparse, dataset.header.layout.address, len(info.shape), self.base)
        known = None if only is None else info.one_chunk.get((self.base, only[2]))
        if only is None or known is None or only[1] < known[1] or only[0] + only[1] > self.sparse.size:
            return None
        return ArrayIndex(known[0], _one_extent(info.shape[0], *only))

    def _data_layout(self, dataset: Dataset, info: DatasetInfo) -> DataLayout:
        if dataset.header is not None:
            return dataset.header.layout
        if info.storage != h5d.CONTIGUOUS and self.standard_sizes:
            return data_layout(self.sparse, dataset.address + self.base, self.base)
        if info.storage == h5d.COMPACT:
            raise UnsupportedColumnError("compact data where addresses are not of 8 bytes")
        assert dataset.id is not None
        offset = dataset.id.get_offset()
        return DataLayout("contiguous", UNDEFINED if offset is None else offset)

    def _is_deferred(self, info: DatasetInfo, message: DataLayout) -> bool:
        """Whether the chunks are listed only when they are read: many, in an index only libhdf5 can read."""
        if info.chunk is None or self.list_all or (message.btree and self.standard_sizes):
            return False
        if min(info.chunk) < 1:
            return False
        layout = Layout(info.element, info.shape[1:], info.chunk)
        return layout.chunks(info.shape[0]) > NEARBY_CHUNKS

    def _extents(
        self, dataset: Dataset, layout: Layout, shape: tuple[int, ...], message: DataLayout
    ) -> Extents:
        rows, nothing = shape[0], np.zeros(0, "<u8")
        if layout.chunk is None:
            nbytes = rows * layout.row_bytes
            if message.kind == "compact" and message.size < nbytes:
                raise FormatError(f"compact data of {message.size} bytes where {nbytes} are declared")
            return Extents(rows, np.array([message.address], "<u8"), np.array([nbytes], "<u8"))
        if layout.unlisted:
            return Extents(rows, nothing, nothing)
        count = layout.chunks(rows)
        if not count:
            return Extents(rows, nothing, nothing)
        if not message.btree or not self.standard_sizes:
            return self._listed(dataset, layout, shape, count)
        if message.address == UNDEFINED:  # no chunk was ever written
            return Extents(rows, np.full(count, UNDEFINED, "<u8"), np.zeros(count, "<u8"))
        unlisted = Extents(rows, nothing, nothing, None, message.address)
        if count > NEARBY_CHUNKS and not self.list_all:
            return unlisted
        only = one_chunk(self.sparse, message.address, len(shape), self.base) if count == 1 else None
        if only is not None:
            return _one_extent(rows, *only)
        tree = ChunkBTree(message.address, shape, layout.chunk, self.base, self.sparse.size)
        if not tree.read(self.sparse, opportunistic=count > EAGER_CHUNKS and not self.list_all):
            return unlisted
        return tree.extents()

    def _listed(self, dataset: Dataset, layout: Layout, shape: tuple[int, ...], count: int) -> Extents:
        """The chunks as libhdf5 lists them, for the chunk indexes of HDF5 1.10 and later."""
        assert layout.chunk is not None
        assert dataset.id is not None
        offsets = np.full(count, UNDEFINED, "<u8")
        sizes, masks = np.zeros(count, "<u8"), np.zeros(count, "<u4")
        grid = tuple(-(-n // c) for n, c in zip(shape, layout.chunk, strict=True))
        listed: list[h5d.StoreInfo] = []

        def visit(info: h5d.StoreInfo) -> bool | None:
            listed.append(info)
            return True if len(listed) > count else None  # True ends the iteration

        dataset.id.chunk_iter(visit)
        if self.sparse.missing:
            raise Miss(dataset.path)
        if listed:
            start = np.array([info.chunk_offset for info in listed], np.uint64)
            if grows_inside(dataset.id) and self._is_extensible(dataset):
                start = corrected(dataset.id, start, layout.chunk)
            flat = grid_positions(start, layout.chunk, grid)
            if (flat < 0).any() or np.unique(flat).size < flat.size:
                raise FormatError("a chunk index that lists chunks twice or outside the dataset")
            offsets[flat] = [info.byte_offset for info in listed]
            sizes[flat] = [info.size for info in listed]
            masks[flat] = [info.filter_mask for info in listed]
        return Extents(shape[0], offsets, sizes, masks if masks.any() else None)

    def _is_extensible(self, dataset: Dataset) -> bool:
        at = dataset.address + self.base
        if self.standard_sizes:
            return is_extensible(self.sparse, at, self.base)
        if self.sparse.peek(at, at + 4) == b"OHDR":
            raise UnsupportedColumnError(
                "chunks of a dataset that grows in another dimension than its first, in a file whose "
                "addresses are not of 8 bytes"
            )
        return False  # version 1 object headers have B-trees only


def _one_extent(rows: int, offset: int, size: int, mask: int) -> Extents:
    masks = np.array([mask], "<u4") if mask else None
    return Extents(rows, np.array([offset], _U8), np.array([size], _U8), masks)
