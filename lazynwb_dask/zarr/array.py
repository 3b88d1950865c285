"""What Zarr metadata of either version say of an array, checked; and how it is stored, as a layout."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazynwb_dask.decode.codecs import ZARR_CODEC
from lazynwb_dask.decode.objects import JSON
from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.elements import ElementType, element_bytes
from lazynwb_dask.model.index import Filter, Layout, Objects
from lazynwb_dask.model.limits import MAX_CHUNKS, MAX_ELEMENT
from lazynwb_dask.zarr import codecs

MAX_DIMENSIONS = 32
MAX_FIELDS = 256
MAX_NESTING = 8  # compounds within compounds
REFERENCE = "<REFERENCE>"
"""The type of a compound's field that holds a reference or a text, in `Array.fields`."""
_PLAIN = re.compile(r"[<>|=][biufcSUV]\d{1,9}|\|O")
_NAME = re.compile(r"u?int(8|16|32|64)|float(16|32|64)|bool_?")
_TEXTS = frozenset({REFERENCE, "object", "str", "str_", "bytes", "bytes_", "object_", "text", "utf8"})
OBJECTS = (*JSON, "vlen-utf8", "vlen-bytes")
"""The codecs of objects that are read."""

Fields = tuple[tuple[str, str], ...]
Codecs = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Array:
    """What is said of one array.

    `codecs` are those of a chunk in the order of writing, as numcodecs configures them; in a shard, of a
    chunk within it. `prefix` stands before a chunk's numbers.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str  # as NumPy writes it; ``|O`` for objects, ``|V...`` for a `compound`
    fill: Any
    codecs: Codecs
    separator: str  # between the numbers in a chunk's name
    fields: Fields | None = None  # of compounds that are objects: names and types
    compound: np.dtype[Any] | None = None
    prefix: str = ""
    shard: tuple[int, ...] | None = None
    index: Codecs = ()  # codecs of a shard's index
    index_first: bool = False
    references: bool = False  # whether its texts are paths of objects, or JSON with them

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

    @property
    def numpy(self) -> np.dtype[Any]:
        """The stored type."""
        return np.dtype(self.dtype) if self.compound is None else self.compound

    def name(self, place: tuple[int, ...]) -> str:
        """The key of the chunk at a place of the grid."""
        if not place:
            return self.prefix.rstrip(self.separator) or "0"
        return self.prefix + self.separator.join(map(str, place))

    def checked(self) -> Array:
        """The same. Raises UnsupportedColumnError if no array can be like that."""
        shape, chunks = self.shape, self.chunks
        if len(shape) != len(chunks) or len(shape) > MAX_DIMENSIONS or min(chunks, default=1) < 1:
            raise UnsupportedColumnError(f"damaged: chunks of {chunks} for a shape of {shape}")
        if len(self.codecs) > codecs.MAX_CODECS or len(self.index) > codecs.MAX_CODECS:
            raise UnsupportedColumnError(f"more than {codecs.MAX_CODECS} codecs")
        if not all(isinstance(c, dict) and isinstance(c.get("id"), str) for c in self.codecs + self.index):
            raise UnsupportedColumnError("damaged: its metadata name no codecs that there are")
        if self.separator not in (".", "/"):
            raise UnsupportedColumnError(f"chunks with names like 0{str(self.separator)[:8]}0")
        if self.shard is not None and (
            len(self.shard) != len(chunks)
            or any(s < c or s % c for s, c in zip(self.shard, chunks, strict=True))
        ):
            raise UnsupportedColumnError(f"damaged: shards of {self.shard} with chunks of {chunks}")
        if math.prod(self.grid) > MAX_CHUNKS:
            raise UnsupportedColumnError(f"{math.prod(self.grid)} chunks; the limit is {MAX_CHUNKS}")
        return self


def whole(values: Any) -> tuple[int, ...]:
    """Sizes that are whole numbers. Raises TypeError for others."""
    if not all(type(v) is int and 0 <= v < 1 << 48 for v in values):
        raise TypeError
    return tuple(values)


def is_name(text: str) -> bool:
    """Whether HDF5 can hold a text as a name; bytes that are not UTF-8 are surrogates in it."""
    try:
        return bool(text) and 0 not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def plain(dtype: Any) -> np.dtype[Any]:
    """A type that isn't a compound, by NumPy's name of it. Raises UnsupportedColumnError for others."""
    if not isinstance(dtype, str) or not _PLAIN.fullmatch(dtype):
        raise UnsupportedColumnError(f"values of the Zarr type {str(dtype)[:80]!r}")
    try:
        return np.dtype(dtype)
    except TypeError:
        raise UnsupportedColumnError(f"values of the Zarr type {dtype!r}") from None


def compound(fields: Sequence[tuple[str, np.dtype[Any]]]) -> np.dtype[Any]:
    """A compound of some fields, one after the other."""
    if (
        not 0 < len(fields) <= MAX_FIELDS
        or len(dict(fields)) < len(fields)
        or not all(map(is_name, dict(fields)))
    ):
        raise UnsupportedColumnError(f"a compound of {len(fields)} fields")
    return np.dtype(list(fields))


def named_fields(given: Any) -> Fields:
    """The fields of a compound that was written as objects."""
    try:
        named = tuple((str(name), str(kind)) for name, kind in given)
    except (TypeError, ValueError):
        raise UnsupportedColumnError("damaged: its compound's fields are none") from None
    if not 0 < len(named) <= MAX_FIELDS or len(dict(named)) < len(named) or not all(map(is_name, dict(named))):
        raise UnsupportedColumnError(f"a compound of {len(named)} fields")
    return named


def field_type(kind: str) -> np.dtype[Any] | None:
    """The dtype of such a compound's field; None for references and texts."""
    if kind in _TEXTS:
        return None
    if not _PLAIN.fullmatch(kind) and not _NAME.fullmatch(kind):
        raise UnsupportedColumnError(f"a compound with a field of the type {kind[:40]!r}")
    found = np.dtype(kind)
    if found.kind not in "biufS" or found.itemsize > MAX_ELEMENT:
        raise UnsupportedColumnError(f"a compound with a field of the type {kind[:40]!r}")
    return found


