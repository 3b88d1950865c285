"""Sessions that are split over several files: rows of all of them meet, as pandas would have it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
from dandi.archive import FakeArchive, about
from files import nwb, table

import lazynwb_dask
from lazynwb_dask import map_files, merge_by_file, read_nwb, read_sessions, with_sessions
from lazynwb_dask.errors import ColumnNotFoundError

HOWS = ("inner", "left", "right", "outer")


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def write(path: Path, session: str | None, tables: dict[str, Any], subject: str | None = None) -> str:
    with nwb(path) as file:
        if session is not None:
            file["general/session_id"] = session
        if subject is not None:
            file["general/subject/subject_id"] = subject
        for name, columns in tables.items():
            group = table(file, name, len(next(iter(columns.values()))), list(columns))
            for column, values in columns.items():
                group[column] = values
    return str(path)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Units in one or two files of each session, trials in another; one session has no trials, one no units,
    and two files have no session."""
    folder, draw = tmp_path_factory.mktemp("split"), np.random.default_rng(1)

    def units(name: str, session: str | None, rows: int) -> str:
        columns = {"block": draw.integers(0, 3, rows), "rate": draw.random(rows)}
        columns["big"] = draw.random((rows, 700))
        return write(folder / f"{name}.nwb", session, {"units": columns})

    def trials(name: str, session: str | None, rows: int) -> str:
        columns = {"block": draw.integers(0, 3, rows), "rate": draw.random(rows)}
        return write(folder / f"{name}.nwb", session, {"intervals/trials": columns})

    return {
        "units": [
            units("a-probe1", "A", 5), units("b", "B", 4), units("a-probe0", "A", 7), units("c", "C", 3),
            units("none1", None, 2),
        ],
        "trials": [trials("t-b", "B", 6), trials("t-a", "A", 4), trials("t-d", "D", 2),
                   trials("none2", None, 2)],
    }  # fmt: skip


def plainly(paths: list[str], name: str) -> pd.DataFrame:
    """A table of files with its session, by Dask's own means."""
    frame = read_nwb(paths, name).compute()
    sessions = {}
    for path in paths:
        with h5py.File(path) as file:
            held = file.get("general/session_id")
            sessions[path] = path if held is None else held.asstr()[()]
    return frame.assign(session_id=frame["_nwb_path"].astype("str").map(sessions).astype("str"))


