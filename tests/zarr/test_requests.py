"""What reading a store costs in requests, counted by the server."""

from __future__ import annotations

import time
from pathlib import Path

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
from files import nwb, ragged, table
from servers import Logged, RangeServer
from stores import How, serve, store_of

import lazynwb_dask
from lazynwb_dask.util import lru

UNITS, ROWS = 60, 4000  # rows of a chunk of spike_times
CONSOLIDATED = {2: ".zmetadata", 3: "zarr.json"}


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("units") / "units.nwb"
    rng = np.random.default_rng(0)
    with nwb(path) as file:
        group = table(file, "/units", UNITS, ["a", "b", "c", "label", "spike_times"])
        for name in "abc":
            group.create_dataset(name, data=rng.normal(size=UNITS))
        group.create_dataset("label", data=[f"u{i}" for i in range(UNITS)], dtype=h5py.string_dtype())
        counts = rng.integers(500, 3000, UNITS)
        ragged(group, "spike_times", np.cumsum(counts), rng.random(counts.sum()))
        for name in ("trials", "epochs"):
            table(file, f"/intervals/{name}", 3, ["start_time"]).create_dataset("start_time", data=np.zeros(3))
    return path


def keys(log: list[Logged]) -> list[str]:
    """What was asked for, below the store."""
    return sorted(entry.path.partition(".zarr/")[2] for entry in log)


@pytest.mark.parametrize("version", [2, 3])
def test_a_cold_schema_is_one_request(units: Path, range_server: RangeServer, version: int) -> None:
    url = serve(store_of(units, version=version), range_server, f"v{version}.nwb.zarr")
    first = [CONSOLIDATED[version]] if version == 2 else [".zmetadata", "zarr.json"]
    for ask, expected in (
        (lambda: lazynwb_dask.schema_report(url, "/units"), first),
        (lambda: lazynwb_dask.list_tables(url), [CONSOLIDATED[version]]),  # known of this host by now
        (lambda: lazynwb_dask.read_nwb(url, "/units"), [CONSOLIDATED[version]]),
        (lambda: lazynwb_dask.contents(url), [CONSOLIDATED[version]]),
    ):
        lru.clear()
        range_server.clear_log()
        ask()
        assert keys(range_server.requests()) == sorted(expected)


@pytest.mark.parametrize("version", [2, 3])
def test_columns_of_one_chunk_each_are_one_wave(units: Path, range_server: RangeServer, version: int) -> None:
    url = serve(store_of(units, version=version), range_server, "a.nwb.zarr")
    frame = lazynwb_dask.read_nwb(url, "/units")
    range_server.clear_log()
    range_server.behaviour.latency = 0.3
    for columns in (["a", "b", "c"], ["a", "label", "b"]):
        range_server.clear_log()
        frame[columns].compute()
        chunk = "0" if version == 2 else "c/0"
        wanted = [f"units/{name}/{chunk}" for name in columns]
        asked = keys(range_server.requests())
        assert [key for key in asked if "units" in key] == sorted(wanted)
        assert len(asked) <= len(wanted) + 1  # that the store is the one that was planned with
        assert range_server.max_running == len(asked)


def chosen_chunks(units: Path, rows: list[int]) -> list[int]:
    """The chunks of spike_times that hold the spikes of some units."""
    with h5py.File(units) as file:
        ends = file["units/spike_times_index"][()]
    begins = np.concatenate([[0], ends[:-1]])
    found = {chunk for row in rows for chunk in range(begins[row] // ROWS, (ends[row] - 1) // ROWS + 1)}
    return sorted(int(chunk) for chunk in found)


CHOSEN = [3, 4, 24, 40, 56]


@pytest.mark.parametrize("version", [2, 3])
def test_few_units_fetch_only_their_chunks(units: Path, range_server: RangeServer, version: int) -> None:
    how = How(version, rows={"units/spike_times": ROWS})
    url = serve(store_of(units, how), range_server, "a.nwb.zarr")
    frame = lazynwb_dask.read_nwb(url, "/units")
    range_server.clear_log()
    got = frame[frame.id.isin(CHOSEN)].spike_times.compute()
    assert len(got) == len(CHOSEN)
    below = "units/spike_times/" + "c/" * (version == 3)
    wanted = [f"{below}{chunk}" for chunk in chosen_chunks(units, CHOSEN)]
    asked = [key for key in keys(range_server.requests()) if key.startswith("units/spike_times/")]
    assert asked == sorted(wanted)


@pytest.mark.parametrize("version", [2, 3])
def test_what_few_units_need_comes_in_two_waves(units: Path, range_server: RangeServer, version: int) -> None:
    url = serve(store_of(units, How(version, rows={"units/spike_times": ROWS})), range_server, "a.nwb.zarr")
    frame = lazynwb_dask.read_nwb(url, "/units")
    whole = frame.compute()
    for columns, waves in ((["b", "spike_times"], 2), (["b", "label"], 1)):
        begins: list[float] = []
        range_server.behaviour.before = lambda name, number, to=begins: to.append(time.monotonic())
        range_server.behaviour.latency = 0.3
        got = frame[frame.a > 1][columns].compute()
        range_server.behaviour.before, range_server.behaviour.latency = None, 0.0
        pd.testing.assert_frame_equal(got, whole[whole.a > 1][columns])
        assert 1 + int((np.diff(sorted(begins)) > 0.15).sum()) == waves, columns


@pytest.mark.parametrize("location", ["start", "end"])
def test_few_units_fetch_only_their_inner_chunks(units: Path, range_server: RangeServer, location: str) -> None:
    shard = 10  # of 320 kB: smaller ones come whole
    how = How(3, rows={"units/spike_times": ROWS}, shard=shard, after=[], index_location=location)
    url = serve(store_of(units, how), range_server, "a.nwb.zarr")
    frame = lazynwb_dask.read_nwb(url, "/units")
    range_server.clear_log()
    with dask.config.set({"lazynwb-dask.gap": 0}):  # no gaps that are fetched along with what is near
        got = frame[frame.id.isin(CHOSEN)].spike_times.compute()
    with h5py.File(units) as file:
        ends = file["units/spike_times_index"][()]
        stored = file["units/spike_times"][()]
    for row, spikes in zip(CHOSEN, got, strict=True):
        np.testing.assert_array_equal(spikes, stored[ends[row - 1] : ends[row]])
    chunks = chosen_chunks(units, CHOSEN)
    index = 16 * shard + 4
    asked = [e for e in range_server.requests() if "units/spike_times/c/" in e.path]
    shards = {chunk // shard for chunk in chunks}
    assert {int(e.path.rpartition("/")[2]) for e in asked} == shards
    assert sum(e.sent for e in asked) <= len(chunks) * ROWS * 8 + len(shards) * index


def test_planning_many_stores_asks_for_one_document_of_each(units: Path, range_server: RangeServer) -> None:
    made = store_of(units, version=2)
    urls = [serve(made, range_server, f"{n}.nwb.zarr") for n in range(12)]
    frame = lazynwb_dask.read_nwb(urls, "/units")
    assert keys(range_server.requests()) == [".zmetadata"] * 12
    assert len(frame) == 12 * UNITS
