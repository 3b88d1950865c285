"""What can't be read, and what isn't followed, is said in one sentence, with the way out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import h5py
import pytest
from click.testing import CliRunner
from files import nwb, one, table
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.cli.main import main
from lazynwb_dask.errors import NWBError

Call = Callable[[Any], Any]
OF_ONE: dict[str, Call] = {
    "list_tables": lazynwb_dask.list_tables,
    "open_hdf5": lazynwb_dask.open_hdf5,
    "open_timeseries": lambda path: lazynwb_dask.open_timeseries(path, "x"),
}
OF_MANY: dict[str, Call] = {
    "read_nwb": lambda path: lazynwb_dask.read_nwb(path, "/units").compute(),
    "schema_report": lambda path: lazynwb_dask.schema_report(path, "/units"),
    "read_sessions": lazynwb_dask.read_sessions,
    "contents": lazynwb_dask.contents,
}
ALL = {**OF_ONE, **OF_MANY}


def group(path: Path, **attributes: str) -> Path:
    """A Zarr group, of which only its attributes tell whether it is NWB."""
    path.mkdir(parents=True)
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text(json.dumps(attributes))
    return path


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_a_zarr_store_that_is_not_nwb_is_called_that(tmp_path: Path, call: Call, s3_server: S3Server) -> None:
    why = "not an HDF5 file" if call is OF_ONE["open_hdf5"] else "but not NWB"
    for name in ("a.nwb.zarr", "b.nwb", "plain"):
        with pytest.raises(NWBError, match=rf"{name}: a Zarr store, {why}"):
            call(group(tmp_path / name))
    inner = group(group(tmp_path / "c.nwb", nwb_version="2.7.0") / "units")
    if call is not OF_ONE["open_hdf5"]:
        with pytest.raises(
            NWBError, match=r"inside the Zarr store .*c\.nwb\. .*read_nwb\('.*c\.nwb', '/units'\)"
        ):
            call(inner)
    for name in (".zgroup", "units/.zgroup"):
        s3_server.put("lab", f"a.nwb.zarr/{name}", b"{}")
    options = {"s3": s3_server.storage_options}
    with pytest.raises(NWBError, match=r"s3://lab/a\.nwb\.zarr: a Zarr store, but not NWB"):
        lazynwb_dask.read_nwb("s3://lab/a.nwb.zarr", "/units", storage_options=options)


def test_a_zarr_store_among_files_that_is_not_nwb_is_one_failure(tmp_path: Path) -> None:
    one(tmp_path / "a.nwb", [1])
    group(tmp_path / "z.zarr")
    with pytest.warns(UserWarning, match="but not NWB"):
        frame = lazynwb_dask.read_nwb(tmp_path, "/units", on_error="skip")
    assert frame.x.compute().tolist() == [1]
    assert lazynwb_dask.read_report(frame).path.tolist() == [f"{tmp_path}/z.zarr"]
    told = CliRunner().invoke(main, ["tables", f"{tmp_path}/z.zarr"])
    assert (told.exit_code, "but not NWB" in told.output) == (1, True)


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_documents_and_arrays_of_zarr_stores_are_called_that(tmp_path: Path, call: Call) -> None:
    store = group(tmp_path / "a.nwb", nwb_version="2.7.0")
    (store / "units").mkdir()
    (store / "units" / ".zarray").write_text("{}")
    (tmp_path / "v3").mkdir()
    (tmp_path / "v3" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "zipped.nwb").write_bytes(b"PK\3\4" + bytes(100))
    for name, why in [
        ("zipped.nwb", r"it is a zip file\. If it has a Zarr store, its name must end in \.zip"),
        ("a.nwb/.zattrs", "Of a Zarr store, name its folder"),
        ("a.nwb/units", "this is a Zarr array, not a store. Name the store that it is in"),
        ("v3", "Zarr array, not a store"),
        ("empty", "no NWB file .* and no Zarr store is there"),
        ("b.nwb.zarr", "no such file"),
    ]:
        if call is not OF_ONE["open_hdf5"] or name != "v3":
            with pytest.raises(NWBError, match=rf"/{name}: .*{why}"):
                call(tmp_path / name)


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_files_that_were_not_fetched_are_called_that(
    tmp_path: Path, call: Call, range_server: RangeServer
) -> None:
    (tmp_path / "linked.nwb").symlink_to(".git/annex/objects/Xx/9z/MD5E-s1--0f.nwb/MD5E-s1--0f.nwb")
    (tmp_path / "in").symlink_to(".git/annex/objects/gone")
    (tmp_path / "unlocked.nwb").write_text("/annex/objects/MD5E-s1--0f.nwb\n")
    (tmp_path / "large.nwb").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 1\n")
    for name, way_out in [
        ("linked.nwb", "datalad get"),
        ("in/a.nwb", "datalad get"),
        ("unlocked.nwb", "datalad get"),
        ("large.nwb", "git lfs pull"),
    ]:
        with pytest.raises(NWBError, match=rf"{name}: .*its content isn't here.*{way_out}") as caught:
            call(tmp_path / name)
        assert "no such file" not in str(caught.value)
    url = range_server.put("large.nwb", (tmp_path / "large.nwb").read_bytes())
    with pytest.raises(NWBError, match="git lfs pull"):
        call(url)
    (tmp_path / "lost.nwb").symlink_to("elsewhere/a.nwb")
    with pytest.raises(FileNotFoundError, match=r"lost\.nwb is a link to elsewhere/a\.nwb"):
        call(tmp_path / "lost.nwb")


def test_no_table_named_is_an_error_that_tells_the_tables(tmp_path: Path) -> None:
    path = one(tmp_path / "a.nwb", [1])
    catalog = lazynwb_dask.build_catalog(path, tmp_path / "catalog")
    for nothing in (None, "", [], ()):
        for paths in (path, [path], catalog):
            for call in (lazynwb_dask.read_nwb, lazynwb_dask.schema_report):
                with pytest.raises(ValueError, match=r"name a table\. In .*a\.nwb there are: /units"):
                    call(paths, nothing)
    with pytest.raises(ValueError, match="name a table"):
        lazynwb_dask.read_nwb(tmp_path / "none.nwb", None)
    for wrong in (3, [None], ["/units", 3]):
        with pytest.raises(TypeError, match="table="):
            lazynwb_dask.read_nwb(path, wrong)


@pytest.mark.parametrize("call", ALL.values(), ids=ALL)
def test_paths_that_are_none_are_an_error_that_says_what_a_path_is(call: Call) -> None:
    for nothing, error, words in [
        ([], ValueError, "no paths were given"),
        (None, TypeError, "a URL or a list of them, not NoneType"),
        (3, TypeError, "not int"),
        (b"a.nwb", TypeError, "os.fsdecode"),
        ([None], TypeError, "not NoneType"),
    ]:
        with pytest.raises(error, match=words):
            call(nothing)
        with pytest.raises(error, match=words):
            lazynwb_dask.build_catalog(nothing, "nowhere")


@pytest.mark.parametrize("name", OF_ONE)
def test_several_files_are_no_one_file(tmp_path: Path, name: str) -> None:
    for i in range(2):
        one(tmp_path / f"{i}.nwb", [i])
    with pytest.raises(ValueError, match=r"takes one file; these are 2\. Name one, such as .*0\.nwb"):
        OF_ONE[name](tmp_path)


def test_a_path_that_is_not_there_is_told_from_what_is(tmp_path: Path) -> None:
    one(tmp_path / "sub-1.nwb", [1])
    for wrong, hint in (("sub-2.nwb", "sub-1.nwb"), (f"../{tmp_path.name[:-1]}", tmp_path.name)):
        with pytest.raises(NWBError, match=f"Its path is right up to .*; did you mean .*'{hint}'"):
            lazynwb_dask.read_nwb(tmp_path / wrong, "/units")


def test_one_bad_file_among_good_ones_is_told_with_the_way_out(tmp_path: Path) -> None:
    one(tmp_path / "a.nwb", [1])
    (tmp_path / "b.nwb").write_text("hello")
    for name, call in OF_MANY.items():
        with pytest.raises(NWBError, match=r"b\.nwb: not an HDF5 file.*on_error='skip' leaves such") as told:
            call(tmp_path)
        assert isinstance(told.value, OSError)
        with pytest.raises(NWBError) as alone:
            call(tmp_path / "b.nwb")
        assert "skip" not in str(alone.value), name


def test_conditions_on_lists_say_what_can_be_asked_of_them(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        units = table(file, "/units", 2, ["spike_times"])
        units["spike_times"] = [1.0, 2.0, 3.0]
        units["spike_times_index"] = [2, 3]
        for name, kind in (("spike_times", "VectorData"), ("spike_times_index", "VectorIndex")):
            units[name].attrs["neurodata_type"] = kind
        units["spike_times_index"].attrs["target"] = units["spike_times"].ref
    units = lazynwb_dask.read_nwb(tmp_path, "/units")
    for wrong in (units[units.spike_times > 2], units.query("spike_times > 2")):
        with pytest.raises(TypeError, match=r"spike_times > 2.* a column of lists \(spike_times\) .*nwb\.len"):
            wrong.compute()
    with pytest.raises(TypeError, match="a pandas DataFrame"):
        lazynwb_dask.map_files(lambda units: units, units=units.compute())


def test_an_option_of_the_store_that_is_misspelt_is_named(s3_server: S3Server) -> None:
    with pytest.raises(NWBError, match=r"storage_options don't fit: .*'anonn'"):
        lazynwb_dask.read_nwb("s3://lab/x/", "/units", storage_options={"s3": {"anonn": True}})


def test_a_setting_that_is_misspelt_is_warned_of(tmp_path: Path) -> None:
    path = one(tmp_path / "a.nwb", [1])
    for key in ("lazynwb-dask.retires", "lazynwb-dask.memory_cashe"):
        with (
            dask.config.set({key: 3}),
            pytest.warns(UserWarning, match="is not a setting.*mean '(retries|memory)"),
        ):
            lazynwb_dask.read_nwb(path, "/units")
    with dask.config.set({"lazynwb_dask.cache_size": "1GiB"}), warnings.catch_warnings():
        warnings.simplefilter("error")
        lazynwb_dask.read_nwb(path, "/units")


# ------------------------------------------------------------------------------ links that aren't followed
@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A file of which the subject, a table, a series and a field lead elsewhere, or nowhere."""
    with nwb(tmp_path / "other.nwb") as file:
        table(file, "/units", 3, [])
        file["general/subject/age"] = "P9D"
    with nwb(tmp_path / "f.nwb") as file:
        table(file, "/own", 3, ["far"])["far"] = h5py.ExternalLink("other.nwb", "/units/id")
        file["units"] = h5py.ExternalLink("other.nwb", "/units")
        file["acquisition/lfp"] = h5py.ExternalLink("other.nwb", "/lfp")
        file["intervals/trials"] = h5py.SoftLink("/nowhere")
        file["general/subject"] = h5py.ExternalLink("other.nwb", "/general/subject")
        file["general/lab"] = h5py.SoftLink("/nowhere")
        file["general/session_id"] = "s"
        file["general/again"] = h5py.SoftLink("/general/session_id")
    return tmp_path / "f.nwb"


