"""Object headers and their data layout message: the addresses of chunk B-trees and of compact data.

See the HDF5 File Format Specification, version 3.0, sections IV.A.1 and IV.A.2.i "The Data Layout Message".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.index import UNDEFINED

OLD_FILL, FILL = 0x0004, 0x0005
DATA_LAYOUT = 0x0008
CONTINUATION = 0x0010
MAX_BLOCKS = 256  # of one object header
MAX_HEADER = 32 << 20  # bytes of one object header


class FormatError(ValueError):
    """A violation of the specification."""


class DataLayout(NamedTuple):
    """What h5py does not say of a data layout message."""

    kind: str  # "compact", "contiguous", "chunked" or "virtual"
    address: int = UNDEFINED  # absolute, of the data or the version 1 B-tree of chunks
    size: int = 0  # bytes of compact or contiguous data
    btree: bool = False  # whether a version 1 B-tree indexes the chunks
    raw_edges: bool = False  # whether partial edge chunks are not filtered


class HeaderBlocks:
    """The blocks of an object header, each once, as (address, data); more may be added while iterating.

    Raises FormatError for blocks that repeat, or are too many or too long, and Miss for an absent one.
    """

    def __init__(self, sparse: SparseFile, start: int, size: int) -> None:
        self._sparse, self._bytes = sparse, 0
        self._seen: set[int] = set()
        self._todo: list[tuple[int, int]] = []
        self.add(start, size)

    def add(self, start: int, size: int) -> None:
        self._bytes += size
        if start in self._seen or size < 0:
            raise FormatError("an object header that goes round in a circle")
        if self._bytes > MAX_HEADER or len(self._seen) == MAX_BLOCKS:
            raise FormatError("an object header of too many blocks or bytes")
        self._seen.add(start)
        self._todo.append((start, size))

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while self._todo:
            start, size = self._todo.pop(0)
            yield start, self._sparse.peek(start, start + size) if size else b""


def is_object(sparse: SparseFile, address: int) -> bool:
    """Whether there seems to be an object header at an absolute address."""
    try:
        prefix = sparse.peek(address, address + 16)
        version, reserved, count, links, size = struct.unpack_from("<BBHII", prefix)
    except (ValueError, struct.error, Miss):
        return False
    return prefix[:4] == b"OHDR" or (version == 1 and not reserved and min(count, links, size) > 0)


def messages(sparse: SparseFile, address: int, base: int) -> Iterator[tuple[int, int, bytes]]:
    """The messages of an object header as (type, absolute byte offset of the data, data)."""
    prefix = sparse.peek(address, address + 16)
    if prefix[:4] == b"OHDR":
        yield from _messages_2(sparse, address, base)
    elif prefix[0] == 1:
        size = struct.unpack_from("<I", prefix, 8)[0]
        yield from _messages_1(sparse, address + 16, size, base)
    else:
        raise FormatError("no object header")


def _messages_1(sparse: SparseFile, at: int, size: int, base: int) -> Iterator[tuple[int, int, bytes]]:
    blocks = HeaderBlocks(sparse, at, size)
    for start, data in blocks:
        at = 0
        while at + 8 <= len(data):
            kind, n = struct.unpack_from("<HH", data, at)
            body = data[at + 8 : at + 8 + n]
            if kind == CONTINUATION:
                offset, more = struct.unpack_from("<QQ", body)
                blocks.add(offset + base, more)
            else:
                yield kind, start + at + 8, body
            at += 8 + n


def _messages_2(sparse: SparseFile, address: int, base: int) -> Iterator[tuple[int, int, bytes]]:
    prefix = sparse.peek(address, address + 64)
    flags, at = prefix[5], 6
    at += 16 if flags & 0x20 else 0
    at += 4 if flags & 0x10 else 0
    width = 1 << (flags & 3)
    size = int.from_bytes(prefix[at : at + width], "little")
    blocks = HeaderBlocks(sparse, address + at + width, size)
    head = 6 if flags & 4 else 4
    for start, data in blocks:
        at = 0
        while at + head <= len(data):
            kind, n = data[at], struct.unpack_from("<H", data, at + 1)[0]
            body = data[at + head : at + head + n]
            if kind == CONTINUATION:
                offset, more = struct.unpack_from("<QQ", body)
                blocks.add(offset + base + 4, more - 8)  # without signature and checksum
            else:
                yield kind, start + at + head, body
            at += head + n


def data_layout(sparse: SparseFile, address: int, base: int) -> DataLayout:
    """The data layout message in the object header at an address."""
    for kind, at, body in messages(sparse, address, base):
        if kind == DATA_LAYOUT:
            return parse_layout(at, body, base)
    raise FormatError("no data layout message")


def stored_fill(sparse: SparseFile, address: int, base: int) -> bytes:
    """The fill value in the object header at an address, as it is stored; empty if there is none."""
    found = {kind: body for kind, _, body in messages(sparse, address, base) if kind in (OLD_FILL, FILL)}
    body = found.get(FILL)
    if body is None:
        return found.get(OLD_FILL, b"")[4:]
    if body[0] == 3:
        return body[6 : 6 + struct.unpack_from("<I", body, 2)[0]] if body[1] & 0x20 else b""
    return body[8 : 8 + struct.unpack_from("<I", body, 4)[0]] if body[3] and len(body) >= 8 else b""


def parse_layout(at: int, body: bytes, base: int) -> DataLayout:
    """A data layout message whose data begin at the absolute byte offset `at`."""

    def absolute(address: int) -> int:
        return UNDEFINED if address == UNDEFINED else address + base

    version = body[0]
    if version in (1, 2):
        rank, kind = body[1], body[2]
        if kind == 0:
            size = struct.unpack_from("<I", body, 8 + 4 * rank)[0]
            return DataLayout("compact", at + 12 + 4 * rank, size)
        address = struct.unpack_from("<Q", body, 8)[0]
        name = "contiguous" if kind == 1 else "chunked"
        return DataLayout(name, absolute(address), btree=kind == 2)
    if version in (3, 4, 5):
        kind = body[1]
        if kind == 0:
            return DataLayout("compact", at + 4, struct.unpack_from("<H", body, 2)[0])
        if kind == 1:
            address, size = struct.unpack_from("<QQ", body, 2)
            return DataLayout("contiguous", absolute(address), size)
        if kind == 2:
            if version == 3:
                address = struct.unpack_from("<Q", body, 3)[0]
                return DataLayout("chunked", absolute(address), btree=True)
            return DataLayout("chunked", raw_edges=bool(body[2] & 1))
        if kind == 3:
            return DataLayout("virtual")
    raise FormatError(f"data layout message of version {version}")
