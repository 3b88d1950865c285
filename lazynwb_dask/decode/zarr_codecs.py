"""Zarr's codecs that HDF5 has no filter for, undone.

The configuration is the JSON that `zarr.codecs` has checked: only codecs from here, with types of numbers
only. No size that the data declare is trusted, as in `codecs`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lazynwb_dask.decode.codecs import OutputSize, gunzip, streamed
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import Filter
from lazynwb_dask.util.buffers import passing

CHECKSUM = 4  # bytes
TYPES = {
    "delta": ("dtype", "astype"),
    "fixedscaleoffset": ("dtype", "astype"),
    "astype": ("decode_dtype", "encode_dtype"),
}
"""Codecs of numbers: what their configuration calls the type before, and the one that is stored."""

_POLYNOMIAL = 0x82F63B78  # of CRC-32C (RFC 3720), reflected
_LEVEL = 12  # so many times doubled, four bytes are a row of those that are taken at a time


@functools.lru_cache(512)
def configuration(step: Filter) -> Mapping[str, Any]:
    """What a codec is called, ``id``, and its parameters."""
    found: Mapping[str, Any] = json.loads(step.name)
    return found


def encoded_size(step: Filter, output: OutputSize) -> OutputSize:
    """The size after a codec was applied to bytes of a size."""
    config = configuration(step)
    kind, size = config["id"], output.size
    if kind in _CHECKSUMS:
        return OutputSize(size + CHECKSUM, output.exact)
    if kind == "transpose":
        return output
    if kind == "packbits":
        return OutputSize(1 + -(-size // 8), output.exact)
    if kind in TYPES:
        before, stored = (np.dtype(config[name]).itemsize for name in TYPES[kind])
        return OutputSize(size // before * stored, output.exact)
    return OutputSize(size + size // 8 + 1024, False)  # incompressible data grow


def undo(step: Filter, data: memoryview, output: OutputSize) -> memoryview:
    """The bytes that a codec was applied to. Raises NWBReadError if they are damaged, or have another size."""
    config = configuration(step)
    kind = config["id"]
    if kind in _CHECKSUMS:
        return _checked(data, config)
    if kind == "gzip":
        return gunzip(data, output)
    if kind == "bz2":
        return streamed(data, kind, output)
    if kind == "lz4":
        return _lz4(data, output)
    encoded_size(step, output).check(len(data), f"a chunk holds, as its codec {kind} has it,")
    if kind == "transpose":
        return _transposed(data, config)
    from numcodecs import get_codec

    try:
        with np.errstate(all="ignore"):
            found = get_codec(dict(config)).decode(np.frombuffer(data, np.uint8))
    except Exception as exc:
        raise NWBReadError(f"a chunk that can't be decoded ({kind}): {exc}") from None
    output.check(found.nbytes, "a chunk holds")
    return np.ascontiguousarray(found).view(np.uint8).data


def vlen_texts(data: memoryview, count: int) -> np.ndarray:
    """Texts that Zarr's vlen-utf8 or vlen-bytes wrote: their number, then the length and the bytes of
    each. Bytes that are not UTF-8 become replacement characters.
    """
    from numcodecs.vlen import VLenBytes, VLenUTF8

    if len(data) < 4 + 4 * count or int.from_bytes(data[:4], "little") != count:
        raise NWBReadError(f"damaged: not {count} texts, as are declared")
    texts: np.ndarray
    try:
        try:
            texts = VLenUTF8().decode(data)
        except UnicodeDecodeError:
            found = [text.decode("utf-8", "replace") for text in VLenBytes().decode(data)]
            texts = np.array(found, object)
    except ValueError:
        raise NWBReadError("damaged: texts that end after their chunk") from None
    return texts


def _lz4(data: memoryview, output: OutputSize) -> memoryview:
    from numcodecs import lz4

    size = int.from_bytes(data[:4], "little") if len(data) >= 4 else -1
    output.check(size, "a compressed chunk says that it holds")
    out = passing(size)
    try:
        lz4.decompress(data, out)
    except Exception as exc:
        raise NWBReadError(f"a chunk that can't be decompressed (lz4): {exc}") from None
    return out.data


def _transposed(data: memoryview, config: Mapping[str, Any]) -> memoryview:
    """Elements of `size` bytes in the order of the array, out of those with its axes in another `order`."""
    shape, order, size = config["shape"], config["order"], config["size"]
    kind = np.dtype(f"u{size}" if size in (1, 2, 4, 8) else f"V{size}")
    if len(data) != math.prod(shape) * size:
        raise NWBReadError(f"a chunk holds {len(data)} bytes where {shape} elements are declared: damaged")
    stored = np.frombuffer(data, kind).reshape([shape[axis] for axis in order])
    out = passing(len(data))
    out.view(kind).reshape(shape)[...] = stored.transpose(np.argsort(order))
    return out.data


def _checked(data: memoryview, config: Mapping[str, Any]) -> memoryview:
    """The bytes without their checksum, which must be right."""
    kind = config["id"]
    if len(data) < CHECKSUM:
        raise NWBReadError(f"a chunk is too short for its checksum ({kind}): damaged")
    first = config["location"] == "start"
    held, content = (data[:4], data[4:]) if first else (data[-4:], data[:-4])
    if _CHECKSUMS[kind](content) != int.from_bytes(held, "little"):
        raise NWBReadError(f"a chunk's checksum ({kind}) is wrong: damaged")
    return content


def crc32c(data: memoryview) -> int:
    """The CRC-32C of bytes.

    >>> hex(crc32c(memoryview(b"123456789")))
    '0xe3069283'
    """
    # zeros in front change nothing while the register is zero, as it is if it is put into the data instead
    if len(data) < 4:
        register = 0xFFFFFFFF
        for byte in data:
            register = register >> 8 ^ int(_tables(0)[1][((register ^ byte) & 0xFF) << 8])
        return register ^ 0xFFFFFFFF
    lead = -len(data) % (4 << _LEVEL if len(data) > 4 << _LEVEL else 4)
    whole = np.zeros(lead + len(data), np.uint8)
    whole[lead:] = np.frombuffer(data, np.uint8)
    whole[lead : lead + 4] ^= 0xFF
    words, level = whole.view("<u4"), 0
    if len(words) > 1 << _LEVEL:
        rows = words.reshape(-1, 1 << _LEVEL)
        words = functools.reduce(lambda registers, row: _over(registers, _LEVEL) ^ row, rows)
    words = _over(words, 0)
    while len(words) > 1:  # neighbours are joined, until one register is left
        if len(words) % 2:
            words = np.concatenate([np.zeros(1, np.uint32), words])
        words = _over(words[::2], level) ^ words[1::2]
        level += 1
    return int(words[0]) ^ 0xFFFFFFFF


def _over(registers: np.ndarray, level: int) -> np.ndarray:
    """What becomes of registers while four times ``2**level`` bytes of zeros pass."""
    low, high = _tables(level)
    found: np.ndarray = low.take(registers & 0xFFFF)
    found ^= high.take(registers >> 16)
    return found


@functools.cache
def _tables(level: int) -> np.ndarray:
    """The same for each value of the halves of a register; it is the sum (XOR) over those, or over its bits."""
    bits: np.ndarray = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if level:
        bits = _over(_over(bits, level - 1), level - 1)
    else:
        for _ in range(32):
            bits = bits >> 1 ^ np.where(bits & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    tables = np.zeros((2, 1), np.uint32)
    for pair in bits.reshape(2, 16).T:
        tables = np.concatenate([tables, tables ^ pair[:, None]], axis=1)
    return tables


def _isal(name: str) -> Any:
    def checksum(data: memoryview) -> int:
        from isal import isal_zlib

        found: int = getattr(isal_zlib, name)(data)
        return found

    return checksum


_CHECKSUMS = {"crc32c": crc32c, "crc32": _isal("crc32"), "adler32": _isal("adler32")}
