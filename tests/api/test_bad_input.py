"""Bad input is one clear error that says what is wrong where, and the way out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from files import nwb, one, table
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import ColumnNotFoundError, NWBError, NWBReadError, TableNotFoundError


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_sessions(tmp_path_factory.mktemp("sessions"), n=3, units=20, mean_spikes=50)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.nwb"
    with pytest.raises(FileNotFoundError, match=r"missing\.nwb") as caught:
        lazynwb_dask.read_nwb(missing, "/units")
    assert isinstance(caught.value, NWBReadError)


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "*.nwb", tmp_path):
        with pytest.raises(NWBReadError, match=tmp_path.name):
            lazynwb_dask.read_nwb(path, "/units")


def test_no_paths_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="path"):
        lazynwb_dask.read_nwb([], "/units")


def test_a_table_that_no_file_has_lists_near_names(paths: list[str]) -> None:
    with pytest.raises(TableNotFoundError, match=r"no table /unit .*did you mean '/units'\?.*trials"):
        lazynwb_dask.read_nwb(paths, "/unit")
    with pytest.raises(KeyError, match="/intervals/trials"):
        lazynwb_dask.read_nwb(paths, "/processing/trials")


def test_a_column_that_no_file_has_lists_near_names(paths: list[str]) -> None:
    with pytest.raises(ColumnNotFoundError, match="presence_ratio"):
        lazynwb_dask.read_nwb(paths, "/units", columns=["presence_ratios"])
    with pytest.raises(ColumnNotFoundError, match="presence_ratio"):
        lazynwb_dask.read_nwb(paths, "/units", filters=[("presence_ratioo", ">", 1)])


def test_a_text_file_is_not_hdf5(tmp_path: Path) -> None:
    (tmp_path / "notes.nwb").write_text("these are not the data that you are looking for")
    with pytest.raises(NWBReadError, match=r"notes\.nwb: not an HDF5 file"):
        lazynwb_dask.read_nwb(tmp_path / "notes.nwb", "/units")


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.nwb").touch()
    with pytest.raises(NWBReadError, match=r"empty\.nwb: the file is empty"):
        lazynwb_dask.read_nwb(tmp_path / "empty.nwb", "/units")


@pytest.mark.parametrize("share", [0.999, 0.5, 0.1, 0.001])
def test_a_truncated_file_is_truncated(tmp_path: Path, paths: list[str], share: float) -> None:
    data = Path(paths[0]).read_bytes()
    (tmp_path / "cut.nwb").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(NWBReadError, match=r"cut\.nwb"):
        lazynwb_dask.read_nwb(tmp_path / "cut.nwb", "/units")


def test_an_hdf5_file_that_is_not_nwb_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["units"] = np.arange(3)
    with pytest.raises(NWBReadError, match=r"other\.h5: an HDF5 file, but not NWB"):
        lazynwb_dask.read_nwb(tmp_path / "other.h5", "/units")


@pytest.mark.parametrize("attribute", [True, False])
def test_nwb_1_says_so(tmp_path: Path, attribute: bool) -> None:
    with h5py.File(tmp_path / "old.nwb", "w") as file:
        if attribute:
            file.attrs["nwb_version"] = "1.0.6"
        else:
            file["nwb_version"] = "NWB-1.0.5"
    with pytest.raises(NWBReadError, match=r"old\.nwb: NWB 1\.0\.\d; only NWB 2"):
        lazynwb_dask.read_nwb(tmp_path / "old.nwb", "/units")


def test_a_table_without_id_or_colnames_is_no_table(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        file.create_group("units").attrs["colnames"] = "x"
        file.create_group("intervals/trials")["id"] = np.arange(2)
    with pytest.raises(TableNotFoundError, match="Its tables: none"):
        lazynwb_dask.read_nwb(tmp_path / "f.nwb", ["units", "trials"])


def test_forbidden_and_missing_urls_are_told_apart(range_server: RangeServer) -> None:
    range_server.behaviour.forbidden = {"secret.nwb"}
    range_server.files["secret.nwb"] = b"x"
    with pytest.raises(PermissionError, match=r"secret\.nwb") as forbidden:
        lazynwb_dask.read_nwb(range_server.url("secret.nwb"), "/units")
    with pytest.raises(FileNotFoundError, match=r"absent\.nwb") as missing:
        lazynwb_dask.read_nwb(range_server.url("absent.nwb"), "/units")
    assert isinstance(forbidden.value, NWBReadError)
    assert isinstance(missing.value, NWBReadError)


def test_the_first_bad_file_in_source_order_is_reported(tmp_path: Path, paths: list[str]) -> None:
    (tmp_path / "bad.nwb").write_text("text")
    listed = [paths[0], str(tmp_path / "bad.nwb"), str(tmp_path / "absent.nwb"), paths[1]]
    for _ in range(5):
        with pytest.raises(NWBReadError, match=r"bad\.nwb"):
            lazynwb_dask.read_nwb(listed, "/units")


def test_bad_files_are_skipped_when_asked_and_the_report_names_them(tmp_path: Path, paths: list[str]) -> None:
    (tmp_path / "bad.nwb").write_text("text")
    listed = [paths[0], str(tmp_path / "bad.nwb"), str(tmp_path / "absent.nwb"), paths[1]]
    with pytest.warns(UserWarning, match="2 of 4 files can't be read") as caught:
        frame = lazynwb_dask.read_nwb(listed, "/units", on_error="skip")
    assert len(caught) == 1
    got = frame.compute()
    assert list(dict.fromkeys(got._nwb_path)) == [paths[0], paths[1]]
    assert not frame.known_divisions
    report = lazynwb_dask.read_report(frame[frame.unit_id > 3])
    assert [Path(p).name for p in report.path] == ["bad.nwb", "absent.nwb"]
    assert list(report.stage) == ["plan", "plan"]


def test_nothing_but_bad_files_is_an_error_even_then(tmp_path: Path) -> None:
    (tmp_path / "bad.nwb").write_text("text")
    with (
        pytest.raises(NWBError, match=r"none of the 1 files.*bad\.nwb"),
        pytest.warns(UserWarning, match="bad"),
    ):
        lazynwb_dask.read_nwb(tmp_path / "bad.nwb", "/units", on_error="skip")


def test_a_failure_that_only_shows_while_reading_is_reported(tmp_path: Path, paths: list[str]) -> None:
    path = tmp_path / "rotten.nwb"
    with nwb(path) as file:
        group = table(file, "/units", 30, ["unit_id"])
        made = group.create_dataset("unit_id", data=np.arange(30), chunks=(30,), fletcher32=True)
        offset = made.id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))
    listed = [paths[0], str(path), paths[1]]
    frame = lazynwb_dask.read_nwb(listed, "/units", on_error="skip")
    assert len(frame) == 20 + 30 + 20
    assert len(lazynwb_dask.read_report(frame)) == 0
    with pytest.warns(UserWarning, match="rotten"):
        got = frame[["unit_id", "_nwb_path"]].compute()
    assert list(dict.fromkeys(got._nwb_path)) == [paths[0], paths[1]]
    report = lazynwb_dask.read_report(frame)
    assert report.path.tolist() == [str(path)]
    assert report.stage.tolist() == ["read"]
    assert "checksum" in report.error[0]


def test_files_without_the_table_are_skipped_with_one_warning_or_raise(
    tmp_path: Path, paths: list[str]
) -> None:
    with nwb(tmp_path / "none.nwb") as file:
        file.create_group("general")
    listed = [paths[0], str(tmp_path / "none.nwb"), paths[1]]
    with pytest.warns(UserWarning, match=r"1 of 3 files have no table /units.*none\.nwb") as caught:
        frame = lazynwb_dask.read_nwb(listed, "/units")
    assert len(caught) == 1
    assert len(frame) == 40
    with pytest.raises(TableNotFoundError, match=r"none\.nwb"):
        lazynwb_dask.read_nwb(listed, "/units", on_missing="raise")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"on_missing": "x"}, "on_missing='x'"),
        ({"filters": [("unit_id", "~", 3)]}, "~"),
        ({"filters": 3}, "filters"),
        ({"schema": "units"}, "schema="),
        ({"schema": {"unit_id": "no such type"}}, "no such type"),
        ({"blocksize": "many"}, "many"),
    ],
)
def test_bad_arguments_are_named(paths: list[str], arguments: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        lazynwb_dask.read_nwb(paths, "/units", **arguments)  # type: ignore[arg-type]


def test_tables_are_found_by_alias_list_and_callable(paths: list[str]) -> None:
    assert set(lazynwb_dask.read_nwb(paths, "trials").compute()._table_path) == {"/intervals/trials"}
    listed = lazynwb_dask.read_nwb(paths, ["/intervals/none", "units"])
    assert set(listed.compute()._table_path) == {"/units"}
    chosen = lazynwb_dask.read_nwb(
        paths, lambda names: next(name for name in names if name.endswith("electrodes"))
    )
    assert "group" in chosen.columns
    with pytest.raises(TableNotFoundError):
        lazynwb_dask.read_nwb(paths, lambda names: None)


def test_files_are_told_by_content_not_by_name(tmp_path: Path) -> None:
    path = one(tmp_path / "recording.dat", np.arange(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lazynwb_dask.read_nwb(path, "/units").x.compute().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "wrong", [{"columns": 5}, {"blocksize": 0}, {"blocksize": "-1 MiB"}, {"blocksize": True}], ids=str
)
def test_arguments_that_make_no_sense_are_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}="):
        lazynwb_dask.read_nwb(one(tmp_path / "a.nwb", [1]), "/units", **wrong)
