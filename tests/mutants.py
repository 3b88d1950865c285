"""Files that mean harm: damaged copies of good NWB files, made at random but the same for the same seed.

Blind mutators change bytes anywhere. Others know where the structures of an HDF5 file lie (`Anatomy`), put
addresses, sizes and counts in them that no writer would, and correct the checksums of newer structures, so that
the damage gets through to what reads them.
"""

from __future__ import annotations

import io
import random
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from files import nwb, ragged, table
from h5py import h5d, h5o

SECRET = "the-secret-that-no-frame-may-show"
U64 = 0xFFFFFFFFFFFFFFFF
_SIGNATURES = re.compile(
    rb"TREE|HEAP|SNOD|GCOL|OHDR|OCHK|BTHD|BTLF|BTIN|FRHP|FHDB|FHIB|FAHD|FADB|EAHD|EAIB|EASB|EADB"
)
# where their fields lie, next to the signature
_CHECKED = (b"BTHD", b"BTLF", b"FRHP", b"FAHD", b"FADB", b"EAHD", b"EAIB", b"FHDB")
DATASPACE, DATATYPE, FILL, LINK, LAYOUT = 0x01, 0x03, 0x05, 0x06, 0x08
FILTERS, ATTRIBUTE, CONTINUATION, SYMBOLS = 0x0B, 0x0C, 0x10, 0x11


