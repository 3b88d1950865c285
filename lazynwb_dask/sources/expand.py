"""Expands paths, globs, folders, URLs and prefixes to an ordered list of files."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from functools import partial

from lazynwb_dask.errors import NWBFileNotFoundError, NWBPermissionError
from lazynwb_dask.model.source import Source, is_local, local_path, local_version, shown
from lazynwb_dask.sources.listing import FILE, MARKERS, STORE, is_hidden, is_typed, list_store, names_many
from lazynwb_dask.storage import retried
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.util.threads import at_once

__all__ = ["Source", "expand", "shown"]


def expand(paths: object, access: FileAccess) -> list[Source]:
    """The files that `paths` name: one or more local paths, ``file://`` URLs, other URLs that fsspec knows,
    or sources. A folder, or a URL that ends with ``/`` or is only a bucket, means all ``*.nwb`` files and
    Zarr stores below it. A glob means these in the folders that it matches, and the files that it matches:
    ``*.nwb`` files, or those of any name if the pattern ends in an extension. Anything else is one file of
    any name. The order is that of `paths`, with duplicates; each folder or glob is sorted by path. Sizes
    and versions come from listings only: a file URL costs no request and isn't checked. Raises
    NWBFileNotFoundError if a folder or glob has no files, ValueError for no paths."""
    named = [_text(path) for path in _many(paths)]
    if not named:
        raise ValueError("no paths were given: name at least one NWB file, folder, glob or URL")
    find = partial(_find, access=access)
    slow = {one for one in named if isinstance(one, str) and not is_local(one) and names_many(one)}
    listings = at_once([partial(find, one) for one in slow])
    found = dict(zip(slow, listings, strict=True))
    sources: list[Source] = []
    for one in named:
        if isinstance(one, Source):
            sources.append(one)
        elif one in found:
            sources.extend(found[one])
        else:
            sources.extend(find(one))
    return sources


def _many(paths: object) -> Iterable[object]:
    if isinstance(paths, (str, bytes, os.PathLike, Source)) or hasattr(paths, "__fspath__"):
        return [paths]
    if isinstance(paths, Iterable):
        return paths
    raise TypeError(f"paths must be a path, a URL or a list of them, not {type(paths).__name__}")


def _text(path: object) -> str | Source:
    """A path as a string; local paths and ``file://`` URLs become absolute POSIX paths."""
    if isinstance(path, Source):
        return path
    if not isinstance(path, (str, os.PathLike)) and not hasattr(path, "__fspath__"):
        raise TypeError(f"a path must be a string or a path object, not {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError("a path must be text, not bytes")
    if not text:
        raise ValueError("an empty path was given")
    if not is_local(text):
        return text
    text = local_path(text)
    folder = text.endswith(("/", os.sep))
    text = os.path.abspath(os.path.expanduser(text)).replace(os.sep, "/")
    return text + "/" if folder and not text.endswith("/") else text


def _find(named: str, access: FileAccess) -> list[Source]:
    if is_local(named):
        found = _find_local(named)
    elif names_many(named):
        found = retried(named, access, partial(list_store, named))
    else:
        return [Source(named.rstrip("/"))]
    if not found:
        raise NWBFileNotFoundError(
            f"{shown(named)}: no NWB file (*{FILE}) and no Zarr store is there. Check the path; a "
            "file with another name must be named in full."
        )
    return found


def _find_local(path: str) -> list[Source]:
    if glob.has_magic(path) and not os.path.lexists(path):
        found: dict[str, Source] = {}
        for match in glob.iglob(path, recursive=True):
            if os.path.isdir(match):
                below = _below(match.rstrip("/") or "/", frozenset())
                found.update((source.url, source) for source in below)
            elif (is_typed(path) or match.endswith(FILE)) and not is_hidden(match):
                found[match] = _local(match)
        return [found[url] for url in sorted(found)]
    if os.path.isdir(path):
        return sorted(_below(path.rstrip("/") or "/", frozenset()), key=lambda one: one.url)
    return [_local(path)]


def _local(path: str) -> Source:
    try:
        status = os.stat(path)
    except OSError:
        return Source(path)  # the reader says what is wrong with it
    return Source(path, status.st_size, local_version(status))


def _below(folder: str, above: frozenset[tuple[int, int]]) -> Iterator[Source]:
    """The files and stores in a folder and its subfolders, without hidden ones."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            listing = list(entries)
    except PermissionError:
        raise NWBPermissionError(f"{folder}: this folder can't be listed.") from None
    this = (status.st_dev, status.st_ino)
    if this in above:  # a link back to a folder above
        return
    if folder.endswith(STORE) or not MARKERS.isdisjoint(entry.name for entry in listing):
        yield Source(folder)
        return
    for entry in listing:
        path = f"{folder.rstrip('/')}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _below(path, above | {this})
        elif entry.name.endswith(FILE):
            yield _local(path)
