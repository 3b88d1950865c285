"""Exports hold what was read, appear once they are complete, and never take all rows into memory."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.feather
import pytest
from cli.commands import here, told
from files import nwb, ragged, table
from servers import S3Server

import lazynwb_dask
from lazynwb_dask.stream import batches


def session(path: Path, first: int, session_id: str | None = None, rows: int = 4) -> None:
    """A file with a ragged column, all kinds of values, and a session."""
    with nwb(path) as file:
        numbers = np.arange(first, first + rows)
        group = table(file, "/units", rows, ["n", "x", "t", "b", "times"])
        group.create_dataset("n", data=numbers, compression="gzip", chunks=(rows,))
        group.create_dataset("x", data=np.where(numbers % 3 == 0, np.nan, numbers / 7))
        group.create_dataset("t", data=[f"unit, {n}" for n in numbers])
        group.create_dataset("b", data=numbers % 2 == 0)
        ragged(group, "times", np.cumsum(numbers % 3), np.arange(float((numbers % 3).sum())))
        if session_id is not None:
            file["general/session_id"] = session_id
        file["identifier"] = f"id of {path.name}"


def damage(path: Path) -> None:
    """Damage the values of a column, which shows when they are read."""
    with h5py.File(path) as file:
        place = file["units/n"].id.get_chunk_info(0)
    with open(path, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    for i in range(3):
        session(made / f"{i}.nwb", 4 * i, f"s{i}")
    return made


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Whether values are the same, in the same order."""
    assert list(found.columns) == list(expected.columns)
    assert found.times.map(list).tolist() == [list(times) for times in expected.times]
    plain = expected.drop(columns="times").reset_index(drop=True)
    pd.testing.assert_frame_equal(found.drop(columns="times").reset_index(drop=True), plain, check_dtype=False)


def test_parquet_has_a_folder_for_each_session(tmp_path: Path, folder: Path) -> None:
    expected = lazynwb_dask.read_nwb(folder, "/units").compute()
    done = here("export", "units", "--to", tmp_path / "out.parquet", folder)
    assert (done.stdout, "12 rows written" in done.stderr) == ("", True)
    assert sorted(path.name for path in (tmp_path / "out.parquet").iterdir()) == [
        "session=s0", "session=s1", "session=s2",
    ]  # fmt: skip
    found = dd.read_parquet(tmp_path / "out.parquet").compute()
    assert found.session.astype(str).tolist() == ["s0"] * 4 + ["s1"] * 4 + ["s2"] * 4
    same(found.drop(columns="session"), expected)
    one = ds.dataset(tmp_path / "out.parquet", partitioning="hive").to_table(filter=ds.field("session") == "s1")
    assert one["n"].to_pylist() == [4, 5, 6, 7]


def test_other_formats_are_one_file_with_all_rows_in_order(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lazynwb_dask.read_nwb(folder, "/units").compute()
    monkeypatch.setattr(batches, "LARGEST", 1)  # a partition at a time
    for name in ("out.feather", "out.csv", "out.csv.gz", "out.jsonl"):
        here("export", "units", "--to", tmp_path / name, folder)
    found = pyarrow.feather.read_table(tmp_path / "out.feather").to_pandas()
    same(found, expected)
    text = (tmp_path / "out.csv").read_text()
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode() == text
    read = list(csv.DictReader(text.splitlines()))
    assert [json.loads(row["times"]) for row in read] == [list(times) for times in expected.times]
    assert [row["x"] for row in read] == ["" if np.isnan(x) else repr(x) for x in expected.x]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["t"] for row in lines] == expected.t.tolist()
    assert len(list(tmp_path.iterdir())) == 5, "no temporary file is left"


def test_conditions_columns_and_no_rows_at_all(tmp_path: Path, folder: Path) -> None:
    words = ["export", "units", "--where", "n >= 6", "--columns", "n,times"]
    for name, read in (("a.parquet", pd.read_parquet), ("a.feather", pd.read_feather)):
        here(*words, "--to", tmp_path / name, folder)
        assert read(tmp_path / name).n.tolist() == [6, 7, 8, 9, 10, 11]  # type: ignore[operator]
        assert [c for c in read(tmp_path / name).columns if c != "session"] == ["n", "times"]  # type: ignore[operator]
    words[3] = "n > 99"
    for name, read in (("b.parquet", pd.read_parquet), ("b.feather", pd.read_feather), ("b.csv", pd.read_csv)):
        here(*words, "--to", tmp_path / name, folder)
        assert "n" in read(tmp_path / name).columns  # type: ignore[operator]
        assert not len(read(tmp_path / name))  # type: ignore[operator]


