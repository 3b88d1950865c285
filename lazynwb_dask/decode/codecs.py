"""Single filters undone without libhdf5: deflate, shuffle, Fletcher-32, Zstandard and Blosc.

No size that the data declare is trusted: a codec allocates the size that its output must have, and raises
if the output has another size.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import Filter
from lazynwb_dask.model.limits import DEFLATE_EXPANSION, MAX_EXPANSION
from lazynwb_dask.util.buffers import blank, passing

DEFLATE, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET = 1, 2, 3, 4, 5, 6
LZF, BLOSC, ZSTD = 32000, 32001, 32015
ZARR_CODEC = 1 << 16
"""A codec of Zarr that is none of these: the name is its configuration, in JSON. HDF5 has no such number."""
NATIVE = frozenset({DEFLATE, SHUFFLE, FLETCHER32, ZSTD, BLOSC})
"""The filters that `undo` knows."""

_BLOSC_WIDTH = 255  # the largest element that Blosc takes
_HEAD = 24  # bytes before a Blosc buffer's only block
_PIECE = 56 << 10  # bytes that are unshuffled at a time: Blosc takes twice as much, which malloc has at hand
_FEW = 4096  # bytes that NumPy unshuffles in less time than it takes to call Blosc


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
    if step.id == ZSTD and (size < 0 or (output.exact and size < output.size)):
        return streamed(data, "zstd", output)  # it declares no size, or there are several frames
    output.check(size, "a compressed chunk says that it holds")
    out = passing(size)
    try:
        (zstd if step.id == ZSTD else blosc).decompress(data, out)
    except Exception as exc:
        raise NWBReadError(f"a chunk that can't be decompressed ({step.name}): {exc}") from None
    return out.data


def inflate(data: memoryview, output: OutputSize) -> memoryview:
    """The content of a zlib stream (RFC 1950), which must be complete and have the right checksum."""
    whole = libdeflate()
    possible = 0 < output.size <= DEFLATE_EXPANSION * len(data)
    if whole is not None and output.exact and possible:
        with suppress(Exception):  # then isal is to say what is wrong
            out = whole(data, output.size)
            if len(out) == output.size:
                return out
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


def gunzip(data: memoryview, output: OutputSize) -> memoryview:
    """The content of a gzip stream (RFC 1952): of all its members, which must be complete."""
    whole = libdeflate("gzip")
    # the last four bytes are the size of the last member
    single = len(data) >= 18 and int.from_bytes(data[-4:], "little") == output.size & 0xFFFFFFFF
    if whole is not None and output.exact and 0 < output.size <= DEFLATE_EXPANSION * len(data) and single:
        with suppress(Exception):
            return whole(data, output.size)
    return streamed(data, "gzip", output)


def streamed(data: memoryview, kind: str, output: OutputSize) -> memoryview:
    """The content of compressed streams, whose sizes aren't known, one after the other."""
    most = min(output.size, MAX_EXPANSION * len(data)) + 1
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), kind) as stream:
            content = stream.read(most)
    except OSError as exc:
        raise NWBReadError(f"a compressed chunk is damaged ({kind}): {exc}") from None
    output.check(len(content), "a compressed chunk holds")
    return memoryview(content)


@cache
def libdeflate(kind: str = "zlib") -> Callable[[memoryview, int], memoryview] | None:
    """The zlib or gzip decoder of libdeflate.

    It is the fastest for chunks of any size, but has to know the size, and names no reason when it fails. None
    where the package `deflate` was left out, as where there is no build of it.
    """
    try:
        from deflate import _deflate
    except ImportError:
        return None
    try:
        return _in_place(ctypes.CDLL(_deflate.__file__), kind)
    except (AttributeError, OSError, TypeError):  # where the package keeps libdeflate's functions to itself
        decompress = getattr(_deflate, f"{kind}_decompress")
        return lambda data, size: memoryview(decompress(data, size))


def _in_place(library: Any, kind: str) -> Callable[[memoryview, int], memoryview]:
    """The same by libdeflate's own functions. The package puts each chunk into fresh memory."""
    make, free, undo = (
        getattr(library, f"libdeflate_{name}")
        for name in ("alloc_decompressor", "free_decompressor", f"{kind}_decompress")
    )
    pointer, size_t = ctypes.c_void_p, ctypes.c_size_t
    make.restype, free.argtypes = pointer, (pointer,)
    undo.argtypes = (pointer, pointer, size_t, pointer, size_t, pointer)

    def inflated(data: memoryview, size: int) -> memoryview:
        source, out = np.frombuffer(data, np.uint8), passing(size)
        decompressor = make()
        if not decompressor:
            raise MemoryError
        try:
            # without a place for it, the size must be exact
            failed = undo(decompressor, source.ctypes.data, source.size, out.ctypes.data, size, None)
        finally:
            free(decompressor)
        if failed:
            raise ValueError
        return out.data

    return inflated


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
    elements, step = out.reshape(n, size), max(_PIECE // size, 1)
    if size > _BLOSC_WIDTH or len(out) < _FEW:
        elements[...] = planes[:, first : first + n].T
        return True
    wrapped = blank(_HEAD + min(n, step) * size)
    for at in range(0, n, step):
        some = elements[at : at + step]
        part = planes[:, first + at : first + at + len(some)]
        _unshuffle_by_blosc(part, some, wrapped[: _HEAD + some.size])
    return True


def unshuffle(data: memoryview, size: int) -> memoryview:
    """Byte planes as elements of `size` bytes. Bytes at the end that fill no element stay where they are."""
    n = len(data)
    if size <= 1 or n < 2 * size:
        return data
    out, whole = passing(n), n // size * size
    unshuffle_part(data, size, 0, out[:whole])
    out[whole:] = np.frombuffer(data, np.uint8)[whole:]
    return out.data


def _unshuffle_by_blosc(planes: np.ndarray, out: np.ndarray, wrapped: np.ndarray) -> None:
    """The same with Blosc's vector instructions, which release the interpreter lock.

    Blosc shuffles each of its blocks as HDF5 shuffles a chunk. So the data are wrapped as a Blosc buffer of
    one block that was shuffled and not compressed.
    """
    from numcodecs import blosc

    n, size = out.size, out.shape[1]
    version, shuffled, unsplit, lz4 = 2, 0x01, 0x10, 1 << 5
    # with where the block begins, and its length
    head = struct.pack("<BBBBIIIII", version, 1, shuffled | unsplit | lz4, size, n, n, n + _HEAD, 20, n)
    wrapped[:_HEAD] = np.frombuffer(head, np.uint8)
    wrapped[_HEAD:].reshape(planes.shape)[...] = planes
    blosc.decompress(wrapped, out)


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
