"""A catalog's folder, in any store: whole files are read, put and deleted.

An object store replaces an object as a whole. On disk a file is written under another name and moved into
place. So whoever reads the manifest sees the old one or the new one.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lazynwb_dask.errors import NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.source import Source, is_local, local_path, shown
from lazynwb_dask.storage import Request, Settings, fetch, open_source, retried
from lazynwb_dask.storage.options import Options
from lazynwb_dask.storage.parquet import ParquetFile
from lazynwb_dask.util.threads import at_once

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

FIRST = 1 << 20  # bytes that are asked for at once of a file whose size isn't known
LOCK = "_lock"
PATIENCE = 60.0  # seconds; nobody needs it longer than it takes to read and write one small file


@dataclass(frozen=True)
class Place:
    """A folder.

    Parameters
    ----------
    url : str
        Without a slash at its end.
    options : Options
    settings : Settings
    """

    url: str
    options: Options
    settings: Settings

    @staticmethod
    def of(url: str | os.PathLike[str], options: Options, settings: Settings) -> Place:
        """The folder that a user named."""
        text = os.fspath(url)
        if "::" in text or "?" in text.partition("://")[2]:
            raise ValueError(f"a catalog's URL can't be chained or have a query: {shown(text)}")
        if is_local(text):
            text = os.path.abspath(os.path.expanduser(local_path(text))).replace(os.sep, "/")
        return Place(text.rstrip("/"), options, settings)

    def at(self, name: str) -> str:
        """The URL of one of its files."""
        return f"{self.url}/{name}"

    def parquet(self, name: str, size: int) -> ParquetFile:
        return ParquetFile(self.at(name), size)

    def read(self, name: str) -> bytes | None:
        """A whole file; None if there is none."""
        try:
            source, head = open_source(Source(self.at(name)), FIRST, self.options, self.settings)
        except NWBFileNotFoundError:
            return None
        assert source.size is not None
        if source.size <= len(head):
            return head
        rest = bytearray(source.size - len(head))

        def sink(data: memoryview) -> None:
            rest[:] = data

        fetch(source, [Request(len(head), source.size, sink)], self.options, self.settings)
        return head + bytes(rest)

    def write(self, name: str, data: bytes) -> None:
        """Put a file, in place of one of that name if there is one, all at once."""
        if is_local(self.url):
            _write_local(self.at(name), data)
            return
        try:
            retried(self.at(name), self.options, self.settings, partial(_put, data))
        except NWBFileNotFoundError:
            raise NWBFileNotFoundError(
                f"{shown(self.url)}: a catalog can't be written there: there is no such bucket or "
                "container; make it first"
            ) from None

    def names(self, folder: str) -> list[str]:
        """The files in a folder of it."""
        if is_local(self.url):
            path = self.at(folder)
            names = os.listdir(path) if os.path.isdir(path) else []
        else:
            names = retried(self.at(folder), self.options, self.settings, _names)
        return sorted(f"{folder}/{name}" for name in names if not name.startswith("."))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """On a disk, let no other process in here meanwhile. (Stores of objects know no locks.)"""
        if not is_local(self.url):
            yield
            return
        path = self.at(LOCK)
        os.makedirs(self.url, exist_ok=True)
        while True:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                break
            except FileExistsError:
                with suppress(OSError):
                    if time.time() - os.stat(path).st_mtime > PATIENCE:  # of one that was killed
                        os.unlink(path)
                time.sleep(0.02)
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(path)

    def remove(self, names: Iterable[str]) -> None:
        """Delete files. That one isn't there, or can't be deleted, is no error."""
        at_once([partial(self._remove, name) for name in names])

    def _remove(self, name: str) -> None:
        try:
            if is_local(self.url):
                os.unlink(self.at(name))
            else:
                retried(self.at(name), self.options, self.settings, _delete)
        except (OSError, NWBReadError):
            return


def unkept(url: str) -> str:
    """Why a catalog can't keep a URL; empty if it can. A signature expires, and is a secret."""
    query = "" if is_local(url) else urlsplit(url).query
    if query and not (query.startswith("versionId=") and "&" not in query):
        return (
            f"{shown(url)}: a catalog can't keep a URL with a query, which may be a signature; give "
            "the plain URL, and credentials in storage_options or in the environment"
        )
    if url != shown(url) and not query:
        return f"{shown(url)}: a catalog can't keep a URL with a password"
    return ""


def _put(data: bytes, filesystem: AbstractFileSystem, path: str) -> None:
    if filesystem.protocol not in ("s3", ("s3", "s3a")):
        filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    filesystem.pipe_file(path, data)


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
