"""What the metadata of an NWB-Zarr store say, of either version, by the conventions of hdmf-zarr.

Of version 2, keys end in ``.zgroup``, ``.zarray`` or ``.zattrs``; of version 3, a key is the path of a group
or an array. Links are attributes of groups, references are JSON with a path.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lazynwb_dask.decode.objects import MAX_VALUES, check_values
from lazynwb_dask.errors import NWBError, NWBReadError, UnsupportedColumnError
from lazynwb_dask.zarr import zarr2, zarr3
from lazynwb_dask.zarr.array import Array, filters_of
from lazynwb_dask.zarr.tree import LEFT_OUT, SCALAR, Tree

HERE = frozenset({".", "./", ""})  # the source of links within a store
MAX_FETCHED = 64  # chunks of a dataset that are fetched while indexing
_LINKS = ("_LINKS", "zarr_link")
_NOT_SHOWN = frozenset(
    {*_LINKS, "_DTYPE", "_REFERENCE_FIELDS", "zarr_dtype", "_ARRAY_DIMENSIONS", ".specloc", "object_id"}
)
_V2 = (".zgroup", ".zarray", ".zattrs")


@dataclass(frozen=True)
class Node:
    """A group or an array: its attributes; of an array also its metadata, of Zarr's version 2 or 3."""

    attributes: Mapping[str, Any]
    meta: Mapping[str, Any] | None = None
    version: int = 2


class Contents(Tree):
    """A store's objects. `stem` is the name of its folder; `nodes` have the keys of groups and arrays.

    `known` are values that were fetched, by path, or why they can't be read.
    """

    def __init__(self, name: str, nodes: Mapping[str, Node]) -> None:
        self.name, self.nodes = name, nodes
        self.stem = name.rstrip("/").rpartition("/")[2]
        self.known: dict[str, np.ndarray | NWBError] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self._arrays: dict[str, Array | UnsupportedColumnError] = {}

    @cached_property
    def objects(self) -> dict[str, str]:
        found = {"/": "group"}
        for key, node in self.nodes.items():
            if key and self.is_shown(key):
                found[f"/{key}"] = "group" if node.meta is None else "dataset"
        for path, (source, _) in self._links.items():
            found.setdefault(path, "link" if self._is_here(source) else "external")
        return self.checked(found)

    @cached_property
    def _links(self) -> dict[str, tuple[str, str]]:
        """Of each link the source that it leads to, and the path there."""
        found: dict[str, tuple[str, str]] = {}
        for key, node in self.nodes.items():
            if node.meta is not None:
                continue
            links: Any = next((node.attributes[name] for name in _LINKS if name in node.attributes), [])
            for link in links if isinstance(links, list) else [None]:
                given: dict[str, Any] = link if isinstance(link, dict) else {}
                name, path, source = given.get("name", 0), given.get("path", 0), given.get("source") or ""
                if not all(isinstance(text, str) for text in (name, path, source)) or "/" in name:
                    raise NWBReadError(f"{self.name}: damaged: a link of /{key[:200]} is not valid")
                if self.is_shown(where := f"{key}/{name}".lstrip("/")):
                    found[f"/{where}"] = source, f"/{path.lstrip('/')}"
        return found

    def _is_here(self, source: str) -> bool:
        """Whether a link leads to an object of the same store, which older writers name by its folder."""
        return source in HERE or source.rstrip("/").removeprefix("./") == self.stem

    def attributes(self, path: str) -> dict[str, Any]:
        known = self._attributes.get(path)
        if known is not None:
            return known
        found: dict[str, Any] = {}
        node = self.nodes.get(path.strip("/"))
        for name, value in node.attributes.items() if node else ():
            if name in _NOT_SHOWN:
                continue
            if isinstance(value, dict) and value.get("zarr_dtype") == "object":
                value = {"_REFERENCE": value.get("value")}
            found[name] = value
        if node and node.attributes.get("zarr_dtype") == "scalar":
            found[SCALAR] = True
        self._attributes[path] = found
        return found

    def target(self, path: str) -> str:
        return self._links[path][1]

    def array(self, path: str) -> Array:
        found = self._arrays.get(path)
        if found is None:
            try:
                found = self._array(path)
            except UnsupportedColumnError as exc:
                found = exc
            self._arrays[path] = found
        if isinstance(found, UnsupportedColumnError):
            raise found
        return found

    def _array(self, path: str) -> Array:
        node = self.nodes.get(path.strip("/"))
        if node is None or node.meta is None:
            raise UnsupportedColumnError("a link that leads nowhere")
        if node.version == 3:
            found = zarr3.array_of(node.meta)
            return replace(found, references=node.attributes.get("_DTYPE") == "object_reference")
        kind = node.attributes.get("zarr_dtype")
        fields = None
        if isinstance(kind, list):
            fields = [(f.get("name"), f.get("dtype")) if isinstance(f, dict) else f for f in kind]
        return replace(zarr2.array_of(node.meta, fields), references=kind == "object")

    def held(self, path: str, array: Array) -> np.ndarray | None:
        found = self.known.get(path)
        return found if isinstance(found, np.ndarray) else None

    def can_fetch(self, path: str, array: Array) -> bool:
        filters_of(array)  # raises for what can't be decoded
        return path not in self.known and math.prod(array.grid) <= MAX_FETCHED


