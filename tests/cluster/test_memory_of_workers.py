"""A worker that has little memory: what doesn't fit waits, or is an error that says what to change."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster, get_worker, wait
from distributed.core import Status
from files import nwb, table

import lazynwb_dask
from lazynwb_dask.errors import NWBMemoryError
from lazynwb_dask.storage import memory_budget as memory
from lazynwb_dask.storage.runtime import ReadCancelled

MIB = 1 << 20
ROWS = 64


@pytest.fixture(autouse=True)
def quick_release() -> Iterator[None]:
    """What other tests have left takes long to look through, each time that memory is released."""
    gc.freeze()
    yield
    gc.unfreeze()


@cache
def idle() -> int:
    """MiB that a worker uses once it has read something small: on some machines more than on others."""
    with (
        TemporaryDirectory() as folder,
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        lazynwb_dask.read_nwb(large(Path(folder) / "small.nwb", 1), "/units").compute()
        (used,) = client.run(lambda dask_worker: dask_worker.monitor.get_process_memory()).values()
        return int(used) // MIB


@contextmanager
def worker(room: int, threads: int = 1) -> Iterator[Client]:
    """One process, which may not be killed even once, of which one task can take about so many MiB."""
    limit = int((idle() + room) / memory.ALONE)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=1, threads_per_worker=threads, memory_limit=f"{limit} MiB", dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(1)
        before = client.run(os.getpid)
        yield client
        assert client.run(os.getpid) == before, "the worker died"


def large(path: Path, mib: int) -> str:
    """A file whose units take so much memory, though it is small itself; with a table of trials."""
    count = mib * MIB // 8
    with nwb(path) as file:
        units = table(file, "/units", ROWS, ["k", "spike_times"])
        units.create_dataset("k", data=np.arange(ROWS))
        data = units.create_dataset("spike_times", (count,), "<f8", chunks=(MIB // 8,), fillvalue=1.0)
        ends = np.arange(1, ROWS + 1) * (count // ROWS)
        units.create_dataset("spike_times_index", data=ends).attrs["target"] = data.ref
        trials = table(file, "/intervals/trials", 4, ["k", "t"])
        trials.create_dataset("k", data=np.arange(4))
        trials.create_dataset("t", data=np.arange(4.0))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("large")
    return [large(folder / f"s{i}.nwb", 128) for i in range(3)]


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> str:
    return large(tmp_path_factory.mktemp("huge") / "huge.nwb", 512)


def spikes(units: pd.DataFrame, **_: Any) -> pd.DataFrame:
    return pd.DataFrame({"n": [int(units["spike_times"].list.len().sum())]})


def counted(frame: Any) -> int:
    """The spikes of a frame, counted where they are read."""
    sums = frame.map_partitions(
        lambda part: pd.Series([part["spike_times"].list.len().sum()], dtype="int64"), meta=("n", "int64")
    )
    return int(sums.compute().sum())


def test_what_is_joined_of_a_file_is_an_error_where_it_cannot_fit(huge: str) -> None:
    units, trials = lazynwb_dask.read_nwb(huge, "/units"), lazynwb_dask.read_nwb(huge, "trials")
    joined = lazynwb_dask.merge_by_file(units[["k", "spike_times"]], trials[["k", "t"]], on="k", how="left")
    mapped = lazynwb_dask.map_files(spikes, units=units, trials=trials, meta={"n": "int64"})
    with worker(200):
        for compute in (mapped.compute, lambda: counted(joined)):
            with pytest.raises(NWBMemoryError, match=r"huge\.nwb.*fewer columns.*memory_limit") as caught:
                compute()
            assert "blocksize" not in str(caught.value), "smaller blocks would change nothing"
        some = lazynwb_dask.merge_by_file(units[["k", "spike_times"]], trials[["k", "t"]], on="k", how="inner")
        assert counted(some) == 4 * (512 * MIB // 8 // ROWS), "of which it has room for what is left"


@pytest.mark.parametrize("threads", [1, 4])
def test_whole_files_that_fit_one_by_one_are_read_one_by_one(files: list[str], threads: int) -> None:
    whole = lazynwb_dask.read_nwb(files, "/units", blocksize=None)
    with worker(330, threads):
        assert counted(whole) == 3 * 128 * MIB // 8
        mapped = lazynwb_dask.map_files(spikes, units=whole, meta={"n": "int64"})
        assert mapped["n"].compute().tolist() == [128 * MIB // 8] * 3


def test_frames_planned_before_there_was_a_worker_are_read(files: list[str]) -> None:
    frame = lazynwb_dask.read_nwb(files, "/units")
    with worker(200, 4):
        assert counted(frame) == 3 * 128 * MIB // 8


def test_a_function_of_files_may_itself_compute_what_is_read(files: list[str]) -> None:
    units = lazynwb_dask.read_nwb(files, "/units", blocksize=None)

    def nested(units: pd.DataFrame) -> pd.DataFrame:
        path = units["_nwb_path"].iloc[0]
        more = lazynwb_dask.read_nwb(path, "/units", blocksize=None)["spike_times"]
        del units
        return pd.DataFrame({"n": [len(more.compute(scheduler="sync"))]})

    mapped = lazynwb_dask.map_files(nested, units=units, meta={"n": "int64"})
    with worker(585):
        assert mapped["n"].compute().tolist() == [ROWS] * 3


def test_a_large_result_goes_to_the_disk_and_comes_back(files: list[str]) -> None:
    with worker(185) as client:
        kept = lazynwb_dask.read_nwb(files[0], "/units", blocksize=None).persist()
        assert {future.status for future in wait(kept).done} == {"finished"}
        client.run(lambda dask_worker: len(dask_worker.data.memory) and dask_worker.data.evict())
        _wait_for(
            lambda: (
                sum(client.run(lambda dask_worker: dask_worker.monitor.get_process_memory()).values())
                < (idle() + 70) * MIB
            )
        )
        assert counted(kept) == 128 * MIB // 8


def test_a_result_is_written_to_the_disk_without_a_copy_of_it_in_memory(files: list[str]) -> None:
    names = ["spike_times", "_nwb_path"]
    frame = lazynwb_dask.read_nwb(files[0], "/units", columns=names).compute(scheduler="sync")
    for part, copied in ((frame, 1 * MIB), (frame.iloc[:8], 20 * MIB)):
        buffers: list[pickle.PickleBuffer] = []
        before = pa.total_allocated_bytes()
        content = pickle.dumps(part, protocol=5, buffer_callback=buffers.append)
        assert pa.total_allocated_bytes() - before < copied
        written = sum(buffer.raw().nbytes for buffer in buffers)
        assert written < len(part) * 2.1 * MIB, "nor what a part was cut from"
        again = pickle.loads(content, buffers=buffers)
        for name in names:
            assert pa.array(again[name]).equals(pa.array(part[name]))
            assert again[name].dtype == part[name].dtype


def limited(used: int = 0) -> memory.ProcessMemory:
    return memory.ProcessMemory(1000 * MIB, lambda: used * MIB, tuple)


def test_a_task_that_needs_more_than_expected_reads_again_when_it_is_alone() -> None:
    other, begun = threading.Event(), threading.Event()
    tries: list[bool] = []

    def small(reservation: memory.Reservation) -> None:
        begun.set()
        assert other.wait(30)

    def large(reservation: memory.Reservation) -> str:
        tries.append(reservation.alone)
        try:
            reservation.take(500 * MIB, lambda: "large")
        finally:
            other.set()
        return "read"

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(memory.within, limited(), 400 * MIB, small, "")
        assert begun.wait(30)
        assert memory.within(limited(), 100 * MIB, large, "") == "read"
        held.result(30)
    assert tries == [False, True]


def test_a_task_waits_until_what_others_have_reserved_is_released() -> None:
    over, waiting, events = threading.Event(), threading.Event(), list[str]()
    end = time.monotonic() + 60

    def first(reservation: memory.Reservation) -> None:
        reservation.take(400 * MIB, lambda: "first")
        events.append("first begins")
        assert over.wait(30)
        events.append("first ends")

    def second(reservation: memory.Reservation) -> None:
        reservation.take(300 * MIB, lambda: "second")
        events.append("second begins")

    def third(reservation: memory.Reservation) -> None:
        events.append("third begins")

    def waits() -> bool:
        waiting.set()
        return time.monotonic() > end  # then it is cancelled

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(memory.within, limited(), 400 * MIB, first, "")]
        _wait_for(lambda: events == ["first begins"])
        running.append(pool.submit(memory.within, limited(), 300 * MIB, second, "", waits))
        assert waiting.wait(30)
        running.append(pool.submit(memory.within, limited(), 200 * MIB, third, "", waits))
        time.sleep(5 * memory.POLL)
        assert events == ["first begins"], "700 MiB don't fit; and who came later waits behind"
        over.set()
        for one in running:
            one.result(30)
    assert events[:2] == ["first begins", "first ends"]
    assert sorted(events[2:]) == ["second begins", "third begins"]


def _wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("surprises", [False, True])
def test_never_is_more_reserved_than_the_budget_has(surprises: bool) -> None:
    sizes = np.random.default_rng(0).integers(20, 700, 60).tolist()
    lock, reading, peak = threading.Lock(), list[int](), list[int]()

    def task(size: int) -> str:
        def read(reservation: memory.Reservation) -> str:
            reservation.take(size * MIB, lambda: f"{size} MiB")
            with lock:
                reading.append(size)
                peak.append(sum(reading))
            time.sleep(0.002)
            with lock:
                reading.remove(size)
            return "read"

        # more may turn out to be needed than was expected
        expected = size // 3 if surprises else size
        return memory.within(limited(), expected * MIB, read, "")

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(task, sizes)) == ["read"] * len(sizes)
    assert len(peak) == len(sizes)
    assert max(peak) <= 1000 * memory.ALONE
    assert max(peak) > 650 - 20, "of which as much is used as there is"
    together = [one for one in peak if one not in sizes]
    assert together
    assert max(together) <= 1000 * memory.TOGETHER


def test_what_can_never_fit_is_an_error_at_once() -> None:
    def read(reservation: memory.Reservation) -> None:
        reservation.take(900 * MIB, lambda: "s.nwb: /units")

    with pytest.raises(NWBMemoryError, match=r"s\.nwb: /units.*900 MiB.*1000 MiB.*memory_limit"):
        memory.within(limited(100), 10, read, "memory_limit=")


def _enter() -> None:
    memory.within(limited(), 600 * MIB, lambda _: os._exit(7), "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_the_whole_budget() -> None:
    def fork(reservation: memory.Reservation) -> int | None:
        child = multiprocessing.get_context("fork").Process(target=_enter)
        child.start()
        child.join(30)
        return child.exitcode

    assert memory.within(limited(), 600 * MIB, fork, "") == 7


def test_little_is_read_however_much_is_in_use() -> None:
    begun = time.monotonic()

    def read(reservation: memory.Reservation) -> str:
        reservation.take(1 << 20, lambda: "a little")
        return "read"

    with ThreadPoolExecutor(8) as pool:
        some = [pool.submit(memory.within, limited(1000), 1 << 20, read, "") for _ in range(8)]
        assert [one.result() for one in some] == ["read"] * 8
    assert time.monotonic() - begun < memory.PATIENCE


def test_results_are_moved_to_the_disk_before_their_memory_is_taken() -> None:
    results = [100 * MIB] * 3
    limit, used = 1000 * MIB, lambda: 300 * MIB + sum(results)
    budget = memory.ProcessMemory(limit, used, lambda: results, lambda: results and results.pop())

    def read(reservation: memory.Reservation) -> int:
        reservation.take(400 * MIB, lambda: "large")
        return used()

    assert memory.within(budget, 400 * MIB, read, "") + 400 * MIB <= limit * memory.ALONE
    assert results, "no more than it takes"


def test_there_is_room_for_a_result_that_is_copied_to_be_moved_or_comes_back() -> None:
    results = [200 * MIB] * 2
    used = lambda: 200 * MIB + sum(results)  # noqa: E731
    budget = memory.ProcessMemory(1000 * MIB, used, lambda: results, lambda: results and results.pop())

    def read(reservation: memory.Reservation) -> int:
        reservation.take(150 * MIB, lambda: "some")
        return used() + 150 * MIB + max(results, default=0)

    assert memory.within(budget, 700 * MIB, read, "") <= 900 * MIB


@pytest.mark.parametrize("moves", [True, False])
def test_what_can_not_be_moved_is_not_taken_and_what_is_moved_slowly_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, moves: bool
) -> None:
    monkeypatch.setattr(memory, "PATIENCE", 0.5)
    monkeypatch.setattr(memory, "SETTLING", 0.1)
    results = [60 * MIB] * 8

    def move() -> None:
        if moves:
            time.sleep(0.2)  # in all longer than the patience
            results and results.pop()

    budget = memory.ProcessMemory(1000 * MIB, lambda: 300 * MIB + sum(results), lambda: results, move)

    def read(reservation: memory.Reservation) -> str:
        reservation.take(400 * MIB, lambda: "s.nwb: /units")
        return "read"

    if moves:
        assert memory.within(budget, 400 * MIB, read, "") == "read"
    else:
        with pytest.raises(NWBMemoryError, match=r"s\.nwb: /units"):
            memory.within(budget, 400 * MIB, read, "")


def test_tasks_that_use_up_results_have_their_turn_before_the_next_read() -> None:
    results = [60 * MIB]
    used = threading.Timer(0.3, results.clear)
    used.start()

    def read(reservation: memory.Reservation) -> int:
        reservation.take(200 * MIB, lambda: "some")
        return len(results)

    budget = memory.ProcessMemory(1000 * MIB, lambda: 500 * MIB + sum(results), lambda: results)
    assert memory.within(budget, 200 * MIB, read, "") == 0


def test_a_task_waits_for_others_to_release_their_results_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "PATIENCE", 1.0)
    in_use = [600, 600, 600, 600, 100]
    for used, fits in ((lambda: in_use.pop(0) if in_use[1:] else 100, True), (lambda: 600, False)):
        released = memory.ProcessMemory(1000 * MIB, lambda used=used: used() * MIB, tuple)

        def read(reservation: memory.Reservation) -> str:
            reservation.take(400 * MIB, lambda: "s.nwb: /units")
            return "read"

        if fits:
            assert memory.within(released, 400 * MIB, read, "") == "read"
        else:
            with pytest.raises(NWBMemoryError, match=r"s\.nwb: /units.*600 MiB are in use.*less"):
                memory.within(released, 400 * MIB, read, "read less")


def test_a_cancelled_task_waits_no_longer() -> None:
    other, begun = threading.Event(), threading.Event()

    def reading(_: memory.Reservation) -> None:
        begun.set()
        assert other.wait(30)

    def alone(reservation: memory.Reservation) -> None:
        reservation.take(400 * MIB, lambda: "")

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(memory.within, limited(), 600 * MIB, reading, "")
        assert begun.wait(30)
        with pytest.raises(ReadCancelled):  # while it waits to begin
            memory.within(limited(), 600 * MIB, lambda _: None, "", lambda: True)
        other.set()
        held.result(30)
    with pytest.raises(ReadCancelled):  # while it waits for memory
        memory.within(limited(600), 400 * MIB, alone, "", lambda: True)


def test_what_a_function_reads_that_has_its_rows_never_waits_for_it() -> None:
    def read(reservation: memory.Reservation) -> str:
        reservation.take(600 * MIB, lambda: "outer")
        reservation.give_back()
        return memory.within(limited(600), 200 * MIB, nested, "")

    def nested(reservation: memory.Reservation) -> str:
        reservation.take(200 * MIB, lambda: "nested")
        return "read"

    assert memory.within(limited(), 600 * MIB, read, "") == "read"


def _fill(part: float) -> str:
    """Have Dask pause this worker for want of memory; then free it."""
    worker = get_worker()
    missing = int(worker.memory_manager.memory_limit * part) - worker.monitor.get_process_memory()
    held = [pa.allocate_buffer(4 * MIB) for _ in range(missing // (4 * MIB))]
    for buffer in held:
        np.frombuffer(buffer, np.uint8)[:] = 1
    end = time.monotonic() + 20
    while worker.status != Status.paused and time.monotonic() < end:
        time.sleep(0.1)
    return str(worker.status)


def test_a_worker_goes_on_once_the_memory_is_free_for_which_dask_paused_it(files: list[str]) -> None:
    with worker(200) as client:
        assert len(lazynwb_dask.read_nwb(files[0], "trials").compute()) == 4
        assert client.submit(_fill, 0.85).result(60) == str(Status.paused)
        assert client.submit(sum, [1, 2]).result(60) == 3
