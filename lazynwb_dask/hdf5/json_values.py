"""What h5py reads, as values that any language has: text, numbers, booleans, lists and mappings of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Plain:
    """The result of a job that is such a value."""

    value: Any


def plain(value: Any) -> Any:
    """A value as h5py gives it as a plain one; None for what has none.

    >>> plain(np.array([b"caf\\xe9", b"tea\\0"])), plain(np.float32(0.5)), plain(object())
    (['caf\ufffd', 'tea'], 0.5, None)
    """
    if isinstance(value, np.ndarray):
        return plain(value[()]) if value.ndim == 0 else [plain(v) for v in value]
    if isinstance(value, str):  # h5py keeps bytes that are not UTF-8 as surrogates
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0")
    if isinstance(value, np.generic):
        return plain(value.item())
    return value if isinstance(value, (bool, int, float)) else None
