"""Memory for bytes on their way from a store into a frame.

It comes from Arrow's pool, which hands out again what was given back. From the operating system, the first
touch of each page can cost more than the bytes that are put there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def blank(count: int, dtype: Any = np.uint8) -> np.ndarray:
    """An array of so many elements, of any content.

    >>> blank(3, "<f8").shape
    (3,)
    """
    kind = np.dtype(dtype)
    if not count:
        return np.empty(0, kind)
    return np.frombuffer(pa.allocate_buffer(count * kind.itemsize), kind)
