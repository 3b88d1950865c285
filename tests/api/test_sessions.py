"""The session table: one row for each file, whatever the file says, in few requests."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import oracle
import pandas as pd
import pynwb
import pytest
from files import nwb
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBError, NWBReadError


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Sessions whose metadata lie at both ends of several megabytes."""
    folder = tmp_path_factory.mktemp("sessions")
    return make_sessions(folder, n=4, units=60, mean_spikes=5_000)


def one(folder: Path, name: str = "f.nwb", **fields: object) -> str:
    """A file with some fields: ``lab="..."``, or ``subject__age="..."`` for those of the subject."""
    with nwb(folder / name) as file:
        general = file.create_group("general")
        for key, value in fields.items():
            where, _, field = key.rpartition("__")
            home = file if where == "root" else general.require_group(where) if where else general
            home.create_dataset(field, data=value)
    return str(folder / name)


def test_each_file_is_a_row_of_what_it_says(paths: list[str]) -> None:
    frame = lazynwb_dask.read_sessions(paths)
    got = frame.compute()
    assert len(frame) == len(got) == 4
    assert got._nwb_path.tolist() == paths
    assert got.columns[-1] == "_nwb_path"
    pd.testing.assert_frame_equal(frame._meta_nonempty.iloc[:0], got.iloc[:0], check_index_type=False)
    for path, row in zip(paths, got.itertuples(), strict=True):
        with pynwb.NWBHDF5IO(path, "r", load_namespaces=False) as io:
            file = io.read()
            for name in ("identifier", "session_id", "session_description", "lab", "institution"):
                assert getattr(row, name) == getattr(file, name), name
            for name in ("subject_id", "age", "sex", "species", "genotype", "strain", "weight"):
                assert getattr(row, name) == getattr(file.subject, name), name
            assert row.description == file.subject.description
            assert list(row.experimenter) == list(file.experimenter)
            assert list(row.keywords) == list(file.keywords[:])
            assert row.session_start_time == file.session_start_time
            assert row.date_of_birth == file.subject.date_of_birth
            assert row.file_create_date == [file.file_create_date[0]]
            assert row.age_reference == "birth"
            assert row.nwb_version == "2.11.0"
    assert pd.isna(got.pharmacology).all()


def test_a_file_costs_at_most_eight_requests_and_all_files_are_read_at_once(
    paths: list[str], range_server: RangeServer
) -> None:
    count = 12
    urls = [range_server.put(f"{i}.nwb", Path(paths[i % 4]).read_bytes()) for i in range(count)]
    range_server.behaviour.latency = 0.1
    frame = lazynwb_dask.read_sessions(urls)
    assert range_server.max_running >= count
    for url in urls:
        requests = [e for e in range_server.log if url.endswith(e.path)]
        assert len(requests) <= 8
        assert sum(e.sent for e in requests) < 2_000_000
    range_server.clear_log()
    assert frame.subject_id.nunique().compute() == 2
    assert not range_server.log, "all of it was read while planning"


@pytest.mark.parametrize("layout", ["contiguous", "chunked", "gzip"])
def test_a_large_file_costs_no_more_than_eight_requests(
    tmp_path: Path, range_server: RangeServer, layout: str
) -> None:
    sizes: dict[str, Any] = {"units": 400, "mean_spikes": 8_000, "samples": 300_000}
    (path,) = make_sessions(tmp_path, n=1, layout=layout, **sizes)
    url = range_server.put("f.nwb", Path(path).read_bytes())
    lazynwb_dask.read_sessions(url)
    assert len(range_server.log) <= 8
    assert range_server.sent <= 2_000_000


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    if hasattr(time, "tzset"):
        time.tzset()
    yield
    monkeypatch.undo()
    if hasattr(time, "tzset"):
        time.tzset()


@pytest.mark.usefixtures("far_from_utc")
def test_times_are_utc_and_one_without_a_zone_is_taken_as_utc(tmp_path: Path) -> None:
    texts = {
        "2023-01-09T09:30:12.345000-08:00": datetime(2023, 1, 9, 17, 30, 12, 345_000, UTC),
        "2023-01-09T09:30:12": datetime(2023, 1, 9, 9, 30, 12, tzinfo=UTC),
        "2023-01-09 09:30:12Z": datetime(2023, 1, 9, 9, 30, 12, tzinfo=UTC),
        "2023-01-09": datetime(2023, 1, 9, tzinfo=UTC),
        "0999-12-31T23:59:59+01:00": datetime(999, 12, 31, 22, 59, 59, tzinfo=UTC),
    }
    files = [one(tmp_path, f"{i}.nwb", root__session_start_time=text) for i, text in enumerate(texts)]
    got = lazynwb_dask.read_sessions(files).compute()
    assert got.session_start_time.dtype == pd.DatetimeTZDtype("us", "UTC")
    assert got.session_start_time.tolist() == list(texts.values())
    assert got.date_of_birth.dtype == pd.DatetimeTZDtype("us", "UTC")


