"""Lists of ragged columns as a whole: lengths, elements, ranges of values. No loop over rows.

Each function takes an Arrow array of lists, which may be a slice and have nulls; a null list gives null.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.decode.runs import spread


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def items_of(kind: pa.DataType, shape: tuple[int, ...]) -> pa.DataType:
    """The type of single items of lists of some shape. Raises ValueError for another number of dimensions."""
    item = kind
    for _ in shape:
        item = item.value_type if is_list(item) else None
    if item is None or pa.types.is_nested(item):
        raise ValueError(f"shape={shape}: the column is {kind}")
    return item


def lengths(lists: pa.Array) -> pa.Array:
    """How many elements each list has, int32."""
    return pc.list_value_length(lists).cast(pa.int32())


def element(lists: pa.Array, at: int) -> pa.Array:
    """The element at a position of each list, counted from its end if negative; null where it has none.

    >>> element(pa.array([[1, 2], [], None, [3]]), -1).to_pylist()
    [2, None, None, 3]
    """
    starts, stops = _borders(lists)
    positions = starts + at if at >= 0 else stops + at
    there = (positions >= starts) & (positions < stops)
    return lists.values.take(pa.array(np.where(there, positions, 0), mask=~there))


def sliced(lists: pa.Array, part: slice) -> pa.Array:
    """A slice of each list, as Python cuts lists.

    >>> sliced(pa.array([[1, 2, 3], [], None, [4]]), slice(None, None, -2)).to_pylist()
    [[3, 1], [], None, [4]]
    """
    starts, stops = _borders(lists)
    count, step = stops - starts, 1 if part.step is None else part.step
    low, high = (0, count) if step > 0 else (-1, count - 1)

    def border(at: int | None, default: Any) -> np.ndarray:
        found = default if at is None else np.where(at < 0, at + count, at)
        inside: np.ndarray = np.clip(np.broadcast_to(found, count.shape), low, high)
        return inside

    first = border(part.start, low if step > 0 else high)
    last = border(part.stop, high if step > 0 else low)
    kept = np.maximum(-((first - last) // step) if step > 0 else (first - last + -step - 1) // -step, 0)
    inside = spread(np.zeros_like(kept), kept)
    return _lists(lists, kept, lists.values.take(pa.array(np.repeat(starts + first, kept) + step * inside)))


def field(lists: pa.Array, name: str) -> pa.Array:
    """Of lists of structs, the lists of one field. Raises KeyError if the structs have no such field."""
    kind = lists.type.value_type
    if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
        raise KeyError(name)
    return _lists(lists, _counts(lists), pc.struct_field(lists.flatten(), name))


def between(lists: pa.Array, start: Any, stop: Any) -> pa.Array:
    """The values of each list from `start` up to, but not including, `stop`; of None, without that border.

    >>> between(pa.array([[3.0, 1.0, 2.0], [], None]), 1, 3).to_pylist()
    [[1.0, 2.0], [], None]
    """
    keep, counts = _between(lists, start, stop)
    return _lists(lists, counts, lists.flatten().filter(pa.array(keep)))


def count_between(lists: pa.Array, start: Any, stop: Any) -> pa.Array:
    """How many values `between` leaves of each list, int32."""
    _, counts = _between(lists, start, stop)
    return pa.array(counts.astype(np.int32), mask=_nulls(lists))


def block(lists: pa.Array, shape: tuple[int, ...]) -> np.ndarray:
    """Lists that all have one shape, as an array of the rows' number and that shape.

    Raises ValueError where one is missing or has another.

    >>> block(pa.array([[[1, 2]], [[3, 4]]]), (1, 2)).tolist()
    [[[1, 2]], [[3, 4]]]
    """
    items_of(lists.type, shape)
    flat, rows = lists, len(lists)
    for size in shape:
        if flat.null_count or (_counts(flat) != size).any():
            raise ValueError(f"shape={shape}: there are rows without a value, or of another shape")
        flat = flat.flatten()
    found: np.ndarray = flat.to_numpy(zero_copy_only=False)
    return found.reshape(rows, *shape)


def _borders(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where each list begins and ends in the values; a null one has none."""
    offsets = lists.offsets.to_numpy().astype(np.int64)
    starts, stops = offsets[:-1], offsets[1:]
    return starts, np.where(_nulls(lists), starts, stops)


def _counts(lists: pa.Array) -> np.ndarray:
    starts, stops = _borders(lists)
    counts: np.ndarray = stops - starts
    return counts


def _nulls(lists: pa.Array) -> np.ndarray:
    found: np.ndarray = lists.is_null().to_numpy(zero_copy_only=False)
    return found


def _lists(like: pa.Array, counts: np.ndarray, values: pa.Array) -> pa.Array:
    """Lists of so many values each, null where those of another array are."""
    large = pa.types.is_large_list(like.type)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64 if large else np.int32)
    kind = pa.LargeListArray if large else pa.ListArray
    mask = pa.array(_nulls(like)) if like.null_count else None
    return kind.from_arrays(pa.array(offsets), values, mask=mask)


def _between(lists: pa.Array, start: Any, stop: Any) -> tuple[np.ndarray, np.ndarray]:
    """Which values are in a range, and how many of each list."""
    kind = lists.type.value_type
    if pa.types.is_nested(kind):
        raise TypeError(f"between is for lists of values that have an order, and not for {lists.type}")
    flat = lists.flatten()
    keep = pa.array(np.ones(len(flat), bool))
    for limit, holds in ((start, pc.greater_equal), (stop, pc.less)):
        if limit is not None:
            keep = pc.and_(keep, pc.fill_null(_compared(flat, limit, holds), False))
    if start is None or stop is None:
        keep = pc.and_(keep, flat.is_valid())
        if pa.types.is_floating(kind):
            keep = pc.and_(keep, pc.fill_null(pc.invert(pc.is_nan(flat)), False))
    mask: np.ndarray = keep.to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(mask)])
    return mask, np.diff(ends[np.concatenate([[0], np.cumsum(_counts(lists))])])


def _compared(values: pa.Array, limit: Any, holds: Any) -> pa.Array:
    """`greater_equal` or `less` of values and a limit. Numbers are compared exactly: with the least number of
    the values' type that isn't less than the limit. Arrow would cast one to the type of the other, and refuse
    large integers."""
    kind, limit = values.type, limit.item() if isinstance(limit, np.generic) else limit
    is_float = pa.types.is_floating(kind)
    if not (is_float or pa.types.is_integer(kind)) or not isinstance(limit, (int, float)):
        return holds(values, limit)
    if is_float:
        values = values.cast(pa.float32()) if pa.types.is_float16(kind) else values
        try:
            least = float(limit)
        except OverflowError:
            least = math.inf if limit > 0 else -math.inf
        return holds(values, pa.scalar(math.nextafter(least, math.inf) if least < limit else least))
    info = np.iinfo(kind.to_pandas_dtype())
    if limit != limit or limit > info.max:
        return pa.array(np.full(len(values), limit == limit and holds is pc.less))
    return holds(values, pa.scalar(info.min if limit < info.min else math.ceil(limit), kind))
