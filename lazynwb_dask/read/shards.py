"""Shards, objects of a store that hold several chunks: which of them a block touches, and what is in one.

A shard's index comes first: where each of its chunks begins, and its length. A small shard comes whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from lazynwb_dask.decode.filters import stored_bound
from lazynwb_dask.decode.runs import merged, spread
from lazynwb_dask.decode.shards import index_bytes, per_shard, shard_index
from lazynwb_dask.model.index import UNDEFINED, Extents, Layout, Objects
from lazynwb_dask.read.nearby import SMALL
from lazynwb_dask.storage import Request


def touched(
    objects: Objects, starts: np.ndarray, stops: np.ndarray, box: Sequence[tuple[int, int]]
) -> list[str]:
    """The keys of the shards that some row ranges, sorted and disjoint, and a box of each row touch."""
    assert objects.shard is not None
    first, across = objects.shard[0], objects.shard[1:]
    a, b = merged(starts // first, -(-stops // first))
    places = [range(low // n, -(-high // n)) for (low, high), n in zip(box, across, strict=True)]
    return [objects.key(place) for place in itertools.product(spread(a, b - a).tolist(), *places)]


def asked_bytes(layout: Layout, whole: bool = True) -> int:
    """The bytes that are asked for with a shard's index: if it is wanted `whole`, all of a small shard."""
    assert layout.objects is not None
    length = index_bytes(layout)
    most = length + math.prod(per_shard(layout)) * stored_bound(layout)
    return most if whole and most <= SMALL and not layout.objects.index_first else length


def shard_request(
    layout: Layout, key: str, whole: bool, found: Callable[[Extents, memoryview | None], None]
) -> Request:
    """The request for a shard's index, and for all of a small shard that is wanted `whole`.

    `found` gets where its chunks lie, and the shard if all of it came.
    """
    assert layout.objects is not None
    first = layout.objects.index_first
    asked = asked_bytes(layout, whole)

    def sink(data: memoryview) -> None:
        found(shard_index(layout, key, data), data if not first and len(data) < asked else None)

    def missing() -> None:
        nothing = np.full(math.prod(per_shard(layout)), UNDEFINED, "<u8")
        found(Extents(0, nothing, np.zeros_like(nothing)), None)

    bounds = (0, asked) if first else (-asked, 0)
    return Request(*bounds, sink, key, missing, exact=first)
