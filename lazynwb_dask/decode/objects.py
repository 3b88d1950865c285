"""Chunks of objects: texts of any length, and what Zarr's writers encode as JSON. Nothing is unpickled.

Texts and the paths of references are Python objects in a NumPy array, or in the fields of a structured one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.decode.filters import undone
from lazynwb_dask.decode.zarr_codecs import configuration, vlen_texts
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.elements import ElementType
from lazynwb_dask.model.index import Layout

MAX_HELD = 256 << 20  # decoded bytes of a chunk
MAX_VALUES = 1 << 22  # of JSON: its commas and opening brackets
JSON = ("json2", "json")
_PATH = pa.struct([("path", pa.string())])
_TARGET = pa.struct([("_REFERENCE", _PATH), ("path", pa.string()), ("value", _PATH)])


def objects_dtype(element: ElementType) -> np.dtype[Any]:
    """The dtype of an element in memory."""
    if element[0] == "compound":
        return np.dtype([(name, objects_dtype(inner)) for name, _, inner in element[2]])
    return np.dtype(object if element[0] == "string" else bool if element[0] == "bool" else element[1])


def fill_of(layout: Layout) -> Any:
    """The value of an element that was never written."""
    kind = objects_dtype(layout.element)
    if kind.names is None:
        return layout.fill.decode("utf-8", "replace") or _nothing(layout)
    made = np.zeros((), kind)
    for name in kind.names:
        if kind[name].hasobject:
            made[name] = ""
    return made


def object_values(data: memoryview, layout: Layout) -> np.ndarray:
    """The elements of a chunk. Raises NWBReadError if it is damaged, UnsupportedColumnError for others."""
    assert layout.chunk is not None
    raw = undone(data, layout.filters[1:], MAX_HELD)
    count, references = math.prod(layout.chunk), _nothing(layout) is None
    as_json = configuration(layout.filters[0])["id"] in JSON
    if as_json or references:
        each = 8 * len(layout.element[2]) if layout.element[0] == "compound" else 8
        check_values([bytes(raw)], MAX_VALUES + each * count, "damaged")
    if as_json:
        found = _json_values(raw, layout.element, count)
    else:
        found = _paths(vlen_texts(raw, count)) if references else vlen_texts(raw, count)
    order = configuration(layout.filters[0]).get("order")
    if order:
        found = found.reshape([layout.chunk[axis] for axis in order]).transpose(np.argsort(order)).reshape(-1)
    if references:
        found[found == ""] = None
    return found


def _nothing(layout: Layout) -> str | None:
    """An empty text; of references, none."""
    return None if configuration(layout.filters[0]).get("references") else ""


def are_references(layout: Layout) -> bool:
    """Whether the values are references to objects, which the frame shows as paths."""
    if layout.element[0] == "string":
        return bool(layout.filters) and _nothing(layout) is None
    return str(layout.element[0]) == "reference"


def arrow_objects(values: np.ndarray) -> pa.Array:
    """Such elements as an Arrow array."""
    kind = values.dtype
    if kind.names is None:
        return pa.array(values, pa.large_string()) if kind.hasobject else pa.array(np.ascontiguousarray(values))
    return pa.StructArray.from_arrays([arrow_objects(values[name]) for name in kind.names], names=kind.names)


def check_values(texts: Iterable[bytes | bytearray], most: int, name: str) -> None:
    """Raise NWBReadError if JSON has more values than `most`, each of which takes more memory than text."""
    if (count := sum(text.count(sign) for text in texts for sign in (b",", b"[", b"{"))) > most:
        raise NWBReadError(f"{name}: JSON with {count} values; the limit is {most}")


def _json_values(raw: memoryview, element: ElementType, count: int) -> np.ndarray:
    """A chunk written as JSON: the values, then a type and a shape."""
    try:
        *values, _, shape = json.loads(bytes(raw))
        if not all(type(n) is int and n >= 0 for n in shape):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        raise NWBReadError("damaged: objects that are not JSON") from None
    if math.prod(shape) != count:
        raise NWBReadError(f"damaged: {shape} values where {count} are declared")
    try:
        for _ in shape[1:]:
            values = [value for some in values for value in some]
        if len(values) != count:
            raise ValueError
        return _elements(values, element)
    except (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException):
        raise UnsupportedColumnError("objects that are neither texts nor references") from None


def _elements(values: Sequence[Any], element: ElementType) -> np.ndarray:
    if element[0] == "string":
        return _texts(values)
    if element[0] != "compound":
        return np.array(values, objects_dtype(element))
    columns = list(zip(*_without_zeros(values, (0,) * len(element[2])), strict=True))
    columns = columns or [()] * len(element[2])
    out = np.empty(len(values), objects_dtype(element))
    for (name, _, inner), column in zip(element[2], columns, strict=True):
        out[name] = _elements(column, inner)
    return out


def _without_zeros(values: Sequence[Any], instead: Any) -> Sequence[Any]:
    """Elements; the fill value of objects, which also fills a chunk beyond its array's end, is mostly zero."""
    if int not in set(map(type, values)):
        return values
    return [instead if type(value) is int and value == 0 else value for value in values]


def _paths(texts: np.ndarray) -> np.ndarray:
    """References that were written as texts: paths, or JSON with them."""
    if not any(text.startswith("{") for text in texts):
        return texts
    try:
        return _texts([json.loads(text) if text.startswith("{") else text for text in texts])
    except (ValueError, TypeError, RecursionError, pa.ArrowException):
        raise UnsupportedColumnError("references that are neither paths nor JSON with paths") from None


def _texts(values: Sequence[Any]) -> np.ndarray:
    """Texts, or the paths of references."""
    values = _without_zeros(values, "")
    if dict in set(map(type, values)):
        targets = pa.array([{"path": v} if isinstance(v, str) else v for v in values], _TARGET)
        texts = pc.coalesce(*[pc.struct_field(targets, place) for place in ([0, 0], [1], [2, 0])])
    else:
        texts = pa.array(values, pa.string())
    found: np.ndarray = texts.to_numpy(zero_copy_only=False)
    return found
