"""Examples of the how-to pages run as they stand there, and give what h5py and NumPy give."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import dask.config
import h5py
import numpy as np
import oracle
import pandas as pd
import pytest
from dandi.archive import FakeArchive, about

from lazynwb_dask.datasets import make_sessions

DOCS = Path(__file__).parents[2] / "docs"


def examples() -> dict[str, str]:
    """The code below each heading, whatever the page."""
    found = {}
    for page in DOCS.glob("*.md"):
        for part in re.split(r"^##? ", page.read_text(), flags=re.M)[1:]:
            title, _, body = part.partition("\n")
            found[title] = "\n".join(re.findall(r"^```python\n(.*?)^```", body, flags=re.M | re.S))
    return found


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("howto")
    shapes: dict[str, Any] = {"lfp_shape": (22_000, 130), "samples": 40_000, "series_chunk": 4_096}
    return make_sessions(folder, n=4, units=60, mean_spikes=300, trials=80, **shapes)


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("varied")
    return make_sessions(folder, n=4, units=60, mean_spikes=300, trials=80, samples=99, varied=True)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where examples save their figures."""
    monkeypatch.chdir(tmp_path)


def run(title: str, paths: list[str], names: dict[str, Any] | None = None) -> dict[str, Any]:
    """The names that an example leaves behind, beside those that it starts with."""
    names = {"paths": paths, **(names or {})}
    exec("import lazynwb_dask\n" + examples()[title], names)
    return names


def columns(path: str, table: str, *names: str) -> pd.DataFrame:
    """Some columns of a table by h5py."""
    with h5py.File(path) as file:
        group = file[table]
        return pd.DataFrame(
            {n: group[n].asstr()[()] if group[n].dtype.kind == "O" else group[n][()] for n in names}
        )


def close(got: Any, wanted: Any) -> None:
    assert np.allclose(np.asarray(got, float), np.asarray(wanted, float), equal_nan=True)


def test_the_fastest_unit(paths: list[str]) -> None:
    got = run("The fastest unit of an area, and its spikes", paths)["fastest"]
    best = max(
        (row.firing_rate, path, i)
        for path in paths
        for i, row in columns(path, "units", "structure", "firing_rate").iterrows()
        if row.structure == "VISp"
    )
    rate, path, row = best
    assert (got.firing_rate.item(), got._nwb_path.item()) == (rate, path)
    with h5py.File(path) as file:
        ends = file["units/spike_times_index"][()].astype(int)
        spikes = file["units/spike_times"][ends[row - 1] if row else 0 : ends[row]]
    assert got.spike_times.item() == spikes.tolist()


def test_ragged_columns(paths: list[str]) -> None:
    names = run("Ragged columns: how many spikes, and which", paths)
    first, counts, spikes, peaks = [], [], [], []
    for path in paths:
        with h5py.File(path) as file:
            ends = file["units/spike_times_index"][()].astype(int)
            rows = np.split(file["units/spike_times"][()], ends[:-1])
            waves = file["units/waveform_mean"][()]
        active = [i for i, row in enumerate(rows) if len(row) > 250]
        first += [rows[i][0] for i in active]
        counts += [(rows[i] < 60).sum() for i in active]
        spikes += [rows[i][rows[i] < 60] for i in active]
        peaks += [abs(waves[i]).max() for i in active]
    assert len(active)
    close(names["first"], first)
    assert names["in_first_minute"].tolist() == counts
    close(names["spikes"], np.concatenate(spikes))
    close(names["peaks"], peaks)


def test_rates_of_trials(paths: list[str]) -> None:
    got = run("Rates of trials, by session and by label", paths)
    names = ("start_time", "stop_time", "is_hit", "is_rewarded", "rewarded_side")
    tables = {path: columns(path, "intervals/trials", *names) for path in paths}
    shown = ["length", "is_hit", "is_rewarded"]
    for path, trials in tables.items():
        wanted = [
            (trials.stop_time - trials.start_time).mean(),
            trials.is_hit.mean(),
            trials.is_rewarded.mean(),
        ]
        close(got["by_session"].loc[path, shown], wanted)
    every = pd.concat(tables.values())
    for side in ("left", "right"):
        trials = every[every.rewarded_side == side]
        wanted = [
            (trials.stop_time - trials.start_time).mean(),
            trials.is_hit.mean(),
            trials.is_rewarded.mean(),
        ]
        close(got["by_side"].loc[side, shown], wanted)