def element_of(kind: np.dtype[Any]) -> ElementType:
    """The element type of numbers, booleans, texts of fixed size, and compounds of them."""
    size = kind.itemsize
    if size > MAX_ELEMENT:
        raise UnsupportedColumnError(f"elements of {size} bytes")
    if kind.subdtype is not None:
        return ("array", kind.shape, element_of(kind.base))
    if kind.names is not None:
        assert kind.fields is not None
        inner = [(name, kind.fields[name]) for name in kind.names]
        return ("compound", size, tuple((name, int(at), element_of(part)) for name, (part, at, *_) in inner))
    if kind.kind == "b":
        return ("bool",)
    if kind.kind in "iuf" and size <= 8:
        return ("number", kind.str)
    if kind.kind == "c" and size <= 16:
        return ("complex", f"{kind.str[0]}f{size // 2}")
    if kind.kind == "S" and size:
        return ("text", size, "null")
    if kind.kind == "U" and size:
        return ("text", size, "utf-32-be" if kind.str[0] == ">" else "utf-32-le")
    raise UnsupportedColumnError(f"values of the Zarr type {kind.str!r}")


def layout_of(array: Array, objects: Objects | None = None) -> Layout:
    """The layout of an array's chunks, which lie at offsets, or are `objects`."""
    shape, chunks = array.shape or (1,), array.chunks or (1,)
    return Layout(
        element_of(array.numpy), shape[1:], chunks, filters_of(array), fill_bytes(array), objects=objects
    )


def objects_of(array: Array, path: str) -> Objects:
    """The keys of an array's chunks. `path` is the array's."""
    index = codecs.filters_of(array.index, np.dtype("<u8"), ())
    if not array.shape:
        key = f"{path.strip('/')}/{array.name(())}"
        return Objects(key, "", None if array.shard is None else (1,), index, array.index_first)
    return Objects(f"{path.strip('/')}/{array.prefix}", array.separator, array.shard, index, array.index_first)


def stored_layout(array: Array, path: str) -> Layout:
    """The layout of an array of a store, of which the chunks are objects."""
    return object_layout(array, path) if array.is_object else layout_of(array, objects_of(array, path))


