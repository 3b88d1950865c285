"""Lists the files below a prefix of a store, or those that match a glob, in few requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from fsspec.utils import glob_translate

from lazynwb_dask.errors import NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.other_files import ARRAY, DOCUMENTS, STORE, ZARR_ARRAY, document_of
from lazynwb_dask.model.source import TRANSPARENT, Source, links, shown
from lazynwb_dask.storage.responses import validator_of
from lazynwb_dask.storage.waits import answered
from lazynwb_dask.util.threads import at_once

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

    Entries = Mapping[str, Mapping[str, Any]]

FILE = ".nwb"
FILES = (FILE, f"{STORE}.zip")  # what names of files end in that are found in folders

MAX_DEPTH = 64  # of folders; links may lead in circles
PAGES = 20  # of 1,000 keys: above this, globs in S3 list folders instead of all keys
# A key as chunks have, and documents of version 3.
_CHUNK = re.compile(r"/(zarr\.json|c|(c\.)?\d+(\.\d+)*)$")
_FIRST = (DOCUMENTS[0], DOCUMENTS[2], ARRAY)  # what is listed before all else in a store
_DOCUMENT = "document"  # in what is said of a Zarr store: its document
LAST = "\U0010ffff"  # sorts behind any key after a "/"

# In these schemes a name without "/" is a bucket, a container or a host.
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "http", "https"})


class _Link(NamedTuple):
    """The link of a URL chain that names the files, and the text before and after it."""

    before: str
    scheme: str
    path: str
    after: str


def _split(url: str) -> _Link:
    chain = links(url)
    at = 0
    while at < len(chain) - 1 and chain[at].removesuffix("://") in TRANSPARENT:
        at += 1
    scheme, _, path = chain[at].partition("://")
    before = "".join(f"{link}::" for link in chain[:at])
    return _Link(before, scheme, path, "".join(f"::{link}" for link in chain[at + 1 :]))


def names_many(url: str) -> bool:
    """Whether a URL means the files below it or those that match it, rather than one file."""
    link = _split(url)
    if _magic(link) is not None or link.scheme == "memory":  # looking there costs nothing
        return True
    if link.path.rstrip("/").endswith(STORE):
        return False
    bucket = link.scheme in _BUCKETS and "/" not in link.path
    return bucket or not link.path or link.path.endswith("/")


def is_pattern(url: str) -> bool:
    """Whether a URL is a glob, unless a file of that name exists."""
    return _magic(_split(url)) is not None


def is_likely_name(url: str) -> bool:
    """Whether a pattern is rather a file's name: ``rec[1].nwb`` in a folder without a pattern."""
    link = _split(url)
    at = _magic(link)
    return at is not None and "/" not in link.path[at:] and "*" not in link.path[at:]


def is_web_folder(url: str) -> bool:
    """Whether an address may be one file all the same, though it ends with ``/``."""
    link = _split(url)
    return link.scheme in ("http", "https") and not link.before and link.path.count("/") > 1


def endings(pattern: str) -> tuple[str, ...]:
    """What the names of files end in that match a glob: anything if it ends in a file extension itself.

    >>> endings("*"), endings("*.nwb*"), endings("*.h5")
    (('.nwb', '.zarr.zip'), ('.nwb', '.zarr.zip', '.lindi.json'), ('',))
    """
    if re.search(r"\.\w+$", pattern):
        return ("",)
    return (*FILES, ".lindi.json") if FILE in pattern.rpartition("/")[2] else FILES


def _magic(link: _Link) -> int | None:
    """The position of a URL's pattern, or None. In HTTP URLs ``?`` begins the query."""
    if link.scheme in ("http", "https"):
        match = re.search(r"[*[]", link.path.partition("?")[0])
    else:
        match = re.search(r"[*?[]", link.path.partition("?versionId=")[0])
    return match.start() if match else None


def list_store(url: str, filesystem: AbstractFileSystem, path: str) -> list[Source]:
    """The sources that a URL means for which `names_many` holds, sorted by URL. Sizes and versions come
    from the listing; files are not requested."""
    filesystem.invalidate_cache()
    link = _split(url)
    rename = _renamer(link, path)
    found: Entries = {}
    if _magic(link) is not None:
        begin = re.split(r"[*?[]", path, maxsplit=1)[0]
        store = next((parent for parent in _parents(begin) if parent.endswith(STORE)), None)
        if store is None:
            entries = _entries(filesystem, path)
            found = _matching(entries, path, endings(link.path))
            store = None if found else _entered(entries, path)
        if store is not None:
            raise NWBFileNotFoundError(inside_store(url, rename(store)))
    elif link.scheme == "memory" and not filesystem.isdir(path):
        return [Source(url)]
    else:
        entries = _below(filesystem, path)
        found = _sources(entries, path)
        if f"{path.rstrip('/')}/{ARRAY}" in entries:
            raise NWBReadError(f"{shown(url)}: {ZARR_ARRAY}")
    return sorted((_source(rename(name), info) for name, info in found.items()), key=lambda source: source.url)


