"""Decoded bytes to values: gathers, and NumPy or Arrow arrays. No I/O, no loop over rows.

Sizes that a file declares are checked against what its bytes hold before memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.decode.filters import convert_odd
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.elements import ElementType
from lazynwb_dask.util.buffers import blank

Values: TypeAlias = np.ndarray[Any, Any] | pa.Array

POSITIONS = 1 << 20  # computed at a time
TEXTS = 1 << 16  # looked at one by one at a time, where some are not UTF-8


# --------------------------------------------------------------------------------------------- gathers
def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The positions of many runs, one after the other: ``[2, 7], [3, 1] -> [2, 3, 4, 7]``.

    >>> spread(np.array([2, 7]), np.array([3, 1])).tolist()
    [2, 3, 4, 7]
    """
    ends = np.cumsum(counts)
    positions: np.ndarray = np.repeat(starts - (ends - counts), counts)
    positions += np.arange(positions.size, dtype=positions.dtype)
    return positions


def gather(source: np.ndarray, starts: np.ndarray, counts: np.ndarray, out: np.ndarray) -> None:
    """Copy many runs, one after the other. Takes little memory besides, however short the items.

    >>> out = np.empty(3, int)
    >>> gather(np.arange(10) * 10, np.array([2, 7]), np.array([1, 2]), out)
    >>> out.tolist()
    [20, 70, 80]
    """
    ends = np.cumsum(counts)
    first = done = 0
    while done < len(out):
        last = max(int(np.searchsorted(ends, done + POSITIONS, "right")), first + 1)
        stop = int(ends[last - 1])
        if last == first + 1:
            out[done:stop] = source[starts[first] : starts[first] + counts[first]]
        else:
            where = spread(starts[first:last], counts[first:last])
            np.take(source, where, axis=0, out=out[done:stop])
        first, done = last, stop


def picked(values: Values, starts: np.ndarray, counts: np.ndarray, slack: int) -> Values:
    """Many runs of values, one after the other, in any order.

    Raises
    ------
    NWBReadError
        If they take more memory than all values and `slack` bytes: the same values over and over.
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
    """A function that says for numbers of values how many bytes so many of them take, from the first."""
    if isinstance(values, pa.StructArray):
        parts = [_sizes(part) for part in values.flatten()]
        return lambda count: sum((part(count) for part in parts), np.zeros(len(count), np.int64))
    if isinstance(values, (pa.ListArray, pa.LargeBinaryArray, pa.LargeStringArray)):
        wide = not isinstance(values, pa.ListArray)
        offsets = np.frombuffer(values.buffers()[1], np.int64 if wide else np.int32)
        offsets = offsets[values.offset : values.offset + len(values) + 1]
        inner = _sizes(values.values) if not wide else np.asarray
        return lambda count: inner(offsets[count].astype(np.int64)) + count * offsets.itemsize
    width = (
        values.itemsize if isinstance(values, np.ndarray) else max(values.type.bit_width // 8, 1)
    )
    return lambda count: count * width


def merged(starts: np.ndarray, stops: np.ndarray, gap: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The union of intervals as sorted, disjoint ones; those less than `gap` apart are joined.

    >>> merged(np.array([5, 0, 9]), np.array([7, 6, 10]))
    (array([0, 9]), array([ 7, 10]))
    """
    keep = stops > starts
    starts, stops = starts[keep], stops[keep]
    if not starts.size:
        return starts.astype(np.int64), stops.astype(np.int64)
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], stops[order]
    reach = np.maximum.accumulate(stops)
    first = np.flatnonzero(np.concatenate([[True], starts[1:] > reach[:-1] + gap]))
    last = np.concatenate([first[1:] - 1, [starts.size - 1]])
    return starts[first].astype(np.int64), reach[last].astype(np.int64)


def slices(buffer: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> pa.Array:
    """Byte strings out of one buffer, as an Arrow array of large binaries."""
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
        return pa.concat_arrays([_replaced(piece) for piece in pieces])


def _replaced(binary: pa.Array) -> pa.Array:
    try:
        return pc.cast(binary, pa.large_string())
    except pa.ArrowInvalid:
        fixed = [
            None if value is None else value.decode("utf-8", "replace")
            for value in binary.to_pylist()
        ]
        return pa.array(fixed, pa.large_string())


def fixed_text(raw: np.ndarray, size: int, padding: str) -> pa.Array:
    """Strings of fixed size, stripped by their padding type."""
    if size == 0:
        return pa.array([""] * len(raw), pa.large_string())
    table = raw.reshape(-1, size)
    if padding == "term":
        ends = table == 0
        counts = np.where(ends.any(axis=1), ends.argmax(axis=1), size)
    else:
        filled = table != (0x20 if padding == "space" else 0)
        counts = np.where(filled.any(axis=1), size - filled[:, ::-1].argmax(axis=1), 0)
    starts = np.arange(len(table), dtype=np.int64) * size
    return utf8(slices(table.reshape(-1), starts, counts.astype(np.int64)))


def labelled(values: np.ndarray, labels: Sequence[str], codes: Sequence[int] | None) -> pa.Array:
    """Labels for numbers; a number without one is null."""
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


# ---------------------------------------------------------------------------------------------- values
def numbers(raw: np.ndarray, element: ElementType) -> np.ndarray:
    """Plain elements as a NumPy array in native byte order."""
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
    """A list array by offsets."""
    if offsets[-1] > np.iinfo(np.int32).max:
        raise NWBReadError(
            f"{int(offsets[-1])} values of a list column in one partition; the limit is 2**31 - 1: "
            "use a smaller blocksize"
        )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), arrow(values))


def empty(kind: pa.DataType) -> pa.Array:
    """No rows of a type."""
    return pa.array([], kind)
