"""References for others: zarr and xarray read from them what h5py reads from the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import xarray
import zarr
from files import nwb, ragged, table
from read.test_chunks import declare_bare_edges, with_bare_edges
from series_files import series
from servers import RangeServer
from stores import store_of, write

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import (
    ColumnNotFoundError,
    NWBFileNotFoundError,
    TableNotFoundError,
    UnsupportedColumnError,
)
from lazynwb_dask.storage import record

FORMAT = {"zarr_format": 2} if hasattr(zarr.storage, "FsspecStore") else {}


def zarr_store(references: dict[str, Any], **options: Any) -> Any:
    """What zarr 2 and zarr 3 open."""
    if not hasattr(zarr.storage, "FsspecStore"):
        return fsspec.filesystem("reference", fo=references, **options).get_mapper("")
    if options:
        options["remote_options"] = {"asynchronous": True}
    files = fsspec.filesystem("reference", fo=references, asynchronous=True, **options)
    return zarr.storage.FsspecStore(files)


def opened(references: dict[str, Any]) -> Any:
    json.loads(json.dumps(references))
    return zarr.open_group(zarr_store(references), mode="r", **FORMAT)


def same(group: Any, file: h5py.File, path: str) -> int:
    """Compare every array of a table with the dataset of that name; the number of arrays."""
    count = 0
    for name, array in group[path.strip("/")].arrays():
        wanted = file[f"{path}/{name}"][()]
        assert array.shape == wanted.shape
        np.testing.assert_array_equal(array[...], wanted.astype(array.dtype))
        assert array.dtype.newbyteorder("=") == (
            bool if wanted.dtype == bool else wanted.dtype.newbyteorder("=")
        )
        count += 1
    return count


@pytest.mark.parametrize("layout", ["contiguous", "chunked", "gzip"])
def test_zarr_reads_what_h5py_reads(tmp_path: Path, layout: str) -> None:
    (path,) = make_sessions(
        tmp_path / "sessions", n=1, units=20, mean_spikes=500, layout=layout, chunk_length=1000
    )
    catalog = lazynwb_dask.build_catalog(path, tmp_path / "catalog")
    group = opened(catalog.to_kerchunk(path))
    with h5py.File(path) as file:
        tables = catalog.tables.index
        assert sum(same(group, file, name) for name in tables) > 50
    assert "location" not in group["units"]


@pytest.mark.skipif(not FORMAT, reason="xarray opens stores by zarr 3 only")
def test_xarray_opens_a_table_over_http(range_server: RangeServer, tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path / "sessions", n=1, units=20, mean_spikes=500)
    url = range_server.put("a.nwb", Path(path).read_bytes())
    catalog = lazynwb_dask.build_catalog(url, tmp_path / "catalog")
    references = catalog.to_kerchunk(url, tables="units", columns=["snr", "spike_times"])
    store = zarr_store(references, remote_protocol="http")
    units = xarray.open_zarr(store, group="units", **FORMAT)
    assert set(units) == {"snr", "spike_times", "spike_times_index"}
    with h5py.File(path) as file:
        np.testing.assert_array_equal(units.snr.values, file["units/snr"][()])
        np.testing.assert_array_equal(units.spike_times.values, file["units/spike_times"][()])
    assert units.snr.dims == units.spike_times_index.dims == ("rows",)
    assert "signal to noise" in units.snr.attrs["description"]


def test_every_way_of_storing_that_it_knows(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.nwb", 100
    rng = np.random.default_rng(0)
    with nwb(path) as file:
        names = ["big", "shuffled", "checked", "both", "image", "never", "fill", "flag", "twice", "half"]
        group = table(file, "/units", rows, names)
        values = rng.integers(0, 99, rows)
        group.create_dataset("big", data=values.astype(">i4"))
        for name, how in (
            ("shuffled", {"shuffle": True, "compression": 4}),
            ("checked", {"fletcher32": True}),
            ("both", {"shuffle": True, "compression": 1, "fletcher32": True}),
        ):
            group.create_dataset(name, data=values.astype("u2"), chunks=(33,), **how)
        image = rng.normal(size=(rows, 5, 7)).astype("f4")
        group.create_dataset("image", data=image, chunks=(30, 2, 7), compression=1)
        group.create_dataset("never", shape=(rows,), dtype="f8", chunks=(10,), fillvalue=np.nan)
        part = group.create_dataset("fill", shape=(rows,), dtype="i8", chunks=(10,), fillvalue=-7)
        part[35:42] = 1
        group.create_dataset("flag", data=values > 50)
        ragged(group, "twice", np.arange(rows) + 1, values.astype("f2"), chunks=(7,))
        group.create_dataset("half", data=values.astype("f2"), maxshape=(None,), chunks=(64,))
    catalog = lazynwb_dask.build_catalog(path, tmp_path / "catalog")
    group = opened(catalog.to_kerchunk(path))
    with h5py.File(path) as file:
        assert same(group, file, "/units") == 12


def test_chunks_at_edges_without_filters_are_an_error_that_names_the_column(tmp_path: Path) -> None:
    path = tmp_path / "edges.nwb"
    with nwb(path, libver="latest") as file:
        table(file, "/units", 10, ["x"])
        with_bare_edges(file, "units/x", np.arange(10.0), chunks=(4,), maxshape=(10,))
    declare_bare_edges(path)
    catalog = lazynwb_dask.build_catalog(path, tmp_path / "catalog")
    with pytest.raises(UnsupportedColumnError, match="column 'x': chunks at its edges"):
        catalog.to_kerchunk(path)


def test_what_it_cannot_express_is_an_error_that_names_the_column(tmp_path: Path) -> None:
    values = np.arange(100, dtype="i4")
    for name, how in (
        ("lzf", {"compression": "lzf"}), ("scale-offset", {"scaleoffset": 0}), ("filter masks", {}),
    ):  # fmt: skip
        path = tmp_path / f"{name}.nwb"
        with nwb(path) as file:
            group = table(file, "/units", 100, ["good", "bad", "word"])
            group.create_dataset("good", data=values)
            group.create_dataset("word", data=["x"] * 100, dtype=h5py.string_dtype())
            if how:
                group.create_dataset("bad", data=values, chunks=(50,), **how)
            else:
                made = group.create_dataset("bad", shape=(100,), dtype="i4", chunks=(50,), compression=1)
                made.id.write_direct_chunk((0,), values[:50].tobytes(), filter_mask=1)
        catalog = lazynwb_dask.build_catalog(path, tmp_path / "catalog")
        with pytest.raises(UnsupportedColumnError, match=rf"/units: column 'bad'.*{name}.*columns="):
            catalog.to_kerchunk(path)
        group = opened(catalog.to_kerchunk(path, columns=["id", "good"]))
        assert set(group["units"].array_keys()) == {"id", "good"}
        with pytest.raises(UnsupportedColumnError, match="'word': not numbers"):
            catalog.to_kerchunk(path, columns=["word"])
        with pytest.raises(ColumnNotFoundError, match="'nope'"):
            catalog.to_kerchunk(path, columns=["nope"])
        with pytest.raises(TableNotFoundError, match=r"Its tables: /units"):
            catalog.to_kerchunk(path, tables="trials")
        with pytest.raises(NWBFileNotFoundError, match="not in the catalog"):
            catalog.to_kerchunk(tmp_path / "another.nwb")


def test_chunk_lists_that_the_catalog_leaves_out_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    with nwb(path) as file:
        group = table(file, "/units", 3, ["s"])
        ragged(group, "s", np.array([1, 2, 10_000]), np.arange(10_000.0), chunks=(2,))
    catalog = lazynwb_dask.build_catalog(path, tmp_path / "catalog")
    group = opened(catalog.to_kerchunk(path))
    np.testing.assert_array_equal(group["units/s"][4000:4010], np.arange(4000.0, 4010.0))
    assert group["units/s"].nchunks == 5000


def test_timeseries_are_told_too(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.nwb", np.random.default_rng(0)
    with nwb(path) as file:
        table(file, "/units", 3, ["x"]).create_dataset("x", data=np.arange(3.0))
        lfp = series(
            file, "/acquisition/lfp", rng.integers(-99, 99, (500, 4)).astype("i2"), (2.5, 100.0),
            chunks=(64, 2), compression=4, shuffle=True,
        )  # fmt: skip
        lfp["data"].attrs["conversion"] = 0.5
        speed = series(file, "/processing/behavior/speed", rng.normal(size=50), np.arange(50) / 7)
        linked = series(file, "/processing/behavior/moves", rng.normal(size=50))
        linked["timestamps"] = speed["timestamps"]
        film = series(file, "/stimulus/film", times=np.arange(9.0))
        film.create_dataset("data", shape=(0, 0, 0), dtype="u1")
        film.create_dataset("external_file", data=["film.avi"], dtype=h5py.string_dtype())
    catalog = lazynwb_dask.build_catalog(path, tmp_path / "catalog")
    group = opened(catalog.to_kerchunk(path))
    with h5py.File(path) as file:
        for name, arrays in (
            ("units", 2), ("acquisition/lfp", 1), ("processing/behavior/speed", 2),
            ("processing/behavior/moves", 2), ("stimulus/film", 1),
        ):  # fmt: skip
            assert same(group, file, name) == arrays, name
    lfp_said = group["acquisition/lfp"].attrs
    assert (lfp_said["rate"], lfp_said["conversion"]) == ("100.0", "0.5")
    one = opened(catalog.to_kerchunk(path, tables="/processing/behavior/speed", columns="data"))
    assert list(one["processing/behavior"].group_keys()) == ["speed"]
    assert list(one["processing/behavior/speed"].array_keys()) == ["data"]
    with pytest.raises(UnsupportedColumnError, match=r"timestamps.*starting_time and rate"):
        catalog.to_kerchunk(path, tables="/acquisition/lfp", columns=["timestamps"])
    with pytest.raises(UnsupportedColumnError, match=r"external files"):
        catalog.to_kerchunk(path, tables="/stimulus/film", columns=["data"])
    with pytest.raises(ColumnNotFoundError, match="'nope'"):
        catalog.to_kerchunk(path, columns="nope")


def test_tables_are_told_without_opening_the_file(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path / "sessions", n=1, units=5, mean_spikes=20)
    catalog = lazynwb_dask.build_catalog(path, tmp_path / "catalog")
    with record() as counted:
        catalog.to_kerchunk(path, tables=["/units", "/intervals/trials"])
    assert path not in counted.files


def test_a_zarr_store_has_no_references_to_export(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        table(file, "/units", 3, ["x"]).create_dataset("x", data=np.arange(3.0))
    store = write(store_of(tmp_path / "a.nwb"), tmp_path / "a.nwb.zarr")
    catalog = lazynwb_dask.build_catalog(store, tmp_path / "catalog")
    assert lazynwb_dask.read_nwb(catalog, "units").x.compute().tolist() == [0, 1, 2]
    with pytest.raises(UnsupportedColumnError, match=r"a\.nwb\.zarr: a Zarr store already"):
        catalog.to_kerchunk(store)
