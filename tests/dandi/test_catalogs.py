"""What was learned of a blob is kept, whatever path it is under: in the cache on disk, and in catalogs."""

from __future__ import annotations

from pathlib import Path

import dask.config
import pandas as pd
import pytest
from dandi.archive import TOKEN, FakeArchive

import lazynwb_dask
from lazynwb_dask.errors import NWBFileNotFoundError

NAME = "dandi:000409@draft"


def renamed(archive: FakeArchive, **paths: str) -> None:
    """Give assets other paths."""
    held = archive.versions["000409", "draft"]
    for old, new in paths.items():
        path = next(path for path in held if path.startswith(old))
        held[new] = held.pop(path)
        held[new].path = new


def test_the_cache_on_disk_knows_a_blob_under_each_path(three: FakeArchive, tmp_path: Path) -> None:
    with dask.config.set({"lazynwb-dask.cache": True, "lazynwb-dask.cache-directory": str(tmp_path / "cache")}):
        wanted = lazynwb_dask.read_nwb(NAME, "/units").compute()
        held = three.versions["000409", "draft"]
        three.versions["000500", "0.250101.0000"] = {f"moved/{path}": one for path, one in held.items()}
        for path, one in held.items():
            one.path = f"moved/{path}"
        three.clear()
        units = lazynwb_dask.read_nwb("dandi:000500", "/units")
        assert [len(three.log), len(three.bucket.log)] == [2, 0]  # the dandiset, and its list
        found = units.compute()
    assert found["_nwb_path"].str.startswith("dandi://dandi/000500@0.250101.0000/moved/sub-").all()
    pd.testing.assert_frame_equal(found.drop(columns="_nwb_path"), wanted.drop(columns="_nwb_path"))


def test_a_catalog_is_refreshed_by_one_listing_and_what_changed(
    archive: FakeArchive, sessions: list[str], tmp_path: Path
) -> None:
    data = Path(sessions[0]).read_bytes()
    for i in range(20):
        archive.add("000409", f"sub-{i:02}/a.nwb", data + b"%d" % i)
    catalog = lazynwb_dask.build_catalog(NAME, tmp_path / "catalog", tables="/units")
    assert [len(archive.log), len(catalog)] == [1, 20]
    for i in (3, 7, 11):
        archive.add("000409", f"sub-{i:02}/a.nwb", Path(sessions[1]).read_bytes() + b"%d" % i)
    archive.clear()
    fresh = catalog.refresh()
    assert len(archive.log) == 1
    assert len({entry.path for entry in archive.bucket.requests()}) == 3
    archive.clear()
    rates = lazynwb_dask.read_nwb(fresh, "/units")[["firing_rate", "_nwb_path"]].compute()
    assert not archive.log
    for i in (2, 3):
        wanted = lazynwb_dask.read_nwb(sessions[i == 3], "/units")["firing_rate"].compute()
        mine = rates[rates["_nwb_path"] == f"dandi://dandi/000409@draft/sub-{i:02}/a.nwb"]
        assert mine["firing_rate"].tolist() == wanted.tolist()
    archive.clear()
    assert fresh.refresh().url == fresh.url
    assert [len(archive.log), len(archive.bucket.log)] == [1, 0]


def test_renamed_assets_of_a_catalog_are_not_indexed_again(three: FakeArchive, tmp_path: Path) -> None:
    catalog = lazynwb_dask.build_catalog(NAME, tmp_path / "catalog")
    wanted = lazynwb_dask.read_nwb(catalog, "/units").compute()
    renamed(three, **{"sub-1": "sub-0/b.nwb", "sub-2": "z.nwb"})
    three.clear()
    fresh = catalog.refresh()
    assert [len(three.log), len(three.bucket.log)] == [1, 0]
    paths = [f"dandi://dandi/000409@draft/{path}" for path in ("sub-0/b.nwb", "sub-0/sub-0_ses-1.nwb", "z.nwb")]
    assert fresh.paths == paths
    assert fresh.sessions["_nwb_path"].tolist() == paths
    found = lazynwb_dask.read_nwb(fresh, "/units").compute()
    for new, old in zip(paths, (1, 0, 2), strict=True):
        path = f"dandi://dandi/000409@draft/sub-{old}/sub-{old}_ses-1.nwb"
        one = found[found["_nwb_path"] == new].drop(columns="_nwb_path").reset_index(drop=True)
        same = wanted[wanted["_nwb_path"] == path].drop(columns="_nwb_path").reset_index(drop=True)
        pd.testing.assert_frame_equal(one, same)


def test_one_blob_under_two_paths_is_indexed_once_and_read_twice(
    archive: FakeArchive, sessions: list[str], tmp_path: Path
) -> None:
    data = Path(sessions[0]).read_bytes()
    for path in ("a.nwb", "b.nwb", "c.nwb"):
        archive.add("000409", path, data)
    catalog = lazynwb_dask.build_catalog(NAME, tmp_path / "catalog")
    assert len(catalog.sessions) == 3
    units = lazynwb_dask.read_nwb(catalog, "/units")
    counts = units[units.unit_id >= 0].groupby("_nwb_path").size().compute()
    assert counts.tolist() == [len(lazynwb_dask.read_nwb(sessions[0], "/units"))] * 3
    archive.add("000409", "d.nwb", data)
    archive.clear()
    assert len(lazynwb_dask.read_nwb(catalog.refresh(), "/units")) == 4 * counts.iloc[0]
    assert not archive.bucket.log


def test_a_catalog_of_chosen_assets_is_listed_once(three: FakeArchive, tmp_path: Path) -> None:
    assets = lazynwb_dask.dandi_assets(NAME)
    catalog = lazynwb_dask.build_catalog(assets[1:], tmp_path / "catalog")
    assert catalog.paths == assets["_nwb_path"][1:].tolist()
    assert len(three.log) == 2
    del three.versions["000409", "draft"]["sub-1/sub-1_ses-1.nwb"]
    assert catalog.refresh().paths == [assets["_nwb_path"][2]]


def test_a_file_named_in_full_that_is_gone_is_one_failure(three: FakeArchive) -> None:
    paths = lazynwb_dask.dandi_assets(NAME)["_nwb_path"].tolist()
    del three.versions["000409", "draft"]["sub-1/sub-1_ses-1.nwb"]
    with pytest.raises(NWBFileNotFoundError, match=r"sub-1_ses-1\.nwb: the dandiset has no such asset"):
        lazynwb_dask.read_nwb(paths, "/units")
    with pytest.warns(UserWarning, match="1 of 3"):
        units = lazynwb_dask.read_nwb(paths, "/units", on_error="skip")
    assert lazynwb_dask.read_report(units)["path"].tolist() == [paths[1]]
    assert units["_nwb_path"].unique().compute().tolist() == [paths[0], paths[2]]


def test_no_token_and_no_signed_address_is_written(embargoed: FakeArchive, tmp_path: Path) -> None:
    with dask.config.set({"lazynwb-dask.cache": True, "lazynwb-dask.cache-directory": str(tmp_path / "cache")}):
        catalog = lazynwb_dask.build_catalog(NAME, tmp_path / "catalog")
        lazynwb_dask.read_nwb(NAME, "/units").compute()
    assert len(catalog) == 3
    assert embargoed.minted
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert TOKEN.encode() not in written
    assert b"signed/" not in written
    assert b"signature" not in written
