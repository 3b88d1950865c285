"""A cache of table indexes on disk: one small file for each table of each version of an NWB file, named by
a hash. Processes may read and write at once: entries are written under a temporary name, moved into place,
and checked when read. Files are not cached if their store gives no reliable version."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import platformdirs
from dask.utils import parse_bytes

from lazynwb_dask import config
from lazynwb_dask._version import __version__
from lazynwb_dask.model.index import FileIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.plan.index_cache_entry import FORMAT, Entry, dump, load
from lazynwb_dask.storage.archives import SCHEME, UUID, is_id
from lazynwb_dask.storage.settings import Run
from lazynwb_dask.util.locks import Lock

ALL_TABLES = "*"  # in place of a table's path: the list of all paths
TIMES = "times "  # the same, before the name of a dataset of timestamps: whether they rise
TOUCH = 3600.0  # seconds after which the time of last use is written again
KEEP = 0.8  # of the limit, by pruning
LOOK = 1 / 64  # of the limit: what a process writes, on average, before it prunes

# DANDI keeps each content once, under a name of its own, wherever it is linked from
_BLOB = re.compile(
    r"(?:s3a?://dandiarchive|https://dandiarchive\.s3(?:[.-]us-east-2)?\.amazonaws\.com"
    rf"|https://s3(?:[.-]us-east-2)?\.amazonaws\.com/dandiarchive)/blobs/[0-9a-f]{{3}}/[0-9a-f]{{3}}/({UUID})"
)
_TIME = re.compile(r"\d+\.\d{6}")
_OWN_FOLDER = re.compile("[0-9a-f]{2}")
_OWN_FILE = re.compile(r"[0-9a-f]{40}\.index|\.new-\w+")


def identity(url: str, etag: str | None = None) -> str:
    """The URL without its query, which may hold a signature; for a blob of DANDI the archive and the blob's ID.

    >>> identity("https://host/a.nwb?X-Amz-Signature=123")
    'https://host/a.nwb'
    >>> blob = "01a2b3c4-0000-4000-8000-0123456789ab"
    >>> identity("dandi://dandi/000409@draft/a.nwb", blob) == identity(
    ...     f"https://dandiarchive.s3.amazonaws.com/blobs/01a/2b3/{blob}?versionId=1")
    True
    """
    if url.startswith(SCHEME) and is_id(etag):
        return f"blob:{url.split('/')[2]}/{etag}"
    name = shown(url)
    blob = _BLOB.fullmatch(name)
    return f"blob:dandi/{blob[1]}" if blob else name


def _version(source: Source) -> str:
    """What distinguishes versions; a blob has only one."""
    name = identity(source.url, source.etag)
    return name if name.startswith("blob:") else (source.etag or "").strip('"')


def is_identified(source: Source) -> bool:
    """Whether size and version are known, and the version is more than a time of low resolution."""
    etag = source.etag
    if source.size is None or not etag:
        return False
    return not (etag.endswith(" GMT") or etag.startswith("W/") or _TIME.fullmatch(etag))


@dataclass(frozen=True)
class IndexCache:
    """A folder of entries, which holds about `limit` bytes at most."""

    folder: Path
    limit: int

    def _path(self, source: Source, what: str, details: bool) -> Path:
        name = identity(source.url, source.etag)
        about = "\0".join([__version__, str(FORMAT), name, what, str(int(details))])
        name = hashlib.blake2b(about.encode(), digest_size=20).hexdigest()
        return self.folder / name[:2] / f"{name}.index"

    def has(self, source: Source, what: str, details: bool) -> bool:
        """Whether there is an entry, valid or not."""
        return self._path(source, what, details).exists()

    def get(self, source: Source, what: str, details: bool = False) -> Entry | None:
        """The entry for this version of a file. `what` is the path of a table, or `ALL_TABLES`. With
        `details`, only an entry with descriptions and units counts."""
        if not is_identified(source):
            return None
        path = self._path(source, what, details)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        entry = load(data)
        if entry is None or entry.name != identity(source.url, source.etag):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        if (entry.size, entry.etag) != (source.size, _version(source)):
            return None
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > TOUCH:
                os.utime(path)
        return entry

    def put(
        self,
        source: Source,
        what: str,
        found: FileIndex | None = None,
        paths: list[str] | None = None,
        details: bool = False,
    ) -> None:
        """Write an entry. A failure to write is ignored."""
        table = None if found is None else found.table
        listed = None if paths is None else tuple(paths)
        self._put(source, self._path(source, what, details), table=table, paths=listed)

    def runs(self, source: Source, name: str) -> list[Run]:
        """In which rows timestamps are known to rise. See `read.time_order`."""
        entry = self.get(source, f"{TIMES}{name}")
        return [] if entry is None else list(entry.runs)

    def put_runs(self, source: Source, name: str, runs: list[Run]) -> None:
        self._put(source, self._path(source, f"{TIMES}{name}", False), runs=tuple(runs))

    def _put(self, source: Source, path: Path, **held: Any) -> None:
        if not is_identified(source):
            return
        assert source.size is not None
        data = dump(Entry(identity(source.url, source.etag), source.size, _version(source), **held))
        if len(data) > self.limit * LOOK:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data)
            if random.random() < len(data) / (self.limit * LOOK):
                self.prune()

    def usage(self) -> tuple[int, int]:
        """How many files there are, and their bytes."""
        sizes = [size for _, _, size in _held(self.folder)]
        return len(sizes), sum(sizes)

    def empty(self) -> int:
        """Delete all entries; returns how many these were."""
        count = 0
        for path, _, _ in _held(self.folder):
            with contextlib.suppress(OSError):
                os.unlink(path)
                count += 1
        return count

    def prune(self) -> None:
        """Delete the least recently used entries if the folder is over its limit."""
        if not _pruning.acquire(blocking=False):
            return
        try:
            held = sorted(_held(self.folder), key=lambda one: one[1])
            total = sum(size for _, _, size in held)
            if total <= self.limit:
                return
            for path, _, size in held:
                if total <= KEEP * self.limit:
                    break
                with contextlib.suppress(OSError):
                    os.unlink(path)
                total -= size
        finally:
            _pruning.release()


_pruning = Lock()


def _write(path: Path, data: bytes) -> None:
    with NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
        try:
            file.write(data)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            file.close()
            with contextlib.suppress(OSError):
                os.unlink(file.name)
            raise


def _held(folder: Path) -> Iterator[tuple[str, float, int]]:
    """Path, time of last use and size of each entry and of each temporary file of an interrupted
    process. Whatever else is in the folder is not the cache's."""
    with contextlib.suppress(OSError), os.scandir(folder) as folders:
        for inner in folders:
            if not _OWN_FOLDER.fullmatch(inner.name):
                continue
            with contextlib.suppress(OSError), os.scandir(inner.path) as files:
                for file in files:
                    if not _OWN_FILE.fullmatch(file.name):
                        continue
                    with contextlib.suppress(OSError):
                        status = file.stat()
                        yield file.path, status.st_mtime, status.st_size


def index_cache() -> IndexCache | None:
    """The cache that the configuration names, or None if it is switched off."""
    if not config.get("cache"):
        return None
    folder = config.get("cache-directory") or _default()
    return IndexCache(Path(folder).expanduser(), parse_bytes(config.get("cache-size")))


@lru_cache(maxsize=1)
def _default() -> str:
    return platformdirs.user_cache_dir("lazynwb-dask", appauthor=False)
