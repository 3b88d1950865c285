"""Objects of other libraries are the same on threads, on a distributed client, and of a catalog's frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from lazynwb_dask import build_catalog, merge_by_file, read_nwb, to_arrow, to_awkward, to_polars, to_xarray
from lazynwb_dask.datasets import make_sessions

COLUMNS = ["id", "snr", "structure", "spike_times", "_nwb_path"]


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sessions")
    paths = make_sessions(folder, n=2, units=8, trials=5)
    units = read_nwb(paths, "/units", blocksize="400 kB")
    of_catalog = read_nwb(build_catalog(paths, str(folder / "catalog")), "/units")
    electrodes = read_nwb(paths, "electrodes", columns=["id", "location"])
    joined = merge_by_file(units, electrodes, left_on="peak_electrode", right_on="id")
    good = {name: frame[frame.snr > 2][COLUMNS] for name, frame in (("read", units), ("catalog", of_catalog))}
    return {**good, "joined": joined[joined.snr > 2][["snr", "location_y", "spike_times", "_nwb_path"]]}


@pytest.fixture
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def made(frame: Any) -> list[Any]:
    pl = pytest.importorskip("polars")
    lazy = to_polars(frame)
    return [
        lazy.collect().to_dicts(),
        lazy.filter(pl.col("snr") < 6).select("spike_times").collect().to_dicts(),
        to_arrow(frame).read_all().to_pylist(),
        to_awkward(frame).to_list(),
        {name: values.values.tolist() for name, values in to_xarray(frame).data_vars.items()},
    ]


def test_results_on_a_client_are_those_on_threads(frames: dict[str, Any], client: Client) -> None:
    assert frames["read"].npartitions > 1
    for name in ("read", "joined"):
        frame = frames[name]
        found = made(frame)
        with dask.config.set(scheduler="threads"):
            expected = made(frame)
        assert len(expected[0]) > 3
        assert found == expected, name


def test_a_catalogs_frame_is_that_of_its_files(frames: dict[str, Any]) -> None:
    with dask.config.set(scheduler="threads"):
        found, expected = made(frames["catalog"]), made(frames["read"])
        rows = frames["read"].compute()
    assert found == expected
    assert [row["snr"] for row in expected[0]] == rows.snr.tolist()
    assert [row["spike_times"] for row in expected[0]] == [list(times) for times in rows.spike_times]
