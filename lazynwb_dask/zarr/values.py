"""All values of an array of which the chunks are at hand.

Types, shapes and sizes are checked before memory is allocated. Objects are decoded from JSON or as texts with
their lengths; pickled ones are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.decode.filters import chunk_bytes, undone
from lazynwb_dask.decode.zarr_codecs import vlen_texts
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.elements import ElementType
from lazynwb_dask.model.index import Filter, Layout
from lazynwb_dask.zarr.array import (
    JSON,
    Array,
    Fields,
    element_of,
    field_type,
    filled_value,
    filters_of,
    named_fields,
    object_filters,
    whole,
)

MAX_HELD = 256 << 20  # decoded bytes of one array
MAX_TEXTS = 4 << 20  # elements of one array of texts
_PATH = pa.struct([("path", pa.string())])
_TARGET = pa.struct([("_REFERENCE", _PATH), ("path", pa.string())])


def values_of(array: Array, chunk: Callable[[tuple[int, ...]], bytes | None]) -> np.ndarray:
    """All values of an array in the JSON.

    `chunk` gives a chunk's bytes by its place in the grid; None if it was never written. The result has the
    array's shape: numbers, booleans or bytes as stored, structured for compounds, texts as objects,
    references as the paths of their targets.
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
        if out is None:
            out = _empty(array, found.dtype)
        elif out.dtype != found.dtype:
            out = out.astype(np.promote_types(out.dtype, found.dtype))
        begins = [p * c for p, c in zip(place, array.chunks, strict=True)]
        target = out[tuple(slice(b, b + c) for b, c in zip(begins, array.chunks, strict=True))]
        target[...] = found[tuple(map(slice, target.shape))]
    if out is None:
        kind = array.numpy
        if array.fields is not None:
            kind = np.dtype([(name, field_type(of) or "S1") for name, of in array.fields])
        out = _empty(array, kind)
    return _as_objects(array, out)


def _empty(array: Array, kind: np.dtype[Any]) -> np.ndarray:
    if kind.hasobject:
        return np.full(array.shape, array.fill if isinstance(array.fill, str) else "", object)
    if kind.names is not None:
        return np.zeros(array.shape, kind)
    return np.full(array.shape, filled_value(kind, array.fill), kind)


def _as_objects(array: Array, values: np.ndarray) -> np.ndarray:
    """Fixed-length Unicode texts as objects, since HDF5 has no such type."""
    return values.astype(object) if array.dtype[1] == "U" else values


def _numbers(array: Array, data: bytes, nbytes: int) -> np.ndarray:
    kind = array.numpy
    layout = Layout(element_of(kind), array.chunks[1:], array.chunks, filters_of(array))
    raw = chunk_bytes(memoryview(data), layout, 0, nbytes)
    return np.frombuffer(raw, kind).reshape(array.chunks)


def _objects(array: Array, data: bytes, _: int) -> np.ndarray:
    return decoded_objects(memoryview(data), array.chunks, object_filters(array))


def decoded_objects(data: memoryview, shape: tuple[int, ...], filters: Sequence[Filter]) -> np.ndarray:
    """A chunk of objects of a shape: texts with their lengths, or JSON: the values, then a type and a shape.

    `filters` are those of `array.object_filters`.
    """
    codec = json.loads(filters[0].name)
    raw = undone(data, filters[1:], MAX_HELD)
    count = math.prod(shape)
    if codec["id"] not in JSON:
        texts = vlen_texts(raw, count)
        return (_paths(texts) if codec.get("references") else texts).reshape(shape)
    try:
        *values, _, written = json.loads(bytes(raw))
        written = whole(written)
    except (ValueError, TypeError, RecursionError):
        raise NWBReadError("damaged: objects that are not JSON") from None
    if math.prod(written) != count:
        raise NWBReadError(f"damaged: {written} values where {shape} are declared")
    try:
        for _ in written[1:]:
            values = [value for some in values for value in some]
        if len(values) != count:
            raise ValueError
        fields = codec.get("fields")
        flat = _texts(values) if fields is None else _compounds(values, named_fields(fields))
    except (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException):
        raise UnsupportedColumnError("objects that are neither texts nor references") from None
    return flat.reshape(shape)


def _paths(texts: np.ndarray) -> np.ndarray:
    """References that were written as texts: paths, or JSON with them."""
    if not any(text.startswith("{") for text in texts):
        return texts
    try:
        return _texts([json.loads(text) if text.startswith("{") else text for text in texts])
    except (ValueError, TypeError, RecursionError, pa.ArrowException):
        raise UnsupportedColumnError("references that are neither paths nor JSON with paths") from None


def _texts(values: list[Any]) -> np.ndarray:
    """Texts, or the paths of references. The number 0, with which Zarr fills chunks at the end, is no text."""
    if 0 in values:
        values = ["" if isinstance(value, int) and value == 0 else value for value in values]
    if any(isinstance(value, dict) for value in values):
        targets = pa.array([{"path": v} if isinstance(v, str) else v for v in values], _TARGET)
        paths = [pc.struct_field(targets, place) for place in ([0, 0], [1])]
        texts = pc.coalesce(*paths)
    else:
        texts = pa.array(values, pa.string())
    found: np.ndarray = texts.to_numpy(zero_copy_only=False)
    return found


def _compounds(values: list[Any], fields: Fields) -> np.ndarray:
    if 0 in values:
        kinds_ = [field_type(kind) for _, kind in fields]
        nothing = ["" if kind is None or kind.kind == "S" else 0 for kind in kinds_]
        values = [nothing if value == 0 else value for value in values]
    columns = list(zip(*values, strict=True)) or [()] * len(fields)
    if len(columns) != len(fields):
        raise ValueError
    made: list[np.ndarray] = []
    for (_, kind), column in zip(fields, columns, strict=True):
        given = field_type(kind)
        if given is None:
            encoded = pc.cast(pa.array(_texts(list(column)), pa.string()), pa.binary())
            paths = np.array(encoded.fill_null(b"").to_pylist(), "S")
            made.append(paths if paths.dtype.itemsize else paths.astype("S1"))
        elif given.kind == "S":
            encoded = pc.cast(pa.array(column, pa.string()), pa.binary())
            made.append(np.array(encoded.to_pylist(), given))
        else:
            made.append(np.array(column, given))
    if sum(column.nbytes for column in made) > MAX_HELD:
        raise UnsupportedColumnError(f"a compound of more than {MAX_HELD} bytes")
    names = [name for name, _ in fields]
    kinds = [values_.dtype for values_ in made]
    out = np.empty(len(values), np.dtype(list(zip(names, kinds, strict=True))))
    for name, values_ in zip(names, made, strict=True):
        out[name] = values_
    return out


def element_of_values(values: np.ndarray) -> ElementType:
    """The element type of values that are at hand."""
    return ("string",) if values.dtype == object else element_of(values.dtype)
