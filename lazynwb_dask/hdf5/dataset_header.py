"""Version 1 object headers of datasets, parsed without libhdf5.

What h5py says of a dataset follows from some of its messages (`DatasetHeader.messages`), so that h5py is
called once for each combination of them, not for each dataset. A header with uncommon messages is left to
libhdf5. See the HDF5 File Format Specification, version 3.0, section IV.A.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from lazynwb_dask.hdf5 import object_header
from lazynwb_dask.hdf5.sparse_file import SparseFile

DATASPACE, DATATYPE, FILTERS, ATTRIBUTE = 0x01, 0x03, 0x0B, 0x0C
# NIL, comment, modification time: they don't concern the values
_IGNORED = frozenset({0x00, 0x0D, 0x0E, 0x12})
_DESCRIBING = (DATASPACE, DATATYPE, object_header.OLD_FILL, object_header.FILL, FILTERS)
_NEEDED = frozenset({DATASPACE, DATATYPE, object_header.DATA_LAYOUT})
_PREFIX = struct.Struct("<2xHxxxxI").unpack_from  # of a header: the number of messages, and their bytes
_MESSAGE = struct.Struct("<HHB").unpack_from  # type, bytes of the data, flags
_CONTINUATION = struct.Struct("<QQ").unpack_from  # address, bytes
_SHARED = 0x02  # message flag: the message is elsewhere
_MAX_BYTES = 1 << 20  # of a block
_MAX_BLOCKS = 32  # of a header
_MAX_MESSAGES = 4096  # bytes of the messages that are remembered
# an attribute that is one object reference: its datatype, and its dataspace in both versions
_REFERENCE = b"\x17\0\0\0\x08\0\0\0"
_SCALARS = (b"\x01" + bytes(7), b"\x02" + bytes(3))


class DatasetHeader(NamedTuple):
    """The messages of a dataset's object header."""

    messages: tuple[bytes, ...]  # those that describe the dataset, without the address of its data
    layout: object_header.DataLayout
    attributes: dict[str, bytes]  # messages by name

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions in the dataspace message."""
        version, rank = self.messages[0][:2]
        return struct.unpack_from(f"<{rank}Q", self.messages[0], 8 if version == 1 else 4)

    def reference(self, name: str) -> int | None:
        """The address that an attribute refers to; None if it isn't a scalar object reference."""
        body = self.attributes[name]
        version = body[0]
        if version == 1:
            n = struct.unpack_from("<H", body, 2)[0]
            rest = body[8 + (-(-n // 8) * 8) :]
            kind, space, value = rest[:8], rest[8:16], rest[16:24]
        elif version in (2, 3):
            n, size = struct.unpack_from("<HH", body, 2)
            rest = body[(8 if version == 2 else 9) + n :]
            width = struct.unpack_from("<H", body, 6)[0]
            kind, space, value = rest[:size], rest[size : size + width], rest[size + width :][:8]
        else:
            return None
        if kind != _REFERENCE or space not in _SCALARS or len(value) != 8:
            return None
        return int.from_bytes(value, "little")


def parse_header(sparse: SparseFile, address: int, base: int) -> DatasetHeader | None:
    """The object header at an absolute address; None if libhdf5 has to read it. Raises Miss if absent."""
    try:
        return _header(sparse, address, base)
    except (ValueError, IndexError, struct.error):  # libhdf5 will say what is wrong
        return None


def _header(sparse: SparseFile, address: int, base: int) -> DatasetHeader | None:
    """With stricter checks of messages than libhdf5's."""
    prefix = sparse.peek(address, address + 16)
    if prefix[0] != 1:
        return None
    found: dict[int, bytes] = {}
    attributes: dict[str, bytes] = {}
    layout = None
    expected, size = _PREFIX(prefix)
    blocks, count = [(address + 16, size)], 0
    for start, length in blocks:
        if length > _MAX_BYTES or len(blocks) > _MAX_BLOCKS:
            raise object_header.FormatError("a long header")
        data = sparse.peek(start, start + length) if length else b""
        at, end = 0, len(data)
        while at + 8 <= end:
            kind, n, flags = _MESSAGE(data, at)
            begin = at + 8
            at = begin + n
            if at > end:
                raise object_header.FormatError("a message that leaves its block")
            count += 1
            if kind in _IGNORED:
                continue
            body = data[begin:at]
            if kind == object_header.CONTINUATION:
                offset, length = _CONTINUATION(body)
                blocks.append((offset + base, length))
                continue
            if flags & _SHARED or kind in found:
                return None
            if kind == ATTRIBUTE:
                attributes[_name(body)] = body
                continue
            if kind == object_header.DATA_LAYOUT:
                if body[0] not in (3, 4) or body[1] > 2:
                    return None
                layout = object_header.parse_layout(start + begin, body, base)
            elif kind not in _DESCRIBING:
                return None
            found[kind] = body
    if count != expected:
        raise object_header.FormatError("other messages than the header announces")
    if layout is None or not found.keys() >= _NEEDED:
        return None
    describing = (
        *[found.get(kind, b"") for kind in _DESCRIBING],
        _without_address(found[object_header.DATA_LAYOUT]),
    )
    if sum(map(len, describing)) > _MAX_MESSAGES:
        return None
    return DatasetHeader(describing, layout, attributes)


def _name(body: bytes) -> str:
    version, n = body[0], body[2] | body[3] << 8
    start = 9 if version == 3 else 8 if version in (1, 2) else len(body)
    name = body[start : start + n]
    if len(name) != n or not n or name[-1]:
        raise object_header.FormatError("an attribute without a name")
    return name[:-1].decode()


def _without_address(body: bytes) -> bytes:
    """A data layout message without what differs between datasets that are alike."""
    version, kind = body[0], body[1]
    if kind < 2:  # compact, contiguous
        return body[:2]
    return body[:3] + body[11:] if version == 3 else body[:-8]