def inside_store(pattern: str, store: str) -> str:
    """What is wrong with a pattern that matches something in a Zarr store."""
    return (
        f"{shown(pattern)}: no NWB file (*{FILE}) and no Zarr store is there. What is inside a Zarr store "
        f"matches no pattern: name the store itself, {shown(store)}."
    )


def _source(url: str, info: Mapping[str, Any]) -> Source:
    """A file of a listing, or a Zarr store with what the listing says of its document."""
    document = info.get(_DOCUMENT, "")
    if document == DOCUMENTS[-1]:  # tells nothing of the other documents
        return Source(url, document=document)
    return Source(url, info.get("size"), validator_of(info), document=document)


def _renamer(link: _Link, path: str) -> Callable[[str], str]:
    """A function from a name in the filesystem to a URL in the user's form."""
    root = re.split(r"[*?[]", path.strip("/"), maxsplit=1)[0].rpartition("/")[0]
    whole = f"{link.scheme}://{link.path}"
    at = whole.find(root) if root else -1
    head = whole[:at] if at >= 0 else f"{link.scheme}://"

    def rename(name: str) -> str:
        if "://" in name:  # web addresses are whole already
            return f"{link.before}{name}{link.after}"
        return f"{link.before}{head}{name.lstrip('/')}{link.after}"

    return rename


