"""Codecs as Zarr's metadata of either version name them, checked, as filters.

A codec that is the same as one of HDF5's filters is that filter. Others are `ZARR_CODEC`s with the least
configuration that decoding takes. Only codecs that are listed here are read: none that could run code.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazynwb_dask.decode.codecs import BLOSC, DEFLATE, FLETCHER32, SHUFFLE, ZARR_CODEC, ZSTD
from lazynwb_dask.decode.zarr_codecs import TYPES
from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.index import Filter

MAX_CODECS = 16
MAX_SHUFFLED = 1 << 16  # bytes of an element
_NUMBER = re.compile(r"[<>|=]?[biufc]\d{1,2}|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)|bool")
_HDF5 = {"zlib": DEFLATE, "fletcher32": FLETCHER32, "zstd": ZSTD, "blosc": BLOSC}
_STREAMS = frozenset({"gzip", "bz2", "lz4"})
_LOCATIONS = {"crc32": "start", "adler32": "start", "crc32c": "end"}
_OF_ARRAYS = frozenset({"transpose", "delta", "fixedscaleoffset", "astype", "quantize", "bitround", "packbits"})
_CORE = frozenset({"transpose", "blosc", "gzip", "zstd", "crc32c"})  # of version 3, without a prefix
_TO_BYTES = ("bytes", "vlen-utf8", "vlen-bytes", "sharding_indexed")
_PREFIX = "numcodecs."

Codec = Mapping[str, Any]
"""A codec as numcodecs is given it: ``id``, and parameters."""


@dataclass(frozen=True)
class Chain:
    """The codecs of an array of version 3. `codecs` has all but the one from an array to bytes."""

    codecs: tuple[Codec, ...]  # in the order of writing
    to_bytes: str  # "bytes", "vlen-utf8", "vlen-bytes" or "sharding_indexed"
    order: str  # the byte order of stored values, as NumPy writes it
    parameters: Mapping[str, Any]  # of that one
    of_arrays: int  # how many of `codecs` come before it


def chain_of(given: Any) -> Chain:
    """The codecs that metadata of version 3 list. Raises UnsupportedColumnError for any that isn't read."""
    before: list[Codec] = []
    after: list[Codec] = []
    to_bytes, parameters = "", {}
    if not isinstance(given, list) or len(given) > MAX_CODECS:
        raise UnsupportedColumnError("damaged: its metadata list no codecs, or too many")
    for codec in given:
        name = codec.get("name") if isinstance(codec, dict) else codec
        found = codec.get("configuration", {}) if isinstance(codec, dict) else {}
        if not isinstance(name, str) or not isinstance(found, dict):
            raise UnsupportedColumnError("damaged: its metadata name no codecs that there are")
        short = name.removeprefix(_PREFIX)
        if name in _TO_BYTES and not to_bytes:
            to_bytes, parameters = name, found
        elif (name not in _CORE and short == name) or (short in _OF_ARRAYS) == bool(to_bytes):
            raise _unknown(name)
        else:
            (after if to_bytes else before).append({**found, "id": short})
    if not to_bytes:
        raise UnsupportedColumnError("damaged: no codec that makes bytes of its values")
    order = {"big": ">", "little": "<", None: "<"}.get(parameters.get("endian"))
    if order is None:
        raise UnsupportedColumnError(f"damaged: values in the byte order {str(parameters['endian'])[:40]!r}")
    return Chain((*[_stored(c, order) for c in before], *after), to_bytes, order, parameters, len(before))


def _stored(codec: Codec, order: str) -> Codec:
    """A codec of numbers that get their byte order after it."""
    names = [name for pair in TYPES.values() for name in pair if codec.get(name)]
    return {**codec, **{name: order + _number(codec[name]).str[1:] for name in names}}