def object_layout(array: Array, path: str = "") -> Layout:
    """The layout of texts, references, or compounds with these: chunks whose first filter makes objects of
    bytes."""
    shape, chunks = array.shape or (1,), array.chunks or (1,)
    fill = array.fill.encode("utf-8", "replace") if isinstance(array.fill, str) and not array.fields else b""
    element = element_of_objects(array.fields)
    return Layout(element, shape[1:], chunks, object_filters(array), fill, objects=objects_of(array, path))


def element_of_objects(fields: Fields | None) -> ElementType:
    """The element type of texts and references, or of compounds with such fields."""
    if fields is None:
        return ("string",)
    found, at = [], 0
    for name, kind in fields:
        given = field_type(kind)
        inner = ("string",) if given is None or given.kind == "S" else element_of(given.newbyteorder("="))
        found.append((name, at, inner))
        at += element_bytes(inner)
    return ("compound", at, tuple(found))


def object_filters(array: Array) -> tuple[Filter, ...]:
    """The codecs of objects as filters. Raises UnsupportedColumnError if one isn't known."""
    given, axes = list(array.codecs), list(range(len(array.chunks)))
    while given and given[0].get("id") == "transpose":
        axes = [axes[axis] for axis in codecs.axes_of(given.pop(0), len(axes))]
    first = given[0]["id"] if given else "nothing"
    if first == "pickle":
        raise UnsupportedColumnError("objects that were pickled: to read them is to run what they say")
    if first not in OBJECTS or (array.fields is not None and first not in JSON):
        raise UnsupportedColumnError(f"objects encoded by {first[:40]!r}, which aren't read")
    made: dict[str, Any] = {"id": first, "references": True} if array.references else {"id": first}
    if codecs.is_moved(axes, array.chunks):
        made["order"] = axes
    own = Filter(ZARR_CODEC, (), json.dumps(made, sort_keys=True))
    return (own, *codecs.filters_of(given[1:], array.numpy, array.chunks))


def filters_of(array: Array) -> tuple[Filter, ...]:
    """The codecs as filters, but the one of objects. Raises UnsupportedColumnError if one isn't known."""
    if array.is_object:
        return object_filters(array)[1:]
    return codecs.filters_of(array.codecs, array.numpy, array.chunks)


def fill_bytes(array: Array) -> bytes:
    """The fill value of one element as stored; empty for zeros. Raises UnsupportedColumnError for none."""
    if array.fill is None:
        return b""
    filled = filled_value(array.numpy, array.fill).tobytes()
    return filled if any(filled) else b""


def filled_value(kind: np.dtype[Any], value: Any) -> np.ndarray:
    """A fill value as the metadata of either version have it, as an array without dimensions."""
    try:
        if kind.names is not None and isinstance(value, dict):
            made = np.zeros((), kind)
            for name in kind.names:
                made[name] = filled_value(kind[name], value.get(name))
            return made
        if value is None or (type(value) is int and value == 0):
            return np.zeros((), kind)
        if kind.kind in "SV":
            raw = base64.b64decode(value, validate=True)
            if len(raw) > kind.itemsize:
                raise ValueError
            return np.frombuffer(raw.ljust(kind.itemsize, b"\0"), kind, 1).reshape(())
        if kind.kind == "f" and isinstance(value, str) and value.startswith("0x"):
            raw = bytes.fromhex(value[2:])
            return np.frombuffer(raw, np.dtype(f">f{kind.itemsize}"), 1).astype(kind).reshape(())
        if kind.kind == "c" and isinstance(value, list):
            real, imaginary = (_number(part) for part in value)
            return np.array(complex(real, imaginary), kind)
        made = np.array(value if kind.kind == "U" and isinstance(value, str) else _number(value), kind)
        if kind.kind in "iub" and made != _number(value):
            raise ValueError
        return made
    except (TypeError, ValueError, OverflowError, AttributeError):
        raise UnsupportedColumnError(f"damaged: a fill value of {str(value)[:80]!r}") from None


def _number(value: Any) -> Any:
    if value in ("NaN", "Infinity", "-Infinity"):
        return float(value.replace("Infinity", "inf"))
    if not isinstance(value, (int, float)):
        raise TypeError
    return value
