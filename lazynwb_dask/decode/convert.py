"""Values of one file as the type unified over all files: the same values, or an error.

Each value is converted independently, so the result doesn't depend on which rows are read together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.decode.arrays import Values, arrow, listed
from lazynwb_dask.errors import NWBReadError, SchemaConflictError


def numpy_dtype(kind: pa.DataType) -> np.dtype[Any]:
    """The NumPy dtype of a type of numbers or booleans."""
    found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
    return found


def frame_type(kind: pa.DataType) -> pa.DataType:
    """The same type with 32-bit offsets, as frames have it."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(frame_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(f.name, frame_type(f.type)) for f in kind])
    return kind


def is_number(kind: pa.DataType) -> bool:
    """Whether it is a type of integers, floating point numbers or booleans."""
    found: bool = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return found or bool(pa.types.is_boolean(kind))


def all_null(values: Values) -> bool:
    """Whether all values are null or NaN.

    >>> all_null(np.array([np.nan])), all_null(pa.array([None, "a"]))
    (True, False)
    """
    array = arrow(values)
    if array.null_count == len(array):
        return True
    if not pa.types.is_floating(array.type):
        return False
    numbers: int = pc.is_nan(array).false_count
    return numbers == 0


def exceeds_float(values: Values) -> bool:
    """Whether an integer is beyond those that float64 holds all of.

    >>> exceeds_float(np.array([2**53, 0])), exceeds_float(np.array([0, -(2**53) - 1]))
    (False, True)
    """
    limit = 2**53
    found = arrow(values)
    ends = pc.min_max(found) if len(found) else None
    return ends is not None and not -limit <= (ends["min"].as_py() or 0) <= (ends["max"].as_py() or 0) <= limit


def convert(values: Values, to: pa.DataType) -> Values:
    """Values of one file as the unified type. Null stays null; NaN becomes null in types without it.

    Raises NWBReadError if the type can't represent a value exactly, and SchemaConflictError if there is no
    conversion between the types.
    """
    if isinstance(values, np.ndarray):
        if is_number(to):
            return _numbers(values, to)
        if pa.types.is_list(to):
            return _one_element(values, to)
        values = pa.array(values)
    have = values.type
    if pa.types.is_null(have):
        return pa.nulls(len(values), to)
    if frame_type(have) == to:
        return values if have == to else pc.cast(values, to)
    if pa.types.is_list(to):
        return _lists(values, to) if pa.types.is_list(have) else _one_element(values, to)
    if pa.types.is_struct(to) and pa.types.is_struct(have):
        return _structs(values, to)
    if pa.types.is_nested(to) or pa.types.is_nested(have):
        return _nulls(values, to)
    if is_number(have) and is_number(to):
        return _numbers_or_null(values, to)
    if pa.types.is_string(to) and pa.types.is_boolean(have):
        return pc.if_else(values, "True", "False")
    if pa.types.is_string(to) and pa.types.is_floating(have):
        values = pc.if_else(pc.is_nan(values), None, values)
    return _cast(values, to)


def _numbers(values: np.ndarray, to: pa.DataType) -> Values:
    want = numpy_dtype(to)
    if values.dtype == want:
        return values
    if values.dtype.kind == "f" and want.kind != "f":
        absent = np.isnan(values)
        if absent.any():
            there = _exact(np.where(absent, values.dtype.type(0), values), to)
            return pa.array(there, mask=absent, from_pandas=False)
    return _exact(values, to)


def _exact(values: np.ndarray, to: pa.DataType) -> np.ndarray:
    """Numbers as another type, which has to represent each exactly."""
    want = numpy_dtype(to)
    with np.errstate(invalid="ignore", over="ignore"):
        converted = values.astype(want)
        wide = values.dtype.kind in "iu" and values.dtype.itemsize == 8 and want.kind == "f"
        if wide or not np.can_cast(values.dtype, want, "safe"):
            lost = _lost(values, converted)
            if lost.any():
                example = values[np.argmax(lost)]
                raise NWBReadError(
                    f"the value {example} is not the same as {to}; give schema= a type that holds it"
                )
    return converted


def _lost(values: np.ndarray, converted: np.ndarray) -> np.ndarray:
    """Where a value was changed by its conversion."""
    lost: np.ndarray = converted.astype(values.dtype) != values
    if values.dtype.kind == "f":
        if converted.dtype.kind == "f":
            lost &= ~np.isnan(values)
    elif converted.dtype.kind == "f":
        # to convert 2**63 or 2**64 back is undefined
        lost |= converted >= 2.0 ** (63 if values.dtype.kind == "i" else 64)
    else:
        lost |= (converted < 0) != (values < 0)
    return lost


def _numbers_or_null(values: pa.Array, to: pa.DataType) -> pa.Array:
    if not values.null_count:
        return arrow(_numbers(values.to_numpy(zero_copy_only=False), to))
    absent = values.is_null().to_numpy(zero_copy_only=False)
    # Arrow converts null to NaN, and integers with null to floats
    floating = pa.types.is_floating(values.type)
    whole = values if floating else values.fill_null(pa.scalar(0).cast(values.type))
    found = _numbers(whole.to_numpy(zero_copy_only=False), to)
    if isinstance(found, pa.Array):
        return found
    return pa.array(found, mask=absent, from_pandas=False)


def _lists(values: pa.Array, to: pa.DataType) -> pa.Array:
    inner = convert(values.values, to.value_type)
    mask = pc.is_null(values) if values.null_count else None
    return pa.ListArray.from_arrays(values.offsets, arrow(inner), mask=mask)


def _one_element(values: Values, to: pa.DataType) -> pa.Array:
    if pa.types.is_list(to.value_type):
        return _nulls(arrow(values), to)
    inner = arrow(convert(values, to.value_type))
    made = listed(np.arange(len(inner) + 1, dtype=np.int64), inner)
    if inner.null_count:
        return pa.ListArray.from_arrays(made.offsets, inner, mask=pc.is_null(inner))
    return made


def _structs(values: pa.Array, to: pa.DataType) -> pa.Array:
    lacking = [f.name for f in to if values.type.get_field_index(f.name) < 0]
    if lacking:
        if all_null(values):
            return pa.nulls(len(values), to)
        raise SchemaConflictError(
            f"{values.type} can't become {to}: there is no {', '.join(lacking)}; give schema= a type "
            "that it can become"
        )
    inner = [arrow(convert(values.field(f.name), f.type)) for f in to]
    mask = pc.is_null(values) if values.null_count else None
    return pa.StructArray.from_arrays(inner, names=[f.name for f in to], mask=mask)


def _nulls(values: pa.Array, to: pa.DataType) -> pa.Array:
    """Nulls of another type, if there are no other values."""
    if not all_null(values):
        raise SchemaConflictError(f"{values.type} can't become {to}; give schema= a type that it can become")
    return pa.nulls(len(values), to)


def _cast(values: pa.Array, to: pa.DataType) -> pa.Array:
    try:
        return pc.cast(values, to)
    except pa.ArrowNotImplementedError:
        return _nulls(values, to)
    except pa.ArrowInvalid as exc:
        raise NWBReadError(f"a value is not the same as {to}: {exc}") from None
