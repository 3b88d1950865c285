"""One session in pynapple: its spikes, trials and series as h5py reads them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pytest
from files import nwb, ragged, table

from lazynwb_dask import open_timeseries, read_nwb, to_pynapple, trace
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import UnsupportedColumnError

nap = pytest.importorskip("pynapple")
CLOSE = {"rtol": 0, "atol": 1e-9}  # pynapple rounds to nanoseconds


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_sessions(tmp_path_factory.mktemp("sessions"), n=2, units=20, trials=10, lfp_shape=(500, 4))


def spikes_of(path: str) -> list[np.ndarray]:
    with h5py.File(path) as file:
        ends = file["units/spike_times_index"][:].astype(int)
        return np.split(file["units/spike_times"][:], ends)[:-1]


def test_units_of_a_session_have_its_spikes_and_metadata(paths: list[str]) -> None:
    units = read_nwb(paths, "/units")
    good = units[(units._nwb_path == paths[1]) & (units.firing_rate > 1)]
    group = to_pynapple(good)
    with h5py.File(paths[1]) as file:
        keep = np.flatnonzero(file["units/firing_rate"][:] > 1)
        assert group.index.tolist() == file["units/id"][:][keep].tolist()
        assert group["structure"].tolist() == file["units/structure"].asstr()[:][keep].tolist()
        assert np.array_equal(group["snr"], file["units/snr"][:][keep], equal_nan=True)
    spikes = spikes_of(paths[1])
    assert 0 < len(keep) < 20
    for label, at in zip(group.index.tolist(), keep, strict=True):
        assert np.allclose(group[label].t, spikes[at], **CLOSE)
    for other in (good.persist(), good.compute(), good.assign(twice=good.snr * 2)):
        again = to_pynapple(other)
        assert again.index.tolist() == group.index.tolist()
        assert np.array_equal(again[group.index[0]].t, group[group.index[0]].t)
    with dask.config.set(scheduler="threads"):
        assert len(to_pynapple(good)) == len(keep)


def test_only_the_columns_that_pynapple_holds_are_read_and_of_one_file(paths: list[str]) -> None:
    units = read_nwb(paths, "/units")
    mine = units[units._nwb_path == paths[0]]
    with trace() as seen:
        to_pynapple(mine[["id", "spike_times", "waveform_mean"]])
    with trace() as alone:
        mine[["id", "spike_times"]].compute()
    assert list(seen.by_file) == [paths[0]]
    assert seen.total.wanted == alone.total.wanted


@pytest.mark.parametrize("columns", [None, ["spike_times"]])
def test_rows_of_several_files_are_an_error_before_spikes_are_read(paths: list[str], columns: Any) -> None:
    units = read_nwb(paths, "/units")
    with trace() as seen, pytest.raises(ValueError, match=r"rows of 2 files.*frame\[frame._nwb_path == '"):
        to_pynapple(units if columns is None else units[columns])
    assert seen.total.requests == 0
    with pytest.raises(ValueError, match="rows of 2 files"):
        to_pynapple(units.compute())
    with pytest.raises(ValueError, match="keep the column _nwb_path"):
        to_pynapple(units.assign(z=units.snr * 2)[["z", "spike_times"]])


def test_time_support_is_the_union_of_the_observed_intervals(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        units = table(file, "units", 3, ["rate", "spike_times", "obs_intervals"])
        units["rate"] = np.array([1.0, 2.0, 3.0])
        units["id"][:] = [7, 7, 8]  # not unique
        ragged(units, "spike_times", [3, 3, 5], np.array([0.5, np.nan, 2.5, 11.0, 30.0]))
        ragged(units, "obs_intervals", [1, 3, 4], np.array([[0, 2], [1, 3], [10, 12], [12, 13.0]]))
    units = read_nwb(tmp_path / "a.nwb", "/units")
    with pytest.warns(UserWarning, match="1 spikes are outside of the time support.*obs_intervals"):
        group = to_pynapple(units)
    assert group.time_support.values.tolist() == [[0, 3], [10, 13]]
    assert group.index.tolist() == [0, 1, 2]
    assert [group[n].t.tolist() for n in range(3)] == [[0.5, 2.5], [], [11.0]]
    assert group["rate_in_table"].tolist() == [1, 2, 3]
    whole = to_pynapple(units.drop(columns="obs_intervals"))
    assert whole.time_support.values.tolist() == [[0.5, 30.0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none = to_pynapple(units[units.rate > 9].drop(columns="obs_intervals"))
    assert len(none) == 0


def test_trials_are_intervals_with_metadata(paths: list[str]) -> None:
    trials = read_nwb(paths[0], "trials")
    found = to_pynapple(trials[trials.is_hit][["start_time", "stop_time", "rewarded_side"]])
    with h5py.File(paths[0]) as file:
        group = file["intervals/trials"]
        hit = group["is_hit"][:]
        assert np.allclose(found.start, group["start_time"][:][hit], **CLOSE)
        assert np.allclose(found.end, group["stop_time"][:][hit], **CLOSE)
        assert found["rewarded_side"].tolist() == group["rewarded_side"].asstr()[:][hit].tolist()
    with pytest.raises(TypeError, match="spike_times, or with start_time and stop_time; this one has id"):
        to_pynapple(read_nwb(paths[0], "electrodes"))


def test_series_are_tsd_by_their_dimensions(paths: list[str]) -> None:
    lfp = open_timeseries(paths[0], "lfp")
    found = to_pynapple(lfp, scaled=True)
    assert isinstance(found, nap.TsdFrame)
    with h5py.File(paths[0]) as file:
        data = file[lfp.path]["data"]
        assert np.allclose(found.d, data[:] * data.attrs["conversion"], rtol=1e-12)
    running = open_timeseries(paths[0], "running_speed")
    speed = to_pynapple(running)
    assert isinstance(speed, nap.Tsd)
    assert np.allclose(speed.t, running.timestamps.compute(), **CLOSE)


def test_odd_units_become_a_group_without_warnings(tmp_path: Path) -> None:
    spikes = {
        "one spike": [[5.0]],
        "one time": [[5.0], [5.0], []],
        "one spike each": [[1.0], [2.0], [9.0]],
        "not finite": [[np.nan, 1.0, np.inf], [-np.inf, 3.0]],
        "none": [[], []],
    }
    for name, units in spikes.items():
        with nwb(tmp_path / f"{name}.nwb") as file:
            group = table(file, "units", len(units), ["rate", "rate_in_table", "spike_times"])
            group["rate"] = np.arange(len(units), dtype=float)
            group["rate_in_table"] = np.full(len(units), 7.0)
            ragged(group, "spike_times", np.cumsum([len(some) for some in units]), np.concatenate(units))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = to_pynapple(read_nwb(tmp_path / f"{name}.nwb", "/units"))
        expected = [[time for time in some if np.isfinite(time)] for some in units]
        assert [found[n].t.tolist() for n in range(len(units))] == expected, name
        assert found["rate_in_table"].tolist() == [7.0] * len(units)
        assert found["rate_in_table_"].tolist() == [*range(len(units))]


def test_missing_texts_are_empty_and_times_are_numbers(paths: list[str]) -> None:
    units = read_nwb(paths[0], "/units")
    some = units.assign(structure=units.structure.where(units.id != 3))
    groups = to_pynapple(some).getby_category("structure")
    texts = some.structure.fillna("").compute()
    assert groups[""].index.tolist() == np.flatnonzero(texts == "").tolist()
    trials = read_nwb(paths[0], "trials")
    with pytest.raises(UnsupportedColumnError, match=r"start_time is of string.*not numbers"):
        to_pynapple(trials.assign(start_time=trials.start_time.astype("string[pyarrow]")))


def test_samples_are_sorted_with_their_times(tmp_path: Path) -> None:
    stamps = {"mixed": [3.0, 1.0, np.nan, 2.0], "one": [5.0], "none": []}
    for name, times in stamps.items():
        with nwb(tmp_path / f"{name}.nwb") as file:
            series = file.create_group("acquisition/s")
            series.attrs["neurodata_type"] = "TimeSeries"
            series["timestamps"] = np.array(times)
            series["data"] = np.arange(2.0 * len(times)).reshape(-1, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = to_pynapple(open_timeseries(tmp_path / f"{name}.nwb", "s"))
        order = [n for n in np.argsort(times).tolist() if np.isfinite(times[n])]
        assert found.t.tolist() == [times[n] for n in order]
        assert found.d.tolist() == [[2.0 * n, 2.0 * n + 1] for n in order]
