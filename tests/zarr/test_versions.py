"""A store's version is its document's: what is kept of a store is used until that changes."""

from __future__ import annotations

import os
from pathlib import Path

import dask
import oracle
import pytest
from files import nwb, table
from servers import RangeServer
from stores import serve, store_of, write, write_zip

import lazynwb_dask
from lazynwb_dask.errors import NWBFileChangedError
from lazynwb_dask.storage import record
from lazynwb_dask.util import lru


def units(path: Path, values: list[int]) -> Path:
    with nwb(path) as file:
        table(file, "/units", len(values), ["x"]).create_dataset("x", data=values)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_the_cache_on_disk_holds_a_store_until_its_document_changes(
    tmp_path: Path, range_server: RangeServer, version: int
) -> None:
    old, new = units(tmp_path / "old.nwb", [1, 2]), units(tmp_path / "new.nwb", [7, 8, 9])
    with dask.config.set({"lazynwb-dask.cache-directory": str(tmp_path / "cache"), "lazynwb-dask.cache": True}):
        for name in ("a.nwb.zarr", "a.nwb"):
            document = {2: ".zmetadata", 3: "zarr.json"}[version]
            url = serve(store_of(old, version=version), range_server, name)
            frame = lazynwb_dask.read_nwb(url, "/units")
            lru.clear()
            range_server.clear_log()
            frame = lazynwb_dask.read_nwb(url, "/units")
            last = range_server.requests()[-1]
            assert (last.path, last.sent) == (f"/{name}/{document}", 1)  # whether it is current
            assert frame.x.compute(scheduler="sync").tolist() == [1, 2]
            serve(store_of(new, version=version), range_server, name)
            with pytest.raises(NWBFileChangedError, match=rf"{name}.* changed between planning and reading"):
                frame.x.compute(scheduler="sync")
            frame = lazynwb_dask.read_nwb(url, "/units")
            assert frame.x.compute(scheduler="sync").tolist() == [7, 8, 9]


def test_a_catalog_indexes_again_only_stores_that_changed(tmp_path: Path) -> None:
    made = units(tmp_path / "made.nwb", [1, 2])
    folder = tmp_path / "in"
    for name, version, consolidated in [
        ("a.nwb", 2, True),
        ("b.nwb.zarr", 3, True),
        ("c.nwb", 2, False),
        ("d", 3, False),
        ("e", 3, True),
    ]:
        write(store_of(made, version=version, consolidated=consolidated), folder / name)
    write_zip(store_of(made), folder / "f.zarr.zip")
    catalog = lazynwb_dask.build_catalog(folder, tmp_path / "catalog")
    assert len(catalog) == 6
    frame = lazynwb_dask.read_nwb(catalog, "/units")
    assert frame.x.compute(scheduler="sync").tolist() == [1, 2] * 6
    for name in ("e", "c.nwb"):  # of the latter, no document of the root has changed
        v3 = name == "e"
        changed = store_of(units(tmp_path / "changed.nwb", [3, 4, 5]), version=3 if v3 else 2, consolidated=v3)
        for key, value in changed.items():
            if not (folder / name / key).exists() or (folder / name / key).read_bytes() != value:
                os.makedirs((folder / name / key).parent, exist_ok=True)
                (folder / name / key).write_bytes(value)
    lru.clear()
    with record() as counted:
        catalog = lazynwb_dask.build_catalog(folder, tmp_path / "catalog")
    read = {name.removeprefix(f"{folder}/").split("/")[0] for name in counted.files if "/in/" in name}
    assert read == {"c.nwb", "d", "e"}  # c.nwb and d have no version
    got = lazynwb_dask.read_nwb(catalog, "/units").compute(scheduler="sync")
    wanted = lazynwb_dask.read_nwb(folder, "/units").compute(scheduler="sync")
    oracle.assert_same(got, wanted)
    assert got.x.tolist() == [1, 2, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]


@pytest.mark.parametrize("scheduler", ["sync", "processes"])
def test_stores_of_any_name_are_read_by_workers(tmp_path: Path, scheduler: str) -> None:
    made = units(tmp_path / "made.nwb", [1, 2])
    for name, options in {"a.nwb": {}, "b": {"version": 3}, "c": {"consolidated": False}}.items():
        write(store_of(made, **options), tmp_path / "in" / name)
    frame = lazynwb_dask.read_nwb([tmp_path / "in" / name for name in ["a.nwb", "b", "c"]], "/units")
    assert frame.x.compute(scheduler=scheduler).tolist() == [1, 2] * 3
