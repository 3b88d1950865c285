"""Arrays as Zarr version 3 describes them: ``zarr.json``. Types and codecs become what version 2 calls them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.zarr.array import MAX_NESTING, Array, Codecs, compound, plain, whole

_PLAIN = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
_FIXED = {"null_terminated_bytes": "S", "fixed_length_utf32": "U", "raw_bytes": "V"}
_OBJECTS = {"string": "vlen-utf8", "variable_length_bytes": "vlen-bytes", "bytes": "vlen-bytes"}
_WITHOUT_SETTINGS = frozenset({"blosc", "zstd", "gzip", "crc32c"})
_KNOWN = frozenset(
    {
        "zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs",
        "fill_value", "attributes", "dimension_names", "storage_transformers",
    }
)  # fmt: skip


def array_of(meta: Mapping[str, Any]) -> Array:
    """The array that a ``zarr.json`` describes. Raises UnsupportedColumnError if it isn't supported."""
    try:
        return _array(meta).checked()
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UnsupportedColumnError("damaged: its zarr.json is incomplete") from None


def _array(meta: Mapping[str, Any]) -> Array:
    for name, value in meta.items():
        if name not in _KNOWN and not (isinstance(value, dict) and value.get("must_understand") is False):
            raise UnsupportedColumnError(f"a Zarr array with the extension {name[:40]!r}")
    if meta.get("storage_transformers"):
        raise UnsupportedColumnError("a Zarr array with storage transformers")
    shape = whole(meta["shape"])
    grid, settings = _named(meta["chunk_grid"])
    if grid != "regular":
        raise UnsupportedColumnError(f"a Zarr array with the chunk grid {grid[:40]!r}")
    chunks = whole(settings["chunk_shape"])
    encoding, settings = _named(meta["chunk_key_encoding"])
    if encoding not in ("default", "v2"):
        raise UnsupportedColumnError(f"chunks with keys encoded by {encoding[:40]!r}")
    separator = settings.get("separator", "/" if encoding == "default" else ".")
    prefix = f"c{separator}" if encoding == "default" else ""
    shard: tuple[int, ...] | None = None
    index: Codecs = ()
    first = False
    steps = list(meta["codecs"])
    if any(_named(step)[0] == "sharding_indexed" for step in steps):
        if len(steps) > 1:
            raise UnsupportedColumnError("shards that were encoded as a whole")
        settings = _named(steps[0])[1]
        shard, chunks, steps = chunks, whole(settings["chunk_shape"]), list(settings["codecs"])
        index = _codecs(settings["index_codecs"], np.dtype("<u8"), 1 + len(shape))
        first = {"start": True, "end": False}[settings.get("index_location", "end")]
    kind = _type(meta["data_type"])
    name = "|O"
    if kind is not None:
        if any(_named(step) == ("bytes", {"endian": "big"}) for step in steps):
            kind = _big(kind, steps)
        name = kind.str
    codecs = _codecs(steps, kind, len(shape))
    struct = kind if kind is not None and kind.names is not None else None
    return Array(
        shape, chunks, name, meta["fill_value"], codecs, separator, None, struct, prefix, shard, index, first
    )


def _named(given: Any) -> tuple[str, dict[str, Any]]:
    """The name and the configuration of what is written as either a name or both."""
    if isinstance(given, str):
        return given, {}
    name, settings = given["name"], given.get("configuration") or {}
    if not isinstance(name, str) or not isinstance(settings, dict):
        raise TypeError
    return name, settings


def _type(given: Any, depth: int = 1) -> np.dtype[Any] | None:
    """A data type in little endian; None for objects."""
    name, settings = _named(given)
    if _PLAIN.fullmatch(name):
        return np.dtype(name).newbyteorder("<")
    if name in _FIXED:
        size, kind = whole([settings["length_bytes"]])[0], _FIXED[name]
        return plain(f"<U{size // 4}" if kind == "U" else f"|{kind}{size}")
    if name in _OBJECTS:
        return None
    if name in ("struct", "structured") and depth <= MAX_NESTING:
        fields: list[tuple[str, np.dtype[Any]]] = []
        for field in settings["fields"]:
            label, inner = (field["name"], field["data_type"]) if isinstance(field, dict) else field
            found = _type(inner, depth + 1)
            if found is None or not isinstance(label, str):
                raise UnsupportedColumnError("a compound with a field of variable length")
            fields.append((label, found))
        return compound(fields)
    raise UnsupportedColumnError(f"values of the Zarr type {name[:80]!r}")


def _big(kind: np.dtype[Any], steps: list[Any]) -> np.dtype[Any]:
    """The type in big endian, as the codec "bytes" has written it."""
    names = [_named(step)[0] for step in steps]
    if not {"transpose"}.issuperset(names[: names.index("bytes")]):
        raise UnsupportedColumnError("a Zarr array that was encoded before it became big endian")
    return kind.newbyteorder(">")


def _codecs(steps: list[Any], kind: np.dtype[Any] | None, dimensions: int) -> Codecs:
    """Codecs as numcodecs configures them."""
    found: list[dict[str, Any]] = []
    for name, settings in map(_named, steps):
        if name == "bytes":
            continue
        if name == "transpose":
            order = settings["order"]
            if order in ("C", "F"):
                order = list(range(dimensions))[:: 1 if order == "C" else -1]
            if sorted(whole(order)) != list(range(dimensions)):
                raise UnsupportedColumnError(f"damaged: transposed by {str(order)[:80]}")
            if list(order) != list(range(dimensions)):
                found.append({"id": name, "order": list(order)})
        elif name in _WITHOUT_SETTINGS:
            found.append({"id": name})
        elif name in _OBJECTS.values():
            if kind is not None or found:
                raise UnsupportedColumnError(f"damaged: the codec {name!r} in a wrong place")
            found.append({"id": name})
        else:
            found.append({**settings, "id": name.removeprefix("numcodecs.")})
    if kind is None and (not found or found[0]["id"] not in _OBJECTS.values()):
        raise UnsupportedColumnError("texts of variable length without a codec for them")
    return tuple(found)