def test_what_is_no_time_is_missing_with_one_warning(tmp_path: Path) -> None:
    odd = one(tmp_path, "odd.nwb", root__session_start_time="last Tuesday", subject__date_of_birth="")
    with pytest.warns(UserWarning, match=r"1 times .*odd\.nwb: session_start_time 'last Tuesday'"):
        got = lazynwb_dask.read_sessions([odd, one(tmp_path)]).compute()
    assert got.session_start_time.isna().all()
    assert got.date_of_birth.isna().all()


def test_lists_stay_lists_and_a_single_value_is_a_list_of_one(tmp_path: Path) -> None:
    many = one(tmp_path, "many.nwb", keywords=["a", "b, c"], experimenter=["Baggins, Bilbo"])
    single = one(tmp_path, "single.nwb", keywords="a", experimenter=np.array([], "S4"))
    got = lazynwb_dask.read_sessions([many, single, one(tmp_path)]).compute()
    assert got.keywords.iloc[:2].tolist() == [["a", "b, c"], ["a"]]
    assert got.experimenter.iloc[:2].tolist() == [["Baggins, Bilbo"], []]
    assert got.keywords.isna().tolist() == [False, False, True]
    assert str(got.keywords.dtype) == "list<item: string>[pyarrow]"


def test_a_text_that_reads_like_code_is_text(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    code = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    path = one(tmp_path, session_id=code, subject__weight=code, keywords=[code, "{}", "[1, 2]"])
    got = lazynwb_dask.read_sessions(path).compute().iloc[0]
    assert (got.session_id, got.weight) == (code, code)
    assert got.keywords == [code, "{}", "[1, 2]"]
    assert not trap.exists()


def test_standard_fields_are_text_whatever_they_are_stored_as(tmp_path: Path) -> None:
    path = one(
        tmp_path, session_id=713655, subject__subject_id=[b"m1"], subject__weight=0.025,
        subject__strain=np.array(b"B6   "), lab=b"caf\xe9", notes=np.array([["a"], ["b"]], "S1"),
    )  # fmt: skip
    got = lazynwb_dask.read_sessions(path).compute().iloc[0]
    assert (got.session_id, got.subject_id, got.weight) == ("713655", "m1", "0.025")
    assert (got.strain, got.lab, got.notes) == ("B6   ", "caf\ufffd", "[['a'], ['b']]")


def extended(folder: Path, name: str, **values: object) -> str:
    path = one(folder, name, subject__subject_id="m1")
    with h5py.File(path, "a") as file:
        subject = file["general/subject"]
        subject.attrs["neurodata_type"] = "BigSubject"
        for key, value in values.items():
            if key.isupper():
                subject.attrs[key.lower()] = value
            else:
                subject.create_dataset(key, data=value)
    return path


def test_fields_of_extensions_are_kept_in_any_order_of_the_files(tmp_path: Path) -> None:
    files = [
        extended(tmp_path, "a.nwb", notes="shy", AGE_IN_DAYS=91, housing=3, chips=[1, 2], fed=True),
        extended(tmp_path, "b.nwb", AGE_IN_DAYS=91.5, housing="alone", SPECIMEN_NAME="m-1"),
        one(tmp_path, "c.nwb", notes="the session's", extra_number=7),
    ]
    for order in (files, files[::-1]):
        got = lazynwb_dask.read_sessions(order).compute().set_index("_nwb_path").loc[files]
        assert got.age_in_days.dtype == np.dtype("f8")
        assert got.age_in_days.tolist()[:2] == [91, 91.5]
        assert got.housing.tolist()[:2] == ["3", "alone"]
        assert got.chips.iloc[0] == [1, 2]
        assert got.fed.iloc[0]
        assert got.specimen_name.iloc[1] == "m-1"
        assert str(got.extra_number.dtype) == "int64[pyarrow]"
        assert got.subject_notes.iloc[0] == "shy"
        assert got.notes.iloc[2] == "the session's"
        assert "neurodata_type" not in got


def test_large_or_foreign_data_beside_the_fields_are_no_fields(tmp_path: Path) -> None:
    path = one(tmp_path, lab="L", large=np.zeros(300_000))
    (tmp_path / "secret").write_text("x" * 8)
    with h5py.File(path, "a") as file:
        general = file["general"]
        general.create_dataset("stolen", (1,), "S8", external=[(str(tmp_path / "secret"), 0, 8)])
        general["linked"] = h5py.ExternalLink("other.nwb", "/identifier")
        general["lost"] = h5py.SoftLink("/nowhere")
        general["same"] = h5py.SoftLink("/general/lab")
        general.create_dataset("refs", data=file["general"].ref, dtype=h5py.ref_dtype)
    got = lazynwb_dask.read_sessions(path).compute()
    assert not {"large", "stolen", "linked", "lost", "refs"} & set(got.columns)
    assert (got.lab[0], got.same[0]) == ("L", "L")


def test_files_that_cannot_be_read_are_an_error_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "bad.nwb").write_bytes(b"not NWB")
    with h5py.File(tmp_path / "plain.nwb", "w") as file:
        file["x"] = 1
    good = one(tmp_path, "good.nwb", session_id="s1")
    files = [str(tmp_path / "bad.nwb"), good, str(tmp_path / "plain.nwb")]
    with pytest.raises(NWBReadError, match=r"bad\.nwb: not an HDF5 file"):
        lazynwb_dask.read_sessions(files)
    with pytest.warns(UserWarning, match=r"2 of 3 files can't be read.*bad\.nwb"):
        frame = lazynwb_dask.read_sessions(files, on_error="skip")
    assert frame.session_id.compute().tolist() == ["s1"]
    report = lazynwb_dask.read_report(frame[frame.session_id == "s1"])
    assert report.path.tolist() == [files[0], files[2]]
    assert report.stage.tolist() == ["plan", "plan"]
    with pytest.raises(NWBError, match="none of the 1 files"), pytest.warns(UserWarning, match="1 of 1 files"):
        lazynwb_dask.read_sessions(files[0], on_error="skip")


