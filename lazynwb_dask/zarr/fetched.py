"""Values of a store's arrays that are fetched whole: all their chunks at once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from lazynwb_dask.errors import NWBError
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import Request, fetch
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.zarr.array import Array
from lazynwb_dask.zarr.values import values_of

MAX_OBJECT = 4 << 20  # bytes of a chunk that is read while indexing


def fetch_values(
    source: Source, arrays: Mapping[str, Array], access: FileAccess
) -> dict[str, np.ndarray | NWBError]:
    """All values of some arrays, by their paths, or why they can't be decoded."""
    chunks: dict[str, bytes] = {}
    requests = []
    for path, array in arrays.items():
        for place in np.ndindex(*array.grid):
            key = f"{path.strip('/')}/{array.name(place)}"
            requests.append(Request(0, MAX_OBJECT, partial(_keep, chunks, key), key, _nothing))
    fetch(source, requests, access)
    return {path: _values(path, array, chunks) for path, array in arrays.items()}


def _keep(chunks: dict[str, bytes], key: str, data: memoryview) -> None:
    chunks[key] = bytes(data)


def _nothing() -> None:
    """A chunk that isn't there holds the fill value."""


def _values(path: str, array: Array, chunks: Mapping[str, bytes]) -> np.ndarray | NWBError:
    stem = path.strip("/")
    try:
        return values_of(array, lambda place: chunks.get(f"{stem}/{array.name(place)}"))
    except NWBError as exc:
        return exc
