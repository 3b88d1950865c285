"""Many threads, files and kinds of stores at once, the garbage collector at work: nothing stands still.

h5py holds one lock for the whole process, and the garbage collector may run finalizers in any thread, also in
one that holds that lock, or on the event loop. A reader that waited for the loop under the lock would sooner
or later wait for ever.
"""

from __future__ import annotations

import asyncio
import gc
import io
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
from files import nwb, table
from fsspec.asyn import get_loop
from servers import RangeServer, S3Server

from lazynwb_dask.cluster.execute import execute
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.plan import partitions as assembly
from lazynwb_dask.plan import schema
from lazynwb_dask.plan.index_files import index_files
from lazynwb_dask.scan.request import Selection, TableRequest
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

THREADS = 16
SECONDS = 4.0
STUCK = 60  # seconds: what hasn't ended by then never will


@contextmanager
def garbage_everywhere() -> Iterator[None]:
    """Collections at every few allocations, in whatever thread, and all the time in one of their own; and
    garbage in circles, of which only the collector can be rid, that needs h5py's lock to go, be it in a
    thread or on the event loop."""
    over = threading.Event()
    threshold = gc.get_threshold()
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        file["a/b/x"] = np.arange(10)

    def litter() -> None:
        held: dict[str, Any] = {"file": h5py.File(made, "r")}
        held["group"], held["self"] = held["file"]["a/b"], held

    def collect() -> None:
        while not over.wait(0.002):
            litter()
            gc.collect()

    async def collect_on_the_loop() -> None:
        while not over.is_set():
            litter()
            gc.collect()
            await asyncio.sleep(0.002)

    threads = [threading.Thread(target=collect, daemon=True)]
    on_loop = asyncio.run_coroutine_threadsafe(collect_on_the_loop(), get_loop())
    gc.freeze()  # what was there before is not looked through each time
    gc.set_threshold(1)
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        over.set()
        gc.set_threshold(*threshold)
        gc.unfreeze()
        for thread in threads:
            thread.join()
        on_loop.result()


@pytest.fixture
def sessions(tmp_path: Path) -> list[Path]:
    """Small files of both kinds of metadata, large enough to take several waves."""
    paths = [Path(p) for p in make_sessions(tmp_path / "old", n=2, units=20, mean_spikes=2000)]
    for i in range(2):
        with nwb(tmp_path / f"new{i}.nwb", libver="latest") as file:
            for j in range(6):
                file.create_dataset(f"raw{j}", data=np.zeros(60_000), chunks=(3_000,))
                group = table(file, f"/units{j}" if j else "/units", 20, ["x", "label"])
                group.create_dataset("x", data=np.arange(20.0) + i, chunks=(3,), compression="gzip")
                labels = [f"unit {k}" for k in range(20)]
                group.create_dataset("label", data=labels, dtype=h5py.string_dtype())
        paths.append(tmp_path / f"new{i}.nwb")
    return paths


@pytest.mark.timeout(STUCK, method="thread")  # shows where everybody stands, should they
def test_reading_everywhere_at_once_under_garbage_collection_never_stands_still(
    sessions: list[Path], range_server: RangeServer, s3_server: S3Server
) -> None:
    memory = fsspec.filesystem("memory")
    places: list[tuple[str, dict[str, Any] | None]] = []
    for path in sessions:
        data = path.read_bytes()
        memory.pipe(f"/stress/{path.name}", data)
        places += [
            (str(path), None),
            (range_server.put(path.name, data), None),
            (s3_server.put("stress", path.name, data, public=False), s3_server.storage_options),
            (f"memory://stress/{path.name}", None),
        ]
    wanted = {url: str(_read(url, options)) for url, options in places}
    assert len(set(wanted.values())) == len(sessions), "the same on every kind of store"
    begun = time.monotonic()
    done = [0] * THREADS

    def work(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < begun + SECONDS:
            url, options = chance.choice(places)
            assert str(_read(url, options)) == wanted[url]
            done[number] += 1

    with garbage_everywhere(), ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert all(done), "every thread got its turn"


def _read(url: str, options: dict[str, Any] | None) -> Any:
    """What a task does, and what planning does before, without Dask's part."""
    access, request = FileAccess(Options(options)), TableRequest("/units")
    (found,), _ = index_files(expand(url, access), request, access)
    assert found.table is not None
    unified = schema.unify([(url, found.table)])
    plan = assembly.build([(found.source, found.table)], unified, request, access.options)
    columns = [name for name in plan.fields if name != "_nwb_path"]
    return execute(plan, Selection(tuple(columns)), access.settings).to_dict()


_WAITING = """
import asyncio, faulthandler, gc, io, sys, threading, time
import h5py, numpy as np
from fsspec.asyn import get_loop, sync

faulthandler.dump_traceback_later(3, exit=True)
made = io.BytesIO()
with h5py.File(made, "w") as file:
    file["x"] = np.arange(10)

class Remote(io.BytesIO):  # waits for the loop while h5py holds its lock: what we never do
    def readinto(self, buffer):
        sync(get_loop(), asyncio.sleep, 0.001)
        return super().readinto(buffer)

async def litter():  # an h5py object that goes on the loop needs the lock
    while True:
        held = {"file": h5py.File(made, "r")}
        held["self"] = held
        del held
        gc.collect()
        await asyncio.sleep(0)

asyncio.run_coroutine_threadsafe(litter(), get_loop())
end = time.monotonic() + 2
while time.monotonic() < end:
    with h5py.File(Remote(made.getvalue()), "r") as file:
        file["x"][()]
print("never stood still")
"""


def test_this_would_show_a_reader_that_waits_under_the_lock() -> None:
    """The same circumstances stop a reader that does wait: so they are the right ones."""
    ended = subprocess.run([sys.executable, "-c", _WAITING], capture_output=True, text=True, timeout=60)
    assert "never stood still" not in ended.stdout
    assert "Timeout" in ended.stderr
