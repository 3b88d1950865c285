"""Tasks are cut by the time that they take: as few as there are threads, where they only wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from toy import ToyScan

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.plan import tasks
from lazynwb_dask.plan.tasks import Siblings, lay_out

MIB = 1 << 20


class Weighed(ToyScan):
    """Partitions that have so many bytes."""

    def __init__(self, weights: list[int], blocksize: int = 128 * MIB) -> None:
        super().__init__((1,) * len(weights), blocksize=blocksize)
        object.__setattr__(self, "weights", np.array(weights, np.int64))

    def nbytes(self, columns: Any) -> Any:
        return self.weights


def tasks_of(scan: Any, threads: int) -> list[list[int]]:
    layout = lay_out(scan, range(scan.nparts), Siblings(frozenset({"x"}), frozenset(), True, threads))
    return [layout.bucket(i).tolist() for i in range(layout.count(scan.nparts))]


@pytest.mark.parametrize("threads", [1, 2, 4, 7])
def test_small_partitions_are_one_task_for_each_thread(threads: int) -> None:
    found = tasks_of(Weighed([MIB] * 15), threads)
    assert len(found) == threads
    lengths = [len(task) for task in found]
    assert max(lengths) - min(lengths) <= 1


def test_partitions_that_take_time_to_decode_are_a_few_tasks_for_each_thread() -> None:
    assert len(tasks_of(Weighed([20 * MIB] * 40), 4)) == tasks.FEW * 4
    assert len(tasks_of(Weighed([100 * MIB] * 40), 4)) == 40, "none has more than a block"


@given(
    st.lists(st.integers(0, 200 * MIB), min_size=1, max_size=60),
    st.integers(1, 9),
    st.sampled_from([MIB, 16 * MIB, 128 * MIB]),
)
def test_every_partition_is_in_one_task_and_no_task_exceeds_a_block(
    weights: list[int], threads: int, blocksize: int
) -> None:
    found = tasks_of(Weighed(weights, blocksize), threads)
    assert [i for task in found for i in task] == list(range(len(weights)))
    assert all(found)
    for task in found:
        assert len(task) == 1 or sum(weights[i] for i in task) <= blocksize


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_sessions(tmp_path_factory.mktemp("layout"), n=12, units=5)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"scheduler": "sync"}, 1),
        ({"scheduler": "threads", "num_workers": 3}, 3),
        ({"scheduler": "processes", "num_workers": 5}, 5),
    ],
)
def test_tasks_are_as_many_as_the_threads_of_the_scheduler(
    paths: list[str], settings: dict[str, Any], count: int
) -> None:
    frame = lazynwb_dask.read_nwb(paths, "/units")
    with dask.config.set(settings):
        assert frame[["firing_rate"]].optimize().npartitions == count


def test_tasks_are_as_many_as_the_threads_of_the_cluster(paths: list[str]) -> None:
    frame = lazynwb_dask.read_nwb(paths, "/units")
    with (
        LocalCluster(n_workers=2, threads_per_worker=3, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        branches = frame["firing_rate"] + frame["presence_ratio"]
        assert branches.optimize().npartitions == 6
        assert len(branches.compute()) == 60


def test_a_cluster_without_workers_yet_gets_tasks(paths: list[str]) -> None:
    frame = lazynwb_dask.read_nwb(paths, "/units")
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster, Client(cluster):
        assert frame[["firing_rate"]].optimize().npartitions >= 1


def test_files_of_one_thread_are_all_read_at_once(range_server: Any, paths: list[str]) -> None:
    urls = [range_server.put(f"{i}.nwb", Path(path).read_bytes()) for i, path in enumerate(paths)]
    frame = lazynwb_dask.read_nwb(urls, "/units")
    range_server.clear_log()
    range_server.behaviour.latency = 2.5  # longer than a busy machine takes to send them all
    with dask.config.set(scheduler="sync"):
        assert len(frame[["firing_rate", "unit_id"]].compute()) == 60
    assert range_server.max_running == len(range_server.requests("GET")) >= 12
