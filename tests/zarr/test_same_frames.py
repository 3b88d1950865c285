"""A store gives what the HDF5 file gives that it was made of, however it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import oracle
import pandas as pd
import pytest
from stores import How, store_of, write, write_zip

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions

SHUFFLE = {"id": "shuffle", "elementsize": None}
DELTA = {"id": "delta", "dtype": None, "astype": None}
BLOSC3 = {"name": "blosc", "configuration": {
    "typesize": None, "cname": "zstd", "clevel": 3, "shuffle": "bitshuffle", "blocksize": 0}}  # fmt: skip
CRC = {"name": "crc32c"}
GZIP = {"name": "gzip", "configuration": {"level": 5}}
DELTA3 = {"name": "numcodecs.delta", "configuration": {"dtype": None, "astype": None}}

WAYS = {
    "v2": How(2),
    "v2 plain": How(2, consolidated=False, rows=7, texts="json2", after=[]),
    "v2 shuffle zlib": How(2, texts="vlen-bytes", before=[SHUFFLE], after=[{"id": "zlib", "level": 4}]),
    "v2 by columns": How(2, rows=20, order="F", separator="/", after=[{"id": "zstd", "level": 1}]),
    "v2 delta lz4": How(2, rows=33, before=[DELTA], after=[{"id": "lz4", "acceleration": 1}], sparse=False),
    "v2 fixed gzip": How(2, texts="fixed", after=[{"id": "gzip", "level": 1}]),
    "v3": How(3),
    "v3 plain": How(3, consolidated=False, rows=7, after=[]),
    "v3 shards": How(3, rows=8, shard=3),
    "v3 shards by columns": How(3, rows=8, shard=4, index_location="start", order="F", after=[GZIP]),
    "v3 blosc": How(3, texts="fixed", rows=30, after=[BLOSC3, CRC], separator=".", sparse=False),
    "v3 delta": How(3, before=[DELTA3], after=[CRC]),
}


def same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """The same frame but for the path."""
    oracle.assert_same(ours.drop(columns="_nwb_path"), theirs.drop(columns="_nwb_path"))


def assert_equal(store: str, file: Path, *, but: set[str] = frozenset()) -> None:
    """All that is told of a store is what is told of the file."""
    names = oracle.tables(file)
    assert sorted(lazynwb_dask.list_tables(store)) == sorted(names)
    for name in names:
        theirs, ours = lazynwb_dask.read_nwb(file, name), lazynwb_dask.read_nwb(store, name)
        kept = [c for c in theirs.columns if c not in but]
        assert ours.divisions == theirs.divisions
        same(ours.compute(scheduler="sync"), theirs[kept].compute(scheduler="sync"))
        told = [lazynwb_dask.schema_report(x, name).drop(columns=["notes", "problem"]) for x in (store, file)]
        pd.testing.assert_frame_equal(*(one[~one.index.isin(but)] for one in told))
    dropped = ["stored_bytes", "decoded_bytes", "columns", "shape", "problem"]
    ours, theirs = (lazynwb_dask.contents(x) for x in (store, file))
    if not but:
        dropped = dropped[:2]
    pd.testing.assert_frame_equal(ours.drop(columns=dropped), theirs.drop(columns=dropped))
    told = [lazynwb_dask.read_sessions(x).compute(scheduler="sync") for x in (store, file)]
    same(*told)
    for name in theirs.path[theirs.kind == "time series"]:
        assert_same_series(store, file, name)


def assert_same_series(store: str, file: Path, name: str) -> None:
    ours, theirs = (lazynwb_dask.open_timeseries(x, name) for x in (store, file))
    for what in ("rate", "starting_time", "unit", "conversion", "offset", "description", "neurodata_type"):
        assert getattr(ours, what) == getattr(theirs, what) or pd.isna(getattr(theirs, what))
    for mine, other in ((ours.data, theirs.data), (ours.timestamps, theirs.timestamps)):
        assert (mine is None) == (other is None)
        if mine is not None:
            assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
            np.testing.assert_array_equal(mine.compute(scheduler="sync"), other.compute(scheduler="sync"))
    frames = [lazynwb_dask.read_nwb(x, name).compute(scheduler="sync") for x in (store, file)]
    same(*frames)


@pytest.mark.parametrize("way", WAYS)
def test_all_kinds_of_columns_and_series(odd: Path, tmp_path: Path, way: str) -> None:
    store = write(store_of(odd, WAYS[way]), tmp_path / "odd.nwb.zarr")
    assert_equal(store, odd)
    same(lazynwb_dask.read_nwb(store, "/alias").compute(), lazynwb_dask.read_nwb(odd, "/alias").compute())


@pytest.mark.parametrize("version", [2, 3])
def test_a_whole_session(session: Path, tmp_path: Path, version: int) -> None:
    assert_equal(write(store_of(session, version=version), tmp_path / "no suffix"), session)


@pytest.mark.parametrize("version", [2, 3])
def test_a_zip(odd: Path, tmp_path: Path, version: int) -> None:
    store = write_zip(store_of(odd, version=version, rows=30), tmp_path / "odd.nwb.zarr.zip")
    assert_equal(store, odd)


@pytest.mark.parametrize("version", [2, 3])
def test_rows_and_columns_that_are_asked_for(odd: Path, tmp_path: Path, version: int) -> None:
    how = How(version, rows=6, shard=2 if version == 3 else None)
    store = write(store_of(odd, how), tmp_path / "odd.zarr")
    ours, theirs = (lazynwb_dask.read_nwb(x, "/units", blocksize="3 kB") for x in (store, odd))
    assert ours.npartitions > 3
    for ask in (
        lambda f: f[f.i4 > 50],
        lambda f: f[(f.i0 < 20) | (f.texts == "")][["words", "twice", "big"]],
        lambda f: f.query("flag and code == 'low'")[["mask", "group", "i7"]],
        lambda f: f.loc[17:63][["blocks", "texts", "groups"]],
        lambda f: f.nlargest(5, "big")[["id", "words", "gaps"]],
        lambda f: f[f.words.nwb.len() > 1].assign(n=f.gaps.nwb.len())[["n", "id"]],
        lambda f: f[f.id >= 80].set_index("id"),
    ):
        got, wanted = (one.compute() if hasattr(one, "compute") else one for one in (ask(ours), ask(theirs)))
        drop = [c for c in ("_nwb_path",) if c in got.columns]
        oracle.assert_same(got.drop(columns=drop), wanted.drop(columns=drop))


@pytest.mark.parametrize("version", [2, 3])
def test_a_catalog_of_stores(odd: Path, tmp_path: Path, version: int) -> None:
    store = write(store_of(odd, version=version, rows=30), tmp_path / "odd.nwb.zarr")
    catalogs = [lazynwb_dask.build_catalog(x, tmp_path / f"catalog{i}") for i, x in enumerate((store, odd))]
    pd.testing.assert_frame_equal(catalogs[0].tables, catalogs[1].tables)
    again = [lazynwb_dask.open_catalog(tmp_path / f"catalog{i}") for i in range(2)]
    for name in ("/units", "/intervals/trials", "/acquisition/wave"):
        frames = [lazynwb_dask.read_nwb(x, name) for x in again]
        same(*(frame.compute(scheduler="sync") for frame in frames))
    some = [frame[frame.i4 > 50][["texts", "big", "_nwb_path"]] for frame in
            (lazynwb_dask.read_nwb(x, "/units") for x in again)]  # fmt: skip
    same(*(frame.compute(scheduler="sync") for frame in some))
    assert again[0].refresh() is not None


def test_the_cache_on_disk(odd: Path, tmp_path: Path, cache_folder: Path) -> None:
    from lazynwb_dask.util import lru

    for version in (2, 3):
        store = write(store_of(odd, version=version), tmp_path / f"v{version}.zarr")
        with dask.config.set({"lazynwb-dask.cache": True}):
            for _ in range(2):
                lru.clear()
                got = lazynwb_dask.read_nwb(store, "/units").compute(scheduler="sync")
                same(got, lazynwb_dask.read_nwb(odd, "/units").compute(scheduler="sync"))


def test_folders_of_stores_and_files_are_one_frame(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path / "files", n=3, units=5, mean_spikes=9, trials=2, samples=9)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    Path(paths[0]).rename(mixed / "a.nwb")
    write(store_of(paths[1], version=2), mixed / "b.nwb")
    write(store_of(paths[2], version=3), mixed / "deeper" / "c")
    wanted = pd.concat(
        [lazynwb_dask.read_nwb(p, "/units").compute() for p in (mixed / "a.nwb", *paths[1:])], ignore_index=True
    )
    got: Any = lazynwb_dask.read_nwb(mixed, "/units").compute()
    same(got, wanted)
    assert [Path(p).name for p in got._nwb_path.unique()] == ["a.nwb", "b.nwb", "c"]
