"""Element types: what one value of a dataset is, and what its bytes mean.

An element type is a nested tuple, so that it is hashable and can be written as JSON:

========================================  ==========================================================
``("number", "<f8")``                     a number, with NumPy's name of the stored type
``("bool",)``                             an HDF5 enumeration of FALSE and TRUE, one byte
``("enum", "<i1", labels, values)``       any other enumeration
``("text", size, padding)``               a fixed-length string; padding ``null``, ``term`` or ``space``, or
                                          ``utf-32-le`` or ``utf-32-be`` for code points padded with zeros
``("string",)``                           a variable-length string: a global heap ID
``("sequence", element)``                 a variable-length sequence: a global heap ID
``("reference",)``                        an object reference: the address of an object header
``("complex", "<f4")``                    real and imaginary part
``("compound", size, fields)``            fields as ``(name, offset, element)``
``("array", shape, element)``             an array as one element
``("odd", encoded, "<f4", size)``         a number that NumPy has no type for: an encoded HDF5 datatype,
                                          and the type that libhdf5 converts it to
``("ramp", start, rate)``                 a float64, ``start + row / rate``: nothing is stored
========================================  ==========================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

ElementType = tuple[Any, ...]

DESCRIPTOR = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
"""A variable-length element as stored: its length, the address of its global heap collection, and the
index of the heap object."""


def element_bytes(element: ElementType) -> int:
    """The stored size of one element, in bytes."""
    kind = element[0]
    if kind in ("number", "enum"):
        return np.dtype(element[1]).itemsize
    if kind == "bool":
        return 1
    if kind in ("text", "compound"):
        return int(element[1])
    if kind in ("string", "sequence"):
        return DESCRIPTOR.itemsize
    if kind in ("reference", "ramp"):
        return 8
    if kind == "complex":
        return 2 * np.dtype(element[1]).itemsize
    if kind == "array":
        return math.prod(element[1]) * element_bytes(element[2])
    if kind == "odd":
        return int(element[3])
    raise ValueError(f"unknown element type {element!r}")


def element_type(element: ElementType) -> pa.DataType:
    """The Arrow type of one element's value."""
    kind = element[0]
    if kind in ("number", "odd"):
        return _arrow_number(element[1 if kind == "number" else 2])
    if kind == "ramp":
        return pa.float64()
    if kind == "bool":
        return pa.bool_()
    if kind in ("enum", "text", "string", "reference"):
        return pa.string()
    if kind == "sequence":
        return pa.list_(element_type(element[1]))
    if kind == "complex":
        part = _arrow_number(element[1])
        return pa.struct([("r", part), ("i", part)])
    if kind == "compound":
        return pa.struct([(name, element_type(inner)) for name, _, inner in element[2]])
    if kind == "array":
        inner = element_type(element[2])
        for _ in element[1]:
            inner = pa.list_(inner)
        return inner
    raise ValueError(f"unknown element type {element!r}")


def _arrow_number(dtype: str) -> pa.DataType:
    return pa.from_numpy_dtype(np.dtype(dtype).newbyteorder("="))


def walk(element: ElementType) -> Iterator[ElementType]:
    """An element type and those nested in it."""
    yield element
    if element[0] == "sequence":
        yield from walk(element[1])
    elif element[0] == "array":
        yield from walk(element[2])
    elif element[0] == "compound":
        for _, _, inner in element[2]:
            yield from walk(inner)
