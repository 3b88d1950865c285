"""What a process remembers of files, within one limit for all kinds: least recently used goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from lazynwb_dask.util.locks import Lock

V = TypeVar("V")

DEFAULT = 256 << 20  # bytes, where nobody sets a limit

_entries: OrderedDict[tuple[str, Hashable], tuple[Any, int]] = OrderedDict()
_lock = Lock()
_limit = DEFAULT
_nbytes = 0


class Cache(Generic[V]):
    """A cache with its own keys, of a unique name. Safe for threads.

    All caches of a process share its limit, and an entry of one can push out entries of another. An entry
    of more than half of the limit is not kept, as it would push out nearly all others.

    >>> letters, words = Cache[str]("letters"), Cache[str]("words")
    >>> letters.put(1, "a", 100); words.put(1, "first", 100); letters.put(1, "huge", 1 << 40)
    >>> letters.get(1), words.get(1), words.get(2)
    (None, 'first', None)
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def get(self, key: Hashable) -> V | None:
        """The value of a key; None if it isn't there, or not any more."""
        with _lock:
            found = _entries.get((self.name, key))
            if found is None:
                return None
            _entries.move_to_end((self.name, key))
            value: V = found[0]
            return value

    def put(self, key: Hashable, value: V, nbytes: int) -> None:
        """Keep a value of about so many bytes, in place of the one that the key had."""
        global _nbytes
        with _lock:
            _nbytes -= _entries.pop((self.name, key), (None, 0))[1]
            if 2 * nbytes <= _limit:
                _entries[self.name, key] = value, nbytes
                _nbytes += nbytes
                _shrink()


def set_limit(nbytes: int) -> None:
    """Bytes that all caches of this process may take together, from now on."""
    global _limit
    with _lock:
        _limit = nbytes
        _shrink()


def clear() -> None:
    """Forget all, as in a new process."""
    global _nbytes
    with _lock:
        _entries.clear()
        _nbytes = 0


def _shrink() -> None:
    global _nbytes
    while _nbytes > _limit:
        _, (_, freed) = _entries.popitem(last=False)
        _nbytes -= freed
