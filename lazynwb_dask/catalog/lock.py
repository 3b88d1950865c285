"""The lock of a catalog: one build or refresh at a time. The lock file names its owner, who rewrites it
every `RENEW` seconds. If it doesn't change for `SILENT` seconds the owner counts as dead and another
process takes over. Clocks of different machines are not compared."""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.errors import NWBError, NWBFileChangedError
from lazynwb_dask.model.source import is_local, shown
from lazynwb_dask.util.warn import warn

LOCK = "_lock"
RENEW = 10.0
SILENT = 60.0
POLL = 0.5  # seconds between two looks at a lock that somebody else holds
TRIES = 20  # to read a lock that is written again and again
SETTLE = 1.0  # seconds after which a lock that was written without a guarantee is read back


@contextmanager
def locked(folder: Folder, what: str = "catalog") -> Iterator[Callable[[], None]]:
    """Wait for the lock and hold it. Yields a check that raises NWBError once another process has it."""
    lock = _Lock(folder, what)
    over = threading.Event()
    thread = threading.Thread(target=lock.renew, args=(over,), daemon=True)
    _mine.append(lock)
    try:
        lock.take()
        thread.start()
        yield lock.check
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()  # or it might write the lock again
        lock.remove()
        _mine.remove(lock)


def let_go() -> None:
    """Remove the locks that this process has, which is about to end."""
    for lock in _mine:
        lock.remove()


class _Lock:
    def __init__(self, folder: Folder, what: str = "catalog") -> None:
        self._folder, self._what = folder, what
        self._content = {"id": uuid.uuid4().hex, "owner": _owner()}

    def take(self) -> None:
        seen: bytes | None = None
        begun, announced = 0.0, ""
        while True:
            held = self._held()
            if held is None or (held == seen and time.monotonic() - begun > SILENT):
                if self._write(free=held is None):
                    return
                continue
            owner = _parsed(held).get("owner", "another process")
            if held != seen:
                seen, begun = held, time.monotonic()
            elif owner != announced:
                announced = owner
                warn(
                    f"{shown(self._folder.url)}: {owner} is building this {self._what}; waiting until that "
                    f"ends. If that process was killed, this one takes over after {SILENT:.0f} s"
                )
            time.sleep(POLL)

    def _write(self, free: bool) -> bool:
        """Take a lock that is free, or whose owner is silent. False if another process was faster."""
        if free:
            self._folder.create(LOCK, self._text())
        else:
            self._folder.write(LOCK, self._text())
        if not (free and is_local(self._folder.url)):
            time.sleep(SETTLE)  # where two may have written it, the last one has it
        return self.is_mine()

    def _held(self) -> bytes | None:
        for _ in range(TRIES):
            with suppress(NWBFileChangedError):  # it was written while it was read
                return self._folder.read(LOCK)
            time.sleep(POLL / 10)
        return self._folder.read(LOCK)

    def is_mine(self) -> bool:
        return bool(_parsed(self._held()).get("id") == self._content["id"])

    def remove(self) -> None:
        with suppress(NWBError, OSError):
            if self.is_mine():
                self._folder.remove([LOCK])

    def check(self) -> None:
        held = _parsed(self._held())
        if held.get("id") != self._content["id"]:
            raise NWBError(
                f"{shown(self._folder.url)}: this process has not renewed the {self._what}'s lock for more "
                f"than {SILENT:.0f} s, and {held.get('owner', 'another process')} has taken it over. What was "
                "done is kept: the same call goes on from there"
            )

    def renew(self, over: threading.Event) -> None:
        while not over.wait(RENEW):
            with suppress(NWBError, OSError):  # retried after `RENEW` seconds
                if not self.is_mine():
                    return
                self._folder.write(LOCK, self._text())

    def _text(self) -> bytes:
        return json.dumps({**self._content, "renewed": _now()}).encode()


_mine: list[_Lock] = []


def _parsed(text: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(text or b"")
    except ValueError:  # it is just being written
        return {}
    return found if isinstance(found, dict) else {}


def _owner() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        user = "somebody"
    return f"{user} on {socket.gethostname()} (process {os.getpid()})"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
