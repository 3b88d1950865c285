"""TimeSeries as tables of many files."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import oracle
import pyarrow as pa
import pynwb
import pytest
from files import nwb
from series_files import KINDS, expected, make_kinds, series
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import ColumnNotFoundError, NWBReadError, TableNotFoundError
from lazynwb_dask.read import block

PROVENANCE = ["_nwb_path", "_table_path", "_table_index"]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kinds(tmp_path_factory.mktemp("kinds") / "kinds.nwb")


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
    with pytest.raises(TableNotFoundError, match=r"did you mean .*'/processing/behavior/events/licks'"):
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
        made = series(file, "/acquisition/s", data, (0.0, 1e3), chunks=(10_000, 8), compression="gzip")
        sizes = [made["data"].id.get_chunk_info(i).size for i in range(16)]
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    frame = lazynwb_dask.read_nwb(url, "/acquisition/s", channels=[9, 10, 15, 12])
    range_server.clear_log()
    decoded = []
    real = block.before_shuffle
    monkeypatch.setattr(block, "before_shuffle", lambda *a: decoded.append(1) or real(*a))
    got = frame.compute()
    assert np.array_equal(got[["data_9", "data_10", "data_15", "data_12"]], data[:, [9, 10, 15, 12]])
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


def test_a_series_without_its_start_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    with nwb(path) as file:
        series(file, "/acquisition/s", np.arange(4), (0.0, 10.0))
        del file["/acquisition/s/starting_time"]
        file.create_dataset("/acquisition/s/starting_time", data="soon").attrs["rate"] = 10.0
    found = lazynwb_dask.open_timeseries(path, "s")
    assert found.rate == 10
    assert found.starting_time is None
    assert "Hz" not in repr(found)


def test_splits_lie_on_the_borders_of_chunks(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=2, mean_spikes=9, lfp_shape=(50_000, 16), series_chunk=3_000)
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
