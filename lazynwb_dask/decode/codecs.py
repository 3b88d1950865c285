"""Single filters undone without libhdf5: deflate, shuffle, Fletcher-32, Zstandard and Blosc.

No size that the data declare is trusted: a codec allocates the size that its output must have, and raises
if the output has another size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import NamedTuple

import numpy as np

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import Filter
from lazynwb_dask.model.limits import DEFLATE_EXPANSION
from lazynwb_dask.util.buffers import blank

DEFLATE, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET = 1, 2, 3, 4, 5, 6
LZF, BLOSC, ZSTD = 32000, 32001, 32015
NATIVE = frozenset({DEFLATE, SHUFFLE, FLETCHER32, ZSTD, BLOSC})
"""The filters that `undo` knows."""

_BLOSC_WIDTH, _BLOSC_BYTES = 255, 1 << 30  # the largest element and buffer that Blosc takes


class OutputSize(NamedTuple):
    """The bytes that a filter's output must have; if not exact, at most so many."""

    size: int
    exact: bool = True

    def check(self, size: int, what: str) -> None:
        """Raise NWBReadError unless an output of `size` bytes is allowed."""
        if not 0 <= size <= self.size or (self.exact and size < self.size):
            raise NWBReadError(f"{what} {size} bytes where {self.size} are declared: damaged")


def undo(step: Filter, data: memoryview, output: OutputSize) -> memoryview:
    """The bytes that one of the `NATIVE` filters was applied to.

    Raises NWBReadError if they are damaged, or have another size.
    """
    if step.id == DEFLATE:
        return inflate(data, output)
    if step.id == SHUFFLE:
        return unshuffle(data, shuffle_width(step))
    if step.id == FLETCHER32:
        return _without_checksum(data)
    from numcodecs import blosc, zstd

    # these codecs leave the end of a buffer that is too large as it was
    size = _zstd_size(data) if step.id == ZSTD else _blosc_size(data)
    output.check(size, "a compressed chunk says that it holds")
    out = bytearray(size)
    try:
        (zstd if step.id == ZSTD else blosc).decompress(data, out)
    except Exception as exc:
        raise NWBReadError(f"a chunk that can't be decompressed ({step.name}): {exc}") from None
    return memoryview(out)


def inflate(data: memoryview, output: OutputSize) -> memoryview:
    """The content of a zlib stream (RFC 1950), which must be complete and have the right checksum."""
    whole = libdeflate()
    possible = 0 < output.size <= DEFLATE_EXPANSION * len(data)
    if whole is not None and output.exact and possible:
        with suppress(Exception):  # then isal is to say what is wrong
            out = whole(data, output.size)
            if len(out) == output.size:
                return memoryview(out)
    from isal import isal_zlib

    stream = isal_zlib.decompressobj()
    try:
        content = stream.decompress(data, output.size + 1)
    except Exception as exc:  # isal's own error has no importable base
        raise NWBReadError(f"a compressed chunk is damaged: {exc}") from None
    if len(content) > output.size:
        raise NWBReadError(
            f"a compressed chunk holds more than the {output.size} bytes that are declared: damaged"
        )
    if not stream.eof:
        raise NWBReadError("a compressed chunk ends too early: damaged")
    output.check(len(content), "a compressed chunk holds")
    return memoryview(content)


@cache
def libdeflate() -> Callable[[memoryview, int], bytearray] | None:
    """The zlib decoder of libdeflate, where the package `deflate` is installed.

    It decodes shuffled data faster than isal, but has to know the size, and names no reason when it fails.
    """
    try:
        from deflate import zlib_decompress
    except ImportError:
        return None
    found: Callable[[memoryview, int], bytearray] = zlib_decompress
    return found


def shuffle_width(step: Filter) -> int:
    """The element size in bytes of a shuffle filter."""
    if len(step.values) != 1 or not step.values[0]:
        raise NWBReadError(f"shuffled in elements of {step.values} bytes: damaged")
    return step.values[0]


def unshuffle_part(data: memoryview, size: int, start: int, out: np.ndarray) -> bool:
    """Fill `out` with the unshuffled bytes from position `start` on.

    Returns False, and leaves `out` as it is, if they don't begin and end with an element of `size` bytes.
    """
    count = len(data) // size
    first, n = start // size, len(out) // size
    if start % size or len(out) % size or first + n > count:
        return False
    planes = np.frombuffer(data, np.uint8, count * size).reshape(size, count)
    elements = out.reshape(n, size)
    for i in range(size):
        elements[:, i] = planes[i, first : first + n]
    return True


def unshuffle(data: memoryview, size: int) -> memoryview:
    """Byte planes as elements of `size` bytes. Bytes at the end that fill no element stay where they are."""
    n = len(data)
    if size <= 1 or n < 2 * size:
        return data
    if size <= _BLOSC_WIDTH and n < _BLOSC_BYTES:
        return _unshuffle_by_blosc(data, size)
    raw = np.frombuffer(data, np.uint8)
    out = np.empty_like(raw)
    whole = n // size * size
    out[:whole].reshape(-1, size)[...] = raw[:whole].reshape(size, -1).T
    out[whole:] = raw[whole:]
    return out.data


def _unshuffle_by_blosc(data: memoryview, size: int) -> memoryview:
    """The same with Blosc's vector instructions, which release the interpreter lock.

    Blosc shuffles each of its blocks as HDF5 shuffles a chunk. So the data are wrapped as a Blosc buffer of
    one block that was shuffled and not compressed.
    """
    from numcodecs import blosc

    n = len(data)
    version, shuffled, unsplit, lz4 = 2, 0x01, 0x10, 1 << 5
    head = struct.pack("<BBBBIII", version, 1, shuffled | unsplit | lz4, size, n, n, n + 24)
    starts = struct.pack("<II", 20, n)  # of the block, and its length
    out = blank(n)
    blosc.decompress(b"".join((head, starts, data)), out)
    return out.data


def _without_checksum(data: memoryview) -> memoryview:
    """The bytes before a Fletcher-32 checksum, which must be right. It takes the last four bytes."""
    from numcodecs.fletcher32 import Fletcher32

    if len(data) < 4:
        raise NWBReadError("a chunk is too short for its checksum: damaged")
    try:
        Fletcher32().decode(np.frombuffer(data, np.uint8))
    except Exception:
        raise NWBReadError("a chunk's Fletcher-32 checksum is wrong: damaged") from None
    return data[:-4]


def _zstd_size(data: memoryview) -> int:
    """The content size that a Zstandard frame declares (RFC 8878, section 3.1.1.1.4); -1 if it doesn't."""
    if len(data) < 14 or bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        return -1
    flags = data[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    size = int.from_bytes(data[at : at + width], "little")
    return -1 if not width else size + 256 if width == 2 else size


def _blosc_size(data: memoryview) -> int:
    """The content size that a Blosc header declares; -1 if there is none."""
    if len(data) < 16 or int.from_bytes(data[12:16], "little") != len(data):
        return -1
    return int.from_bytes(data[4:8], "little")
