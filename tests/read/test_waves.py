"""Small columns come in one round trip: texts with what points to them, ragged values with their index, and
what is wanted with what decides on rows. Values are those of h5py; large columns are read for the rows left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import oracle
import pandas as pd
import pytest
from files import nwb, ragged, table
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.cluster.execute import execute
from lazynwb_dask.errors import NWBFileChangedError, NWBReadError
from lazynwb_dask.read import side_by_side
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.storage import Settings

N = 150
HOW: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "gzip": {"chunks": True, "compression": "gzip", "shuffle": True},
}
NAMES = [
    "name", "place", "score", "rate", "spikes", "few", "deep", "words", "tag", "wide", "scattered",
]  # fmt: skip
TEXT = h5py.string_dtype()
Waves = list[list[tuple[int, int]]]
_number = itertools.count()


def made(path: Path, how: dict[str, Any], libver: str = "earliest") -> bytes:
    """A file of some megabytes with a table of small and large columns."""
    rng = np.random.default_rng(1)
    with nwb(path, libver=libver) as file:
        file.create_dataset("scratch/before", data=np.zeros(700_000, np.uint8))
        group = table(file, "/units", N, NAMES)
        group.create_dataset("name", data=[f"unit {i} of a session" for i in range(N)], dtype=TEXT, **how)
        group.create_dataset("score", data=np.linspace(0, 1, N), **how)
        spikes = np.cumsum(rng.integers(2000, 4000, N))
        ragged(group, "spikes", spikes, rng.random(spikes[-1]), **(how and {**how, "chunks": (60_000,)}))
        places = ["" if i % 7 == 0 else f"area {i % 5}" for i in range(N)]
        group.create_dataset("place", data=places, dtype=TEXT, **how)
        group.create_dataset("rate", data=rng.random(N), **how)
        few = np.cumsum(rng.integers(0, 4, N))
        ragged(group, "few", few, rng.integers(0, 99, few[-1]), **how)
        deep = np.cumsum(rng.integers(0, 3, few[-1]))
        ragged(group, "deep", deep, rng.random(deep[-1]), **how)
        outer = group.create_dataset("deep_index_index", data=few)
        outer.attrs["neurodata_type"] = "VectorIndex"
        outer.attrs["target"] = group["deep_index"].ref
        ragged(group, "words", few, [f"w{i}" * (i % 3) for i in range(few[-1])], dtype=TEXT, **how)
        group.create_dataset("tag", data=np.array([f"t{i}".encode() for i in range(N)]), **how)
        group.create_dataset("wide", data=rng.random((N, 400)), **how)
        group.create_dataset("scattered", data=rng.random(N), chunks=(9,))
        file.create_dataset("scratch/after", data=np.zeros(700_000, np.uint8))
    return path.read_bytes()


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    folder = tmp_path_factory.mktemp("waves")
    return cache(lambda how: made(folder / f"{how}.nwb", HOW[how]))


@pytest.fixture(scope="module")
def frames(
    contents: Callable[[str], bytes], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], pd.DataFrame]:
    """What h5py reads."""
    folder = tmp_path_factory.mktemp("frames")

    def frame(how: str) -> pd.DataFrame:
        (folder / f"{how}.nwb").write_bytes(contents(how))
        return oracle.frame(folder / f"{how}.nwb", "/units")

    return cache(frame)


@pytest.fixture(scope="module")
def server() -> Iterator[RangeServer]:
    with RangeServer() as server:
        yield server


@pytest.fixture
def waves(monkeypatch: pytest.MonkeyPatch) -> Waves:
    """What is fetched at once, by one partition: its byte ranges."""
    found: Waves = []

    def counting(fetch: Callable[..., Any]) -> Callable[..., Any]:
        def counted(source: Any, requests: Any, *how: Any) -> Any:
            found.append([(r.start, r.stop) for r in requests])
            return fetch(source, requests, *how)

        return counted

    for name in ("fetch", "start_fetch"):
        monkeypatch.setattr(side_by_side, name, counting(getattr(side_by_side, name)))
    return found


# What is selected, and the round trips that it takes at most where nothing of the file is here.
QUERIES: dict[str, tuple[Callable[[Any], Any], int]] = {
    "numbers and texts": (lambda d: d[["score", "name", "place", "tag"]], 1),
    "some rows of texts": (lambda d: d[d.score > 0.9][["name", "place"]], 1),
    "small ragged columns": (lambda d: d[["few", "deep", "words"]], 1),
    "some rows of small ragged columns": (lambda d: d[d.score > 0.9][["few", "deep", "words"]], 1),
    "rows by number": (lambda d: d[d._table_index % 50 == 3][["few", "deep", "words", "name"]], 1),
    "a condition on texts": (lambda d: d[d.place == "area 3"][["rate", "name", "few"]], 1),
    "no rows": (lambda d: d[d.score > 2][["rate", "name", "few", "spikes"]], 1),
    "no texts": (lambda d: d[d.place == ""][["place", "words"]], 1),
    "one row of a large column": (lambda d: d[d.name == "unit 77 of a session"][["place", "spikes"]], 2),
    "the largest": (lambda d: d[["rate", "spikes", "place"]].nlargest(2, "rate"), 2),
    "a large column": (lambda d: d[["spikes", "name"]], 1),
}  # fmt: skip


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", QUERIES)
def test_small_columns_take_one_round_trip(
    server: RangeServer, contents: Callable[[str], bytes], frames: Callable[[str], pd.DataFrame],
    waves: Waves, name: str, how: str,
) -> None:  # fmt: skip
    query, most = QUERIES[name]
    expected = query(frames(how).assign(_table_index=np.arange(N)))
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        frame = query(lazynwb_dask.read_nwb(server.put(f"w{next(_number)}.nwb", contents(how)), "/units"))
        told = lazynwb_dask.explain(frame)
        server.clear_log()
        got = frame.compute()
    oracle.assert_same(got, expected)
    assert len(waves) <= most
    assert told.requests >= len(server.requests("GET"))
    assert told.bytes >= server.sent
    if "spikes" not in expected or not len(expected):
        assert server.sent < 500_000, "what comes along is little"


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["numbers and texts", "small ragged columns", "rows by number", "no texts"])
def test_what_planning_fetched_takes_one_small_request(
    server: RangeServer, contents: Callable[[str], bytes], frames: Callable[[str], pd.DataFrame], waves: Waves,
    name: str, how: str,
) -> None:  # fmt: skip
    query, _ = QUERIES[name]
    expected = query(frames(how).assign(_table_index=np.arange(N)))
    frame = query(lazynwb_dask.read_nwb(server.put(f"w{next(_number)}.nwb", contents(how)), "/units"))
    kept = [column for column in expected if column not in ("few", "deep", "words")]
    told = lazynwb_dask.explain(frame)
    server.clear_log()
    got = frame.compute()
    oracle.assert_same(got, expected)
    assert len(waves) == 1
    assert told.requests >= len(server.requests("GET"))
    assert told.bytes >= server.sent
    if kept == list(expected):
        assert [entry.range for entry in server.requests("GET")] == [(0, 1)]


def test_partitions_of_a_file_read_their_own_rows_in_one_round_trip_each(
    server: RangeServer, contents: Callable[[str], bytes], frames: Callable[[str], pd.DataFrame], waves: Waves
) -> None:
    expected = frames("gzip")[["few", "deep", "words", "name"]]
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        url = server.put(f"w{next(_number)}.nwb", contents("gzip"))
        frame = lazynwb_dask.read_nwb(url, "/units", blocksize="500 kB")
        count = frame.npartitions
        got = frame[["few", "deep", "words", "name"]].compute()
    oracle.assert_same(got, expected)
    assert count > 3
    assert len(waves) <= count


def test_texts_that_lie_elsewhere_than_guessed_take_another_round_trip(
    server: RangeServer, tmp_path: Path, waves: Waves
) -> None:
    """They are written anew once other data follow, and no byte that planning reads tells where."""
    texts = [None if i % 5 == 0 else f"text {i}" for i in range(N)]
    with nwb(tmp_path / "far.nwb") as file:
        group = table(file, "/units", N, ["x"])
        x = group.create_dataset("x", (N,), TEXT)
        file.create_dataset("scratch/before", data=np.zeros(1_500_000, np.uint8))
        x[:] = ["first" * 9] * N
        file.create_dataset("scratch/between", data=np.zeros(900_000, np.uint8))
        for i in range(N):
            x[i] = "" if texts[i] is None else texts[i] * 9
        file.create_dataset("scratch/after", data=np.zeros(1_500_000, np.uint8))
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        url = server.put(f"w{next(_number)}.nwb", (tmp_path / "far.nwb").read_bytes())
        frame = lazynwb_dask.read_nwb(url, "/units")[["x"]]
        told = lazynwb_dask.explain(frame)
        server.clear_log()
        got = frame.compute()
    oracle.assert_same(got, oracle.frame(tmp_path / "far.nwb", "/units")[["x"]])
    assert len(waves) == 2
    assert server.sent < 600_000
    assert told.requests >= len(server.requests("GET"))
    assert told.bytes >= server.sent


def test_what_came_along_and_is_not_needed_may_be_damaged(server: RangeServer, tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        file.create_dataset("scratch/before", data=np.zeros(700_000, np.uint8))
        group = table(file, "/units", N, ["score", "x", "few"])
        group.create_dataset("score", data=np.arange(N))
        group.create_dataset("x", data=[f"text {i}" for i in range(N)], dtype=TEXT)
        values = group.create_dataset("few", data=np.arange(4 * N), chunks=(N,), compression="gzip")
        index = group.create_dataset("few_index", data=np.arange(1, N + 1) * 4)
        index.attrs["target"] = values.ref
        file.create_dataset("scratch/after", data=np.zeros(700_000, np.uint8))
        broken = values.id.get_chunk_info(3).byte_offset
    data = (tmp_path / "a.nwb").read_bytes()
    heap = data.rindex(b"GCOL", 0, data.index(b"text 149"))
    for at in (heap, broken):
        data = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        frame = lazynwb_dask.read_nwb(server.put(f"w{next(_number)}.nwb", data), "/units")
        assert not len(frame[frame.score > N][["x", "few"]].compute())
        assert frame[frame.score < 9][["few"]].compute().few[8] == [32, 33, 34, 35]
        for name in ("x", "few"):
            with pytest.raises(NWBReadError, match=rf"/units: column '{name}'"):
                frame[frame.score > N - 9][[name]].compute()


def test_a_damaged_chunk_map_is_an_error_only_where_rows_are_left(server: RangeServer, tmp_path: Path) -> None:
    rows = 9000
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", rows, ["score", "x"])
        group.create_dataset("score", data=np.arange(rows))
        group.create_dataset("x", data=np.arange(rows), chunks=(1,))
    before, *leaves = (tmp_path / "a.nwb").read_bytes().split(b"TREE\1\0")
    data = b"TREE\1\0".join([before, *leaves[:2]]) + b"".join(b"XXXX\1\0" + leaf for leaf in leaves[2:])
    frame = lazynwb_dask.read_nwb(server.put(f"w{next(_number)}.nwb", data), "/units")
    assert not len(frame[frame.score > rows].compute())
    with pytest.raises(NWBReadError, match="/units: column 'x'"):
        frame[frame.score == rows - 1].compute()


@pytest.mark.parametrize("query", [lambda d: d[["name", "few"]], lambda d: d[d.score > 2][["name"]]])
def test_a_file_that_is_replaced_is_noticed_though_all_was_kept(
    server: RangeServer, contents: Callable[[str], bytes], query: Callable[[Any], Any]
) -> None:
    names = [f"w{next(_number)}.nwb" for _ in range(2)]
    urls = [server.put(name, contents("gzip")) for name in names]
    strict, lenient = (query(lazynwb_dask.read_nwb(urls, "/units", on_error=e)) for e in ("raise", "skip"))
    rows = len(strict.compute())
    server.put(names[1], contents("gzip") + b"\0")
    with pytest.raises(NWBFileChangedError, match=names[1]):
        strict.compute()
    with pytest.warns(UserWarning, match="can't be read and is left out"):
        assert len(lenient.compute()) == rows // 2
    assert names[1] in lazynwb_dask.read_report(lenient).path.iloc[0]


def test_all_partitions_of_a_task_are_under_way_at_once(
    server: RangeServer, contents: Callable[[str], bytes]
) -> None:
    urls = [server.put(f"w{next(_number)}.nwb", contents("gzip")) for _ in range(50)]
    scan = lazynwb_dask.read_nwb(urls, "/units").expr.scan
    server.clear_log()
    server.behaviour.latency = 1.0  # longer than a busy machine takes to send them all
    try:
        got = execute(scan, Selection(("score", "name")), Settings())
    finally:
        server.behaviour.latency = 0.0
    assert len(got) == 50 * N
    assert server.max_running == len(server.requests("GET")) == 50


def test_texts_and_ragged_columns_of_an_object_in_s3_take_one_round_trip(
    s3_server: S3Server, contents: Callable[[str], bytes], frames: Callable[[str], pd.DataFrame], waves: Waves
) -> None:
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        url = s3_server.put("lab", "a.nwb", contents("gzip"))
        frame = lazynwb_dask.read_nwb(url, "/units", storage_options=s3_server.storage_options)
        got = frame[frame.score > 0.5][["name", "few", "rate"]].compute()
    expected = frames("gzip")
    oracle.assert_same(got, expected[expected.score > 0.5][["name", "few", "rate"]])
    assert len(waves) == 1


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_file_that_planning_did_not_look_at_is_asked_for_nothing_twice(
    server: RangeServer, tmp_path: Path, contents: Callable[[str], bytes], waves: Waves, size: str
) -> None:
    if size == "small":
        path = tmp_path / "a.nwb"
        with nwb(path) as file:
            group = table(file, "/units", N, ["name", "score"])
            group.create_dataset("name", data=[f"unit {i}" for i in range(N)], dtype=TEXT)
            group.create_dataset("score", data=np.arange(N))
        data = path.read_bytes()
    else:
        data = contents("gzip")
    urls = [server.put(f"w{next(_number)}.nwb", data) for _ in range(2)]
    frame = lazynwb_dask.read_nwb(urls, "/units", schema=1)  # the first tells the columns
    expected = lazynwb_dask.read_nwb(urls[0], "/units").name.compute().tolist()
    server.clear_log()
    waves.clear()
    got = frame[frame.score >= 0][["name", "score"]].compute()
    assert got.name.tolist() == expected * 2
    assert not waves
    ranges = [(entry.path, entry.range) for entry in server.requests("GET")]
    assert len(ranges) == len(set(ranges))
    assert server.sent <= 2 * len(data)


def test_an_index_of_the_cache_on_disk_knows_where_texts_lie(
    server: RangeServer, tmp_path: Path, waves: Waves
) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", N, ["x"])
        x = group.create_dataset("x", (N,), TEXT)
        x[:] = [f"text {i}" for i in range(N)]
        file.create_dataset("scratch/between", data=np.zeros(900_000, np.uint8))
        for i in range(0, N, 2):
            x[i] = f"another text {i}"
        file.create_dataset("scratch/after", data=np.zeros(700_000, np.uint8))
    url = server.put(f"w{next(_number)}.nwb", (tmp_path / "a.nwb").read_bytes())
    with dask.config.set({"lazynwb-dask.cache": True, "lazynwb-dask.cache-directory": str(tmp_path / "cache")}):
        lazynwb_dask.read_nwb(url, "/units")
        server.clear_log()
        frame = lazynwb_dask.read_nwb(url, "/units")
    assert server.sent < 1000
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        got = frame[["x"]].compute()
    oracle.assert_same(got, oracle.frame(tmp_path / "a.nwb", "/units")[["x"]])
    assert len(waves) == 1


def test_rows_of_chunks_that_reach_beyond_the_data_are_told_as_they_are_fetched(
    server: RangeServer, tmp_path: Path
) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", N, ["score", "x", "two"])
        group.create_dataset("score", data=np.arange(N))
        group.create_dataset("x", data=np.arange(N), chunks=(9000,), maxshape=(None,))
        group.create_dataset("two", data=np.zeros((N, 30)), chunks=(400, 16), maxshape=(None, None))
        file.create_dataset("scratch/after", data=np.zeros(1_500_000, np.uint8))
    url = server.put(f"w{next(_number)}.nwb", (tmp_path / "a.nwb").read_bytes())
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        frame = lazynwb_dask.read_nwb(url, "/units")
        frame = frame[frame.score > N - 5][["x", "two"]]
        told = lazynwb_dask.explain(frame)
        server.clear_log()
        got = frame.compute()
    assert got.x.tolist() == list(range(N - 4, N))
    assert told.requests >= len(server.requests("GET"))
    assert told.bytes >= server.sent


@pytest.mark.parametrize("address", [2**63 + 8, 2**64 - 9, 1 << 40])
def test_texts_that_point_nowhere_are_an_error_of_reading_them(tmp_path: Path, address: int) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", N, ["x", "y"])
        x = group.create_dataset("x", data=["a text"] * N, dtype=TEXT)
        group.create_dataset("y", data=np.arange(N))
        at = x.id.get_offset()
    data = bytearray((tmp_path / "a.nwb").read_bytes())
    data[at + 4 : at + 12] = address.to_bytes(8, "little")
    (tmp_path / "a.nwb").write_bytes(data)
    frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units")
    assert len(frame[["y"]].compute()) == N
    with pytest.raises(NWBReadError, match="column 'x': damaged: a string lies outside the file"):
        frame[["x"]].compute()


def test_names_of_referenced_objects_come_from_what_planning_fetched(
    server: RangeServer, tmp_path: Path
) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", N, ["group"])
        shanks = [file.create_group(f"general/extracellular_ephys/shank{i}") for i in range(3)]
        group.create_dataset("group", data=np.array([shanks[i % 3].ref for i in range(N)], h5py.ref_dtype))
        file.create_dataset("scratch/after", data=np.zeros(1_500_000, np.uint8))
    name, data = f"w{next(_number)}.nwb", (tmp_path / "a.nwb").read_bytes()
    frame = lazynwb_dask.read_nwb(server.put(name, data), "/units")[["group"]]
    server.clear_log()
    got = frame.compute()
    oracle.assert_same(got, oracle.frame(tmp_path / "a.nwb", "/units")[["group"]])
    assert [entry.range for entry in server.requests("GET")] == [(0, 1)]
    server.put(name, data + b"\0")
    with pytest.raises(NWBFileChangedError, match=name):
        frame.compute()