@pytest.mark.parametrize("isolate", [False, True])
def test_links_that_are_not_followed_are_told(linked: Path, isolate: bool) -> None:
    with dask.config.set({"lazynwb-dask.isolate": isolate}):
        with pytest.warns(
            UserWarning, match="tables that they lead to are missing: .*/acquisition/lfp"
        ) as caught:
            assert lazynwb_dask.list_tables(linked) == ["/own"]
        assert "/general/again" not in str(caught[0].message)
        with pytest.warns(UserWarning, match="objects that they lead to are missing"):
            found = lazynwb_dask.contents(linked)
        assert found.path.tolist() == ["/own"]
        assert found.problem[0].startswith("far: an external link")
        fields = r"fields that they lead to are missing: .*/general/lab \(a link that leads nowhere\)"
        with pytest.warns(UserWarning, match=fields) as caught:
            sessions = lazynwb_dask.read_sessions([linked, linked.with_name("other.nwb")]).compute()
        assert "/general/subject (a link into another file)" in str(caught[0].message)
        assert len(caught) == 1
        assert sessions.session_id.tolist()[0] == "s"
        assert sessions.age.isna().tolist() == [True, False]
        with pytest.warns(UserWarning, match="TimeSeries that they lead to are missing"):
            assert lazynwb_dask.open_timeseries(linked, match_all=True) == {}


def test_a_catalog_tells_of_fields_in_other_files(linked: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="fields that they lead to are missing: .*/general/subject"):
        catalog = lazynwb_dask.build_catalog(linked, tmp_path / "catalog")
    assert catalog.sessions.session_id.tolist() == ["s"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = linked.with_name("other.nwb")
        lazynwb_dask.list_tables(other), lazynwb_dask.contents(other), lazynwb_dask.read_sessions(other)
