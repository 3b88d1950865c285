"""Arrays as Zarr version 3 describes them: ``zarr.json``. Types and codecs become what version 2 calls them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.zarr.array import MAX_NESTING, Array, Codecs, compound, plain, whole
from lazynwb_dask.zarr.codecs import chain_of

_PLAIN = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
_FIXED = {"null_terminated_bytes": "S", "fixed_length_utf32": "U", "raw_bytes": "V"}
_OBJECTS = {"string": "vlen-utf8", "variable_length_bytes": "vlen-bytes", "bytes": "vlen-bytes"}
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
    chain = chain_of(meta["codecs"])
    if chain.to_bytes == "sharding_indexed":
        if chain.codecs:
            raise UnsupportedColumnError("shards that were encoded as a whole")
        settings = dict(chain.parameters)
        shard, chunks, chain = chunks, whole(settings["chunk_shape"]), chain_of(settings["codecs"])
        told = chain_of(settings["index_codecs"])
        if told.to_bytes != "bytes" or told.order != "<":
            raise UnsupportedColumnError("shards whose index isn't little endian")
        index = told.codecs
        first = {"start": True, "end": False}[settings.get("index_location", "end")]
    kind = _type(meta["data_type"])
    if chain.to_bytes not in (_OBJECTS.values() if kind is None else ("bytes",)):
        raise UnsupportedColumnError(f"damaged: {meta['data_type']} with the codec {chain.to_bytes!r}")
    name, codecs = "|O", chain.codecs
    if kind is None:
        at = chain.of_arrays
        codecs = (*codecs[:at], {"id": chain.to_bytes}, *codecs[at:])
    else:
        kind = kind.newbyteorder(">" if chain.order == ">" else "<")
        name = kind.str
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
