"""The client of the active Dask cluster, and the worker that runs the current task."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from lazynwb_dask._version import __version__
from lazynwb_dask.storage.memory_budget import Bounds

SPILLING = 10.0  # seconds that one result may take on its way to the disk
COMPARING = 10.0  # seconds that a cluster may take to say which versions it has
PACKAGE = "lazynwb_dask"


def active_client() -> Any:
    """The client of this thread or process; None without a cluster, or within a coroutine."""
    if "distributed.client" not in sys.modules:
        return None
    from distributed.client import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    return None if client.asynchronous else client


def this_worker() -> Any:
    """The worker that runs the current task; None elsewhere."""
    if "distributed.worker" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def memory() -> Bounds | None:
    """The memory limit of the worker that runs the current task; None elsewhere, or without a limit."""
    worker = this_worker()
    limit = None if worker is None else worker.memory_manager.memory_limit
    if not limit:
        return None
    return Bounds(limit, worker.monitor.get_process_memory, partial(_spill, worker))


def _spill(worker: Any) -> bool:
    """Write one result to the worker's disk, as Dask does when memory runs short. Return whether it was."""
    data, done = worker.data, Future[bool]()
    if not hasattr(data, "evict"):
        return False  # the worker is configured to keep all in memory

    def evict() -> None:
        moved = False
        try:
            moved = bool(data.fast) and data.evict() >= 0
        finally:
            done.set_result(moved)

    worker.loop.add_callback(evict)
    with suppress(TimeoutError):
        return done.result(SPILLING)
    return False


def memory_per_thread() -> int | None:
    """The least memory per thread of the active cluster's workers; None without a cluster or a limit."""
    client = active_client()
    if client is None:
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    shares = [w["memory_limit"] // w["nthreads"] for w in workers if w["memory_limit"]]
    return min(shares, default=None)


def cancelled_check() -> Callable[[], bool] | None:
    """A function that returns whether the current task was cancelled; None where tasks can't be.

    Dask does not interrupt tasks: reads call the function while they wait.
    """
    worker = this_worker()
    if worker is None:
        return None
    from distributed.worker import thread_state

    key = getattr(thread_state, "key", None)
    tasks = worker.state.tasks
    if key is None or key not in tasks:
        return None

    def check() -> bool:
        task = tasks.get(key)
        return task is None or task.state == "cancelled"

    return check


_compared: set[str] = set()


def compare_versions() -> None:
    """Warn, once for each client, of a scheduler or workers with another version of this package."""
    client = active_client()
    if client is None or client.id in _compared or client.status != "running":
        return
    _compared.add(client.id)
    try:
        # awaited in the client's event loop, so that the wait has an end
        found = client.sync(client.get_versions, packages=[PACKAGE], callback_timeout=COMPARING)
        parts = {"the scheduler": found["scheduler"]}
        parts |= {f"the worker {address}": part for address, part in found["workers"].items()}
        versions = {place: part["packages"].get(PACKAGE) for place, part in parts.items()}
        installed = found["client"]["packages"].get(PACKAGE)  # None where it runs from its source
    except Exception as exc:  # what is wrong with the cluster shows in the computation itself
        problem = f"the cluster's versions of {PACKAGE} are not known ({type(exc).__name__}: {exc})"
        warnings.warn(problem, stacklevel=4)
        return
    differing: dict[str | None, list[str]] = {}
    for place, version in versions.items():
        if version not in (__version__, installed):
            differing.setdefault(version, []).append(place)
    if differing:
        others = [
            f"{version or 'not installed'} on {where[0]}"
            + (f" and {len(where) - 1} more" if len(where) > 1 else "")
            for version, where in differing.items()
        ]
        warnings.warn(
            f"{PACKAGE} is {__version__} here, but {', '.join(others)}: "
            "install the same version everywhere",
            stacklevel=4,
        )
