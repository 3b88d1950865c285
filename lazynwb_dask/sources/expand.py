"""Expands paths, globs, folders, URLs and prefixes to an ordered list of files."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import unquote

from lazynwb_dask.dandi.assets import find_sources, paths_of
from lazynwb_dask.dandi.names import is_name
from lazynwb_dask.errors import NWBFileNotFoundError, NWBPermissionError, NWBReadError
from lazynwb_dask.model.other_files import ARRAY, DOCUMENTS, ZARR_ARRAY, ZIPPED, document_of
from lazynwb_dask.model.source import Source, is_local, is_zip, local_path, local_url, local_version, shown
from lazynwb_dask.sources.listing import (
    FILE,
    FILES,
    endings,
    inside_store,
    is_likely_name,
    is_pattern,
    is_web_folder,
    list_store,
    names_many,
)
from lazynwb_dask.sources.stores import open_document
from lazynwb_dask.storage import open_source, retried
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.util.threads import at_once

_SIGNATURE = b"\x89HDF\r\n\x1a\n"

__all__ = ["Source", "expand", "shown"]


def expand(paths: object, access: FileAccess) -> list[Source]:
    """The files and Zarr stores that `paths` name: one or more local paths, ``file://`` URLs, other URLs that
    fsspec knows, names of dandisets and of assets in them, sources, or a table with a file in each row. A
    folder, or a URL that ends with ``/`` or is only a bucket, means all ``*.nwb``
    files and Zarr stores below it, also zipped ones (``*.zarr.zip``). A glob means these in the folders that it
    matches, and the files and stores that it matches: these, LINDI files too if its last part has ``.nwb``, or
    those of any name if it ends in an extension. Anything else is one file or store of any name. A name that
    exists is no pattern. The order is that of `paths`, with duplicates; each folder or glob is sorted by path,
    and a file that links to folders lead to as well is in it once. Sizes and versions come from listings only:
    a file URL costs no request and isn't checked, but one request tells whether a web address that ends with
    ``/``, or a name like a pattern, is a file. Raises NWBFileNotFoundError if a folder or glob has no files,
    ValueError for no paths."""
    named = absolute(paths)
    find = partial(_find, access=access)
    urls = dict.fromkeys(one for one in named if isinstance(one, str))
    archived = [one for one in urls if is_name(one) and not one.startswith("/")]
    slow = [one for one in urls if not is_local(one) and names_many(one) and one not in archived]
    listings = at_once([partial(find, one) for one in slow])
    found = dict(zip(slow, listings, strict=True)) | find_sources(archived, access)
    sources: list[Source] = []
    for one in named:
        if isinstance(one, Source):
            sources.append(one)
        elif one in found:
            sources.extend(found[one])
        else:
            sources.extend(find(one))
    return [replace(one, document=ZIPPED) if is_zip(one.url) else one for one in sources]


def _many(paths: object) -> Iterable[object]:
    if isinstance(paths, (str, bytes, os.PathLike, Source)) or hasattr(paths, "__fspath__"):
        return [paths]
    if hasattr(paths, "columns"):
        return paths_of(paths)
    if isinstance(paths, Iterable) and not isinstance(paths, Mapping):
        return paths
    raise TypeError(f"paths must be a path, a URL or a list of them, not {type(paths).__name__}")


def absolute(paths: object) -> list[str | Source]:
    """One or more paths as strings; those of local files become absolute POSIX paths, also of ``file://`` URLs.
    A chain of URLs that exists as a local file is that file."""
    named = [_absolute(path) for path in _many(paths)]
    if not named:
        raise ValueError("no paths were given: name at least one NWB file, folder, glob or URL")
    return named


def _absolute(path: object) -> str | Source:
    if isinstance(path, Source):
        return path
    if not isinstance(path, (str, bytes, os.PathLike)) and not hasattr(path, "__fspath__"):
        raise TypeError(f"a path must be a string or a path object, not {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path must be text, not bytes: os.fsdecode({text!r}) makes it text")
    if not text:
        raise ValueError("an empty path was given")
    if is_name(text) and not os.path.lexists(text):
        return text
    if not is_local(text) and ("://" in text.partition("::")[0] or not os.path.lexists(text)):
        return text
    if not os.path.lexists(text):
        path = local_path(text)
        if path != text and not _begins(path) and _begins(decoded := unquote(path)):
            path = decoded  # percent-encoding, as in as_uri() of pathlib
        text = os.path.expanduser(path)
    return _resolved(text.replace(os.sep, "/"))


def _begins(path: str) -> bool:
    """Whether a path exists, or the folder before the first pattern in it."""
    begin, _ = _divided(path)
    return os.path.lexists(begin)


def _resolved(path: str) -> str:
    """An absolute path without ``.`` and ``..``, where the latter means what it means to the system: the
    folder above the one that a link leads to. A slash at the end stays."""
    begin, pattern = _divided(path)
    above, dots, below = begin.rpartition("/../") if not begin.endswith("/..") else (begin[:-3], "/", "")
    if dots and os.path.realpath(f"{above}/..") != os.path.realpath(os.path.abspath(f"{above}/..")):
        begin = f"{os.path.realpath(f'{above}/..')}/{below}"
    end = "/" if path.endswith("/") else ""
    whole = "/".join([os.path.abspath(begin).replace(os.sep, "/").rstrip("/"), *pattern])
    return (whole.rstrip("/") + end) or "/"


def _divided(path: str) -> tuple[str, list[str]]:
    """A path up to its first component that is a pattern, and not the name of anything, and the rest."""
    parts = path.split("/")
    for i, part in enumerate(parts):
        if glob.has_magic(part) and not os.path.lexists("/".join(parts[: i + 1])):
            return "/".join(parts[:i]) or ("/" if i else "."), parts[i:]
    return path, []


def _find(named: str, access: FileAccess) -> list[Source]:
    problem = ""
    if is_local(named):
        found = _find_local(named)
    elif not names_many(named):
        return [Source(named.rstrip("/"))]
    elif is_pattern(named):
        found = _find_in_store(named, access)
    else:
        if is_web_folder(named):
            try:
                source, data = open_source(Source(named), len(_SIGNATURE), access)
            except NWBPermissionError:
                return [_store_if_there(named, access) or Source(named)]  # the reader says so
            except NWBReadError as error:
                problem = f" As one file: {error}"
            else:
                if not data.lstrip().startswith(b"<"):
                    return [source]
            # index pages leave out the documents of version 2
            if named.rstrip("/").endswith(FILE) and (store := _store_if_there(named, access)):
                return [store]
        try:
            found = retried(named, access, partial(list_store, named))
            if not found and problem:
                found = [store] if (store := _store_if_there(named, access)) else []
        except NWBPermissionError:
            if "/" not in named.partition("://")[2].strip("/"):  # a bucket
                raise
            return [_store_if_there(named, access) or Source(named)]  # the reader says so
    if not found:
        raise NWBFileNotFoundError(
            f"{shown(named)}: no NWB file (*{FILE}) and no Zarr store is there. Check the path; a file with "
            f"another name must be named in full, and a catalog opened by open_catalog.{problem}"
        )
    return found


def _store_if_there(url: str, access: FileAccess) -> Source | None:
    try:
        return open_document(Source(url.rstrip("/")), 1, access)[0]
    except (NWBFileNotFoundError, NWBPermissionError):
        return None


def _find_in_store(named: str, access: FileAccess) -> list[Source]:
    """The file with a pattern for its name, if there is one, else those that match it."""
    first = is_likely_name(named)
    if first and (one := _if_there(named, access)):
        return [one]
    try:
        found = retried(named, access, partial(list_store, named))
    except (NWBFileNotFoundError, NWBPermissionError):  # not everyone who may read may list
        if first or not (one := _if_there(named, access)):
            raise
        return [one]
    if not found and (one := _store_if_there(named, access) if first else _if_there(named, access)):
        return [one]
    return found


def _if_there(url: str, access: FileAccess) -> Source | None:
    try:
        return open_source(Source(url), len(_SIGNATURE), access)[0]
    except (NWBFileNotFoundError, NWBPermissionError):
        return None


def _find_local(path: str) -> list[Source]:
    begin, pattern = _divided(path)
    if not pattern:
        found = _below(path.rstrip("/") or "/") if os.path.isdir(path) else [_local(path)]
        if os.path.lexists(f"{path}/{ARRAY}"):
            raise NWBReadError(f"{local_url(path)}: {ZARR_ARRAY}")
        return sorted(found, key=_by_path)
    matches: dict[str, Source] = {}
    stores: list[str] = []
    for match, unread in _matching(begin, [part for part in pattern if part not in ("", ".")], stores):
        if unread:
            matches[match] = _local(match)
        elif os.path.isdir(match):
            matches.update((source.url, source) for source in _below(match))
        elif match.endswith(endings(path)) and not _is_hidden(match) and not path.endswith("/"):
            matches[match] = _local(match)
    if stores and not matches:
        raise NWBFileNotFoundError(inside_store(path, _outermost(stores[0])))
    found = sorted(matches.values(), key=_by_path)
    if "**" not in pattern:
        return found
    # a file that is reached by a link to a folder, and without it, is one
    named = [(*os.path.split(_by_path(one)), one) for one in found]
    real = {folder: os.path.realpath(folder) for folder in {folder for folder, _, _ in named}}
    once: dict[tuple[str, str], Source] = {}
    for folder, name, one in sorted(named, key=lambda three: (real[three[0]] != three[0], len(three[0]))):
        once.setdefault((real[folder], name), one)
    return sorted(once.values(), key=_by_path)


def _outermost(store: str) -> str:
    """The store that a group is in."""
    above = os.path.dirname(store)
    return _outermost(above) if above != store and _is_store(above) else store


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(".")


def _is_store(folder: str) -> bool:
    return any(os.path.lexists(f"{folder}/{name}") for name in (*DOCUMENTS, ARRAY))


def _by_path(source: Source) -> str:
    return local_path(source.url)


def _local(path: str, document: str = "") -> Source:
    """A file, or a folder that is a Zarr store with that document."""
    try:
        status = os.stat(f"{path}/{document}" if document else path)
    except OSError:
        return Source(local_url(path))  # the reader says what is wrong with it
    if stat.S_ISDIR(status.st_mode) or document == DOCUMENTS[-1]:
        return Source(local_url(path), document=document)
    return Source(local_url(path), status.st_size, local_version(status), document=document)


def _below(top: str) -> Iterator[Source]:
    """The files and stores in a folder and its subfolders, without hidden ones; and the folders that can't
    be listed, about which the reader says why."""
    for folder, entries in _folders(top):
        document = "" if entries is None else document_of({entry.name for entry in entries})
        if entries is None or document:
            yield _local(folder, document)
            continue
        for entry in entries:
            if entry.name.endswith(FILES) and not entry.name.startswith(".") and not _is_folder(entry):
                yield _local(f"{folder.rstrip('/')}/{entry.name}")


def _folders(top: str) -> Iterator[tuple[str, list[os.DirEntry[str]] | None]]:
    """A folder and its subfolders, without those in stores and hidden ones, with their entries; None for
    those that can't be listed. Each is listed once, however many links lead to it, by way of the fewest."""
    seen: set[tuple[int, int]] = set()
    level = [top]
    while level:
        links: list[str] = []
        todo = [folder for folder in level if _is_new(folder, seen)]
        while todo:
            folder = todo.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = list(listing)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                yield folder, None
                continue
            yield folder, entries
            if {entry.name for entry in entries}.intersection((*DOCUMENTS, ARRAY)):
                continue
            for entry in entries:
                path = f"{folder.rstrip('/')}/{entry.name}"
                if entry.name.startswith(".") or not _is_folder(entry):
                    continue
                if entry.is_symlink():
                    links.append(path)
                elif _is_new(path, seen):
                    todo.append(path)
        level = sorted(links)


