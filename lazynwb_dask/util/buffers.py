"""Memory for bytes on their way from a store into a frame.

It comes from Arrow's pool, which reuses freed memory. In fresh memory from the operating system, the first
access to each page can cost more than the bytes that are put there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def blank(count: int, dtype: Any = np.uint8) -> np.ndarray:
    """An uninitialised array of so many elements."""
    kind = np.dtype(dtype)
    if not count:
        return np.empty(0, kind)
    return np.frombuffer(pa.allocate_buffer(count * kind.itemsize), kind)
