"""Reads many partitions at a time on one thread: while some wait for the network, others go on.

A read is a generator that yields what it waits for. Requests are all under way at once, as far as the storage's
limits allow. What blocks, or takes long to decode, is done by a few other threads.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from lazynwb_dask.model.source import Source, is_local
from lazynwb_dask.storage import Request, fetch
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.fetch import start_fetch
from lazynwb_dask.storage.runtime import GRACE, POLL, ReadCancelled, Started, finish
from lazynwb_dask.util.locks import Lock
from lazynwb_dask.util.threads import MOST, is_interrupted, part_pool, submit_all

T = TypeVar("T")

HELPERS = 32  # other threads that one call uses


@dataclass(frozen=True)
class Fetch:
    """Byte ranges of a file; `heavy` if what comes next takes long, `quick` if sinks only keep the bytes."""

    source: Source
    requests: Sequence[Request]
    access: FileAccess
    heavy: bool = False
    quick: bool = False


@dataclass(frozen=True)
class Blocking:
    """A call that may block."""

    call: Callable[[], object]


@dataclass(frozen=True)
class Begin:
    """A fetch from a store that begins now, and whose end is awaited later. Others have their turn first; the
    answer is what runs, or None if only a `Fetch` will do."""

    fetch: Fetch


@dataclass(frozen=True)
class Await:
    """The end of a fetch that was begun."""

    started: Started[None]
    access: FileAccess


Asked = Fetch | Blocking | Begin | Await
Read = Generator[Asked, Started[None] | None, T]


def blocking(call: Callable[[], T]) -> Read[T]:
    """What a call returns that may block."""
    found: list[T] = []
    yield Blocking(lambda: found.append(call()))
    return found[0]


def alone(read: Read[T], ends: bool = True) -> T:
    """What one read returns, all of it on this thread. With `ends` no fetch that it has begun outlives it."""
    begun: list[Started[None]] = []
    try:
        asked = next(read)
        while True:
            answer = None
            try:
                if isinstance(asked, Begin):
                    answer = begin(asked)
                    begun += [answer] if answer and ends else []
                else:
                    call_of(asked)()
            except Exception as exc:
                asked = read.throw(exc)
            else:
                asked = read.send(answer)
    except StopIteration as stop:
        found: T = stop.value
        return found
    finally:
        for started in begun:
            started.stop()


def begin(asked: Fetch | Begin) -> Started[None] | None:
    """Begin a fetch from a store; None if it is none, or several."""
    if isinstance(asked, Begin):
        asked = asked.fetch
    if is_local(asked.source.url) or asked.source.parts:
        return None
    return start_fetch(asked.source, asked.requests, asked.access, asked.quick)


def call_of(asked: Fetch | Blocking | Await) -> Callable[[], object]:
    if isinstance(asked, Blocking):
        return asked.call
    if isinstance(asked, Await):
        return partial(finish, asked.started, asked.access.settings.is_cancelled)
    return partial(fetch, asked.source, asked.requests, asked.access, asked.quick)


def _raise(error: Exception) -> None:
    raise error


def side_by_side(reads: Sequence[Read[T]], is_cancelled: Callable[[], bool] | None = None) -> list[T]:
    """What some reads return. The first error ends the others; it is raised once none runs any more."""
    return [alone(read) for read in reads] if len(reads) < 2 else _Turns(reads, is_cancelled).run()


class _Turns:
    """Gives each read its turn, as soon as what it waited for is there."""

    def __init__(self, reads: Sequence[Read[Any]], is_cancelled: Callable[[], bool] | None) -> None:
        self.reads, self.is_cancelled = reads, is_cancelled
        self.found: dict[int, Any] = {}
        self.failed: dict[int, BaseException] = {}
        self.fetching: dict[int, tuple[Started[None], bool]] = {}
        self.begun: list[Started[None]] = []
        self.answers: dict[int, Started[None] | None] = {}  # to reads that have begun a fetch
        self.arrived: SimpleQueue[int | None] = SimpleQueue()  # reads; None: look at what is done
        # for other threads: reads that can go on, once a call has been made
        self.work: deque[tuple[int, Callable[[], object] | None]] = deque()
        self.helpers: list[Future[None]] = []
        self.interrupt = threading.Event()
        self.helping, self.lock = 0, Lock()
        self.looked = 0.0  # when, last time, whether the task was cancelled

    def run(self) -> list[Any]:
        try:
            for i in range(len(self.reads)):
                self.go_on(i)
            while len(self.found) < len(self.reads) and not self.failed:
                self.turn()
        except BaseException as exc:
            self.failed[-1] = exc
            if isinstance(exc, KeyboardInterrupt):
                self.interrupt.set()
        self.end()
        if self.failed:
            try:
                raise self.failed[min(self.failed)]
            finally:
                self.failed.clear()  # or the error would refer to itself
        return [self.found[i] for i in range(len(self.reads))]

    def turn(self) -> None:
        """Go on with a read whose bytes are there; or else with one that no other thread has taken yet."""
        if time.monotonic() >= self.looked + POLL:
            self.looked = time.monotonic()
            if is_interrupted() or (self.is_cancelled is not None and self.is_cancelled()):
                raise ReadCancelled()
        try:
            i = self.arrived.get(block=not self.work, timeout=POLL)
        except Empty:
            with self.lock:
                item = self.work.popleft() if self.work else None
            if item is not None:
                self.do(*item)
            return
        if i is None:
            return
        if i in self.answers:
            self.go_on(i, answer=self.answers.pop(i))
            return
        started, heavy = self.fetching.pop(i)
        error = started.result.exception()
        if heavy and error is None:
            self.hand_over(i)
        else:
            self.go_on(i, error)

    def go_on(self, i: int, error: BaseException | None = None, answer: Started[None] | None = None) -> None:
        """Run a read until it waits for the network or for another thread, or to its end."""
        if self.failed:
            return
        read = self.reads[i]
        try:
            asked = read.send(answer) if error is None else read.throw(error)
            if isinstance(asked, Blocking):
                self.hand_over(i, asked.call)
                return
            try:
                started = asked.started if isinstance(asked, Await) else begin(asked)
            except Exception as exc:  # the read may go on after it
                self.hand_over(i, partial(_raise, exc))
                return
        except StopIteration as stop:
            self.found[i] = stop.value
        except BaseException as exc:
            self.failed[i] = exc
        else:
            if isinstance(asked, Begin):
                self.begun += [started] if started else []
                self.answers[i] = started
                self.arrived.put(i)
            elif started is None:
                self.hand_over(i, call_of(asked))
            else:
                self.fetching[i] = started, isinstance(asked, Fetch) and asked.heavy
                started.result.add_done_callback(lambda _: self.arrived.put(i))
            return
        if self.failed or len(self.found) == len(self.reads):
            self.arrived.put(None)

    def hand_over(self, i: int, call: Callable[[], object] | None = None) -> None:
        with self.lock:
            self.work.append((i, call))
            if self.helping >= HELPERS:
                return
            self.helping += 1
        helpers, self.interrupt = submit_all(part_pool(), [self.help])
        self.helpers += helpers

    def help(self) -> None:
        while True:
            with self.lock:
                item = None if self.failed or not self.work else self.work.popleft()
                if item is None:
                    self.helping -= 1
                    return
            self.do(*item)

    def do(self, i: int, call: Callable[[], object] | None) -> None:
        error = None
        try:
            if call is not None:
                call()
        except BaseException as exc:
            error = exc
        self.go_on(i, error)

    def end(self) -> None:
        """Wait until nothing runs any more."""
        longest = MOST if self.interrupt.is_set() else None
        wait([helper for helper in self.helpers if not helper.cancel()], longest)
        left = [*self.begun, *(started for started, _ in self.fetching.values())]
        for started in left:
            started.stop()
        wait([started.result for started in left], GRACE)
        for read in self.reads:
            read.close()
