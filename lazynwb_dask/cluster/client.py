"""The active Dask cluster, if there is one."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future
from functools import partial
from threading import get_ident
from typing import Any, TypeVar

import dask.config
from dask.system import CPU_COUNT

from lazynwb_dask._version import __version__
from lazynwb_dask.storage.memory_budget import NEGLIGIBLE, TOGETHER, ProcessMemory, release
from lazynwb_dask.util import buffers
from lazynwb_dask.util.warn import warn

T = TypeVar("T")

GIVEN_UP = 300.0  # seconds after which the scheduler gives a worker up whose event loop doesn't turn
COMPARING = 10.0  # seconds that a cluster may take to say which versions it has
PACKAGE = "lazynwb_dask"


def active_client() -> Any:
    """The client of this thread or process; None without a cluster, or for an asynchronous client."""
    if "distributed.client" not in sys.modules:
        return None
    from distributed.client import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    return None if client.asynchronous else client


def this_worker() -> Any:
    """The worker that runs the current task; None outside of tasks."""
    if "distributed.worker" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def memory() -> ProcessMemory | None:
    """The memory that the current task's worker may use; None outside of tasks, or without a limit."""
    worker = this_worker()
    limit = None if worker is None else worker.memory_manager.memory_limit
    if not limit:
        return None
    _release_freed(worker)
    used = worker.monitor.get_process_memory
    in_memory, evict = getattr(worker.data, "fast", None), getattr(worker.data, "evict", None)
    if in_memory is None or evict is None:  # the worker never writes to disk
        return ProcessMemory(limit, used, tuple)
    # bytes of each result that Dask writes to the worker's disk when memory runs short
    movable = partial(_in_loop, worker, lambda: tuple(in_memory.weights.values()))
    return ProcessMemory(limit, used, movable, partial(_in_loop, worker, partial(_move, in_memory, evict)))


def _move(in_memory: Collection[Any], evict: Callable[[], int]) -> None:
    """Write the oldest results to the disk, until that shows."""
    moved = 0
    while in_memory and moved < NEGLIGIBLE and (weight := evict()) >= 0:
        moved += weight


def _in_loop(worker: Any, function: Callable[[], T]) -> T:
    """What a function returns in the worker's event loop, which first stores what tasks have returned."""
    if worker.thread_id == get_ident():  # an asynchronous task's
        return function()
    found = Future[T]()

    def run() -> None:
        try:
            found.set_result(function())
        except BaseException as exc:
            found.set_exception(exc)

    worker.loop.add_callback(run)
    return found.result(GIVEN_UP)


def _release_freed(worker: Any) -> None:
    """Return freed memory to the system while Dask has paused the worker, or moves results to the disk.
    Arrow only does so on allocations: the worker would stay paused forever, or lack it for what comes back."""
    from distributed.core import Status
    from tornado.ioloop import PeriodicCallback

    name = "lazynwb-dask-release"
    if name in worker.periodic_callbacks:
        return

    def look() -> None:
        if worker.status == Status.paused:
            release()
        elif worker.monitor.get_process_memory() > worker.memory_manager.memory_limit * TOGETHER:
            buffers.release()

    callback = PeriodicCallback(look, 500)
    if worker.periodic_callbacks.setdefault(name, callback) is callback:
        worker.loop.add_callback(callback.start)


def completed(client: Any, futures: Sequence[Any]) -> Generator[Any, None, None]:
    """The results of futures as they are completed. The first error ends it; what isn't done then is
    cancelled."""
    from distributed import as_completed

    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        client.cancel(futures)


def memory_per_thread() -> int | None:
    """The fewest bytes for a thread of any worker in the active cluster; None without cluster or limit."""
    client = active_client()
    if client is None:
        return None
    workers = client.scheduler_info(n_workers=-1).get("workers", {}).values()
    shares = [w["memory_limit"] // w["nthreads"] for w in workers if w["memory_limit"]]
    return min(shares, default=None)


def threads() -> int:
    """The threads that tasks of the next computation run on: of the active cluster, or of Dask's scheduler in
    this process."""
    client = active_client()
    if client is not None and dask.config.get("scheduler", None) in (None, "dask.distributed", "distributed"):
        found = _cluster_threads(client, int(time.monotonic()))
        if found:
            return found
    elif str(dask.config.get("scheduler", None)).startswith(("sync", "single")):
        return 1
    pool = dask.config.get("pool", None)
    of_pool = getattr(pool, "_max_workers", getattr(pool, "_processes", None))
    return int(of_pool or dask.config.get("num_workers", None) or CPU_COUNT)


@functools.lru_cache(maxsize=1)
def _cluster_threads(client: Any, second: int) -> int:
    """The threads of all workers, asked for at most once in each `second`; 0 while there are none."""
    return int(client.scheduler_info(n_workers=0).get("total_threads", 0))


def cancellation_check() -> Callable[[], bool] | None:
    """A function that returns whether the current task was cancelled, for repeated calls, as Dask doesn't
    interrupt tasks. None outside of tasks."""
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
    """Warn, once for each client, if the scheduler or workers have another version of this package."""
    client = active_client()
    if client is None or client.id in _compared or client.status != "running":
        return
    _compared.add(client.id)
    try:
        # in the client's event loop, so that there is a timeout
        found = client.sync(client.get_versions, packages=[PACKAGE], callback_timeout=COMPARING)
        parts = {"the scheduler": found["scheduler"]}
        parts |= {f"the worker {address}": part for address, part in found["workers"].items()}
        versions = {place: part["packages"].get(PACKAGE) for place, part in parts.items()}
        installed = found["client"]["packages"].get(PACKAGE)  # None where it runs from its source
    except Exception as exc:  # what is wrong with the cluster shows in the computation itself
        problem = f"the cluster's versions of {PACKAGE} are not known ({type(exc).__name__}: {exc})"
        warn(problem)
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
        warn(f"{PACKAGE} is {__version__} here, but {', '.join(others)}: install the same version everywhere")
