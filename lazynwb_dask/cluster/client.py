"""The active Dask cluster, if there is one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from lazynwb_dask.storage.memory_budget import ProcessMemory, release


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


def memory() -> ProcessMemory | None:
    """What the worker of the current task may use; None elsewhere, or where there is no limit."""
    worker = this_worker()
    limit = None if worker is None else worker.memory_manager.memory_limit
    if not limit:
        return None
    _release_while_paused(worker)
    return ProcessMemory(limit, worker.monitor.get_process_memory, partial(_movable, worker))


def _movable(worker: Any) -> int:
    """Bytes of results that Dask writes to the worker's disk when its memory runs short."""
    in_memory = getattr(
        worker.data, "fast", None
    )  # absent where the worker is to keep all in memory
    return int(getattr(in_memory, "total_weight", 0))


def _release_while_paused(worker: Any) -> None:
    """Have freed memory given back to the system as long as Dask has paused a worker.

    Arrow would not give it back, as nothing asks for more while no task runs, and the worker would stay
    paused for ever.
    """
    from distributed.core import Status
    from tornado.ioloop import PeriodicCallback

    name = "lazynwb-dask-release"
    if name in worker.periodic_callbacks:
        return

    def look() -> None:
        if worker.status == Status.paused:
            release()

    callback = PeriodicCallback(look, 1000)
    if worker.periodic_callbacks.setdefault(name, callback) is callback:
        worker.loop.add_callback(callback.start)


def memory_of_a_thread() -> int | None:
    """Bytes for each thread of the active cluster's workers, of the one that has least; None without."""
    client = active_client()
    if client is None:
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    shares = [w["memory_limit"] // w["nthreads"] for w in workers if w["memory_limit"]]
    return min(shares, default=None)


def cancellation_check() -> Callable[[], bool] | None:
    """A function that returns whether the current task was cancelled, to be called again and again meanwhile.

    Dask does not interrupt tasks. None where tasks can't be cancelled.
    """
    worker = this_worker()
    if worker is None:
        return None
    from distributed.worker import thread_state

    key = getattr(thread_state, "key", None)
    tasks = worker.state.tasks
    if key is None or key not in tasks:
        return None

    def is_cancelled() -> bool:
        task = tasks.get(key)
        return task is None or task.state == "cancelled"

    return is_cancelled


_compared: set[str] = set()


def compare_versions() -> None:
    """Warn, once for each client, if the cluster has another version of this package, or lacks it."""
    client = active_client()
    if client is None or client.id in _compared or client.status != "running":
        return
    _compared.add(client.id)
    found: dict[str, list[str]] = {}
    for address, answer in client.run(_version, on_error="return").items():
        found.setdefault(_said(answer), []).append(f"the worker {address}")
    try:
        scheduler = client.run_on_scheduler(_version)
    except Exception as exc:
        scheduler = exc
    found.setdefault(_said(scheduler), []).append("the scheduler")
    here = _version()
    others = [
        f"{version} on {places[0]}" + (f" and {len(places) - 1} more" if len(places) > 1 else "")
        for version, places in found.items()
        if version != here
    ]
    if others:
        warnings.warn(
            f"lazynwb_dask is {here} here, but {', '.join(others)}: install the same version everywhere",
            stacklevel=4,
        )


def _version() -> str:
    from lazynwb_dask._version import __version__

    return __version__


def _said(answer: object) -> str:
    return answer if isinstance(answer, str) else f"missing ({type(answer).__name__})"
