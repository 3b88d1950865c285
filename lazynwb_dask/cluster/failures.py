"""Files left out under ``on_error="skip"`` or ``on_missing="skip"``, for `read_report`. They are recorded
in this process, or sent as events to the scheduler. The processes of Dask's multiprocessing scheduler can
do neither: there each failure is a warning on standard error."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Container

from lazynwb_dask.cluster.client import active_client, this_worker
from lazynwb_dask.errors import Failure
from lazynwb_dask.util.locks import Lock
from lazynwb_dask.util.warn import warn

TOPIC = "lazynwb-dask-failures"
KEPT = 10_000
EVERY = 60  # seconds between two warnings of one frame

_kept: deque[tuple[str, Failure]] = deque(maxlen=KEPT)
_warned: deque[tuple[str, str]] = deque(maxlen=100)  # of what files lack, by origin
_last: dict[str, float] = {}  # when there was a warning, by origin
_lock = Lock()


def report_failures(origin: str, failures: list[Failure]) -> None:
    """Record the files that a read left out, and warn of the first one, at most once a minute of each frame.
    `origin` is the token of the frame's scan."""
    details = [f"{f.path} can't be read and is left out: {f.error}" for f in failures]
    with _lock:
        now = time.monotonic()
        is_new = now - _last.get(origin, -EVERY) >= EVERY
        if is_new:
            _last[origin] = now
    summary = [f"{details[0]}; lazynwb_dask.read_report(frame) lists all"] if is_new else []
    _report(origin, failures, summary, details)


def report_missing(origin: str, missing: list[Failure]) -> None:
    """Record files that lack a table or a column, and warn once of each. `origin` is the token of the
    frame's scan."""
    with _lock:
        found = dict.fromkeys((origin, one.error) for one in missing)
        new = [one for one in found if one not in _warned]
        _warned.extend(new)
    hint = "lazynwb_dask.read_report(frame) lists them; on_missing='raise' makes this an error"
    summary = [f"in some files there is {what}; {hint}" for _, what in new]
    _report(origin, missing, summary, [f"{f.path}: there is {f.error}" for f in missing])


def _report(origin: str, failures: list[Failure], summary: list[str], details: list[str]) -> None:
    worker = this_worker()
    if worker is not None:
        worker.log_event(TOPIC, [(origin, f.path, f.stage, f.error) for f in failures])
        for message in summary:
            worker.log_event("warn", message)  # the client warns; the worker prints nothing
        return
    record(origin, failures)
    # records in a process of the multiprocessing scheduler are lost
    lost = multiprocessing.parent_process() is not None
    for message in details if lost else summary:
        warn(message)


def record(origin: str, failures: list[Failure]) -> None:
    """Record failures in this process. `origin` is the token of the frame's scan, or the name of its
    expression."""
    with _lock:
        _kept.extend((origin, failure) for failure in failures)


def recorded(origins: Container[str]) -> list[tuple[str, str, str]]:
    """The path, stage and error of all failures of some frames, in this process and in the active
    cluster."""
    with _lock:
        found = [(f.path, f.stage, f.error) for origin, f in _kept if origin in origins]
    client = active_client()
    if client is not None:
        for _, event in client.get_events(TOPIC):
            found += [(path, stage, error) for token, path, stage, error in event if token in origins]
    return found
