"""Failures that only show while reading, told to whoever computed: here, or over a cluster's events.

The processes of Dask's multiprocessing scheduler have no such events. They write into a folder that the
computing process made and named in its environment, which they have from it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import tempfile
import warnings
from collections import deque
from collections.abc import Container
from pathlib import Path

from lazynwb_dask.cluster.client import active_client, this_worker
from lazynwb_dask.errors import Failure
from lazynwb_dask.util.locks import Lock

TOPIC = "lazynwb-dask-failures"
KEPT = 10_000
FOLDER = "LAZYNWB_DASK_FAILURES"  # the environment variable that names it

_kept: deque[tuple[str, Failure]] = deque(maxlen=KEPT)
_warned: deque[tuple[str, str]] = deque(maxlen=100)  # of what files lack, by origin
_lock = Lock()


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


def record(origin: str, failures: list[Failure]) -> None:
    """Take note of files that a frame lacks, in this process.

    Parameters
    ----------
    origin : str
        What tells the frame from others.
    failures : list of Failure
    """
    with _lock:
        _kept.extend((origin, failure) for failure in failures)


def recorded(origins: Container[str]) -> list[tuple[str, str, str]]:
    """What was noted of some frames."""
    with _lock:
        return [(f.path, f.stage, f.error) for origin, f in _kept if origin in origins]


def report_failures(origin: str, failures: list[Failure]) -> None:
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
    _report(origin, failures, [message])


def report_missing(origin: str, lacking: list[Failure]) -> None:
    """Take note of files that lack a table or a column, and warn once of all of a frame.

    Parameters
    ----------
    origin : str
        The token of the frame's scan.
    lacking : list of Failure
    """
    with _lock:
        found = dict.fromkeys((origin, one.error) for one in lacking)
        new = [one for one in found if one not in _warned]
        _warned.extend(new)
    hint = "lazynwb_dask.read_report(frame) lists them; on_missing='raise' makes this an error"
    _report(origin, lacking, [f"in some files there is {what}; {hint}" for _, what in new])


def _report(origin: str, failures: list[Failure], messages: list[str]) -> None:
    worker = this_worker()
    if worker is not None:
        from distributed.worker import warn

        worker.log_event(TOPIC, [(origin, f.path, f.stage, f.error) for f in failures])
        for message in messages:
            warn(message)
        return
    for message in messages:
        warnings.warn(message, stacklevel=3)
    folder = os.environ.get(FOLDER)
    if folder is None or _own == (os.getpid(), folder):
        record(origin, failures)
        return
    lines = [json.dumps((origin, f.path, f.stage, f.error)) + "\n" for f in failures]
    # the folder may have gone with the process that waited for it
    own = Path(folder) / f"{os.getpid()}.jsonl"
    with _lock, contextlib.suppress(OSError), own.open("a", encoding="utf-8") as file:
        file.writelines(lines)


_own: tuple[int, str] | None = None  # this process, or the one it is a fork of; its folder


def listen() -> None:
    """Make it possible for processes that this one starts to tell it of failures."""
    global _own
    with _lock:
        elsewhere = this_worker() is not None or active_client() is not None  # which has events
        if (_own is None or _own[0] != os.getpid()) and not elsewhere:
            folder = os.environ[FOLDER] = tempfile.mkdtemp(prefix="lazynwb-dask-")
            _own = os.getpid(), folder
            atexit.register(_leave, *_own)


def _leave(process: int, folder: str) -> None:
    if os.getpid() == process:  # and not a fork of it
        shutil.rmtree(folder, ignore_errors=True)


def _written(origin: str) -> list[tuple[str, str, str]]:
    """What processes that this one started have told of a frame."""
    found = []
    for file in sorted(Path(_own[1]).glob("*.jsonl")) if _own else []:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):  # written to its end
                    token, *failure = json.loads(line)
                    if token == origin:
                        found.append(tuple(failure))
    return found


def reported(origin: str) -> list[tuple[str, str, str]]:
    """What was told of a frame: in this process, by those it started, by workers of the active cluster."""
    found = recorded({origin}) + _written(origin)
    client = active_client()
    if client is not None:
        for _, event in client.get_events(TOPIC):
            found += [
                (path, stage, error) for token, path, stage, error in event if token == origin
            ]
    return found
