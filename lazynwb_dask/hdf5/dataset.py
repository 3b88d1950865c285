"""Datasets: their dataspace, datatype, chunk shape, filters and fill value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5z

from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.hdf5.dataset_header import DatasetHeader
from lazynwb_dask.hdf5.datatypes import element_of
from lazynwb_dask.hdf5.links import has_attribute
from lazynwb_dask.hdf5.object_header import FormatError
from lazynwb_dask.model.elements import ElementType, element_bytes, walk
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, Filter, Layout, flat_length
from lazynwb_dask.model.limits import MAX_ELEMENT

MAX_INFOS = 4096  # remembered in this process

_ADDRESSED = ("string", "sequence", "reference")


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What h5py says of a dataset, except where its data are."""

    shape: tuple[int, ...]  # empty for a scalar
    type_class: int  # the datatype's class, one of h5py's constants
    element: ElementType  # see `lazynwb_dask.model.elements`
    chunk: tuple[int, ...] | None
    filters: tuple[Filter, ...]
    fill: bytes  # as stored; empty for zeros; not empty where it holds addresses
    storage: int  # the layout class, one of h5py's constants
    # of valid ones of one chunk: by base address and filter mask, the layout and the least bytes stored
    one_chunk: dict[tuple[int, int], tuple[Layout, int]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @staticmethod
    def of(dataset: h5d.DatasetID) -> DatasetInfo:
        """By h5py. Raises UnsupportedColumnError for values that a table can't show."""
        plist = dataset.get_create_plist()
        storage = plist.get_layout()
        if dataset.get_space().get_simple_extent_type() == h5s.NULL:
            raise UnsupportedColumnError("an empty dataspace: it has no values")
        kind = dataset.get_type()
        element = element_of(kind)
        chunk = plist.get_chunk() if storage == h5d.CHUNKED else None
        if element_bytes(element) > MAX_ELEMENT:  # before its fill value is read
            raise UnsupportedColumnError(f"elements of {element_bytes(element)} bytes")
        filters = tuple(_filters(plist))
        fill = _fill(plist, dataset, element)
        return DatasetInfo(dataset.shape, kind.get_class(), element, chunk, filters, fill, storage)

    @property
    def has_addresses(self) -> bool:
        """Whether elements hold addresses of the file: of heap collections, or of object headers."""
        return any(e[0] in _ADDRESSED for e in walk(self.element))


_infos: dict[tuple[bytes, ...], DatasetInfo] = {}


def known_info(header: DatasetHeader) -> DatasetInfo | None:
    """What h5py says of a dataset with the same header messages, if one was opened before."""
    return _infos.get(header.messages)


def _remember(header: DatasetHeader, info: DatasetInfo) -> None:
    if len(_infos) >= MAX_INFOS:
        _infos.clear()
    _infos[header.messages] = info


@dataclass(eq=False)
class Dataset:
    """A dataset of a group. libhdf5 opens it only where that is needed.

    `address` is that of the object header. h5o.get_info gives it too, but walks the whole chunk index.
    """

    name: str  # in the group
    path: str  # in the file, soft links resolved
    shape: tuple[int, ...]  # empty for a scalar; -1 where it may not be read
    opener: Callable[[], h5d.DatasetID] | None = None  # None: it is in another file
    address: int = UNDEFINED
    header: DatasetHeader | None = None  # if it could be parsed without libhdf5
    array: ArrayIndex | None = None  # where its data lie, if this file's metadata don't say so
    problem: str = ""  # why its data can't be read
    _opened: h5d.DatasetID | None = field(init=False, default=None)
    _info: DatasetInfo | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._info = known_info(self.header) if self.header else None

    @property
    def id(self) -> h5d.DatasetID | None:
        """The open dataset; None if it is in another file."""
        if self._opened is None and self.opener is not None:
            self._opened = self.opener()
        return self._opened

    @property
    def unopened(self) -> bool:
        """Whether all that was asked of it so far follows from its header."""
        return self.header is not None and self._opened is None

    @property
    def in_file(self) -> bool:
        """Whether it is in this file."""
        return self.opener is not None

    @property
    def info(self) -> DatasetInfo:
        """What it is. Not for datasets whose data are in other files, which libhdf5 would open."""
        if self._info is None:
            assert self.id is not None
            self._info = DatasetInfo.of(self.id)
            if self.header is not None:
                if self.header.shape != self._info.shape:  # it would be taken for that of other datasets
                    raise FormatError(f"damaged: {self._info.shape} where its header has {self.header.shape}")
                _remember(self.header, self._info)
        return self._info

    @property
    def rows(self) -> int:
        """The length of the first dimension; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def length(self) -> int:
        """The number of rows if each has one value: the only dimension that isn't 1, or else the longest."""
        found = flat_length(self.shape)
        if found is None:
            found = 0 if 0 in self.shape else max(self.shape)
        return found

    @property
    def type_class(self) -> int:
        """The class of its datatype, one of h5py's constants."""
        if self._info is not None:
            return self._info.type_class
        assert self.id is not None
        return int(self.id.get_type().get_class())

    def has(self, attribute: str) -> bool:
        """Whether it has an attribute."""
        if self.header is not None:
            return attribute in self.header.attributes
        assert self.id is not None
        return has_attribute(self.id, attribute)


def external_data(dataset: h5d.DatasetID) -> str:
    """By which feature of HDF5 a dataset's data are in other files; empty if they aren't."""
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
        return b"\1"  # heap IDs or references: see `Locator`
    # h5py converts a fill value; its stored bytes are only to be had as those of a dataset
    unfiltered = plist.copy()
    unfiltered.set_chunk((1,))
    unfiltered.remove_filter(h5z.FILTER_ALL)
    with h5py.File.in_memory() as file:
        kind = dataset.get_type().copy()
        made = h5d.create(file.id, b"fill", kind, h5s.create_simple((1,)), unfiltered)
        raw = np.zeros(element_bytes(element), np.uint8)
        made.read(h5s.ALL, h5s.ALL, raw, kind)
    return raw.tobytes() if raw.any() else b""
