"""The data model: what a file holds and where its bytes lie. Labels of enumerations are the only values.

`FileIndex > TableIndex > ColumnIndex > ArrayIndex > chunks`. All classes are frozen, and none depends on a
format's library or a filesystem. What many datasets share is their `Layout`, hashable and stored once. Each
file has its own `Extents`, a few integers.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from lazynwb_dask.model.elements import ElementType, element_bytes, element_type, walk
from lazynwb_dask.model.source import Source

UNDEFINED = 2**64 - 1
"""The undefined address of HDF5: nothing was written."""

_HEAP = 56  # the bits from here on count the numbers of `Extents.heap`


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a dataset's pipeline, as in HDF5's filter pipeline message."""

    id: int  # the filter identification value
    values: tuple[int, ...] = ()  # the client data
    name: str = ""


@dataclass(frozen=True, slots=True)
class Objects:
    """Chunks that are objects of their own, with keys below the source's URL, as in a Zarr store."""

    prefix: str  # what stands before a chunk's numbers: ``units/x/``; the whole key if there is one chunk
    separator: str = "."  # between the numbers; "" where `prefix` is the key of the only chunk
    # where one object holds several chunks (a shard): its shape; `Layout.chunk` is the one of a chunk within
    shard: tuple[int, ...] | None = None
    index: tuple[Filter, ...] = ()  # codecs of a shard's index, in writing order
    index_first: bool = False  # whether the index stands at a shard's beginning, not at its end
    suffix: str = ""  # what stands after the numbers

    def key(self, place: tuple[int, ...]) -> str:
        """The key of the object at a place of the grid."""
        numbers = self.separator.join(map(str, place)) if self.separator else ""
        return f"{self.prefix}{numbers}{self.suffix}"


