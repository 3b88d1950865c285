"""The data model: what a file holds and where its bytes lie.

`FileIndex > TableIndex > ColumnIndex > ArrayIndex > chunks`. Everything is frozen, knows no file format's
library and no filesystem, and says nothing of values except where a format needs them to be understood
(the labels of an enumeration). What many datasets have in common is a `Layout`: a hashable object that is
stored once, however many files share it. What differs from file to file, the `Extents`, is a few integers.

Element types are nested tuples, so that they are hashable and travel as JSON:

========================================  ==========================================================
``("number", "<f8")``                     a number, in numpy's spelling of the stored bytes
``("bool",)``                             an HDF5 enumeration of FALSE and TRUE, one byte
``("enum", "<i1", labels, values)``       any other enumeration
``("text", size, padding)``               a string of fixed size; padding ``null``, ``term`` or ``space``
``("string",)``                           a variable-length string: a descriptor into the global heap
``("sequence", element)``                 a variable-length sequence: likewise
``("reference",)``                        an object reference: the address of an object's header
``("complex", "<f4")``                    real and imaginary part
``("compound", size, fields)``            fields as ``(name, offset, element)``
``("array", shape, element)``             an array as one element
``("odd", encoded, "<f4", size)``         what numpy can't name; libhdf5 converts it to the given dtype
``("ramp", start, rate)``                 a float64, ``start + row / rate``: nothing is stored
========================================  ==========================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lazynwb_dask.model.source import Source

UNDEFINED = 2**64 - 1
"""The address of what was never written."""

ElementType = tuple[Any, ...]

DESCRIPTOR = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
"""A variable-length element as stored: its length, its collection in the global heap, its number there."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One step of a dataset's filter pipeline, with the client data that HDF5 keeps of it."""

    id: int
    values: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What of a dataset's values is shown, and how.

    Parameters
    ----------
    channel : int or None
        Only this one of the second dimension.
    factors : tuple of float
        What values are multiplied with, as float64: one for all, or one for each channel. Empty: they
        are shown as they are stored.
    offset : float
        What is added then.
    """

    channel: int | None = None
    factors: tuple[float, ...] = ()
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataset is stored, as far as many datasets share it.

    Parameters
    ----------
    element : tuple
        The element type, see the module's table.
    item : tuple of int
        The shape of one row: the dataset's shape without its first dimension.
    chunk : tuple of int or None
        The shape of a chunk; None for contiguous and compact storage.
    filters : tuple of Filter
        In the order in which they were applied when writing.
    fill : bytes
        The fill value of one element as stored; empty for zeros.
    raw_edges : bool
        Chunks that reach beyond the dataset's edge are stored without filters (HDF5 layout version 4).
    user_block : int
        Bytes before the HDF5 file proper, which addresses within it don't count.
    foreign : str
        The dataset's path, where its data are in another file and libhdf5 is to read them.
    rising : bool
        Values follow one another in order, as far as the standard goes: times of samples.
    view : View or None
        Values are shown otherwise than they are stored.
    unlisted : str
        The dataset's path, where libhdf5 is to list its chunks when they are read.
    """

    element: ElementType
    item: tuple[int, ...] = ()
    chunk: tuple[int, ...] | None = None
    filters: tuple[Filter, ...] = ()
    fill: bytes = b""
    raw_edges: bool = False
    user_block: int = 0
    foreign: str = ""
    rising: bool = False
    view: View | None = None
    unlisted: str = ""

    @property
    def computed(self) -> bool:
        """Whether values follow from the layout, and none are stored."""
        return bool(self.element[0] == "ramp")

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

    def chunks(self, rows: int) -> int:
        """The number of chunks of a dataset of so many rows, absent ones included."""
        if self.chunk is None:
            return 1
        grid = math.ceil(rows / self.chunk[0])
        for size, step in zip(self.item, self.chunk[1:], strict=True):
            grid *= math.ceil(size / step)
        return grid


@dataclass(frozen=True, eq=False, slots=True)
class Extents:
    """Where one dataset's chunks lie, in the order of the chunk grid (C order).

    Parameters
    ----------
    rows : int
        The length of the first dimension.
    offsets : numpy.ndarray of uint64
        Byte offset of each chunk in the file; `UNDEFINED` for a chunk that was never written.
    sizes : numpy.ndarray of uint64
        Stored bytes of each chunk.
    masks : numpy.ndarray of uint32 or None
        Bit i set: filter i was left out for this chunk. None: no bits anywhere.
    root : int
        Where `offsets` is empty: the byte offset of the B-tree (version 1) that lists the chunks.
    """

    rows: int
    offsets: np.ndarray
    sizes: np.ndarray
    masks: np.ndarray | None = None
    root: int = UNDEFINED

    def pack(self) -> bytes:
        """As bytes: three integers, then 12 bytes a chunk (16 where a filter is masked, 20 where huge)."""
        wide = self.sizes.size > 0 and int(self.sizes.max()) >= 2**32
        flags = (self.masks is not None) | wide << 1
        head = np.array([self.rows, self.offsets.size << 2 | flags, self.root], "<u8")
        parts = [head, self.offsets.astype("<u8"), self.sizes.astype("<u8" if wide else "<u4")]
        if self.masks is not None:
            parts.append(self.masks.astype("<u4"))
        return b"".join(part.tobytes() for part in parts)

    @staticmethod
    def unpack(data: bytes | memoryview, at: int = 0) -> tuple[Extents, int]:
        """The extents at a position of a buffer, and the position after them."""
        rows, count, root = (int(v) for v in np.frombuffer(data, "<u8", 3, at))
        count, flags = count >> 2, count & 3
        at += 24
        offsets = np.frombuffer(data, "<u8", count, at)
        at += 8 * count
        sizes = np.frombuffer(data, "<u8" if flags & 2 else "<u4", count, at)
        at += sizes.nbytes
        masks = None
        if flags & 1:
            masks = np.frombuffer(data, "<u4", count, at)
            at += masks.nbytes
        return Extents(rows, offsets, sizes.astype("<u8"), masks, root), at


