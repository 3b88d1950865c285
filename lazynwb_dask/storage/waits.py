"""Log lines about hosts that don't answer, or where attempts fail, while a read waits for them."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fsspec.asyn import get_loop

from lazynwb_dask.model.source import shown
from lazynwb_dask.storage.faults import Fault
from lazynwb_dask.storage.settings import Settings
from lazynwb_dask.util.locks import Lock

logger = logging.getLogger("lazynwb_dask")

FAILING, SILENT = 1.0, 5.0  # seconds of failed attempts, or without any answer, before there is a line
AGAIN = 10.0  # seconds between two lines about one host


class Wait:
    """One request with its retries. `seconds` is the longest that it may take."""

    def __init__(self, url: str, settings: Settings, seconds: float) -> None:
        self.host = "/".join(shown(url).split("/", 3)[:3])
        self.settings = settings
        self.begun = self.started = time.monotonic()
        self.end = self.begun + seconds
        self.took = settings.timeout  # by one attempt
        self.attempt, self.cause, self.answered = 1, "", False

    def failed(self, fault: Fault, pause: float) -> None:
        """An attempt failed, and another follows after a pause."""
        now = time.monotonic()
        self.took, self.started = now - self.started, now + pause
        self.attempt, self.cause, self.answered = self.attempt + 1, fault.cause, False

    def line(self, now: float) -> str | None:
        """What is to be said at this time; None while all is well."""
        waited = now - self.begun
        if self.answered or waited < (FAILING if self.cause else SILENT):
            return None
        attempts = self.settings.retries + 1
        todo = range(self.attempt, attempts)
        pauses = sum(min(self.settings.longest_pause, self.settings.pause * 2.0 ** (n - 1)) for n in todo)
        most = min(self.end, self.started + self.took * (1 + len(todo)) + pauses) - now
        return (
            f"{self.host}: {self.cause or f'no answer for {waited:.0f} s'}; attempt {self.attempt} of "
            f"{attempts}, gives up in {max(most, 1):.0f} s at most"
        )


_current: ContextVar[Wait | None] = ContextVar("lazynwb-dask-wait", default=None)
_waits: set[Wait] = set()
_said: dict[str, float] = {}  # when, by host, in the last seconds
_ticking: list[asyncio.AbstractEventLoop] = []  # the loop that looks at waits, while there are any
_lock = Lock()


@contextmanager
def waiting(url: str, settings: Settings, seconds: float) -> Iterator[Wait]:
    """Within, a line is logged from time to time if the host of a URL doesn't answer."""
    wait = Wait(url, settings, seconds)
    before = _current.set(wait)
    loop = get_loop()
    with _lock:
        _waits.add(wait)
        starts = _ticking != [loop]
        _ticking[:] = [loop]
    if starts:
        loop.call_soon_threadsafe(_tick, loop)
    try:
        yield wait
    finally:
        with _lock:
            _waits.discard(wait)
        _current.reset(before)


def answered() -> None:
    """The host of the current request has begun to answer."""
    if (wait := _current.get()) is not None:
        wait.answered = True


def _tick(loop: asyncio.AbstractEventLoop) -> None:
    now = time.monotonic()
    with _lock:
        waits = sorted(_waits, key=lambda wait: wait.begun)
        for host in [host for host, when in _said.items() if now - when >= AGAIN]:
            del _said[host]
        if not waits:
            _ticking.clear()
            return
        lines = {wait.host: line for wait in reversed(waits) if (line := wait.line(now))}
        due = [host for host in lines if host not in _said]
        _said.update(dict.fromkeys(due, now))
    loop.call_later(0.5, _tick, loop)
    for host in due:
        logger.warning("%s", lines[host])


def _after_fork() -> None:
    _waits.clear()
    _ticking.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
