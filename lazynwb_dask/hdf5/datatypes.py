"""HDF5 datatypes as element types of the index."""

from __future__ import annotations

import math
import struct

import numpy as np
from h5py import h5t

from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.elements import ElementType, element_bytes

MAX_FIELDS = 4096  # of a compound
MAX_LABELS = 1 << 16  # of an enumeration
MAX_NESTING = 8  # datatypes within datatypes

_POINTER = struct.calcsize("P")
_PADDINGS = {h5t.STR_NULLTERM: "term", h5t.STR_NULLPAD: "null", h5t.STR_SPACEPAD: "space"}
_IEEE = {2: (10, 5), 4: (23, 8), 8: (52, 11)}  # bytes: bits of mantissa and exponent


def element_of(kind: h5t.TypeID, depth: int = 0) -> ElementType:
    """The element type of a datatype. Raises UnsupportedColumnError for values that a table can't show."""
    if depth > MAX_NESTING:
        raise UnsupportedColumnError("datatypes nested too deeply")
    found = _element_of(kind, depth)
    size = kind.get_size() + _extra_bytes(found)
    # (the stored size of heap IDs and references depends on the size of offsets, see `Locator`)
    if found[0] not in ("string", "sequence", "reference") and element_bytes(found) != size:
        raise UnsupportedColumnError(
            f"damaged: a datatype of {size} bytes whose parts take {element_bytes(found)}"
        )
    return found


def _extra_bytes(element: ElementType) -> int:
    """How many bytes larger an element is in the file than in libhdf5's datatype, which is in memory."""
    if element[0] == "string":
        return element_bytes(element) - _POINTER
    if element[0] == "array":
        return math.prod(element[1]) * _extra_bytes(element[2])
    if element[0] == "compound":
        return sum(_extra_bytes(inner) for _, _, inner in element[2])
    return 0


def _element_of(kind: h5t.TypeID, depth: int) -> ElementType:
    size = kind.get_size()
    if isinstance(kind, h5t.TypeEnumID):
        return _enumeration(kind)
    if isinstance(kind, h5t.TypeIntegerID):
        return _integer(kind)
    if isinstance(kind, h5t.TypeFloatID):
        return _float(kind)
    if isinstance(kind, h5t.TypeStringID):
        if kind.is_variable_str():
            return ("string",)
        return ("text", size, _PADDINGS[kind.get_strpad()])
    if isinstance(kind, h5t.TypeVlenID):
        inner = element_of(kind.get_super(), depth + 1)
        if inner[0] not in ("number", "bool", "text", "complex", "string"):
            raise UnsupportedColumnError("variable-length sequences of something else than values")
        return ("sequence", inner)
    if isinstance(kind, h5t.TypeArrayID):
        shape = tuple(int(n) for n in kind.get_array_dims())
        return ("array", shape, element_of(kind.get_super(), depth + 1))
    if isinstance(kind, h5t.TypeReferenceID):
        if kind.equal(h5t.STD_REF_OBJ):
            return ("reference",)
        raise UnsupportedColumnError("region references")
    if isinstance(kind, h5t.TypeCompoundID):
        return _compound(kind, depth)
    if type(kind).__name__ == "TypeComplexID":
        part = element_of(kind.get_super() if hasattr(kind, "get_super") else kind, depth + 1)
        return ("complex", part[1])
    if isinstance(kind, h5t.TypeBitfieldID):
        order = ">" if kind.get_order() == h5t.ORDER_BE else "<"
        if size in (1, 2, 4, 8):
            return ("number", np.dtype(f"{order}u{size}").str)
    if isinstance(kind, h5t.TypeOpaqueID):
        raise UnsupportedColumnError("opaque bytes")
    raise UnsupportedColumnError(f"a datatype of class {type(kind).__name__}")


def _integer(kind: h5t.TypeIntegerID) -> ElementType:
    size = kind.get_size()
    sign = "i" if kind.get_sign() == h5t.SGN_2 else "u"
    if size in (1, 2, 4, 8):
        order = ">" if kind.get_order() == h5t.ORDER_BE else "<"
        if kind.get_precision() == 8 * size and kind.get_offset() == 0:
            return ("number", np.dtype(f"{order}{sign}{size}").str)
    if size > 8:
        raise UnsupportedColumnError(f"integers of {size} bytes")
    whole = next(n for n in (1, 2, 4, 8) if n >= size)
    return ("odd", kind.encode().hex(), f"<{sign}{whole}", size)


def _float(kind: h5t.TypeFloatID) -> ElementType:
    size = kind.get_size()
    sign, exponent_at, exponent, mantissa_at, mantissa = kind.get_fields()
    is_ieee = (mantissa, exponent) == _IEEE.get(size)
    if is_ieee and (sign, exponent_at, mantissa_at) == (8 * size - 1, mantissa, 0):
        order = kind.get_order()
        if order in (h5t.ORDER_LE, h5t.ORDER_BE):
            return ("number", np.dtype(f"{'>' if order == h5t.ORDER_BE else '<'}f{size}").str)
    if mantissa > 52 or exponent > 11:
        raise UnsupportedColumnError(f"floating-point numbers of {size} bytes, wider than float64")
    wide = "<f4" if mantissa <= 23 and exponent <= 8 else "<f8"
    return ("odd", kind.encode().hex(), wide, size)


def _enumeration(kind: h5t.TypeEnumID) -> ElementType:
    count = kind.get_nmembers()
    if count > MAX_LABELS:
        raise UnsupportedColumnError(f"an enumeration of {count} labels")
    base = _integer(kind.get_super())
    if base[0] != "number":
        raise UnsupportedColumnError("an enumeration over integers of odd precision")
    labels = tuple(kind.get_member_name(i).decode("utf-8", "replace") for i in range(count))
    values = tuple(int(kind.get_member_value(i)) for i in range(count))
    if dict(zip(labels, values, strict=True)) == {"FALSE": 0, "TRUE": 1} and kind.get_size() == 1:
        return ("bool",)
    return ("enum", base[1], labels, values)


def _compound(kind: h5t.TypeCompoundID, depth: int) -> ElementType:
    count = kind.get_nmembers()
    if count > MAX_FIELDS:
        raise UnsupportedColumnError(f"a compound of {count} fields")
    found = [element_of(kind.get_member_type(i), depth + 1) for i in range(count)]
    starts = [int(kind.get_member_offset(i)) for i in range(count)]
    extra = 0
    for i in sorted(range(count), key=starts.__getitem__):
        starts[i] += extra
        extra += _extra_bytes(found[i])
    size = kind.get_size() + extra
    names = [kind.get_member_name(i).decode("utf-8", "backslashreplace") for i in range(count)]
    fields = tuple(zip(names, starts, found, strict=True))
    for name, offset, inner in fields:
        if offset + element_bytes(inner) > size:
            raise UnsupportedColumnError(f"the field {name!r} reaches beyond its compound")
    if [f[0] for f in fields] == ["r", "i"] and fields[0][2] == fields[1][2]:
        inner = fields[0][2]
        width = element_bytes(inner)
        packed = (fields[0][1], fields[1][1], size) == (0, width, 2 * width)
        if inner[0] == "number" and inner[1][1] == "f" and packed:
            return ("complex", inner[1])
    return ("compound", size, fields)
