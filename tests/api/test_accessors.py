"""The accessor ``nwb`` of Dask frames and series: pandas' results, and no more is read than they need."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import h5py
import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from files import nwb, ragged, table
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.errors import NWBReadError

N = 120
NAMES = ["rate", "spikes", "deep", "words", "wide", "vlen", "short", "pixels"]
LARGE = 400_000  # bytes of a column's values, at least
HOW: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "gzip": {"chunks": (20_000,), "compression": "gzip", "shuffle": True},
}


def made(path: Path, how: dict[str, Any], seed: int = 0, width: int = 900) -> str:
    rng = np.random.default_rng(seed)
    with nwb(path) as file:
        file.create_dataset("scratch/before", data=np.zeros(300_000, np.uint8))
        group = table(file, "/units", N, NAMES)
        group.create_dataset("rate", data=rng.permutation(N) + seed / 10)
        counts = rng.integers(0, 1200, N)
        counts[rng.integers(0, N, 9)] = 0
        times = np.concatenate([np.sort(rng.random(n)) * 100 for n in counts])
        ragged(group, "spikes", np.cumsum(counts).astype("u4"), times, **how)
        rows = np.cumsum(rng.integers(0, 4, N))
        inner = np.cumsum(rng.integers(0, 500, rows[-1]))
        ragged(group, "deep", inner, rng.random(inner[-1]), **how)
        outer = group.create_dataset("deep_index_index", data=rows)
        outer.attrs["neurodata_type"] = "VectorIndex"
        outer.attrs["target"] = group["deep_index"].ref
        ragged(group, "words", rows, [f"w{i}" for i in range(rows[-1])], dtype=h5py.string_dtype())
        group.create_dataset("wide", data=rng.random((N, width)))
        sequences = group.create_dataset("vlen", (N,), dtype=h5py.vlen_dtype("f4"))
        for i in range(N):
            sequences[i] = np.arange(i % 5)
        short = np.cumsum(rng.integers(0, 3, N - 7))
        ragged(group, "short", short, np.arange(short[-1]))
        pixel = np.dtype([("x", "u4"), ("weight", "f4")])
        ragged(group, "pixels", rows, np.zeros(rows[-1], pixel))
        file.create_dataset("scratch/after", data=np.zeros(300_000, np.uint8))
    return str(path)


@pytest.fixture(scope="module", params=HOW)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("lists")
    return [made(folder / f"{i}.nwb", HOW[request.param], i) for i in range(3)]


@pytest.fixture(scope="module")
def whole(files: list[str]) -> pd.DataFrame:
    return pd.concat([oracle.frame(path, "/units").assign(_nwb_path=path) for path in files], ignore_index=True)


@pytest.fixture(scope="module")
def server() -> Iterator[RangeServer]:
    with RangeServer() as server:
        yield server


@pytest.fixture
def units(server: RangeServer, files: list[str]) -> Iterator[dd.DataFrame]:
    urls = [server.put(Path(path).name, Path(path).read_bytes()) for path in files]
    with dask.config.set({"lazynwb-dask.memory-cache": 0, "scheduler": "threads"}):
        frame = lazynwb_dask.read_nwb(urls, "/units")
        server.clear_log()
        yield frame


def equal(got: Any, wanted: Any) -> None:
    if isinstance(wanted, pd.Series):
        got, wanted = got.to_frame("x"), wanted.to_frame("x")
    oracle.assert_same(got, wanted)


BY_INDEX: dict[str, Callable[[Any], Any]] = {
    "lengths": lambda u: u.spikes.nwb.len(),
    "of a selection": lambda u: u[["spikes", "rate"]].spikes.nwb.len(),
    "after a filter": lambda u: u[u.rate > 60].spikes.nwb.len(),
    "after a filter by a mean": lambda u: u[u.rate > u.rate.mean()].spikes.nwb.len(),
    "as a filter": lambda u: u[u.spikes.nwb.len() > 600][["rate"]],
    "in arithmetic": lambda u: u[(u.spikes.nwb.len() / 2 + u.rate > 300) & ~(u.rate < 9)][["rate"]],
    "among values": lambda u: u[u.spikes.nwb.len().isin([0, 7])].rate,
    "filtered by themselves": lambda u: (lambda n: n[n > 600])(u.spikes.nwb.len()),
    "after another filter": lambda u: (lambda v: v[v.rate > 50][["rate"]])(u[u.spikes.nwb.len() > 600]),
    "assigned": lambda u: u.assign(n=u.spikes.nwb.len())[["rate", "n"]],
    "assigned, then a filter": lambda u: (lambda v: v[v.n > 600][["n"]])(u.assign(n=u.spikes.nwb.len())),
    "doubly ragged": lambda u: u[u.deep.nwb.len() == 3].deep.nwb.len(),
    "of fixed shape": lambda u: u[u.wide.nwb.len() > 5][["rate"]],
    "of texts": lambda u: u.words.nwb.len(),
    "of structs": lambda u: u.pixels.nwb.len(),
    "with missing rows": lambda u: u.short.nwb.len(),
    "by missing rows": lambda u: u[u.short.nwb.len().isna()][["rate"]],
}


@pytest.mark.parametrize("name", BY_INDEX)
def test_how_long_lists_are_is_read_without_their_values(
    server: RangeServer, units: dd.DataFrame, whole: pd.DataFrame, name: str
) -> None:
    ask = BY_INDEX[name]
    told = lazynwb_dask.explain(ask(units))
    server.clear_log()
    got, wanted = ask(units).compute(), ask(whole)
    sent, requests = server.sent, len(server.requests("GET"))
    equal(got, wanted)
    assert len(wanted)
    assert ask(units).dtypes is not None
    assert sent < 30_000
    assert told.requests >= requests
    assert told.bytes >= sent


def test_lengths_of_a_shape_cost_nothing(server: RangeServer, units: dd.DataFrame, whole: pd.DataFrame) -> None:
    equal(units.wide.nwb.len().compute(), whole.wide.list.len())
    assert not server.requests()


def test_lengths_of_variable_length_arrays_are_right(units: dd.DataFrame, whole: pd.DataFrame) -> None:
    equal(units.vlen.nwb.len().compute(), whole.vlen.list.len())


def test_a_filter_by_length_reads_the_lists_that_are_left_and_each_index_once(
    server: RangeServer, units: dd.DataFrame, whole: pd.DataFrame
) -> None:
    got = units[units.spikes.nwb.len() > 1190].spikes.compute()
    wanted = whole[whole.spikes.list.len() > 1190].spikes
    equal(got, wanted)
    rows = whole.loc[wanted.index]._nwb_path.nunique()
    assert len(server.requests("GET")) <= 3 + len(wanted) + rows
    assert server.sent < 3 * 4 * N + wanted.list.len().sum() * 8 + 200_000 * rows


def test_a_range_of_times_a_first_element_and_the_rest(units: dd.DataFrame, whole: pd.DataFrame) -> None:
    for ask in (
        lambda u: u.spikes.nwb.between(20, 30.5),
        lambda u: u[u.rate > 90].spikes.nwb.count_between(None, 50),
        lambda u: u[u.spikes.nwb.count_between(0, 1) > 9][["rate"]],
        lambda u: u[u.spikes.nwb[0] < 0.5][["rate"]],
        lambda u: u.deep.nwb[-1],
        lambda u: u.words.nwb[1:3],
        lambda u: u[u.rate > 50].words.nwb.flatten(),
        lambda u: u.short.nwb.explode(),
        lambda u: u.pixels.nwb["weight"],
        lambda u: u.nlargest(5, "rate").spikes.nwb.len(),
    ):
        got, wanted = ask(units), ask(whole)
        equal(got.compute(), wanted)
        if isinstance(wanted, pd.Series):
            assert got.dtype == wanted.dtype


def test_rows_as_arrays(units: dd.DataFrame, whole: pd.DataFrame) -> None:
    wide = units[units.rate > 100].wide.nwb.to_numpy((900,))
    assert wide.dtype == np.float64
    assert (wide.compute() == np.array(whole[whole.rate > 100].wide.tolist())).all()
    objects = units.spikes.nwb.to_numpy()
    assert [len(row) for row in objects.compute()] == whole.spikes.list.len().tolist()


def test_lists_of_any_dask_frame(whole: pd.DataFrame) -> None:
    frame = dd.from_pandas(whole, npartitions=2)
    equal(
        frame[frame.spikes.nwb.len() > 600].spikes.nwb.len().compute(),
        BY_INDEX["filtered by themselves"](whole),
    )
    equal(frame.map_partitions(lambda part: part.spikes.nwb.count_between(3, 5)).compute(),
          whole.spikes.nwb.count_between(3, 5))  # fmt: skip
    with pytest.raises(AttributeError, match="lists, not"):
        _ = frame.rate.nwb.len


def test_lengths_of_a_join(files: list[str]) -> None:
    units = lazynwb_dask.read_nwb(files, "/units")
    long = units[units.spikes.nwb.len() > 600][["id", "spikes"]]
    joined = lazynwb_dask.merge_by_file(long, units[["id", "rate"]], on="id")
    made = joined.compute()
    assert made.spikes.nwb.len().min() > 600
    equal(
        joined[joined.spikes.nwb.len() > 900][["rate"]].compute(), made[made.spikes.list.len() > 900][["rate"]]
    )


def test_a_file_without_the_column_or_with_single_values(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 3, ["x", "y"])
        ragged(group, "x", [1, 1, 4], np.arange(4.0))
        ragged(group, "y", [1, 1, 4], np.arange(4.0))
    with nwb(tmp_path / "b.nwb") as file:
        table(file, "/units", 2, ["y"]).create_dataset("y", data=[5.0, 6.0])
    units = lazynwb_dask.read_nwb([str(tmp_path / "a.nwb"), str(tmp_path / "b.nwb")], "/units")
    assert units.x.nwb.len().compute().tolist() == [1, 0, 3, pd.NA, pd.NA]
    assert units.y.nwb.len().compute().tolist() == [1, 0, 3, 1, 1]
    with_schema = lazynwb_dask.read_nwb(
        str(tmp_path / "a.nwb"), "/units", schema=pa.schema([("x", pa.list_(pa.float64()))])
    )
    assert with_schema[with_schema.x.nwb.len() > 0].x.nwb.len().compute().tolist() == [1, 3]


def test_an_index_that_is_damaged_is_an_error_that_names_the_column(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 400, ["x"])
        ragged(group, "x", np.tile([0, 100_000], 200), np.zeros(100_000))
    units = lazynwb_dask.read_nwb(str(tmp_path / "a.nwb"), "/units")
    with pytest.raises(NWBReadError, match=r"'x'.*the index is damaged"):
        units.x.nwb.len().compute()


def test_a_catalog_that_holds_the_index_costs_no_request(
    server: RangeServer, files: list[str], whole: pd.DataFrame, tmp_path: Path
) -> None:
    urls = [server.put(Path(path).name, Path(path).read_bytes()) for path in files]
    units = lazynwb_dask.read_nwb(lazynwb_dask.build_catalog(urls, tmp_path / "catalog"), "/units")
    server.clear_log()
    equal(units[units.rate > 50].spikes.nwb.len().compute(), BY_INDEX["lengths"](whole[whole.rate > 50]))
    equal(units[units.spikes.nwb.len() > 600].rate.compute(), whole[whole.spikes.list.len() > 600].rate)
    assert not server.requests()


def test_of_the_largest_rows_alone_ragged_columns_are_read(
    server: RangeServer, units: dd.DataFrame, whole: pd.DataFrame
) -> None:
    for ask in (
        lambda u: u.nlargest(4, "rate")[["spikes", "wide"]],
        lambda u: u[u.rate > 50].nsmallest(4, "rate")[["wide", "id"]],
        lambda u: u.assign(n=u.spikes.nwb.len()).nlargest(4, "n")[["n", "wide"]],
    ):
        told = lazynwb_dask.explain(ask(units))
        assert "Scan(" not in repr(ask(units).optimize(fuse=False).expr)
        server.clear_log()
        with lazynwb_dask.trace() as read:
            got = ask(units).compute()
        wanted, sent, requests = ask(whole), server.sent, len(server.requests("GET"))
        equal(got, wanted)
        chunks = 4 * 200_000 if "spikes" in wanted else 0
        assert read.total.wanted < 8 * 900 * 4 + chunks + 20_000
        assert told.requests >= requests
        assert told.bytes >= sent


def test_a_frame_tells_its_sessions_its_report_and_its_cost(tmp_path: Path) -> None:
    from lazynwb_dask.datasets import make_sessions

    paths = make_sessions(tmp_path, n=3, units=4)
    bad = tmp_path / "bad.nwb"
    bad.write_bytes(b"no file")
    with pytest.warns(UserWarning, match="1 of 4"):
        units = lazynwb_dask.read_nwb([*paths, str(bad)], "/units", on_error="skip")
    some = units[units._nwb_path == paths[1]]
    wanted = lazynwb_dask.read_sessions(paths).compute()
    oracle.assert_same(some.nwb.sessions().compute(), wanted)
    assert units.nwb.report().path.tolist() == [str(bad)]
    assert str(some.nwb.explain()) == str(lazynwb_dask.explain(some))
    with pytest.raises(ValueError, match="not made by read_nwb"):
        dd.from_pandas(pd.DataFrame({"x": [1]})).nwb.sessions()


@pytest.mark.parametrize("imported", ["", "import dask"])
def test_columns_of_frames_that_are_unpickled_in_a_new_process_have_the_accessor(
    files: list[str], whole: pd.DataFrame, tmp_path: Path, imported: str
) -> None:
    """Also pandas frames, where Dask is imported, as on workers."""
    units = lazynwb_dask.read_nwb(files, "/units")
    frames = [whole] if imported else [units, units[units.rate > 20], units.spikes.to_frame()]
    (tmp_path / "frames").write_bytes(pickle.dumps(frames))
    code = f"""
{imported}
import pickle
for frame in pickle.load(open("frames", "rb")):
    print(len(frame.spikes.nwb.len()))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert not ran.returncode, ran.stderr