def test_a_file_named_twice_is_two_rows(paths: list[str]) -> None:
    got = lazynwb_dask.read_sessions([paths[1], paths[0], paths[1]]).compute()
    assert got._nwb_path.tolist() == [paths[1], paths[0], paths[1]]
    assert got.index.tolist() == [0, 1, 2]


def test_what_pynwb_writes_is_read(tmp_path: Path) -> None:
    zone = timezone(timedelta(hours=2))
    start = datetime(2024, 5, 17, 3, 4, 5, 678_901, zone)
    file = pynwb.NWBFile(
        "a session", "id-1", start, experimenter="Okafor, Chidi", keywords=["k"], notes="n",
        stimulus_notes="s", related_publications=["doi:1"],
        subject=pynwb.file.Subject(subject_id="7", age="P90D", weight=0.02, date_of_birth=start),
    )  # fmt: skip
    path = tmp_path / "f.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    got = lazynwb_dask.read_sessions(path).compute().iloc[0]
    assert got.session_start_time == got.date_of_birth == start
    assert (got.stimulus, got.notes, got.experimenter) == ("s", "n", ["Okafor, Chidi"])
    assert (got.subject_id, got.age, got.weight) == ("7", "P90D", "0.02 kg")


def test_helper_processes_give_the_same(paths: list[str]) -> None:
    with dask.config.set({"lazynwb-dask.isolate": True}):
        got = lazynwb_dask.read_sessions(paths[:2]).compute()
    pd.testing.assert_frame_equal(got, lazynwb_dask.read_sessions(paths[:2]).compute())


def test_real_files_are_read_in_few_requests(range_server: RangeServer) -> None:
    files = oracle.corpus_files()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = lazynwb_dask.read_sessions(files).compute()
    for path, row in zip(files, got.itertuples(), strict=True):
        with h5py.File(path) as file:
            for name in ("identifier", "session_description"):
                value = np.ravel(file[name][()])[0]
                assert getattr(row, name) == value.decode()
            start = np.ravel(file["session_start_time"][()])[0].decode()
            assert row.session_start_time == pd.to_datetime(start, utc=True)
    assert set(got.species.dropna()) >= {"Mus musculus", "Rattus norvegicus"}
    most = 0
    for i, path in enumerate(files):
        url = range_server.put(f"{i}.nwb", path.read_bytes())
        range_server.clear_log()
        lazynwb_dask.read_sessions(url)
        most = max(most, len(range_server.log))
    assert most <= 6