def nodes_of_v2(documents: Mapping[str, Any], name: str) -> dict[str, Node]:
    """The groups and arrays that documents of version 2 describe, by their keys."""
    parts: dict[str, dict[str, Any]] = {}
    for key, document in documents.items():
        head, _, last = key.rpartition("/")
        if last in _V2 and not _is_left_out(key):
            if last == ".zarray" and not isinstance(document, dict):
                document = {}  # raises when the array is looked at
            if not isinstance(document, dict):
                raise NWBReadError(f"{name}: damaged: {key[:200]} is not a JSON object")
            parts.setdefault(head, {})[last] = document
    found = {
        key: Node(part.get(".zattrs", {}), part.get(".zarray"))
        for key, part in parts.items()
        if ".zgroup" in part or ".zarray" in part
    }
    if "" not in found or found[""].meta is not None:
        raise NWBReadError(f"{name}: a Zarr store without a root group")
    return found


def nodes_of_v3(documents: Mapping[str, Any], name: str) -> dict[str, Node]:
    """The groups and arrays that documents of version 3 describe, by their keys."""
    found = {}
    for key, document in documents.items():
        if _is_left_out(key):
            continue
        attributes = document.get("attributes") or {} if isinstance(document, dict) else None
        if not isinstance(attributes, dict) or document.get("node_type") not in ("group", "array"):
            raise NWBReadError(f"{name}: damaged: /{key[:200]} is neither a Zarr group nor an array")
        if document.get("zarr_format") != 3:
            raise NWBReadError(
                f"{name}: /{key[:200]} is of Zarr {str(document.get('zarr_format'))[:40]}, not 3"
            )
        found[key.strip("/")] = Node(attributes, document if document["node_type"] == "array" else None, 3)
    if "" not in found or found[""].meta is not None:
        raise NWBReadError(f"{name}: a Zarr store without a root group")
    return found


def _is_left_out(key: str) -> bool:
    return key.split("/")[0] == LEFT_OUT


def parsed(data: bytes | bytearray, name: str) -> dict[str, Any]:
    """A metadata document. Raises NWBReadError if it is no JSON object."""
    check_values([data], MAX_VALUES, name)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise NWBReadError(f"{name}: damaged: not JSON") from None
    if not isinstance(found, dict):
        raise NWBReadError(f"{name}: damaged: no JSON object")
    return found


def consolidated(document: str, content: dict[str, Any], name: str) -> dict[str, Node] | None:
    """The nodes of a store by its consolidated metadata; None if these are not in the document."""
    if document == ".zmetadata":
        metadata = content.get("metadata")
        if not isinstance(metadata, dict):
            raise NWBReadError(f"{name}: damaged: .zmetadata without metadata")
        return nodes_of_v2(metadata, name)
    within = content.get("consolidated_metadata")
    if document != "zarr.json" or within is None:
        return None
    metadata = within.get("metadata") if isinstance(within, dict) else None
    if not isinstance(metadata, dict) or within.get("kind", "inline") != "inline":
        raise NWBReadError(f"{name}: damaged: consolidated metadata that can't be read")
    return nodes_of_v3({"": content, **metadata}, name)