# ------------------------------------------------------------------------------------------- checksums
def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash of bytes, which HDF5 uses for the checksums of its newer metadata."""
    mask = 0xFFFFFFFF

    def turn(x: int, k: int) -> int:
        return (x << k | x >> (32 - k)) & mask

    a = b = c = (0xDEADBEEF + len(data)) & mask
    if not data:
        return c
    words = struct.unpack(f"<{-(-len(data) // 12) * 3}I", data.ljust(-(-len(data) // 12) * 12, b"\0"))
    for i in range(0, len(words) - 3, 3):
        a, b, c = (a + words[i]) & mask, (b + words[i + 1]) & mask, (c + words[i + 2]) & mask
        a = (a - c & mask) ^ turn(c, 4)
        c = c + b & mask
        b = (b - a & mask) ^ turn(a, 6)
        a = a + c & mask
        c = (c - b & mask) ^ turn(b, 8)
        b = b + a & mask
        a = (a - c & mask) ^ turn(c, 16)
        c = c + b & mask
        b = (b - a & mask) ^ turn(a, 19)
        a = a + c & mask
        c = (c - b & mask) ^ turn(b, 4)
        b = b + a & mask
    a, b, c = (a + words[-3]) & mask, (b + words[-2]) & mask, (c + words[-1]) & mask
    c = (c ^ b) - turn(b, 14) & mask
    a = (a ^ c) - turn(c, 11) & mask
    b = (b ^ a) - turn(a, 25) & mask
    c = (c ^ b) - turn(b, 16) & mask
    a = (a ^ c) - turn(c, 4) & mask
    b = (b ^ a) - turn(a, 14) & mask
    return (c ^ b) - turn(b, 24) & mask


# --------------------------------------------------------------------------------------------- anatomy
@dataclass
class Anatomy:
    """Where things lie in a good file."""

    data: bytes
    signatures: dict[bytes, list[int]] = field(default_factory=dict)
    messages: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # kind: (start, length)
    headers: list[int] = field(default_factory=list)
    checked: list[tuple[int, int]] = field(default_factory=list)  # (start, length), then 4 bytes
    raw: list[tuple[int, int, str]] = field(default_factory=list)  # (start, length, kind) of data
    chunks: list[tuple[int, int]] = field(default_factory=list)  # (start, length), deflated

    @staticmethod
    def of(data: bytes) -> Anatomy:
        found = Anatomy(data)
        for match in _SIGNATURES.finditer(data):
            found.signatures.setdefault(match.group(), []).append(match.start())
        with h5py.File(io.BytesIO(data), "r") as file:
            base = file.userblock_size
            found._object(file.id, base)
            file.visititems(lambda name, item: found._object(item.id, base, name))
        if data[8] >= 2:
            found.checked.append((0, 44))
        for name in _CHECKED:
            for at in found.signatures.get(name, [])[:12]:
                found._find_checksum(at)
        return found

    def _object(self, item: h5py.h5g.GroupID | h5d.DatasetID, base: int, name: str = "") -> None:
        address = int(h5o.get_info(item).addr) + base
        if address in self.headers or name.startswith("specifications"):  # most of a small file
            return
        self.headers.append(address)
        (self._header_2 if self.data[address : address + 4] == b"OHDR" else self._header_1)(address, base)
        if isinstance(item, h5d.DatasetID):
            self._dataset(item)

    def _header_1(self, address: int, base: int) -> None:
        size = struct.unpack_from("<I", self.data, address + 8)[0]
        blocks = [(address + 16, size)]
        for start, length in blocks:
            at = start
            while at + 8 <= start + length:
                kind, n = struct.unpack_from("<HH", self.data, at)
                self.messages.setdefault(kind, []).append((at + 8, n))
                if kind == CONTINUATION:
                    offset, more = struct.unpack_from("<QQ", self.data, at + 8)
                    blocks.append((offset + base, more))
                at += 8 + n

    def _header_2(self, address: int, base: int) -> None:
        flags, at = self.data[address + 5], address + 6
        at += (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        size = int.from_bytes(self.data[at : at + width], "little")
        head = 6 if flags & 4 else 4
        blocks = [(address, at + width, size)]
        for begin, start, length in blocks:
            self.checked.append((begin, start + length - begin))
            at = start
            while at + head <= start + length:
                kind, n = self.data[at], struct.unpack_from("<H", self.data, at + 1)[0]
                self.messages.setdefault(kind, []).append((at + head, n))
                if kind == CONTINUATION:
                    offset, more = struct.unpack_from("<QQ", self.data, at + head)
                    blocks.append((offset + base, offset + base + 4, more - 8))
                at += head + n

    def _dataset(self, item: h5d.DatasetID) -> None:
        if item.get_create_plist().get_layout() == h5d.VIRTUAL:
            return
        kind = item.get_type().get_class()
        names = {h5py.h5t.STRING: "string", h5py.h5t.REFERENCE: "reference", h5py.h5t.VLEN: "string"}
        name = names.get(kind, "number")
        if item.get_type().get_size() != 16 and name == "string":
            name = "number"
        if item.get_offset() is not None:
            self.raw.append((item.get_offset(), item.get_storage_size(), name))
        elif item.get_create_plist().get_layout() == h5d.CHUNKED:
            for i in range(min(item.get_num_chunks(), 20)):
                info = item.get_chunk_info(i)
                if item.get_create_plist().get_nfilters():
                    self.chunks.append((info.byte_offset, info.size))
                else:
                    self.raw.append((info.byte_offset, info.size, name))

    def _find_checksum(self, at: int) -> None:
        """Structures whose length isn't easily told end where their checksum is right."""
        for length in range(16, min(700, len(self.data) - at - 4)):
            stored = struct.unpack_from("<I", self.data, at + length)[0]
            if stored and stored == lookup3(self.data[at : at + length]):
                self.checked.append((at, length))
                return


# -------------------------------------------------------------------------------------------- mutators
Random = random.Random
Mutator = Callable[[Random, bytearray, Anatomy], None]


class Inapplicable(Exception):
    """The file has no such structure."""


def _pick(rng: Random, items: list | None):  # type: ignore[type-arg, no-untyped-def]
    if not items:
        raise Inapplicable
    return rng.choice(items)


