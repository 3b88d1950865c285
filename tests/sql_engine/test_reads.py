# ruff: noqa: E501
"""What a statement reads: the columns and rows that it needs, of the files that it needs."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import dask
import duckdb
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from files import nwb, ragged, table

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.sql_engine import engine
from lazynwb_dask.util import lru


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_sessions(
        tmp_path_factory.mktemp("sessions"), n=4, units=30, mean_spikes=4000, trials=20, samples=20
    )


def traced(statement: str, paths: Any, **kwargs: Any) -> tuple[pd.DataFrame, lazynwb_dask.Trace]:
    """The result, and what was fetched for it after planning."""
    query = lazynwb_dask.sql(statement, paths, **kwargs)
    lru.clear()
    with lazynwb_dask.trace() as trace:
        found = query.compute()
    return found, trace


def spikes(paths: list[str]) -> int:
    """Bytes of all spike times."""
    total = 0
    for path in paths:
        with h5py.File(path) as file:
            total += file["units/spike_times"].id.get_storage_size()
    return total


def whole(name: str, paths: list[str]) -> pd.DataFrame:
    return lazynwb_dask.read_nwb(paths, name).compute()


def test_only_columns_that_are_used_are_read(paths: list[str]) -> None:
    found, trace = traced("SELECT id, snr FROM (SELECT * FROM units)", paths)
    assert found.equals(whole("units", paths)[["id", "snr"]].reset_index(drop=True))
    assert trace.total.bytes < 10_000 < spikes(paths)


def test_large_columns_are_read_for_the_rows_that_conditions_leave(paths: list[str]) -> None:
    units = whole("units", paths)
    limit = float(units.snr.nlargest(3).min())
    found, trace = traced(f"SELECT id, spike_times FROM units WHERE snr >= {limit!r}", paths)
    expected = units[units.snr >= limit]
    assert [*map(list, found.spike_times)] == [*map(list, expected.spike_times)]
    assert trace.total.bytes < spikes(paths) / 4
    assert (
        "snr >= "
        in lazynwb_dask.explain(
            lazynwb_dask.sql(f"SELECT id, spike_times FROM units WHERE snr >= {limit!r}", paths)
        )
        .reads[0]
        .condition
    )


@pytest.mark.parametrize("statement", ["SELECT count(*) AS n FROM units", "SELECT 120 AS n FROM units LIMIT 1"])
def test_rows_are_counted_without_reading(statement: str, paths: list[str]) -> None:
    found, trace = traced(statement, paths)
    assert found.n.tolist() == [120]
    assert not trace.total.bytes
    assert str(lazynwb_dask.explain(lazynwb_dask.sql(statement, paths))) == "No NWB file is read."


@pytest.mark.parametrize("name", ["len", "array_length", "LENGTH"])
def test_of_lists_whose_lengths_are_used_no_values_are_read(name: str, paths: list[str]) -> None:
    units = whole("units", paths)
    lengths = units.spike_times.list.len().astype("int64")
    found, trace = traced(
        f"SELECT id, {name}(u.spike_times) FROM units u WHERE {name}(spike_times) > 3000 ORDER BY _nwb_path, id",
        paths,
    )
    assert found.iloc[:, 1].tolist() == lengths[lengths > 3000].tolist()
    assert found.columns[1].lower().endswith("(u.spike_times)")
    assert trace.total.bytes < spikes(paths) / 50


def test_lengths_of_a_list_that_is_used_itself_are_right(paths: list[str]) -> None:
    found, _ = traced("SELECT len(spike_times) n, spike_times[1:2] s FROM units", paths)
    assert found.n.tolist() == whole("units", paths).spike_times.list.len().tolist()
    both, _ = traced(
        "SELECT len(x) n FROM (SELECT 'abc' AS x) UNION ALL SELECT len(spike_times) FROM units", paths
    )
    assert sorted(both.n) == sorted([3, *found.n])


def test_a_condition_on_sessions_opens_their_files_alone(paths: list[str]) -> None:
    sessions = lazynwb_dask.read_sessions(paths).compute()
    wanted = sessions.session_id.iloc[2]
    found, trace = traced(
        f"SELECT u.id, u.snr FROM units u JOIN sessions s USING (_nwb_path) WHERE s.session_id = '{wanted}'",
        paths,
    )
    assert found.equals(whole("units", paths[2:3])[["id", "snr"]].reset_index(drop=True))
    assert [*trace.by_file] == [sessions._nwb_path.iloc[2]]


@pytest.mark.parametrize(
    "join",
    ["u JOIN trials t ON t._nwb_path = u._nwb_path", "u, trials t", "u SEMI JOIN trials t USING (_nwb_path)"],
)
def test_a_small_table_is_read_first_for_its_files(join: str, paths: list[str]) -> None:
    """The large columns of the other are read of these files alone."""
    path = whole("units", paths)._nwb_path.iloc[0]
    with h5py.File(paths[1]) as file:
        start = float(file["intervals/trials/start_time"][3])
    same = " AND u._nwb_path = t._nwb_path" if "," in join else ""
    on = f"t.start_time = {start!r}"
    statement = f"SELECT u.spike_times FROM units {join} WHERE {on}{same}"
    if "SEMI" in join:
        statement = (
            f"SELECT u.spike_times FROM units u SEMI JOIN trials t ON u._nwb_path = t._nwb_path AND {on}"
        )
    found, trace = traced(statement, paths)
    assert len(found) == 30
    assert trace.total.bytes < spikes(paths) / 2
    assert path != paths[1]


def test_of_the_first_rows_in_an_order_lists_are_read_of_these_alone(paths: list[str]) -> None:
    statement = "SELECT id, spike_times FROM units ORDER BY snr DESC LIMIT 3"
    found, trace = traced(statement, paths)
    expected = whole("units", paths).nlargest(3, "snr")
    assert [*map(list, found.spike_times)] == [*map(list, expected.spike_times)]
    assert trace.total.bytes < spikes(paths) / 4
    assert ("spike_times", "is read once it is known which rows are wanted") in lazynwb_dask.sql(
        statement, paths
    ).explain().left


def test_a_limit_ends_the_reading(paths: list[str]) -> None:
    found, trace = traced(
        "SELECT spike_times FROM units LIMIT 2",
        paths,
        tables={"units": lazynwb_dask.read_nwb(paths, "units", blocksize=None)},
    )
    assert len(found) == 2
    assert len(trace.by_file) == 1


def test_nothing_is_read_before_the_first_batch_and_after_closing(paths: list[str]) -> None:
    query = lazynwb_dask.sql("SELECT spike_times FROM units", paths)
    lru.clear()
    with lazynwb_dask.trace() as trace:
        reader = query.record_batches()
        assert reader.schema.field("spike_times").type == pa.list_(pa.float64())
        assert query.columns == ["spike_times"]
        assert str(query.dtypes["spike_times"]) == "list<item: double>[pyarrow]"
        repr(query)
        query._repr_html_()
        reader.close()
    assert not trace.total.bytes


def test_dtypes_are_those_of_read_nwb(paths: list[str]) -> None:
    for name in ("units", "trials", "electrodes"):
        frame = lazynwb_dask.read_nwb(paths, name)
        query = lazynwb_dask.sql(f"SELECT * FROM {name}", paths)
        assert query.dtypes.to_dict() == frame.dtypes.to_dict()
        pd.testing.assert_frame_equal(query.compute(), frame.compute().reset_index(drop=True))
    sessions = lazynwb_dask.read_sessions(paths).compute()
    pd.testing.assert_frame_equal(
        lazynwb_dask.sql("FROM sessions", paths).compute(), sessions, check_dtype=False
    )


def test_other_libraries_take_a_query(paths: list[str]) -> None:
    query = lazynwb_dask.sql("SELECT id, spike_times FROM units WHERE id < 3", paths)
    expected = [list(x) for x in query.compute().spike_times]
    assert pl.DataFrame(query)["spike_times"].to_list() == expected
    assert pa.table(query)["spike_times"].to_pylist() == expected
    with duckdb.connect() as other:
        other.register("q", query)
        assert other.sql("SELECT count(*) FROM q").fetchall() == [(len(expected),)]


def test_a_time_series_a_catalog_and_a_table_of_ones_own(paths: list[str], tmp_path: Path) -> None:
    catalog = lazynwb_dask.build_catalog(paths, str(tmp_path / "catalog"))
    areas = pd.DataFrame({"location": whole("units", paths).location.unique()[:2]})
    found = lazynwb_dask.sql(
        """SELECT count(*) AS n FROM units JOIN areas USING (location)
        UNION ALL SELECT count(*) FROM "/processing/behavior/running_speed" WHERE timestamps > 0.1""",
        catalog,
        tables={"areas": areas},
    ).compute()
    series = whole("processing/behavior/running_speed", paths)
    assert found.n.tolist() == [
        whole("units", paths).location.isin(areas.location).sum(), (series.timestamps > 0.1).sum()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT id,\n  idd FROM units", "line 2, column 3: .*idd.*not found"),
        ("SELECT id FROM units WHERE", "line 1"),
        ("SELECT 'é', id FRM units u u", "line 1, column 20"),
        ("SELECT 1; SELECT 2", "one SELECT.*these are 2"),
        ("COPY units TO 'x.csv'", "one SELECT"),
        ("CREATE TABLE x AS FROM units", "one SELECT"),
        ("ATTACH 'x.db'", "one SELECT"),
        ("PRAGMA database_list", "one SELECT"),
        ("SET memory_limit = '1GB'", "one SELECT"),
        ("DESCRIBE units", "one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "table function read_csv"),
        ("SELECT * FROM read_text('/etc/passwd')", "table function read_text"),
        ("SELECT * FROM (SELECT * FROM glob('/*'))", "table function glob"),
        ("SELECT * FROM query_table('units')", "table function query_table"),
        ("SELECT * FROM units WHERE id = ?", "parameters"),
        ("SELECT list_transform([1], lambda x: Current_Setting('temp_directory'))", "reads settings"),
        ("SELECT getvariable('x')", "reads settings"),
        ("SELECT getenv('HOME')", "reads settings"),
        ("SELECT 'a\x00b' FROM units", "chr"),
        (f"SELECT {'+'.join('1' * 3000)}", "nested too deeply"),
        (f"SELECT {'NOT ' * 700} true", "nested too deeply"),
        ('SELECT * FROM units, "Units"', "units and Units differ only in case"),
        ("SELECT * FROM intervals.trials", "double quotes"),
        ("SELECT * FROM information_schema.tables", "double quotes"),
    ],
)
def test_what_is_refused_and_where_errors_are(statement: str, said: str, paths: list[str]) -> None:
    with pytest.raises(lazynwb_dask.SQLError) as caught:
        lazynwb_dask.sql(statement, paths).compute()
    assert isinstance(caught.value, ValueError)
    assert re.search(said, str(caught.value))
    assert "\n" not in str(caught.value)


def test_tables_that_are_not_there(paths: list[str], tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1]})  # no table of the statement's
    for name in ("unit", "Units", "frame", f"'{tmp_path}/x.parquet'", "duckdb_tables"):
        with pytest.raises(lazynwb_dask.TableNotFoundError, match="no table"):
            lazynwb_dask.sql(f"SELECT * FROM {name}", paths)
    with pytest.raises(lazynwb_dask.TableNotFoundError, match="did you mean 'units'"):
        lazynwb_dask.sql("SELECT * FROM unit", tables={"units": frame})


def test_a_file_without_a_table_is_left_out_or_an_error(paths: list[str], tmp_path: Path) -> None:
    with nwb(tmp_path / "lacks.nwb") as file:
        table(file, "/intervals/trials", 2, [])
    count, files = "SELECT count(*) AS n FROM units", [*paths, tmp_path / "lacks.nwb"]
    with pytest.warns(UserWarning, match=r"1 of 5 files have no table /units.*lacks\.nwb"):
        assert lazynwb_dask.sql(count, files).compute().n.tolist() == [120]
    with pytest.raises(lazynwb_dask.TableNotFoundError, match=r"no table /units in .*lacks\.nwb"):
        lazynwb_dask.sql(count, files, on_missing="raise")


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({0: [1]}),
        pd.DataFrame({"": [1]}),
        pd.DataFrame(),
        pd.DataFrame([[1, 2]], columns=["x", "x"]),
    ],
)
def test_frames_that_are_no_tables(frame: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match=r"mine.*name of its own"):
        lazynwb_dask.sql("SELECT * FROM mine", tables={"mine": frame})
    with pytest.raises(TypeError, match=r"mine.*pandas or Dask, not Table"):
        lazynwb_dask.sql("SELECT * FROM mine", tables={"mine": pa.table({"x": [1]})})


def test_types_that_pandas_lacks() -> None:
    found = lazynwb_dask.sql("SELECT INTERVAL 1 DAY AS i, union_value(a := 1) AS u")
    assert found.compute().u.tolist() == [1]
    assert found.compute().i[0].days == 1
    assert found.dtypes.tolist() == [object, object]


def test_the_memory_that_duckdb_may_take() -> None:
    for limit in ("20MB", 20_000_000):
        with dask.config.set({"lazynwb-dask.sql-memory-limit": limit}):
            query = lazynwb_dask.sql("SELECT list(i) AS l FROM range(10000000) r(i)")
            with pytest.raises(lazynwb_dask.SQLError, match=r"sql-memory-limit") as caught:
                query.compute()
        assert "SET " not in str(caught.value)
    with (
        dask.config.set({"lazynwb-dask.sql-memory-limit": "much"}),
        pytest.raises(lazynwb_dask.NWBError, match=r"sql-memory-limit, 'much'"),
    ):
        lazynwb_dask.sql("SELECT 1")


def test_names_of_the_statements_own_come_first(paths: list[str]) -> None:
    found = lazynwb_dask.sql(
        """WITH nothing AS (SELECT 1 AS x), units AS (SELECT id FROM units WHERE id < 2)
        SELECT count(*) AS n FROM units, nothing""",
        paths,
    ).compute()
    assert found.n.tolist() == [8]


def test_errors_at_run_time_are_one_line_and_leave_nothing(paths: list[str], tmp_path: Path) -> None:
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        query = lazynwb_dask.sql("SELECT CAST(location AS INTEGER) FROM units WHERE snr > -1", paths)
        with pytest.raises(lazynwb_dask.SQLError, match="Could not convert string") as caught:
            query.compute()
        assert "\n" not in str(caught.value)
        reader = lazynwb_dask.sql("SELECT spike_times FROM units", paths).record_batches()
        reader.read_next_batch()
        del reader
    assert not [*tmp_path.iterdir()]


def test_an_error_of_a_read_is_itself_and_files_that_are_skipped_are_told(
    paths: list[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.nwb"
    bad.write_bytes(b"no file")
    with pytest.raises(lazynwb_dask.NWBReadError, match="bad"):
        lazynwb_dask.sql("SELECT id FROM units", [*paths, str(bad)])
    with pytest.warns(UserWarning, match="bad"):
        query = lazynwb_dask.sql("SELECT count(*) AS n FROM units", [*paths, str(bad)], on_error="skip")
    assert query.compute().n.tolist() == [120]
    assert lazynwb_dask.read_report(query).path.tolist() == [str(bad)]
    copy = tmp_path / "copy.nwb"
    copy.write_bytes(Path(paths[0]).read_bytes())
    changed = lazynwb_dask.sql("SELECT snr FROM units", str(copy))
    copy.write_bytes(Path(paths[1]).read_bytes() + b"more")
    with pytest.raises(lazynwb_dask.NWBReadError, match="copy"):
        changed.compute()


def test_a_query_pickles_and_runs_on_processes_and_clusters(paths: list[str]) -> None:
    query = lazynwb_dask.sql(
        "SELECT location, sum(snr) s FROM units WHERE snr > 1 GROUP BY 1 ORDER BY 1", paths
    )
    expected = query.compute()
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(query)).compute(), expected)
        pd.testing.assert_frame_equal(
            client.submit(lambda q: len(q.columns), query).result() * expected, 2 * expected
        )


def test_names_that_differ_by_case_have_a_number(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 2, ["X", "x", 'a "b"', "select"])
        for i, name in enumerate(["X", "x", 'a "b"', "select"]):
            group.create_dataset(name, data=np.array([i, 10 + i]))
        ragged(group, "Times", [1, 3], np.arange(3.0))
    found = lazynwb_dask.sql(
        'SELECT X, x_1, "a ""b""", "select", len(times) n FROM units WHERE "select" > 3', str(tmp_path)
    ).compute()
    assert found.to_numpy().tolist() == [[10, 11, 12, 13, 2]]


