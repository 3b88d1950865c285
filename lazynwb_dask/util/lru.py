"""Bounded memory for what a process learns of files: least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from lazynwb_dask.util.locks import Lock

V = TypeVar("V")


class LRU(Generic[V]):
    """A mapping of at most so many bytes, safe for threads.

    >>> cache = LRU[str](limit=10)
    >>> cache.put("a", "first", 6); cache.put("b", "second", 6)
    >>> cache.get("a"), cache.get("b")
    (None, 'second')
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._nbytes = 0
        self._lock = Lock()

    def get(self, key: Hashable) -> V | None:
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            self._held.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: V, nbytes: int) -> None:
        with self._lock:
            old = self._held.pop(key, None)
            self._nbytes -= old[1] if old else 0
            self._held[key] = (value, nbytes)
            self._nbytes += nbytes
            while self._nbytes > self.limit:
                _, (_, freed) = self._held.popitem(last=False)
                self._nbytes -= freed

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._nbytes = 0
