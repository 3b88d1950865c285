"""Spikes around events are what a plain loop over units and events finds, and cost no other reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dask
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from files import nwb, ragged, table
from hypothesis import given, settings
from hypothesis import strategies as st

import lazynwb_dask
from lazynwb_dask import align_events, explain, psth, read_nwb
from lazynwb_dask.analysis import kernels
from lazynwb_dask.analysis.aligned import Counts, Rates, Times
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import ColumnNotFoundError, NWBError, NWBReadError, UnsupportedColumnError

LISTS = pd.ArrowDtype(pa.list_(pa.float64()))
PAIRS = pd.ArrowDtype(pa.list_(pa.list_(pa.float64(), 2)))


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


# ------------------------------------------------------------------------------------ sessions of every kind
TIMES = st.one_of(
    st.integers(-8, 24).map(lambda n: n / 4),  # so that spikes meet the borders of bins
    st.floats(-3, 7),
    st.sampled_from([np.nan, np.inf, -np.inf, 0.1 + 0.2, 0.3]),
)
UNITS = st.lists(st.none() | st.lists(TIMES, max_size=12), max_size=5)
EVENTS = st.lists(st.tuples(st.none() | TIMES, st.sampled_from(["go", "nogo", None])), max_size=6)
EDGES = st.sampled_from(
    [(-0.5, 1.0), (0.0, 0.25), (-2.0, -1.0, 0.1, 3.0), tuple(np.linspace(-1, 1, 6).tolist())]
)
INTERVALS = st.lists(st.none() | st.lists(st.tuples(TIMES, TIMES), max_size=3), min_size=5, max_size=5)


def frames(units: Any, events: Any, intervals: Any = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    held = {"unit": np.arange(len(units)), "spike_times": pd.array(units, dtype=LISTS)}
    if intervals is not None:
        held["obs_intervals"] = pd.array(intervals[: len(units)], dtype=PAIRS)
    times = pd.array([t for t, _ in events], dtype="float64[pyarrow]")
    cue = pd.array([c for _, c in events], dtype="string")
    return pd.DataFrame(held), pd.DataFrame(
        {"at": times, "cue": cue, "_table_index": np.arange(len(events)) + 7}
    )


def in_bin(unit: Any, event: float, start: float, stop: float) -> list[float]:
    return sorted(s - event for s in unit or [] if event + start <= s < event + stop)


def real(events: Any) -> list[tuple[int, float, str]]:
    return [(i, t, cue) for i, (t, cue) in enumerate(events) if t is not None and np.isfinite(t)]


@settings(max_examples=100, deadline=None)
@given(UNITS, EVENTS, EDGES, st.integers(0, 3), st.sampled_from([1, 8, 1 << 17]))
def test_times_and_counts_are_those_of_a_loop(
    units: Any, events: Any, edges: Any, power: int, block: int
) -> None:
    pairs = [(u, i, t, cue) for u in range(len(units)) for i, t, cue in real(events)]
    with patch.object(kernels, "_stride", lambda *_: 1 << power), patch.object(kernels, "AT_ONCE", block):
        times, counts = (
            kind(("unit",), "at", ("cue",), edges)(*frames(units, events)) for kind in (Times, Counts)
        )
    for found in (times, counts):
        assert found.unit.tolist() == [u for u, *_ in pairs]
        assert found.event_index.tolist() == [i + 7 for _, i, *_ in pairs]
        assert found.event_time.tolist() == [t for *_, t, _ in pairs]
        assert found.cue.fillna("none").tolist() == [cue or "none" for *_, cue in pairs]
    wanted = [in_bin(units[u], t, edges[0], edges[-1]) for u, _, t, _ in pairs]
    assert [list(row) for row in times.relative_times] == wanted
    bins = list(pairwise(edges))
    wanted = [[len(in_bin(units[u], t, *b)) for b in bins] for u, _, t, _ in pairs]
    assert [list(row) for row in counts.counts] == wanted


def seconds(intervals: Any, start: float, stop: float) -> float:
    """How much of a bin is in the union of intervals."""
    good = [(max(a, start), min(b, stop)) for a, b in intervals or [] if a < b]
    cuts = sorted({start, stop, *[x for pair in good for x in pair if start <= x <= stop]})
    return sum(b - a for a, b in pairwise(cuts) if any(c <= a and b <= d for c, d in good))


def is_observed(intervals: Any, spike: float) -> bool:
    return any(a <= spike < b for a, b in intervals or [])


def test_one_event_has_no_standard_error_however_its_rate_is_rounded() -> None:
    _, error = kernels.rates(np.array([[[1, 0]]]), np.array([49.0, 1.0]), np.array([0]))
    assert np.isnan(error).all()  # 1 / 49 * 49 is less than 1


@settings(max_examples=100, deadline=None)
@given(UNITS, EVENTS, EDGES, st.none() | INTERVALS, st.booleans())
def test_rates_and_their_errors_are_those_of_a_loop(
    units: Any, events: Any, edges: Any, intervals: Any, grouped: bool
) -> None:
    watched = intervals is not None
    made = Rates(("unit",), "at", ("cue",) if grouped else (), edges, watched)
    with np.errstate(all="raise", under="ignore"):
        found = made(*frames(units, events, intervals))
    groups = sorted({cue for *_, cue in real(events) if cue}) if grouped else ["all"][: len(real(events))]
    pairs = [(u, cue) for u in range(len(units)) for cue in groups]
    assert found.unit.tolist() == [u for u, _ in pairs]
    for (u, cue), row in zip(pairs, found.itertuples(), strict=True):
        times = [t for _, t, c in real(events) if not grouped or c == cue]
        assert row.events == len(times)
        for start, stop, rate, sem in zip(edges[:-1], edges[1:], row.rate, row.sem, strict=True):
            bins = [(t + start, t + stop) for t in times]
            spikes = [s for s in units[u] or [] if not watched or is_observed(intervals[u], s)]
            n = np.array([len(in_bin(spikes, t, start, stop)) for t in times])
            long = np.array([seconds(intervals[u], *b) if watched else stop - start for b in bins])
            n, long = n[long > 1e-9], long[long > 1e-9]
            if (long < 1e-6).any():
                continue
            if not len(n):
                assert np.isnan(rate)
                continue
            assert rate == pytest.approx(n.sum() / long.sum(), rel=1e-6)
            if len(n) < 2:
                assert np.isnan(sem)
            elif not watched or (long == stop - start).all():
                rates = n / (stop - start)
                assert sem == pytest.approx(rates.std(ddof=1) / np.sqrt(len(n)), rel=1e-6, abs=1e-9)
            else:  # Cochran's standard error of a ratio
                apart = ((n - n.sum() / long.sum() * long) ** 2).sum() / (len(n) - 1)
                wanted = np.sqrt(apart / len(n)) / long.mean()
                assert sem == pytest.approx(wanted, rel=1e-5, abs=1e-7)


def test_lists_of_any_arrow_type_are_taken_apart() -> None:
    numbers = [[3, 1], None, [], [2]]
    for kind in (pa.list_(pa.int32()), pa.large_list(pa.float32()), pa.list_(pa.float64())):
        for offset in (0, 1):
            column = pd.Series(pd.array(numbers, dtype=pd.ArrowDtype(kind)))[offset:]
            found = kernels.lists(column)
            assert found.values.tolist() == [3, 1, 2][2 * bool(offset) :]
            assert np.diff(found.offsets).tolist() == [2, 0, 0, 1][offset:]
    for kind in (pa.list_(pa.list_(pa.float64(), 2)), pa.list_(pa.list_(pa.float64()))):
        pairs = [[[1, 2], [3, 4]], None, [], [[5, 6]]]
        found = kernels.lists(pd.Series(pd.array(pairs, dtype=pd.ArrowDtype(kind)))[1:])
        assert (found.values.tolist(), found.offsets.tolist()) == ([5, 6], [0, 0, 0, 2])
    fixed = pd.array([[1.0, 2], None, [3, 4]], dtype=pd.ArrowDtype(pa.list_(pa.float64(), 2)))
    found = kernels.lists(pd.Series(fixed))
    assert (found.values.tolist(), found.offsets.tolist()) == ([1, 2, 3, 4], [0, 2, 2, 4])


# --------------------------------------------------------------------------------------------- over files
@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two sessions, one without units, one without trials, one with trials and no rows."""
    folder = tmp_path_factory.mktemp("sessions")
    made = make_sessions(folder, n=2)
    with nwb(folder / "3.nwb") as file:
        trials = table(file, "/intervals/trials", 2, ["start_time", "is_hit"])
        trials.create_dataset("start_time", data=[1.0, 2.0])
        trials.create_dataset("is_hit", data=[True, False])
    with nwb(folder / "4.nwb") as file:
        units = table(file, "/units", 2, ["spike_times"])
        ragged(units, "spike_times", [1, 3], [0.5, 0.25, 0.75])
    with nwb(folder / "5.nwb") as file:
        units = table(file, "/units", 1, ["spike_times"])
        ragged(units, "spike_times", [2], [0.25, 0.75])
        table(file, "/intervals/trials", 0, ["start_time"]).create_dataset("start_time", data=np.zeros(0))
    return [*map(str, made), *[str(folder / f"{i}.nwb") for i in (3, 4, 5)]]


