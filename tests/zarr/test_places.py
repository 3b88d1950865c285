"""A store gives the same frame wherever it is, by any name, however it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import h5py
import oracle
import pytest
from files import nwb, table
from servers import RangeServer, S3Server
from stores import serve, store_of, write, write_zip

import lazynwb_dask
from lazynwb_dask.errors import NWBFileChangedError
from lazynwb_dask.util import lru

NAMES: dict[str, dict[str, Any]] = {
    "a.nwb.zarr": {"version": 2},
    "b.nwb": {"version": 2, "consolidated": False},
    "c": {"version": 3},
}


def test_a_store_gives_the_same_frame_wherever_it_is(
    tmp_path: Path, s3_server: S3Server, range_server: RangeServer
) -> None:
    with nwb(tmp_path / "small.nwb") as file:
        group = table(file, "/units", 3, ["x", "text"])
        group.create_dataset("x", data=[1.5, 2, 3])
        group.create_dataset("text", data=["a", "é", ""], dtype=h5py.string_dtype())
    wanted = lazynwb_dask.read_nwb(tmp_path / "small.nwb", "/units").compute(scheduler="sync")
    signed, anonymous = s3_server.storage_options, {**s3_server.anonymous, "anon": True}
    for name, how in NAMES.items():
        store = store_of(tmp_path / "small.nwb", **how)
        local = Path(write(store, tmp_path / name))
        served = serve(store, range_server, name)
        for key, value in store.items():
            s3_server.put("lab", f"{name}/{key}", value)
            fsspec.filesystem("memory").pipe_file(f"/lab/{name}/{key}", value)
        zipped = write_zip(
            {f"{name}/{key}": value for key, value in store.items()}, tmp_path / f"{name}.all.zip"
        )
        named: list[tuple[Any, str, dict[str, Any] | None]] = [
            (local, str(local), None),
            (f"{local}/", str(local), None),
            (f"file://{local}/", str(local), None),
            (served, served, None),
            (f"{served}?token=1/2", f"{served}?token=1/2", None),
            (f"s3://lab/{name}/", f"s3://lab/{name}", signed),
            (f"s3://lab/{name}", f"s3://lab/{name}", anonymous),
            (f"memory://lab/{name}", f"memory://lab/{name}", None),
            (f"simplecache::s3://lab/{name}", f"simplecache::s3://lab/{name}", {"s3": signed}),
            (f"zip://{name}::{zipped}", f"zip://{name}::{zipped}", None),
            (zipped, zipped, None),
        ]
        for path, url, options in named:
            frame = lazynwb_dask.read_nwb(path, "/units", storage_options=options)
            got = frame.compute(scheduler="sync")
            oracle.assert_same(got.drop(columns="_nwb_path"), wanted.drop(columns="_nwb_path"))
            assert got._nwb_path.unique().tolist() == [url]
    assert all("token=1/2" in entry.path for entry in range_server.log if "token" in entry.path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_server_without_ranges_serves_stores(odd: Path, range_server: RangeServer, version: int) -> None:
    url = serve(store_of(odd, version=version), range_server, "a.nwb.zarr")
    wanted = lazynwb_dask.read_nwb(url, "/units").compute()
    range_server.behaviour.ignore_range = True
    lru.clear()
    frame = lazynwb_dask.read_nwb(url, "/units")
    oracle.assert_same(frame.compute(), wanted)
    range_server.put("a.nwb.zarr/.zmetadata" if version == 2 else "a.nwb.zarr/zarr.json", b"{}")
    with pytest.raises(NWBFileChangedError):
        frame.compute()
