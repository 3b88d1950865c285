"""What `explain` calls exact is exact, what it calls an upper bound is one, and what it can't tell it says.

Each file has a name of its own, so that nothing of it is known in this process but what planning read.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import h5py
import numpy as np
import pytest
from files import nwb, ragged, table
from series_files import series
from servers import RangeServer
from stores import How, serve, store_of

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.read.steps import Steps, Stored, Wave, together
from lazynwb_dask.storage import Request

ROWS = 300
LATENCY = 0.4
_number = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[RangeServer]:
    with RangeServer() as server:
        yield server


def rich(path: Path, chunk: int | None) -> Path:
    """A table of all kinds of columns, with so much around it that planning leaves chunk maps unread."""
    rng = np.random.default_rng(chunk or 0)
    ends = np.cumsum(rng.integers(0, 200, ROWS))
    values = int(ends[-1])
    how: dict[str, Any] = {} if chunk is None else {"chunks": (chunk,), "compression": "gzip"}
    with nwb(path, libver="latest" if chunk == 500 else "earliest") as file:
        file.create_dataset("scratch/before", data=np.zeros(600_000, np.uint8))
        names = ["snr", "big", "spikes", "deep", "image", "text", "words", "group"]
        group = table(file, "/units", ROWS, names)
        group.create_dataset("snr", data=rng.random(ROWS))
        group.create_dataset("big", data=rng.random(ROWS), chunks=(13,))
        ragged(group, "spikes", ends, rng.random(values), **how)
        ragged(group, "deep", ends, rng.random(values), **how)
        outer = group.create_dataset("deep_index_index", data=np.arange(1, ROWS + 1))
        outer.attrs["neurodata_type"] = "VectorIndex"
        outer.attrs["target"] = group["deep_index"].ref
        image = {} if chunk is None else {"chunks": (7, 20, 2), "compression": "lzf"}
        group.create_dataset("image", data=rng.random((ROWS, 20, 3)), **image)
        text = ["t" * n for n in rng.integers(0, 120, ROWS)]
        group.create_dataset("text", data=text, dtype=h5py.string_dtype())
        word = ["w" * n for n in rng.integers(0, 9, values)]
        ragged(group, "words", ends, word, dtype=h5py.string_dtype())
        refs = np.array([file[f"/units/{names[i % 3]}"].ref for i in range(ROWS)], h5py.ref_dtype)
        group.create_dataset("group", data=refs)
        file.create_dataset("scratch/after", data=np.zeros(600_000, np.uint8))
    return path


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int | None], bytes]:
    folder = tmp_path_factory.mktemp("rich")
    return cache(lambda chunk: rich(folder / f"{chunk}.nwb", chunk).read_bytes())


def asked(server: RangeServer, frame: Any) -> tuple[lazynwb_dask.explanation.explanation.Explanation, int, int]:
    """What was told, and what the server was asked for."""
    told = lazynwb_dask.explain(frame)
    server.clear_log()
    frame.compute()
    return told, len(server.requests("GET")), server.sent


def check(server: RangeServer, frame: Any) -> None:
    told, requests, sent = asked(server, frame)
    assert all(read.known for read in told.reads)
    if all(read.exact for read in told.reads):
        assert (told.requests, told.bytes) == (requests, sent)
    else:
        assert told.requests >= requests
        assert told.bytes >= sent
    assert "of NWB files" in str(told)


# ---------------------------------------------------------------------------------------- round trips
@pytest.mark.parametrize("more", ["waveform_mean", "obs_intervals", "location"])
def test_columns_after_a_condition_in_the_catalog_take_one_round_trip(
    server: RangeServer, tmp_path: Path, more: str
) -> None:
    (path,) = make_sessions(tmp_path / "made", n=1, units=60, mean_spikes=2000)
    url = server.put(f"trips{next(_number)}.nwb", Path(path).read_bytes())
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):  # the catalog was made elsewhere
        units = lazynwb_dask.read_nwb(lazynwb_dask.build_catalog(url, tmp_path / "catalog"), "/units")
    query = units[(units.presence_ratio >= 0.9) & (units.snr > 3)][["spike_times", more]]
    query.compute()
    told = lazynwb_dask.explain(query)
    begun: list[float] = []
    server.clear_log()
    server.behaviour.latency = LATENCY
    server.behaviour.before = lambda name, count: begun.append(time.monotonic())
    try:
        query.compute()
    finally:
        server.behaviour.latency, server.behaviour.before = 0.0, None
    assert len(begun) > 1
    assert max(begun) - min(begun) < LATENCY  # all are asked for before the first answer
    assert told.reads[0].exact
    assert (told.requests, told.bytes) == (len(server.requests("GET")), server.sent)


def test_what_a_catalog_holds_is_taken_before_the_file_is_asked() -> None:
    def indexed() -> Steps[str]:
        yield Wave(stored=[Stored(None, "index", 0, 1)])  # type: ignore[arg-type]
        yield Wave([Request(0, 1, print)])
        return "indexed"

    def plain() -> Steps[str]:
        yield Wave([Request(5, 6, print)])
        return "plain"

    found: list[Any] = []

    def run() -> Steps[None]:
        found.append((yield from together([plain(), together([indexed(), indexed()]), plain()])))  # type: ignore[list-item]

    waves = [(len(wave.stored), len(wave.requests)) for wave in run()]
    assert found == [["plain", ["indexed", "indexed"], "plain"]]
    assert waves == [(2, 0), (0, 4)]


# ------------------------------------------------------------------------------------------- the bounds
QUERIES: dict[str, Callable[[dd.DataFrame], Any]] = {
    "texts": lambda d: d[["text", "words"]],
    "texts of some": lambda d: d[d.snr > 0.9][["text", "words"]],
    "a condition on texts": lambda d: d[d.text.str.len() > 100][["spikes"]],
    "the last": lambda d: d[["spikes"]].tail(3, compute=False),
    "the largest": lambda d: d[["big", "spikes"]].nlargest(3, "big"),
    "two levels": lambda d: d[d.snr > 0.5][["deep", "id"]],
    "rows by number": lambda d: d[(d._table_index % 100) < 5][["spikes"]],
    "numbers by number": lambda d: d[(d._table_index % 100) < 5][["snr", "image"]],
    "images": lambda d: d[d.snr > 0.95][["image", "spikes"]],
    "chunk maps": lambda d: d[["big", "spikes"]],
    "a ragged condition": lambda d: d[d.spikes.isna()][["snr", "deep"]],
    "references": lambda d: d[d.snr > 0.95][["group"]],
}


@pytest.mark.parametrize("blocksize", ["128 MiB", "60 kB"])
@pytest.mark.parametrize("chunk", [None, 64, 500])
@pytest.mark.parametrize("name", QUERIES)
def test_an_upper_bound_is_one(
    server: RangeServer, contents: Callable[[int | None], bytes], name: str, chunk: int | None, blocksize: str
) -> None:
    url = server.put(f"bound{next(_number)}.nwb", contents(chunk))
    check(server, QUERIES[name](lazynwb_dask.read_nwb(url, "/units", blocksize=blocksize)))


@pytest.mark.parametrize("name", ["texts", "the last", "the largest", "two levels", "images"])
def test_an_upper_bound_is_one_with_only_part_of_the_columns_in_the_catalog(
    server: RangeServer, contents: Callable[[int | None], bytes], tmp_path: Path, name: str
) -> None:
    url = server.put(f"part{next(_number)}.nwb", contents(64))
    catalog = lazynwb_dask.build_catalog(url, tmp_path / "catalog", values_limit=6000)
    check(server, QUERIES[name](lazynwb_dask.read_nwb(catalog, "/units", blocksize="60 kB")))


@pytest.mark.parametrize("chunk", [None, 1000])
def test_an_upper_bound_covers_the_search_for_times(
    server: RangeServer, tmp_path: Path, chunk: int | None
) -> None:
    n = 200_000
    how: dict[str, Any] = {} if chunk is None else {"chunks": (chunk,), "compression": "gzip"}
    times = np.cumsum(np.random.default_rng(0).exponential(1, n) ** 2)
    with nwb(tmp_path / "a.nwb") as file:
        group = file.create_group("acquisition/x")
        group.attrs["neurodata_type"] = "TimeSeries"
        group.create_dataset("data", data=np.arange(n), **how)
        group.create_dataset("timestamps", data=times, **how)
    url = server.put(f"times{next(_number)}.nwb", (tmp_path / "a.nwb").read_bytes())
    frame = lazynwb_dask.read_nwb(url, "/acquisition/x", blocksize="1 MB")
    for first in (n // 3, n // 2, n - 9):  # all times are read, then some are looked at
        low, high = times[first], times[first + 5]
        check(server, frame[(frame.timestamps >= low) & (frame.timestamps < high)])


def test_an_upper_bound_covers_rows_that_a_join_leaves(server: RangeServer, tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        units = table(file, "/units", ROWS, ["k", "image"])
        units.create_dataset("k", data=np.arange(ROWS))
        units.create_dataset("image", data=np.zeros((ROWS, 2000)))
        trials = table(file, "/intervals/trials", ROWS // 9, ["k"])
        trials.create_dataset("k", data=np.arange(ROWS // 9) * 9)
    url = server.put(f"join{next(_number)}.nwb", (tmp_path / "a.nwb").read_bytes())
    units = lazynwb_dask.read_nwb(url, "/units")[["k", "image"]]
    trials = lazynwb_dask.read_nwb(url, "trials")[["k"]]
    check(server, lazynwb_dask.merge_by_file(units, trials, on="k"))


# ------------------------------------------------------------------------------------- what lies between
GAP = 30_000  # bytes between two columns: too few for a request of their own


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two tables whose columns lie far apart, for what they hold."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("apart") / "apart.nwb"
    names = [f"c{i}" for i in range(8)]
    with nwb(path) as file:
        file.create_dataset("scratch/before", data=np.zeros(900_000, np.uint8))
        for group in [table(file, name, ROWS, names) for name in ("/units", "/intervals/trials")]:
            for i, name in enumerate(names):
                how = {"chunks": (150,)} if i > 3 else {}
                group.create_dataset(name, data=rng.integers(0, 9, ROWS), **how)
                file.create_dataset(f"scratch{group.name}/{i}", data=np.zeros(GAP, np.uint8))
            ragged(group, "spikes", np.arange(1, ROWS + 1), np.arange(float(ROWS)))
        made = series(file, "/acquisition/s", times=(0.0, 1.0))
        data = made.create_dataset("data", (ROWS, 30), "i2", chunks=(50, 1))
        data[:] = rng.integers(0, 9, (ROWS, 30))
        file.create_dataset("scratch/after", data=np.zeros(900_000, np.uint8))
    return path.read_bytes()


def joined_apart(units: dd.DataFrame, trials: dd.DataFrame, url: str) -> Any:
    left = units[["c1", "c2", "c3"]]
    return lazynwb_dask.merge_by_file(left, trials[["c1", "c3", "c5"]], on="c1")


def channels_apart(units: dd.DataFrame, trials: dd.DataFrame, url: str) -> Any:
    return lazynwb_dask.read_nwb(url, "/acquisition/s", channels=[0, 29])


APART: dict[str, Callable[[dd.DataFrame, dd.DataFrame, str], Any]] = {
    "columns": lambda u, t, url: u[["c0", "c1", "c2"]],
    "columns in chunks": lambda u, t, url: u[["c4", "c5", "c7"]],
    "columns of a condition": lambda u, t, url: u[(u.c1 > 4) & (u.c2 > 4) & (u.c3 > 2)].c1,
    "columns after a condition": lambda u, t, url: u[u.c0 > 4][["c1", "c2", "c5"]],
    "ragged columns after a condition": lambda u, t, url: u[u.c0 > 4][["c6", "c7", "spikes"]],
    "the largest": lambda u, t, url: u[["c1", "c2", "c5"]].nlargest(3, "c1"),
    "rows that a join leaves": joined_apart,
    "channels": channels_apart,
}


@pytest.mark.parametrize("name", APART)
def test_bytes_between_ranges_that_are_fetched_as_one_are_told(
    server: RangeServer, apart: bytes, name: str
) -> None:
    url = server.put(f"apart{next(_number)}.nwb", apart)
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        tables = [lazynwb_dask.read_nwb(url, name) for name in ("/units", "trials")]
        check(server, APART[name](*tables, url))
    assert server.sent > 2 * 5 * 8 * ROWS, "more than half of it lies between what is wanted"


# ------------------------------------------------------------------------------------------ exact, or not
def test_ragged_columns_that_are_read_whole_are_told_exactly(
    server: RangeServer, contents: Callable[[int | None], bytes]
) -> None:
    url = server.put(f"whole{next(_number)}.nwb", contents(None))
    frame = lazynwb_dask.read_nwb(url, "/units")[["snr", "spikes", "image"]]
    told, requests, sent = asked(server, frame)
    assert told.reads[0].exact
    assert (told.requests, told.bytes) == (requests, sent)


def test_it_says_which_texts_make_it_uncertain(
    server: RangeServer, contents: Callable[[int | None], bytes]
) -> None:
    url = server.put(f"texts{next(_number)}.nwb", contents(None))
    told = lazynwb_dask.explain(lazynwb_dask.read_nwb(url, "/units")[["snr", "text", "words"]])
    assert not told.reads[0].exact
    assert "the values of text, words may be anywhere in the files" in str(told)


def test_what_lies_in_other_files_is_not_said_to_be_bounded(tmp_path: Path) -> None:
    with nwb(tmp_path / "data.nwb") as file:
        series(file, "/acquisition/x", np.arange(9.0), (0.0, 1.0))
    with nwb(tmp_path / "links.nwb") as file:
        group = file.create_group("acquisition/x")
        group.attrs["neurodata_type"] = "TimeSeries"
        group["data"] = h5py.ExternalLink("data.nwb", "/acquisition/x/data")
        start = group.create_dataset("starting_time", data=0.0)
        start.attrs["rate"] = 1.0
    frame = lazynwb_dask.read_nwb(tmp_path / "links.nwb", "/acquisition/x", allow_external_links=True)
    told = lazynwb_dask.explain(frame)
    assert len(frame.compute()) == 9
    assert not told.reads[0].known
    assert not told.reads[0].exact
    assert "not known beforehand (values of columns lie in other files)" in str(told)


# ---------------------------------------------------------------------------------------- stores
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("shard", [None, 3])
def test_an_upper_bound_of_a_store_is_one(
    server: RangeServer, tmp_path: Path, version: int, shard: int | None
) -> None:
    """Its objects may be missing, or of any length up to a limit."""
    if version == 2 and shard:
        pytest.skip("format 2 has no shards")
    rng = np.random.default_rng(1)
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 300, ["score", "rate", "spikes", "label"])
        group.create_dataset("score", data=rng.random(300))
        group.create_dataset("rate", data=np.zeros(300))  # not stored
        group.create_dataset("label", data=["a" * (i % 9) for i in range(300)], dtype=h5py.string_dtype())
        ragged(group, "spikes", np.cumsum(rng.integers(0, 200, 300)), rng.random(60_000))
    for after in (None, []):
        how = How(version, rows={"units/spikes": 1000, "units/score": 30}, shard=shard, after=after)
        url = serve(store_of(tmp_path / "a.nwb", how), server, f"store{next(_number)}.nwb.zarr")
        units = lazynwb_dask.read_nwb(url, "/units")
        for frame in (
            units[["score", "rate"]],
            units[["spikes"]],
            units[["label", "rate"]],
            units[units.score > 0.9][["rate", "spikes"]],
            units.partitions[0],
        ):
            told, requests, sent = asked(server, frame)
            assert told.requests >= requests
            assert told.bytes >= sent
            assert "at most" in str(told)
            assert "Zarr stores" in str(told)