def _value(rng: Random, anatomy: Anatomy, width: int = 8) -> int:
    """A number that somebody forgot to check."""
    size = len(anatomy.data)
    value = rng.choice(
        [
            0, 1, 2, 7, 255, 256, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1,
            2**63, U64, U64 - 1, U64 - 511, size, size - 1, size - 8, size + 1, size // 2, 2 * size,
            rng.randrange(size), rng.randrange(1 << 16), rng.getrandbits(64),
            _pick(rng, anatomy.headers), _pick(rng, anatomy.headers),
            rng.choice(rng.choice(list(anatomy.signatures.values()) or [[0]])),
        ]
    )  # fmt: skip
    return value & (1 << 8 * width) - 1


def _put(data: bytearray, at: int, value: int, width: int) -> None:
    if at >= 0 and at + width <= len(data):
        data[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")


# --- blind
def flip_bits(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16, 100])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_bits_of_metadata(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    for _ in range(rng.choice([1, 1, 2, 4])):
        kind = _pick(rng, list(anatomy.signatures) or None)
        at = rng.choice(anatomy.signatures[kind]) + rng.randrange(4, 200)
        if at < len(data):
            data[at] ^= 1 << rng.randrange(8)


def flip_bits_of_headers(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = _pick(rng, anatomy.headers) + rng.randrange(0, 300)
        if at < len(data):
            data[at] ^= 1 << rng.randrange(8)


def truncate(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    del data[rng.choice([rng.randrange(len(data)), rng.randrange(4096), len(data) - 1]) :]


def truncate_and_say_so(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    """Cut off, with an end-of-file address that agrees, so that libhdf5 doesn't see it at once."""
    cut = rng.randrange(len(data) // 4, len(data))
    del data[cut:]
    _put(data, 40 if data[8] < 2 else 28, cut, 8)


def overwrite(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, n = rng.randrange(len(data)), rng.choice([1, 4, 8, 64, 512, 4096])
    n = min(n, len(data) - at)
    fill = rng.choice([bytes(n), b"\xff" * n, rng.randbytes(n)])
    data[at : at + n] = fill


def copy_elsewhere(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    n = rng.choice([8, 64, 512, 2048])
    if len(data) <= n:
        raise Inapplicable
    a, b = rng.randrange(len(data) - n), rng.randrange(len(data) - n)
    data[b : b + n] = data[a : a + n]


def swap_words(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    a, b = (rng.randrange(len(data) // 8) * 8 for _ in "ab")
    data[a : a + 8], data[b : b + 8] = data[b : b + 8], data[a : a + 8]


def shift(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, n = rng.randrange(len(data)), rng.choice([1, 8, 512])
    if rng.random() < 0.5:
        del data[at : at + n]
    else:
        data[at:at] = bytes(n)


def put_a_number_in_metadata(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    if rng.random() < 0.5:
        at = _pick(rng, anatomy.headers)
    else:
        at = rng.choice(anatomy.signatures[_pick(rng, list(anatomy.signatures) or None)])
    width = rng.choice([1, 2, 4, 8, 8])
    _put(data, at + rng.randrange(0, 256 // width) * width, _value(rng, anatomy, width), width)


# --- messages of object headers
def _message(rng: Random, anatomy: Anatomy, kind: int, least: int = 1) -> tuple[int, int]:
    found = [m for m in anatomy.messages.get(kind, []) if m[1] >= least]
    return _pick(rng, found)  # type: ignore[no-any-return]


def declare_a_shape(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, _ = _message(rng, anatomy, DATASPACE, 12)
    first = at + (8 if data[at] == 1 else 4)
    rank = max(1, data[at + 1])
    old = int.from_bytes(data[first : first + 8], "little")
    new = rng.choice([_value(rng, anatomy), old * 1000, old + 1, max(old - 1, 0), 10**9, 10**12])
    _put(data, first + 8 * rng.randrange(rank), new, 8)
    if data[at + 2] & 1:  # the maximum, so that libhdf5 doesn't object
        _put(data, first + 8 * rank, U64, 8)


def declare_a_rank(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, _ = _message(rng, anatomy, DATASPACE, 4)
    data[at + 1] = rng.choice([0, 1, 2, 3, 32, 33, 255])


def change_a_layout(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, n = _message(rng, anatomy, LAYOUT, 4)
    field = rng.randrange(n)
    width = rng.choice([1, 2, 4, 8])
    _put(data, at + min(field, max(n - width, 0)), _value(rng, anatomy, width), width)


def move_a_dataset(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, n = _message(rng, anatomy, LAYOUT, 10)
    if data[at] == 3:
        offset = 2 if data[at + 1] == 1 else 3
    else:
        offset = n - 8
    _put(data, at + offset, _value(rng, anatomy), 8)


def declare_a_chunk_shape(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    found = [m for m in anatomy.messages.get(LAYOUT, []) if data[m[0] : m[0] + 2] == b"\3\2"]
    at, _ = _pick(rng, found)
    rank = data[at + 2]
    new = rng.choice([0, 1, 2, 3, 1 << 16, 1 << 27, 2**31, 2**32 - 1, rng.randrange(1, 1000)])
    _put(data, at + 11 + 4 * rng.randrange(max(rank, 1)), new, 4)


def change_a_datatype(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, n = _message(rng, anatomy, DATATYPE, 8)
    choice = rng.randrange(4)
    if choice == 0:
        data[at] = data[at] & 0xF0 | rng.randrange(12)  # the class
    elif choice == 1:
        _put(data, at + 4, _value(rng, anatomy, 4), 4)  # the size
    elif choice == 2:
        data[at + rng.randrange(1, 4)] ^= 1 << rng.randrange(8)
    else:
        data[at + rng.randrange(n)] = rng.randrange(256)


def change_the_filters(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, n = _message(rng, anatomy, FILTERS, 8)
    if rng.random() < 0.5:
        first = at + (8 if data[at] == 1 else 2)
        _put(data, first, rng.choice([0, 1, 2, 3, 4, 5, 6, 256, 32000, 32001, 32015, 65535]), 2)
    else:
        _put(data, at + rng.randrange(n), _value(rng, anatomy, 4), rng.choice([1, 2, 4]))


def change_an_attribute(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, n = _message(rng, anatomy, ATTRIBUTE, 8)
    width = rng.choice([1, 2, 4, 8])
    _put(data, at + rng.randrange(n), _value(rng, anatomy, width), width)


def change_a_message(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    kind = _pick(rng, list(anatomy.messages) or None)
    at, n = rng.choice(anatomy.messages[kind])
    if n:
        width = rng.choice([1, 2, 4, 8])
        _put(data, at + rng.randrange(n), _value(rng, anatomy, width), width)


def retype_a_message(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    kind = _pick(rng, list(anatomy.messages) or None)
    at, _ = rng.choice(anatomy.messages[kind])
    new = rng.randrange(0x18)
    if data[9:13] and data[8] < 2:
        _put(data, at - 8, new, 2)
    else:
        _put(data, at - rng.choice([4, 6]), new, 1)


def resize_a_message(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    kind = _pick(rng, list(anatomy.messages) or None)
    at, n = rng.choice(anatomy.messages[kind])
    new = rng.choice([0, 1, n + 8, n * 2, 0xFFFF, max(n - 8, 0)])
    _put(data, at - (6 if data[8] < 2 else rng.choice([3, 5])), new, 2)


def loop_a_continuation(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    if rng.random() < 0.5:
        at, _ = _message(rng, anatomy, CONTINUATION, 16)
    else:  # make one
        kind = _pick(rng, [k for k, ms in anatomy.messages.items() if any(m[1] >= 16 for m in ms)])
        at, _ = rng.choice([m for m in anatomy.messages[kind] if m[1] >= 16])
        if data[8] < 2:
            _put(data, at - 8, CONTINUATION, 2)
        else:
            _put(data, at - 4, CONTINUATION, 1)
    target = rng.choice([at - 8, at, _pick(rng, anatomy.headers), _value(rng, anatomy)])
    _put(data, at, target, 8)
    _put(data, at + 8, rng.choice([64, 512, len(data), 2**32, U64]), 8)


def loop_a_link(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    """A link message that leads to a group above, to itself, or nowhere."""
    at, n = _message(rng, anatomy, LINK, 12)
    _put(data, at + n - 8, rng.choice([*anatomy.headers[:3], _value(rng, anatomy)]), 8)


def loop_a_symbol_table(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, _ = _message(rng, anatomy, SYMBOLS, 16)
    places = anatomy.signatures.get(b"TREE", []) + anatomy.signatures.get(b"HEAP", [])
    _put(data, at + rng.choice([0, 8]), rng.choice([*places, _value(rng, anatomy)]), 8)


# --- groups, heaps and B-trees
def change_a_symbol_node(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at = _pick(rng, anatomy.signatures.get(b"SNOD"))
    choice = rng.randrange(4)
    entry = at + 8 + 40 * rng.randrange(8)
    if choice == 0:
        _put(data, at + 6, rng.choice([0, 1, 8, 9, 100, 0xFFFF]), 2)
    elif choice == 1:
        _put(data, entry + 8, rng.choice([*anatomy.headers, _value(rng, anatomy)]), 8)
    elif choice == 2:
        _put(data, entry, _value(rng, anatomy), 8)
    else:
        _put(data, entry + 16, rng.choice([0, 1, 2, 3, 2**31]), 4)


def change_a_tree(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    places = anatomy.signatures.get(b"TREE")
    at = _pick(rng, places)
    assert places is not None
    choice = rng.randrange(5)
    target = rng.choice([at, rng.choice(places), _value(rng, anatomy)])
    if choice == 0:
        data[at + 5] = rng.choice([0, 1, 2, 3, 255])  # the level
    elif choice == 1:
        _put(data, at + 6, rng.choice([0, 1, 2, 63, 64, 65, 1000, 0xFFFF]), 2)  # the entries
    elif choice == 2:
        _put(data, at + rng.choice([8, 16]), target, 8)  # a sibling
    elif choice == 3:
        _put(data, at + 24 + 8 * rng.randrange(0, 40), target, 8)  # keys and children
    else:
        data[at + 4] ^= 1  # the kind


def change_a_local_heap(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at = _pick(rng, anatomy.signatures.get(b"HEAP"))
    _put(data, at + rng.choice([8, 16, 24]), _value(rng, anatomy), 8)


def change_a_global_heap(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at = _pick(rng, anatomy.signatures.get(b"GCOL"))
    size = struct.unpack_from("<Q", anatomy.data, at + 8)[0]
    choice = rng.randrange(4)
    place = at + 16
    for _ in range(rng.randrange(0, 30)):
        length = struct.unpack_from("<Q", anatomy.data, place + 8)[0]
        following = place + 16 + -(-length // 8) * 8
        if following + 16 > min(at + size, len(anatomy.data)):
            break
        place = following
    if choice == 0:
        _put(data, at + 8, _value(rng, anatomy), 8)
    elif choice == 1:
        _put(data, place, rng.choice([0, 1, 2, 5, 0xFFFF]), 2)
    elif choice == 2:
        _put(data, place + 8, _value(rng, anatomy), 8)
    else:
        _put(data, place + rng.randrange(16), rng.randrange(256), 1)


def change_a_new_structure(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    """Heaps, B-trees and chunk indexes of HDF5 1.8 and later; their checksums are put right."""
    inner = [c for c in anatomy.checked if anatomy.data[c[0] : c[0] + 4] != b"OHDR"]
    at, n = _pick(rng, inner)
    width = rng.choice([1, 2, 4, 8])
    _put(data, at + 4 + rng.randrange(max(n - 4 - width, 1)), _value(rng, anatomy, width), width)


# --- data
def move_a_chunk(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    """The address or size of a chunk in its B-tree."""
    trees = [a for a in anatomy.signatures.get(b"TREE", []) if anatomy.data[a + 4] == 1]
    at = _pick(rng, trees)
    rank = rng.choice([2, 3, 4])
    entry = 8 + 8 * rank + 8
    key = at + 24 + rng.randrange(4) * entry
    choice = rng.randrange(4)
    if choice == 0:
        _put(data, key, _value(rng, anatomy, 4), 4)  # the size
    elif choice == 1:
        _put(data, key + 4, rng.choice([1, 2, 3, 0xFFFFFFFF]), 4)  # the filter mask
    elif choice == 2:
        _put(data, key + 8 + 8 * rng.randrange(rank), _value(rng, anatomy), 8)  # its place
    else:
        _put(data, key + entry - 8, _value(rng, anatomy), 8)  # its address


def change_numbers(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    """The values of a dataset, such as an index that repeats rows."""
    at, n, _ = _pick(rng, [r for r in anatomy.raw if r[1] >= 8])
    width = rng.choice([1, 2, 4, 8])
    count = n // width
    if rng.random() < 0.5:
        values = [_value(rng, anatomy, width) for _ in range(2)]
        for i in range(min(count, 2000)):
            _put(data, at + i * width, values[i % 2], width)
    else:
        for _ in range(rng.choice([1, 2, 8])):
            _put(data, at + rng.randrange(count) * width, _value(rng, anatomy, width), width)


def change_descriptors(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    """Variable-length strings and references that point elsewhere."""
    at, n, kind = _pick(rng, [r for r in anatomy.raw if r[2] != "number" and r[1] >= 16])
    step = 16 if kind == "string" else 8
    place = at + rng.randrange(max(n // step, 1)) * step
    if kind == "reference":
        _put(data, place, _value(rng, anatomy), 8)
        return
    offset, width = rng.choice([(0, 4), (4, 8), (12, 4)])
    collections = anatomy.signatures.get(b"GCOL", [0])
    _put(data, place + offset, rng.choice([_value(rng, anatomy), *collections[:2]]), width)


def blow_up_a_chunk(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    """A deflate stream that holds a thousand times what is declared."""
    at, n = _pick(rng, [c for c in anatomy.chunks if c[1] >= 16])
    bomb = zlib.compress(bytes(min(n * 1000, 1 << 26)), 9)
    data[at : at + n] = bomb[:n].ljust(n, b"\0")


def damage_a_chunk(rng: Random, data: bytearray, anatomy: Anatomy) -> None:
    at, n = _pick(rng, anatomy.chunks)
    for _ in range(rng.choice([1, 4])):
        data[at + rng.randrange(max(n, 1))] ^= 1 << rng.randrange(8)


BLIND: list[Mutator] = [
    flip_bits, flip_bits_of_metadata, flip_bits_of_headers, truncate, truncate_and_say_so, overwrite,
    copy_elsewhere, swap_words, shift, put_a_number_in_metadata,
]  # fmt: skip
AIMED: list[Mutator] = [
    declare_a_shape, declare_a_rank, change_a_layout, move_a_dataset, declare_a_chunk_shape,
    change_a_datatype, change_the_filters, change_an_attribute, change_a_message, retype_a_message,
    resize_a_message, loop_a_continuation, loop_a_link, loop_a_symbol_table, change_a_symbol_node,
    change_a_tree, change_a_local_heap, change_a_global_heap, change_a_new_structure, move_a_chunk,
    change_numbers, change_descriptors, blow_up_a_chunk, damage_a_chunk,
]  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A damaged copy of a file, and how it came about."""

    data: bytes
    how: str


def mutate(anatomy: Anatomy, seed: int) -> Mutant:
    """One mutant of a file: the same for the same seed."""
    rng = random.Random(seed)
    data = bytearray(anatomy.data)
    applied: list[str] = []
    wanted = rng.choice([1, 1, 1, 2, 3])
    for _ in range(100):
        mutator = rng.choice(BLIND if rng.random() < 0.25 else AIMED)
        try:
            mutator(rng, data, anatomy)
        except (Inapplicable, IndexError, ValueError):  # or it was cut off before
            continue
        applied.append(mutator.__name__)
        if len(applied) == wanted or len(data) < 1000:
            break
    if rng.random() < 0.9:  # so that the damage is not found out at once
        for start, length in anatomy.checked:
            block = bytes(data[start : start + length])
            if len(block) == length and block != anatomy.data[start : start + length]:
                _put(data, start + length, lookup3(block), 4)
    return Mutant(bytes(data), " + ".join(applied))


# ------------------------------------------------------------------------------------------ good files
def zoo(path: Path, libver: str, secret: Path) -> Path:
    """A file with a column of each kind of storage, small enough to be damaged often."""
    generator = np.random.default_rng(0)
    n, total = 30, 200
    ends = np.sort(generator.integers(0, total, n))
    ends[-1] = total
    with nwb(path, libver=libver) as file:
        names = [
            "plain", "big", "gz", "sum", "lzf", "scaled", "many", "text", "fixed", "ref", "pixel",
            "colour", "good", "seq", "stage", "region", "wave", "unwritten", "compact", "spikes",
            "deep", "linked", "outside", "virtual", "elsewhere", "texts",
        ]  # fmt: skip
        group = table(file, "/units", n, names)
        group.create_dataset("plain", data=generator.normal(size=n))
        group.create_dataset("big", data=np.arange(n).astype(">i4"))
        numbers = generator.normal(size=n).round(2)
        group.create_dataset("gz", data=numbers, chunks=(8,), compression="gzip", shuffle=True)
        group.create_dataset("sum", data=numbers, chunks=(10,), fletcher32=True)
        group.create_dataset("lzf", data=numbers, chunks=(16,), compression="lzf")
        group.create_dataset("scaled", data=np.arange(n), chunks=(15,), scaleoffset=0)
        group.create_dataset("many", data=np.arange(n * 3).reshape(n, 3), chunks=(1, 1))
        words = [f"cell {i} " * (i % 4) for i in range(n)]
        group.create_dataset("text", data=words, dtype=h5py.string_dtype(), chunks=(12,))
        group.create_dataset("fixed", data=np.array([w.encode()[:12] for w in words]))
        shank = file.create_group("general/extracellular_ephys/shank0")
        group.create_dataset("ref", data=[shank.ref] * n, dtype=h5py.ref_dtype)
        pixel = np.zeros(n, [("x", "u4"), ("y", "u2"), ("weight", "f4"), ("name", "S5")])
        pixel["x"] = np.arange(n)
        group.create_dataset("pixel", data=pixel)
        kind = h5py.enum_dtype({"red": 1, "green": 7}, basetype="i2")
        group.create_dataset("colour", data=np.array([1, 7] * (n // 2), "i2"), dtype=kind)
        group.create_dataset("good", data=np.arange(n) % 2 == 0)
        held = group.create_dataset("seq", (n,), dtype=h5py.vlen_dtype("i2"))
        for i in range(0, n, 7):
            held[i] = np.arange(i)
        stage = group.create_dataset("stage", data=np.arange(n, dtype="u1") % 3)
        labels = group.create_dataset("stage_elements", data=["NREM", "REM", "wake"], dtype=h5py.string_dtype())
        stage.attrs["elements"] = labels.ref
        stage.attrs["neurodata_type"] = "EnumData"
        region = group.create_dataset("region", data=np.arange(n) % 4)
        region.attrs["neurodata_type"] = "DynamicTableRegion"
        group.create_dataset("wave", data=generator.normal(size=(n, 4, 3)).astype("f4"))
        group.create_dataset("unwritten", (n,), "f8", chunks=(10,), fillvalue=2.5)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5d.COMPACT)
        space = h5py.h5s.create_simple((n,))
        h5d.create(group.id, b"compact", h5py.h5t.STD_I32LE, space, plist)
        ragged(group, "spikes", ends.astype("u2"), generator.normal(size=total).round(3),
               chunks=(64,), compression="gzip")  # fmt: skip
        inner = np.sort(generator.integers(0, 90, total)).astype("u1")
        group.create_dataset("deep", data=np.arange(180).reshape(90, 2), chunks=(20, 2))
        first = group.create_dataset("deep_index", data=inner)
        first.attrs["target"] = group["deep"].ref
        second = group.create_dataset("deep_index_index", data=ends)
        second.attrs["target"] = first.ref
        ragged(group, "texts", ends, np.array(["a", "bc", ""] * (total // 3) + ["d"] * 2, object),
               dtype=h5py.string_dtype())  # fmt: skip
        group["linked"] = h5py.SoftLink("/units/plain")
        group["outside"] = h5py.ExternalLink(str(secret), "/units/id")
        layout = h5py.VirtualLayout((n,), "i8")
        layout[:] = h5py.VirtualSource(str(secret), "units/id", (n,))
        group.create_virtual_dataset("virtual", layout)
        length = secret.stat().st_size
        group.create_dataset("elsewhere", (n,), "S10", external=[(str(secret), 0, length)])
        aligned = table(file, "/intervals/trials", 5, ["start_time"])
        aligned.create_dataset("start_time", data=np.arange(5.0))
        aligned.attrs["categories"] = np.array(["inner"], h5py.string_dtype())
        table(file, "/intervals/trials/inner", 5, ["v"]).create_dataset("v", data=np.arange(5))
        for name in ("clocked", "timed"):
            series = file.create_group(f"acquisition/{name}")
            series.attrs["neurodata_type"] = "ElectricalSeries"
            series.create_dataset("data", data=np.arange(60).reshape(20, 3), chunks=(7, 2))
            series["data"].attrs["conversion"] = 0.5
        file["acquisition/timed/timestamps"] = np.arange(20.0)
        file["acquisition/clocked/starting_time"] = 1.0
        file["acquisition/clocked/starting_time"].attrs["rate"] = 10.0
        for name in ("identifier", "session_description", "general/experimenter", "general/subject/age"):
            file[name] = f"some {name}"
    return path


def secret_file(folder: Path) -> Path:
    """An HDF5 file that nobody named, whose every text and name is a secret."""
    path = folder / "nobody-named-me.nwb"
    with nwb(path, userblock_size=512) as file:
        group = table(file, "/units", 40, ["secret"])
        group.create_dataset("secret", data=[SECRET] * 40, dtype=h5py.string_dtype())
    with open(path, "r+b") as raw:
        raw.write((SECRET + " ").encode() * 8)  # in the user block: what raw storage would show
    return path


def good_files(folder: Path, corpus: list[Path], largest: int = 250_000) -> dict[str, bytes]:
    """The files to damage, by name: all kinds of storage, made-up sessions, and real ones."""
    from lazynwb_dask.datasets import make_sessions

    secret = secret_file(folder)
    found = {v: zoo(folder / f"zoo-{v}.nwb", v, secret).read_bytes() for v in ("earliest", "latest")}
    for layout in ("chunked", "gzip"):
        (path,) = make_sessions(
            folder / layout, n=1, units=12, mean_spikes=20, trials=6, channels=4, samples=40,
            waveform_shape=(6, 2), layout=layout,
        )  # fmt: skip
        found[layout] = Path(path).read_bytes()
    for path in corpus:
        if path.stat().st_size <= largest:
            found[path.name] = path.read_bytes()
    return found