def spikes_in(path: str, row: int) -> np.ndarray:
    with h5py.File(path) as file:
        ends = file["units/spike_times_index"][:]
        return file["units/spike_times"][ends[row - 1] if row else 0 : ends[row]]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_file_s_units_meet_its_own_events(paths: list[str]) -> None:
    units, trials = read_nwb(paths, "/units"), read_nwb(paths, "trials")
    good = units[units.firing_rate > 8][["_table_index", "spike_times"]]
    lazy = align_events(good, trials[trials.is_hit], (-0.25, 0.5), by=["is_hit", "block_index"])
    found = lazy.compute()
    assert found.dtypes.to_dict() == lazy.dtypes.to_dict()
    assert found.index.is_unique
    assert found._nwb_path.unique().tolist() == paths[:2]
    pairs = 0
    for path in paths[:2]:
        with h5py.File(path) as file:
            starts, hit = file["intervals/trials/start_time"][:], file["intervals/trials/is_hit"][:]
            rates = file["units/firing_rate"][:]
        for row in np.flatnonzero(rates > 8):
            mine = found[(found._nwb_path == path) & (found._table_index == row)]
            assert mine.event_index.tolist() == np.flatnonzero(hit).tolist()
            spikes = spikes_in(path, row)
            for time, relative in zip(mine.event_time, mine.relative_times, strict=True):
                keep = (spikes >= time - 0.25) & (spikes < time + 0.5)
                assert np.array_equal(relative, spikes[keep] - time)
            assert mine.event_time.tolist() == starts[hit].tolist()
            pairs += len(mine)
    assert len(found) == pairs > 0
    counted = align_events(good, trials[trials.is_hit], (-0.25, 0.5), bins=1)
    assert [c for (c,) in counted.counts.compute()] == found.relative_times.list.len().tolist()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mean_rates_of_files_are_the_same_from_threads_and_processes(paths: list[str]) -> None:
    units = read_nwb(paths[:2], "/units")
    events = read_nwb(paths[:2], "/intervals/stimulus_presentations")
    good = units[units.structure == "VISp"][["unit_id", "spike_times", "obs_intervals", "_nwb_path"]]
    lazy = psth(good, events, (0, 0.25), by="image_name", bins=5, observed=True)
    found = lazy.compute()
    assert found.columns.tolist() == ["unit_id", "_nwb_path", "image_name", "events", "rate", "sem"]
    assert found.dtypes.to_dict() == lazy.dtypes.to_dict()
    starts = events.compute().groupby(["_nwb_path", "image_name"]).start_time.agg(list)
    for unit in good.compute().iloc[::10].itertuples():
        spikes = [t for t in unit.spike_times if is_observed(unit.obs_intervals, t)]
        mine = found[found.unit_id == unit.unit_id]
        assert mine.image_name.tolist() == sorted(starts[unit._4].index)
        row = mine.iloc[0]
        edges = np.array(starts[unit._4, row.image_name])[:, None] + np.linspace(0, 0.25, 6)
        long = np.array([[seconds(unit.obs_intervals, *b) for b in pairwise(some)] for some in edges])
        counts = np.diff(np.searchsorted(spikes, edges), axis=1)
        assert row.events == len(edges)
        assert np.allclose(row.rate, counts.sum(0) / long.sum(0), rtol=1e-6)
    pd.testing.assert_frame_equal(lazy.compute(scheduler="threads"), found)
    pd.testing.assert_frame_equal(lazy.compute(scheduler="processes", num_workers=1), found)


