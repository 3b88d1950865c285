"""A catalog's folder in any store. Files are replaced as a whole, locally by renaming, so a reader of the
manifest sees the old or the new one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa

from lazynwb_dask.errors import NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.source import Source, is_local, links, local_path, local_url, shown
from lazynwb_dask.sources.expand import absolute
from lazynwb_dask.storage import Request, fetch, open_source, parquet, retried
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.parquet import ParquetFile
from lazynwb_dask.storage.waits import answered
from lazynwb_dask.util.threads import at_once

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

FIRST = 1 << 20  # bytes of the first request, for a file of unknown size


@dataclass(frozen=True)
class Folder:
    url: str  # without a trailing slash
    access: FileAccess

    @staticmethod
    def of(url: str | os.PathLike[str], access: FileAccess) -> Folder:
        """The folder at a user's path or URL. Raises ValueError if the URL is chained or has a query."""
        if not isinstance(url, (str, os.PathLike)):
            raise TypeError(f"{url!r}: the path or URL of a folder is needed, not {type(url).__name__}")
        text = os.fspath(url)
        if not text:
            raise ValueError("the path of the folder is empty: '.' is the current folder")
        if not is_local(text) and (len(links(text)) > 1 or "?" in text.partition("://")[2]):
            raise ValueError(
                f"the URL of a catalog or an export can't be chained or have a query: {shown(text)}"
            )
        if is_local(text):
            text = os.path.abspath(os.path.expanduser(local_path(text))).replace(os.sep, "/")
        return Folder(text.rstrip("/"), access)

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    def parquet(self, name: str, size: int) -> ParquetFile:
        return ParquetFile(self.url_of(name), size)

    def table(self, name: str, size: int, columns: Sequence[str] | None = None) -> pa.Table:
        file = self.parquet(name, size)
        footer = parquet.footer(file, self.access)
        columns = footer.schema.to_arrow_schema().names if columns is None else columns
        groups = range(footer.num_row_groups)
        return parquet.table(file, columns, groups, self.access)

    def read(self, name: str) -> bytes | None:
        """A whole file; None if it doesn't exist."""
        try:
            source, head = open_source(Source(self.url_of(name)), FIRST, self.access)
        except NWBFileNotFoundError:
            return None
        assert source.size is not None
        if source.size <= len(head):
            return head
        rest = bytearray(source.size - len(head))

        def sink(data: memoryview) -> None:
            rest[:] = data

        fetch(source, [Request(len(head), source.size, sink)], self.access)
        return head + bytes(rest)

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file atomically."""
        if is_local(self.url):
            _write_local(self.url_of(name), data)
        else:
            self._put(name, partial(_put, data))

    def create(self, name: str, data: bytes) -> None:
        """Write a file unless it exists. A store without conditional writes may replace an existing
        file."""
        if not is_local(self.url):
            self._put(name, partial(_put_new, data))
            return
        os.makedirs(self.url, exist_ok=True)
        with suppress(FileExistsError), open(self.url_of(name), "xb") as file:
            file.write(data)

    def _put(self, name: str, put: Callable[[AbstractFileSystem, str], None]) -> None:
        def upload(filesystem: AbstractFileSystem, path: str) -> None:
            answered()  # in that an upload takes long there is nothing wrong
            put(filesystem, path)

        try:
            retried(self.url_of(name), self.access, upload)
        except NWBFileNotFoundError:
            raise NWBFileNotFoundError(
                f"{shown(self.url)}: nothing can be written there: there is no such bucket or "
                "container; make it first"
            ) from None

    def names(self, folder: str) -> list[str]:
        """The visible files of a subfolder, with its name, sorted."""
        if is_local(self.url):
            path = self.url_of(folder)
            names = os.listdir(path) if os.path.isdir(path) else []
        else:
            names = retried(self.url_of(folder), self.access, _names)
        return sorted(f"{folder}/{name}" for name in names if not name.startswith("."))

    def remove(self, names: Iterable[str]) -> None:
        """Delete files. Ignores files that don't exist or can't be deleted."""
        at_once([partial(self._remove, name) for name in names])

    def _remove(self, name: str) -> None:
        try:
            if is_local(self.url):
                os.unlink(self.url_of(name))
            else:
                retried(self.url_of(name), self.access, _delete)
        except (OSError, NWBReadError):
            return


def url_problem(url: str) -> str:
    """Why a catalog can't store a URL; empty if it can. A signature expires and is a secret."""
    if (named := shown(url)) == url:
        return ""
    query = urlsplit(url).query
    if query and not (query.startswith("versionId=") and "&" not in query):
        return (
            f"{named}: a catalog can't keep a URL with a query, which may be a signature; give "
            "the plain URL, and credentials in storage_options or in the environment"
        )
    if url.removesuffix(f"?{query}") != named:
        return f"{named}: a catalog can't keep a URL with a password"
    return ""


def absolute_paths(paths: Any) -> list[str]:
    """The user's paths, independent of the working directory."""
    return [one.url if isinstance(one, Source) else local_url(one) for one in absolute(paths)]


def _put(data: bytes, filesystem: AbstractFileSystem, path: str) -> None:
    if filesystem.protocol not in ("s3", ("s3", "s3a")):
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    filesystem.pipe_file(path, data)


def _put_new(data: bytes, filesystem: AbstractFileSystem, path: str) -> None:
    try:
        filesystem.pipe_file(path, data, mode="create")
    except FileExistsError:
        return
    except (FileNotFoundError, PermissionError, TimeoutError):
        raise
    except (OSError, TypeError, NotImplementedError):  # the store has no conditional writes
        _put(data, filesystem, path)


def _delete(filesystem: AbstractFileSystem, path: str) -> None:
    filesystem.rm_file(path)


def _names(filesystem: AbstractFileSystem, path: str) -> list[str]:
    filesystem.invalidate_cache()
    try:
        found: list[Any] = filesystem.ls(path, detail=False)
    except FileNotFoundError:
        return []
    return [str(name).rstrip("/").rpartition("/")[2] for name in found]


def _write_local(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{os.path.dirname(path)}/.{uuid.uuid4().hex}"
    try:
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        if os.path.exists(new):
            os.unlink(new)
        raise
