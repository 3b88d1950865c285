"""Rows of a store's texts, references, and compounds with these: chunks that become objects."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lazynwb_dask.decode.runs import spread
from lazynwb_dask.errors import NWBError, NWBReadError
from lazynwb_dask.model.elements import ElementType
from lazynwb_dask.model.index import Layout
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.storage import Request, fetch
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.zarr.values import decoded_objects

LEAST, EACH, MOST = 8 << 20, 4 << 10, 256 << 20  # bytes that a chunk may have, of so many texts

Rows = tuple[Layout, np.ndarray, np.ndarray]


def object_rows(source: Source, wanted: Sequence[Rows], access: FileAccess) -> list[np.ndarray]:
    """The row ranges (starts, stops) of datasets of objects, an array for each dataset: texts as objects, or
    stored bytes of compounds as uint8. Their chunks are fetched all at once."""
    found: dict[str, memoryview] = {}

    def keep(key: str, data: memoryview) -> None:
        found[key] = memoryview(bytes(data))

    def absent() -> None:
        """Rows of a chunk that isn't there hold the fill value."""

    plans = [(layout, spread(starts, stops - starts)) for layout, starts, stops in wanted]
    requests: dict[str, Request] = {}
    for layout, rows in plans:
        for key, _ in _places(layout, rows):
            requests[key] = Request(0, _bound(layout), partial(keep, key), key, absent)
    fetch(source, list(requests.values()), access, quick=True)
    try:
        return [_taken(layout, rows, found) for layout, rows in plans]
    except NWBError as exc:
        raise type(exc)(f"{shown(source.url)}/{exc}") from None


def _bound(layout: Layout) -> int:
    assert layout.chunk is not None
    return min(max(LEAST, EACH * int(np.prod(layout.chunk))), MOST)


def _places(layout: Layout, rows: np.ndarray) -> list[tuple[str, tuple[int, ...]]]:
    """The keys of the chunks that hold some rows, and their places in the grid."""
    assert layout.chunk is not None
    assert layout.objects is not None
    first, *inner = layout.chunk
    across = [range(-(-n // c)) for n, c in zip(layout.item, inner, strict=True)]
    places = itertools.product(np.unique(rows // first).tolist(), *across)
    return [(layout.objects.key(place), place) for place in places]


def _taken(layout: Layout, rows: np.ndarray, found: Mapping[str, memoryview]) -> np.ndarray:
    assert layout.chunk is not None
    kind = _kind(layout.element)
    first = layout.chunk[0]
    whole = np.unique(rows // first)
    held = np.empty((len(whole) * first, *layout.item), kind)
    held[...] = layout.fill.decode() if kind.hasobject else np.zeros((), kind)
    for key, (n, *inner) in _places(layout, rows):
        if key not in found:
            continue
        try:
            chunk = decoded_objects(found[key], layout.chunk, layout.filters)
        except NWBError as exc:
            raise type(exc)(f"{key}: {exc}") from None
        corner = [int(np.searchsorted(whole, n)), *inner]
        begins = [place * size for place, size in zip(corner, layout.chunk, strict=True)]
        target = held[tuple(slice(b, b + size) for b, size in zip(begins, layout.chunk, strict=True))]
        target[...] = _as(chunk, kind, key)[tuple(map(slice, target.shape))]
    taken = held[np.searchsorted(whole, rows // first) * first + rows % first].reshape(-1)
    return taken if kind.hasobject else np.ascontiguousarray(taken).view(np.uint8)


def _as(chunk: np.ndarray, kind: np.dtype[Any], key: str) -> np.ndarray:
    if not kind.hasobject and any(
        chunk.dtype[name].itemsize > kind[name].itemsize for name in kind.names or ()
    ):
        raise NWBReadError(f"{key}: damaged: its values are of another size than planned with")
    return chunk.astype(kind)


def _kind(element: ElementType) -> np.dtype[Any]:
    """The type of values in memory; those of a compound have their stored size."""
    if element[0] == "string":
        return np.dtype(object)
    names, offsets, inner = zip(*element[2], strict=True)
    formats = [f"S{part[1]}" if part[0] == "text" else "?" if part[0] == "bool" else part[1] for part in inner]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": element[1]})