def test_sessions_with_any_name_stay_in_the_folder(tmp_path: Path) -> None:
    made = tmp_path / "in"
    made.mkdir()
    names = ["../../evil", "a/b=c %", "..", "x" * 400, None, "", "Ünï", "x" * 400]
    for i, name in enumerate(names):
        session(made / f"{i}.nwb", 4 * i, name)
    here("export", "units", "--to", tmp_path / "out.parquet", made)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.parquet"]
    found = pd.read_parquet(tmp_path / "out.parquet")
    by_session = found.groupby(found.session.astype(str)).n.count().to_dict()
    assert {"../../evil": 4, "a/b=c %": 4, "..": 4, "Ünï": 4, "id of 4.nwb": 4, "id of 5.nwb": 4}.items() <= (
        by_session.items()
    )
    assert sorted(by_session.values())[-1] == 8, "two files of one session are in one folder"
    assert len(found) == 4 * len(names)


def test_a_table_with_a_column_called_session(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        table(file, "/units", 2, ["session"]).create_dataset("session", data=[7, 8])
    here("export", "units", "--to", tmp_path / "out.parquet", tmp_path / "a.nwb")
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert found.session.tolist() == [7, 8]
    assert found.nwb_session.astype(str).tolist() == ["a", "a"]


def test_what_is_there_is_replaced_only_if_asked_and_only_when_complete(tmp_path: Path, folder: Path) -> None:
    for name in ("out.parquet", "out.csv"):
        target = tmp_path / name
        here("export", "units", "--to", target, folder)
        assert "--overwrite" in told("export", "units", "--to", target, folder)
        here("export", "units", "--where", "n < 2", "--to", target, "--overwrite", folder)
        read: Any = pd.read_parquet if name.endswith("parquet") else pd.read_csv
        assert read(target).n.tolist() == [0, 1]
    damage(folder / "2.nwb")
    for name in ("out.parquet", "out.csv"):
        words = ["export", "units", "--columns", "n", "--to", tmp_path / name, "--overwrite", folder]
        assert "2.nwb" in told(*words)
        read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
        assert read(tmp_path / name).n.tolist() == [0, 1], "what was there stays"
        done = here(*words, "--skip-errors")
        assert "2.nwb" in done.stderr
        assert read(tmp_path / name).n.tolist() == list(range(8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.csv", "out.parquet"]
    for name in ("out.xyz", "out", "out.parquet.gz"):
        here("export", "units", "--to", tmp_path / name, folder, code=2)
    assert "no such folder" in told("export", "units", "--to", tmp_path / "no" / "out.csv", folder)


def test_exports_to_s3(folder: Path, s3_server: S3Server) -> None:
    s3_server.put("lab", "a", b"")
    options = json.dumps(s3_server.storage_options)
    for name in ("out.parquet", "out.feather"):
        words = ["export", "units", "--to", f"s3://lab/x/{name}", "--storage-options", options]
        here(*words, folder)
        assert "exists already" in told(*words, folder)
        here(*words, "--overwrite", folder)
        read: Any = pd.read_parquet if name.endswith("parquet") else pd.read_feather
        assert len(read(f"s3://lab/x/{name}", storage_options=s3_server.storage_options)) == 12


def test_tables_are_exported_each_to_a_folder_of_its_own(tmp_path: Path, folder: Path) -> None:
    words = ["export-tables", "--to", tmp_path / "out", "--tables", "units,sessions", folder]
    done = here(*words)
    assert (done.stdout, "15 rows" in done.stderr, "4 written" in done.stderr) == ("", True, True)
    assert sorted(pd.read_parquet(tmp_path / "out" / "units").n) == list(range(12))
    assert pd.read_parquet(tmp_path / "out" / "sessions").session_id.tolist() == ["s0", "s1", "s2"]
    assert "4 kept" in here(*words).stderr
    (folder / "0.nwb").unlink()
    damage(folder / "1.nwb")
    assert "1.nwb" in told(*words)
    done = here(*words, "--skip-errors", "--prune")
    assert "1.nwb was left out" in done.stderr
    assert "1 removed" in done.stderr
    assert sorted(pd.read_parquet(tmp_path / "out" / "units").n) == list(range(4, 12)), "what was there stays"
    here(*words, "--partition-by", "size", "--overwrite", "--skip-errors")
    assert sorted(pd.read_parquet(tmp_path / "out" / "units").n) == list(range(8, 12))
