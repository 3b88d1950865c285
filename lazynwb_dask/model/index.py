"""The data model: what a file holds and where its bytes lie.

`FileIndex > TableIndex > ColumnIndex > ArrayIndex > chunks`. All classes are frozen. None depends on the
library of a file format or on a filesystem. They hold no values, except those without which others can't be
understood (the labels of an enumeration). What many datasets have in common is their `Layout`: a hashable
object that is stored once, however many files share it. What differs between files are the `Extents`, a few
integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from lazynwb_dask.model.elements import ElementType, element_bytes, element_type
from lazynwb_dask.model.source import Source

UNDEFINED = 2**64 - 1
"""The undefined address of HDF5: nothing was written."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a dataset's pipeline, as in HDF5's filter pipeline message.

    Parameters
    ----------
    id : int
        The filter identification value.
    values : tuple of int
        The client data.
    name : str
    """

    id: int
    values: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """Which of a dataset's values are shown, and in which unit.

    Parameters
    ----------
    channel : int or None
        Only this position of the second dimension.
    factors : tuple of float
        The values are multiplied by these, as float64: one for all channels, or one for each. Empty: the
        stored values are shown.
    offset : float
        Added after the multiplication.
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
        The element type, see `lazynwb_dask.model.elements`.
    item : tuple of int
        The shape of one row: the dataset's shape without its first dimension.
    chunk : tuple of int or None
        The shape of a chunk; None for contiguous and compact storage.
    filters : tuple of Filter
        In the order in which they were applied when writing.
    fill : bytes
        The fill value of one element as stored; empty for zeros.
    raw_edges : bool
        Partial edge chunks are not filtered (a flag of the data layout message, version 4).
    user_block : int
        The base address: bytes before the superblock, from which all addresses count.
    external : str
        The dataset's path, where its data are no byte ranges of this file, but in another file that
        libhdf5 is to read, or in the JSON of a LINDI file.
    rising : bool
        Values are expected in ascending order: timestamps.
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
    external: str = ""
    rising: bool = False
    view: View | None = None
    unlisted: str = ""

    @property
    def computed(self) -> bool:
        """Whether values are computed from the layout alone, and none are stored."""
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
        """The number of chunks in a dataset of so many rows, those never written included."""
        if self.chunk is None:
            return 1
        shape = (rows, *self.item)
        return math.prod(-(-n // c) for n, c in zip(shape, self.chunk, strict=True))


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
        The filter mask of each chunk. Bit i set: filter i was skipped. None: no bits anywhere.
    root : int
        Where `offsets` is empty: the byte offset of the version 1 B-tree that lists the chunks.
    """

    rows: int
    offsets: np.ndarray
    sizes: np.ndarray
    masks: np.ndarray | None = None
    root: int = UNDEFINED

    def pack(self) -> bytes:
        """As bytes: three integers, then 12 bytes for each chunk.

        They are 4 more where there are filter masks, and 4 more where a chunk takes 4 GiB.
        """
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

    @staticmethod
    def without_chunks(layout: Layout, rows: int) -> ArrayIndex:
        """A dataset of which no chunk is known, or none is stored."""
        nothing = np.zeros(0, "<u8")
        return ArrayIndex(layout, Extents(rows, nothing, nothing))

    @property
    def rows(self) -> int:
        return self.extents.rows

    @property
    def nbytes(self) -> int:
        """Decoded bytes."""
        return self.rows * self.layout.row_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file, where the chunks are known."""
        return int(self.extents.sizes.sum())


@dataclass(frozen=True, eq=False)
class ColumnIndex:
    """One column of a table: the values, and the VectorIndex datasets that point into them.

    Parameters
    ----------
    name : str
        As in the frame; ``category/column`` for the categories of an AlignedDynamicTable.
    arrays : tuple of ArrayIndex
        The values, then the VectorIndex datasets from the innermost outward.
    rows : int
        The number of rows of the table. Rows that the column lacks are null.
    labels : tuple of str or None
        The labels that the numbers of an EnumData column stand for.
    region : bool
        Whether it is a DynamicTableRegion: row numbers of another table, always int64 in the frame.
    problem : str
        Why the column can't be read; empty when it can.
    notes : tuple of str
        What was unusual about it and was corrected.
    attributes : dict
        ``description``, ``unit`` and ``table`` (the target of a region), where they were requested.
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
        """Decoded bytes in memory, estimated for variable-length elements."""
        total = 0
        for array in self.arrays:
            # a variable-length element is 16 bytes of descriptor; its text is taken to be 16 more
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
        What was unusual about it and was corrected.
    attributes : dict
        ``description``, where it was requested; of a TimeSeries all that tells how to show it.
    damage : str
        The first column whose metadata are damaged, and how; empty if none are. Such a column has a
        `problem`. So has a column of a form that can't be shown, but that is no damage to the file.
    """

    path: str
    rows: int
    columns: dict[str, ColumnIndex]
    notes: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    damage: str = ""


@dataclass(frozen=True, eq=False)
class FileIndex:
    """What is known of one file: the one table that was requested, or None where the file has none."""

    source: Source
    table: TableIndex | None


def column_type(
    layouts: tuple[Layout, ...], labels: tuple[str, ...] | None, region: bool = False
) -> pa.DataType:
    """The Arrow type of one row of a column.

    Parameters
    ----------
    layouts : tuple of Layout
        Of the values, then of the VectorIndex datasets.
    labels : tuple of str or None
    region : bool
        Whether it is a DynamicTableRegion.
    """
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
