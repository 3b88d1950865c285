"""Files of all formats in one frame: what each of them gives by itself, whatever is asked, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask
import h5py
import numpy as np
import oracle
import pandas as pd
import pytest
import queries
from distributed import Client, LocalCluster
from files import nwb, ragged, table
from hypothesis import HealthCheck, given, settings
from lindi_files import lindi_of
from servers import RangeServer
from stores import How, serve, store_of, write, write_zip

import lazynwb_dask

REGIONS = ["VISp", "LP", "é", ""]
STORES = {
    "v2": How(2, rows=4),
    "v2 plain": How(2, consolidated=False, texts="json2", after=[]),
    "v3": How(3, rows=5),
    "v3 shards": How(3, rows=2, shard=3),
}


def units(path: Path, number: int, rows: int) -> Path:
    """A file with a column of every common kind."""
    rng = np.random.default_rng(number)
    with nwb(path) as file:
        names = ["unit_id", "snr", "rate", "k", "good", "location", "spike_times"]
        group = table(file, "/units", rows, names)
        group.create_dataset("unit_id", data=np.arange(rows) + 100 * number)
        snr = rng.normal(size=rows).round(1)
        snr[rng.random(rows) < 0.2] = np.nan
        group.create_dataset("snr", data=snr)
        group.create_dataset("rate", data=rng.normal(size=rows).round(1))
        group.create_dataset("k", data=rng.integers(0, 4, rows))
        group.create_dataset("good", data=rng.random(rows) < 0.5)
        texts = rng.choice(REGIONS, rows).astype(object)
        group.create_dataset("location", data=texts, dtype=h5py.string_dtype())
        counts = rng.integers(0, 4, rows)
        ragged(group, "spike_times", np.cumsum(counts), rng.normal(size=int(counts.sum())).round(2))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What to read, and the HDF5 file that has the same content."""
    folder = tmp_path_factory.mktemp("files")
    made = [units(folder / f"s{n}.nwb", n, rows) for n, rows in enumerate([9, 12, 7, 0, 11, 8, 5])]
    found = {str(made[0]): made[0]}
    lindi_of(made[1], made[1].name, name=f"{made[1]}.lindi.json")
    found[f"{made[1]}.lindi.json"] = made[1]
    for n, (name, how) in enumerate(STORES.items(), 2):
        found[write(store_of(made[n], how), folder / f"{name}.nwb.zarr")] = made[n]
    found[write_zip(store_of(made[6], version=2), folder / "zipped.nwb.zarr.zip")] = made[6]
    return found


@pytest.fixture(scope="module")
def wanted(files: dict[str, Path]) -> pd.DataFrame:
    """The files, read one by one by h5py alone."""
    parts = [oracle.frame(file, "/units").assign(_nwb_path=path) for path, file in files.items()]
    frame = pd.concat(parts, ignore_index=True)
    frame["_nwb_path"] = frame._nwb_path.astype(oracle.STRING)
    return frame


@pytest.mark.parametrize("blocksize", ["128 MiB", None])
def test_one_frame_is_the_files_read_one_by_one(
    files: dict[str, Path], wanted: pd.DataFrame, blocksize: str | None
) -> None:
    frame = lazynwb_dask.read_nwb(list(files), "/units", blocksize=blocksize)
    assert len(frame) == len(wanted)
    for scheduler in ("sync", "threads"):
        oracle.assert_same(frame.compute(scheduler=scheduler), wanted)
    singles = [lazynwb_dask.read_nwb(path, "/units").compute(scheduler="sync") for path in files]
    oracle.assert_same(pd.concat(singles, ignore_index=True), wanted)
    told = lazynwb_dask.schema_report(list(files), "/units")
    assert set(told.files.iloc[1:]) == {len(files)}