@dataclass(frozen=True, eq=False, slots=True)
class ArrayIndex:
    """One dataset."""

    layout: Layout
    extents: Extents

    @property
    def rows(self) -> int:
        return self.extents.rows

    @property
    def nbytes(self) -> int:
        """Decoded bytes."""
        return self.rows * self.layout.row_bytes

    @property
    def located(self) -> bool:
        """Whether it is known where its chunks lie, if it has any."""
        return self.layout.chunk is None or not self.rows or self.extents.offsets.size > 0

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file, where the chunks are known."""
        return int(self.extents.sizes.sum())


@dataclass(frozen=True, eq=False)
class ColumnIndex:
    """One column of a table: the values, and for ragged columns the indexes into them.

    Parameters
    ----------
    name : str
        As in the frame; ``category/column`` for the categories of an aligned table.
    arrays : tuple of ArrayIndex
        The values, then the `VectorIndex` datasets from the innermost outward.
    rows : int
        The rows that the table has; those that the column doesn't have are null.
    labels : tuple of str or None
        The labels that an `EnumData` column's numbers stand for.
    region : bool
        Whether it is a `DynamicTableRegion`: row numbers of another table, always int64 in the frame.
    problem : str
        Why the column can't be read; empty when it can.
    notes : tuple of str
        What was odd about it, and was put right.
    attributes : dict
        ``description``, ``unit``, ``table`` (a region's target), where they were asked for.
    """

    name: str
    arrays: tuple[ArrayIndex, ...] = ()
    rows: int = 0
    labels: tuple[str, ...] | None = None
    region: bool = False
    problem: str = ""
    notes: tuple[str, ...] = ()
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
        """Decoded bytes: what the column takes in memory, near enough to plan with."""
        total = 0
        for array in self.arrays:
            # a variable-length element is 16 bytes of descriptor; its text is guessed at 16 more
            per = 32 if array.layout.element[0] in ("string", "sequence") else 0
            total += array.rows * array.layout.shown_bytes
            total += per * array.rows * math.prod(array.layout.item)
        return total


@dataclass(frozen=True, eq=False)
class TableIndex:
    """One table of one file.

    Parameters
    ----------
    path : str
    rows : int
    columns : dict of str to ColumnIndex
    notes : tuple of str
        What was odd about it, and was put right.
    attributes : dict
        ``description``, where it was asked for; of a TimeSeries all that tells how to show it.
    damage : str
        The first column whose metadata can't be right, and how; empty if all are. Such a column has a
        `problem`, as has one of a form that can't be shown: but here the file is to blame.
    """

    path: str
    rows: int
    columns: dict[str, ColumnIndex]
    notes: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    damage: str = ""


@dataclass(frozen=True, eq=False)
class FileIndex:
    """What is known of one file: the one table that was asked for, or None where it has none."""

    source: Source
    table: TableIndex | None


def element_bytes(element: ElementType) -> int:
    """The stored size of one element."""
    kind = element[0]
    if kind in ("number", "enum"):
        return np.dtype(element[1]).itemsize
    if kind == "bool":
        return 1
    if kind in ("text", "compound"):
        return int(element[1])
    if kind in ("string", "sequence"):
        return DESCRIPTOR.itemsize
    if kind == "reference":
        return 8
    if kind == "complex":
        return 2 * np.dtype(element[1]).itemsize
    if kind == "ramp":
        return 8
    if kind == "array":
        return math.prod(element[1]) * element_bytes(element[2])
    if kind == "odd":
        return int(element[3])
    raise ValueError(f"unknown element type {element!r}")


def element_type(element: ElementType) -> pa.DataType:
    """The Arrow type of one element's value."""
    kind = element[0]
    if kind == "ramp":
        return pa.float64()
    if kind == "number":
        return pa.from_numpy_dtype(np.dtype(element[1]).newbyteorder("="))
    if kind == "bool":
        return pa.bool_()
    if kind in ("enum", "text", "string", "reference"):
        return pa.string()
    if kind == "sequence":
        return pa.list_(element_type(element[1]))
    if kind == "complex":
        part = pa.from_numpy_dtype(np.dtype(element[1]).newbyteorder("="))
        return pa.struct([("r", part), ("i", part)])
    if kind == "compound":
        return pa.struct([(name, element_type(inner)) for name, _, inner in element[2]])
    if kind == "array":
        inner = element_type(element[2])
        for _ in element[1]:
            inner = pa.list_(inner)
        return inner
    if kind == "odd":
        return pa.from_numpy_dtype(np.dtype(element[2]))
    raise ValueError(f"unknown element type {element!r}")


def column_type(
    layouts: tuple[Layout, ...], labels: tuple[str, ...] | None, region: bool = False
) -> pa.DataType:
    """The Arrow type of one row of a column."""
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


def walk(element: ElementType) -> Iterator[ElementType]:
    """An element type and those within it."""
    yield element
    if element[0] in ("sequence",):
        yield from walk(element[1])
    elif element[0] == "array":
        yield from walk(element[2])
    elif element[0] == "compound":
        for _, _, inner in element[2]:
            yield from walk(inner)
