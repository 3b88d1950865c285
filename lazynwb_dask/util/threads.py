"""Threads that a process keeps, for what waits for the network most of its time.

Tasks are short and many, and starting threads for each costs time. Before Python 3.11.12, a thread that
starts while Dask's profiler looks at the others can deadlock the process (`gh-106883
<https://github.com/python/cpython/issues/106883>`_), so few should start, and early.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import cache, partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

THREADS = 64  # of a process, for all of its tasks
MOST = 1.0  # seconds that an interrupted call waits for its threads

_exiting = threading.Event()
_interrupt = contextvars.ContextVar[threading.Event | None]("lazynwb-dask-interrupt", default=None)
if hasattr(threading, "_register_atexit"):  # is called before threads are waited for, unlike atexit's functions
    threading._register_atexit(_exiting.set)


def is_interrupted() -> bool:
    """Whether the call that this thread works for was interrupted (Ctrl-C), or the process ends."""
    interrupt = _interrupt.get()
    return _exiting.is_set() or (interrupt is not None and interrupt.is_set())


class Pool:
    """Threads of this process that don't keep it from ending: they may wait for a server that says nothing."""

    def __init__(self, name: str, threads: int) -> None:
        self._name, self._threads = name, threads
        self._todo: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._started, self._pending, self._lock = 0, 0, threading.Lock()

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            self._pending += 1
            starts = self._pending > self._started and self._started < self._threads
            self._started += starts
        self._todo.put((future, partial(work, *arguments)))
        if starts:
            try:
                threading.Thread(target=self._run, daemon=True, name=f"{self._name}_{self._started}").start()
            except RuntimeError:  # the system gives no more threads: those that run do the work, if any does
                with self._lock:
                    self._started -= 1
                    if not self._started:
                        raise
        return future

    def _run(self) -> None:
        while True:
            future, work = self._todo.get()
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            with self._lock:
                self._pending -= 1
            del future, work  # or they would stay until the next one


@cache
def thread_pool(name: str, threads: int) -> Pool:
    """A pool of this process. What is submitted must not wait for what is submitted later."""
    return Pool(name, threads)


def submit_all(pool: Pool, calls: Sequence[Callable[[], T]]) -> tuple[list[Future[T]], threading.Event]:
    """Submit calls, which see this thread's context variables, and what tells them of an interrupt."""
    interrupt = _interrupt.get() or threading.Event()
    context = contextvars.copy_context()
    context.run(_interrupt.set, interrupt)
    return [pool.submit(context.copy().run, call) for call in calls], interrupt


def part_pool() -> Pool:
    """Threads that help with calls of other threads, which don't wait for them to begin."""
    return thread_pool("lazynwb-dask-part", THREADS)


def end(futures: Sequence[Future[Any]], timeout: float | None = None) -> None:
    """Cancel what has not begun, and wait for the rest."""
    wait([future for future in futures if not future.cancel()], timeout)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=thread_pool.cache_clear)


def at_once(calls: Sequence[Callable[[], T]], limit: int = 16) -> list[T]:
    """What some functions return, called at once, on this thread and a pool's, `limit` at a time.

    They see this thread's context variables. As this thread makes calls too, they may themselves call
    `at_once`: none ever waits for a thread. After a failure no other is begun. Once none runs any more, the
    error of the first of the calls that failed is raised.
    """
    if len(calls) < 2:
        return [call() for call in calls]
    todo = deque(enumerate(calls))
    found: dict[int, T] = {}
    failed: dict[int, BaseException] = {}

    def work() -> None:
        while todo and not failed:
            try:
                i, call = todo.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                found[i] = call()
            except BaseException as exc:
                failed[i] = exc

    helpers, interrupt = submit_all(part_pool(), [work] * (min(limit, len(calls)) - 1))
    try:
        work()
        if any(isinstance(error, KeyboardInterrupt) for error in failed.values()):
            raise KeyboardInterrupt
        end(helpers)
    except KeyboardInterrupt:
        todo.clear()
        interrupt.set()
        end(helpers, MOST)
        raise
    if failed:
        try:
            raise failed[min(failed)]
        finally:
            failed.clear()  # or the error would refer to itself
    return [found[i] for i in range(len(calls))]
