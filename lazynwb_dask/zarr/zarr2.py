"""Arrays as Zarr version 2 describes them in JSON: how they are stored, and values in the JSON.

Types, shapes and sizes are checked before memory is allocated. Objects are decoded from JSON only; pickled
ones are refused.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.decode.codecs import BLOSC, DEFLATE, FLETCHER32, SHUFFLE, ZSTD
from lazynwb_dask.decode.filters import chunk_bytes, undone
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.elements import ElementType
from lazynwb_dask.model.index import Filter, Layout
from lazynwb_dask.model.limits import MAX_CHUNKS, MAX_ELEMENT

MAX_HELD = 256 << 20  # decoded bytes of one inlined array
MAX_TEXTS = 4 << 20  # elements of one inlined array of texts
MAX_DIMENSIONS = 32
_DTYPE = re.compile(r"[<>|=][biufcSU]\d{1,9}|\|O")
_NAME = re.compile(r"u?int(8|16|32|64)|float(16|32|64)|bool")
_CODECS = {
    "shuffle": SHUFFLE, "zlib": DEFLATE, "fletcher32": FLETCHER32, "zstd": ZSTD, "blosc": BLOSC,
}  # fmt: skip
_JSON = ("json2", "json")
REFERENCE = "<REFERENCE>"
_TARGET = pa.struct([("_REFERENCE", pa.struct([("path", pa.string())]))])

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Array:
    """A checked ``.zarray``."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str  # ``|O`` for objects
    fill: Any
    codecs: tuple[Mapping[str, Any], ...]  # in the order of writing
    separator: str  # between the numbers in a chunk's name
    fields: Fields | None = None  # of compounds: names and types

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks in each dimension."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))

    @property
    def is_object(self) -> bool:
        return self.dtype == "|O"

    def name(self, place: tuple[int, ...]) -> str:
        """The key of the chunk at a place of the grid."""
        return self.separator.join(map(str, place))


def array_of(meta: Any, fields: Any = None) -> Array:
    """The array that a ``.zarray`` describes. Raises UnsupportedColumnError if it isn't supported."""
    try:
        shape, chunks = _whole(meta["shape"]), _whole(meta["chunks"])
        dtype, order = meta["dtype"], meta.get("order", "C")
        codecs = (*(meta.get("filters") or ()), *filter(None, [meta.get("compressor")]))
        separator = meta.get("dimension_separator", ".")
    except (KeyError, TypeError, AttributeError):
        raise UnsupportedColumnError("damaged: its .zarray is incomplete") from None
    if len(shape) != len(chunks) or len(shape) > MAX_DIMENSIONS or min(chunks, default=1) < 1:
        raise UnsupportedColumnError(f"damaged: chunks of {chunks} for a shape of {shape}")
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise UnsupportedColumnError(f"values of the Zarr type {dtype!r}")
    if order != "C" or separator not in (".", "/"):
        raise UnsupportedColumnError(f"a Zarr array in the order {order!r}")
    if not all(isinstance(codec, dict) and isinstance(codec.get("id"), str) for codec in codecs):
        raise UnsupportedColumnError("damaged: its .zarray names no codecs that there are")
    made = Array(shape, chunks, dtype, meta.get("fill_value"), codecs, separator, _fields(fields))
    if math.prod(made.grid) > MAX_CHUNKS:
        raise UnsupportedColumnError(f"{math.prod(made.grid)} chunks; the limit is {MAX_CHUNKS}")
    return made


def _whole(values: Any) -> tuple[int, ...]:
    if not all(type(v) is int and 0 <= v < 1 << 48 for v in values):
        raise TypeError
    return tuple(values)


def _fields(given: Any) -> Fields | None:
    if given is None:
        return None
    try:
        named = tuple((str(name), str(kind)) for name, kind in given)
    except (TypeError, ValueError):
        raise UnsupportedColumnError("damaged: its compound's fields are none") from None
    if not named or len(named) > 256 or len(dict(named)) < len(named):
        raise UnsupportedColumnError(f"a compound of {len(named)} fields")
    return named


def element_of(dtype: str) -> ElementType:
    """The element type of numbers, booleans and texts of fixed size."""
    kind = np.dtype(dtype)
    if kind.itemsize > MAX_ELEMENT:
        raise UnsupportedColumnError(f"elements of {kind.itemsize} bytes")
    if kind.kind == "b":
        return ("bool",)
    if kind.kind in "iuf" and kind.itemsize <= 8:
        return ("number", kind.str)
    if kind.kind == "c" and kind.itemsize <= 16:
        return ("complex", f"{kind.str[0]}f{kind.itemsize // 2}")
    if kind.kind == "S":
        return ("text", kind.itemsize, "null")
    raise UnsupportedColumnError(f"values of the Zarr type {dtype!r}")


def layout_of(array: Array) -> Layout:
    """The layout of chunks in other files, as HDF5 wrote them."""
    if not array.shape:
        raise UnsupportedColumnError("a Zarr array without dimensions")
    element = element_of(array.dtype)
    fill = b"" if array.fill is None else _filled(array).tobytes()
    return Layout(element, array.shape[1:], array.chunks, filters_of(array), fill if any(fill) else b"")


