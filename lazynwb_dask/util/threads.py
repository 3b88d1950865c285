"""Threads that a process keeps, for what waits for the network most of its time.

Tasks are short and many, and starting threads for each costs time. Before Python 3.11.12, a thread that
starts while Dask's profiler looks at the others can deadlock the process (`gh-106883
<https://github.com/python/cpython/issues/106883>`_), so few should start, and early.
"""

from __future__ import annotations

import contextvars
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

T = TypeVar("T")

THREADS = 64  # of a process, for all of its tasks


@cache
def thread_pool(name: str, threads: int) -> ThreadPoolExecutor:
    """A pool of this process. What is submitted must not wait for what is submitted later."""
    return ThreadPoolExecutor(threads, name)


def part_pool() -> ThreadPoolExecutor:
    """Threads that help with calls of other threads, which don't wait for them to begin."""
    return thread_pool("lazynwb-dask-part", THREADS)


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

    pool = part_pool()
    helpers = [pool.submit(contextvars.copy_context().run, work) for _ in range(min(limit, len(calls)) - 1)]
    try:
        work()
    finally:
        todo.clear()  # after an interrupt
        wait([helper for helper in helpers if not helper.cancel()])
    if failed:
        try:
            raise failed[min(failed)]
        finally:
            failed.clear()  # or the error would refer to itself
    return [found[i] for i in range(len(calls))]
