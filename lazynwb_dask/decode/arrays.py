"""Decoded bytes as NumPy or Arrow arrays. No I/O, no loop over rows.

Sizes that a file declares are checked against what its bytes hold before memory is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.decode.hdf5_filters import convert_odd
from lazynwb_dask.decode.runs import gather, spread
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.elements import ElementType
from lazynwb_dask.util.buffers import blank

Values: TypeAlias = np.ndarray[Any, Any] | pa.Array

TEXTS = 1 << 16  # decoded one by one at a time, where some are not UTF-8


def picked(values: Values, starts: np.ndarray, counts: np.ndarray, slack: int) -> Values:
    """Many runs of values, one after the other, in any order.

    Raises NWBReadError if they take more memory than all values and `slack` bytes: values are repeated.
    """
    reach = _sizes(values)
    taken = int((reach(starts + counts) - reach(starts)).sum())
    held = int(reach(np.array([len(values)]))[0])
    if taken > held + slack:
        raise NWBReadError(
            f"its rows together hold {taken} bytes, but only {held} are stored: the index is damaged"
        )
    if isinstance(values, np.ndarray):
        out = blank(int(counts.sum()), values.dtype)
        gather(values, starts, counts, out)
        return out
    return values.take(pa.array(spread(starts, counts)))


def _sizes(values: Values) -> Callable[[np.ndarray], np.ndarray]:
    """A function that gives for each number n the bytes that the first n values take."""
    if isinstance(values, pa.StructArray):
        parts = [_sizes(part) for part in values.flatten()]
        return lambda count: sum((part(count) for part in parts), np.zeros(len(count), np.int64))
    if isinstance(values, (pa.ListArray, pa.LargeBinaryArray, pa.LargeStringArray)):
        wide = not isinstance(values, pa.ListArray)
        offsets = np.frombuffer(values.buffers()[1], np.int64 if wide else np.int32)
        offsets = offsets[values.offset : values.offset + len(values) + 1]
        inner = _sizes(values.values) if not wide else np.asarray
        return lambda count: inner(offsets[count].astype(np.int64)) + count * offsets.itemsize
    width = values.itemsize if isinstance(values, np.ndarray) else max(values.type.bit_width // 8, 1)
    return lambda count: count * width


def slices(buffer: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> pa.Array:
    """Byte strings at positions of one buffer, as an Arrow array of large binaries."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    data = blank(int(offsets[-1]))
    gather(buffer, starts, counts, data)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(counts), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def utf8(binary: pa.Array) -> pa.Array:
    """Byte strings as text; bytes that are not UTF-8 become replacement characters."""
    try:
        return pc.cast(binary, pa.large_string())
    except pa.ArrowInvalid:
        pieces = [binary.slice(at, TEXTS) for at in range(0, len(binary), TEXTS)]
        return pa.concat_arrays([_with_replacements(piece) for piece in pieces])


def _with_replacements(binary: pa.Array) -> pa.Array:
    try:
        return pc.cast(binary, pa.large_string())
    except pa.ArrowInvalid:
        fixed = [None if value is None else value.decode("utf-8", "replace") for value in binary.to_pylist()]
        return pa.array(fixed, pa.large_string())