def _filled(array: Array) -> np.ndarray:
    """The fill value as stored."""
    value = array.fill
    try:
        if value in ("NaN", "Infinity", "-Infinity"):
            value = float(value.replace("Infinity", "inf"))
        if isinstance(value, str) and array.dtype[1] == "S":
            value = base64.b64decode(value)
        return np.array(0 if value is None else value, np.dtype(array.dtype))
    except (TypeError, ValueError, OverflowError):
        raise UnsupportedColumnError(f"damaged: a fill value of {array.fill!r}") from None


def filters_of(array: Array) -> tuple[Filter, ...]:
    """The codecs as HDF5 filters, of objects those after JSON. Raises UnsupportedColumnError if unknown."""
    codecs = array.codecs
    if array.is_object:
        first = codecs[0]["id"] if codecs else "nothing"
        if first not in _JSON:
            raise UnsupportedColumnError(f"objects encoded by {first[:40]!r}; only JSON is read")
        codecs = codecs[1:]
    return tuple(map(_filter, codecs))


def _filter(codec: Mapping[str, Any]) -> Filter:
    number = _CODECS.get(codec["id"])
    if number is None:
        raise UnsupportedColumnError(f"stored with the Zarr codec {str(codec['id'])[:40]!r}")
    size = codec.get("elementsize")
    return Filter(number, (size,) if number == SHUFFLE and type(size) is int else (), codec["id"])


def values_of(array: Array, chunk: Callable[[tuple[int, ...]], bytes | None]) -> np.ndarray:
    """All values of an array in the JSON.

    `chunk` gives a chunk's bytes by its place in the grid; None if it was never written. The result has the
    array's shape: numbers, booleans or bytes as stored, structured for compounds, texts as objects,
    references as the paths of their targets.
    """
    texts = array.is_object or array.dtype[1] == "U"
    if texts and array.count > MAX_TEXTS:
        raise UnsupportedColumnError(f"{array.count} texts; the limit is {MAX_TEXTS}")
    width = 8 if array.is_object else np.dtype(array.dtype).itemsize
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
        kind = np.dtype(array.dtype)
        if array.fields is not None:
            kind = np.dtype([(name, field_type(of) or "S1") for name, of in array.fields])
        out = _empty(array, kind)
    return _as_objects(array, out)


def _empty(array: Array, kind: np.dtype[Any]) -> np.ndarray:
    if kind.hasobject:
        return np.full(array.shape, "", object)
    if kind.names is not None:
        return np.zeros(array.shape, kind)
    return np.full(array.shape, _filled(array), kind)


def _as_objects(array: Array, values: np.ndarray) -> np.ndarray:
    """Fixed-length Unicode texts as objects, since HDF5 has no such type."""
    return values.astype(object) if array.dtype[1] == "U" else values


def _numbers(array: Array, data: bytes, nbytes: int) -> np.ndarray:
    kind = np.dtype(array.dtype)
    element = ("text", kind.itemsize, "null") if kind.kind == "U" else element_of(array.dtype)
    layout = Layout(element, array.chunks[1:], array.chunks, filters_of(array))
    raw = chunk_bytes(memoryview(data), layout, 0, nbytes)
    return np.frombuffer(raw, kind).reshape(array.chunks)


def _objects(array: Array, data: bytes, _: int) -> np.ndarray:
    """A chunk of objects, written as JSON: the values, then a type and a shape."""
    raw = undone(memoryview(data), filters_of(array), MAX_HELD)
    try:
        *values, _, shape = json.loads(bytes(raw))
        shape = _whole(shape)
    except (ValueError, TypeError, RecursionError):
        raise NWBReadError("damaged: objects that are not JSON") from None
    if math.prod(shape) != math.prod(array.chunks):
        raise NWBReadError(f"damaged: {shape} values where {array.chunks} are declared")
    try:
        for _ in shape[1:]:
            values = [value for some in values for value in some]
        if len(values) != math.prod(shape):
            raise ValueError
        flat = _texts(values) if array.fields is None else _compounds(values, array.fields)
    except (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException):
        raise UnsupportedColumnError("objects that are neither texts nor references") from None
    return flat.reshape(array.chunks)


def _texts(values: list[Any]) -> np.ndarray:
    """Texts, or the paths of references."""
    if any(isinstance(value, dict) for value in values[:1]):
        texts = pc.struct_field(pa.array(values, _TARGET), [0, 0])
    else:
        texts = pa.array(values, pa.string())
    found: np.ndarray = texts.to_numpy(zero_copy_only=False)
    return found


def field_type(kind: str) -> np.dtype[Any] | None:
    """The dtype of a compound's field; None for references."""
    if kind == REFERENCE:
        return None
    if not _DTYPE.fullmatch(kind) and not _NAME.fullmatch(kind):
        raise UnsupportedColumnError(f"a compound with a field of the type {kind[:40]!r}")
    found = np.dtype(kind)
    if found.kind not in "biufS" or found.itemsize > MAX_ELEMENT:
        raise UnsupportedColumnError(f"a compound with a field of the type {kind[:40]!r}")
    return found


def _compounds(values: list[Any], fields: Fields) -> np.ndarray:
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
    """The element type of inlined values."""
    kind = values.dtype
    if kind.hasobject:
        return ("string",)
    if kind.names is None:
        return element_of(kind.str)
    assert kind.fields is not None
    inner = [(name, kind.fields[name]) for name in kind.names]
    found = tuple((name, int(at), element_of(part.str)) for name, (part, at, *_) in inner)
    return ("compound", kind.itemsize, found)
