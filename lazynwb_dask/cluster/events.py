"""Events that tasks send to Dask's scheduler, with the requests and bytes of each file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from lazynwb_dask import config
from lazynwb_dask.cluster import client as cluster
from lazynwb_dask.storage import Settings
from lazynwb_dask.storage.counters import Tally

TOPIC = "lazynwb-dask"
"""The topic of the events: ``client.get_events("lazynwb-dask")``."""


@dataclass
class _Watch:
    """The requests that one task made to each file."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str, tally: Tally) -> None:
        now = time.monotonic()
        with self.lock:
            self.tallies.setdefault(name, Tally()).add(tally)
            self.begun.setdefault(name, now)
            self.ended[name] = now

    def events(self) -> list[dict[str, Any]]:
        return [
            {
                "file": name, "requests": tally.requests, "bytes": tally.bytes,
                "retries": tally.retries, "seconds": self.ended[name] - self.begun[name],
            }
            for name, tally in self.tallies.items()
        ]  # fmt: skip


@contextmanager
def observed() -> Iterator[Settings]:
    """The settings for a task's reads, which end soon after the task is cancelled. On a worker, the
    requests to each file are logged as an event."""
    settings, worker = config.settings(), cluster.this_worker()
    if worker is None:
        yield settings
        return
    watch = _Watch()
    try:
        yield replace(settings, report=watch.count, is_cancelled=cluster.cancellation_check())
    finally:
        if watch.tallies:
            worker.log_event(TOPIC, watch.events())
