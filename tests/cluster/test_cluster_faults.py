"""Workers that die, tasks that nobody wants any more, too little memory: what becomes of a read."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import h5py
import numpy as np
import oracle
import pytest
from distributed import Client, LocalCluster
from files import nwb, ragged, table
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.errors import NWBMemoryError, NWBReadError

MIB = 1 << 20


@contextmanager
def workers(count: int, *, memory: str = "2 GiB", **settings: object) -> Iterator[Client]:
    """A cluster of single-threaded processes with settings of their own."""
    own = {f"lazynwb-dask.{name}": value for name, value in settings.items()}
    with dask.config.set(own):
        cluster = LocalCluster(
            n_workers=count, threads_per_worker=1, memory_limit=memory, dashboard_address=None
        )
    with cluster, Client(cluster) as client:
        yield client


def session(folder: Path, number: int, units: int = 8) -> bytes:
    path = folder / "session.nwb"
    with nwb(path) as file:
        group = table(file, "/units", units, ["unit_id", "spike_times"])
        group.create_dataset("unit_id", data=np.arange(units) + 100 * number)
        ends = np.arange(1, units + 1) * 5000
        ragged(group, "spike_times", ends, np.arange(5000.0 * units) + number)
    return path.read_bytes()


def test_a_worker_that_is_killed_costs_only_what_it_had(tmp_path: Path) -> None:
    with RangeServer() as server, workers(2) as client:
        urls = [server.put(f"s{i}.nwb", session(tmp_path, i)) for i in range(12)]
        with dask.config.set({"lazynwb-dask.fuse": False}):
            frame = lazynwb_dask.read_nwb(urls, "/units")
            whole = frame.compute(scheduler="sync")
            server.clear_log()
            server.behaviour.latency = 0.2
            parts = client.persist(frame)
            deadline = time.monotonic() + 30
            while (
                len(client.has_what().values()) == 0
                or sum(len(held) for held in client.has_what().values()) < 4
            ):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            held = client.has_what()
            victim, survivor = sorted(held, key=lambda address: len(held[address]))
            safe = {f"s{key[1]}.nwb" for key in held[survivor]}
            process = client.run(os.getpid, workers=[victim])[victim]
            os.kill(process, signal.SIGKILL)
            got = parts.compute()
        oracle.assert_same(got, whole)
        asked = Counter(entry.path.strip("/") for entry in server.requests("GET"))
        once = min(asked.values())
        again = {name for name, count in asked.items() if count > once}
        assert safe
        assert not again & safe, "what another worker holds is not read again"
        assert max(asked.values()) <= 2 * once


def requests_until_quiet(server: RangeServer) -> int:
    """How many requests there were, once none has come for as long as ten take. On an idle machine that is
    within a second."""
    deadline = time.monotonic() + 30
    while True:
        before = len(server.requests("GET"))
        time.sleep(1.5)
        if len(server.requests("GET")) == before:
            return before
        assert time.monotonic() < deadline


def test_a_cancelled_read_sends_no_request_after_a_second(tmp_path: Path) -> None:
    with RangeServer() as server, workers(1, connections=1, gap=0, split=4096) as client:
        url = server.put("s.nwb", session(tmp_path, 1))
        frame = lazynwb_dask.read_nwb(url, "/units")
        server.behaviour.latency = 0.15
        server.clear_log()
        future = client.compute(frame)
        deadline = time.monotonic() + 30
        while len(server.requests("GET")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        future.cancel()
        assert requests_until_quiet(server) < 40, "there was more to read"
        server.behaviour.latency = 0
        assert len(frame.compute()) == 8, "the worker goes on with other work"


def test_a_cancelled_read_of_a_series_sends_no_request_after_a_second(tmp_path: Path) -> None:
    path = tmp_path / "lfp.nwb"
    data = np.random.default_rng(0).integers(0, 1000, 200_000)
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        group = file.create_group("acquisition/lfp")
        group.attrs.update(neurodata_type="TimeSeries", namespace="core")
        group.create_dataset("data", data=data, chunks=(1000,), compression="gzip")
        group["starting_time"] = 0.0
        group["starting_time"].attrs["rate"] = 1000.0
    with RangeServer() as server, workers(1, connections=1, gap=0, split=2048) as client:
        lfp = lazynwb_dask.open_timeseries(server.put("lfp.nwb", path.read_bytes()), "lfp")
        server.behaviour.latency = 0.15
        server.clear_log()
        assert lfp.data is not None
        future = client.compute(lfp.data)
        deadline = time.monotonic() + 30
        while len(server.requests("GET")) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        future.cancel()
        assert requests_until_quiet(server) < 40, "there was more to read"
        server.behaviour.latency = 0
        np.testing.assert_array_equal(lfp.data[:5000].compute(), data[:5000])
        told = [one for _, events in client.get_events("lazynwb-dask") for one in events]
        assert any("lfp.nwb" in one["file"] and one["requests"] > 0 for one in told)


def test_the_schedulers_retries_read_again(tmp_path: Path) -> None:
    with RangeServer() as server, workers(1, retries=0) as client:
        urls = [server.put(f"s{i}.nwb", session(tmp_path, i)) for i in range(3)]
        frame = lazynwb_dask.read_nwb(urls, "/units")
        whole = frame.compute(scheduler="sync")
        server.behaviour.faults = ["500"]
        with pytest.raises(NWBReadError, match="500"):
            frame.compute()
        again = frame[["unit_id", "spike_times"]]  # another key: Dask remembers what failed
        server.behaviour.faults = ["500"]
        (future,) = client.compute([again], retries=2)
        oracle.assert_same(future.result(), whole[["unit_id", "spike_times"]])


def test_a_partition_that_always_fails_is_an_error_or_left_out(tmp_path: Path) -> None:
    with RangeServer() as server, workers(2) as client:
        urls = [server.put(f"s{i}.nwb", session(tmp_path, i)) for i in range(4)]
        strict = lazynwb_dask.read_nwb(urls, "/units")
        tolerant = lazynwb_dask.read_nwb(urls, "/units", on_error="skip")
        whole = tolerant.compute()
        server.behaviour.forbidden = {"s1.nwb"}
        with pytest.raises(PermissionError, match=r"s1\.nwb"):
            strict.compute(retries=2)
        oracle.assert_same(tolerant.compute(), whole[whole._nwb_path != urls[1]])
        assert set(lazynwb_dask.read_report(tolerant).path) == {urls[1]}
        assert len(client.scheduler_info()["workers"]) == 2


def test_tasks_are_cut_to_the_memory_of_the_workers(tmp_path: Path) -> None:
    path = tmp_path / "large.nwb"
    with nwb(path) as file:
        group = table(file, "/units", 512, ["spike_times"])
        data = group.create_dataset("spike_times", (512 * MIB // 8,), "<f8", chunks=(MIB // 8,), fillvalue=1.0)
        ends = group.create_dataset("spike_times_index", data=np.arange(1, 513) * (MIB // 8))
        ends.attrs["target"] = data.ref
    with workers(1, memory="480 MiB") as client:
        frame = lazynwb_dask.read_nwb(path, "/units")
        assert frame.npartitions >= 8
        sizes = frame.spike_times.map_partitions(lambda part: part.list.len(), meta=("n", "i4"))
        (pid,) = client.run(os.getpid).values()
        assert int(sizes.sum().compute()) == 512 * MIB // 8
        assert tuple(client.run(os.getpid).values()) == (pid,), "no worker died"
        whole = lazynwb_dask.read_nwb(path, "/units", blocksize=None)
        with pytest.raises(NWBMemoryError, match=r"large\.nwb.*512 MiB.*blocksize.*memory_limit"):
            whole.compute()
        assert tuple(client.run(os.getpid).values()) == (pid,)


def test_what_was_done_to_each_file_is_an_event(tmp_path: Path) -> None:
    with RangeServer() as server, workers(2) as client:
        urls = [server.put(f"s{i}.nwb", session(tmp_path, i)) for i in range(5)]
        frame = lazynwb_dask.read_nwb(urls, "/units")
        server.clear_log()
        server.behaviour.faults = ["503"]
        frame.compute()
        events = [one for _, told in client.get_events("lazynwb-dask") for one in told]
        assert {one["file"] for one in events} == set(urls)
        assert sum(one["requests"] for one in events) == len(server.requests("GET"))
        assert sum(one["retries"] for one in events) == 1
        assert sum(one["bytes"] for one in events) >= 5 * 8 * 5000 * 8
        assert all(one["seconds"] >= 0 for one in events)
