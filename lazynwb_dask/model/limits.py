"""Limits on what a file may declare, checked before any memory is allocated.

Data have to lie within the file. Chunks may not overlap, and need as many bytes as their filters can't do
without. What was never written takes no bytes, and has limits of its own.
"""

from __future__ import annotations

import math

import numpy as np

from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.index import UNDEFINED, ColumnIndex, Extents, Layout

MAX_ELEMENT = 16 << 20
"""Bytes of one element, such as a fixed-length string."""
MAX_CHUNK = 1 << 30
"""Decoded bytes of one chunk."""
MAX_SPARE = 64 << 20
"""Bytes by which one chunk may be larger than its whole dataset."""
MAX_CHUNKS = 1 << 20
"""Chunks of one dataset, those never written included."""
MAX_FILL = 1 << 30
"""Bytes of one dataset that were never written."""
MAX_IN_STORE = 1 << 44
"""Bytes of one dataset of a Zarr store, of which nothing tells the size."""
MAX_MISSING = 1 << 22
"""Rows that a column may be shorter than its table."""
MAX_EXPANSION = 1 << 16
"""Decoded bytes for each stored one, with any filter."""
DEFLATE_EXPANSION = 1032
"""Decoded bytes for each stored one, with deflate."""

_DEFLATE, _SAME_SIZE = 1, frozenset({2, 3})  # shuffle, and fletcher32 with 4 more bytes


def check_shape(layout: Layout, rows: int, size: int) -> None:
    """Raise NWBReadError or UnsupportedColumnError if no file of `size` bytes can hold such a dataset."""
    width = layout.element_bytes
    if width > MAX_ELEMENT:
        raise UnsupportedColumnError(f"elements of {width} bytes; the limit is {MAX_ELEMENT}")
    row = math.prod(layout.item) * width
    nbytes = rows * row
    if not row and 8 * rows > MAX_FILL:
        raise NWBReadError(f"damaged: {rows} rows without any values")
    if layout.objects is not None and nbytes > MAX_IN_STORE:
        raise NWBReadError(f"damaged: {nbytes} bytes are declared; the limit is {MAX_IN_STORE}")
    if layout.objects is None and nbytes > size * MAX_EXPANSION + MAX_FILL:
        raise NWBReadError(f"damaged: {nbytes} bytes are declared in a file of {size}")
    if layout.chunk is None or not nbytes:
        return
    if len(layout.chunk) != 1 + len(layout.item) or min(layout.chunk) < 1:
        raise NWBReadError(f"damaged: chunks of the shape {layout.chunk}")
    chunk = math.prod(layout.chunk) * width
    if chunk > MAX_CHUNK or chunk - nbytes > MAX_SPARE:
        raise UnsupportedColumnError(
            f"chunks of {chunk} bytes for {nbytes} bytes of data; the limit is {MAX_CHUNK}, and "
            f"{MAX_SPARE} more than the data"
        )
    count = layout.chunks(rows)
    if count > MAX_CHUNKS:
        raise UnsupportedColumnError(f"{count} chunks; the limit is {MAX_CHUNKS}")
    if layout.objects is not None and layout.objects.shard is not None:
        _check_shards((rows, *layout.item), layout.chunk, layout.objects.shard)


def _check_shards(shape: tuple[int, ...], chunk: tuple[int, ...], shard: tuple[int, ...]) -> None:
    if len(shard) != len(chunk) or min(shard) < 1 or any(n % c for n, c in zip(shard, chunk, strict=True)):
        raise NWBReadError(f"damaged: shards of the shape {shard} with chunks of the shape {chunk}")
    count = math.prod(-(-n // s) * s // c for n, s, c in zip(shape, shard, chunk, strict=True))
    if count > MAX_CHUNKS:  # each has its place in an index, also beyond the dataset's end
        raise UnsupportedColumnError(f"{count} chunks in shards; the limit is {MAX_CHUNKS}")


def check_extents(layout: Layout, extents: Extents, size: int, name: str = "it") -> None:
    """Raise if a dataset's bytes don't lie in a file of `size` bytes, or can't be its values.

    The layout has passed `check_shape`; the extents list the chunks, or only have the root of their B-tree.
    Raises NWBReadError or UnsupportedColumnError; `name` is for messages.
    """
    if extents.heap and (len(extents.heap) % 2 or max(extents.heap) > size):
        raise NWBReadError(f"damaged: texts of {name} lie outside the file")
    nbytes = extents.rows * layout.row_bytes
    if layout.external or layout.computed or (layout.unlisted and not extents.offsets.size):
        return
    if layout.objects is not None and not extents.offsets.size:
        return  # they are looked for when they are read
    if layout.chunk is not None and not extents.offsets.size and layout.chunks(extents.rows):
        if extents.root >= size:
            raise NWBReadError(f"damaged: the B-tree of {name} lies outside the file")
        return
    expected = layout.chunks(extents.rows)
    if extents.offsets.size != expected or extents.sizes.size != expected:
        raise NWBReadError(f"damaged: {extents.offsets.size} chunks of {name}, not {expected}")
    chunk = nbytes if layout.chunk is None else math.prod(layout.chunk) * layout.element_bytes
    if expected == 1:  # most columns; this is ten times faster
        start, stored = int(extents.offsets[0]), int(extents.sizes[0])
        mask = 0 if extents.masks is None else int(extents.masks[0])
        if start + stored <= size and stored * expansion(layout, mask) >= chunk >= nbytes:
            return
    written = extents.offsets != UNDEFINED
    starts, sizes = extents.offsets[written], extents.sizes[written]
    ends = starts + sizes
    if (ends > size).any() or (ends < starts).any():
        raise NWBReadError(
            f"truncated or damaged: {name} reaches to byte {int(starts.max()) + int(sizes.max())}, "
            f"the file ends at {size}"
        )
    if len(starts) > 1:
        order = np.argsort(starts, kind="stable")
        if (ends[order][:-1] > starts[order][1:]).any():
            raise NWBReadError(f"damaged: chunks of {name} overlap")
    most = np.full(len(sizes), expansion(layout))
    if extents.masks is not None:
        every = (1 << len(layout.filters)) - 1
        skipped = extents.masks[written] & every
        most[skipped > 0] = MAX_EXPANSION
        most[skipped == every] = 1
    if (sizes.astype(np.float64) * most < chunk).any():
        raise NWBReadError(f"damaged: fewer bytes of {name} are stored than its shape declares")
    fill = nbytes - min(nbytes, len(starts) * chunk)
    if fill > MAX_FILL:
        raise UnsupportedColumnError(
            f"{name} declares {fill} bytes that were never written; the limit is {MAX_FILL}"
        )


def check_missing(column: ColumnIndex) -> None:
    """Raise if a column lacks too many of its table's rows to be filled up with nulls."""
    have = column.arrays[-1].rows
    if column.rows - have > MAX_MISSING:
        raise NWBReadError(
            f"damaged: it has {have} rows and its table {column.rows}; the limit is {MAX_MISSING} less"
        )


def expansion(layout: Layout, mask: int = 0) -> int:
    """The most decoded bytes for each stored one with the filters of a layout, without those in the mask."""
    every = (1 << len(layout.filters)) - 1
    if skipped := mask & every:
        return 1 if skipped == every else MAX_EXPANSION
    applied = {f.id for f in layout.filters} - _SAME_SIZE
    if not applied:
        return 1
    return DEFLATE_EXPANSION if applied == {_DEFLATE} else MAX_EXPANSION
