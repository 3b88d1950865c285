"""A few bad files among hundreds don't spoil the rest, when that is asked for."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from files import nwb, one, ragged, table
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask import expr
from lazynwb_dask.errors import NWBMemoryError, NWBReadError
from lazynwb_dask.read.partition import read_parts
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.storage import Settings

ROWS = 4


def good(folder: Path, number: int) -> bytes:
    path = folder / "good.nwb"
    with nwb(path) as file:
        group = table(file, "/units", ROWS, ["unit_id", "spike_times"])
        group.create_dataset("unit_id", data=np.arange(ROWS) + 10 * number)
        ragged(group, "spike_times", [1, 1, 3, 6], np.arange(6.0) + number)
    return path.read_bytes()


def tableless(folder: Path) -> bytes:
    with nwb(folder / "none.nwb") as file:
        file.create_group("general")
    return (folder / "none.nwb").read_bytes()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RangeServer, dict[str, str]]]:
    """200 URLs and what is the matter with each."""
    folder = tmp_path_factory.mktemp("store")
    kinds = ["good"] * 185 + ["truncated"] * 5 + ["missing"] * 3 + ["forbidden"] * 2
    kinds += ["tableless"] * 4 + ["text"]
    random.Random(1).shuffle(kinds)
    with RangeServer() as server:
        urls = {}
        for i, kind in enumerate(kinds):
            name = f"{kind}{i:03d}.nwb"
            urls[server.url(name)] = kind
            if kind != "missing":
                data = good(folder, i)
                data = {"truncated": data[:-900], "text": b"not NWB", "tableless": b""}.get(kind, data)
                server.put(name, data or tableless(folder))
        server.behaviour.forbidden = {u.rsplit("/", 1)[-1] for u, k in urls.items() if k == "forbidden"}
        yield server, urls


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_skip_gives_the_rows_of_the_good_files_and_names_the_others(
    store: tuple[RangeServer, dict[str, str]], client: Client
) -> None:
    _, urls = store
    with pytest.warns(UserWarning, match="200 files") as caught:
        frame = lazynwb_dask.read_nwb(list(urls), "/units", on_error="skip")
    texts = [str(w.message) for w in caught]
    assert len(texts) == 2, texts
    assert any("11 of 200 files can't be read" in text for text in texts)
    assert any("4 of 189 files have no table /units" in text for text in texts)
    right = [url for url, kind in urls.items() if kind == "good"]
    assert len(frame) == ROWS * len(right)
    for scheduler in ("threads", "sync", "processes", client):
        got = frame.compute(scheduler=scheduler)
        assert got._nwb_path.tolist() == [url for url in right for _ in range(ROWS)]
        numbers = [int(url[-7:-4]) for url in right]
        assert got.unit_id.tolist() == [10 * n + r for n in numbers for r in range(ROWS)]
        assert got.spike_times.iloc[0] == [numbers[0]]
    report = lazynwb_dask.read_report(frame)
    bad = {url for url, kind in urls.items() if kind in ("truncated", "missing", "forbidden", "text")}
    assert set(report.path) == bad
    assert set(report.stage) == {"plan"}
    by_kind = report.groupby(report.path.map(urls)).error.first()
    for kind, hint in (
        ("truncated", "truncated"),
        ("missing", "NWBFileNotFoundError"),
        ("forbidden", "NWBPermissionError"),
        ("text", "not an HDF5 file"),
    ):
        assert hint in by_kind[kind], by_kind[kind]


def test_raise_names_the_first_bad_file_in_source_order(store: tuple[RangeServer, dict[str, str]]) -> None:
    _, urls = store
    bad = ("truncated", "missing", "forbidden", "text")
    first = next(url for url, kind in urls.items() if kind in bad)
    with pytest.raises(NWBReadError, match=first.rsplit("/", 1)[-1]):
        lazynwb_dask.read_nwb(list(urls), "/units")


def test_files_that_vanish_after_planning_drop_out_of_that_computation(tmp_path: Path, client: Client) -> None:
    with RangeServer() as server:
        urls = [server.put(f"s{i}.nwb", good(tmp_path, i)) for i in range(6)]
        frame = lazynwb_dask.read_nwb(urls, "/units", on_error="skip")
        whole = frame.compute()
        server.behaviour.forbidden = {"s2.nwb"}
        for scheduler in ("threads", client):
            with warnings.catch_warnings(), client.as_current():
                warnings.simplefilter("ignore")
                got = frame.compute(scheduler=scheduler)
                report = lazynwb_dask.read_report(frame)
            oracle.assert_same(got, whole[whole._nwb_path != urls[2]])
            assert set(report.path) == {urls[2]}
            assert set(report.stage) == {"read"}
            assert len(frame) == 6 * ROWS, "len counts the rows that were planned"
        strict = lazynwb_dask.read_nwb([u for u in urls if "s2" not in u], "/units")
        server.behaviour.forbidden = {"s3.nwb"}
        with pytest.raises(PermissionError, match=r"s3\.nwb"):
            strict.compute()
    assert isinstance(report, pd.DataFrame)


def test_processes_without_a_cluster_warn_of_each_file_that_they_leave_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with RangeServer() as server:
        urls = [server.put(f"s{i}.nwb", good(tmp_path, i)) for i in range(6)]
        empty = server.put("empty.nwb", tableless(tmp_path))
        schema = pa.schema([("unit_id", pa.int64())])
        known = lazynwb_dask.read_nwb(urls, "/units", on_error="skip")
        given = lazynwb_dask.read_nwb([*urls, empty], "/units", on_error="skip", schema=schema)
        whole = known.unit_id.compute(scheduler="sync").tolist()
        server.behaviour.forbidden = {"s2.nwb", "s4.nwb"}
        kept = [value for value in whole if value // 10 not in (2, 4)]
        for frame, missing in ((known, []), (given, [f"{empty}: there is no table /units"])):
            assert frame.unit_id.compute(scheduler="processes").tolist() == kept
            printed = capfd.readouterr().err
            for expected in [f"{urls[i]} can't be read and is left out: " for i in (2, 4)] + missing:
                assert printed.count(f"UserWarning: {expected}") == 1
            assert "read_report" not in printed, "which does not list them"
            assert len(lazynwb_dask.read_report(frame)) == 0


def test_memory_that_is_short_leaves_no_file_out(tmp_path: Path) -> None:
    class Full:
        def take(self, nbytes: int, what: Any) -> None:
            raise NWBMemoryError(what())

    path = one(tmp_path / "a.nwb", [1, 2])
    (node,) = expr.reads(lazynwb_dask.read_nwb(path, "/units", on_error="skip"))
    with pytest.raises(NWBMemoryError, match="2 rows of x"):
        read_parts(node.scan.narrow(["x"], [0]), Selection(("x",)), Settings(memory=Full()))  # type: ignore[arg-type]