def fixed_text(raw: np.ndarray, size: int, padding: str) -> pa.Array:
    """Strings of `size` bytes without their padding: null terminated ("term"), "null" or "space" padded; code
    points, null padded ("utf-32-le", "utf-32-be").

    Of "space", what was never written is null: libhdf5 leaves that out where it converts them for h5py.
    """
    if size == 0:
        return pa.array([""] * len(raw), pa.large_string())
    if padding.startswith("utf-32"):
        return _utf32_text(raw.view("<u4" if padding == "utf-32-le" else ">u4"), size // 4)
    table = raw.reshape(-1, size)
    if padding == "term":
        ends = table == 0
        counts = np.where(ends.any(axis=1), ends.argmax(axis=1), size)
    else:
        counts = np.full(len(table), size)
        for pad in (0x20, 0) if padding == "space" else (0,):
            filled = (table != pad) & (np.arange(size) < counts[:, None])
            counts = np.where(filled.any(axis=1), size - filled[:, ::-1].argmax(axis=1), 0)
    starts = np.arange(len(table), dtype=np.int64) * size
    return utf8(slices(table.reshape(-1), starts, counts.astype(np.int64)))


def _utf32_text(points: np.ndarray, size: int) -> pa.Array:
    """Strings of `size` code points; those that there are not become replacement characters."""
    if not points.size or points.max() < 0x80:
        return fixed_text(points.astype(np.uint8), size, "null")
    step = max(TEXTS // size, 1) * size
    return pa.concat_arrays([_encoded(points[at : at + step], size) for at in range(0, len(points), step)])


def _encoded(points: np.ndarray, size: int) -> pa.Array:
    table = points.astype(np.uint32).reshape(-1, size)
    table[(table > 0x10FFFF) | (table >> 11 == 0x1B)] = 0xFFFD  # beyond Unicode, or surrogates
    inside = np.logical_or.accumulate(table[:, ::-1] != 0, axis=1)[:, ::-1]
    flat = table[inside]
    lengths = np.searchsorted([0x80, 0x800, 0x10000], flat, "right") + 1
    ends = np.concatenate([[0], np.cumsum(lengths)])
    starts, later = ends[:-1], lengths - 1
    data = np.empty(int(ends[-1]), np.uint8)
    data[starts] = (flat >> (6 * later).astype(np.uint32)) | np.array([0, 0xC0, 0xE0, 0xF0])[later]
    for i in range(1, 4):
        more = later >= i
        shift = (6 * (later[more] - i)).astype(np.uint32)
        data[starts[more] + i] = 0x80 | (flat[more] >> shift & 0x3F)
    offsets = ends[np.concatenate([[0], np.cumsum(inside.sum(axis=1))])]
    return pa.LargeStringArray.from_buffers(len(table), pa.py_buffer(offsets), pa.py_buffer(data))


def labelled(values: np.ndarray, labels: Sequence[str], codes: Sequence[int] | None) -> pa.Array:
    """The labels of integers; an integer without one is null.

    `codes` are the integers that the labels stand for; None: their positions.
    """
    if not len(labels):
        return pa.nulls(len(values), pa.large_string())
    if codes is None:
        missing = (values < 0) | (values >= len(labels))
        positions = np.where(missing, 0, values).astype(np.int64)
    else:
        known = np.array(codes, values.dtype)
        order = np.argsort(known, kind="stable")
        found = np.searchsorted(known[order], values)
        found = np.minimum(found, len(known) - 1)
        missing = known[order][found] != values
        positions = order[found]
    return pa.array(list(labels), pa.large_string()).take(pa.array(positions, mask=missing))


def numbers(raw: np.ndarray, element: ElementType) -> np.ndarray:
    """Numbers and booleans as a NumPy array in native byte order."""
    kind = element[0]
    if kind == "bool":
        truth: np.ndarray = raw.view(np.uint8) != 0
        return truth
    if kind == "odd":
        return convert_odd(raw, element)
    stored = np.dtype(element[1])
    values: np.ndarray = raw.view(stored).astype(stored.newbyteorder("="), copy=False)
    return values


def arrow(values: Values) -> pa.Array:
    """As an Arrow array, without a copy where that is possible."""
    return values if isinstance(values, pa.Array) else pa.array(values)


def nested(values: Values, item: Sequence[int], rows: int) -> Values:
    """Flat values as lists of lists, one for each row; the values themselves for an empty `item`."""
    for level in range(len(item) - 1, -1, -1):
        count = rows * math.prod(item[:level])
        values = listed(np.arange(count + 1, dtype=np.int64) * item[level], values)
    return values


def listed(offsets: np.ndarray, values: Values) -> pa.Array:
    """A list array with these offsets."""
    if offsets[-1] > np.iinfo(np.int32).max:
        raise NWBReadError(
            f"{int(offsets[-1])} values of a list column in one partition; the limit is 2**31 - 1: "
            "use a smaller blocksize"
        )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), arrow(values))


def empty(kind: pa.DataType) -> pa.Array:
    """No rows of a type."""
    return pa.array([], kind)
