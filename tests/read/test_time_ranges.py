"""A range of times reads what it touches, and is right in any order of the times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import oracle
import pytest
from files import nwb, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from series_files import series
from servers import RangeServer
from stores import How, serve, store_of

import lazynwb_dask
from lazynwb_dask.errors import NWBFileChangedError
from lazynwb_dask.read import time_order
from lazynwb_dask.util import lru

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
    monkeypatch.setattr(time_order, "PAGE", 4)
    monkeypatch.setattr(time_order, "SMALL", 1)
    monkeypatch.setattr(time_order, "BLOCK", 16)


def times_of(kind: str, n: int, rng: np.random.Generator) -> Any:
    """Times that rise in one way or another, or don't."""
    even = np.arange(n) * 0.5
    if kind in ("one is NaN", "one strays"):
        even[rng.integers(n)] = np.nan if kind == "one is NaN" else even[rng.integers(n)]
    return {
        "rate": (float(rng.normal()), float(rng.uniform(0.1, 50))),
        "jumps": np.cumsum(rng.exponential(1, n) ** 4),
        "equal": np.sort(rng.integers(0, 5, n)).astype(float),
        "any that rise": np.sort(rng.normal(size=n)),
        "infinite at the ends": np.sort(np.append(even, [-np.inf, -np.inf, np.inf]))[:n],
        "any": rng.normal(size=n).round(1),
        "start over": even % (0.5 * (1 + n // 3)),
        "fall": -even,
        "NaN": np.full(n, np.nan),
    }.get(kind, even)


RISING = ["rate", "even", "jumps", "equal", "any that rise", "infinite at the ends"]
OTHERS = ["any", "start over", "one strays", "one is NaN", "fall", "NaN"]


@settings(QUICK, max_examples=30)
@given(data=st.data())
def test_any_range_of_times_gives_what_pandas_gives(
    tmp_path: Path, cache_folder: Path, small_pages: None, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 90))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    storage: dict[str, Any] = data.draw(
        st.sampled_from([{}, {"chunks": (3,)}, {"chunks": (5,), "compression": "gzip"}])
    )
    if "chunks" in storage:
        storage = storage | {"chunks": (min(storage["chunks"][0], n),)}
    paths = [tmp_path / "a.nwb", tmp_path / "b.nwb"]
    for path in paths:
        times = times_of(data.draw(st.sampled_from(RISING + OTHERS)), n, rng)
        with nwb(path) as file:
            series(file, "/acquisition/s", np.arange(n), times, **storage)
    blocksize = data.draw(st.sampled_from([None, "128 MiB", 2_000]))
    whole = lazynwb_dask.read_nwb(paths, "/acquisition/s").compute()
    marks = st.sampled_from([*whole.timestamps.dropna().tolist()[:30], -1e9, 1e9, 0.25])
    low, high, how = data.draw(marks), data.draw(marks), data.draw(st.integers(0, 3))
    wanted = narrow(whole, low, high, how)
    lru.clear()
    with dask.config.set({"lazynwb-dask.cache": data.draw(st.booleans())}):
        files: Any = paths
        if data.draw(st.booleans()):
            files = lazynwb_dask.build_catalog(paths, tmp_path / "catalog").refresh(anew=True)
        frame = lazynwb_dask.read_nwb(files, "/acquisition/s", blocksize=blocksize)
        oracle.assert_same(narrow(frame, low, high, how).compute(), wanted)
        oracle.assert_same(narrow(frame, low, high, how).compute(), wanted)
        lru.clear()  # as in another process
        again = lazynwb_dask.read_nwb(files, "/acquisition/s")
        oracle.assert_same(narrow(again, low, high, how).compute(), wanted)
        query = f"timestamps >= {low} and timestamps <= {high}"
        oracle.assert_same(frame.query(query).compute(), whole.query(query))


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


Recording = tuple[bytes, np.ndarray, int, list[int]]


@pytest.fixture(scope="module", params=[None, "gzip"])
def recording(tmp_path_factory: pytest.TempPathFactory, request: Any) -> Recording:
    """A file with a long series, its times, the bytes that all of them take, and of the chunks of data."""
    n, rng = 400_000, np.random.default_rng(0)
    times = np.cumsum(rng.exponential(0.001, n))
    times[n // 3 :] += 500  # a pause: time doesn't pass evenly
    path = tmp_path_factory.mktemp("recording") / "f.nwb"
    with nwb(path) as file:
        file.create_dataset("scratch/before", data=np.zeros(600_000, np.uint8))  # which planning reads
        made = series(file, "/acquisition/s", np.arange(n), times, chunks=(20_000,), compression=request.param)
        stored = [made["timestamps"].id.get_chunk_info(i).size for i in range(n // 20_000)]
        data = [made["data"].id.get_chunk_info(i).size for i in range(n // 20_000)]
        file.create_dataset("scratch/after", data=np.zeros(600_000, np.uint8))
    return path.read_bytes(), times, sum(stored), data


def check_window(server: RangeServer, frame: Any, times: np.ndarray, low: float) -> tuple[int, int]:
    """Compute two seconds, and return the requests and bytes that they took."""
    rows = np.flatnonzero((times >= low) & (times < low + 2))
    query = frame[(frame.timestamps >= low) & (frame.timestamps < low + 2)]
    told = lazynwb_dask.explain(query)
    server.clear_log()
    got = query.compute()
    assert got.data.tolist() == rows.tolist()
    assert got.timestamps.tolist() == times[rows].tolist()
    assert (len(server.log), server.sent) <= (told.requests, told.bytes)
    return len(server.log), server.sent


FEW = 12  # the first and the last page, where it should begin and end, some between, and the data


def test_all_times_are_read_until_it_is_known_that_they_rise(
    range_server: RangeServer, recording: Recording, tmp_path: Path
) -> None:
    content, times, stored, chunks = recording
    few = 0.4 * stored
    url = range_server.put("f.nwb", content)
    with dask.config.set({"lazynwb-dask.cache": True, "lazynwb-dask.cache-directory": str(tmp_path)}):
        frame = lazynwb_dask.read_nwb(url, "/acquisition/s")
        frame.data.head(1)  # reads the index of the chunks
        told = str(lazynwb_dask.explain(frame[frame.timestamps < 3]))
        assert "1 file aren't known to be sorted: all of them are read" in told
        assert "sorted-timestamps" in told
        requests, sent = check_window(range_server, frame, times, 100.0)
        # all times, the chunks of data that hold the range, and what lies between them
        assert stored <= sent <= stored + 2 * max(chunks) + 2 * 64 * 1024
        assert "are known to be sorted" in str(lazynwb_dask.explain(frame[frame.timestamps < 3]))
        for low in (50.0, 600.0):
            requests, sent = check_window(range_server, frame, times, low)
            assert requests <= FEW
            assert sent < few
            requests, _ = check_window(range_server, frame, times, low)
            assert requests <= 2, "what was looked up is known"
        lru.clear()  # as in another process
        frame = lazynwb_dask.read_nwb(url, "/acquisition/s")
        frame.data.head(1)
        range_server.clear_log()
        assert len(frame[frame.timestamps < 0].compute()) == 0
        assert not range_server.log, "the first and the last time are known"
        requests, sent = check_window(range_server, frame, times, 100.0)
        assert requests <= FEW
        assert sent < few


@pytest.mark.parametrize(
    "how", [How(2, rows=20_000), How(3, rows=5_000, shard=8), How(3, rows=5_000, after=[])]
)
def test_in_a_store_a_range_of_times_is_looked_up_too(
    range_server: RangeServer, recording: Recording, tmp_path: Path, how: How
) -> None:
    content, times, _, _ = recording
    (tmp_path / "f.nwb").write_bytes(content)
    url = serve(store_of(tmp_path / "f.nwb", how), range_server, "f.nwb.zarr")
    with dask.config.set({"lazynwb-dask.sorted-timestamps": True}):
        frame = lazynwb_dask.read_nwb(url, "/acquisition/s")
        requests, sent = check_window(range_server, frame, times, 100.0)
        assert requests <= 2 * FEW  # of shards the indexes come first; a page may be two chunks
        assert sent < 0.4 * times.nbytes
        again, _ = check_window(range_server, frame, times, 100.0)
        assert again <= 3, "what was looked up is known"


@pytest.mark.parametrize("who", ["the user", "a catalog", "a catalog of a file that changes later"])
def test_a_user_or_a_catalog_knows_that_times_rise(
    range_server: RangeServer, recording: Recording, tmp_path: Path, who: str
) -> None:
    content, times, stored, _ = recording
    url = range_server.put("f.nwb", content)
    says = who == "the user"
    catalog = None if says else lazynwb_dask.build_catalog(url, tmp_path / "catalog")
    lru.clear()
    if "later" in who:
        range_server.put("f.nwb", content + b"more")
        with pytest.raises(NWBFileChangedError):
            lazynwb_dask.read_nwb(catalog, "/acquisition/s")
        return
    with dask.config.set({"lazynwb-dask.sorted-timestamps": says}):
        frame = lazynwb_dask.read_nwb(url if catalog is None else catalog, "/acquisition/s")
        frame.data.head(1)
        assert "are known to be sorted" in str(lazynwb_dask.explain(frame[frame.timestamps < 3]))
        requests, sent = check_window(range_server, frame, times, 100.0)
    assert requests <= FEW
    assert sent < 0.4 * stored
    if says:  # it has not become known by that
        assert "aren't known to be sorted" in str(lazynwb_dask.explain(frame[frame.timestamps < 3]))


def test_a_catalog_knows_of_each_series_whether_its_times_rise(tmp_path: Path, small_pages: None) -> None:
    step = np.arange(90.0)
    step[64:] -= 60  # falls between two of the blocks that are read at a time
    rng = np.random.default_rng(0)
    all_times = {kind: times_of(kind, 90, rng) for kind in [*RISING[1:], *OTHERS]} | {"between blocks": step}
    with nwb(tmp_path / "f.nwb") as file:
        for kind, times in all_times.items():
            series(file, f"/acquisition/{kind}", np.arange(90), times, chunks=(4,))
        linked = series(file, "/acquisition/linked", np.arange(80))
        linked["timestamps"] = h5py.SoftLink("/acquisition/even/timestamps")
    catalog = lazynwb_dask.build_catalog(tmp_path / "f.nwb", tmp_path / "catalog")
    for kind in [*all_times, "linked"]:
        frame = lazynwb_dask.read_nwb(catalog, f"/acquisition/{kind}")
        told = str(lazynwb_dask.explain(frame[frame.timestamps.between(3, 4)]))
        rises = kind in [*RISING, "linked"]
        assert ("are known to be sorted" in told, "aren't known to be sorted" in told) == (rises, not rises), (
            kind
        )


def test_it_is_not_kept_where_there_is_no_cache(
    range_server: RangeServer, recording: Recording, tmp_path: Path
) -> None:
    content, times, stored, _ = recording
    url = range_server.put("f.nwb", content)
    with dask.config.set({"lazynwb-dask.cache-directory": str(tmp_path)}):
        for _ in range(2):
            frame = lazynwb_dask.read_nwb(url, "/acquisition/s")
            assert check_window(range_server, frame, times, 100.0)[1] >= stored
            assert not list(tmp_path.iterdir())
            lru.clear()


def test_partitions_read_their_own_times_then_look_them_up_once_for_all(
    tmp_path: Path, range_server: RangeServer
) -> None:
    n = 400_000
    with nwb(tmp_path / "f.nwb") as file:
        made = series(file, "/acquisition/s", np.arange(n), np.arange(n) / 100, chunks=(20_000,))
        stored = made["timestamps"].id.get_storage_size()
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    frame = lazynwb_dask.read_nwb(url, "/acquisition/s", blocksize=2_000_000)
    assert frame.npartitions > 10
    for most in (stored + 50_000, 600_000):
        range_server.clear_log()
        got = frame[frame.timestamps.between(1000, 1001)].compute(scheduler="threads")
        assert got.data.tolist() == list(range(100_000, 100_101))
        assert range_server.sent <= most
    assert len(range_server.log) <= 6


def test_a_store_that_answers_late_tells_of_the_file_after_its_times_were_narrowed(
    tmp_path: Path, range_server: RangeServer
) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        series(file, "/acquisition/s", np.arange(100_000), np.arange(100_000) / 10, chunks=(20_000,))
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    frame = lazynwb_dask.read_nwb(url, "/acquisition/s")
    whole = frame.compute()  # now it is known that times rise
    query = frame[frame.timestamps.between(20, 21)]
    range_server.behaviour.latency = 0.2
    range_server.clear_log()
    oracle.assert_same(query.compute(), whole[whole.timestamps.between(20, 21)])
    assert len(range_server.log) == 1  # whether it is still the same file
    range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes() + b" ")
    with pytest.raises(NWBFileChangedError):
        query.compute()


def test_of_times_that_do_not_rise_all_are_read_and_it_says_so(
    tmp_path: Path, range_server: RangeServer
) -> None:
    n = 100_000
    paths = []
    for name, times in (("rises", np.arange(n) / 100), ("falls", np.arange(n) % 60_000 / 100.0)):
        with nwb(tmp_path / name) as file:
            series(file, "/acquisition/s", np.arange(n), times, chunks=(20_000,))
        paths.append(range_server.put(f"{name}.nwb", (tmp_path / name).read_bytes()))
    frame = lazynwb_dask.read_nwb(paths, "/acquisition/s")
    query = frame[frame.timestamps.between(300, 301)]
    assert "timestamps of 2 files aren't known to be sorted" in str(lazynwb_dask.explain(query))
    whole = frame.compute()  # reads all, so that it is known
    told = str(lazynwb_dask.explain(query))
    assert "timestamps of 1 file are known to be sorted" in told
    assert "timestamps of 1 file are not sorted: all of them are read" in told
    oracle.assert_same(query.compute(), whole[whole.timestamps.between(300, 301)])
    assert len(query.compute()) == 3 * 101


def test_a_file_that_was_replaced_is_not_taken_for_the_one_that_rose(
    tmp_path: Path, small_pages: None, cache_folder: Path
) -> None:
    path = tmp_path / "f.nwb"
    with dask.config.set({"lazynwb-dask.cache": True}):
        for times in (np.arange(500.0), np.arange(500.0) % 100):
            with nwb(path) as file:
                series(file, "/acquisition/s", np.arange(500), times, chunks=(10,))
            for _ in range(2):
                frame = lazynwb_dask.read_nwb(path, "/acquisition/s")
                got = frame[frame.timestamps.between(30, 40)].compute()
                assert got.data.tolist() == np.flatnonzero((times >= 30) & (times <= 40)).tolist()


def test_series_whose_first_chunks_were_never_written_are_not_taken_for_each_other(
    tmp_path: Path, small_pages: None
) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        for k in (1, 2):
            made = series(file, f"/acquisition/s{k}", np.arange(500))
            times = made.create_dataset("timestamps", (500,), "f8", chunks=(100,))
            times[100:] = np.arange(100, 500) * k
    for k in (1, 2):
        with dask.config.set({"lazynwb-dask.sorted-timestamps": True}):
            frame = lazynwb_dask.read_nwb(tmp_path / "f.nwb", f"/acquisition/s{k}")
            got = frame[frame.timestamps.between(400, 500)].compute()
        assert got.data.tolist() == list(range(400 // k, min(500 // k, 499) + 1))


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
