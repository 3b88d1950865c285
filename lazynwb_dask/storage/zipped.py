"""Zarr stores in zip files: an object of a store is a byte range of the file. What zip has compressed is
decompressed whole."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from lazynwb_dask.errors import NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.other_files import DOCUMENTS
from lazynwb_dask.storage.coalesce import Piece, Request

TAIL = 256 * 1024  # bytes of a file's end that are read at first
MAX_INFLATED = 256 << 20  # bytes of an object that zip has compressed
MAX_DIRECTORY = 32 << 20  # bytes of the directory of all members
_HEADER = 30  # bytes before a member's name; after the name come others, whose number is only said there
Read = Callable[[Sequence[tuple[int, int]]], list[bytes]]


class Member(NamedTuple):
    """A file in a zip file."""

    header: int  # position of its header
    name: int  # bytes of its name
    begin: int  # position of its bytes; -1 if only its header tells it
    stored: int  # bytes
    size: int  # decompressed
    method: int


class Members:
    """The objects of the only store in a zip file, by their keys; `name` is the zip file's, for messages.

    Raises NWBReadError if it holds no store, several, or is damaged.
    """

    def __init__(self, name: str, size: int, read: Read) -> None:
        self.name, self._read = name, read
        found = _listed(name, size, read)
        roots = {path.rpartition("/")[0] for path in found if path.rpartition("/")[2] in DOCUMENTS}
        tops = {root for root in roots if not any(_is_above(other, root) for other in roots)}
        if len(tops) != 1:
            what = "no Zarr store" if not tops else f"{len(tops)} Zarr stores"
            raise NWBReadError(f"{name}: a zip file with {what}. Name what is in it as zip://PATH::{name}")
        root = tops.pop()
        begin = len(root) + 1 if root else 0
        within = {path[begin:]: one for path, one in found.items() if path.startswith(root + "/" * bool(root))}
        self._numbers = {key: number for number, key in enumerate(within)}
        self._table = np.array(list(within.values()), np.int64)  # of Members, which would take more memory

    @property
    def keys(self) -> Collection[str]:
        return self._numbers.keys()

    def __getitem__(self, key: str) -> Member:
        return Member(*self._table[self._numbers[key]].tolist())

    def requests(self, wanted: Sequence[Request]) -> list[Request]:
        """Requests of objects as requests of the zip file. Those of objects that there aren't are served."""
        known = {request.key: self[request.key] for request in wanted if request.key in self._numbers}
        known |= self._begins({key: member for key, member in known.items() if member.begin < 0})
        found = []
        for request in wanted:
            if request.key in known:
                found.append(self._request(request, known[request.key]))
            elif not request.key:
                found.append(request)
            elif request.missing is None:
                raise NWBFileNotFoundError(f"{self.name}: {request.key}: no such object.")
            else:
                request.missing()
        return found

    def _begins(self, members: Mapping[str, Member]) -> dict[str, Member]:
        """The same members with the positions of their bytes."""
        headers = self._read([(member.header, member.header + _HEADER) for member in members.values()])
        known = {}
        for (key, member), header in zip(members.items(), headers, strict=True):
            name, more = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            if header[:4] != b"PK\3\4" or name != member.name:
                raise NWBReadError(f"{self.name}: {key}: damaged: its header in the zip file isn't one")
            known[key] = member._replace(begin=member.header + _HEADER + name + more)
        return known

    def _request(self, request: Request, member: Member) -> Request:
        begin, size = member.begin, member.size
        problem = Piece(request.start, request.stop, [request]).problem(size)
        start, stop = request.start, request.stop
        if request.is_open:
            start, stop = max(size + start, 0) if start < 0 else start, min(stop or size, size)
        if not problem and stop > size:
            problem = f"bytes {start}-{stop - 1} are needed, but it has only {size}: damaged"
        if not problem and member.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problem = "it is encrypted, or compressed as only few programs can. Write the zip file anew"
        if not problem and member.method == zipfile.ZIP_DEFLATED and size > MAX_INFLATED:
            problem = (
                f"{size} bytes that zip has compressed; the limit is {MAX_INFLATED}. Write it uncompressed"
            )
        if problem:
            raise NWBReadError(f"{self.name}: {request.key}: {problem}")
        if member.method == zipfile.ZIP_STORED:
            return Request(begin + start, begin + stop, request.sink)
        inflated = partial(self._inflate, request, start, stop)
        return Request(begin, begin + member.stored, inflated)

    def _inflate(self, request: Request, start: int, stop: int, data: memoryview) -> None:
        try:
            whole = zlib.decompressobj(-15).decompress(data, stop) if stop else b""
        except zlib.error:
            whole = b""
        if len(whole) < stop:
            raise NWBReadError(f"{self.name}: {request.key}: damaged: it can't be decompressed")
        request.sink(memoryview(whole)[start:stop])


def _is_above(folder: str, other: str) -> bool:
    return folder != other and (not folder or other.startswith(f"{folder}/"))


def _listed(name: str, size: int, read: Read) -> dict[str, Member]:
    """All members of a zip file, by their paths."""
    start = max(size - TAIL, 0)
    data = read([(start, size)])[0]
    for _ in range(3):
        tail = _Tail(size, start, data)
        try:
            with zipfile.ZipFile(tail) as file:
                return _members(file)
        except Exception as exc:  # of a damaged file, many kinds
            problem = str(exc).rstrip(".") or type(exc).__name__
        if tail.missing is None:
            break
        if size - tail.missing > MAX_DIRECTORY:
            problem = f"a directory of {size - tail.missing} bytes; the limit is {MAX_DIRECTORY}"
            break
        data = read([(tail.missing, start)])[0] + data
        start = tail.missing
    raise NWBReadError(f"{name}: no zip file that can be read: {problem}")


def _members(file: zipfile.ZipFile) -> dict[str, Member]:
    infos = sorted(file.infolist(), key=lambda info: info.header_offset)
    if infos and infos[0].header_offset < 0:
        raise OSError("damaged: its beginning is missing")
    ends = [*(info.header_offset for info in infos[1:]), file.start_dir]
    found = {}
    for info, end in zip(infos, ends, strict=True):
        if max(info.header_offset, info.compress_size, info.file_size) >> 62:
            raise OSError("damaged: its members are too large")
        length = len(info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437"))
        begin = info.header_offset + _HEADER + length
        method = -1 if info.flag_bits & 1 else info.compress_type  # encrypted
        # with nothing between the name and the next member but its bytes, these must begin there
        known = begin if begin + info.compress_size == end else -1
        if not info.is_dir():
            found[info.filename] = Member(
                info.header_offset, length, known, info.compress_size, info.file_size, method
            )
    return found


class _Tail(io.RawIOBase):
    """A file of which only the end is at hand. `missing` is where else it was read."""

    def __init__(self, size: int, start: int, data: bytes) -> None:
        self.size, self.start, self.data, self.at = size, start, data, 0
        self.missing: int | None = None

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        if self.at < 0:
            raise OSError("no position in the file")
        return self.at

    def read(self, count: int | None = -1) -> bytes:
        stop = self.size if count is None or count < 0 else min(self.at + count, self.size)
        if self.at < min(self.start, stop):
            self.missing = self.at
            raise OSError("more of the file is needed")
        found = self.data[self.at - self.start : max(stop - self.start, self.at - self.start)]
        self.at += len(found)
        return found
