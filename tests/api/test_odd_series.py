"""TimeSeries and sessions where files are odd, but fair."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBReadError


def series(path: Path, data: Any, **facts: Any) -> str:
    """A file with one TimeSeries, `/acquisition/s`."""
    rate = facts.pop("rate", np.float64(100.0))
    start = facts.pop("start", 0.0)
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        group = file.create_group("acquisition/s")
        group.attrs.update(neurodata_type=facts.pop("kind", "TimeSeries"), namespace="core")
        group["data"] = data
        group["data"].attrs["unit"] = "V"
        for name in ("conversion", "offset"):
            if name in facts:
                group["data"].attrs[name] = facts.pop(name)
        group["starting_time"] = start
        group["starting_time"].attrs.update(rate=rate, unit="seconds")
        for name, value in facts.items():
            group[name] = value
    return str(path)


def test_rates_and_conversions_of_32_bits_are_the_numbers_that_are_stored(tmp_path: Path) -> None:
    rate, factor = np.float32(30000.3), np.float32(1e-12)
    path = series(tmp_path / "a.nwb", np.arange(50, dtype="i2"), rate=rate, conversion=factor)
    frame = lazynwb_dask.read_nwb(path, "/acquisition/s", scaled=True).compute()
    np.testing.assert_array_equal(frame.timestamps, np.arange(50) / float(rate))
    np.testing.assert_array_equal(frame.data, np.arange(50) * float(factor))
    opened = lazynwb_dask.open_timeseries(path, "s")
    assert opened.rate == float(rate)
    assert opened.conversion == float(factor)
    assert lazynwb_dask.contents(path).set_index("path").rate["/acquisition/s"] == float(rate)


def test_a_series_that_names_no_conversion_is_in_its_unit_as_it_is(tmp_path: Path) -> None:
    path = series(tmp_path / "a.nwb", np.arange(50, dtype="i2"), rate=10.0)
    with h5py.File(path) as file:
        assert not {"conversion", "offset"} & {*file["acquisition/s/data"].attrs}
    frame = lazynwb_dask.read_nwb(path, "/acquisition/s", scaled=True).compute()
    opened = lazynwb_dask.open_timeseries(path, "s")
    assert frame.data.tolist() == opened.scaled.compute().tolist() == [*range(50)]
    assert (opened.conversion, opened.offset) == (1.0, 0.0)


LIMITS = [0.1, 0.25, -1.0, 3.0, 1e18, -1e18, np.inf, -np.inf, np.finfo(float).max, 5e-324]


@pytest.mark.parametrize("rate", [100.0, 3e-7, 1e9])
def test_any_limits_of_a_range_of_times_by_rate_give_the_rows_of_pandas(tmp_path: Path, rate: float) -> None:
    path = series(tmp_path / "a.nwb", np.arange(300), rate=rate, start=-0.5)
    frame = lazynwb_dask.read_nwb(path, "/acquisition/s")
    whole = frame.compute()
    for limit in [*LIMITS, float(whole.timestamps[7]), float(whole.timestamps[299])]:
        for part, expected in (
            (frame[frame.timestamps < limit], whole[whole.timestamps < limit]),
            (frame[frame.timestamps <= limit], whole[whole.timestamps <= limit]),
            (frame[frame.timestamps > limit], whole[whole.timestamps > limit]),
            (frame[frame.timestamps >= limit], whole[whole.timestamps >= limit]),
            (frame[frame.timestamps == limit], whole[whole.timestamps == limit]),
        ):
            pd.testing.assert_frame_equal(part.compute(scheduler="sync"), expected)


def test_windows_joined_by_or_read_no_more_than_what_lies_between_them(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    with h5py.File(path, "w") as file:
        group = file.create_group("acquisition/s")
        group.attrs.update(neurodata_type="TimeSeries", namespace="core")
        group.create_dataset("data", data=np.arange(1_000_000.0), chunks=(10_000,))
        group.create_dataset("timestamps", data=np.arange(1_000_000.0), chunks=(10_000,))
        file.attrs["nwb_version"] = "2.7.0"
    frame = lazynwb_dask.read_nwb(path, "/acquisition/s")
    t = frame.timestamps
    windows = ((t >= 150_000) & (t < 150_010)) | ((t >= 152_000) & (t < 152_010)) | (t == 151_000)
    for most in (8_200_000, 2_000_000):  # all timestamps are read once, then it is known that they rise
        with lazynwb_dask.trace() as fetched:
            found = frame[windows].compute(scheduler="sync")
        assert found.data.tolist() == [*range(150_000, 150_010), 151_000, *range(152_000, 152_010)]
        assert fetched.files["bytes"].sum() < most


@pytest.mark.parametrize("kind", ["f4", "f2", "i2", "?", "f8"])
def test_scaled_data_are_float64_whatever_is_stored(tmp_path: Path, kind: str) -> None:
    data = (np.arange(20) % 7).astype(kind)
    path = series(tmp_path / "a.nwb", data, conversion=1e-9, offset=1000.0)
    opened = lazynwb_dask.open_timeseries(path, "s")
    expected = data.astype("f8") * 1e-9 + 1000.0
    assert opened.scaled is not None
    assert opened.scaled.dtype == np.float64
    np.testing.assert_array_equal(opened.scaled.compute(), expected)
    np.testing.assert_array_equal(opened.to_dataframe(scaled=True).data, expected)
    table = lazynwb_dask.read_nwb(path, "/acquisition/s", scaled=True).compute()
    np.testing.assert_array_equal(table.data, expected)


def test_one_channel_conversion_scales_data_of_one_dimension(tmp_path: Path) -> None:
    path = series(tmp_path / "a.nwb", np.arange(9.0), conversion=0.5, channel_conversion=np.array([4.0]))
    opened = lazynwb_dask.open_timeseries(path, "s")
    assert opened.scaled is not None
    np.testing.assert_array_equal(opened.scaled.compute(), np.arange(9.0) * 2)
    table = lazynwb_dask.read_nwb(path, "/acquisition/s", scaled=True).compute()
    np.testing.assert_array_equal(table.data, np.arange(9.0) * 2)


def test_channel_conversions_that_do_not_fit_cost_scaled_data_alone(tmp_path: Path) -> None:
    data = np.arange(12.0).reshape(4, 3)
    path = series(tmp_path / "a.nwb", data, channel_conversion=np.array([4.0, 5.0]))
    opened = lazynwb_dask.open_timeseries(path, "s")
    assert opened.data is not None
    np.testing.assert_array_equal(opened.data.compute(), data)
    with pytest.raises(NWBReadError, match="channel_conversion has 2 values, data 3 channels"):
        _ = opened.scaled
    with pytest.raises(NWBReadError, match=r"a\.nwb.*channel_conversion has 2 values"):
        lazynwb_dask.read_nwb(path, "/acquisition/s", scaled=True).compute()


def test_a_series_without_times_is_opened_and_a_linked_one_is_found(tmp_path: Path) -> None:
    path = series(tmp_path / "a.nwb", np.arange(5))
    with h5py.File(path, "a") as file:
        timeless = file.create_group("acquisition/timeless")
        timeless.attrs.update(neurodata_type="TimeSeries", namespace="core")
        timeless["data"] = np.arange(4)
        timeless["timestamps"] = h5py.SoftLink("/nowhere")
        file["acquisition/soft"] = h5py.SoftLink("/acquisition/s")
    with pytest.warns(UserWarning, match="without timestamps"):
        opened = lazynwb_dask.open_timeseries(path, "timeless")
    assert opened.timestamps is None
    assert opened.data is not None
    assert opened.data.compute().tolist() == [0, 1, 2, 3]
    linked = lazynwb_dask.open_timeseries(path, "soft")
    assert linked.data is not None
    assert linked.data.compute().tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(TypeError, match="name=5"):
        lazynwb_dask.open_timeseries(path, 5)  # type: ignore[call-overload]


def session(path: Path, **extra: str) -> str:
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.7.0"
        file["identifier"] = f"id of {path.name}"
        file["session_start_time"] = "2024-01-01T00:00:00+00:00"
        file["general/session_id"] = path.stem
        file["general/subject/species"] = "Mus musculus"
        for name, text in extra.items():
            file[name.replace("__", "/")] = text
    return str(path)


def test_a_further_field_never_takes_the_name_of_the_standards(tmp_path: Path) -> None:
    plain = session(tmp_path / "a.nwb")
    odd = session(
        tmp_path / "b.nwb",
        general__identifier="other",
        general__session_start_time="soon",
        session_id="of the root",
        general__species="a note",
        general___nwb_path="a path",
        general__subject___nwb_path="another",
    )
    for paths in ([plain, odd], [odd, plain]):
        found = lazynwb_dask.read_sessions(paths).compute().sort_values("identifier")
        assert found.identifier.tolist() == ["id of a.nwb", "id of b.nwb"]
        assert found.session_id.tolist() == ["a", "b"]
        assert found.species.tolist() == ["Mus musculus"] * 2
        assert found.session_start_time.tolist() == [datetime(2024, 1, 1, tzinfo=UTC)] * 2
        assert sorted(found._nwb_path) == sorted(paths)
        further = found.set_index("session_id").loc["b"]
        assert further.general_identifier == "other"
        assert further.general_session_start_time == "soon"
        assert further.root_session_id == "of the root"
        assert further.general_species == "a note"
        assert further.general__nwb_path == "a path"
        assert further.subject__nwb_path == "another"


def test_sessions_go_on_the_rows_of_a_frame_that_has_been_computed(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path, n=2, units=3, mean_spikes=5, channels=2, samples=10)
    table = lazynwb_dask.read_sessions(paths).compute()
    units = lazynwb_dask.read_nwb(paths, "/units")[["unit_id", "_nwb_path"]]
    expected = lazynwb_dask.with_sessions(units, ["subject_id", "keywords"]).compute()
    held = units.persist()
    for sessions in (table, table.set_index("_nwb_path"), lazynwb_dask.read_sessions(paths)):
        found = lazynwb_dask.with_sessions(held, ["subject_id", "keywords"], sessions=sessions)
        pd.testing.assert_frame_equal(found.compute(), expected)
    lacking = table[table._nwb_path == paths[0]]
    found = lazynwb_dask.with_sessions(held, "subject_id", sessions=lacking).compute()
    assert found.subject_id.isna().tolist() == [False] * 3 + [True] * 3
    with pytest.raises(ValueError, match="give sessions="):
        lazynwb_dask.with_sessions(held, "subject_id")
    with pytest.raises(ValueError, match="needs the column _nwb_path"):
        lazynwb_dask.with_sessions(units, "subject_id", sessions=table.drop(columns="_nwb_path"))
