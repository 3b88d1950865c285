"""Shards, objects of a store that hold several chunks: which of them a block touches, and what is in one.

A shard's index comes first: where each of its chunks begins, and its length. A small shard comes whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from lazynwb_dask.decode.filters import undone
from lazynwb_dask.decode.runs import merged, spread
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.index import UNDEFINED, Extents, Layout, Objects
from lazynwb_dask.model.limits import object_bound
from lazynwb_dask.read.nearby import SMALL
from lazynwb_dask.storage import Request

_CHECKSUM = 4  # bytes that a CRC-32C adds
_ENTRY = 16


def touched(
    objects: Objects, starts: np.ndarray, stops: np.ndarray, box: Sequence[tuple[int, int]]
) -> list[str]:
    """The keys of the shards that some row ranges, sorted and disjoint, and a box of each row touch."""
    assert objects.shard is not None
    first, across = objects.shard[0], objects.shard[1:]
    a, b = merged(starts // first, -(-stops // first))
    places = [range(low // n, -(-high // n)) for (low, high), n in zip(box, across, strict=True)]
    return [objects.key(place) for place in itertools.product(spread(a, b - a).tolist(), *places)]


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


def asked_bytes(layout: Layout, whole: bool = True) -> int:
    """The bytes that are asked for with a shard's index: if it is wanted `whole`, all of a small shard."""
    assert layout.objects is not None
    length = index_bytes(layout)
    most = length + math.prod(per_shard(layout)) * object_bound(layout)
    return most if whole and most <= SMALL and not layout.objects.index_first else length


def shard_request(
    layout: Layout, key: str, whole: bool, found: Callable[[Extents, memoryview | None], None]
) -> Request:
    """The request for a shard's index, and for all of a small shard that is wanted `whole`.

    `found` gets where its chunks lie, and the shard if all of it came.
    """
    assert layout.objects is not None
    length, first = index_bytes(layout), layout.objects.index_first
    asked = asked_bytes(layout, whole)

    def sink(data: memoryview) -> None:
        if len(data) < length:
            raise NWBReadError(f"{key}: {len(data)} bytes of a shard whose index has {length}: damaged")
        index = data[:length] if first else data[-length:]
        found(_parsed(layout, key, index), data if not first and len(data) < asked else None)

    def missing() -> None:
        nothing = np.full(math.prod(per_shard(layout)), UNDEFINED, "<u8")
        found(Extents(0, nothing, np.zeros_like(nothing)), None)

    bounds = (0, asked) if first else (-asked, 0)
    return Request(*bounds, sink, key, missing, exact=first)


def _parsed(layout: Layout, key: str, index: memoryview) -> Extents:
    assert layout.objects is not None
    try:
        index = undone(index, layout.objects.index, len(index))
    except NWBReadError as exc:
        raise NWBReadError(f"{key}: the index of a shard: {exc}") from None
    offsets, sizes = np.frombuffer(index, "<u8").reshape(-1, 2).T.copy()
    absent = (offsets == UNDEFINED) & (sizes == UNDEFINED)
    sizes[absent] = 0
    most = object_bound(layout)
    there = sizes[~absent]
    wrong = (there > most) | (there == 0) if layout.filters else there != most
    if wrong.any() or (offsets[~absent] >= 1 << 62).any():
        raise NWBReadError(f"{key}: a shard whose index has impossible positions or lengths: damaged")
    return Extents(0, offsets, sizes)
