"""TimeSeries: as tables of many files, and as lazy arrays of one."""

from __future__ import annotations

import itertools
import pickle
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import oracle
import pyarrow as pa
import pynwb
import pytest
from files import nwb, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask import seek
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import (
    ColumnNotFoundError,
    NWBReadError,
    TableNotFoundError,
    UnsupportedColumnError,
)

PROVENANCE = ["_nwb_path", "_table_path", "_table_index"]
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def series(
    file: h5py.File, path: str, data: Any = None, times: Any = None, **storage: Any
) -> h5py.Group:
    """A TimeSeries; `times` are stored, or a start and a rate."""
    group = file.create_group(path)
    group.attrs["neurodata_type"] = "TimeSeries"
    if data is not None:
        group.create_dataset("data", data=data, **storage)
    if isinstance(times, tuple):
        group.create_dataset("starting_time", data=times[0]).attrs["rate"] = times[1]
    elif times is not None:
        if "chunks" in storage:
            chunk = storage["chunks"]
            storage |= {"chunks": (chunk[0] if isinstance(chunk, tuple) else chunk,)}
        group.create_dataset("timestamps", data=times, **storage)
    return group


# ------------------------------------------------------------------------------------------ as tables
@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One series of each kind; those that scale and link are pynwb's own."""
    rng = np.random.default_rng(0)
    file = pynwb.NWBFile(
        session_description="kinds",
        identifier="id",
        session_start_time=datetime(2024, 1, 1, tzinfo=UTC),
    )
    device = file.create_device(name="d")
    group = file.create_electrode_group(name="g", description="", location="", device=device)
    for _ in range(6):
        file.add_electrode(x=0.0, group=group, location="VISp")
    file.add_acquisition(
        pynwb.ecephys.ElectricalSeries(
            name="electrical", data=rng.integers(-9, 9, (50, 3)).astype("i2"), rate=30.0,
            starting_time=2.5, conversion=0.5, offset=1.0, channel_conversion=[1.0, 2.0, 0.25],
            electrodes=file.create_electrode_table_region(region=[4, 0, 5], description="three"),
        )
    )  # fmt: skip
    behavior = file.create_processing_module(name="behavior", description="moves")
    speed = pynwb.TimeSeries(
        name="speed",
        data=rng.normal(size=40),
        unit="cm/s",
        timestamps=np.sort(rng.uniform(0, 9, 40)),
    )
    behavior.add(speed)
    position = pynwb.behavior.SpatialSeries(
        name="position", data=rng.normal(size=(40, 2)).astype("f4"), reference_frame="corner",
        timestamps=speed,
    )  # fmt: skip
    behavior.add(pynwb.behavior.Position(spatial_series=position, name="places"))
    path = tmp_path_factory.mktemp("kinds") / "kinds.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    with h5py.File(path, "a") as file:
        events = file.create_group("/processing/behavior/events")
        events.attrs["neurodata_type"] = "BehavioralEvents"
        series(file, "/processing/behavior/events/licks", np.ones(7, "u1"), np.arange(7.0))
        words = series(file, "/acquisition/words", times=[0.1, 0.5, 0.4])
        words.create_dataset("data", data=["go", "", "grün"], dtype=h5py.string_dtype())
        features = series(
            file, "/stimulus/presentation/features", rng.normal(size=(5, 2)), np.arange(5.0)
        )
        features.create_dataset("features", data=["V", "Hz"], dtype=h5py.string_dtype())
        series(file, "/acquisition/epochs", np.array([1, -1, 2, -2], "i1"), np.arange(4.0))
        series(file, "/acquisition/video", rng.integers(0, 255, (6, 4, 5), "u1"), (0.0, 2.0))
        series(file, "/stimulus/templates/frames", np.zeros((3, 2, 2), "u1"), (0.0, 1.0))
        index = series(
            file, "/stimulus/presentation/index", np.array([0, 2, 1], "u4"), np.arange(3.0)
        )
        index["indexed_timeseries"] = h5py.SoftLink("/stimulus/templates/frames")
        movie = series(file, "/acquisition/movie", np.zeros((0, 0, 0), "u1"), np.arange(8.0))
        movie.create_dataset("external_file", data=["movie.avi"], dtype=h5py.string_dtype())
        roi = series(file, "/processing/behavior/roi", rng.normal(size=(9, 2)), (0.0, 30.0))
        roi.attrs["neurodata_type"] = "RoiResponseSeries"
        cells = table(file, "/processing/behavior/cells", 4, [])
        roi.create_dataset("rois", data=[3, 1]).attrs["table"] = cells.ref
        for name, kind in (
            ("/acquisition/words", "AnnotationSeries"),
            ("/stimulus/presentation/features", "AbstractFeatureSeries"),
            ("/stimulus/presentation/index", "IndexSeries"),
            ("/acquisition/epochs", "IntervalSeries"),
            ("/acquisition/video", "ImageSeries"),
            ("/acquisition/movie", "ImageSeries"),
        ):
            file[name].attrs["neurodata_type"] = kind
    return path


