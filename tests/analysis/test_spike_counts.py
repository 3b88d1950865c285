"""The counts of a session as an array: those of a loop, read in blocks, with the tables as coordinates."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import dask
import h5py
import numpy as np
import pytest
from files import nwb, ragged, table

import lazynwb_dask
from lazynwb_dask import read_nwb, spike_counts
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import ColumnNotFoundError


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_sessions(tmp_path_factory.mktemp("sessions"), n=2, units=40, trials=30)


def counted(path: str, edges: np.ndarray, keep: np.ndarray) -> np.ndarray:
    with h5py.File(path) as file:
        ends = file["units/spike_times_index"][:].astype(int)
        times = np.split(file["units/spike_times"][:], ends)[:-1]
    return np.array([np.diff(np.searchsorted(times[i], edges)) for i in np.flatnonzero(keep)])


@pytest.mark.parametrize("blocks", ["128MiB", "8kiB"])
def test_counts_are_those_of_a_loop_in_blocks_of_any_size(paths: list[str], blocks: str) -> None:
    units, trials = read_nwb(paths, "/units"), read_nwb(paths, "trials")
    mine = units[(units._nwb_path == paths[1]) & (units.firing_rate > 3)]
    some = trials[(trials._nwb_path == paths[1]) & trials.is_hit]
    with dask.config.set({"array.chunk-size": blocks}):
        found = spike_counts(
            mine[["id", "structure", "spike_times"]], some[["id", "start_time"]], 4, window=(-1, 1)
        )
    with h5py.File(paths[1]) as file:
        keep, structure = file["units/firing_rate"][:] > 3, file["units/structure"].asstr()[:]
        hit, starts = file["intervals/trials/is_hit"][:], file["intervals/trials/start_time"][:]
    edges = starts[hit][:, None] + np.linspace(-1, 1, 5)
    some_units = 40 if blocks == "128MiB" else 1024 // found.counts[0].size
    assert len(found.counts.chunks[0]) == -(-len(found.unit) // some_units)
    assert np.array_equal(found.counts.values, counted(paths[1], edges, keep))
    assert found.unit.values.tolist() == np.flatnonzero(keep).tolist()
    assert found.trial.values.tolist() == found.trial_id.values.tolist() == np.flatnonzero(hit).tolist()
    assert found.structure.values.tolist() == structure[keep].tolist()
    assert found.bin_start.values.tolist() == [-1, -0.5, 0, 0.5]
    assert found.attrs == {"_nwb_path": paths[1]}


def test_intervals_are_cut_into_equal_parts(paths: list[str]) -> None:
    units = read_nwb(paths[0], "/units")[["spike_times"]]
    trials = read_nwb(paths[0], "trials")[["start_time", "stop_time"]]
    found = spike_counts(units, trials, 3)
    with h5py.File(paths[0]) as file:
        start, stop = (file[f"intervals/trials/{name}"][:] for name in ("start_time", "stop_time"))
    edges = np.linspace(start, stop, 4, axis=1)
    assert np.array_equal(found.counts.values, counted(paths[0], edges, np.ones(40, bool)))
    assert np.array_equal(found.bin_stop.values, edges[:, 1:])
    assert np.array_equal(spike_counts(units, trials).counts.values[..., 0], found.counts.values.sum(2))


def test_units_or_trials_may_be_missing(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("odd") / "odd.nwb"
    with nwb(path) as file:
        units = table(file, "/units", 3, ["spike_times"])
        ragged(units, "spike_times", [2, 2, 5], [0.5, 0.25, 3, 1, np.nan])
        trials = table(file, "/intervals/trials", 4, ["start_time", "stop_time"])
        trials.create_dataset("start_time", data=[2.0, np.nan, 0, 1])
        trials.create_dataset("stop_time", data=[4.0, 1, 1, 0.5])
    units, trials = read_nwb(path, "/units"), read_nwb(path, "trials")
    found = spike_counts(units, trials)
    assert found.counts.values[..., 0].tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert found.trial.values.tolist() == [0, 2, 3]
    assert spike_counts(units, trials[trials.start_time > 9]).counts.compute().shape == (3, 0, 1)
    assert spike_counts(units[units.id > 9], trials).counts.compute().shape == (0, 3, 1)


def test_an_error_names_the_way_out(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    units, trials = read_nwb(paths, "/units"), read_nwb(paths, "trials")
    with pytest.raises(ValueError, match=r"rows of 2 files.*units._nwb_path"):
        spike_counts(units[["spike_times"]], trials[["start_time", "stop_time"]])
    with pytest.raises(ColumnNotFoundError, match=r"'stop_time'.*select it too"):
        spike_counts(units, trials[["start_time"]])
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install .lazynwb-dask\[xarray\]"):
        lazynwb_dask.spike_counts(units, trials)