def test_a_catalog_knows_its_sessions(paths: list[str], tmp_path: Path, range_server: RangeServer) -> None:
    urls = [range_server.put(f"{i}.nwb", Path(p).read_bytes()) for i, p in enumerate(paths)]
    wanted = lazynwb_dask.read_sessions(urls).compute()
    catalog = lazynwb_dask.build_catalog(urls, tmp_path / "catalog")
    range_server.clear_log()
    got = lazynwb_dask.read_sessions(catalog).compute()
    units = lazynwb_dask.read_nwb(catalog, "/units")
    wide = lazynwb_dask.with_sessions(units, ["sex"], sessions=catalog.sessions)
    assert wide[wide.sex == got.sex[0]].sex.compute().notna().all()
    assert not range_server.log
    pd.testing.assert_frame_equal(got, wanted)
    assert len(lazynwb_dask.contents(catalog)) == len(lazynwb_dask.contents(urls))


# ---------------------------------------------------------------------------- sessions on each row
FRAMES = {
    "whole": lambda d: d,
    "columns": lambda d: d[["unit_id", "_nwb_path"]],
    "no path": lambda d: d[["unit_id", "snr"]],
    "filter": lambda d: d[(d.presence_ratio >= 0.7) & (d.snr > d.snr.mean())][["unit_id", "snr"]],
    "loc": lambda d: d.loc[d.snr > 3],
    "query": lambda d: d.query("snr > 3 and presence_ratio > 0.5"),
    "assign": lambda d: d[["unit_id", "snr"]].assign(double=d.snr * 2)[["double"]],
    "drop": lambda d: d.drop(columns=["snr"]),
    "head": lambda d: d.head(7, npartitions=-1, compute=False)[["unit_id"]],
    "partitions": lambda d: d.partitions[2:],
    "largest": lambda d: d.nlargest(5, "snr"),
    "mapped": lambda d: d[["unit_id", "_nwb_path"]].map_partitions(lambda x: x[::2]),
    "repartitioned": lambda d: d[["unit_id", "_nwb_path"]].repartition(npartitions=2),
    "merged": lambda d: d[["unit_id", "_nwb_path"]].merge(d[["unit_id", "snr"]], on="unit_id"),
}
COLUMNS = ["subject_id", "session_start_time", "keywords", "pharmacology"]


def joined(frame: pd.DataFrame, whole: pd.DataFrame, sessions: pd.DataFrame) -> pd.DataFrame:
    """What pandas makes of it, by the path that each row's id is from."""
    key = "unit_id" if "unit_id" in frame else "snr" if "snr" in frame else None
    paths = (
        whole.set_index(key)._nwb_path.loc[frame[key]].to_numpy()
        if key is not None
        else whole._nwb_path.loc[frame.index].to_numpy()
    )
    table = sessions.set_index("_nwb_path").loc[paths, COLUMNS].set_axis(frame.index)
    return pd.concat([frame, table], axis=1)


@pytest.mark.parametrize("name", FRAMES)
def test_any_frame_gets_the_sessions_of_its_rows(paths: list[str], name: str) -> None:
    units = lazynwb_dask.read_nwb(paths, "/units")
    frame = FRAMES[name](units)
    got = lazynwb_dask.with_sessions(frame, COLUMNS)
    wanted = joined(frame.compute(), units.compute(), lazynwb_dask.read_sessions(paths).compute())
    pd.testing.assert_frame_equal(got._meta, wanted.iloc[:0], check_index_type=False)
    day = pd.Timestamp("2023-01-11", tz="UTC")
    late, chosen = wanted[wanted.session_start_time > day], got[got.session_start_time > day]
    for one, other in ((got.compute(), wanted), (chosen.compute(), late)):
        if name == "merged":  # in no order
            one, other = (f.sort_values("unit_id", ignore_index=True) for f in (one, other))
        pd.testing.assert_frame_equal(one, other, check_index_type=False)