def test_lick_rates(paths: list[str]) -> None:
    got = run("Lick rate of each session", paths)["lick_rate"]
    for path in paths:
        events = columns(path, "events/events", "timestamp", "annotation")
        close(got[path], (events.annotation == "lick").sum() / events.timestamp.max())


def test_speed_at_images(paths: list[str]) -> None:
    got = run("Running speed at each image, as of its onset", paths)["speed_by_image"]
    images, speeds = [], []
    for path in paths:
        shown = columns(path, "intervals/stimulus_presentations", "start_time", "image_name")
        speed = columns(path, "processing/behavior/running_speed", "timestamps", "data")
        last = np.searchsorted(speed.timestamps, shown.start_time, "right") - 1
        images.append(shown.image_name)
        speeds.append(np.where(last >= 0, speed.data.to_numpy()[np.maximum(last, 0)], np.nan))
    wanted = pd.Series(np.concatenate(speeds)).groupby(pd.concat(images).to_numpy()).mean()
    assert len(got) == 9
    close(got.loc[wanted.index], wanted)


def test_a_window_of_time(paths: list[str]) -> None:
    got = run("A time window of a series, of all sessions", paths)["mean_speed"]
    for path in paths:
        speed = columns(path, "processing/behavior/running_speed", "timestamps", "data")
        inside = (speed.timestamps >= 600) & (speed.timestamps < 660)
        close(got[path], speed.data[inside].mean())


def test_the_share_below_a_threshold(paths: list[str]) -> None:
    got = run("The share of time below a threshold of each session", paths)["slow"]
    for path in paths:
        speed = columns(path, "processing/behavior/running_speed", "data").data
        close(got[path], (speed < 0.5 * speed.mean()).mean())


def test_blocks_of_a_series(paths: list[str]) -> None:
    got = run("The first samples of a long series, or a block of it", paths)
    with h5py.File(paths[0]) as file:
        data = file["acquisition/lfp/data"]
        volts = data[()] * data.attrs["conversion"]
        close(got["first"], data[:20_000].mean(axis=0))
        close(got["block"] * 1e6, volts[2_000:14_850, :128].mean() * 1e6)
        close(got["window"].iloc[:, 1:] * 1e6, volts[1_000:1_100] * 1e6)
    for path in paths:
        with h5py.File(path) as file:
            data = file["acquisition/lfp/data"]
            volts = data[:, [0, 5]] * data.attrs["conversion"]
        close(got["power"].loc[path] * 1e9, (volts**2).mean(axis=0) * 1e9)


def test_tables_that_differ(varied: list[str]) -> None:
    got = run("Tables whose paths and columns differ", varied)
    strong = []
    for path in varied:
        with h5py.File(path) as file:
            table = "trials" if "trials" in file["intervals"] else "behavior_trials"
            has_it = "d_prime" in file["units"]
        hits = columns(path, f"intervals/{table}", "is_hit").is_hit
        close(got["hits"][path, f"/intervals/{table}"], hits.mean())
        if has_it:
            units = columns(path, "units", "unit_id", "d_prime")
            strong += units.unit_id[units.d_prime > 5].tolist()
    assert len(got["hits"]) == 4
    assert got["d_prime"].unit_id.tolist() == strong
    assert (got["where"].files["d_prime"], got["where"].missing["d_prime"]) == (3, 1)


def test_one_row_for_each_session(varied: list[str]) -> None:
    got = run("One row for each session: metadata, units, tables", varied)["sessions"]
    assert got.index.tolist() == varied
    for path in varied:
        with h5py.File(path) as file:
            row = got.loc[path]
            assert row.session_id == file["general/session_id"].asstr()[()]
            assert row.species == file["general/subject/species"].asstr()[()]
            assert row.units == len(file["units/id"])
            tables: list[str] = []
            file.visititems(partial(_note_table, tables))
            assert sorted(row.tables) == sorted(tables)