@dataclass(frozen=True, slots=True)
class View:
    """Which of a dataset's values are shown, and in which unit."""

    channel: int | None = None  # only this position of the second dimension
    factors: tuple[float, ...] = ()  # float64, for all channels or for each; empty: as stored
    offset: float = 0.0  # added after the multiplication


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataset is stored, as far as many datasets share it."""

    element: ElementType  # see `lazynwb_dask.model.elements`
    item: tuple[int, ...] = ()  # shape of a row: the dataset's without its first dimension
    chunk: tuple[int, ...] | None = None  # shape; None for contiguous and compact storage
    filters: tuple[Filter, ...] = ()  # in the order in which they were applied when writing
    fill: bytes = b""  # the fill value of one element as stored; empty for zeros
    raw_edges: bool = False  # partial edge chunks are not filtered (data layout message version 4)
    user_block: int = 0  # base address, before the superblock: all addresses count from it
    external: str = ""  # dataset's path, if libhdf5 reads it in another file, or LINDI JSON has it
    rising: bool | None = None  # of timestamps, whether they are known to rise; None: others
    view: View | None = None  # None: values are shown as they are stored
    unlisted: str = ""  # dataset's path, if libhdf5 is to list its chunks when they are read
    objects: Objects | None = None  # None: chunks are byte ranges of the source

    def __hash__(self) -> int:  # the rest is seldom another where these are the same
        return hash((self.element, self.item, self.chunk, self.objects and self.objects.prefix))

    @property
    def computed(self) -> bool:
        """Whether values are computed from the layout alone, and none are stored."""
        return bool(self.element[0] == "ramp")

    @property
    def by_bytes(self) -> bool:
        """Whether it has float64 of which any can be read without others."""
        plain = self.element in (("number", "<f8"), ("number", ">f8"))
        return plain and not (self.item or self.filters or self.objects or self.external or self.view)

    @property
    def of_objects(self) -> bool:
        """Whether a store's chunks hold texts of any length, or compounds with them."""
        return self.objects is not None and any(inner[0] == "string" for inner in walk(self.element))

    @property
    def element_bytes(self) -> int:
        return element_bytes(self.element)

    @property
    def row_bytes(self) -> int:
        return math.prod(self.item) * self.element_bytes

    @property
    def shown_bytes(self) -> int:
        """Bytes of one row as it is shown."""
        if self.view is None:
            return self.row_bytes
        count = 1 if self.view.channel is not None else math.prod(self.item)
        return count * (8 if self.view.factors else self.element_bytes)

    @property
    def memory_bytes(self) -> int:
        """Bytes of one row as it is shown, in memory, estimated for variable-length elements."""
        # a variable-length element is 16 bytes of descriptor; its text is taken to be 16 more
        per = 32 if self.element[0] in ("string", "sequence") else 0
        return self.shown_bytes + per * math.prod(self.item)

    def chunks(self, rows: int) -> int:
        """The number of chunks in a dataset of so many rows, those never written included."""
        if self.chunk is None:
            return 1
        shape = (rows, *self.item)
        return math.prod(-(-n // c) for n, c in zip(shape, self.chunk, strict=True))


@dataclass(frozen=True, eq=False, slots=True)
class Extents:
    """Where one dataset's chunks lie, in the order of the chunk grid (C order)."""

    rows: int  # length of the first dimension
    offsets: np.ndarray  # uint64, byte offset of each chunk; `UNDEFINED` if never written
    sizes: np.ndarray  # uint64, stored bytes of each chunk
    masks: np.ndarray | None = None  # uint32; bit i: filter i was skipped; None: no bit is set
    root: int = UNDEFINED  # offset of the version 1 B-tree, where `offsets` is empty
    # where texts lie in the global heap, as far as that was seen while indexing: starts and ends in turn
    heap: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """Three integers, then 12 bytes for each chunk; with masks 4 more, with chunks of 4 GiB 4 more; then
        the heap, if it was seen."""
        if self.offsets.size == 1 and self.masks is None and (size := int(self.sizes[0])) < 2**32:
            count = 1 << 2 | len(self.heap) << _HEAP
            only = struct.pack("<4QI", self.rows, count, self.root, int(self.offsets[0]), size)
            return only + struct.pack(f"<{len(self.heap)}Q", *self.heap) if self.heap else only
        wide = self.sizes.size > 0 and int(self.sizes.max()) >= 2**32
        flags = (self.masks is not None) | wide << 1
        count = self.offsets.size << 2 | flags | len(self.heap) << _HEAP
        head = np.array([self.rows, count, self.root], "<u8")
        parts = [head, self.offsets.astype("<u8"), self.sizes.astype("<u8" if wide else "<u4")]
        if self.masks is not None:
            parts.append(self.masks.astype("<u4"))
        parts.append(np.array(self.heap, "<u8"))
        return b"".join(part.tobytes() for part in parts)

    @staticmethod
    def unpack(data: bytes | memoryview, at: int = 0) -> tuple[Extents, int]:
        """The extents at a position of a buffer, and the position after them."""
        rows, count, root = (int(v) for v in np.frombuffer(data, "<u8", 3, at))
        count, flags, heap = (count & (1 << _HEAP) - 1) >> 2, count & 3, count >> _HEAP
        at += 24
        offsets = np.frombuffer(data, "<u8", count, at)
        at += 8 * count
        sizes = np.frombuffer(data, "<u8" if flags & 2 else "<u4", count, at)
        at += sizes.nbytes
        masks = None
        if flags & 1:
            masks = np.frombuffer(data, "<u4", count, at)
            at += masks.nbytes
        seen = tuple(np.frombuffer(data, "<u8", heap, at).tolist())
        return Extents(rows, offsets, sizes.astype("<u8"), masks, root, seen), at + 8 * heap


def flat_length(shape: tuple[int, ...]) -> int | None:
    """The number of values in a shape with at most one dimension that isn't 1; None for others.

    >>> flat_length((5, 1)), flat_length((1, 5)), flat_length(()), flat_length((2, 5))
    (5, 5, 1, None)
    """
    long = [n for n in shape if n != 1]
    return None if len(long) > 1 else (long or [1])[0]


@dataclass(frozen=True, eq=False, slots=True)
class ArrayIndex:
    layout: Layout
    extents: Extents

    @staticmethod
    def without_chunks(layout: Layout, rows: int) -> ArrayIndex:
        """A dataset of which no chunk is known, or none is stored."""
        nothing = np.zeros(0, "<u8")
        return ArrayIndex(layout, Extents(rows, nothing, nothing))

    @property
    def rows(self) -> int:
        return self.extents.rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, *self.layout.item)

    def flattened(self) -> ArrayIndex | None:
        """The same values as one dimension, if they lie so; None if they don't."""
        layout, rows, objects = self.layout, flat_length(self.shape), self.layout.objects
        if not layout.item:
            return self
        axis = next((i for i, n in enumerate(self.shape) if n != 1), 0)
        if rows is None or (layout.external and rows != self.rows):
            return None
        if rows and not (self.located or objects):
            return None
        flat = replace(layout, item=())
        if layout.chunk is not None:
            flat = replace(flat, chunk=layout.chunk[axis : axis + 1])
            if math.prod(layout.chunk) != layout.chunk[axis]:
                return None  # chunks reach beyond the dataset in its other dimensions
        if objects is not None:
            shard, before, after = objects.shard, "0" + objects.separator, objects.separator + "0"
            if shard is not None:
                if math.prod(shard) != shard[axis]:
                    return None
                shard = shard[axis : axis + 1]
            prefix = objects.prefix + before * axis
            suffix = after * (len(layout.item) - axis) + objects.suffix
            flat = replace(flat, objects=replace(objects, prefix=prefix, suffix=suffix, shard=shard))
        return ArrayIndex(flat, replace(self.extents, rows=rows))

    @property
    def nbytes(self) -> int:
        """Decoded bytes."""
        return self.rows * self.layout.row_bytes

    @property
    def located(self) -> bool:
        """Whether it is known where its chunks lie, if it has any; of those in shards, their index tells it."""
        objects = self.layout.objects
        known = self.layout.chunk is None or (objects is not None and objects.shard is None)
        return known or not self.rows or self.extents.offsets.size > 0

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file, where the chunks are known."""
        return int(self.extents.sizes.sum())


@dataclass(frozen=True, eq=False)
class ColumnIndex:
    """One column of a table: the values, and the VectorIndex datasets that point into them."""

    name: str  # `category/column` for categories of an AlignedDynamicTable
    arrays: tuple[ArrayIndex, ...] = ()  # values, then indexes, innermost first
    rows: int = 0  # of the table; those that the column lacks are null
    labels: tuple[str, ...] | None = None  # what the numbers of an EnumData column stand for
    region: bool = False  # a DynamicTableRegion: row numbers of a table, int64 in the frame
    problem: str = ""  # why the column can't be read; empty when it can
    notes: tuple[str, ...] = ()  # what was unusual and was corrected
    # if requested: ``description``, ``unit`` and ``table`` (the target of a region)
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def variant(self) -> tuple[tuple[Layout, ...], tuple[str, ...] | None]:
        """What the column has in common with the same column of other files."""
        return tuple(array.layout for array in self.arrays), self.labels

    @property
    def type(self) -> pa.DataType:
        return column_type(*self.variant, self.region)

    @property
    def short(self) -> bool:
        """Whether rows are missing at the end."""
        return self.arrays[-1].rows < self.rows

    @property
    def nbytes(self) -> int:
        """Decoded bytes in memory, estimated for variable-length elements."""
        return sum(array.rows * array.layout.memory_bytes for array in self.arrays)


@dataclass(frozen=True, eq=False)
class TableIndex:
    """One table of one file.

    `attributes` hold ``description`` where it was requested, and of a TimeSeries all that says how to show
    it. A damaged column has a `problem`; so has one of a form that can't be shown, but that is no damage.
    """

    path: str
    rows: int
    columns: dict[str, ColumnIndex]
    notes: tuple[str, ...] = ()  # what was unusual and was corrected
    attributes: dict[str, str] = field(default_factory=dict)
    damage: str = ""  # the first column with damaged metadata, and how it is damaged


@dataclass(frozen=True, eq=False)
class FileIndex:
    """What is known of one file: the one table that was requested, or None where the file has none."""

    source: Source
    table: TableIndex | None


def column_type(
    layouts: tuple[Layout, ...], labels: tuple[str, ...] | None, region: bool = False
) -> pa.DataType:
    """The Arrow type of a column's row, from the layouts of the values, then of the VectorIndexes."""
    values = layouts[0]
    found = pa.string() if labels is not None else element_type(values.element)
    if region and pa.types.is_integer(found):
        found = pa.int64()
    item = values.item
    if values.view is not None:
        item = () if values.view.channel is not None else item
        found = pa.float64() if values.view.factors else found
    for _ in range(len(item) + len(layouts) - 1):
        found = pa.list_(found)
    return found
