"""A range of times reads what it touches, and is right in any order of the times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import oracle
import pytest
from files import nwb, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from series_files import series
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.read import time_order as seek

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
        made = series(file, "/acquisition/s", data, (10.0, 1000.0), chunks=(10_000,), compression="gzip")
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
        lazynwb_dask.read_nwb(url, "/acquisition/s", filters="timestamps >= 255 & timestamps < 271"),
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
        series(file, "/acquisition/s", np.arange(n), times, chunks=(20_000,), compression=compression)
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


def test_partitions_look_times_up_once_for_all_of_them(tmp_path: Path, range_server: RangeServer) -> None:
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


def test_times_that_fall_are_noticed_where_they_are_looked_at(tmp_path: Path, small_pages: None) -> None:
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