def _entries(filesystem: Any, pattern: str) -> Entries:
    """All files that a glob may match, and what is below the folders that it may match."""
    if _is_s3(filesystem):
        found = _s3(filesystem, re.split(r"[*?[]", pattern, maxsplit=1)[0], PAGES)
        if found is not None:
            return found
    begin = re.split(r"[*?[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    parts = pattern.rstrip("/")[len(begin) :].strip("/").split("/")
    return _walked(filesystem, begin, parts)


def _matching(entries: Entries, pattern: str, ends: tuple[str, ...]) -> Entries:
    """The files and stores that match a glob, or are below a folder that does."""
    if pattern in entries:
        return {pattern: entries[pattern]}
    matches = _matcher(pattern.rstrip("/"), entries)
    found = _sources(entries, "")
    chosen = {
        name: info for name, info in found.items() if any(matches(part) for part in (name, *_parents(name)))
    }
    stores = _stores(entries).keys()
    return chosen | {
        name: info
        for name, info in entries.items()
        if name.endswith(ends) and matches(name) and stores.isdisjoint(_parents(name)) and not is_hidden(name)
    }


def _entered(entries: Entries, pattern: str) -> str | None:
    """The first Zarr store that matches the beginning of a pattern."""
    parts = pattern.strip("/").split("/")
    stores = [name for name in _sources(entries, "") if name not in entries]
    for i in range(1, len(parts)):
        matches = _matcher("/".join(parts[:i]), entries)
        if store := next((store for store in stores if matches(store.strip("/"))), None):
            return store
    return None


def _may_be_name(part: str) -> bool:
    return re.search(r"[?[]", part) is not None and "*" not in part


def _matcher(pattern: str, entries: Entries) -> Callable[[str], bool]:
    """Whether a name matches a glob, in which ``[1]`` is no pattern where something of that name exists."""
    parts = pattern.split("/")
    names = {i: part for i, part in enumerate(parts) if _may_be_name(part)}
    text = glob_translate("/".join(f"\ue000{i}\ue001" if i in names else part for i, part in enumerate(parts)))
    for i, part in names.items():
        either = f"(?P<part{i}>{re.escape(part)}|{glob_translate(part)[:-2]})"  # without the end
        text = text.replace(f"\ue000{i}\ue001", either)
    match = re.compile(text).match
    there = {*entries, *(parent for name in entries for parent in _parents(name))} if names else set()

    def matches(name: str) -> bool:
        found = match(name)
        return found is not None and all(
            found[f"part{i}"] == part or name[: found.start(f"part{i}")] + part not in there
            for i, part in names.items()
        )

    return matches


def is_hidden(name: str) -> bool:
    """Whether the name begins with a dot, or the file is inside a Zarr store."""
    return name.rpartition("/")[2].startswith(".") or any(parent.endswith(STORE) for parent in _parents(name))


def _sources(entries: Entries, root: str) -> dict[str, Mapping[str, Any]]:
    """Of all files below a root, those named ``*.nwb``, and the outermost Zarr stores, with what the listing
    says of their documents."""
    stores, begin = _stores(entries), len(root.rstrip("/"))
    found: dict[str, Mapping[str, Any]] = {}
    for name, info in entries.items():
        parents = ("", *_parents(name))  # the first is the root of an archive
        store = next((parent for parent in parents if parent in stores and len(parent) >= begin), None)
        if store is None and name.endswith(FILES) and not is_hidden(name):
            found[name] = info
        elif store is not None and stores[store].get(_DOCUMENT) != ARRAY:
            found[store] = stores[store]
    return found


def _stores(entries: Entries) -> dict[str, Mapping[str, Any]]:
    """The Zarr stores, groups and arrays among all files, with what the listing says of their documents."""
    stores: dict[str, Mapping[str, Any]] = {}
    for name, info in entries.items():
        folder, _, last = name.rpartition("/")
        for parent in _parents(name):
            if parent.endswith(STORE):
                stores.setdefault(parent, {})
        if last in (LAST, ARRAY):
            stores.setdefault(folder, {_DOCUMENT: last} if last == ARRAY else {})
        elif document_of((last, stores.get(folder, {}).get(_DOCUMENT, ""))) == last:
            stores[folder] = {**info, _DOCUMENT: last}
    return stores


def _parents(name: str) -> Iterator[str]:
    """The folders that contain a name, outermost first."""
    return (name[: slash.start()] for slash in re.finditer("/", name) if slash.start())


def _below(filesystem: Any, path: str) -> Entries:
    if _is_s3(filesystem):
        return _s3(filesystem, f"{path.rstrip('/')}/") or {}
    return _walked(filesystem, path.rstrip("/"))


def _walked(filesystem: Any, top: str, parts: Sequence[str] = ()) -> Entries:
    """All files below a folder, level by level, but in Zarr stores only their documents. With the parts of a
    pattern, only those in folders that may match."""
    found: dict[str, Mapping[str, Any]] = {}
    is_web = top.startswith(("http://", "https://"))  # index pages leave out names that begin with a dot
    level, depth = [top], 0
    while level:
        if depth > MAX_DEPTH:
            raise NWBReadError(f"{shown(top)}: folders in folders, more than {MAX_DEPTH} deep: {level[0]}")
        below: list[str] = []
        listings = at_once([partial(_listed, filesystem, one) for one in level])
        answered()
        for folder, listed in zip(level, listings, strict=True):
            names = {name.rpartition("/")[2]: info for name, info in listed.items()}
            if document := document_of(names):
                found[f"{folder}/{document}"] = names[document]
            if ARRAY in names:
                found[f"{folder}/{ARRAY}"] = {}
            if document or ARRAY in names:
                continue
            for name, info in listed.items():
                last = name.rpartition("/")[2]
                if info.get("type") != "directory":
                    found[name] = info
                elif is_web and last.endswith((STORE, FILE)):
                    found[f"{name}/{LAST}"] = {}
                elif _may_match(last, parts, depth):
                    below.append(name)
        level, depth = below, depth + 1
    return found


def _listed(filesystem: Any, folder: str) -> Entries:
    """What is in a folder, by name without a slash at the end; nothing if there is no such folder."""
    try:
        listed = filesystem.ls(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    begin = f"{folder}/" if folder else ""
    entries = {info["name"].rstrip("/"): info for info in listed}
    return {name: info for name, info in entries.items() if name.startswith(begin) and name != folder}


def _may_match(name: str, parts: Sequence[str], depth: int) -> bool:
    """Whether a pattern may match a folder at some depth, or what is below it."""
    if depth >= len(parts) or any("**" in part for part in parts[: depth + 1]):
        return True
    return name == parts[depth] or fnmatchcase(name, parts[depth])


def list_keys(filesystem: Any, start: str, pages: int) -> Entries | None:
    """All S3 keys that begin with `start`, with sizes and versions. None if it isn't S3, or if there are
    more than `pages` pages of 1,000 keys."""
    if not _is_s3(filesystem):
        return None
    return _s3(filesystem, start, pages)


def _is_s3(filesystem: Any) -> bool:
    return "s3" in type(filesystem).protocol and not filesystem.version_aware


def _s3(filesystem: Any, start: str, pages: int | None = None) -> Entries | None:
    """All keys that begin with `start`, 1,000 for each request. A Zarr store may have millions of keys:
    after the page where one begins, the rest of it is skipped. None if there are more than `pages`
    pages."""
    bucket, _, prefix = start.lstrip("/").partition("/")
    found: dict[str, Mapping[str, Any]] = {}
    asked: set[str] = set()

    def page(begin: str, **position: Any) -> Any:
        listed = filesystem.call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=begin, **filesystem.req_kw, **position
        )
        answered()
        for entry in listed.get("Contents", ()):
            found[f"{bucket}/{entry['Key']}"] = {"size": entry["Size"], "ETag": entry["ETag"]}
        return listed

    def store_of(key: str) -> str | None:
        """The outermost store, or array, that a key is in."""
        folders = [folder for folder in _parents(key) if f"{folder}/".startswith(prefix)]
        for folder in folders:
            if folder.endswith(STORE) or any(f"{bucket}/{folder}/{name}" in found for name in _FIRST):
                return folder
        for folder in folders if _CHUNK.search(key) else ():
            name = f"{folder}/{DOCUMENTS[1]}"  # is listed after nearly all else
            if name not in asked and f"{bucket}/{name}" not in found:
                asked.add(name)
                page(name, MaxKeys=1)
            if f"{bucket}/{name}" in found:
                return folder
        return None

    after = ""
    while True:
        listed = page(prefix, **({"StartAfter": after} if after else {}))
        if not listed.get("IsTruncated"):
            return found
        if pages is not None and (pages := pages - 1) <= 0:
            return None
        after = key = listed["Contents"][-1]["Key"]
        store = store_of(key)
        if f"{store}/" == prefix:
            return found
        if store is not None and key > f"{store}/{DOCUMENTS[0]}":
            after = f"{store}/{LAST}"
