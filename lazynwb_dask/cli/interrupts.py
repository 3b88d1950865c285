"""How a command ends before its end: at a Ctrl-C, or by SIGTERM."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

MOST = 0.8  # seconds to end in order, and again to tidy up; then the process ends as it is

_undo: list[Callable[[], None]] = []
_orderly = threading.Event()
_hints: list[str] = []


def end_at_signals() -> None:
    """Have SIGINT and SIGTERM end this process within `MOST` seconds, with its workers and unfinished files.

    A thread does that, which the signal wakes even if the main thread is in C code. KeyboardInterrupt would
    not do: Python drops it where it is raised in a `__del__`, and then waits for threads that wait for a
    server. A signal that is ignored, as SIGINT in the background of a shell script, stays so.
    """
    heeded = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for one in heeded:
        signal.signal(one, _in_main_thread)
    threading.Thread(target=_wait, args=(reader, writer), daemon=True, name="signals").start()


@contextmanager
def undone(action: Callable[[], None], hint: str = "") -> Iterator[None]:
    """Within, an interrupt calls `action`, and its message ends in the hint."""
    _undo.append(action)
    _hints.append(hint)
    try:
        yield
    finally:
        _undo.remove(action)
        _hints.remove(hint)


@contextmanager
def orderly() -> Iterator[None]:
    """Within, an interrupt first raises KeyboardInterrupt in the main thread, which has `MOST` seconds."""
    _orderly.set()
    try:
        yield
    finally:
        _orderly.clear()


@contextmanager
def unheard() -> Iterator[None]:
    """Threads that start within get no SIGINT, nor do the processes that these threads start."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which unblocks SIGINT in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_main_thread(number: int, frame: FrameType | None) -> None:
    if _orderly.is_set() and number == signal.SIGINT:
        raise KeyboardInterrupt


def _wait(reader: socket.socket, writer: Any) -> None:
    # `writer` stays open as long as this thread lives
    heeded = {int(signal.SIGINT), int(signal.SIGTERM)}
    while (number := reader.recv(1)[0]) not in heeded:
        pass
    try:
        told = "\n".join(["Interrupted.", *[hint for hint in _hints if hint]])
        with suppress(OSError):
            os.write(2, f"{os.linesep if os.isatty(2) else ''}{told}\n".encode())
        if _orderly.is_set():
            reader.settimeout(MOST)
            with suppress(OSError):
                reader.recv(1)  # a second one ends the wait
        tidying = threading.Thread(target=_tidy, daemon=True)
        tidying.start()
        tidying.join(MOST)
    finally:
        os._exit(128 + number)


def _tidy() -> None:
    _kill_workers()
    for action in _undo:
        with suppress(Exception):
            action()
    _kill_workers()  # which started meanwhile
    for action in _undo:  # what workers wrote meanwhile
        with suppress(Exception):
            action()


def _kill_workers() -> None:
    for worker in multiprocessing.active_children():
        with suppress(Exception):
            worker.kill()
