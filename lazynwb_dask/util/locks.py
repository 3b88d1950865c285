"""Locks that are free in a forked process: a fork copies locks, but not the threads that hold them."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet


class Lock:
    """A `threading.Lock` that is another one after a fork. For threads that don't fork while they hold it."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _made.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def acquire(self, blocking: bool = True) -> bool:
        """Take it; False if it is held, and not to be waited for."""
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()


_made: WeakSet[Lock] = WeakSet()


def _after_fork() -> None:
    for made in list(_made):
        made._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
