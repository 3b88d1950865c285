"""Catalogs where things have changed: files that vanish, damage, names that don't exist; and conditions in
whatever form Dask gives them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.config
import dask.dataframe as dd
import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from files import nwb, table
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask import expr
from lazynwb_dask.cli.main import main
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBError, NWBFileNotFoundError, NWBReadError, TableNotFoundError
from lazynwb_dask.predicate.filters_argument import from_filters
from lazynwb_dask.predicate.intervals import bounds

ROWS = 10


def write(path: Path, number: int, rows: int = ROWS) -> Path:
    """A file whose values tell it from others."""
    with nwb(path) as file:
        group = table(file, "/units", rows, ["x", "n", "t"])
        group.create_dataset("x", data=100.0 * number + np.arange(rows))
        group.create_dataset("n", data=np.arange(rows) + 1000 * number)
        group.create_dataset("t", data=[f"r{number}"] * rows)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sessions")
    for i in range(10):
        write(folder / f"{i}.nwb", i)
    return folder


@pytest.fixture(scope="module")
def units(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dd.DataFrame:
    made = lazynwb_dask.build_catalog(folder, tmp_path_factory.mktemp("catalogs") / "all")
    return lazynwb_dask.read_nwb(made, "/units", blocksize=None)


# ------------------------------------------------------------------------------------------ conditions
MASKS: dict[str, Callable[[Any], Any]] = {
    "between": lambda d: d.x.between(300, 303),
    "between by name": lambda d: d.x.between(left=300, right=303),
    "between, half open": lambda d: d.n.between(2009, 3000, inclusive="left"),
    "between, open": lambda d: d.x.between(209, 301, inclusive="neither"),
    "gt": lambda d: d.x.gt(850),
    "ge": lambda d: d.x.ge(900),
    "lt": lambda d: d.n.lt(5),
    "le": lambda d: d.n.le(0),
    "eq": lambda d: d.x.eq(300),
    "not ne": lambda d: ~d.n.ne(3003),
    "not between": lambda d: ~d.x.between(100, 2000),
    "text": lambda d: d.t.between("r3", "r4", inclusive="left"),
    "both": lambda d: d.x.gt(200) & d.x.lt(205),
}


@pytest.mark.parametrize("name", MASKS)
def test_methods_that_compare_leave_out_the_files_that_operators_do(
    folder: Path, units: dd.DataFrame, name: str
) -> None:
    ours = units[MASKS[name](units)]
    assert ours.optimize().npartitions == 1
    plain = lazynwb_dask.read_nwb(folder, "/units", blocksize=None).compute()
    wanted = plain[MASKS[name](plain)]
    assert len(wanted)
    oracle.assert_same(ours.compute(), wanted)


@pytest.mark.parametrize(
    "query", ["x.between(300, 303)", "x.between(209, 301, inclusive='neither')", "x.gt(other=850)"]
)
def test_methods_in_queries_take_arguments_by_name_too(units: dd.DataFrame, query: str) -> None:
    ours = units.query(query)
    assert ours.optimize().npartitions == 1
    assert len(ours) == len(units.compute().query(query))


def test_a_method_that_fills_what_is_missing_is_no_mere_comparison(units: dd.DataFrame) -> None:
    for mask in (units.x.gt(850, fill_value=900), units.x.eq(units.n)):
        assert units[mask].optimize().npartitions == 10


def test_methods_bound_times_as_operators_do(units: dd.DataFrame) -> None:
    def of(mask: Any) -> tuple[float, float]:
        (node,) = expr.reads(units[mask])
        return bounds(node.predicate, "x")

    assert of(units.x.gt(3)) == of(units.x > 3)
    assert of(units.x.eq(3)) == (3.0, 3.0)
    assert of(units.x.between(right=5, left=3)) == (3.0, 5.0)
    assert of(units.x.between(3, 5, inclusive="left")) == of((units.x >= 3) & (units.x < 5))
    assert of(units.x.gt(3, fill_value=9)) == (-np.inf, np.inf)
    assert bounds(from_filters("x.between(right=5, left=3)"), "x") == (3.0, 5.0)


# ----------------------------------------------------------------------------------------- row numbers
ROW_NUMBERS: dict[str, Callable[[Any], Any]] = {
    "first": lambda d: d._table_index < 5,
    "method": lambda d: d._table_index.between(0, 4),
    "text": lambda d: d._table_index.isin([3, 4]),
    "or": lambda d: (d._table_index == 3) | (d.x == 1e6),
    "and": lambda d: (d._table_index < 50) & (d.n >= 49),
    "not": lambda d: ~(d._table_index >= 7),
}


@pytest.mark.parametrize("cataloged", [True, False])
@pytest.mark.parametrize("name", ROW_NUMBERS)
def test_partitions_of_a_split_table_are_left_out_by_their_row_numbers(
    tmp_path: Path, name: str, cataloged: bool
) -> None:
    paths = [write(tmp_path / f"{i}.nwb", i, 200) for i in range(2)]
    source = lazynwb_dask.build_catalog(paths, tmp_path / "catalog") if cataloged else paths
    units = lazynwb_dask.read_nwb(source, "/units", blocksize="3 kB")
    assert units.npartitions > 20
    query = units[ROW_NUMBERS[name](units)]
    (read,) = lazynwb_dask.explain(query).reads
    if name != "or" or cataloged:  # else nothing is known of x
        assert read.partitions_left <= (8 if name == "and" else 2)
    whole = units.compute()
    wanted = whole[ROW_NUMBERS[name](whole)]
    assert len(wanted)
    oracle.assert_same(query.compute(), wanted)


def test_partitions_of_unknown_rows_are_kept(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.nwb", i) for i in range(2)]
    schema = pa.schema([("x", pa.float64())])
    units = lazynwb_dask.read_nwb(paths, "/units", schema=schema)
    assert len(units[units._table_index < 5].compute()) == 10


def test_no_partition_with_matching_rows_is_left_out_of_a_split_table(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.nwb", i, 120) for i in range(3)]
    made = lazynwb_dask.build_catalog(paths, tmp_path / "catalog")
    units = lazynwb_dask.read_nwb(made, "/units", blocksize="3 kB")
    whole = units.compute()
    for query in (
        "_table_index > 60 and x < 180", "not (_table_index > 3) or t == 'r1'", "t != 'r1'",
        "_table_index == 119 and n in [1119, 2119]", "x > 150 and not (_table_index <= 100)",
    ):  # fmt: skip
        (read,) = lazynwb_dask.explain(units.query(query)).reads
        assert read.partitions_left < units.npartitions
        oracle.assert_same(units.query(query).compute(), whole.query(query))


# --------------------------------------------------------------------------------------------- explain
CHANGED: dict[str, Callable[[Any], Any]] = {
    "rename": lambda d: d.rename(columns={"x": "y"}).query("y > 850"),
    "assign": lambda d: d.assign(z=d.x * 2).query("z > 850"),
    "sort": lambda d: d.sort_values("x").query("x > 850"),
    "merge": lambda d: d.merge(d[["n", "t"]], on="n").query("x > 850"),
    "reset": lambda d: d.reset_index().query("x > 850"),
    "astype": lambda d: d.astype({"x": "float32"}).query("x > 850"),
    "map_partitions": lambda d: d.map_partitions(lambda part: part).query("x > 850"),
    "dropna": lambda d: d.rename(columns={"x": "y"}).dropna(subset=["y"]),
}


@pytest.mark.parametrize("name", CHANGED)
def test_conditions_on_a_changed_frame_are_told_with_the_reason(units: dd.DataFrame, name: str) -> None:
    told = lazynwb_dask.explain(CHANGED[name](units))
    (text, why) = told.left[0]
    assert text in ("y > 850", "z > 850", "x > 850", "dropna(subset=['y'])")
    assert "changed after reading" in why
    assert "After reading" in str(told)


def test_a_query_that_is_not_by_row_and_a_dropna_are_told(units: dd.DataFrame) -> None:
    ((text, why),) = lazynwb_dask.explain(units.query("x > x.mean()")).left
    assert (text, why) == ("x > x.mean()", "it isn't known to look at each row by itself")
    ((text, why),) = lazynwb_dask.explain(units[units.x > 850].x.dropna()).left
    assert text == "dropna()"
    assert "notnull()" in why
    assert not lazynwb_dask.explain(units.query("x > 850")).left


def test_files_without_a_reliable_version_are_indexed_again(range_server: RangeServer, tmp_path: Path) -> None:
    range_server.behaviour.etag = range_server.behaviour.last_modified = "none"
    for number in (1, 2):  # files as long as each other
        data = write(tmp_path / "a.nwb", number).read_bytes()
        made = lazynwb_dask.build_catalog(range_server.put("a.nwb", data), tmp_path / "catalog")
        assert lazynwb_dask.read_nwb(made, "/units").x.compute().tolist()[0] == 100.0 * number


def test_a_refresh_looks_up_the_paths_of_the_last_build(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    named = [write(tmp_path / "in" / f"{i}.nwb", i) for i in range(2)]
    lazynwb_dask.build_catalog(named, tmp_path / "catalog")
    made = lazynwb_dask.build_catalog(tmp_path / "in", tmp_path / "catalog")  # the same files
    write(tmp_path / "in" / "2.nwb", 2)
    assert len(made.refresh()) == 3


# ------------------------------------------------------------------------------------------- vanishing
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_refresh_drops_vanished_files_that_were_named_one_by_one(tmp_path: Path, on_error: str) -> None:
    paths = [write(tmp_path / f"{i}.nwb", i) for i in range(3)]
    made = lazynwb_dask.build_catalog(paths, tmp_path / "catalog")
    data = paths[1].read_bytes()
    paths[1].unlink()
    for _ in range(2):  # and goes on being gone
        made = made.refresh(on_error=on_error)
        assert [Path(p).name for p in made.paths] == ["0.nwb", "2.nwb"]
        assert not len(made.failures)
        assert len(lazynwb_dask.read_nwb(made, "/units")) == 2 * ROWS
    snapshot = made.manifest.snapshot
    assert made.refresh().manifest.snapshot == snapshot
    paths[1].write_bytes(data)
    assert len(made.refresh()) == 3  # it was named, and is back


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_refresh_drops_files_that_have_vanished_from_a_store(
    tmp_path: Path, kind: str, range_server: RangeServer, s3_server: S3Server
) -> None:
    paths = [write(tmp_path / f"{i}.nwb", i) for i in range(3)]
    options: dict[str, Any] = {}
    if kind == "http":
        urls = [range_server.put(p.name, p.read_bytes()) for p in paths]
    else:
        urls = [s3_server.put("lab", p.name, p.read_bytes()) for p in paths]
        options = {"storage_options": s3_server.storage_options}
    made = lazynwb_dask.build_catalog(urls, tmp_path / "catalog", **options)
    if kind == "http":
        range_server.reset()
        for p in (paths[0], paths[2]):
            range_server.put(p.name, p.read_bytes())
    else:
        s3_server.reset()
        for p in (paths[0], paths[2]):
            s3_server.put("lab", p.name, p.read_bytes())
    assert made.refresh().paths == [urls[0], urls[2]]


def test_what_was_never_there_stays_a_failure_and_if_all_is_gone_the_catalog_stays(tmp_path: Path) -> None:
    there = write(tmp_path / "0.nwb", 0)
    named = [there, tmp_path / "typo.nwb"]
    with pytest.raises(
        NWBFileNotFoundError, match=r"^/.*no such file\. .* did you mean '0\.nwb'\? on_error='skip' leaves"
    ):
        lazynwb_dask.build_catalog(named, tmp_path / "catalog")
    made = lazynwb_dask.build_catalog(named, tmp_path / "catalog", on_error="skip")
    assert made.refresh(on_error="skip").failures.path.tolist() == [str(named[1])]
    alone = lazynwb_dask.build_catalog([there], tmp_path / "alone")
    there.unlink()
    with pytest.raises(NWBReadError, match=r"none of its files exists any more"):
        alone.refresh()
    assert len(lazynwb_dask.open_catalog(tmp_path / "alone")) == 1


# ---------------------------------------------------------------------------------------------- damage
@pytest.mark.parametrize("text", ['{"format": 1, "library": "0.0.9"}', "", "no JSON", "[]", "{}"])
def test_a_catalog_that_cannot_be_read_is_built_again_as_the_message_says(
    folder: Path, tmp_path: Path, text: str
) -> None:
    where = tmp_path / "catalog"
    made = lazynwb_dask.build_catalog(folder, where)
    (where / "_manifest.json").write_text(text)
    for call in (lambda: lazynwb_dask.open_catalog(where), made.refresh):
        with pytest.raises(NWBReadError, match="build it again with build_catalog"):
            call()
    again = lazynwb_dask.build_catalog(folder, where)
    assert len(lazynwb_dask.read_nwb(again, "/units")) == 10 * ROWS
    assert len(lazynwb_dask.open_catalog(where).refresh()) == 10


# --------------------------------------------------------------------------------------------- messages
def test_a_table_that_no_file_has_makes_no_catalog(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=5, mean_spikes=10)
    where = tmp_path / "catalog"
    with pytest.raises(TableNotFoundError, match=r"/unitz; did you mean '/units'\?"):
        lazynwb_dask.build_catalog(path, where, tables="/unitz")
    assert not (where / "_manifest.json").exists()
    with pytest.warns(UserWarning, match="none of the files has a table /unitz"):
        made = lazynwb_dask.build_catalog(path, where, tables=["/unitz", "/units"])
    assert list(made.tables.index) == ["/units"]


def test_a_bucket_that_does_not_exist_is_named(folder: Path, s3_server: S3Server) -> None:
    with pytest.raises(NWBError, match=r"^s3://nowhere/catalog: nothing can be written there"):
        lazynwb_dask.build_catalog(folder, "s3://nowhere/catalog", storage_options=s3_server.storage_options)


def test_the_command_line_speaks_of_its_own_options(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
            done = CliRunner().invoke(main, ["catalog", "build", *arguments])
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit), "no traceback"
        assert done.stderr.startswith("Error: ")
        return done.stderr

    where, path = str(tmp_path / "catalog"), str(write(tmp_path / "0.nwb", 0))
    told = run(where, str(tmp_path / "missing.nwb"))
    assert "no such file. " in told
    assert ". --skip-errors leaves such files out" in told
    (tmp_path / "a file").write_text("")
    run(str(tmp_path / "a file/catalog"), path)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    assert nobody in run(where, path, "--scheduler", nobody)


def test_a_folder_without_a_catalog_is_a_file_that_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NWBFileNotFoundError, match=r"build_catalog\(paths, url\) makes one"):
        lazynwb_dask.open_catalog(tmp_path)


def test_failures_of_a_catalog_are_texts_also_where_there_are_none(tmp_path: Path) -> None:
    good = make_sessions(tmp_path / "s", n=1, units=3)
    (tmp_path / "bad.nwb").write_text("no HDF5")
    whole = lazynwb_dask.build_catalog(good, tmp_path / "a").failures
    some = lazynwb_dask.build_catalog([*good, tmp_path / "bad.nwb"], tmp_path / "b", on_error="skip").failures
    left_out = lazynwb_dask.read_report(lazynwb_dask.read_nwb(good, "units"))
    assert len(whole) == len(left_out) == 0
    assert len(some) == 1
    assert whole.dtypes.tolist() == some.dtypes.tolist() == left_out.dtypes.tolist()
    assert all(map(pd.api.types.is_string_dtype, some.dtypes))
