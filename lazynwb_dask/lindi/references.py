"""The JSON of a LINDI file: its objects, their attributes, and the references to their chunks.

Keys are those of a Zarr store. Values are JSON, text, or a byte range ``[url, offset, length]``. Nothing
is evaluated: a template is a name that stands for the beginning of a URL.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lazynwb_dask.decode.objects import MAX_VALUES, check_values
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.zarr.array import Array
from lazynwb_dask.zarr.tree import EXTERNAL, FIELDS, SOFT_LINK, Tree
from lazynwb_dask.zarr.values import values_of
from lazynwb_dask.zarr.zarr2 import array_of

_TEMPLATE = re.compile(r"\{\{ *(\w+) *\}\}")
_BASE64 = "base64:"


@dataclass(frozen=True, eq=False)
class Contents(Tree):
    """A LINDI file's content. `name` is the file, for messages."""

    name: str
    refs: Mapping[str, Any]
    templates: Mapping[str, str]

    @cached_property
    def objects(self) -> dict[str, str]:
        found: dict[str, str] = {"/": "group"}
        for key in self.refs:
            head, _, last = key.rpartition("/")
            if last not in (".zgroup", ".zarray") or not head:
                continue
            if not self.is_shown(head):
                continue
            path = f"/{head}"
            is_link = SOFT_LINK in self.attributes(path)
            found[path] = "link" if is_link else "group" if last == ".zgroup" else "dataset"
        return self.checked(found)

    def attributes(self, path: str) -> dict[str, Any]:
        return self._json(path, ".zattrs")

    def target(self, path: str) -> str:
        link = self.attributes(path).get(SOFT_LINK)
        text = link.get("path") if isinstance(link, dict) else None
        if not isinstance(text, str):
            return "/"
        return text if text.startswith("/") else f"{path.rpartition('/')[0]}/{text}"

    def _json(self, path: str, name: str) -> dict[str, Any]:
        held = self.refs.get(f"{path.strip('/')}/{name}".lstrip("/"))
        if isinstance(held, str):
            try:
                text = _bytes(held)
                check_values([text], MAX_VALUES, f"{self.name}: {path}/{name}")
                held = json.loads(text)
            except (ValueError, RecursionError):
                raise NWBReadError(f"{self.name}: damaged: {path}/{name} is not JSON") from None
        if held is not None and not isinstance(held, dict):
            raise NWBReadError(f"{self.name}: damaged: {path}/{name} is not a JSON object")
        return held or {}

    def array(self, path: str) -> Array:
        if self.objects.get(path) != "dataset":
            raise UnsupportedColumnError("a link that leads nowhere")
        return array_of(self._json(path, ".zarray"), self.attributes(path).get(FIELDS))

    def link(self, path: str) -> tuple[str, str] | None:
        """The file and the path in it of an external array link; None if the dataset is none."""
        link = self.attributes(path).get(EXTERNAL)
        if link is None:
            return None
        url, name = (link.get("url"), link.get("name")) if isinstance(link, dict) else (None, None)
        if not isinstance(url, str) or not isinstance(name, str):
            raise UnsupportedColumnError("damaged: a link to an HDF5 dataset without its URL")
        if link.get("link_type") != "hdf5_dataset":
            raise UnsupportedColumnError(f"a link of the type {str(link.get('link_type'))[:40]!r}")
        return self._expanded(url), name

    def is_inlined(self, path: str, array: Array) -> bool:
        """Whether a dataset's values are in the JSON."""
        kinds = {type(held) for _, held in self._chunks(path, array)}
        if list in kinds and len(kinds) > 1:
            raise UnsupportedColumnError("some of its chunks are within the LINDI file, some not")
        return list not in kinds and (bool(kinds) or array.dtype[1] in "OUS")

    def held(self, path: str, array: Array) -> np.ndarray | None:
        if self.link(path) is not None or not self.is_inlined(path, array):
            return None
        return self.values(path)

    def ranges(self, path: str, array: Array) -> Iterator[tuple[int, tuple[str, int, int]]]:
        """Of each chunk in another file its position in the grid, and its URL, offset and size."""
        for i, held in self._chunks(path, array):
            if not isinstance(held, list) or len(held) != 3 or not isinstance(held[0], str):
                raise UnsupportedColumnError("damaged: a reference that is not a range of bytes")
            url, offset, size = held
            if not all(type(n) is int and 0 <= n < 1 << 60 for n in (offset, size)):
                raise UnsupportedColumnError(f"damaged: a reference to {size} bytes at {offset}")
            yield i, (self._expanded(url), offset, size)

    def values(self, path: str) -> np.ndarray:
        """The values of a dataset that are in the JSON."""
        array = self.array(path)
        stem = path.lstrip("/")

        def chunk(place: tuple[int, ...]) -> bytes | None:
            held = self.refs.get(f"{stem}/{array.name(place)}")
            if held is None:
                return None
            if not isinstance(held, str):
                raise UnsupportedColumnError("damaged: a chunk that is not text")
            return _bytes(held)

        try:
            return values_of(array, chunk)
        except (ValueError, TypeError, OverflowError, binascii.Error) as exc:
            raise NWBReadError(f"damaged: {exc}") from None

    def _chunks(self, path: str, array: Array) -> Iterator[tuple[int, Any]]:
        stem = path.lstrip("/")
        for i, place in enumerate(np.ndindex(*array.grid)):
            held = self.refs.get(f"{stem}/{array.name(place)}")
            if held is not None:
                yield i, held

    @cached_property
    def urls(self) -> list[str]:
        """The URLs of the files that it refers to, sorted."""
        found = {held[0] for held in self.refs.values() if isinstance(held, list) and held}
        whole = {self._expanded(url) for url in found if isinstance(url, str)}
        for path, kind in self.objects.items():
            if kind == "dataset":
                with contextlib.suppress(UnsupportedColumnError):  # raised when it is indexed
                    link = self.link(path)
                    whole |= {link[0]} if link else set()
        return sorted(whole)

    def _expanded(self, url: str) -> str:
        """A URL with its template filled in."""
        if "{{" not in url:
            return url
        try:
            text = _TEMPLATE.sub(lambda match: self.templates[match[1]], url)
        except KeyError as exc:
            raise NWBReadError(f"{self.name}: damaged: there is no template {exc}") from None
        if "{{" in text:
            raise NWBReadError(f"{self.name}: {url[:80]!r}: only plain templates are filled in")
        return text


def parse(text: bytes, name: str) -> Contents:
    """The content of a LINDI file. Raises NWBReadError for other JSON."""
    check_values([text], MAX_VALUES + len(text) // 8, name)
    try:
        content = json.loads(text)
        refs, templates = content["refs"], content.get("templates") or {}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise NWBReadError(f"{name}: not a LINDI file: no JSON object with 'refs'") from None
    if not isinstance(refs, dict) or not isinstance(templates, dict):
        raise NWBReadError(f"{name}: not a LINDI file: its 'refs' is not a JSON object")
    if content.get("gen"):
        raise NWBReadError(f"{name}: a Kerchunk file with generated references, which aren't read")
    if not all(isinstance(value, str) for value in templates.values()):
        raise NWBReadError(f"{name}: damaged: a template that is not text")
    if ".zgroup" not in refs:
        raise NWBReadError(f"{name}: not a LINDI file: it has no root group")
    return Contents(name, refs, templates)


def _bytes(text: str) -> bytes:
    if text.startswith(_BASE64):
        return base64.b64decode(text[len(_BASE64) :], validate=True)
    return text.encode()