def test_only_what_is_asked_for_is_read(paths: list[str]) -> None:
    units, trials = read_nwb(paths[:2], "/units"), read_nwb(paths[:2], "trials")[["start_time", "is_hit"]]
    aligned = align_events(units[units.firing_rate > 8], trials, by="is_hit", bins=3)

    def read(frame: Any) -> list[set[str]]:
        return [{*plan.columns} - {"_nwb_path"} for plan in explain(frame).reads]

    assert "waveform_mean" not in aligned.columns
    assert read(aligned[["unit_id", "counts"]]) == [
        {"unit_id", "spike_times"}, {"start_time", "is_hit"}
    ]  # fmt: skip
    assert read(aligned[["unit_id", "event_time"]]) == [{"unit_id"}, {"start_time", "is_hit"}]
    assert read(psth(units, trials, bins=3).rate) == [{"spike_times"}, {"start_time"}]
    # which columns are read changes no row
    whole = aligned.compute()
    pd.testing.assert_frame_equal(aligned[["event_time"]].compute(), whole[["event_time"]])
    some = aligned[aligned.is_hit & (aligned.unit_id == whole.unit_id.iloc[0])][["counts"]].compute()
    pd.testing.assert_frame_equal(
        some, whole[whole.is_hit & (whole.unit_id == whole.unit_id.iloc[0])][["counts"]]
    )