def test_a_condition_on_sessions_opens_only_the_files_it_leaves(
    paths: list[str], range_server: RangeServer
) -> None:
    urls = [range_server.put(f"{i}.nwb", Path(p).read_bytes()) for i, p in enumerate(paths)]
    frame = lazynwb_dask.read_nwb(urls, "/units")
    good = frame[frame.presence_ratio > 0.5][["unit_id"]]
    range_server.clear_log()
    wide = lazynwb_dask.with_sessions(good, ["subject_id", "session_start_time", "keywords"])
    assert len(range_server.log) <= 4 * 8
    assert range_server.sent <= 4 * 2_000_000
    day = pd.Timestamp("2023-01-11", tz="UTC")
    range_server.clear_log()
    late = wide[(wide.subject_id == "600007") & (wide.session_start_time.dt.hour >= 0)]
    late = late[late.session_start_time < day + pd.Timedelta(days=1)]
    got = late[["unit_id", "keywords"]].compute()
    assert {e.path for e in range_server.log} == {"/2.nwb"}
    assert len(range_server.log) <= 2, "two columns, side by side"
    with h5py.File(paths[2]) as file:
        keep = file["units/presence_ratio"][()] > 0.5
        assert got.unit_id.tolist() == file["units/unit_id"][keep].tolist()
    assert got.keywords.iloc[0] == ["ecephys", "behavior", "mouse", "Neuropixels"]
    range_server.clear_log()
    assert len(wide[wide.subject_id == "nobody"].compute()) == 0
    assert not range_server.log


def test_widened_frames_combine_with_others_and_travel(paths: list[str]) -> None:
    units = lazynwb_dask.read_nwb(paths, "/units")
    wide = lazynwb_dask.with_sessions(units[["unit_id", "snr"]], ["sex", "weight"])
    whole = wide.compute()
    assert wide.divisions == units.divisions
    combined = wide.assign(ratio=units.presence_ratio)
    pd.testing.assert_series_equal(combined.compute().ratio, units.presence_ratio.compute(), check_names=False)
    other = pickle.loads(pickle.dumps(wide[wide.snr > 3])).compute()
    pd.testing.assert_frame_equal(other, whole[whole.snr > 3], check_index_type=False)
    counts = wide.groupby("sex").unit_id.count().compute()
    assert counts.sum() == len(whole)
    twice = lazynwb_dask.with_sessions(wide, "species")
    assert list(twice.columns) == ["unit_id", "snr", "sex", "weight", "species"]
    assert set(twice.species.compute()) == {"Mus musculus"}
    assert wide._name != lazynwb_dask.with_sessions(units[["unit_id", "snr"]], ["age", "weight"])._name
    assert wide._name == lazynwb_dask.with_sessions(units[["unit_id", "snr"]], ["sex", "weight"])._name


def test_a_session_table_of_ones_own_is_used_and_may_lack_files(paths: list[str]) -> None:
    units = lazynwb_dask.read_nwb(paths, "/units")[["unit_id", "_nwb_path"]]
    table = pd.DataFrame({"_nwb_path": paths[1:3], "score": [1.5, 2.5], "batch": [7, 8]})
    wide = lazynwb_dask.with_sessions(units, sessions=table)
    got = wide.compute()
    assert got.groupby("_nwb_path", sort=False).score.first().tolist()[1:3] == [1.5, 2.5]
    assert got.score.isna().sum() == 120
    assert got.batch.dtype == "int64[pyarrow]"
    assert set(wide[wide.batch == 8]._nwb_path.compute()) == {paths[2]}
    sessions = lazynwb_dask.read_sessions(paths)
    again = lazynwb_dask.with_sessions(units, ["sex"], sessions=sessions).compute()
    assert again.sex.notna().all()


def test_what_cannot_be_joined_is_said(paths: list[str]) -> None:
    units = lazynwb_dask.read_nwb(paths, "/units")
    with pytest.raises(lazynwb_dask.ColumnNotFoundError, match=r"'specie'; did you mean 'species'"):
        lazynwb_dask.with_sessions(units, ["specie"])
    trials = units.assign(sex=1)
    with pytest.raises(ValueError, match="has a column 'sex' already"):
        lazynwb_dask.with_sessions(trials, ["sex"])
    lost = units[["unit_id"]].map_partitions(lambda x: x)
    with pytest.raises(ValueError, match="keep its column _nwb_path"):
        lazynwb_dask.with_sessions(lost, ["sex"])
    with pytest.raises(ValueError, match="not made by read_nwb"):
        lazynwb_dask.with_sessions(lazynwb_dask.read_sessions(paths), ["sex"])


def test_files_that_were_not_indexed_get_their_sessions_too(paths: list[str]) -> None:
    units = lazynwb_dask.read_nwb(paths, "/units", columns=["unit_id"], schema=1)
    wide = lazynwb_dask.with_sessions(units, ["subject_id"])
    got = wide[wide.subject_id == "600000"].compute()
    assert len(got) == 120
    assert set(got.subject_id) == {"600000"}
