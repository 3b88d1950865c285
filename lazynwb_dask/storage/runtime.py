"""What all reads of one process share: limits of connections and memory, and threads.

Coroutines run on fsspec's own event loop, so that the sessions of its filesystems can be used. All of it is
made anew after a fork, when neither the loop nor any thread is left.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fsspec.asyn import get_loop

from lazynwb_dask.util.locks import Lock
from lazynwb_dask.util.threads import is_interrupted

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

T = TypeVar("T")

# Decoding releases the interpreter lock, so a few threads use a few cores; more only add memory.
DECODERS = min(4, max(2, os.cpu_count() or 2))
# Filesystems that block need a thread for each read that is under way.
BLOCKING = 16
# Seconds that an interrupted call waits for its own end.
POLL = 0.25  # seconds between two looks whether a read was cancelled
GRACE = 5


class Gate:
    """Lets in only so much at a time, first come, first served. Belongs to one event loop."""

    def __init__(self) -> None:
        self._inside = 0
        self._queue: deque[tuple[asyncio.Future[None], int, int]] = deque()

    @asynccontextmanager
    async def hold(self, amount: int, limit: int) -> AsyncIterator[None]:
        """Wait until ``amount`` fits below ``limit``; more than the limit gets in when alone."""
        if self._queue or not self._fits(amount, limit):
            turn = asyncio.get_running_loop().create_future()
            entry = (turn, amount, limit)
            self._queue.append(entry)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave(amount)
                else:
                    if entry in self._queue:
                        self._queue.remove(entry)
                    self._admit()
                raise
        else:
            self._inside += amount
        try:
            yield
        finally:
            self._leave(amount)

    def _fits(self, amount: int, limit: int) -> bool:
        return self._inside == 0 or self._inside + amount <= limit

    def _leave(self, amount: int) -> None:
        self._inside -= amount
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._fits(*self._queue[0][1:]):
            turn, amount, _ = self._queue.popleft()
            if not turn.cancelled():
                self._inside += amount
                turn.set_result(None)


@dataclass(frozen=True)
class Started(Generic[T]):
    """What runs on the event loop: its result, and how to end it early."""

    result: Future[T]
    stop: Callable[[], None]


def finish(started: Started[T], is_cancelled: Callable[[], bool] | None = None) -> T:
    """Wait for what was begun; an error ends it. See `Process.run`."""
    try:
        _wait([started.result], is_cancelled=is_cancelled)
    except BaseException:
        started.stop()
        wait([started.result], timeout=GRACE)
        raise
    return started.result.result()


class Process:
    """The shared parts of this process."""

    def __init__(self) -> None:
        self.loop = get_loop()
        self.filesystems: dict[int, AbstractFileSystem] = {}  # those with open connections
        # whether the last file of a store was large; None for one that doesn't send the end of a file whose
        # size isn't known
        self.large: dict[tuple[int, str], bool | None] = {}
        self.connections = Gate()
        self.memory = Gate()
        self.decoders = ThreadPoolExecutor(DECODERS, "lazynwb-dask-decode", _is_decoder)
        self.threads = ThreadPoolExecutor(BLOCKING, "lazynwb-dask-read")

    def start(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Started[T]:
        """Begin to run a coroutine function on the loop, from any thread but the loop's own."""
        if _role.decoder or _on(self.loop):
            raise _Deadlock()
        result: Future[T] = Future()
        tasks: list[asyncio.Task[None]] = []

        async def main() -> None:
            try:
                value = await work()
            except BaseException as error:
                result.set_exception(error)
            else:
                result.set_result(value)

        def begin() -> None:
            task = self.loop.create_task(main())
            task.add_done_callback(ended)
            tasks.append(task)

        def ended(_: object) -> None:
            if not result.done():  # cancelled before its first step
                result.set_exception(ReadCancelled())

        def stop() -> None:
            self.loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])

        self.loop.call_soon_threadsafe(begin)
        return Started(result, stop)

    def run(
        self, work: Callable[[], Coroutine[Any, Any, T]], is_cancelled: Callable[[], bool] | None = None
    ) -> T:
        """Run a coroutine function on the loop and wait for it.

        An interrupt (Ctrl-C) cancels it, and waits until it has ended. So does `is_cancelled`, once it
        returns True, with a ReadCancelled.
        """
        if is_cancelled is not None and is_cancelled():
            raise ReadCancelled()
        return finish(self.start(work), is_cancelled)

    async def decode(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a decoder. Cancelled, it still waits for what has begun."""
        future = self.decoders.submit(work)
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([waiting])
            if not waiting.cancelled():
                waiting.exception()  # seen, and of no interest any more
            raise

    def decode_all(
        self, work: Sequence[Callable[[], None]], is_cancelled: Callable[[], bool] | None = None
    ) -> None:
        """Run all in the decoders and wait. What hasn't begun when one fails never does."""
        if _role.decoder:
            raise _Deadlock()
        futures = [self.decoders.submit(one) for one in work]
        try:
            _wait(futures, FIRST_EXCEPTION, is_cancelled)
        finally:
            for future in futures:
                future.cancel()
            wait(futures)  # they use an open file
        for future in futures:
            if not future.cancelled():
                future.result()


class _Deadlock(RuntimeError):
    def __init__(self) -> None:
        super().__init__(
            "reads can't be started from a sink, nor from fsspec's event loop: they would wait for "
            "the thread that they run on"
        )


class ReadCancelled(Exception):
    """The task that reads was cancelled."""

    def __init__(self) -> None:
        super().__init__("the task was cancelled while it was reading")


def _wait(
    futures: Sequence[Future[Any]], when: str = ALL_COMPLETED, is_cancelled: Callable[[], bool] | None = None
) -> None:
    """Wait in steps, since not on every platform does a signal end a wait."""
    step = 1.0 if is_cancelled is None and threading.current_thread() is threading.main_thread() else POLL
    while True:
        done, waiting = wait(futures, timeout=step, return_when=when)
        if not waiting or (when == FIRST_EXCEPTION and any(one.exception() for one in done)):
            return
        if is_interrupted() or (is_cancelled is not None and is_cancelled()):
            raise ReadCancelled()


def _on(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


class _Role(threading.local):
    decoder = False


_role = _Role()
_current: Process | None = None
_lock = Lock()


def _is_decoder() -> None:
    _role.decoder = True


def process() -> Process:
    """The shared parts, made on first use."""
    global _current
    with _lock:
        if _current is None or _current.loop.is_closed():
            _current = Process()
        return _current


_alive_while_forking: list[object] = []


def _before_fork() -> None:
    """Keep objects with sockets from being collected in the child.

    Both processes share the kernel's list of sockets to watch: closing one in the child removes it there,
    and the parent would never see its responses.
    """
    if _current is not None:
        _alive_while_forking.extend([_current, *_current.filesystems.copy().values()])


def _after_fork() -> None:
    global _current
    _current = None
    _role.decoder = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_alive_while_forking.clear, after_in_child=_after_fork
    )
