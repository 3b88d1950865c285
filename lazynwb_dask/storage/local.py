"""Reads of local files: straight from the disk, with no filesystem object or event loop between."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial

from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBPermissionError, NWBReadError
from lazynwb_dask.model.other_files import ARRAY, NOT_FETCHED, ZARR_ARRAY
from lazynwb_dask.model.source import Source, local_path, local_url, local_version, object_path
from lazynwb_dask.storage.coalesce import KIB, MIB, Piece, serve
from lazynwb_dask.storage.counters import Tally, counters
from lazynwb_dask.storage.runtime import process
from lazynwb_dask.storage.settings import Settings
from lazynwb_dask.util.buffers import passing
from lazynwb_dask.util.locks import Lock
from lazynwb_dask.util.suggest import did_you_mean

# On a disk there is no round trip to save: skip gaps, and hand out work in small pieces.
GAP, SPLIT = 4 * KIB, 2 * MIB
Count = Callable[[str, Tally], None]
# Reads up to this are not worth a thread.
INLINE = MIB
# A pipe without a writer, or a device, is opened at once, and refused.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NONBLOCK", "O_NOCTTY"))


def fetch(source: Source, pieces: Sequence[Piece], settings: Settings) -> None:
    objects = [piece for piece in pieces if piece.key]
    if objects:
        _run(objects, partial(_serve_object, source, settings), settings)
    if len(objects) < len(pieces):
        with _opened(source, settings.count) as file:
            _run([piece for piece in pieces if not piece.key], file.serve, settings)


def _run(pieces: Sequence[Piece], serve_one: Callable[[Piece], None], settings: Settings) -> None:
    if len(pieces) == 1 or sum(map(len, pieces)) <= INLINE:
        for piece in pieces:
            serve_one(piece)
    else:
        process().decode_all([partial(serve_one, piece) for piece in pieces], settings.is_cancelled)


def _serve_object(source: Source, settings: Settings, piece: Piece) -> None:
    """Read of an object of a store, a file in its folder."""
    known = (source.size, source.etag) if piece.key == source.document else (None, None)
    path = object_path(local_path(source.url), piece.key)
    one = Source(local_url(path), *known)
    if not settings.follow_links:
        if os.path.islink(path):
            _check_inside(local_path(source.url), path)
        _checked_folder(local_path(source.url), os.path.dirname(path))

    def count(name: str, tally: Tally) -> None:
        settings.count(source.url, tally)

    try:
        with _opened(one, count) as file:
            start, stop = piece.start, piece.stop
            if problem := piece.problem(file.size):
                raise NWBReadError(f"{one.url}: {problem}")
            if piece.is_open:
                start, stop = (
                    max(file.size + start, 0) if start < 0 else start,
                    min(stop or file.size, file.size),
                )
                count("", Tally(wanted=stop - start))
            with _translated(one.url):
                data = file.read(start, stop)
    except NWBPermissionError:
        raise
    except NWBReadError:
        there = os.path.lexists(path) and not os.path.isdir(path)
        link = _link_of(path)
        if there or (link and not os.path.exists(link)) or not piece.may_lack:
            raise
        return piece.lack()
    serve(data, piece.start, piece.requests)


def _check_inside(root: str, path: str) -> None:
    """Raise NWBReadError if a path in a store leads out of it, but to where git-annex has its content."""
    found = os.path.realpath(path)
    home = os.path.join(os.path.realpath(root), "")
    if not (os.path.join(found, "").startswith(home) or "annex/objects" in found.replace(os.sep, "/")):
        raise NWBReadError(
            f"{local_url(path)}: a symbolic link out of the store, to {local_url(found)}, which isn't "
            "followed. If you trust it: dask.config.set({'lazynwb-dask.follow-links': True})"
        )


_checked_folder = lru_cache(4096)(_check_inside)


def open_ends(source: Source, first: int, last: int) -> tuple[Source, bytes, bytes]:
    """The file's size and version, its first bytes, and its last ones."""
    with _opened(source, counters.add) as file, _translated(source.url):
        data = file.read(0, min(first, file.size))
        end = file.read(max(file.size - last, len(data)), file.size) if last and file.size > len(data) else b""
        counters.add(source.url, Tally(wanted=len(data) + len(end)))
        return replace(source, size=file.size, etag=file.version), bytes(data), bytes(end)


