"""Names and addresses of dandisets go wherever paths go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import stores
from dandi.archive import FakeArchive, about

import lazynwb_dask
from lazynwb_dask import config
from lazynwb_dask.dandi.names import is_name, parse
from lazynwb_dask.errors import NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.source import Source
from lazynwb_dask.sources import expand as sources_expand
from lazynwb_dask.storage.options import Options


def expand(paths: Any) -> list[Source]:
    return sources_expand.expand(paths, config.file_access(Options()))


ONE = b"01a2b3c4-0000-4000-8000-0123456789ab"
ID = "01a2b3c4-0000-4000-8000-0123456789ab"


@pytest.mark.parametrize(
    ("text", "archive", "dandiset", "version", "path", "asset"),
    [
        ("dandi:000409", "dandi", "000409", "", "", ""),
        ("DANDI:000409", "dandi", "000409", "", "", ""),
        ("DANDI:000409/0.240101.1200", "dandi", "000409", "0.240101.1200", "", ""),
        ("dandi:000409@draft", "dandi", "000409", "draft", "", ""),
        ("dandi:000409@0.240101.1200", "dandi", "000409", "0.240101.1200", "", ""),
        ("dandi:000409/sub-X/*", "dandi", "000409", "", "sub-X/*", ""),
        ("dandi:000409@draft/sub-X/a b.nwb", "dandi", "000409", "draft", "sub-X/a b.nwb", ""),
        ("dandi:000409@Draft/a.nwb", "dandi", "000409", "draft", "a.nwb", ""),
        (f"dandi://dandi/assets/{ID.upper()}", "dandi", "", "", "", ID),
        ("https://dandiarchive.org/dandiset/000409/draft/files?location=sub-X#top", "dandi", "000409", "draft",
         "sub-X/", ""),
        ("https://dandiarchive.org/dandiset/000409#about", "dandi", "000409", "", "", ""),
        ("dandi-sandbox:000409", "dandi-sandbox", "000409", "", "", ""),
        ("dandi://dandi/000409/sub-X/", "dandi", "000409", "", "sub-X/", ""),
        ("dandi://DANDI/000409", "dandi", "000409", "", "", ""),
        ("dandi://linc/000409@draft/a.nwb", "linc", "000409", "draft", "a.nwb", ""),
        (f"dandi://ember-dandi/assets/{ID}", "ember-dandi", "", "", "", ID),
        ("https://dandiarchive.org/dandiset/000409", "dandi", "000409", "", "", ""),
        ("https://dandiarchive.org/dandiset/000409/", "dandi", "000409", "", "", ""),
        ("https://dandiarchive.org/dandiset/000409/draft", "dandi", "000409", "draft", "", ""),
        ("https://dandiarchive.org/dandiset/000409/0.1.2", "dandi", "000409", "0.1.2", "", ""),
        (
            "https://dandiarchive.org/dandiset/000409/draft/files?location=sub-X",
            "dandi", "000409", "draft", "sub-X/", "",
        ),
        ("https://gui.dandiarchive.org/#/dandiset/000409/draft", "dandi", "000409", "draft", "", ""),
        ("https://sandbox.dandiarchive.org/dandiset/000409", "dandi-sandbox", "000409", "", "", ""),
        ("https://identifiers.org/DANDI:000409/0.1.2", "dandi", "000409", "0.1.2", "", ""),
        (f"https://api.dandiarchive.org/api/assets/{ID}/download/", "dandi", "", "", "", ID),
        (f"https://api.dandiarchive.org/api/assets/{ID}/download", "dandi", "", "", "", ID),
        (f"https://api.dandiarchive.org/api/assets/{ID}/", "dandi", "", "", "", ID),
        ("https://api.dandiarchive.org/api/dandisets/000409/", "dandi", "000409", "", "", ""),
        ("https://api.dandiarchive.org/api/dandisets/000409/versions/draft", "dandi", "000409", "draft",
         "", ""),
        (
            "https://api.dandiarchive.org/api/dandisets/000409/versions/draft/assets/",
            "dandi", "000409", "draft", "", "",
        ),
        (
            f"https://api.dandiarchive.org/api/dandisets/000409/versions/0.1.2/assets/{ID}/download/",
            "dandi", "", "", "", ID,
        ),
    ],
)  # fmt: skip
def test_a_name_is_understood(
    text: str, archive: str, dandiset: str, version: str, path: str, asset: str
) -> None:
    assert is_name(text)
    found = parse(text)
    assert (found.archive.name, *found[1:]) == (archive, dandiset, version, path, asset)


@pytest.mark.parametrize(
    "text",
    [
        "s3://dandiarchive/blobs/a.nwb", "/data/dandi/a.nwb", "https://host/dandi:000409", "C:000409",
        "lab:000409",
        "https://dandiarchive.org/about", "https://dandiarchive.org.evil.example/dandiset/000409",
        "https://evil.example/https://dandiarchive.org/dandiset/000409", f"https://evil.example/api/assets/{ID}/",
        f"https://api.dandiarchive.org/api/assets/{ID}/download/?x=1",
    ],
)  # fmt: skip
def test_other_paths_are_no_names(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize(
    "text", ["dandi:409", "dandi:", "dandi://000409", "dandi://nowhere/000409", "dandi:000409@1"]
)
def test_a_name_that_is_none_is_an_error_that_shows_names(text: str, archive: FakeArchive) -> None:
    with pytest.raises(ValueError, match=r"dandi:000409@0\.240101\.1200|Known archives: dandi, dandi-sandbox"):
        expand(text)
    with pytest.raises(TypeError, match=r"dandi_assets: name=409: .*'dandi:000409'"):
        lazynwb_dask.dandi_assets(409)  # type: ignore[arg-type]
    assert not archive.log


def test_a_dandiset_is_read_as_its_files_are(three: FakeArchive, sessions: list[str]) -> None:
    wanted = lazynwb_dask.read_nwb(sessions, "/units").compute()
    three.clear()
    units = lazynwb_dask.read_nwb("dandi:000409@draft", "/units")
    assert [one.path for one in three.log] == ["/api/dandisets/000409/versions/draft/assets/"]
    found = units.compute()
    assert len(three.log) == 1  # all else is read from the bucket
    assert not three.store.log
    paths = [f"dandi://dandi/000409@draft/sub-{i}/sub-{i}_ses-1.nwb" for i in range(3)]
    assert found["_nwb_path"].unique().tolist() == paths
    pd.testing.assert_frame_equal(found.drop(columns="_nwb_path"), wanted.drop(columns="_nwb_path"))
    again = lazynwb_dask.read_nwb(paths, "/units")
    assert len(three.log) == 2  # one listing for all of them
    pd.testing.assert_frame_equal(again.compute(), found)


def test_names_go_wherever_paths_go(three: FakeArchive) -> None:
    one = "dandi:000409/sub-1/sub-1_ses-1.nwb"
    assert len(lazynwb_dask.read_sessions("dandi:000409").compute()) == 3
    assert lazynwb_dask.contents("dandi:000409").files.max() == 3
    assert "/units" in lazynwb_dask.list_tables(one)
    assert lazynwb_dask.open_timeseries(one, "lick_sensor").data.shape == (36000,)
    assert "dtype" in lazynwb_dask.schema_report("dandi:000409", "/units").columns


def test_what_is_not_published_is_the_draft_and_what_is_the_last_version(three: FakeArchive) -> None:
    def urls(name: str) -> list[str]:
        return [source.url for source in expand(name)]

    assert urls("dandi:000409")[0].startswith("dandi://dandi/000409@draft/")
    three.add("000409", "old.nwb", b"old", version="0.230101.1200")
    three.add("000409", "new.nwb", b"new", version="0.240101.1200")
    assert urls("dandi:000409") == ["dandi://dandi/000409@0.240101.1200/new.nwb"]
    assert urls("dandi:000409@0.230101.1200") == ["dandi://dandi/000409@0.230101.1200/old.nwb"]
    assert urls(f"{three.instance['web']}/dandiset/000409/0.230101.1200") == urls("dandi:000409@0.230101.1200")
    assert len(urls("dandi:000409@draft")) == 3


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("sub-1", [1]), ("sub-1/", [1]), ("sub-*", [0, 1, 2]), ("sub-[02]/*.nwb", [0, 2]),
        ("**/*_ses-1.nwb", [0, 1, 2]),
        ("*.nwb", []), ("sub", []), ("sub-1/sub-1_ses-1.nwb", [1]), ("sub-3/", []), ("sub-0/*", [0]),
    ],
)  # fmt: skip
def test_folders_and_globs_of_a_dandiset(three: FakeArchive, path: str, wanted: list[int]) -> None:
    name = f"dandi:000409@draft/{path}"
    if not wanted:
        with pytest.raises(NWBFileNotFoundError, match="no NWB file"):
            expand(name)
        return
    found = [source.url for source in expand([name, name])]
    assert found == [f"dandi://dandi/000409@draft/sub-{i}/sub-{i}_ses-1.nwb" for i in wanted] * 2
    assert len(three.log) == 1


def test_a_file_named_in_full_may_have_any_name(three: FakeArchive) -> None:
    assert [source.size for source in expand("dandi:000409@draft/sub-0/movie.mp4")] == [11]
    assert [source.size for source in expand("dandi:000409@draft/sub-0/*.mp4")] == [11]


def test_an_asset_is_read_by_its_address(three: FakeArchive, sessions: list[str]) -> None:
    asset = three.versions["000409", "draft"]["sub-2/sub-2_ses-1.nwb"]
    address = f"{three.api}/assets/{asset.id}/download/"
    units = lazynwb_dask.read_nwb(address, "/units").compute()
    assert units["_nwb_path"].unique().tolist() == [f"dandi://dandi/assets/{asset.id}"]
    wanted = lazynwb_dask.read_nwb(sessions[2], "/units").compute()
    assert units["unit_id"].tolist() == wanted["unit_id"].tolist()
    assert lazynwb_dask.read_nwb(units["_nwb_path"].unique().tolist(), "/units").npartitions == 1


def test_459_assets_cost_one_request_and_more_one_per_thousand(archive: FakeArchive) -> None:
    for i in range(459):
        archive.add("000409", f"sub-{i:04}/a.nwb", b"%d" % i)
    assert len(expand("dandi:000409@draft")) == 459
    assert len(archive.log) == 1
    for i in range(459, 2500):
        archive.add("000409", f"sub-{i:04}/a.nwb", b"%d" % i)
    archive.clear()
    found = expand("dandi:000409@draft")
    assert [source.url[-14:] for source in found] == [f"sub-{i:04}/a.nwb"[-14:] for i in range(2500)]
    assert sorted(one.query.get("page", "1") for one in archive.log) == ["1", "2", "3"]
    archive.largest_page = 100  # an archive that gives fewer than were asked for
    archive.clear()
    assert expand("dandi:000409@draft") == found
    assert len(archive.log) == 25
    assert not archive.bucket.log


def test_a_zarr_asset_is_its_store(archive: FakeArchive, sessions: list[str], tmp_path: Path) -> None:
    asset = archive.add_zarr("000409", "sub-1/a.nwb.zarr")
    archive.add_zarr("000409", "sub-1/image.ome.zarr")
    archive.add("000409", "sub-0/a.nwb", Path(sessions[0]).read_bytes())
    stores.serve(stores.store_of(sessions[1]), archive.bucket, f"zarr/{asset.zarr}")
    for paths in ("dandi:000409@draft", lazynwb_dask.dandi_assets("dandi:000409@draft")):
        rates = lazynwb_dask.read_nwb(paths, "/units")[["firing_rate", "_nwb_path"]].compute()
        assert rates["_nwb_path"].unique()[1] == f"{archive.bucket.endpoint}/zarr/{asset.zarr}"
        wanted = lazynwb_dask.read_nwb(sessions[:2], "/units")["firing_rate"].compute()
        assert rates["firing_rate"].tolist() == wanted.tolist()
    assert not [one for one in archive.bucket.requests() if one.path.endswith(str(asset.zarr))]  # as a file
    catalog = lazynwb_dask.build_catalog("dandi:000409@draft", tmp_path / "catalog", tables="/units")
    archive.clear()
    assert len(lazynwb_dask.read_nwb(catalog.refresh(), "/units")) == len(wanted)
    assert len(archive.log) == 1
    assert parse("dandi:000409").archive._replace(bucket="dandiarchive").zarr("x") == "s3://dandiarchive/zarr/x"


def test_a_dandiset_that_does_not_exist_is_named(archive: FakeArchive) -> None:
    with pytest.raises(NWBFileNotFoundError, match=r"dandi://dandi/000999: .*404.*No Dandiset matches"):
        expand("dandi:000999")
    archive.add("000409", "a.nwb", b"a")
    with pytest.raises(NWBFileNotFoundError, match=r"000409@0\.1\.2: .*No Version matches"):
        expand("dandi:000409@0.1.2")


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"null", b'"maintenance"', b"<html>", b'{"results": {}}', b'{"count": 1, "results": []}',
        b'{"count": 1e9, "results": [1]}', b'{"count": 1, "results": [{"path": "a.nwb"}]}',
        b'{"count": 1, "results": [{"path": "a.nwb", "size": -1, "asset_id": "x", "blob": "y", "zarr": null}]}',
        b'{"count": 1, "results": [{"path": "\\ud800.nwb", "size": 1, "asset_id": "%s", "blob": "%s"}]}'
        % (ONE, ONE),
        b'{"count": 1, "results": [{"path": "a.nwb", "size": %d, "asset_id": "%s", "blob": "%s"}]}'
        % (1 << 70, ONE, ONE),
        b"[" * 1_000_000,
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_an_error(archive: FakeArchive, body: bytes) -> None:
    archive.faults = [(200, body, {})]
    with pytest.raises(NWBReadError, match=r"dandi://dandi/000409@draft: "):
        expand("dandi:000409@draft")


def test_assets_have_metadata_in_one_request(archive: FakeArchive) -> None:
    archive.add("000409", "sub-a/a.nwb", b"1", **about("a", "s1"))
    archive.add("000409", "sub-b/b.nwb", b"2")
    assets = lazynwb_dask.dandi_assets("dandi:000409@draft")
    assert len(archive.log) == 1
    first, second = assets.to_dict("records")
    assert (first["path"], first["subject"], first["session"], first["sex"]) == (
        "sub-a/a.nwb",
        "a",
        "s1",
        "Male",
    )
    assert (first["species"], first["age"]) == ("Mus musculus - House mouse", "P90D")
    assert first["start_time"] == pd.Timestamp("2023-01-09T17:30Z")
    assert list(first["variables"]) == ["Units"]
    assert pd.isna(second["subject"])
    assert pd.isna(second["start_time"])


def test_a_filtered_frame_of_assets_is_read_without_another_listing(three: FakeArchive) -> None:
    assets = lazynwb_dask.dandi_assets("dandi:000409@draft")
    assert assets["path"].tolist() == [f"sub-{i}/sub-{i}_ses-1.nwb" for i in range(3)]
    some = assets[assets.path.str.startswith("sub-1")]
    units = lazynwb_dask.read_nwb(some, "/units").compute()
    assert units["_nwb_path"].unique().tolist() == some["_nwb_path"].tolist()
    assert len(three.log) == 1


def test_a_frame_of_assets_may_lack_sizes_but_no_path(three: FakeArchive) -> None:
    assets = lazynwb_dask.dandi_assets("dandi:000409")
    for changed in (assets.drop(columns="size"), assets.assign(size=np.nan), assets[::-1].assign(more=1)):
        found = lazynwb_dask.read_nwb(changed, "/units")["_nwb_path"].compute()
        assert list(found.unique()) == list(changed["_nwb_path"])
    with pytest.raises(TypeError, match=r"_nwb_path has values that are not paths: (None|nan)"):
        lazynwb_dask.read_nwb(assets.assign(_nwb_path=[None, "a", "b"]), "/units")


def test_columns_of_assets_are_columns_of_rows_and_prune(archive: FakeArchive, sessions: list[str]) -> None:
    for i, path in enumerate(sessions):
        with open(path, "rb") as file:
            archive.add("000409", f"sub-{i}/a.nwb", file.read(), **about(f"mouse{i}", "1"))
    assets = lazynwb_dask.dandi_assets("dandi:000409@draft")
    units = lazynwb_dask.read_nwb(assets, "/units")
    for given in ({"sessions": assets}, {}):
        wide = lazynwb_dask.with_sessions(units, ["dandi_subject", "dandi_size"], **given)
        one = wide[wide.dandi_subject == "mouse1"][["unit_id", "dandi_size"]]
        archive.bucket.clear_log()
        found = one.compute()
        assert found["dandi_size"].unique().tolist() == [assets["size"][1]]
        assert len({entry.path for entry in archive.bucket.requests()}) == 1
    with pytest.raises(lazynwb_dask.ColumnNotFoundError, match="dandi_subject"):
        lazynwb_dask.with_sessions(units, ["dandi_subjct"])


def test_an_asset_is_opened_as_a_plain_file_and_referred_to_by_its_public_address(
    three: FakeArchive, tmp_path: Path, sessions: list[str]
) -> None:
    name = "dandi:000409@draft/sub-1/sub-1_ses-1.nwb"
    asset = three.versions["000409", "draft"]["sub-1/sub-1_ses-1.nwb"]
    with lazynwb_dask.open_hdf5(name) as file, h5py.File(sessions[1]) as wanted:
        assert file["units/id"][()].tolist() == wanted["units/id"][()].tolist()
    catalog = lazynwb_dask.build_catalog(name, tmp_path / "catalog", tables="/units")
    told = catalog.to_kerchunk(catalog.paths[0], tables="/units")["refs"]["units/id/0"]
    assert told[0] == f"{three.bucket.endpoint}/blobs/{asset.blob[:3]}/{asset.blob[3:6]}/{asset.blob}"
    three.bucket.behaviour.forbidden.add("*")
    three.blobs.clear()
    three.add("000409", asset.path, Path(sessions[1]).read_bytes())
    with lazynwb_dask.open_hdf5(name) as file:  # by a signed address
        assert len(file["units/id"]) == 120
    assert three.minted == 1


def test_a_table_of_sessions_goes_where_paths_go(three: FakeArchive) -> None:
    sessions = lazynwb_dask.read_sessions("dandi:000409@draft").compute()
    some = sessions[sessions["_nwb_path"].str.contains("sub-2")]
    for paths in (some, some.set_index("_nwb_path")):
        units = lazynwb_dask.read_nwb(paths, "/units")
        assert units["_nwb_path"].unique().compute().tolist() == some["_nwb_path"].tolist()


def test_odd_paths_are_names_of_their_assets(archive: FakeArchive, sessions: list[str]) -> None:
    paths = ["rec[1].nwb", "rec1.nwb", "a b#1?x=2%20.nwb", "Exp::1.nwb", "sub*/ü.nwb"]
    for i, path in enumerate(paths):
        archive.add("000409", path, Path(sessions[0]).read_bytes() + b"%d" % i)
    found = expand("dandi:000409@draft")
    assert sorted(source.url.partition("@draft/")[2] for source in found) == sorted(paths)
    assert expand([source.url for source in found]) == found
    archive.bucket.behaviour.forbidden.add("*")  # so that the archive is asked for each by its path
    units = lazynwb_dask.read_nwb([source.url for source in found], "/units")
    assert {*units["_nwb_path"].compute()} == {source.url for source in found}
    archive.add("000409", "x::s3://elsewhere/k.nwb", b"x")
    with pytest.raises(NWBReadError, match="isn't what DANDI's interface promises"):
        expand("dandi:000409@draft")


def test_odd_metadata_are_texts_or_missing(archive: FakeArchive) -> None:
    odd = {"wasAttributedTo": [{"identifier": "\ud800", "age": 3, "sex": [], "species": {"name": {"a": 1}}}, 7]}
    archive.add(
        "000409", "a.nwb", b"1", **odd, wasGeneratedBy="x", variableMeasured=[{"value": "\udfff"}, "b", None]
    )
    archive.add("000409", "b.nwb", b"2", wasGeneratedBy=[{"schemaKey": "Session", "startDate": "soon"}])
    first, second = lazynwb_dask.dandi_assets("dandi:000409@draft").to_dict("records")
    assert (first["subject"], first["age"], list(first["variables"])) == ("?", "3", ["?", "b"])
    assert pd.isna(first["session"])
    assert pd.isna(second["start_time"])