def test_columns_of_a_file_that_are_called_like_those_of_read_nwb(tmp_path: Path) -> None:
    """Of names that differ by case alone, a statement's is the first."""
    for k in range(2):
        with nwb(tmp_path / f"{k}.nwb") as file:
            group = table(file, "/units", 3, ["_NWB_path", "_TABLE_index", "n"])
            group.create_dataset("_NWB_path", data=np.array(["x", "y", "z"], object), dtype=h5py.string_dtype())
            group.create_dataset("_TABLE_index", data=np.array([7, 8, 9]))
            group.create_dataset("n", data=np.arange(3) + 3 * k)
            ragged(group, "Times", [1, 2, 3], np.arange(3.0))
    areas = pd.DataFrame({"_nwb_path": ["x", "z"], "v": [1, 2]})
    names = {"areas": areas}
    found = lazynwb_dask.sql(
        "SELECT n, v FROM units u JOIN areas a ON u._nwb_path = a._nwb_path ORDER BY n",
        str(tmp_path),
        tables=names,
    )
    assert found.compute().to_numpy().tolist() == [[0, 1], [2, 2], [3, 1], [5, 2]]
    first = lazynwb_dask.sql("SELECT n, times FROM units ORDER BY n DESC LIMIT 2", str(tmp_path)).compute()
    assert first.n.tolist() == [5, 4]


