"""Lists the files below a prefix of a store, or those that match a glob, in few requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fsspec.utils import glob_translate

from lazynwb_dask.model.other_files import MARKERS, STORE
from lazynwb_dask.model.source import TRANSPARENT, Source, links
from lazynwb_dask.storage.responses import validator_of

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

    Entries = Mapping[str, Mapping[str, Any]]

FILE = ".nwb"

PAGES = 20  # of 1,000 keys: above this, globs in S3 list folders instead of all keys
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


def is_typed(pattern: str) -> bool:
    """Whether a pattern ends in a file extension: ``*.h5`` does, ``*`` does not."""
    return re.search(r"\.\w+$", pattern) is not None


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
    if _magic(link) is not None:
        found = _matching(filesystem, path, is_typed(link.path))
    elif link.scheme == "memory" and not filesystem.isdir(path):
        return [Source(url)]
    else:
        found = _sources(_below(filesystem, path), path)
    rename = _renamer(link, path)
    return sorted(
        (Source(rename(name), info.get("size"), validator_of(info)) for name, info in found.items()),
        key=lambda source: source.url,
    )


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


def _matching(filesystem: Any, pattern: str, typed: bool) -> Entries:
    """The files and stores that match a glob, or are below a folder that does."""
    entries = None
    if _is_s3(filesystem):
        entries = _s3(filesystem, re.split(r"[*?[]", pattern, maxsplit=1)[0], PAGES)
    if entries is None:
        entries = {}
        for found, info in filesystem.glob(_escaped(pattern, filesystem), detail=True).items():
            entries.update(_below(filesystem, found) if info.get("type") == "directory" else {found: info})
    if pattern in entries:
        return {pattern: entries[pattern]}
    matches = _matcher(pattern.rstrip("/"), entries)
    chosen = {
        name: info
        for name, info in _sources(entries, "").items()
        if any(matches(part) for part in (name, *_parents(name)))
    }
    if typed:
        chosen.update((name, info) for name, info in entries.items() if matches(name))
    return {name: info for name, info in chosen.items() if not is_hidden(name)}


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


def _escaped(pattern: str, filesystem: Any) -> str:
    """A glob that finds all that a pattern may mean. The names of folders that exist are no patterns in it."""
    parts = pattern.rstrip("/").split("/")
    for i, part in enumerate(parts):
        if "*" in part:  # what is in the folders that it matches isn't known yet
            more = [re.sub(r"[?[].*[?\]]|[?[]", "*", one) if _may_be_name(one) else one for one in parts[i:]]
            return "/".join([*parts[:i], *more])
        if _may_be_name(part):
            if not filesystem.isdir("/".join([*pattern.split("/")[:i], part])):
                break
            parts[i] = re.sub(r"([?[])", r"[\1]", part)
    return "/".join(parts)


def is_hidden(name: str) -> bool:
    """Whether the name begins with a dot, or the file is inside a Zarr store."""
    return name.rpartition("/")[2].startswith(".") or any(parent.endswith(STORE) for parent in _parents(name))


def _sources(entries: Entries, root: str) -> Entries:
    """Of all files below a root, those named ``*.nwb``, and the outermost Zarr stores."""
    stores: set[str] = set()
    for name in entries:
        folder, _, last = name.rpartition("/")
        stores.update(parent for parent in _parents(name) if parent.endswith(STORE))
        if last in MARKERS:
            stores.add(folder)
    stores = {store for store in stores if len(store) >= len(root.rstrip("/"))}
    found: dict[str, Mapping[str, Any]] = {}
    for name, info in entries.items():
        store = next((parent for parent in _parents(name) if parent in stores), None)
        if store is not None:
            found[store] = {}
        elif name.endswith(FILE) and not is_hidden(name):
            found[name] = info
    return found


def _parents(name: str) -> Iterator[str]:
    """The folders that contain a name, outermost first."""
    return (name[: slash.start()] for slash in re.finditer("/", name) if slash.start())


def _below(filesystem: Any, path: str) -> Entries:
    if _is_s3(filesystem):
        return _s3(filesystem, f"{path.rstrip('/')}/") or {}
    entries: Entries = filesystem.find(path, detail=True)
    return entries


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
    after = ""
    while True:
        position = {"StartAfter": after} if after else {}
        page = filesystem.call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=prefix, **filesystem.req_kw, **position
        )
        for entry in page.get("Contents", ()):
            after = entry["Key"]
            found[f"{bucket}/{after}"] = {"size": entry["Size"], "ETag": entry["ETag"]}
        if not page.get("IsTruncated"):
            return found
        if pages is not None and (pages := pages - 1) <= 0:
            return None
        inside = (p for p in _parents(after) if len(p) > len(prefix) and p.endswith(STORE))
        after = next((f"{store}/{LAST}" for store in inside), after)
