"""Arrays as Zarr version 2 describes them: ``.zarray``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.zarr.array import MAX_NESTING, Array, compound, named_fields, plain, whole


def array_of(meta: Any, fields: Any = None) -> Array:
    """The array that a ``.zarray`` describes. Raises UnsupportedColumnError if it isn't supported.

    `fields` are those of a compound that was written as objects.
    """
    try:
        shape, chunks = whole(meta["shape"]), whole(meta["chunks"])
        dtype, order = meta["dtype"], meta.get("order", "C")
        codecs = (*(meta.get("filters") or ()), *filter(None, [meta.get("compressor")]))
        separator = meta.get("dimension_separator", ".")
    except (KeyError, TypeError, AttributeError):
        raise UnsupportedColumnError("damaged: its .zarray is incomplete") from None
    named = None if fields is None else named_fields(fields)
    if isinstance(dtype, list) and (kind := _compound(dtype)) is not None:
        found = Array(shape, chunks, kind.str, meta.get("fill_value"), codecs, separator, compound=kind)
    else:
        name = "|O" if isinstance(dtype, list) else plain(dtype).str
        found = Array(shape, chunks, name, meta.get("fill_value"), codecs, separator, named)
    if order == "F":
        found = replace(found, codecs=({"id": "transpose", "order": "F"}, *codecs))
    elif order != "C":
        raise UnsupportedColumnError(f"a Zarr array in the order {str(order)[:8]!r}")
    return found.checked()


def _compound(fields: list[Any], depth: int = 1) -> np.dtype[Any] | None:
    """The type of a compound; None if it has a field of objects."""
    found: list[tuple[str, np.dtype[Any]]] = []
    for field in fields:
        try:
            name, kind, *shape = field
            item = whole(shape[0]) if shape else ()
        except (TypeError, ValueError):
            raise UnsupportedColumnError("damaged: its compound's fields are none") from None
        if not isinstance(name, str) or len(item) > 4 or depth > MAX_NESTING:
            raise UnsupportedColumnError("damaged: its compound's fields are none")
        inner = _compound(kind, depth + 1) if isinstance(kind, list) else plain(kind)
        if inner is None or inner.hasobject:
            return None
        try:
            found.append((name, np.dtype((inner, item)) if item else inner))
        except (TypeError, ValueError):
            raise UnsupportedColumnError(f"a compound with a field of the shape {item}") from None
    return compound(found)