def same(got: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """The same rows: by session, and in it in any order."""
    assert sorted(got.columns) == sorted(wanted.columns)
    columns = [name for name in wanted.columns if name != "big"]
    texts = []
    for frame in (got[columns].convert_dtypes(), wanted[columns].convert_dtypes()):
        plain = frame.astype(object).where(frame.notna(), None)
        texts.append(plain.map(repr).agg("|".join, axis=1))
    assert sorted(texts[0]) == sorted(texts[1])


@pytest.mark.parametrize("how", HOWS)
def test_files_of_a_session_are_merged_as_by_pandas(split: dict[str, list[str]], how: Any) -> None:
    units, trials = read_nwb(split["units"], "/units"), read_nwb(split["trials"], "trials")
    wanted = plainly(split["units"], "/units").merge(
        plainly(split["trials"], "trials"), on=["session_id", "block"], how=how
    )
    got = merge_by_file(units, trials, on="block", how=how, by="session_id")
    assert got.columns.tolist()[-1] != "_nwb_path"
    assert {"_nwb_path_x", "_nwb_path_y", "session_id"} <= {*got.columns}
    found = got.compute()
    same(found, wanted)
    assert found.index.is_unique
    assert got.npartitions <= 6
    some, keep = (
        frame[(frame.rate_x > 0.3) & (frame["_nwb_path_y"] == split["trials"][1])] for frame in (got, wanted)
    )
    same(some[["rate_x", "rate_y", "session_id"]].compute(), keep[["rate_x", "rate_y", "session_id"]])
    one = got[got.session_id == "A"]
    same(one.compute(), wanted[wanted.session_id == "A"])
    assert len(got) == len(wanted)


def test_a_mapping_says_the_same(split: dict[str, list[str]]) -> None:
    units, trials = read_nwb(split["units"], "/units"), read_nwb(split["trials"], "trials")
    wanted = merge_by_file(units, trials, on="block", by="session_id").compute()
    sessions = read_sessions([*split["units"], *split["trials"]]).compute().set_index("_nwb_path")["session_id"]
    known = sessions.dropna().to_dict()
    paths = {Path(os.path.relpath(path)): session for path, session in known.items()}
    for by in (sessions, known, paths):
        pd.testing.assert_frame_equal(merge_by_file(units, trials, on="block", by=by).compute(), wanted)
    assert wanted.session_id.nunique() == 2


def test_a_condition_on_the_session_opens_its_files_alone(split: dict[str, list[str]]) -> None:
    by = {path: Path(path).stem.removeprefix("t-")[0] for paths in split.values() for path in paths}
    units, trials = read_nwb(split["units"], "/units"), read_nwb(split["trials"], "trials")
    got = merge_by_file(units, trials, on="block", by=by)
    told = lazynwb_dask.explain(got[got.session_id == "b"][["rate_x", "rate_y"]])
    assert sum(read.partitions_left for read in told.reads) <= 2


def test_joins_of_joins_by_session(split: dict[str, list[str]]) -> None:
    units, trials = read_nwb(split["units"], "/units"), read_nwb(split["trials"], "trials")
    short = trials[["block", "rate"]]
    once = merge_by_file(units[["block", "rate"]], short, on="block", by="session_id")
    twice = merge_by_file(once, short, on="block", by="session_id")
    mine, others = plainly(split["units"], "/units"), plainly(split["trials"], "trials")
    keys, kept = ["session_id", "block"], ["session_id", "block", "rate"]
    wanted = mine[kept].merge(others[kept], on=keys).merge(others[kept], on=keys)
    found = twice.compute()
    same(found[wanted.columns.tolist()], wanted)
    assert found.index.is_unique
    with pytest.raises(TypeError, match="give all operations the same by="):
        merge_by_file(merge_by_file(units, trials, on="block"), trials, on="block", by="session_id")


def test_a_function_of_each_session(split: dict[str, list[str]]) -> None:
    def counts(units: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
        files = units["_nwb_path"].nunique() + trials["_nwb_path"].nunique()
        return pd.DataFrame({"units": [len(units)], "trials": [len(trials)], "files": [files]})

    units, trials = read_nwb(split["units"], "/units"), read_nwb(split["trials"], "trials")
    got = map_files(counts, by="session_id", units=units[["rate"]], trials=trials[["block"]])
    assert got.columns.tolist() == ["units", "trials", "files", "session_id"]
    found = got.compute().set_index("session_id")
    assert found.loc[["A", "B", "C", "D"]].values.tolist() == [[12, 4, 3], [4, 6, 2], [3, 0, 1], [0, 2, 1]]
    assert len(found) == 6
    assert got[got.session_id == "A"]["units"].compute().tolist() == [12]


def test_what_is_known_of_a_session_is_on_the_rows_of_each_of_its_files(split: dict[str, list[str]]) -> None:
    units = read_nwb(split["units"], "/units")
    mine = pd.DataFrame({"session_id": ["A", "B"], "depth": [1.5, 2.5]})
    got = with_sessions(units, ["depth"], sessions=mine, by="session_id")
    wanted = plainly(split["units"], "/units")["session_id"].map({"A": 1.5, "B": 2.5})
    assert got["depth"].compute().fillna(-1).tolist() == wanted.fillna(-1).tolist()
    others = read_sessions(split["trials"]).compute().assign(light=[True, False, True, False])
    by = {path: Path(path).stem.removeprefix("t-")[0] for paths in split.values() for path in paths}
    lit = with_sessions(units, ["light"], sessions=others, by=by)
    assert {Path(p).stem for p in lit[lit.light]["_nwb_path"].compute().unique()} == {"b"}
    with pytest.raises(ValueError, match="needs sessions="):
        with_sessions(units, by="session_id")
    with pytest.raises(ColumnNotFoundError, match="no column 'session_id'"):
        with_sessions(units, sessions=pd.DataFrame({"depth": [1]}), by="session_id")


def test_what_cant_be_meant_is_an_error(split: dict[str, list[str]], tmp_path: Path) -> None:
    units, trials = read_nwb(split["units"], "/units"), read_nwb(split["trials"], "trials")
    with pytest.raises(TypeError, match="a mapping from file to session"):
        merge_by_file(units, trials, on="block", by=3)  # type: ignore[arg-type]
    with pytest.raises(ColumnNotFoundError, match="session_id"):
        merge_by_file(units, trials, on="block", by="session_idd")
    with pytest.raises(ValueError, match="of no file"):
        merge_by_file(units, trials, on="block", by={"elsewhere.nwb": "A"})
    tables = {"units": {"block": [1]}, "intervals/trials": {"block": [1]}}
    files = [write(tmp_path / f"{name}.nwb", "1", tables, name) for name in ("m1", "m2")]
    both = read_nwb(files, "/units"), read_nwb(files, "trials")
    with pytest.raises(ValueError, match=r"'1' is a session of several subjects \(m1, m2\)"):
        merge_by_file(*both, on="block", by="session_id")
    assert len(merge_by_file(*both, on="block", by="subject_id")) == 2
    named = write(tmp_path / "named.nwb", "A", {"units": {"block": [1], "session_id": [7]}})
    with pytest.raises(ValueError, match="a column 'session_id' already"):
        merge_by_file(read_nwb(named, "/units"), trials, on="block", by="session_id")


def test_a_dandisets_files_are_grouped_by_what_the_archive_says_or_by_their_names(
    split: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = "lazynwb-dask.dandi-instances"
    with FakeArchive() as archive, dask.config.set({instances: {"dandi": archive.instance}}):
        unit_file, trial_file = split["units"][0], split["trials"][1]
        archive.add("000409", "sub-1/sub-1_ses-A_probe.nwb", Path(unit_file).read_bytes(), **about("1", "A"))
        archive.add("000409", "sub-1/sub-1_ses-A.nwb", Path(trial_file).read_bytes())
        archive.add("000409", "sub-2/sub-2_ses-A.nwb", Path(split["trials"][0]).read_bytes())
        archive.add("000409", "other.nwb", Path(split["trials"][2]).read_bytes())
        by = lazynwb_dask.group_assets_by_session("dandi:000409")
        begin = "dandi://dandi/000409@draft"
        assert by.to_dict() == {
            f"{begin}/other.nwb": f"{begin}/other.nwb",
            f"{begin}/sub-1/sub-1_ses-A.nwb": "1/A",
            f"{begin}/sub-1/sub-1_ses-A_probe.nwb": "1/A",
            f"{begin}/sub-2/sub-2_ses-A.nwb": "2/A",
        }
        units, trials = read_nwb("dandi:000409", "/units"), read_nwb("dandi:000409", "trials")
        got = merge_by_file(units, trials, on="block", by=by).compute()
    wanted = read_nwb(unit_file, "/units").compute().merge(read_nwb(trial_file, "trials").compute(), on="block")
    assert sorted(got["rate_y"]) == sorted(wanted["rate_y"])
    assert got["session_id"].unique().tolist() == ["1/A"]
