"""Memory for bytes on their way from a store into a frame.

The first access to each page of fresh memory can cost more than the bytes that are put there. So what is
needed for a moment only is used again, and of the rest there is no more than the values take. None of it is
asked for in huge pages, as NumPy and Arrow's default pool do: a virtual machine that gives free memory back
to its host, as many in clouds do, waits up to 7 s for a GB of these, and less than 1 s for a GB of small ones.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pyarrow as pa

BLOCK = (4 << 20) + (64 << 10)  # a request of the largest size, or a chunk of the largest that are common
LEAST = 1 << 20  # what is shorter is quickly had, and could keep a whole block
KEPT = 8  # blocks that are unused

_unused: list[pa.Buffer] = []


def blank(count: int, dtype: Any = np.uint8) -> np.ndarray:
    """An uninitialised array of so many elements."""
    kind = np.dtype(dtype)
    if not count:
        return np.empty(0, kind)
    return np.frombuffer(pa.allocate_buffer(count * kind.itemsize, pa.system_memory_pool()), kind)


def passing(count: int) -> np.ndarray:
    """So many uninitialised bytes that are needed for a moment.

    Once nothing refers to them any more, they are used again.
    """
    if not LEAST <= count <= BLOCK:
        return blank(count)
    try:
        block = _unused.pop()
    except IndexError:
        block = pa.allocate_buffer(BLOCK, pa.system_memory_pool())
    array = np.frombuffer(block, np.uint8, count)
    weakref.finalize(array, _keep, block).atexit = False
    return array


def _keep(block: pa.Buffer) -> None:
    if len(_unused) < KEPT:
        _unused.append(block)


def release() -> None:
    """Have what nothing refers to any more given back to the operating system."""
    _unused.clear()
    pa.allocate_buffer(64 << 20)  # or Arrow's pool keeps what was freed. None of these bytes is touched
    for pool in (pa.default_memory_pool(), pa.system_memory_pool()):
        pool.release_unused()