def _note_table(found: list[str], name: str, item: h5py.Group | h5py.Dataset) -> None:
    if "colnames" in item.attrs:
        found.append(f"/{name}")


def test_sessions_of_some_subjects(paths: list[str]) -> None:
    got = run("Only the sessions of some subjects", paths)["rates"]
    wanted: dict[str, list[float]] = {}
    for path in paths:
        with h5py.File(path) as file:
            start = pd.Timestamp(file["session_start_time"].asstr()[()])
            subject = file["general/subject"]
            if "VGAT" in subject["genotype"].asstr()[()] and start > pd.Timestamp("2023-01-10", tz="UTC"):
                rates = file["units/firing_rate"][()]
                wanted.setdefault(subject["subject_id"].asstr()[()], []).extend(rates)
    assert wanted
    assert set(got.index) == set(wanted)
    for subject, rates in wanted.items():
        close(got[subject], np.mean(rates))


def test_joins_within_sessions(paths: list[str]) -> None:
    got = run("Joins within sessions", paths)
    deep, spikes, inside = [], 0, {"left": [], "right": []}
    for path in paths:
        units = columns(path, "units", "unit_id", "peak_electrode", "presence_ratio")
        electrodes = columns(path, "general/extracellular_ephys/electrodes", "id", "y")
        both = units.merge(electrodes, left_on="peak_electrode", right_on="id")
        good = (both.presence_ratio >= 0.8) & (both.y > 1000)
        deep += both.unit_id[good].tolist()
        with h5py.File(path) as file:
            ends = file["units/spike_times_index"][()].astype(int)
            times = np.split(file["units/spike_times"][()], ends)[:-1]
        sizes = np.diff(ends, prepend=0)
        spikes += sizes[units.unit_id.isin(both.unit_id[good])].sum()
        some = np.concatenate([times[i] for i in np.flatnonzero(units.presence_ratio >= 0.8)])
        trials = columns(path, "intervals/trials", "start_time", "stop_time", "rewarded_side")
        for start, stop, side in trials.itertuples(index=False):
            inside.setdefault(side, []).append(((some >= start) & (some < stop)).sum())
    assert 0 < len(deep) < 240
    assert got["deep"].unit_id.tolist() == deep
    assert got["deep"].spike_times.list.len().sum() == spikes
    for side, counts in inside.items():
        close(got["by_side"].loc[side], np.mean(counts))


def of_good_units(path: str) -> list[tuple[Any, np.ndarray]]:
    """Each unit of VISp that was there most of the time, with its spikes."""
    units = columns(path, "units", "unit_id", "structure", "presence_ratio")
    with h5py.File(path) as file:
        times = np.split(file["units/spike_times"][()], file["units/spike_times_index"][()].astype(int))
    good = np.flatnonzero((units.structure == "VISp") & (units.presence_ratio >= 0.8))
    return [(units.unit_id[i], times[i]) for i in good]


def test_spikes_around_events(paths: list[str]) -> None:
    got = run("Spikes around events", paths)["spikes"]
    wanted = []
    for path in paths:
        trials = columns(path, "intervals/trials", "start_time", "is_hit", "rewarded_side")
        for unit, spikes in of_good_units(path):
            for start, side in trials[trials.is_hit][["start_time", "rewarded_side"]].itertuples(index=False):
                near = spikes[(spikes >= start - 0.5) & (spikes < start + 1)] - start
                wanted.append((unit, side, start, near.tolist()))
    assert [(*row[:-1], [*row[-1]]) for row in got.itertuples(index=False)] == wanted


def test_mean_rates_around_events(paths: list[str]) -> None:
    got = run("The mean rate around events (PSTH)", paths)
    rows = []
    for path in paths:
        images = columns(path, "intervals/stimulus_presentations", "start_time", "image_name")
        for unit, spikes in of_good_units(path):
            for image, starts in images.groupby("image_name").start_time:
                edges = starts.to_numpy()[:, None] + np.linspace(-0.1, 0.25, 36)
                rates = np.diff(np.searchsorted(spikes, edges), axis=1) / 0.01
                rows.append(
                    (unit, image, len(starts), rates.mean(0), rates.std(0, ddof=1) / len(starts) ** 0.5)
                )
    wanted = pd.DataFrame(rows, columns=["unit_id", "image_name", "events", "rate", "sem"])
    for name in ("unit_id", "image_name", "events"):
        assert got["rates"][name].tolist() == wanted[name].tolist()
    for name in ("rate", "sem"):
        close(np.stack(got["rates"][name]), np.stack(wanted[name]))
    for image, some in wanted.groupby("image_name"):
        close(got["by_image"][image], np.stack(some.rate).mean(0))


