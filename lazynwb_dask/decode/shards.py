"""Shards, objects of a store that hold several chunks, and an index of these."""

from __future__ import annotations

import math

import numpy as np

from lazynwb_dask.decode.filters import stored_bound, undone
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.index import UNDEFINED, Extents, Layout

_CHECKSUM = 4  # bytes that a CRC-32C adds
_ENTRY = 16


def per_shard(layout: Layout) -> tuple[int, ...]:
    """How many chunks a shard has in each dimension."""
    assert layout.chunk is not None
    assert layout.objects is not None
    assert layout.objects.shard is not None
    return tuple(n // c for n, c in zip(layout.objects.shard, layout.chunk, strict=True))


def index_bytes(layout: Layout) -> int:
    """The length of a shard's index."""
    assert layout.objects is not None
    codecs = layout.objects.index
    if not all('"crc32c"' in codec.name for codec in codecs):
        raise UnsupportedColumnError(f"shards whose index is stored with {codecs}")
    return _ENTRY * math.prod(per_shard(layout)) + _CHECKSUM * len(codecs)


def shard_index(layout: Layout, key: str, shard: memoryview) -> Extents:
    """Where the chunks of a shard lie in it, by the shard, or its part with the index."""
    assert layout.objects is not None
    length = index_bytes(layout)
    if len(shard) < length:
        raise NWBReadError(f"{key}: {len(shard)} bytes of a shard whose index has {length}: damaged")
    index = shard[:length] if layout.objects.index_first else shard[-length:]
    try:
        index = undone(index, layout.objects.index, len(index))
    except NWBReadError as exc:
        raise NWBReadError(f"{key}: the index of a shard: {exc}") from None
    offsets, sizes = np.frombuffer(index, "<u8").reshape(-1, 2).T.copy()
    absent = (offsets == UNDEFINED) & (sizes == UNDEFINED)
    sizes[absent] = 0
    most = stored_bound(layout)
    there = sizes[~absent]
    wrong = (there > most) | (there == 0) if layout.filters else there != most
    if wrong.any() or (offsets[~absent] >= 1 << 62).any():
        raise NWBReadError(f"{key}: a shard whose index has impossible positions or lengths: damaged")
    return Extents(0, offsets, sizes)


def within_shard(layout: Layout, key: str, shard: memoryview, start: int, stop: int) -> memoryview:
    """A chunk of a shard that is at hand."""
    assert layout.objects is not None
    length, first = index_bytes(layout), layout.objects.index_first
    low, high = (length, len(shard)) if first else (0, len(shard) - length)
    if not low <= start <= stop <= high:
        raise NWBReadError(f"{key}: a chunk lies outside of its shard: damaged")
    return shard[start:stop]