class _File:
    """An open file that notices when it is changed under its reader."""

    def __init__(self, source: Source, descriptor: int, count: Count) -> None:
        self.name, self._count = source.url, count
        self.descriptor = descriptor
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise _about_folder(self.name)
        if not stat.S_ISREG(status.st_mode):
            raise NWBReadError(f"{self.name}: not a file, but a pipe or a device.")
        self.size = status.st_size
        self.version = local_version(status)
        if source.size not in (None, self.size) or source.etag not in (None, self.version):
            raise self._changed()

    def read(self, start: int, stop: int) -> memoryview:
        data, at, more = passing(stop - start).data, 0, 1
        while more and at < len(data):
            more = _pread(self.descriptor, [data[at:]], start + at)
            at += more
        self._count(self.name, Tally(requests=1, bytes=at))
        status = os.fstat(self.descriptor)
        if (status.st_size, local_version(status)) != (self.size, self.version):
            raise self._changed()
        if at != len(data):
            raise NWBReadError(
                f"{self.name}: bytes {start}-{stop - 1} can't be read: the file ends at byte "
                f"{self.size}. It is truncated or damaged."
            )
        return data.toreadonly()

    def serve(self, piece: Piece) -> None:
        with _translated(self.name):
            data = self.read(piece.start, piece.stop)
        serve(data, piece.start, piece.requests)

    def _changed(self) -> NWBFileChangedError:
        return NWBFileChangedError(
            f"{self.name}: the file changed between planning and reading. Plan again: call "
            "read_nwb again, or refresh the catalog."
        )


@contextmanager
def _opened(source: Source, count: Count) -> Iterator[_File]:
    with _translated(source.url):
        descriptor = os.open(local_path(source.url), _FLAGS)
    try:
        yield _File(source, descriptor, count)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except NWBReadError:
        raise
    except FileNotFoundError:
        raise _absent(name) from None
    except PermissionError:
        what = "access refused"
        if os.path.isdir(local_path(name)):
            what = "this folder can't be listed: access refused"
        raise NWBPermissionError(f"{name}: {what}. Check the permissions.") from None
    except OSError as error:
        what = "not a file, but a socket" if error.errno == errno.ENXIO else f"can't be read: {error.strerror}"
        raise NWBReadError(f"{name}: {what}.") from None


def _about_folder(name: str) -> NWBReadError:
    try:
        entries = os.listdir(local_path(name))
    except OSError as error:
        return NWBPermissionError(f"{name}: this folder can't be listed: {error.strerror}.")
    if ARRAY in entries:
        return NWBReadError(f"{name}: {ZARR_ARRAY}")
    if not os.access(local_path(name), os.X_OK):
        return NWBPermissionError(f"{name}: the folder can't be opened. Check its permissions.")
    return NWBFileNotFoundError(f"{name}: a folder, and no Zarr store.")


def _nearby(path: str) -> str:
    """Where a path ends to be right: the folder that is there, and names in it near to the one that isn't."""
    part, folder = "", path
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        part, folder = os.path.basename(folder) or part, os.path.dirname(folder)
    try:
        near = did_you_mean(part, os.listdir(folder))
    except OSError:
        near = "."
    return f". Its path is right up to {folder}{near}"


def _absent(name: str) -> NWBReadError:
    """The error for a path at which there is no file."""
    link = _link_of(local_path(name))
    if link is None:
        return NWBFileNotFoundError(f"{name}: no such file{_nearby(local_path(name))}")
    target = local_url(os.readlink(link))
    if "annex/objects" in target.replace(os.sep, "/"):
        return NWBReadError(f"{name}: {NOT_FETCHED}")
    return NWBFileNotFoundError(
        f"{name}: no such file: {local_url(link)} is a link to {target}, where it isn't."
    )


def _link_of(path: str) -> str | None:
    """The link that a path is, or else goes by way of last."""
    while not os.path.islink(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path if os.path.islink(path) else None


_seek = Lock()


def _seek_and_read(descriptor: int, into: Sequence[memoryview], start: int) -> int:
    """What `os.preadv` does, where there is none (Windows)."""
    with _seek:
        os.lseek(descriptor, start, os.SEEK_SET)
        data = os.read(descriptor, len(into[0]))
    into[0][: len(data)] = data
    return len(data)


_pread = getattr(os, "preadv", _seek_and_read)
