"""The same frames, in the same order, on clusters of every shape and on every scheduler."""

from __future__ import annotations

import sys
import traceback
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import oracle
import pandas as pd
import pytest
from distributed import Client, Future, LocalCluster
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions

WORKERS, THREADS = (1, 4, 8), (1, 4)


def queries(urls: list[str], bad: str) -> dict[str, Any]:
    """What users do, in one query each."""
    units = lazynwb_dask.read_nwb(urls, "/units")
    split = lazynwb_dask.read_nwb(urls, "/units", blocksize="8 kB")
    trials = lazynwb_dask.read_nwb(urls, "trials")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tolerant = lazynwb_dask.read_nwb([urls[0], bad, *urls[1:]], "/units", on_error="skip")
    good = (units.presence_ratio >= 0.7) & (units.decoder_label != "noise")
    return {
        "all": units,
        "filtered": units[good][["unit_id", "spike_times", "_nwb_path"]],
        "split": split[split.snr > 3][["location", "electrodes"]],
        "largest": units.nlargest(5, "firing_rate")[["unit_id", "spike_times"]],
        "branches": units[["unit_id"]].assign(z=units.firing_rate * 2),
        "grouped": units.groupby("structure").firing_rate.mean(),
        "joined": lazynwb_dask.merge_by_file(units[["unit_id", "id"]], trials[["id", "start_time"]], on="id"),
        "mapped": lazynwb_dask.map_files(counted, units=units[["unit_id"]], trials=trials[["id"]]),
        "sessions": lazynwb_dask.read_sessions(urls),
        "with sessions": lazynwb_dask.with_sessions(units[["unit_id", "_nwb_path"]], ["subject_id"]),
        "tolerant": tolerant[["unit_id", "_nwb_path"]],
        "series": lazynwb_dask.read_nwb(urls, "/processing/behavior/running_speed"),
    }


def counted(units: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"units": [len(units)], "trials": [len(trials)]})


def same(got: Any, expected: Any) -> None:
    if isinstance(expected, pd.Series):
        pd.testing.assert_series_equal(got.sort_index(), expected.sort_index())
    else:
        oracle.assert_same(got, expected)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("sessions")
    paths = make_sessions(folder, n=8, units=20, mean_spikes=100, channels=8, samples=300)
    with RangeServer() as server:
        urls = [server.put(Path(path).name, Path(path).read_bytes()) for path in paths]
        found = queries(urls, server.put("bad.nwb", b"no HDF5"))
        yield found, {name: query.compute(scheduler="sync") for name, query in found.items()}


@pytest.mark.parametrize("threads", THREADS)
def test_clusters_of_every_shape_give_the_same_frames(asked: Any, threads: int) -> None:
    found, expected = asked
    with (
        LocalCluster(
            n_workers=0, threads_per_worker=threads, dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        for workers in WORKERS:  # which are started once, and join those that are there
            cluster.scale(workers)
            client.wait_for_workers(workers, timeout=120)
            futures = dict(zip(found, client.compute(list(found.values())), strict=True))
            for name, future in futures.items():
                same(result(future, client), expected[name])
            del future, futures  # or there would be nothing to do for more workers


def result(future: Future, client: Client) -> Any:
    """A result; where none comes, an error that tells what the cluster was doing."""
    try:
        return future.result(timeout=200)
    except TimeoutError:
        doing = {worker: keys for worker, keys in client.processing().items() if keys}
        workers = list(client.scheduler_info(n_workers=-1)["workers"])
        asked = [POOL.submit(client.run, stacks, workers=[worker]) for worker in workers]
        wait(asked, timeout=20)
        told = [f"{w}: {a.result() if a.done() else 'no answer'}" for w, a in zip(workers, asked, strict=True)]
        said = "\n".join([f"{future.key} is {future.status}; under way: {doing}", *told])
        raise AssertionError(said) from None


POOL = ThreadPoolExecutor(max(WORKERS))


def stacks() -> str:
    """What each thread of a process is at."""
    found = []
    for frame in sys._current_frames().values():
        lines = traceback.extract_stack(frame)[-8:]
        found.append(" > ".join(f"{Path(x.filename).name}:{x.lineno} {x.name}" for x in lines))
    return "\n".join(found)


def test_threads_without_a_cluster_give_the_same_frames(asked: Any) -> None:
    found, expected = asked
    for name, query in found.items():
        same(query.compute(scheduler="threads"), expected[name])


def test_processes_without_a_cluster_give_the_same_frames(asked: Any) -> None:
    found, expected = asked
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:  # Dask would start two for each query
        for name, query in found.items():
            same(query.compute(scheduler="processes", pool=pool), expected[name])