def _is_new(folder: str, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder wasn't seen before, by any path."""
    try:
        status = os.stat(folder)
    except OSError:
        return True  # listing it fails
    this = (status.st_dev, status.st_ino)
    new = this not in seen
    seen.add(this)
    return new


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link of which that can't be known."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno != errno.ELOOP


def _matching(folder: str, pattern: Sequence[str], stores: list[str]) -> Iterator[tuple[str, bool]]:
    """The paths below a folder that match a pattern, and whether one is a folder that can't be listed.
    Hidden ones only match a pattern that begins with a dot. What is in Zarr stores, which are added to
    `stores`, doesn't match."""
    if not pattern or (pattern[0] == "**" and len(pattern) == 1):
        yield folder, False
        return
    if _is_store(folder):
        stores.append(folder)
        return
    part, *rest = pattern
    base = folder.rstrip("/")
    if part == "**" and rest[0] != "**":
        for inner, entries in _folders(folder):
            if entries is None:
                yield inner, True
            else:
                yield from _matching(inner, rest, stores)
    elif part == "**":
        yield from _matching(folder, rest, stores)
    elif not glob.has_magic(part) or os.path.lexists(f"{base}/{part}"):
        try:
            os.lstat(f"{base}/{part}")
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError:
            yield folder, True
            return
        yield from _matching(_resolved(f"{base}/..") if part == ".." else f"{base}/{part}", rest, stores)
    else:
        try:
            with os.scandir(folder) as listing:
                entries = list(listing)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError:
            yield folder, True
            return
        matches = re.compile(fnmatch.translate(part)).match
        for entry in entries:
            if matches(entry.name) and (part.startswith(".") or not entry.name.startswith(".")):
                yield from _matching(f"{base}/{entry.name}", rest, stores)