def test_the_accessor_is_on_the_table_of_sessions_too(tmp_path: Path) -> None:
    from lazynwb_dask.datasets import make_sessions

    sessions = lazynwb_dask.read_sessions(make_sessions(tmp_path, n=2, units=4))
    assert sessions.experimenter.nwb.len().compute().min() >= 1


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Few units with many spikes, as they are, one after the other."""
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("long") / "long.nwb"
    counts = np.array([90_000, 0, 60_000, 7, 120_000, 80_000, 1])
    with nwb(path) as file:
        group = table(file, "/units", len(counts), ["rate", "spikes"])
        group.create_dataset("rate", data=np.arange(len(counts)) * 10.0)
        times = [np.sort(rng.exponential(200, n)) for n in counts]
        times[4][50_000:90_000] = times[4][50_000]  # many at once
        ragged(group, "spikes", np.cumsum(counts), np.concatenate(times))
    return str(path)


RANGES: dict[str, Callable[[Any], Any]] = {
    "a range": lambda u: u.spikes.nwb.between(100, 101.5),
    "the first": lambda u: u.spikes.nwb.between(None, 0.5),
    "the last": lambda u: u.spikes.nwb.between(1200),
    "none": lambda u: u.spikes.nwb.between(1e9, None),
    "an empty range": lambda u: u.spikes.nwb.between(5, 4),
    "counts": lambda u: u.spikes.nwb.count_between(300, 301),
    "as a filter": lambda u: u[u.spikes.nwb.count_between(100, 100.5) > 90][["rate"]],
    "of some": lambda u: u[u.rate > 15].spikes.nwb.between(50, 51),
}


@pytest.mark.parametrize("name", RANGES)
def test_of_values_that_are_said_to_rise_those_around_a_range_are_read(
    server: RangeServer, long: str, name: str
) -> None:
    ask, whole = RANGES[name], oracle.frame(long, "/units")
    url = server.put("long.nwb", Path(long).read_bytes())
    sent = {}
    for rising in (True, False):
        with dask.config.set({"lazynwb-dask.sorted-timestamps": rising, "lazynwb-dask.memory-cache": 0}):
            units = lazynwb_dask.read_nwb(url, "/units")
            told = lazynwb_dask.explain(ask(units))
            server.clear_log()
            equal(ask(units).compute(), ask(whole))
            assert told.requests >= len(server.requests("GET"))
            assert told.bytes >= server.sent
        sent[rising] = server.sent
    assert sent[True] < 1_200_000 < 2_000_000 < sent[False]


def test_values_that_are_not_said_to_rise_are_all_looked_at(tmp_path: Path) -> None:
    values = np.random.default_rng(0).permutation(200_000) / 10
    with nwb(tmp_path / "a.nwb") as file:
        ragged(table(file, "/units", 2, ["x"]), "x", [150_000, 200_000], values)
    got = lazynwb_dask.read_nwb(str(tmp_path / "a.nwb"), "/units").x.nwb.between(5, 7).compute()
    both = [values[:150_000], values[150_000:]]
    assert [list(row) for row in got] == [v[(v >= 5) & (v < 7)].tolist() for v in both]