KINDS = {
    "/acquisition/electrical": "list<item: int16>[pyarrow]",
    "/processing/behavior/speed": "float64",
    "/processing/behavior/places/position": "list<item: float>[pyarrow]",
    "/processing/behavior/events/licks": "uint8",
    "/acquisition/words": "string",
    "/stimulus/presentation/features": "list<item: double>[pyarrow]",
    "/stimulus/presentation/index": "uint32",
    "/acquisition/epochs": "int8",
    "/processing/behavior/roi": "list<item: double>[pyarrow]",
    "/acquisition/video": "list<item: list<item: uint8>>[pyarrow]",
}


def expected(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(path) as file:
        group = file[name]
        data = group["data"]
        values = data.asstr()[()] if data.dtype.kind == "O" else data[()]
        if "timestamps" in group:
            return group["timestamps"][()], values
        start = group["starting_time"]
        return start[()] + np.arange(len(data)) / start.attrs["rate"], values


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_series_reads_as_timestamps_and_data(kinds: Path, name: str) -> None:
    frame = lazynwb_dask.read_nwb(kinds, name)
    got = frame.compute()
    times, values = expected(kinds, name)
    assert list(got.columns) == ["timestamps", "data", *PROVENANCE]
    assert str(got.data.dtype) == KINDS[name]
    assert got.timestamps.tolist() == times.tolist()
    assert got.data.tolist() == values.tolist()
    assert got._table_index.tolist() == list(range(len(values)))
    assert set(got._table_path) == {name}
    assert len(frame) == len(values)


def test_external_videos_give_their_timestamps_and_null_data(kinds: Path, tmp_path: Path) -> None:
    got = lazynwb_dask.read_nwb(kinds, "/acquisition/movie").compute()
    assert got.timestamps.tolist() == list(range(8))
    assert got.data.isna().all()
    with nwb(tmp_path / "f.nwb") as file:
        group = series(file, "/acquisition/movie", times=(0.0, 30.0))
        group.create_dataset("external_file", data=["a.avi"], dtype=h5py.string_dtype())
    assert len(lazynwb_dask.read_nwb(tmp_path / "f.nwb", "acquisition/movie").compute()) == 0


def test_a_tables_path_a_containers_and_a_missing_one_are_told_apart(kinds: Path) -> None:
    assert "id" in lazynwb_dask.read_nwb(kinds, "electrodes")
    for name in ("/processing/behavior/events", "/processing/behavior", "/acquisition/nothing"):
        with pytest.raises(TableNotFoundError, match=name):
            lazynwb_dask.read_nwb(kinds, name)
    with pytest.raises(TableNotFoundError, match=r"did you mean .*/behavior/events/licks"):
        lazynwb_dask.read_nwb(kinds, "/processing/behavior/events")


def test_data_and_timestamps_of_unequal_length_are_cut_and_it_is_noted(tmp_path: Path) -> None:
    with nwb(tmp_path / "long.nwb") as file:
        series(file, "/acquisition/s", np.arange(10), np.arange(7.0))
    with nwb(tmp_path / "short.nwb") as file:
        series(file, "/acquisition/s", np.arange(5), np.arange(9.0))
    got = lazynwb_dask.read_nwb(tmp_path, "/acquisition/s").compute()
    assert got.data.tolist() == [*range(7), *range(5)]
    assert got.timestamps.tolist() == [*range(7), *range(5)]
    report = lazynwb_dask.schema_report(tmp_path / "long.nwb", "/acquisition/s")
    assert report.notes["data"] == "10 rows, the table has 7; cut"
    report = lazynwb_dask.schema_report(tmp_path / "short.nwb", "/acquisition/s")
    assert report.notes["timestamps"] == "9 rows, the table has 5; cut"


def test_scaled_data_are_what_pynwb_makes_of_them(kinds: Path) -> None:
    with pynwb.NWBHDF5IO(kinds, "r") as io:
        wanted = io.read().acquisition["electrical"].get_data_in_units()
    name = "/acquisition/electrical"
    got = lazynwb_dask.read_nwb(kinds, name, scaled=True).compute()
    assert str(got.data.dtype) == "list<item: double>[pyarrow]"
    assert np.array_equal(np.stack(got.data), wanted)
    some = lazynwb_dask.read_nwb(kinds, name, channels=[2, 0], scaled=True).compute()
    assert list(some.columns) == ["timestamps", "data_2", "data_0", *PROVENANCE]
    assert np.array_equal(some[["data_2", "data_0"]], wanted[:, [2, 0]])
    flat = lazynwb_dask.read_nwb(kinds, "/processing/behavior/speed", scaled=True).compute()
    assert flat.data.tolist() == expected(kinds, "/processing/behavior/speed")[1].tolist()


def test_channels_are_columns_and_a_file_that_lacks_one_has_nulls(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide, narrow = rng.integers(0, 99, (30, 4)), rng.integers(0, 99, (20, 2))
    for name, data in (("a", wide), ("b", narrow)):
        with nwb(tmp_path / f"{name}.nwb") as file:
            series(file, "/acquisition/s", data.astype("i4"), (0.0, 10.0), chunks=(7, 2))
    frame = lazynwb_dask.read_nwb(tmp_path, "acquisition/s", channels="all")
    assert list(frame.columns) == ["timestamps", *[f"data_{n}" for n in range(4)], *PROVENANCE]
    got = frame.compute()
    assert got.data_0.tolist() == [*wide[:, 0], *narrow[:, 0]]
    assert got.data_3[:30].tolist() == wide[:, 3].tolist()
    assert got.data_3[30:].isna().all()
    one = lazynwb_dask.read_nwb(tmp_path, "acquisition/s", channels=3)
    assert one.data_3.sum().compute() == wide[:, 3].sum()
    picked = frame[(frame.data_1 > 50) & (frame.timestamps < 1)].compute()
    oracle.assert_same(picked, got[(got.data_1 > 50) & (got.timestamps < 1)])
    with pytest.raises(ColumnNotFoundError, match="no channel 4"):
        lazynwb_dask.read_nwb(tmp_path, "acquisition/s", channels=[0, 4])


def test_channels_and_scaled_are_refused_where_they_make_no_sense(kinds: Path) -> None:
    read = lazynwb_dask.read_nwb
    with pytest.raises(NWBReadError, match=r"electrodes is a table: channels="):
        read(kinds, "electrodes", scaled=True)
    with pytest.raises(NWBReadError, match="words: scaled=True is for numbers"):
        read(kinds, "/acquisition/words", scaled=True)
    for name in ("/processing/behavior/speed", "/acquisition/video"):
        with pytest.raises(NWBReadError, match="needs data of two dimensions"):
            read(kinds, name, channels=[0])
    for wrong in ([-1], [1, 1], "some"):
        with pytest.raises(ValueError, match="channels="):
            read(kinds, "/acquisition/electrical", channels=wrong)
    for wrong in ([0.5], [], [True]):
        with pytest.raises(TypeError, match="channels="):
            read(kinds, "/acquisition/electrical", channels=wrong)
    with nwb(kinds.parent / "factors.nwb") as file:
        group = series(file, "/acquisition/s", np.zeros((5, 3)), (0.0, 1.0))
        group.create_dataset("channel_conversion", data=[1.0, 2.0])
    with pytest.raises(NWBReadError, match="2 values, data 3 channels"):
        read(kinds.parent / "factors.nwb", "/acquisition/s", scaled=True)


def test_only_the_chunks_of_the_channels_are_read_and_each_once(
    tmp_path: Path, range_server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(0).integers(-999, 999, (40_000, 32)).astype("i2")
    with nwb(tmp_path / "f.nwb") as file:
        made = series(
            file, "/acquisition/s", data, (0.0, 1e3), chunks=(10_000, 8), compression="gzip"
        )
        sizes = [made["data"].id.get_chunk_info(i).size for i in range(16)]
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    frame = lazynwb_dask.read_nwb(url, "/acquisition/s", channels=[9, 10, 15, 12])
    range_server.clear_log()
    from lazynwb_dask import window

    decoded = []
    real = window.chunk_bytes
    monkeypatch.setattr(window, "chunk_bytes", lambda *a: decoded.append(1) or real(*a))
    got = frame.compute()
    assert np.array_equal(
        got[["data_9", "data_10", "data_15", "data_12"]], data[:, [9, 10, 15, 12]]
    )
    assert range_server.sent == sum(sizes[1::4])
    assert len(decoded) == 4


def test_given_schemas_read_series_too(kinds: Path) -> None:
    name = "/acquisition/electrical"
    wanted = lazynwb_dask.read_nwb(kinds, name, channels=[1], scaled=True).compute()
    for schema in (1, pa.schema([("timestamps", pa.float64()), ("data_1", pa.float64())])):
        frame = lazynwb_dask.read_nwb(kinds, name, channels=[1], scaled=True, schema=schema)
        oracle.assert_same(frame.compute(), wanted)
        oracle.assert_same(pickle.loads(pickle.dumps(frame)).compute(), wanted)


def test_series_of_many_sessions_are_one_frame_that_other_processes_read(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path, n=3, units=2, mean_spikes=9, samples=500, trials=3)
    frame = lazynwb_dask.read_nwb(paths, "/acquisition/lick_sensor", scaled=True)
    assert len(frame) == 1500
    got = frame[frame.data > 0.5].compute(scheduler="processes")
    whole = frame.compute()
    oracle.assert_same(got, whole[whole.data > 0.5])
    for path, rows in whole.groupby("_nwb_path"):
        times, values = expected(Path(path), "/acquisition/lick_sensor")
        assert rows.timestamps.tolist() == times.tolist()
        assert rows.data.tolist() == (values * 0.001).tolist()


def test_a_series_without_a_usable_rate_has_data_only(tmp_path: Path) -> None:
    for number, rate in enumerate((0.0, float("nan"), -5.0)):
        path = tmp_path / f"{number}.nwb"
        with nwb(path) as file:
            series(file, "/acquisition/s", np.arange(4), (0.0, rate))
        with pytest.warns(UserWarning, match="no time without a rate above 0"):
            frame = lazynwb_dask.read_nwb(path, "/acquisition/s")
        assert list(frame.columns) == ["data", *PROVENANCE]
        assert frame.data.compute().tolist() == [0, 1, 2, 3]


def test_splits_lie_on_the_borders_of_chunks(tmp_path: Path) -> None:
    (path,) = make_sessions(
        tmp_path, n=1, units=2, mean_spikes=9, lfp_shape=(50_000, 16), series_chunk=3_000
    )
    for blocksize in (600_000, 2_000_000):
        frame = lazynwb_dask.read_nwb(path, "/acquisition/lfp", blocksize=blocksize)
        inner = np.array(frame.divisions[:-1])
        assert frame.npartitions > 1
        assert not (inner % 3_000).any()
        rows = frame.map_partitions(len).compute()
        assert rows.sum() == 50_000
        assert rows.max() * (32 + 8 + len(path) + 50) <= blocksize
    tiny = lazynwb_dask.read_nwb(path, "/acquisition/lfp", blocksize=50_000)
    assert tiny.npartitions > 100  # less than a chunk: the promise is the blocksize's
    assert len(tiny[["timestamps"]].compute()) == 50_000


# ---------------------------------------------------------------------------------- ranges of times
def narrow(frame: Any, low: float, high: float, how: int) -> Any:
    """The same rows, said in different ways."""
    times = frame.timestamps
    if how == 0:
        return frame[(times >= low) & (times <= high)]
    if how == 1:
        return frame[times.between(low, high)]
    if how == 2:
        later = frame[times >= low]
        return later[high >= later.timestamps]
    return frame.loc[~(times < low) & ~(times > high)]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of a few rows, so that short series are searched, not read whole."""
    monkeypatch.setattr(seek, "PAGE", 4)
    monkeypatch.setattr(seek, "SMALL", 1)


@QUICK
@given(data=st.data())
def test_any_range_of_times_gives_what_pandas_gives(
    tmp_path: Path, small_pages: None, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 90))
    kind = data.draw(st.sampled_from(["rate", "even", "jumps", "equal", "any"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    times: Any = {
        "rate": (float(rng.normal()), float(rng.uniform(0.1, 50))),
        "even": np.arange(n) * 0.5,
        "jumps": np.cumsum(rng.exponential(1, n) ** 4),
        "equal": np.sort(rng.integers(0, 5, n)).astype(float),
        "any": np.sort(rng.normal(size=n)),
    }[kind]
    storage: dict[str, Any] = data.draw(
        st.sampled_from([{}, {"chunks": (3,)}, {"chunks": (5,), "compression": "gzip"}])
    )
    if "chunks" in storage:
        storage = storage | {"chunks": (min(storage["chunks"][0], n),)}
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        series(file, "/acquisition/s", np.arange(n), times, **storage)
    blocksize = data.draw(st.sampled_from([None, "128 MiB", 2_000]))
    frame = lazynwb_dask.read_nwb(path, "/acquisition/s", blocksize=blocksize)
    whole = frame.compute()
    marks = st.sampled_from([*whole.timestamps.tolist()[:30], -1e9, 1e9, 0.25])
    low, high = data.draw(marks), data.draw(marks)
    wanted = whole[(whole.timestamps >= low) & (whole.timestamps <= high)]
    oracle.assert_same(narrow(frame, low, high, data.draw(st.integers(0, 3))).compute(), wanted)
    query = f"timestamps >= {low} and timestamps <= {high}"
    oracle.assert_same(frame.query(query).compute(), wanted)


def test_a_range_of_a_regular_clock_costs_its_own_chunks_and_no_look_ups(
    tmp_path: Path, range_server: RangeServer
) -> None:
    data = np.random.default_rng(0).normal(size=500_000)
    with nwb(tmp_path / "f.nwb") as file:
        made = series(
            file, "/acquisition/s", data, (10.0, 1000.0), chunks=(10_000,), compression="gzip"
        )
        sizes = [made["data"].id.get_chunk_info(i).size for i in range(50)]
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    frame = lazynwb_dask.read_nwb(url, "/acquisition/s")
    frame[frame.timestamps < 10.001].compute()  # reads the index of the chunks
    range_server.clear_log()
    got = frame[(frame.timestamps >= 255) & (frame.timestamps < 271)].data.compute()
    assert got.tolist() == data[245_000:261_000].tolist()
    assert len(range_server.log) == 1
    assert range_server.sent == sum(sizes[24:27])
    for same in (
        frame.query("timestamps >= 255 and 271 > timestamps"),
        lazynwb_dask.read_nwb(
            url, "/acquisition/s", filters="timestamps >= 255 & timestamps < 271"
        ),
        lazynwb_dask.read_nwb(
            url, "/acquisition/s", filters=[("timestamps", ">=", 255), ("timestamps", "<", 271)]
        ),
    ):
        range_server.clear_log()
        assert same.data.compute().tolist() == got.tolist()
        assert range_server.sent == sum(sizes[24:27])
    range_server.clear_log()
    assert len(frame[frame.timestamps < 10].compute()) == 0
    assert len(frame[frame.timestamps > 1e6].compute()) == 0
    assert not range_server.log


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_range_of_stored_times_is_looked_up_in_few_requests(
    tmp_path: Path, range_server: RangeServer, compression: str | None
) -> None:
    n, rng = 1_000_000, np.random.default_rng(0)
    times = np.cumsum(rng.exponential(0.001, n))
    times[n // 3 :] += 500  # a pause: time doesn't pass evenly
    with nwb(tmp_path / "f.nwb") as file:
        series(
            file, "/acquisition/s", np.arange(n), times, chunks=(20_000,), compression=compression
        )
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    frame = lazynwb_dask.read_nwb(url, "/acquisition/s")
    frame.data.head(1)  # reads the index of the chunks
    for low in (100.0, 700.0, 1200.0):
        rows = np.flatnonzero((times >= low) & (times < low + 5))
        query = frame[(frame.timestamps >= low) & (frame.timestamps < low + 5)]
        range_server.clear_log()
        got = query.compute()
        assert got.data.tolist() == rows.tolist()
        assert got.timestamps.tolist() == times[rows].tolist()
        # the first and the last page, where it should begin and end, twice more, and the data
        assert len(range_server.log) <= 9, [e.range for e in range_server.log]
        assert range_server.sent < 0.2 * 16 * n
        range_server.clear_log()
        oracle.assert_same(query.compute(), got)
        assert len(range_server.log) <= 2, "what was looked up is known"
    range_server.clear_log()
    assert len(frame[frame.timestamps < 0].compute()) == 0
    assert not range_server.log


def test_partitions_look_times_up_once_for_all_of_them(
    tmp_path: Path, range_server: RangeServer
) -> None:
    n = 400_000
    with nwb(tmp_path / "f.nwb") as file:
        series(file, "/acquisition/s", np.arange(n), np.arange(n) / 100, chunks=(20_000,))
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    frame = lazynwb_dask.read_nwb(url, "/acquisition/s", blocksize=2_000_000)
    assert frame.npartitions > 10
    range_server.clear_log()
    got = frame[frame.timestamps.between(1000, 1001)].compute(scheduler="threads")
    assert got.data.tolist() == list(range(100_000, 100_101))
    assert len(range_server.log) <= 6


def test_times_that_fall_are_noticed_where_they_are_looked_at(
    tmp_path: Path, small_pages: None
) -> None:
    rng = np.random.default_rng(0)
    for number in range(30):
        times = np.arange(200.0)
        at = int(rng.integers(0, 190))
        times[at : at + 5] = rng.permutation(times[at : at + 5]) - (number % 2) * 1000
        if number % 3 == 0:
            times[at] = np.nan
        path = tmp_path / f"{number}.nwb"
        with nwb(path) as file:
            series(file, "/acquisition/s", np.arange(200), times, chunks=(4,))
        frame = lazynwb_dask.read_nwb(path, "/acquisition/s")
        whole = frame.compute()
        # a range that begins and ends where times are out of order
        low, high = sorted(whole.timestamps.dropna().iloc[[min(at + 1, 180), at + 3]])
        wanted = whole[(whole.timestamps >= low) & (whole.timestamps <= high)]
        got = frame[frame.timestamps.between(low, high)].compute()
        if number % 2 == 0:
            assert set(wanted.data[abs(wanted.data - at) < 8]) <= set(got.data), number
        with dask.config.set({"lazynwb-dask.sorted-timestamps": False}):
            exact = frame[frame.timestamps.between(low, high)].compute()
        oracle.assert_same(exact, wanted)


def test_short_series_and_tables_are_right_in_any_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = rng.permutation(np.arange(30_000.0))
    with nwb(tmp_path / "f.nwb") as file:
        series(file, "/acquisition/s", np.arange(30_000), times, chunks=(500,))
        group = table(file, "/events/events", 30_000, ["timestamps", "timestamp"])
        group.create_dataset("timestamps", data=times, chunks=(500,))
        group.create_dataset("timestamp", data=times, chunks=(500,))
    for name, column in (
        ("/acquisition/s", "timestamps"),
        ("/events/events", "timestamps"),
        ("/events/events", "timestamp"),
    ):
        frame = lazynwb_dask.read_nwb(tmp_path / "f.nwb", name)
        got = frame[frame[column].between(100, 900)].compute()
        assert got._table_index.tolist() == np.flatnonzero((times >= 100) & (times <= 900)).tolist()


def test_a_long_table_is_never_taken_to_be_in_order(tmp_path: Path, small_pages: None) -> None:
    times = np.random.default_rng(0).permutation(np.arange(500.0))
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/events/events", 500, ["timestamps"])
        group.create_dataset("timestamps", data=times, chunks=(10,))
    frame = lazynwb_dask.read_nwb(tmp_path / "f.nwb", "/events/events")
    got = frame[frame.timestamps.between(100, 200)].compute()
    assert sorted(got.timestamps) == list(range(100, 201))


# ------------------------------------------------------------------------------------ as lazy arrays
STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "deflate and shuffle": {"chunks": True, "compression": "gzip", "shuffle": True},
    "fletcher32": {"chunks": True, "fletcher32": True},
    "lzf": {"chunks": True, "compression": "lzf"},
    "scale-offset": {"chunks": True, "scaleoffset": 0},
    "szip": {"chunks": True, "compression": "szip"},
}


@st.composite
def keys(draw: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """What NumPy and Dask both understand: slices, numbers, and at most one list."""
    found: list[Any] = []
    for n in shape:
        kind = draw(st.sampled_from(["slice", "slice", "number", "list", "all"]))
        if kind == "list" and any(isinstance(k, list) for k in found):
            kind = "slice"
        number = st.integers(-n, n - 1)
        if kind == "slice":
            step = draw(st.sampled_from([None, 1, 2, 3, -1, -2]))
            found.append(slice(draw(st.none() | number), draw(st.none() | number), step))
        elif kind == "number":
            found.append(draw(number))
        elif kind == "list":
            found.append(draw(st.lists(number, min_size=1, max_size=6)))
        else:
            found.append(slice(None))
    return tuple(found[: draw(st.integers(1, len(shape)))])


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files with one series of each storage and shape."""
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    found = {}
    for how, libver in itertools.product(STORAGE, ("earliest", "latest")):
        if how == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
            continue
        path = folder / f"{how} {libver}.nwb"
        with nwb(path, libver=libver) as file:
            for shape in ((61,), (40, 7), (23, 5, 6)):
                storage = dict(STORAGE[how])
                if "chunks" in storage:
                    inner = [max(2, n // 2) for n in shape[1:]]
                    storage["chunks"] = (8, *inner)
                data = rng.integers(-99, 99, shape).astype(">i2" if how == "chunked" else "i4")
                series(file, f"/acquisition/s{len(shape)}", data, (1.5, 2.0), **storage)
        found[f"{how} {libver}"] = str(path)
    path = folder / "patchy.nwb"  # chunks that are absent, and chunks without some of their filters
    with nwb(path) as file:
        for shape in ((61,), (40, 7), (23, 5, 6)):
            group = series(file, f"/acquisition/s{len(shape)}", times=(0.0, 1.0))
            chunk = (8, *[max(2, n // 2) for n in shape[1:]])
            made = group.create_dataset(
                "data", shape, ">i2", chunks=chunk, compression="gzip", shuffle=True, fillvalue=-7
            )
            made[:16] = rng.integers(-99, 99, (16, *shape[1:]))
            values = rng.integers(-99, 99, chunk).astype(">i2")
            made.id.write_direct_chunk((16, *[0] * len(shape[1:])), values.tobytes(), filter_mask=3)
    return found | {"patchy": str(path)}


@settings(QUICK, max_examples=80)
@given(data=st.data())
def test_any_slice_of_any_storage_equals_numpys(
    blocks: dict[str, str], data: st.DataObject
) -> None:
    path = blocks[data.draw(st.sampled_from(sorted(blocks)))]
    dims = data.draw(st.integers(1, 3))
    size = data.draw(st.sampled_from(["128 MiB", "300 B"]))  # one block, or many
    with dask.config.set({"array.chunk-size": size}):
        found = lazynwb_dask.open_timeseries(path, f"/acquisition/s{dims}").data
    with h5py.File(path) as file:
        whole = file[f"acquisition/s{dims}/data"][()]
    assert found.shape == whole.shape
    assert found.dtype == whole.dtype.newbyteorder("=")
    key = data.draw(keys(whole.shape))
    got = found[key].compute(scheduler="sync")
    assert got.dtype == found.dtype
    assert np.array_equal(got, whole[key])


def test_arrays_compute_what_numpy_computes(blocks: dict[str, str]) -> None:
    path = blocks["deflate and shuffle earliest"]
    found = lazynwb_dask.open_timeseries(path, "s2")
    with h5py.File(path) as file:
        whole = file["acquisition/s2/data"][()]
    assert np.array_equal(found.data.mean(axis=0).compute(), whole.mean(axis=0))
    assert np.array_equal(found.data[found.data[:, 0] > 0].compute(), whole[whole[:, 0] > 0])
    assert np.array_equal(found.data.compute(scheduler="processes"), whole)
    assert np.array_equal(found.timestamps.compute(), 1.5 + np.arange(40) / 2.0)


def test_blocks_are_whole_stored_chunks(tmp_path: Path) -> None:
    (path,) = make_sessions(
        tmp_path, n=1, units=2, mean_spikes=9, lfp_shape=(50_000, 16), series_chunk=3_000
    )
    with dask.config.set({"array.chunk-size": "1 MiB"}):
        data = lazynwb_dask.open_timeseries(path, "lfp").data
    assert data.chunks == ((30_000, 20_000), (16,))
    with dask.config.set({"array.chunk-size": "1 kiB"}):
        assert lazynwb_dask.open_timeseries(path, "lfp").data.chunksize == (3_000, 16)


def many_chunks(path: Path, libver: str) -> np.ndarray:
    """A series of 80,000 chunks."""
    values = np.arange(800_000, dtype="i4")
    with nwb(path, libver=libver) as file:
        group = series(file, "/acquisition/s", times=(0.0, 1000.0))
        made = group.create_dataset("data", (800_000,), "i4", chunks=(10,), compression="gzip")
        for i in range(0, 800_000, 10):
            made.id.write_direct_chunk((i,), b"%b" % _deflated(values[i : i + 10]))
    return values


def _deflated(values: np.ndarray) -> bytes:
    import zlib

    return zlib.compress(values.tobytes(), 1)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_huge_series_opens_without_the_index_of_its_chunks(
    tmp_path: Path, range_server: RangeServer, libver: str
) -> None:
    values = many_chunks(tmp_path / "f.nwb", libver)
    content = (tmp_path / "f.nwb").read_bytes()
    url = range_server.put("f.nwb", content)
    found = lazynwb_dask.open_timeseries(url, "/acquisition/s")
    frame = lazynwb_dask.read_nwb(url, "/acquisition/s")
    assert len(range_server.log) <= 6
    assert range_server.sent <= 2_200_000 < len(content)
    assert len(pickle.dumps(found.data)) < 5_000
    assert found.data[123_456:123_466].compute().tolist() == values[123_456:123_466].tolist()
    range_server.clear_log()
    assert found.data[200_000:200_005].compute().tolist() == values[200_000:200_005].tolist()
    got = frame[frame.timestamps.between(300, 300.02)].compute()
    assert got.data.tolist() == values[300_000:300_021].tolist()
    assert len(range_server.log) == 2
    assert range_server.sent < 500


def test_a_window_reads_only_the_chunks_that_it_touches(
    tmp_path: Path, range_server: RangeServer
) -> None:
    data = np.random.default_rng(0).integers(-999, 999, (100_000, 64)).astype("i2")
    with nwb(tmp_path / "f.nwb") as file:
        made = series(
            file, "/acquisition/s", data, (0.0, 1e3), chunks=(5_000, 16), compression="gzip"
        )
        sizes = np.array([made["data"].id.get_chunk_info(i).size for i in range(80)]).reshape(20, 4)
        series(file, "/acquisition/plain", data, (0.0, 1e3))
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    found = lazynwb_dask.open_timeseries(url, match_all=True)
    found["/acquisition/s"].data[0, 0].compute()  # reads the index of the chunks
    window = (slice(12_850, 20_000), slice(20, 40))
    range_server.clear_log()
    got = found["/acquisition/s"].data[window].mean(axis=0).compute()
    assert np.array_equal(got, data[window].mean(axis=0))
    touched = int(sizes[2:4, 1:3].sum())
    assert touched <= range_server.sent <= touched + 65_536 * 2  # and gaps not worth a request
    range_server.clear_log()
    plain = found["/acquisition/plain"]
    assert np.array_equal(plain.data[1000:3000].compute(), data[1000:3000])
    assert range_server.sent == 2000 * 128


def test_facts_of_sampling_and_electrodes_are_told(kinds: Path) -> None:
    found = lazynwb_dask.open_timeseries(kinds, "electrical")
    assert (found.path, found.neurodata_type) == ("/acquisition/electrical", "ElectricalSeries")
    assert (found.rate, found.starting_time, found.unit) == (30.0, 2.5, "volts")
    assert (found.conversion, found.offset, found.resolution) == (0.5, 1.0, -1.0)
    assert found.channel_conversion.tolist() == [1.0, 2.0, 0.25]
    assert found.electrodes.table == "/general/extracellular_ephys/electrodes"
    assert found.electrodes.rows.tolist() == [4, 0, 5]
    assert found.rois is None
    rois = lazynwb_dask.open_timeseries(kinds, "roi").rois
    assert (rois.table, rois.rows.tolist()) == ("/processing/behavior/cells", [3, 1])
    assert len(found) == 50
    with pynwb.NWBHDF5IO(kinds, "r") as io:
        wanted = io.read().acquisition["electrical"].get_data_in_units()
    assert np.array_equal(found.scaled.compute(), wanted)
    assert "50 x 3 int16, volts" in repr(found)
    assert "<table>" in found._repr_html_()
    linked = lazynwb_dask.open_timeseries(kinds, "position")
    other = lazynwb_dask.open_timeseries(kinds, "speed")
    assert linked.rate is None
    assert np.array_equal(linked.timestamps.compute(), other.timestamps.compute())
    movie = lazynwb_dask.open_timeseries(kinds, "movie")
    assert movie.data is None
    assert movie.external_files == ("movie.avi",)
    assert movie.to_dataframe(2, 4).timestamps.tolist() == [2.0, 3.0]
    words = lazynwb_dask.open_timeseries(kinds, "words")
    assert words.data.compute().tolist() == ["go", "", "grün"]
    assert words.data[1:].compute().tolist() == ["", "grün"]
    with pytest.raises(UnsupportedColumnError, match="numbers only"):
        _ = words.scaled


def test_windows_become_dataframes(kinds: Path) -> None:
    found = lazynwb_dask.open_timeseries(kinds, "electrical")
    got = found.to_dataframe(10, 14, scaled=True)
    times, values = expected(kinds, "/acquisition/electrical")
    assert list(got.columns) == ["timestamps", "data_0", "data_1", "data_2"]
    assert got.index.tolist() == [10, 11, 12, 13]
    assert got.timestamps.tolist() == times[10:14].tolist()
    assert got.data_2.tolist() == (values[10:14, 2] * 0.125 + 1).tolist()
    assert len(found.to_dataframe()) == 50
    assert found.to_dataframe(-2).index.tolist() == [48, 49]
    video = lazynwb_dask.open_timeseries(kinds, "video").to_dataframe(0, 2)
    assert video.data.tolist() == expected(kinds, "/acquisition/video")[1][:2].tolist()
    words = lazynwb_dask.open_timeseries(kinds, "words").to_dataframe()
    assert words.data.tolist() == ["go", "", "grün"]


def test_series_are_found_by_path_by_name_or_all(kinds: Path, tmp_path: Path) -> None:
    read = lazynwb_dask.open_timeseries
    assert read(kinds, "acquisition/words").path == "/acquisition/words"
    assert read(kinds, "licks").path == "/processing/behavior/events/licks"
    assert read(kinds, "electri").path == "/acquisition/electrical"
    found = read(kinds, match_all=True)
    assert list(found) == sorted([*KINDS, "/acquisition/movie", "/stimulus/templates/frames"],
                                 key=lambda path: path.split("/"))  # fmt: skip
    assert set(read(kinds, "behavior", match_all=True)) == {p for p in found if "behavior" in p}
    with pytest.raises(TableNotFoundError, match=r"'acquisition' means 5 TimeSeries.*match_all"):
        read(kinds, "acquisition")
    with pytest.raises(TableNotFoundError, match=r"did you mean /processing/behavior/speed"):
        read(kinds, "/processing/behaviour/speed")
    with pytest.raises(TableNotFoundError, match="electrodes is a table"):
        read(kinds, "/general/extracellular_ephys/electrodes")
    with pytest.raises(ValueError, match="match_all=True"):
        read(kinds)
    for name in ("a.nwb", "b.nwb"):
        (tmp_path / name).write_bytes(kinds.read_bytes())
    with pytest.raises(ValueError, match="takes one file"):
        read(tmp_path, "speed")


def test_the_graph_of_an_array_holds_no_secrets(kinds: Path, s3_server: S3Server) -> None:
    s3_server.put("lab", "f.nwb", kinds.read_bytes())
    found = lazynwb_dask.open_timeseries(
        "s3://lab/f.nwb", "speed", storage_options=s3_server.storage_options
    )
    assert found.data.sum().compute() == pytest.approx(
        expected(kinds, "/processing/behavior/speed")[1].sum()
    )
    packed = pickle.dumps(dict(found.data.__dask_graph__()))
    for secret in (s3_server.storage_options["key"], s3_server.storage_options["secret"]):
        assert secret.encode() not in packed


def test_a_damaged_chunk_is_an_error_that_names_file_and_dataset(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        made = series(
            file, "/acquisition/s", np.arange(1000.0), (0.0, 1.0), chunks=(100,), compression="gzip"
        )
        offset = made["data"].id.get_chunk_info(3).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 20] ^= 0xFF
    path.write_bytes(bytes(content))
    found = lazynwb_dask.open_timeseries(path, "s")
    assert found.data[:300].sum().compute() == sum(range(300))
    with pytest.raises(NWBReadError, match=r"f\.nwb: /acquisition/s/data: .*damaged"):
        found.data.sum().compute()


def test_helper_processes_open_the_same(kinds: Path) -> None:
    with dask.config.set({"lazynwb-dask.isolate": True}):
        found = lazynwb_dask.open_timeseries(kinds, match_all=True)
    assert len(found) == len(lazynwb_dask.open_timeseries(kinds, match_all=True))
    assert isinstance(found["/acquisition/electrical"].data, da.Array)


# ------------------------------------------------------------------------------------------ real files
def test_every_series_of_real_files_is_what_h5py_reads() -> None:
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in oracle.corpus_files():
            for name, found in lazynwb_dask.open_timeseries(path, match_all=True).items():
                rows = len(found)
                with h5py.File(path) as file:
                    group = file[name]
                    if found.data is not None:
                        raw = group["data"]
                        whole = raw.asstr()[:rows] if raw.dtype.kind == "O" else raw[:rows]
                        assert np.array_equal(found.data.compute(scheduler="sync"), whole, equal_nan=(
                            raw.dtype.kind == "f")), (path, name)  # fmt: skip
                    if "timestamps" in group:
                        whole = group["timestamps"][:rows]
                        got = found.timestamps.compute(scheduler="sync")
                        assert np.array_equal(got, whole, equal_nan=True), (path, name)
                count += 1
    assert count > 100
