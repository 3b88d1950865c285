"""Room in the memory of a process that may use only so much: what the reads of all its tasks take together.

A task enters with what it is expected to take, and waits outside until that fits. Inside, it takes for each
partition what decoding that needs, before it decodes. What goes beyond the expected is there at once or not at
all: then the task leaves, and reads once more when it has the room for itself. So none that holds anything
waits for another. Knows no Dask.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from lazynwb_dask.errors import NWBMemoryError
from lazynwb_dask.storage.runtime import ReadCancelled

T = TypeVar("T")

# Parts of the limit. From 70 % on Dask moves results to the disk, which takes as much again as the results; it
# ends a worker that uses 95 %.
EASY, FULL = 0.65, 0.85
NEGLIGIBLE = 16 << 20  # bytes that a task may always take: a worker's limit is no finer
POLL = 0.1  # seconds between two looks at what is in use
ASKED = 64 << 20  # bytes to ask Arrow for, of which none is touched
CALM = 2.0  # seconds for others to be done with results, rather than have them moved
PATIENCE = 10.0  # seconds for others to give back memory that is needed


@dataclass(frozen=True)
class Bounds:
    """What a process may use.

    Parameters
    ----------
    limit : int
        Bytes that it may use in all.
    used : callable
        How many it uses now.
    spill : callable
        Moves something that others keep in memory out of it; says whether there was anything.
    """

    limit: int
    used: Callable[[], int]
    spill: Callable[[], bool]

    @property
    def easy(self) -> float:
        """What should do, as long as there is a choice."""
        return self.limit * EASY

    @property
    def usable(self) -> float:
        return self.limit * FULL


class Share:
    """What one task holds of a process's memory.

    Parameters
    ----------
    bounds : Bounds
    expected : int
        Bytes that it will probably take.
    alone : bool
        Whether it is to have all there is.
    way_out : str
        What whoever asked for too much can change.
    cancelled : callable, optional
        Whether nobody wants the result any more.
    """

    def __init__(
        self,
        bounds: Bounds,
        expected: int,
        alone: bool = False,
        way_out: str = "",
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.bounds, self.alone = bounds, alone
        self.expected, self.taken, self.before = expected, 0, 0
        self.calm = False  # once it has waited for others to be done with results
        self.full = False  # once it is known that there is no more
        self.making = threading.Lock()
        self._way_out, self._cancelled = way_out, cancelled

    @property
    def held(self) -> int:
        """Bytes that others must leave to it."""
        return self.bounds.limit if self.alone else self.expected

    def take(self, nbytes: int, what: Callable[[], str]) -> None:
        """Take some bytes, before they are used.

        Raises
        ------
        NWBMemoryError
            There is no room. The beginning of its text is what `what` returns.
        """
        if not _room.grow(self, nbytes):
            raise NWBMemoryError(
                f"{what()}; with what else its task reads, and while that is decoded, "
                f"{self.taken >> 20} MiB. This worker may use {self.bounds.limit >> 20} MiB, of which "
                f"{self.before >> 20} MiB are in use. {self._way_out}"
            )

    def give_back(self) -> None:
        """Hold nothing any more: what has been taken shows in what the process uses."""
        _room.empty(self)

    def check(self) -> None:
        """Raise `ReadCancelled` if nobody waits for the result."""
        if self._cancelled is not None and self._cancelled():
            raise ReadCancelled()


class Room:
    """The memory of this process. Tasks enter one after the other, first come, first served."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[Share] = deque()
        self._inside: list[Share] = []
        self._least: int | None = None  # bytes: the process has been seen to do with so few

    @contextmanager
    def entered(self, share: Share) -> Iterator[None]:
        """Wait until there is room for what a task is expected to take, or nobody else inside."""
        small = share.expected <= NEGLIGIBLE
        if not small and share.bounds.used() + share.expected > share.bounds.easy:
            _tidy()
        with self._changed:
            self._queue.append(share)
            try:
                while not self._admits(share):
                    self._changed.wait(POLL)
                    share.check()
                self._inside.append(share)
            finally:
                self._queue.remove(share)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._inside.remove(share)
                self._changed.notify_all()

    def _admits(self, share: Share) -> bool:
        if self._queue[0] is not share:
            return False
        share.before = self._used(share)
        fits = share.before + self._held() + share.expected <= share.bounds.easy
        fits |= share.expected <= NEGLIGIBLE and not share.alone
        if self._inside:
            return fits and not share.alone
        share.alone |= not fits
        return True

    def grow(self, share: Share, nbytes: int) -> bool:
        """Whether a task inside may take some more bytes. Waits for no other task."""
        with self._changed:
            taken, share.taken = share.taken, share.taken + nbytes
            if share.taken <= NEGLIGIBLE:
                return True
            if not share.alone:
                more = share.taken - share.expected
                if more <= 0:
                    return True
                used = self._used(share)
                if used + self._held() + more <= share.bounds.easy:
                    share.expected = share.taken
                    return True
                if self._inside != [share]:
                    return False
                share.alone = True
                share.before = max(share.before, used - taken)
            if share.before + share.taken <= share.bounds.easy:
                return True
        with share.making:
            share.full = share.full or not self._made(share)
            return not share.full

    def _made(self, share: Share) -> bool:
        """Whether there is room for a task that is alone, once others' results are out of the way."""
        begun = time.monotonic()
        if share.calm and share.before + share.taken <= share.bounds.usable:
            return True
        while share.taken <= share.bounds.usable:
            share.check()
            _tidy()
            share.before = min(share.before, self._used(share))
            waited, needed = time.monotonic() - begun, share.before + share.taken
            # Alone, it cannot become easy where nothing but what the process needs anyway is in use.
            easy = share.taken + (self._least or 0) <= share.bounds.easy
            share.calm |= not easy or waited >= CALM
            if needed <= (share.bounds.usable if share.calm else share.bounds.easy):
                return True
            if waited > PATIENCE:
                return False
            if not share.calm or not share.bounds.spill():
                time.sleep(POLL)
        return False

    def empty(self, share: Share) -> None:
        with self._changed:
            share.alone, share.expected, share.taken = False, 0, 0
            self._changed.notify_all()

    def _held(self) -> int:
        return sum(one.held for one in self._inside)

    def _used(self, share: Share) -> int:
        used = share.bounds.used()
        self._least = used if self._least is None else min(self._least, used)
        return used


def _tidy() -> None:
    """Have what nothing refers to any more given back to the operating system."""
    gc.collect()
    # Arrow's pool looks after what other threads have freed only when it is asked for more.
    pa.allocate_buffer(ASKED)
    pa.default_memory_pool().release_unused()


_room = Room()


def _after_fork() -> None:
    global _room
    _room = Room()  # no thread is left that would leave the old one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def within(
    bounds: Bounds,
    expected: int,
    read: Callable[[Share], T],
    way_out: str,
    cancelled: Callable[[], bool] | None = None,
    alone: bool = False,
) -> T:
    """What a task reads, once there is room for it; read again if it turns out to need all there is.

    Raises
    ------
    NWBMemoryError
        It has no room even by itself.
    """
    share = Share(bounds, expected, alone, way_out, cancelled)
    with _room.entered(share):
        try:
            return read(share)
        except NWBMemoryError:
            if share.alone or alone:
                raise
    return within(bounds, expected, read, way_out, cancelled, alone=True)
