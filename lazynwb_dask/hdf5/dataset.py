"""One dataset: what it is, and where its bytes lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5z

from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.hdf5.dataset_header import Header
from lazynwb_dask.hdf5.datatypes import element_of
from lazynwb_dask.hdf5.extensible_array import corrected, grows_inside, is_extensible
from lazynwb_dask.hdf5.links import has_attribute
from lazynwb_dask.hdf5.object_header import (
    ChunkTree,
    DataLayout,
    FormatError,
    data_layout,
    grid_positions,
)
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.elements import ElementType, element_bytes, walk
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, Extents, Filter, Layout
from lazynwb_dask.model.limits import MAX_ELEMENT, check_extents, check_shape

EAGER_CHUNKS = 16  # a column of up to so many chunks is always indexed whole
NEARBY_CHUNKS = 4096  # one of up to so many if its B-tree is here anyway
MAX_FORMS = 4096  # remembered, for the whole process

_ADDRESSED = ("string", "sequence", "reference")


@dataclass(frozen=True, slots=True)
class Form:
    """What h5py says of a dataset, but for where its data are.

    Parameters
    ----------
    shape : tuple of int
        Of no dimensions for a scalar.
    kind : int
        The HDF5 class of the datatype.
    element : tuple
    chunk : tuple of int or None
    filters : tuple of Filter
    fill : bytes
    storage : int
        h5py's constant for the layout.
    """

    shape: tuple[int, ...]
    kind: int
    element: ElementType
    chunk: tuple[int, ...] | None
    filters: tuple[Filter, ...]
    fill: bytes
    storage: int

    @staticmethod
    def of(dataset: h5d.DatasetID) -> Form:
        """Ask h5py.

        Raises
        ------
        UnsupportedColumnError
            It has no values that a table could show.
        """
        plist = dataset.get_create_plist()
        storage = plist.get_layout()
        if dataset.get_space().get_simple_extent_type() == h5s.NULL:
            raise UnsupportedColumnError("an empty dataspace: it has no values")
        shape = dataset.shape
        kind = dataset.get_type()
        element = element_of(kind)
        chunk = plist.get_chunk() if storage == h5d.CHUNKED else None
        if element_bytes(element) > MAX_ELEMENT:  # before its fill value is read
            raise UnsupportedColumnError(f"elements of {element_bytes(element)} bytes")
        filters = tuple(_filters(plist))
        return Form(
            shape,
            kind.get_class(),
            element,
            chunk,
            filters,
            _fill(plist, dataset, element),
            storage,
        )


_forms: dict[tuple[bytes, ...], Form] = {}


def known_form(header: Header) -> Form | None:
    """What h5py has said of a dataset with such a header."""
    return _forms.get(header.form)


def _remember(header: Header, form: Form) -> None:
    if len(_forms) >= MAX_FORMS:
        _forms.clear()
    _forms[header.form] = form


class Dataset:
    """A dataset of a group, opened by libhdf5 only where that is needed.

    Parameters
    ----------
    name, path : str
        Its name in the group; its path after soft links.
    rows : int
    opener : callable, optional
        Opens it. None: it is in another file.
    address : int
        Of its header. (Not by h5o.get_info, which walks all chunk indexes.)
    header : Header, optional
        If it is a plain one.
    elsewhere : ArrayIndex, optional
        Where its data are in another file that may be read.
    problem : str
        Why its data can't be read.
    """

    def __init__(
        self,
        name: str,
        path: str,
        rows: int,
        opener: Callable[[], h5d.DatasetID] | None = None,
        address: int = UNDEFINED,
        header: Header | None = None,
        elsewhere: ArrayIndex | None = None,
        problem: str = "",
    ) -> None:
        self.name, self.path, self.rows, self.address = name, path, rows, address
        self.header, self.elsewhere, self.problem = header, elsewhere, problem
        self._opener, self._opened = opener, None
        self._form = known_form(header) if header else None

    @property
    def id(self) -> h5d.DatasetID | None:
        """The open dataset; None if it is in another file."""
        if self._opened is None and self._opener is not None:
            self._opened = self._opener()
        return self._opened

    @property
    def here(self) -> bool:
        """Whether it is in this file."""
        return self._opener is not None

    @property
    def form(self) -> Form:
        """What it is. Of one whose data are elsewhere that may not be asked for."""
        if self._form is None:
            assert self.id is not None
            self._form = Form.of(self.id)
            if self.header is not None:
                _remember(self.header, self._form)
        return self._form

    @property
    def rank(self) -> int:
        """The number of dimensions; 0 for a scalar."""
        if self._form is not None:
            return len(self._form.shape)
        assert self.id is not None
        return len(self.id.shape)

    @property
    def kind(self) -> int:
        """The HDF5 class of its datatype."""
        if self._form is not None:
            return self._form.kind
        assert self.id is not None
        return int(self.id.get_type().get_class())

    def has(self, attribute: str) -> bool:
        """Whether it has an attribute."""
        if self.header is not None:
            return attribute in self.header.attributes
        assert self.id is not None
        return has_attribute(self.id, attribute)


@dataclass(frozen=True)
class Locator:
    """Finds where the bytes of one file's datasets lie.

    Parameters
    ----------
    sparse : SparseFile
    base : int
        What addresses in the file count from.
    standard : bool
        Whether addresses and lengths are of 8 bytes.
    listing : bool
        List all chunks, however many.
    """

    sparse: SparseFile
    base: int
    standard: bool
    listing: bool = False

    def array(self, dataset: Dataset) -> ArrayIndex:
        """The index of a dataset.

        Raises
        ------
        UnsupportedColumnError
            It has no values that a table could show.
        NWBReadError, FormatError
            It is damaged.
        """
        if dataset.elsewhere is not None:
            return dataset.elsewhere
        if dataset.problem:
            raise UnsupportedColumnError(dataset.problem)
        if dataset.header is None:
            return self._array(dataset)
        # nothing but the file's bytes was looked at: what is known of it stays known
        key = dataset.address, dataset.path, self.listing
        found: ArrayIndex | None = self.sparse.known.get(key)
        if found is None:
            found = self.sparse.known[key] = self._array(dataset)
        return found

    def _array(self, dataset: Dataset) -> ArrayIndex:
        form = dataset.form
        if not self.standard and any(e[0] in _ADDRESSED for e in walk(form.element)):
            raise UnsupportedColumnError("a file whose addresses are not of 8 bytes")
        held = self._held(dataset, form)
        shape = form.shape or (1,)
        layout = Layout(
            form.element,
            shape[1:],
            form.chunk,
            form.filters,
            form.fill,
            held.raw_edges,
            self.base,
            unlisted=dataset.path if self._is_left(form, held) else "",
        )
        check_shape(layout, shape[0], self.sparse.size)
        extents = self._located(dataset, layout, shape, held)
        check_extents(layout, extents, self.sparse.size, dataset.path)
        return ArrayIndex(layout, extents)

    def _held(self, dataset: Dataset, form: Form) -> DataLayout:
        if dataset.header is not None:
            return dataset.header.layout
        if form.storage != h5d.CONTIGUOUS and self.standard:
            return data_layout(self.sparse, dataset.address + self.base, self.base)
        if form.storage == h5d.COMPACT:
            raise UnsupportedColumnError("compact data where addresses are not of 8 bytes")
        assert dataset.id is not None
        offset = dataset.id.get_offset()
        return DataLayout("contiguous", UNDEFINED if offset is None else offset)

    def _located(
        self, dataset: Dataset, layout: Layout, shape: tuple[int, ...], held: DataLayout
    ) -> Extents:
        """Where a dataset lies, as the file has it."""
        rows, nothing = shape[0], np.zeros(0, "<u8")
        if layout.chunk is None:
            nbytes = rows * layout.row_bytes
            if held.kind == "compact" and held.size < nbytes:
                raise FormatError(f"compact data of {held.size} bytes where {nbytes} are declared")
            return Extents(rows, np.array([held.address], "<u8"), np.array([nbytes], "<u8"))
        if layout.unlisted:
            return Extents(rows, nothing, nothing)
        count = layout.chunks(rows)
        if not count or not held.btree or not self.standard:
            return self._listed(dataset, layout, shape, count)
        if held.address == UNDEFINED:  # no chunk was ever written
            return Extents(rows, np.full(count, UNDEFINED, "<u8"), np.zeros(count, "<u8"))
        later = Extents(rows, nothing, nothing, None, held.address)
        if count > NEARBY_CHUNKS:
            return later
        tree = ChunkTree(held.address, shape, layout.chunk, self.base, self.sparse.size)
        if not tree.read(self.sparse, opportunistic=count > EAGER_CHUNKS):
            return later
        return tree.extents()

    def _is_left(self, form: Form, held: DataLayout) -> bool:
        """Whether the chunks are left unlisted: many, in an index that only libhdf5 can read."""
        if form.chunk is None or self.listing or (held.btree and self.standard):
            return False
        if min(form.chunk) < 1:
            return False
        layout = Layout(form.element, form.shape[1:], form.chunk)
        return layout.chunks(form.shape[0]) > NEARBY_CHUNKS

    def _listed(
        self, dataset: Dataset, layout: Layout, shape: tuple[int, ...], count: int
    ) -> Extents:
        """The chunks as libhdf5 lists them, for the chunk indexes of HDF5 1.10 and later."""
        assert layout.chunk is not None
        offsets = np.full(count, UNDEFINED, "<u8")
        sizes, masks = np.zeros(count, "<u8"), np.zeros(count, "<u4")
        if not count:
            return Extents(shape[0], offsets, sizes)
        grid = tuple(-(-n // c) for n, c in zip(shape, layout.chunk, strict=True))
        listed: list[h5d.StoreInfo] = []

        def take(info: h5d.StoreInfo) -> bool | None:
            listed.append(info)
            return True if len(listed) > count else None  # true ends it

        assert dataset.id is not None
        dataset.id.chunk_iter(take)
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
        if self.standard:
            return is_extensible(self.sparse, at, self.base)
        if self.sparse.peek(at, at + 4) == b"OHDR":
            raise UnsupportedColumnError(
                "chunks of a dataset that grows in another dimension than its first, in a file whose "
                "addresses are not of 8 bytes"
            )
        return False  # headers of this version know B-trees only


def elsewhere(dataset: h5d.DatasetID) -> str:
    """How a dataset's data come to be in other files; empty if they don't."""
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5d.VIRTUAL:
        return "a virtual dataset"
    return "external storage" if plist.get_external_count() else ""


def _filters(plist: h5p.PropDCID) -> Iterator[Filter]:
    for i in range(plist.get_nfilters()):
        number, _, values, name = plist.get_filter(i)
        yield Filter(number, tuple(values), name.decode("ascii", "replace"))


def _fill(plist: h5p.PropDCID, dataset: h5d.DatasetID, element: ElementType) -> bytes:
    """The fill value as stored; empty for zeros."""
    if plist.fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return b""
    if any(e[0] in _ADDRESSED for e in walk(element)):
        return b""  # null descriptors and references
    # libhdf5 gives it as values of any type, but its bytes only as those of a dataset
    plain = plist.copy()
    plain.set_chunk((1,))
    plain.remove_filter(h5z.FILTER_ALL)
    with h5py.File.in_memory() as file:
        kind = dataset.get_type().copy()
        made = h5d.create(file.id, b"fill", kind, h5s.create_simple((1,)), plain)
        raw = np.zeros(element_bytes(element), np.uint8)
        made.read(h5s.ALL, h5s.ALL, raw, kind)
    return raw.tobytes() if raw.any() else b""
