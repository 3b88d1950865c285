"""All values of an array of which the chunks are at hand.

Types, shapes and sizes are checked before memory is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from lazynwb_dask.decode.filters import chunk_bytes
from lazynwb_dask.decode.objects import MAX_HELD, fill_of, object_values, objects_dtype
from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.index import Layout
from lazynwb_dask.zarr.array import Array, element_of, filled_value, filters_of, object_layout

Buffer = bytes | memoryview

MAX_TEXTS = 4 << 20  # elements of one array of texts


def values_of(array: Array, chunk: Callable[[tuple[int, ...]], Buffer | None]) -> np.ndarray:
    """All values of an array in the JSON.

    `chunk` gives a chunk's bytes by its place in the grid; None if it was never written. The result has the
    array's shape: numbers, booleans or bytes as stored, structured for compounds, texts as objects, also those
    within compounds, references as the paths of their targets.
    """
    texts = array.is_object or array.dtype[1] == "U"
    if texts and array.count > MAX_TEXTS:
        raise UnsupportedColumnError(f"{array.count} texts; the limit is {MAX_TEXTS}")
    width = 8 if array.is_object else array.numpy.itemsize
    each = math.prod(array.chunks) * width
    if max(array.count * width, each) > MAX_HELD:
        raise UnsupportedColumnError(f"{array.count * width} bytes; the limit is {MAX_HELD}")
    decode = _objects if array.is_object else _numbers
    out: np.ndarray | None = None
    for place in np.ndindex(*array.grid):
        data = chunk(place)
        if data is None:
            continue
        found = decode(array, data, each)
        if array.grid == (1,) * len(array.shape) and array.chunks == array.shape:
            return _as_objects(array, found)
        out = _empty(array) if out is None else out
        begins = [p * c for p, c in zip(place, array.chunks, strict=True)]
        target = out[tuple(slice(b, b + c) for b, c in zip(begins, array.chunks, strict=True))]
        target[...] = found[tuple(map(slice, target.shape))]
    return _as_objects(array, _empty(array) if out is None else out)


def _empty(array: Array) -> np.ndarray:
    if array.is_object:
        layout = object_layout(array)
        return np.full(array.shape, fill_of(layout), objects_dtype(layout.element))
    return np.full(array.shape, filled_value(array.numpy, array.fill), array.numpy)


def _as_objects(array: Array, values: np.ndarray) -> np.ndarray:
    """Fixed-length Unicode texts as objects, since HDF5 has no such type."""
    return values.astype(object) if array.dtype[1] == "U" else values


def _numbers(array: Array, data: Buffer, nbytes: int) -> np.ndarray:
    kind = array.numpy
    layout = Layout(element_of(kind), array.chunks[1:], array.chunks, filters_of(array))
    raw = chunk_bytes(memoryview(data), layout, 0, nbytes)
    return np.frombuffer(raw, kind).reshape(array.chunks)


def _objects(array: Array, data: Buffer, _: int) -> np.ndarray:
    return object_values(memoryview(data), object_layout(array)).reshape(array.chunks)
