"""A process's limited memory, as a budget for the reads of all its tasks. Knows no Dask.

A task begins to read once the budget has what it is expected to take; until then it waits, and holds nothing.
It takes what each partition needs before it decodes it. What exceeds the expected is free at once, or the task
ends and reads again when no other does. So no task that holds memory waits for another, and all waits end.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from lazynwb_dask.errors import NWBMemoryError
from lazynwb_dask.storage.runtime import ReadCancelled
from lazynwb_dask.util import buffers, lru

T = TypeVar("T")

# Parts of the limit that tasks may use that read together, that one may use that reads alone, and with a
# result's copy. From 70 % on Dask moves results to the disk, for which it copies each: a copy's memory and the
# result's own are free only later. It runs no further task from 80 % on, and ends a worker that uses 95 %.
TOGETHER, ALONE, COPYING = 0.65, 0.8, 0.9
NEGLIGIBLE = 16 << 20  # bytes that a task may always take: a worker's limit is no finer
PATIENCE = 10.0  # seconds without any progress for others to release what a task needs that reads alone
SETTLING = 1.0  # seconds for tasks that use up results
POLL = 0.1  # seconds between two looks at what is in use


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes that a process may use, that it uses now, and each result of these that can go to the disk."""

    limit: int
    used: Callable[[], int]
    movable: Callable[[], Collection[int]]
    move: Callable[[], object] = lambda: None  # writes some of them to the disk


@dataclass(eq=False)
class Reservation:
    """What one task has of the budget, while it reads."""

    memory: ProcessMemory
    expected: int  # bytes that others must leave to it
    alone: bool  # whether no other task may read meanwhile
    advice: str
    is_cancelled: Callable[[], bool] | None
    taken: int = 0
    before: int = 0  # bytes that were in use without it

    def take(self, nbytes: int, what: Callable[[], str]) -> None:
        """Take some bytes, before they are used.

        NWBMemoryError if they aren't free; its text begins with what `what` returns.
        """
        with _changed:
            self.taken += nbytes
            more = self.taken - self.expected
            if self.taken <= NEGLIGIBLE or (not self.alone and more <= 0):
                return
            if not self.alone and self.fits(more):
                self.expected = self.taken
                return
            if _reading == [self]:
                self.alone, self.expected = True, self.memory.limit
        if not self.alone or not self._is_free(self.taken - nbytes):
            raise NWBMemoryError(
                f"{what()}; with what else its task reads, and while that is decoded, "
                f"{self.taken >> 20} MiB. This worker may use {self.memory.limit >> 20} MiB, of which "
                f"{self.before >> 20} MiB are in use. {self.advice}"
            )

    def give_back(self) -> None:
        """Read no more: what has been taken shows in what the process uses."""
        with _changed:
            if self in _reading:
                _reading.remove(self)
            _changed.notify_all()

    def fits(self, more: int) -> bool:
        """Whether some more bytes fit, if each task that reads takes what it is expected to."""
        expected = sum(one.expected for one in _reading)
        return self.memory.used() + expected + more <= self.memory.limit * TOGETHER

    def check(self) -> None:
        """Raise `ReadCancelled` if the task was cancelled."""
        if self.is_cancelled is not None and self.is_cancelled():
            raise ReadCancelled()

    def _is_free(self, taken_before: int) -> bool:
        """Whether there is enough for a task that reads alone, once others had time to release theirs."""
        limit, begun, least = self.memory.limit, time.monotonic(), sys.maxsize
        progress = begun + SETTLING
        while self.taken <= limit * ALONE:
            used, results = self.memory.used(), self.memory.movable()
            self.before = max(min(self.before, used), used - taken_before)
            use, now = self.before + self.taken, time.monotonic()
            # tasks that use up results have their turn before the first bytes are taken
            waits = POLL if sum(results) <= NEGLIGIBLE else SETTLING
            if use <= limit * TOGETHER:
                return True
            if taken_before or now - begun >= waits:
                if use <= limit * ALONE and use + max(results, default=0) <= limit * COPYING:
                    return True
                lru.clear()
                self.memory.move()  # Dask itself does so too late for what is decoded at once
                release()
            if used + sum(results) < least - NEGLIGIBLE:
                progress, least = max(progress, now), used + sum(results)
            if now - progress > PATIENCE:
                return use <= limit * ALONE  # what can't be moved isn't copied either
            self.check()
            time.sleep(POLL)
        return False


_changed = threading.Condition()
_waiting: list[Reservation] = []  # first come, first served
_reading: list[Reservation] = []


def within(
    memory: ProcessMemory,
    expected: int,
    read: Callable[[Reservation], T],
    advice: str,
    is_cancelled: Callable[[], bool] | None = None,
) -> T:
    """What a task reads, once the budget has what it is expected to take; read again if it takes more.

    NWBMemoryError, ending with the advice, if it takes too much even if no other task reads.
    """
    for alone in (False, True):
        reservation = Reservation(memory, expected, alone, advice, is_cancelled)
        with _begun(reservation):
            try:
                return read(reservation)
            except NWBMemoryError:
                if reservation.alone:
                    raise
    raise AssertionError


@contextmanager
def _begun(reservation: Reservation) -> Iterator[None]:
    """Wait until the budget has what a task is expected to take, or no other reads."""
    if reservation.expected > NEGLIGIBLE and not reservation.fits(reservation.expected):
        release()
    with _changed:
        _waiting.append(reservation)
        try:
            while not _may_begin(reservation):
                _changed.wait(POLL)
                reservation.check()
            _reading.append(reservation)
        finally:
            _waiting.remove(reservation)
            _changed.notify_all()
    try:
        yield
    finally:
        reservation.give_back()


def _may_begin(reservation: Reservation) -> bool:
    if _waiting[0] is not reservation:
        return False
    reservation.before = reservation.memory.used()
    together = not reservation.alone and reservation.fits(reservation.expected)
    if _reading:
        return together or (reservation.expected <= NEGLIGIBLE and not reservation.alone)
    if not together:
        reservation.alone, reservation.expected = True, reservation.memory.limit
    return True


def release() -> None:
    """Have what nothing refers to any more given back to the operating system."""
    gc.collect()
    buffers.release()


def _after_fork() -> None:
    global _changed
    _changed = threading.Condition()
    _waiting.clear()  # no thread is left that would read
    _reading.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
