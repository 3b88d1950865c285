"""A series around events is what interpolation of the whole series gives, and reads the windows alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
from files import nwb, table
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from series_files import series
from servers import RangeServer

from lazynwb_dask import align_timeseries, open_timeseries, read_nwb
from lazynwb_dask.errors import ColumnNotFoundError, NWBError, UnsupportedColumnError

ROWS = 60
STAMPS = np.sort(np.random.default_rng(0).integers(0, 80, ROWS)) / 4.0  # with equal ones, and gaps
CLOCKS = {"rate": (0.3, 4.1), "stored": STAMPS}
SHAPES = {"1d": (), "2d": (3,), "3d": (2, 3)}


def values(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).integers(-900, 900, (ROWS, *shape)).astype("int16")


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("series") / "series.nwb"
    with nwb(path) as file:
        for (clock, times), (shape, sample) in itertools.product(CLOCKS.items(), SHAPES.items()):
            data = values(sample)
            series(file, f"/acquisition/{clock}{shape}", data, times, chunks=(7, *data.shape[1:]))
        series(file, "/acquisition/back", np.zeros(4), [0.0, 2, 1, 3])
        series(file, "/acquisition/nan", np.zeros(4), [0.0, 1, np.nan, 3])
        series(file, "/acquisition/none", np.zeros(0), np.zeros(0), maxshape=(None,), chunks=(4,))
        series(file, "/acquisition/words", np.array([b"a", b"b"]), (0.0, 1.0))
        trials = table(file, "/intervals/trials", 4, ["start_time", "cue"])
        trials.create_dataset("start_time", data=[9.0, np.nan, 2.5, 40])
        trials.create_dataset("cue", data=[b"go", b"stop", b"stop", b"go"])
    return str(path)


def expected(clock: Any, data: np.ndarray, times: np.ndarray, nearest: bool) -> np.ndarray:
    """The value at each time, one after the other."""
    stamps = clock if isinstance(clock, np.ndarray) else clock[0] + np.arange(len(data)) / clock[1]
    found = np.full((len(times), *data.shape[1:]), np.nan)
    for i, time in enumerate(times):
        earlier = np.flatnonzero(stamps <= time)
        if not len(earlier) or time > stamps[-1]:
            continue
        a = earlier[-1]
        b = min(a + 1, len(stamps) - 1)
        if nearest:
            found[i] = data[b if stamps[b] - time < time - stamps[a] else a]
        else:
            part = (time - stamps[a]) / (stamps[b] - stamps[a]) if b > a else 0
            found[i] = data[a] + part * (data[b].astype(float) - data[a])
    return found


TIMES = st.lists(st.integers(-8, 100).map(lambda n: n / 4) | st.floats(-4, 25), max_size=6)
LOCAL = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LOCAL
@example([], (-1.0, 1.0), "rate", "2d", True, "1kiB", 2.0)
@given(
    TIMES,
    st.sampled_from([(-0.5, 1.0), (0.0, 0.25), (-3.0, -1.0)]),
    st.sampled_from([*CLOCKS]),
    st.sampled_from([*SHAPES]),
    st.booleans(),
    st.sampled_from(["1kiB", "128MiB"]),
    st.sampled_from([1.0, 4.0, 13.0]),
)
def test_values_are_those_of_a_loop(
    path: str, events: Any, window: Any, clock: str, shape: str, nearest: bool, block: str, rate: float
) -> None:
    data = values(SHAPES[shape])
    method: Any = "nearest" if nearest else "linear"
    with dask.config.set({"array.chunk-size": block}):
        source: Any = open_timeseries(path, f"{clock}{shape}")
        found = align_timeseries(source, events, window, rate=rate, method=method)
        again = found.values
    offsets = [window[0] + k / rate for k in range(99) if window[0] + k / rate < window[1]]
    assert found.time.values.tolist() == offsets
    assert found.dims == ("event", "time", "channel", "dim_3")[: 2 + len(SHAPES[shape])]
    times = np.add.outer(np.array(events, float), offsets).ravel()
    wanted = expected(CLOCKS[clock], data, times, nearest).reshape(found.shape)
    np.testing.assert_allclose(again, wanted, rtol=1e-12, atol=1e-9)
    if len(events) > 1 and data.ndim > 1:
        part = found[1, ..., 1:].compute()
        np.testing.assert_array_equal(part, again[1, ..., 1:])


def test_events_of_a_frame_bring_their_columns(path: str, tmp_path: Path) -> None:
    other = tmp_path / "other.nwb"
    with nwb(other) as file:
        table(file, "/intervals/trials", 1, ["start_time"]).create_dataset("start_time", data=[5.0])
    source: Any = open_timeseries(path, "rate2d")
    trials = read_nwb([other, path], "trials")
    found = align_timeseries(source, trials, (0, 1), by="cue")
    assert found.event.values.tolist() == [0, 2, 3]
    assert found.event_time.values.tolist() == [9, 2.5, 40]
    assert found.cue.values.tolist() == ["go", "stop", "go"]
    assert found.sizes["time"] == 5
    local = align_timeseries(source, trials[trials.start_time < 5].compute(), (0, 1), by=["cue", "start_time"])
    assert (local.start_time.values.tolist(), local.cue.values.tolist()) == ([2.5], ["stop"])
    np.testing.assert_array_equal(local.values[0], found.values[1])


def test_values_in_units_are_the_scaled_ones(path: str, tmp_path: Path) -> None:
    with nwb(tmp_path / "scaled.nwb") as file:
        data = series(file, "/acquisition/volts", values((3,)), (0.0, 4.0))["data"]
        data.attrs.update({"conversion": 0.5, "offset": 2.0, "unit": "volts"})
        file["/acquisition/volts"].create_dataset("channel_conversion", data=[1.0, 2, 3])
    source: Any = open_timeseries(tmp_path / "scaled.nwb", "volts")
    found = align_timeseries(source, [1.0, 2.0], (0, 1), scaled=True)
    assert found.attrs["units"] == "volts"
    np.testing.assert_array_equal(found.values[1], source.scaled[8:12].compute())


@pytest.mark.parametrize("clock", ["rate", "stored"])
def test_only_the_chunks_that_windows_touch_are_read(
    clock: str, tmp_path: Path, range_server: RangeServer
) -> None:
    rows, chunk = 400_000, 4_000
    times: Any = (0.0, 1000.0) if clock == "rate" else np.arange(rows) / 1000
    with nwb(tmp_path / "f.nwb") as file:
        data = np.random.default_rng(0).integers(0, 9999, (rows, 4)).astype("int16")
        series(file, "/acquisition/lfp", data, times, chunks=(chunk, 4), compression="gzip")
        sizes = file["/acquisition/lfp/data"].id
        stored = [sizes.get_chunk_info(i).size for i in (2, 3, 25, 75)]
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    source: Any = open_timeseries(url, "lfp")
    found = align_timeseries(source, [301.0, 12.0, 101.0, 12.5], (-0.5, 0.5), rate=1000)
    range_server.clear_log()
    np.testing.assert_allclose(found.values[0], data[300_500:301_500], atol=1e-4)
    more = 0 if clock == "rate" else 5 * 40_000  # of timestamps the same chunks, less compressed
    assert sum(stored) <= range_server.sent <= sum(stored) + more + 200_000


def test_timestamps_that_fall_between_two_blocks_are_an_error(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        group = file.create_group("acquisition/twice")
        group.attrs.update(neurodata_type="TimeSeries", namespace="core")
        group["data"], group["timestamps"] = np.arange(20.0), np.tile(np.arange(10.0), 2)
    with dask.config.set({"array.chunk-size": "80 B"}):
        series = open_timeseries(tmp_path / "a.nwb", "twice")
        assert series.timestamps.chunks == ((10, 10),)
        with pytest.raises(NWBError, match="twice: its timestamps don't increase"):
            align_timeseries(series, [1.0], rate=1.0)


def test_an_error_names_the_series(path: str) -> None:
    def of(name: str, **given: Any) -> Any:
        source: Any = open_timeseries(path, name)
        return align_timeseries(source, [1.0], **given)

    with pytest.raises(ValueError, match="stored1d has timestamps and no rate"):
        of("stored1d")
    for name in ("back", "nan"):
        with pytest.raises(NWBError, match=f"{name}: its timestamps don't increase"):
            of(name, rate=1.0)
    with pytest.raises(UnsupportedColumnError, match="words: its values are"):
        of("words")
    with pytest.raises(ValueError, match="'linear' or 'nearest'"):
        of("rate1d", method="cubic")
    with pytest.raises(ValueError, match="rate=0"):
        of("rate1d", rate=0)
    with pytest.raises(ColumnNotFoundError, match="did you mean 'start'"):
        align_timeseries(open_timeseries(path, "rate1d"), pd.DataFrame({"start": [1.0]}), event="strt")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="open_timeseries"):
        align_timeseries(path, [1.0])  # type: ignore[arg-type]
    assert np.isnan(of("none", rate=4.0).values).all()