def test_counts_for_decoding(paths: list[str]) -> None:
    got = run("Counts of a session for decoding: units x trials x bins", paths)
    units = columns(paths[0], "units", "structure")
    trials = columns(paths[0], "intervals/trials", "start_time", "is_hit")
    with h5py.File(paths[0]) as file:
        times = np.split(file["units/spike_times"][()], file["units/spike_times_index"][()].astype(int))
    starts = trials.start_time.to_numpy()[:, None] + [0, 0.5]
    wanted = [
        np.diff(np.searchsorted(times[i], starts))[:, 0] for i in np.flatnonzero(units.structure == "VISp")
    ]
    assert got["features"].values.tolist() == np.array(wanted).T.tolist()
    assert got["is_hit"].tolist() == trials.is_hit.tolist()


def test_a_series_around_events(paths: list[str]) -> None:
    got = run("A series around events", paths)
    trials = columns(paths[0], "intervals/trials", "start_time", "is_hit")
    with h5py.File(paths[0]) as file:
        lfp, running = file["acquisition/lfp"], file["processing/behavior/running_speed"]
        data = lfp["data"][:] * lfp["data"].attrs["conversion"]
        rate = lfp["starting_time"].attrs["rate"]
        clock = lfp["starting_time"][()] + np.arange(len(data)) / rate
        frames, speeds = running["timestamps"][:], running["data"][:]
    times = -1 + np.arange(99) / rate
    times = times[times < 2]
    for is_hit, starts in trials.groupby("is_hit").start_time:
        at = starts.to_numpy()[:, None] + times
        wanted = np.interp(at, clock, data[:, 7], np.nan, np.nan).mean(0)  # as xarray's mean, but for NaN
        close(got["evoked"].sel(is_hit=is_hit).isel(channel=7)[~np.isnan(wanted)], wanted[~np.isnan(wanted)])
    at = trials.start_time.to_numpy()[:, None] + -1 + np.arange(60) / 20
    close(got["speed"], np.nanmean(np.interp(at, frames, speeds, np.nan, np.nan), axis=0))


def test_parquet_and_back(paths: list[str]) -> None:
    got = run("Merges and shuffles of anything else, Parquet and back", paths)
    trains, again = got["trains"], got["again"]
    assert again.dtypes.to_dict() == trains.dtypes.to_dict()
    assert str(again.dtypes["spike_times"]) == "list<item: double>[pyarrow]"
    whole = trains.compute()
    oracle.assert_same(again.compute(), whole)
    some = whole[whole.location.isin(["VISp", "VISl"])]
    assert sorted(got["merged"].unit_id) == sorted(some.unit_id)


def test_dandisets(paths: list[str]) -> None:
    with (
        FakeArchive() as archive,
        dask.config.set({"lazynwb-dask.dandi-instances": {"dandi": archive.instance}}),
    ):
        for i, path in enumerate(paths):
            archive.add("000409", f"sub-{i}/a.nwb", Path(path).read_bytes(), **about(f"mouse {i}", "1"))
        run("Dandisets", paths)
        names = run("Choose files by subject, species or size", paths)
        names = run("Sessions with several files", paths, names)
        got, both = names["units"].compute(), names["both"]["session_id"].compute()
    assert both.unique().tolist() == [f"mouse {i}/1" for i in range(4)]
    pd.testing.assert_index_equal(got.columns[-2:], pd.Index(["dandi_subject", "dandi_sex"]))
    assert got["dandi_subject"].unique().tolist() == [f"mouse {i}" for i in range(4)]
    close(got["firing_rate"], np.concatenate([columns(p, "units", "firing_rate").firing_rate for p in paths]))
