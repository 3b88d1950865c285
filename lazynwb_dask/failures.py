"""Failures that only show while reading, told to whoever computed: here, or over a cluster's events."""

from __future__ import annotations

import sys
import threading
import warnings
from collections import deque
from collections.abc import Container
from typing import Any

from .errors import Failure

TOPIC = "lazynwb-dask-failures"
KEPT = 10_000

_kept: deque[tuple[str, Failure]] = deque(maxlen=KEPT)
_lock = threading.Lock()


def warn_skipped(failures: list[Failure], count: int) -> None:
    """Warn of files that were left out while planning.

    Parameters
    ----------
    failures : list of Failure
    count : int
        Of all files.
    """
    if failures:
        warnings.warn(
            f"{len(failures)} of {count} files can't be read and are left out (the first: "
            f"{failures[0].path}: {failures[0].error}); lazynwb_dask.read_report(frame) lists them",
            stacklevel=3,
        )


def note(origin: str, failures: list[Failure]) -> None:
    """Take note of files that a frame lacks, in this process.

    Parameters
    ----------
    origin : str
        What tells the frame from others.
    failures : list of Failure
    """
    with _lock:
        _kept.extend((origin, failure) for failure in failures)


def noted(origins: Container[str]) -> list[tuple[str, str, str]]:
    """What was noted of some frames."""
    with _lock:
        return [(f.path, f.stage, f.error) for origin, f in _kept if origin in origins]


def tell(origin: str, failures: list[Failure]) -> None:
    """Take note of files that a read left out, and warn of them.

    Parameters
    ----------
    origin : str
        The token of the frame's scan.
    failures : list of Failure
    """
    message = (
        f"{failures[0].path} can't be read and is left out: {failures[0].error}; "
        "lazynwb_dask.read_report(frame) lists all"
    )
    worker = _worker()
    if worker is not None:
        from distributed.worker import warn

        worker.log_event(TOPIC, [(origin, f.path, f.stage, f.error) for f in failures])
        warn(message)
        return
    note(origin, failures)
    warnings.warn(message, stacklevel=2)


def told(origin: str) -> list[tuple[str, str, str]]:
    """What was told of a frame, in this process and by the workers of the active cluster."""
    found = noted({origin})
    client = _client()
    if client is not None:
        for _, event in client.get_events(TOPIC):
            found += [
                (path, stage, error) for token, path, stage, error in event if token == origin
            ]
    return found


def _worker() -> Any:
    if "distributed.worker" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _client() -> Any:
    if "distributed.client" not in sys.modules:
        return None
    from distributed.client import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    return None if client.asynchronous else client