def test_on_processes_and_on_a_cluster(files: dict[str, Path], wanted: pd.DataFrame) -> None:
    frame = lazynwb_dask.read_nwb(list(files), "/units", blocksize=None)
    some = frame[(frame.snr > -0.5) & (frame.location != "LP")]
    right = wanted[(wanted.snr > -0.5) & (wanted.location != "LP")]
    oracle.assert_same(some.compute(scheduler="processes", num_workers=2), right)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        oracle.assert_same(some.compute(scheduler=client), right)
        oracle.assert_same(frame.compute(scheduler=client), wanted)


@pytest.fixture(scope="module")
def remote(files: dict[str, Path]) -> Iterator[list[str]]:
    """The same over HTTP."""
    with RangeServer() as server:
        urls = []
        for n, path in enumerate(map(Path, files)):
            if path.is_dir():
                keys = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
                urls.append(serve(keys, server, f"{n}/no-suffix" if n % 2 else f"{n}/a.nwb.zarr"))
            else:
                urls.append(server.put(f"{n}/{path.name}", path.read_bytes()))
                server.put(f"{n}/s{n}.nwb", list(files.values())[n].read_bytes())
        yield urls


def test_over_http(remote: list[str], wanted: pd.DataFrame, files: dict[str, Path]) -> None:
    readable = [url for n, url in enumerate(remote) if "plain" not in list(files)[n]]
    frame = lazynwb_dask.read_nwb(readable, "/units").compute()
    right = wanted[~wanted._nwb_path.str.contains("plain")].reset_index(drop=True)
    oracle.assert_same(frame.drop(columns="_nwb_path"), right.drop(columns="_nwb_path"))


def vocabulary(files: dict[str, Path]) -> queries.Vocabulary:
    return queries.Vocabulary(
        floats={"snr": [-0.5, 0.0, 1.0], "rate": [-0.3, 0.4]},
        ints={"k": [0, 1, 3], "unit_id": [0, 205, 410]},
        strings={"location": REGIONS},
        constants={"_nwb_path": [*list(files)[:3], "nowhere"]},
        bools=["good"],
        ragged=["spike_times"],
        key=["unit_id"],
    )


@pytest.mark.parametrize("by", ["paths", "unfused", "catalog"])
def test_queries_equal_pandas(files: dict[str, Path], by: str, tmp_path: Path) -> None:
    paths = list(files)
    source = lazynwb_dask.build_catalog(paths, tmp_path / "catalog") if by == "catalog" else paths
    frame = lazynwb_dask.read_nwb(source, "/units", blocksize=None if by == "unfused" else "2 kB")
    whole = frame.compute(scheduler="sync")

    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(query=queries.queries(vocabulary(files)))
    def check(query: queries.Query) -> None:
        try:
            right = queries.run_pandas(query, whole)
        except Exception as exc:  # what pandas refuses, Dask must not answer
            right = exc
        with dask.config.set(scheduler="sync"):
            if isinstance(right, Exception):
                with pytest.raises(type(right)):
                    queries.run_dask(query, frame)
                return
            queries.assert_same(queries.run_dask(query, frame), right)

    check()


def test_sessions_and_a_catalog_of_all_formats(
    files: dict[str, Path], wanted: pd.DataFrame, tmp_path: Path
) -> None:
    told = lazynwb_dask.read_sessions(list(files)).compute(scheduler="sync")
    right = lazynwb_dask.read_sessions(list(files.values())).compute(scheduler="sync")
    assert told._nwb_path.tolist() == list(files)
    oracle.assert_same(told.drop(columns="_nwb_path"), right.drop(columns="_nwb_path"))
    lazynwb_dask.build_catalog(list(files), tmp_path / "catalog")
    catalog = lazynwb_dask.open_catalog(tmp_path / "catalog")
    frame = lazynwb_dask.read_nwb(catalog, "/units")
    oracle.assert_same(frame.compute(scheduler="sync"), wanted)
    some = frame[frame.k == 2][["spike_times", "location"]]
    oracle.assert_same(some.compute(scheduler="sync"), wanted[wanted.k == 2][["spike_times", "location"]])
