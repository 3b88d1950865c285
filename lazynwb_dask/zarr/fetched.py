"""Values of a store's arrays that are fetched whole: all their chunks at once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from lazynwb_dask.decode.shards import per_shard, shard_index, within_shard
from lazynwb_dask.errors import NWBError, NWBReadError
from lazynwb_dask.model.index import UNDEFINED, Layout
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.storage import Request, fetch
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.zarr.array import Array, stored_layout
from lazynwb_dask.zarr.values import values_of

MAX_OBJECT = 4 << 20  # bytes of a chunk that is read while indexing
MAX_OBJECTS = 64 << 20  # of all that are read at once, stored and decoded


def fetch_values(
    source: Source, arrays: Mapping[str, Array], access: FileAccess
) -> dict[str, np.ndarray | NWBError]:
    """All values of some arrays, by their paths, or why they can't be decoded."""
    chunks: dict[str, memoryview] = {}
    requests = {}
    nbytes = 0

    def add(count: int) -> None:
        nonlocal nbytes
        nbytes += count
        if nbytes > MAX_OBJECTS:
            raise NWBReadError(
                f"{shown(source.url)}: more than {MAX_OBJECTS} bytes of small datasets, the limit"
            )

    def keep(key: str, data: memoryview) -> None:
        add(len(data))
        chunks[key] = memoryview(bytes(data))

    layouts = {path: stored_layout(array, path) for path, array in arrays.items()}
    for path, array in arrays.items():
        for place in np.ndindex(*array.grid):
            key, _ = _place(layouts[path], place)
            requests[key] = Request(0, MAX_OBJECT, partial(keep, key), key, _nothing)
    fetch(source, list(requests.values()), access)
    found: dict[str, np.ndarray | NWBError] = {}
    for path, array in arrays.items():
        found[path] = values = _values(array, layouts[path], chunks)
        if isinstance(values, np.ndarray):
            add(_nbytes(values))
    return found


def _nbytes(values: np.ndarray) -> int:
    """The bytes of values, or characters of texts."""
    if values.dtype.names is not None:
        return sum(_nbytes(values[name]) for name in values.dtype.names)
    return sum(map(len, filter(None, values.flat))) if values.dtype == object else values.nbytes


def _place(layout: Layout, place: tuple[int, ...]) -> tuple[str, int]:
    """The key of the object that holds a chunk, and the chunk's number in it."""
    assert layout.objects is not None
    if layout.objects.shard is None:
        return layout.objects.key(place), 0
    per, place = per_shard(layout), place or (0,)
    outer, inner = zip(*map(divmod, place, per), strict=True)
    return layout.objects.key(outer), int(np.ravel_multi_index(inner, per))


def _nothing() -> None:
    """A chunk that isn't there holds the fill value."""


def _values(array: Array, layout: Layout, chunks: Mapping[str, memoryview]) -> np.ndarray | NWBError:
    def chunk(place: tuple[int, ...]) -> memoryview | None:
        key, number = _place(layout, place)
        data = chunks.get(key)
        if data is None or array.shard is None:
            return data
        index = shard_index(layout, key, data)
        start, size = int(index.offsets[number]), int(index.sizes[number])
        if start == UNDEFINED:
            return None
        return within_shard(layout, key, data, start, start + size)

    try:
        return values_of(array, chunk)
    except NWBError as exc:
        return exc
