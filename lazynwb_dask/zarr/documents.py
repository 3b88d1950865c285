"""A store's metadata documents: one that has all, or those of each group and array."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lazynwb_dask.decode.objects import MAX_VALUES, check_values
from lazynwb_dask.errors import NWBPermissionError, NWBReadError
from lazynwb_dask.model.other_files import ZARR_ARRAY, ZIPPED
from lazynwb_dask.model.source import Source, inside, is_local, local_path, shown
from lazynwb_dask.sources.stores import MAX_DOCUMENT as MAX_DOCUMENTS
from lazynwb_dask.sources.stores import read_document
from lazynwb_dask.storage import Request, fetch, retried, zip_members
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.util.lru import Cache
from lazynwb_dask.util.threads import at_once
from lazynwb_dask.zarr.contents import Contents, Node, consolidated, nodes_of_v2, nodes_of_v3, parsed
from lazynwb_dask.zarr.tree import LEFT_OUT, MAX_DEPTH, MAX_OBJECTS

MAX_DOCUMENT = 1 << 20  # of one group or array
MEMORY = 12  # bytes of parsed JSON for each byte of text, about

_contents = Cache[Contents]("Zarr metadata")


def load(source: Source, access: FileAccess) -> tuple[Source, Contents]:
    """A store with its document, that one's size and version, and what its metadata say.

    The version is unknown where the metadata are not consolidated. Raises NWBReadError if they can't be read.
    """
    cached = _contents.get(source) if source.etag is not None else None
    if cached is not None:
        return source, cached
    name = shown(source.url)
    source, document, text = read_document(source, access)
    content = parsed(text, f"{name}/{document}")
    if content.get("node_type") == "array":
        raise NWBReadError(f"{name}: {ZARR_ARRAY}")
    nodes = consolidated(document, content, name)
    if nodes is None:
        etag = source.etag if source.document == ZIPPED else None
        return replace(source, etag=etag), Contents(name, _each(source, access, document, content))
    found = Contents(name, nodes)
    if source.etag is not None:
        _contents.put(source, found, MEMORY * len(text))
    return source, found


def _each(source: Source, access: FileAccess, document: str, root: dict[str, Any]) -> dict[str, Node]:
    """The groups and arrays by documents of their own, level by level: arrays, with their chunks, aren't
    listed."""
    is_v3, name = document == "zarr.json", shown(source.url)
    names = ("zarr.json",) if is_v3 else (".zgroup", ".zarray", ".zattrs")
    found: dict[str, Any] = {document: root}
    level, wanted = [""], [] if is_v3 else [".zattrs"]
    held: list[bytes] = []
    count = 0
    for _ in range(MAX_DEPTH):
        below = _folders(source, level, access)
        count += len(below)
        if count > MAX_OBJECTS:
            raise NWBReadError(f"{name}: more than {MAX_OBJECTS} objects, the limit")
        wanted += [f"{key}/{one}" for key in below for one in names]
        texts = _fetched(source, wanted, access, MAX_DOCUMENTS - sum(map(len, held)))
        held += texts.values()
        check_values(held, MAX_VALUES, name)
        found.update((key, parsed(text, f"{name}/{key}")) for key, text in texts.items())
        level, wanted = [key for key in below if _is_group(found, key, names[0])], []
        if not level:
            break
    if is_v3:
        return nodes_of_v3({key.removesuffix("zarr.json"): held for key, held in found.items()}, name)
    return nodes_of_v2(found, name)


def _is_group(found: dict[str, Any], key: str, document: str) -> bool:
    held = found.get(f"{key}/{document}")
    return held is not None and held.get("node_type", "group") == "group"


def _folders(source: Source, keys: Sequence[str], access: FileAccess) -> list[str]:
    """The folders within some folders of a store, but those of schemas, by their keys."""
    try:
        listed = at_once([partial(_names, source, key, access) for key in keys])
    except (NWBReadError, OSError) as exc:
        raise _unlisted(source, exc) from None
    if keys == [""] and not any(listed) and not is_local(source.url):
        raise _unlisted(source, "nothing is listed")
    below = zip(keys, listed, strict=True)
    found = [f"{key}/{name}".lstrip("/") for key, names in below for name in names]
    return [key for key in found if key != LEFT_OUT]


def _unlisted(source: Source, why: object) -> NWBReadError:
    made = NWBPermissionError if isinstance(why, (NWBPermissionError, PermissionError)) else NWBReadError
    return made(
        f"{shown(source.url)}: the metadata of this Zarr store are not consolidated, and what is in it "
        f"can't be listed ({why}). zarr.consolidate_metadata(path), where it was written, puts them in one"
    )


def _names(source: Source, key: str, access: FileAccess) -> list[str]:
    """The names of the folders in a folder of a store."""
    if source.document == ZIPPED:
        begin = f"{key}/" if key else ""
        keys = zip_members(source, access).keys
        found: Iterable[str] = {
            one[len(begin) :].partition("/")[0]
            for one in keys
            if one.startswith(begin) and "/" in one[len(begin) :]
        }
    elif is_local(source.url):
        with os.scandir(os.path.join(local_path(source.url), key)) as entries:
            found = [entry.name for entry in entries if entry.is_dir()]
    else:
        found = retried(inside(source.url, key).rstrip("/") + "/", access, _listed)
    return sorted(name for name in found if key or not name.startswith("."))  # such as .git


def _listed(filesystem: Any, path: str) -> set[str]:
    filesystem.invalidate_cache()
    entries = {entry["name"].rstrip("/"): entry["type"] for entry in filesystem.ls(path, detail=True)}
    begin = path.rstrip("/")
    return {
        name.rpartition("/")[2]
        for name, kind in entries.items()
        if kind == "directory" and name.rpartition("/")[0].lstrip("/") == begin.lstrip("/")
    }


def _fetched(source: Source, keys: Sequence[str], access: FileAccess, most: int) -> dict[str, bytes]:
    """Those of some documents that there are, which may have `most` bytes in all."""
    found: dict[str, bytes] = {}
    nbytes = 0

    def keep(key: str, data: memoryview) -> None:
        nonlocal nbytes
        nbytes += len(data)
        if nbytes > most:
            raise NWBReadError(f"{shown(source.url)}: metadata of more than {MAX_DOCUMENTS} bytes, the limit")
        found[key] = bytes(data)

    def absent() -> None:
        """Not each folder is a group."""

    requests = [Request(0, MAX_DOCUMENT, partial(keep, key), key, absent) for key in keys]
    fetch(source, requests, access, quick=True)
    return found