def filters_of(codecs: Sequence[Codec], kind: np.dtype[Any], chunk: Sequence[int]) -> tuple[Filter, ...]:
    """Codecs of chunks of a shape, with values of a type, as filters in the order of writing.

    Raises UnsupportedColumnError for a codec that isn't read.
    """
    shape, size = tuple(chunk), kind.itemsize
    found: list[Filter | None] = []
    if len(codecs) > MAX_CODECS:
        raise UnsupportedColumnError(f"more than {MAX_CODECS} codecs")
    for codec in codecs:
        name = codec["id"]
        if name in _HDF5:
            found.append(Filter(_HDF5[name], (), name))
        elif name == "shuffle":
            found.append(_shuffled(codec, kind))
        elif name in _STREAMS:
            found.append(_filter(name))
        elif name in _LOCATIONS:
            where = codec.get("location") or _LOCATIONS[name]
            if where not in ("start", "end"):
                raise UnsupportedColumnError(f"damaged: a checksum at {str(where)[:40]!r}")
            found.append(_filter(name, location=where))
        elif name == "transpose":
            axes = axes_of(codec, len(shape))
            found.append(_transposed(shape, axes, size))
            shape = tuple(shape[axis] for axis in axes)
        elif name == "packbits":
            found.append(_filter(name))
            shape, size = (1 + -(-math.prod(shape) * size // 8),), 1
        elif name in ("delta", "fixedscaleoffset", "astype", "quantize"):
            made, size = _of_numbers(codec, kind)
            found.append(made)
        elif name != "bitround":  # whose numbers were rounded before they were written: nothing is to be undone
            raise _unknown(name)
    return tuple(step for step in found if step is not None)


def _unknown(name: str) -> UnsupportedColumnError:
    return UnsupportedColumnError(f"stored with the Zarr codec {name[:40]!r}, which isn't read")


def _filter(name: str, **parameters: Any) -> Filter:
    return Filter(ZARR_CODEC, (), json.dumps({"id": name, **parameters}, sort_keys=True))


def _shuffled(codec: Codec, kind: np.dtype[Any]) -> Filter | None:
    size = codec.get("elementsize", 4)
    size = kind.itemsize if size is None else size
    if type(size) is not int or not 0 <= size <= MAX_SHUFFLED:
        raise UnsupportedColumnError(f"damaged: shuffled in elements of {str(size)[:40]} bytes")
    return Filter(SHUFFLE, (size,), "shuffle") if size > 1 else None


def axes_of(codec: Codec, dimensions: int) -> list[int]:
    """The axes in the order in which the codec "transpose" stores them."""
    order = codec.get("order")
    if order in ("C", "F"):
        return list(range(dimensions))[:: 1 if order == "C" else -1]
    given = list(order) if isinstance(order, (list, tuple)) else []
    if any(type(axis) is not int for axis in given) or sorted(given) != list(range(dimensions)):
        raise UnsupportedColumnError(f"damaged: {dimensions} axes in the order {str(order)[:80]}")
    return given


def _transposed(shape: tuple[int, ...], axes: list[int], size: int) -> Filter | None:
    return _filter("transpose", order=axes, shape=list(shape), size=size) if is_moved(axes, shape) else None


def is_moved(axes: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether values of a shape lie otherwise than they would without the change of axes."""
    long = [axis for axis in axes if shape[axis] != 1]
    return long != sorted(long)


def _of_numbers(codec: Codec, kind: np.dtype[Any]) -> tuple[Filter | None, int]:
    """A codec that makes other numbers of numbers, and the size of those."""
    name = "astype" if codec["id"] == "quantize" else codec["id"]
    keys = ("dtype", "astype") if codec["id"] == "quantize" else TYPES[name]
    before = _number(codec.get(keys[0]) or kind.str)
    stored = _number(codec.get(keys[1]) or before.str)
    parameters: dict[str, Any] = dict(zip(TYPES[name], (before.str, stored.str), strict=True))
    if name == "fixedscaleoffset":
        for key in ("offset", "scale"):
            if type(codec.get(key)) not in (int, float):
                raise UnsupportedColumnError(f"damaged: a codec with the {key} {str(codec.get(key))[:40]}")
            parameters[key] = codec[key]
    idle = name == "astype" and before == stored
    return None if idle else _filter(name, **parameters), stored.itemsize


def _number(name: Any) -> np.dtype[Any]:
    """A type of numbers by NumPy's name of it."""
    try:
        if not isinstance(name, str) or not _NUMBER.fullmatch(name):
            raise TypeError
        return np.dtype(name)
    except TypeError:
        raise UnsupportedColumnError(f"a codec for values of the type {str(name)[:40]!r}") from None
