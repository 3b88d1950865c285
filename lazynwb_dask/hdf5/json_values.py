"""What h5py reads as values that JSON has too: text, numbers, booleans, and lists and mappings of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class JSONValue:
    """The result of a job that is such a value."""

    value: Any


def json_value(value: Any) -> Any:
    """A value of h5py as one that JSON has; None where there is no such value.

    >>> json_value(np.array([b"caf\\xe9", b"tea\\0"])), json_value(np.float32(0.5)), json_value(object())
    (['caf\ufffd', 'tea'], 0.5, None)
    """
    if isinstance(value, np.ndarray):
        return json_value(value[()]) if value.ndim == 0 else [json_value(v) for v in value]
    if isinstance(value, str):  # h5py keeps bytes that are not UTF-8 as surrogates
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0")
    if isinstance(value, np.generic):
        return json_value(value.item())
    return value if isinstance(value, (bool, int, float)) else None
