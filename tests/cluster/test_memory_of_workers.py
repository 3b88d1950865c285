"""A worker that has little memory: what doesn't fit waits, or is an error that says what to change."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from files import nwb, table

import lazynwb_dask
from lazynwb_dask.errors import NWBMemoryError
from lazynwb_dask.storage import memory_budget as memory

MIB = 1 << 20
ROWS = 64


@contextmanager
def worker(limit: str, threads: int = 1) -> Iterator[Client]:
    """One process, which may not be killed even once."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=1, threads_per_worker=threads, memory_limit=limit, dashboard_address=None
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
        data = units.create_dataset(
            "spike_times", (count,), "<f8", chunks=(MIB // 8,), fillvalue=1.0
        )
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
        lambda part: pd.Series([part["spike_times"].list.len().sum()], dtype="int64"),
        meta=("n", "int64"),
    )
    return int(sums.compute().sum())


def test_what_is_joined_of_a_file_is_an_error_where_it_cannot_fit(huge: str) -> None:
    units, trials = lazynwb_dask.read_nwb(huge, "/units"), lazynwb_dask.read_nwb(huge, "trials")
    joined = lazynwb_dask.merge_by_file(
        units[["k", "spike_times"]], trials[["k", "t"]], on="k", how="left"
    )
    mapped = lazynwb_dask.map_files(spikes, units=units, trials=trials, meta={"n": "int64"})
    with worker("480 MiB"):
        for compute in (mapped.compute, lambda: counted(joined)):
            with pytest.raises(
                NWBMemoryError, match=r"huge\.nwb.*fewer columns.*memory_limit"
            ) as caught:
                compute()
            assert "blocksize" not in str(caught.value), "smaller blocks would change nothing"
        some = lazynwb_dask.merge_by_file(
            units[["k", "spike_times"]], trials[["k", "t"]], on="k", how="inner"
        )
        assert counted(some) == 4 * (512 * MIB // 8 // ROWS), (
            "of which it has room for what is left"
        )


@pytest.mark.parametrize("threads", [1, 4])
def test_whole_files_that_fit_one_by_one_are_read_one_by_one(
    files: list[str], threads: int
) -> None:
    whole = lazynwb_dask.read_nwb(files, "/units", blocksize=None)
    with worker("640 MiB", threads):
        assert counted(whole) == 3 * 128 * MIB // 8
        mapped = lazynwb_dask.map_files(spikes, units=whole, meta={"n": "int64"})
        assert mapped["n"].compute().tolist() == [128 * MIB // 8] * 3


def test_frames_planned_before_there_was_a_worker_are_read(
    files: list[str],
) -> None:
    frame = lazynwb_dask.read_nwb(files, "/units")
    with worker("480 MiB", 4):
        assert counted(frame) == 3 * 128 * MIB // 8


def test_a_function_of_files_may_itself_compute_what_is_read(files: list[str]) -> None:
    units = lazynwb_dask.read_nwb(files, "/units", blocksize=None)

    def nested(units: pd.DataFrame) -> pd.DataFrame:
        path = units["_nwb_path"].iloc[0]
        more = lazynwb_dask.read_nwb(path, "/units", blocksize=None)["spike_times"]
        del units
        return pd.DataFrame({"n": [len(more.compute(scheduler="sync"))]})

    mapped = lazynwb_dask.map_files(nested, units=units, meta={"n": "int64"})
    with worker("960 MiB"):
        assert mapped["n"].compute().tolist() == [ROWS] * 3


def bounds(used: int = 0) -> memory.Bounds:
    return memory.Bounds(1000 * MIB, lambda: used * MIB, lambda: False)


def test_a_task_that_needs_more_than_expected_reads_again_when_it_is_alone() -> None:
    other, begun = threading.Event(), threading.Event()
    tries: list[bool] = []

    def small(share: memory.Share) -> None:
        begun.set()
        assert other.wait(30)

    def large(share: memory.Share) -> str:
        tries.append(share.alone)
        try:
            share.take(500 * MIB, lambda: "large")
        finally:
            other.set()
        return "read"

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(memory.within, bounds(), 400 * MIB, small, "")
        assert begun.wait(30)
        assert memory.within(bounds(), 100 * MIB, large, "") == "read"
        held.result(30)
    assert tries == [False, True]


def test_what_can_never_fit_is_an_error_at_once() -> None:
    def read(share: memory.Share) -> None:
        share.take(900 * MIB, lambda: "s.nwb: /units")

    with pytest.raises(NWBMemoryError, match=r"s\.nwb: /units.*900 MiB.*1000 MiB.*memory_limit"):
        memory.within(bounds(100), 10, read, "memory_limit=")


def _enter() -> None:
    memory.within(bounds(), 600 * MIB, lambda share: os._exit(7), "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_has_all_the_room() -> None:
    def fork(share: memory.Share) -> int | None:
        child = multiprocessing.get_context("fork").Process(target=_enter)
        child.start()
        child.join(30)
        return child.exitcode

    assert memory.within(bounds(), 600 * MIB, fork, "") == 7


def test_little_is_read_however_much_is_in_use() -> None:
    full = memory.Bounds(1 << 30, lambda: 1 << 30, lambda: False)
    begun = time.monotonic()

    def read(share: memory.Share) -> str:
        share.take(1 << 20, lambda: "a little")
        return "read"

    with ThreadPoolExecutor(8) as pool:
        some = [pool.submit(memory.within, full, 1 << 20, read, "") for _ in range(8)]
        assert [one.result() for one in some] == ["read"] * 8
    assert time.monotonic() - begun < memory.PATIENCE