def test_what_is_scanned_more_than_once_is_read_once(paths: list[str]) -> None:
    statement = "WITH RECURSIVE r AS (SELECT 0 AS n UNION ALL SELECT r.n + 1 FROM r JOIN units ON units.id = r.n) SELECT max(n) AS n FROM r"
    found, trace = traced(statement, paths[:1])
    assert found.n.tolist() == [30]
    assert trace.total.requests < 5


def test_a_query_cannot_reach_files_or_change_its_limits(paths: list[str]) -> None:
    with engine.connection() as opened:
        for text in (
            "SELECT * FROM '/etc/passwd'",
            "SET enable_external_access = true",
            "COPY (SELECT 1) TO '/tmp/x'",
            "INSTALL httpfs",
        ):
            with pytest.raises(duckdb.Error):
                opened.execute(text).fetchall()


LARGER = """
import sys, json, pathlib
import dask
import lazynwb_dask
from lazynwb_dask.stream import batches

batches.LARGEST = 16 << 20

def memory(what):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))

if __name__ == "__main__":
    limits = {"lazynwb-dask.sql-memory-limit": "64MiB", "lazynwb-dask.memory-cache": "8 MiB"}
    dask.config.set({"lazynwb-dask.cache": False, "scheduler": "sync", **limits})
    frame = lazynwb_dask.read_nwb(sys.argv[1], "/units", blocksize=8 << 20)
    lazynwb_dask.sql("SELECT max(id) FROM units", tables={"units": frame}).compute()
    before = memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    query = lazynwb_dask.sql("SELECT id, list_sum(spike_times) s FROM units", tables={"units": frame})
    count = sum(batch.num_rows for batch in query.record_batches())
    print(json.dumps([count, memory("VmHWM") - before]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_more_bytes_than_memory(tmp_path: Path) -> None:
    rows, each = 4096, 1 << 15
    with nwb(tmp_path / "large.nwb") as file:
        group = table(file, "/units", rows, ["spike_times"])
        data = group.create_dataset("spike_times", (rows * each,), "<f8", chunks=(1 << 20,), compression="gzip")
        chunk = zlib.compress(np.zeros(1 << 20).tobytes(), 1)
        for start in range(0, rows * each, 1 << 20):
            data.id.write_direct_chunk((start,), chunk)
        ends = group.create_dataset("spike_times_index", data=np.arange(1, rows + 1) * each)
        ends.attrs["target"] = data.ref
    code = tmp_path / "run.py"
    code.write_text(LARGER)
    done = subprocess.run(
        [sys.executable, code, tmp_path / "large.nwb"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    count, grown = json.loads(done.stdout)
    assert count == rows
    assert grown < rows * each * 8 / 4, "what is read at a time, and what DuckDB may take"


def test_no_temporary_folder_is_left(paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        lazynwb_dask.sql("SELECT count(*) FROM units", paths).compute()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lazynwb_dask.sql("SELECT count(*) FROM units", paths).compute()
    assert not [*tmp_path.iterdir()]


def test_a_reader_that_is_left_open_leaves_no_folder(paths: list[str], tmp_path: Path) -> None:
    code = f"""
import dask, lazynwb_dask
dask.config.set({{"temporary-directory": {str(tmp_path)!r}}})
reader = lazynwb_dask.sql("SELECT spike_times FROM units", {paths!r}).record_batches()
reader.read_next_batch()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [*tmp_path.iterdir()]