def test_an_error_says_what_is_wrong_when_called(paths: list[str]) -> None:
    units, trials = read_nwb(paths[:2], "/units"), read_nwb(paths[:2], "trials")
    with pytest.raises(ColumnNotFoundError, match="select it too"):
        align_events(units[["unit_id"]], trials)
    with pytest.raises(ColumnNotFoundError, match="did you mean 'start_time'"):
        align_events(units, trials, event="start_tme")
    with pytest.raises(ColumnNotFoundError, match="'rewarded'"):
        psth(units, trials, by="rewarded")
    with pytest.raises(UnsupportedColumnError, match=r"'rewarded_side' is .*seconds"):
        align_events(units, trials, event="rewarded_side")
    with pytest.raises(ValueError, match="two columns '_table_path'"):
        align_events(units, trials, by="_table_path")
    for window in ((1, 0), (0, np.nan), (0,), 3, "ab"):
        with pytest.raises(ValueError, match="window="):
            align_events(units, trials, window)  # type: ignore[arg-type]
    for bins in (0, -1, True, [0], [1, 0], [0, np.inf], "many"):
        with pytest.raises(ValueError, match="bins="):
            psth(units, trials, bins=bins)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="units="):
        psth(units.assign(x=1), trials)


def test_units_meet_events_of_other_files_of_their_session(paths: list[str]) -> None:
    units, trials = read_nwb(paths[3], "/units"), read_nwb(paths[2], "trials")
    found = align_events(units, trials, (-2, 0), bins=1, sessions={paths[2]: "a", paths[3]: "a"}).compute()
    assert found.session_id.tolist() == ["a"] * 4
    assert found.counts.tolist() == [[1], [1], [2], [2]]
    assert len(align_events(units, trials)) == 0


@pytest.mark.parametrize("shape", [(3, 3), (3, 1), (3,), (3, 2, 2)])
def test_intervals_that_are_no_pairs_are_an_error(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "odd.nwb"
    with nwb(path) as file:
        units = table(file, "/units", 2, ["spike_times", "obs_intervals"])
        ragged(units, "spike_times", [1, 3], [0.5, 0.25, 0.75])
        ragged(units, "obs_intervals", [1, 3], np.zeros(shape))
        table(file, "/intervals/trials", 1, ["start_time"]).create_dataset("start_time", data=[1.0])
    with pytest.raises((NWBError, UnsupportedColumnError), match=r"obs_intervals.* start and (a )?stop"):
        psth(read_nwb(path, "/units"), read_nwb(path, "trials"), observed=True).compute()


def test_more_spikes_than_a_column_can_hold_are_an_error() -> None:
    with pytest.raises(NWBReadError, match="limit"):
        lazynwb_dask.analysis.aligned.list_column(np.zeros(0), np.array([0, 1 << 31]))
