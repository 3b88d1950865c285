"""An export holds what the files hold, cell for cell, and all readers of Parquet take it as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import dask.dataframe as dd
import duckdb
import fsspec
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from files import nwb, ragged, table
from servers import S3Server

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.export.names import folder_name

ENUM = h5py.enum_dtype({"FALSE": 0, "TRUE": 1}, basetype="i1")
XY = np.dtype([("x", "<i4"), ("y", "<f8")])


def all_kinds(
    path: Path, rows: int = 5, seed: int = 0, session: str = "s", lacking: tuple[str, ...] = ()
) -> Path:
    """A file with a column of each kind of values."""
    random = np.random.default_rng(seed)
    with nwb(path) as file:
        file["general/session_id"] = session
        group = table(file, "/units", rows, [])
        numbers: dict[str, Any] = {
            f"n_{kind}": random.integers(0, 100, rows).astype(kind)
            for kind in ("i1", "u1", "<i2", ">u2", "<i4", "<u4", ">i8", "<u8", "<f2", "<f4", ">f8")
        }
        numbers["n_<f4"][:1] = np.nan
        numbers["n_>f8"][-1:] = np.nan
        numbers["n_<u8"][-1:] = 2**64 - 1
        numbers["b"] = (random.random(rows) > 0.5).astype(ENUM)
        numbers["text"] = np.array(["", "a", "Ünï ☃", "NULL", "x" * 300][:rows], dtype=h5py.string_dtype())
        numbers["cube"] = random.random((rows, 2, 3)).astype("f4")
        numbers["pair"] = np.array([(i, i / 3) for i in range(rows)], XY)
        for name, values in numbers.items():
            if name not in lacking:
                group.create_dataset(name, data=values)
        ends = np.arange(rows) // 2 * 3
        total = int(ends[-1]) if rows else 0
        times = random.random(total)
        times[:1] = np.nan
        ragged(group, "times", ends, times)
        ragged(group, "deep", np.arange(total) + 1, random.integers(0, 9, total))
        inner = group["deep_index"]
        outer = group.create_dataset("deep_index_index", data=ends)
        outer.attrs["neurodata_type"], outer.attrs["target"] = "VectorIndex", inner.ref
        ragged(group, "words", ends, np.array([f"w{i}" for i in range(total)], dtype=h5py.string_dtype()))
        group["times"].attrs["description"] = "when it fired"
        group["times"].attrs["unit"] = "seconds"
        group.attrs["colnames"] = np.array(
            [n for n in group if not n.endswith("_index") and n != "id"], dtype="O"
        )
    return path


def read_pandas(url: str, options: Any = None) -> pa.Table:
    found = pd.read_parquet(url, dtype_backend="pyarrow", storage_options=options)
    return pa.Table.from_pandas(found, preserve_index=False)


def read_dask(url: str, options: Any = None) -> pa.Table:
    found = dd.read_parquet(url, dtype_backend="pyarrow", storage_options=options).compute()
    return pa.Table.from_pandas(found, preserve_index=False)


def read_polars(url: str) -> pa.Table:
    return pl.scan_parquet(url, hive_partitioning=True).collect().to_arrow()


def read_duckdb(url: str) -> pa.Table:
    found: pa.Table = duckdb.sql(
        f"from read_parquet('{url}/**/*.parquet', hive_partitioning=true)"
    ).to_arrow_table()
    return found


READERS: list[Callable[..., pa.Table]] = [read_pandas, read_dask, read_polars, read_duckdb]


def plain(kind: pa.DataType) -> str:
    return str(kind).replace("large_", "").replace("element: ", "").replace("item: ", "").replace("l: ", "")


def sorted_rows(found: pa.Table) -> list[dict[str, Any]]:
    return found.sort_by([("_nwb_path", "ascending"), ("_table_index", "ascending")]).to_pylist()


def same(one: Any, other: Any) -> bool:
    """Whether cells are the same; NaN is NaN, and null is null."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("partition_by", ["session", "size"])
def test_all_readers_find_every_cell_with_its_type(
    tmp_path: Path, reader: Callable[..., pa.Table], partition_by: str
) -> None:
    paths = [
        all_kinds(tmp_path / "a.nwb", 5, 1, "s/1"),
        all_kinds(tmp_path / "b.nwb", 0, 2, "s2"),
        all_kinds(tmp_path / "c.nwb", 3, 3, "s/1", lacking=("b", "n_>f8", "n_<i4", "cube", "pair", "text")),
    ]
    out = str(tmp_path / "out")
    lazynwb_dask.export_tables(paths, out, "units", partition_by=partition_by)
    expected = lazynwb_dask.read_nwb(paths, "/units").compute()
    schema = pa.Schema.from_pandas(expected, preserve_index=False)
    found = reader(f"{out}/units")
    assert [name for name in found.column_names if name != "session"] == schema.names
    for field in schema:
        kind = plain(found.schema.field(field.name).type)
        assert kind == plain(field.type).replace("halffloat", "float"), field.name
    rows = sorted_rows(found)
    assert len(rows) == 8
    for name in schema.names:
        values = expected[name].array
        held = getattr(values, "_pa_array", None)
        cells = pa.array(values, from_pandas=False).to_pylist() if held is None else held.to_pylist()
        if name == "n_>f8":
            cells[5:] = [None] * 3  # missing, not NaN
        wrong = [(row[name], cell) for row, cell in zip(rows, cells, strict=True) if not same(row[name], cell)]
        assert not wrong, (name, wrong[:2])
    if partition_by == "session":
        assert {str(row["session"]) for row in rows} == {"s/1"}
    with h5py.File(paths[0]) as file:
        np.testing.assert_array_equal([row["n_>f8"] for row in rows[:5]], file["units/n_>f8"][:])
        np.testing.assert_array_equal([row["cube"] for row in rows[:5]], file["units/cube"][:])
        assert [row["text"].encode() for row in rows[:5]] == list(file["units/text"][:])


@pytest.mark.parametrize("reader", READERS[:2])
def test_in_a_store(tmp_path: Path, s3_server: S3Server, reader: Callable[..., pa.Table]) -> None:
    s3_server.put("lab", "a", b"")
    paths = [all_kinds(tmp_path / f"{i}.nwb", 4, i, f"s{i}") for i in range(2)]
    options = s3_server.storage_options
    first = lazynwb_dask.export_tables(paths, "s3://lab/out", storage_options=options)
    assert set(first.status) == {"written"}
    found = sorted_rows(reader("s3://lab/out/units", options))
    expected = lazynwb_dask.read_nwb(paths, "/units").compute()
    assert same([row["times"] for row in found], [list(cell) for cell in expected.times])
    assert set(lazynwb_dask.export_tables(paths, "s3://lab/out", storage_options=options).status) == {"kept"}
    assert not fsspec.filesystem("s3", **options).glob("lab/out/.lazynwb*")


def test_every_table_and_the_sessions(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path / "nwb", n=2)
    lazynwb_dask.export_tables(paths, tmp_path / "out")
    for name in lazynwb_dask.list_tables(paths[0]):
        found = pd.read_parquet(f"{tmp_path}/out{name}")
        expected = lazynwb_dask.read_nwb(paths, name).compute()
        assert len(found) == len(expected)
        assert list(found.columns) == [*expected.columns, "session"]
    sessions = pd.read_parquet(tmp_path / "out" / "sessions", dtype_backend="pyarrow")
    expected = lazynwb_dask.read_sessions(paths).compute()
    assert sessions.identifier.tolist() == expected.identifier.tolist()
    assert (sessions.session_start_time == expected.session_start_time).all()
    units = pd.read_parquet(tmp_path / "out" / "units")
    assert set(units.session.astype(str)) == set(sessions.session)


def test_fields_have_descriptions_units_and_shapes(tmp_path: Path) -> None:
    lazynwb_dask.export_tables(all_kinds(tmp_path / "a.nwb"), tmp_path / "out", ["units"])
    schema = ds.dataset(tmp_path / "out" / "units", partitioning="hive").schema
    assert schema.field("times").metadata[b"description"] == b"when it fired"
    assert schema.field("times").metadata[b"unit"] == b"seconds"
    assert schema.field("cube").metadata[b"shape"] == b"rows x 2 x 3"
    assert schema.metadata[b"table_path"] == b"/units"
    assert schema.metadata[b"lazynwb_dask"].decode() == lazynwb_dask.__version__


def test_tables_within_tables_and_odd_names_are_datasets_of_their_own(tmp_path: Path) -> None:
    names = ["/events", "/events/inner", "/processing/a b/_x", "/processing/50%", "/sessions"]
    with nwb(tmp_path / "a.nwb") as file:
        for rows, name in enumerate(names, 1):
            table(file, name, rows, [])
    done = lazynwb_dask.export_tables(tmp_path / "a.nwb", tmp_path / "out")
    places = {row.table: Path(row.path).parts[:-2] for row in done.itertuples() if row.table != "sessions"}
    assert set(places) == set(names)
    for rows, name in enumerate(names, 1):
        found = tmp_path.joinpath("out", *places[name])
        for reader in READERS:
            assert len(reader(str(found))) == rows, (name, reader)
    assert len(pd.read_parquet(tmp_path / "out" / "sessions")) == 1


def test_a_series_is_exported_if_it_is_named(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = file.create_group("acquisition/speed")
        group.attrs["neurodata_type"] = "TimeSeries"
        group.create_dataset("timestamps", data=np.arange(5.0))
        group.create_dataset("data", data=np.arange(5) * 2)
        table(file, "/units", 1, [])
    done = lazynwb_dask.export_tables(tmp_path / "a.nwb", tmp_path / "out", ["/acquisition/speed", "units"])
    assert dict(zip(done.table, done.rows, strict=True)) == {"/acquisition/speed": 5, "/units": 1}
    assert pd.read_parquet(tmp_path / "out" / "acquisition" / "speed").data.tolist() == [0, 2, 4, 6, 8]


def test_a_catalog_is_exported_as_its_files_are(tmp_path: Path) -> None:
    paths = [
        all_kinds(tmp_path / f"{i}.nwb", 4, i, f"s{i}", lacking=("n_>f8", "b") if i else ()) for i in range(2)
    ]
    catalog = lazynwb_dask.build_catalog(paths, tmp_path / "catalog")
    lazynwb_dask.export_tables(paths, tmp_path / "one")
    lazynwb_dask.export_tables(catalog, tmp_path / "other")
    one, other = (sorted_rows(read_polars(f"{tmp_path}/{name}/units")) for name in ("one", "other"))
    assert same(one, other)
    assert {None} == {row["n_>f8"] for row in other[4:]}


def test_signatures_are_written_nowhere(tmp_path: Path, range_server: Any) -> None:
    url = range_server.put("a.nwb", all_kinds(tmp_path / "a.nwb").read_bytes()) + "?X-Amz-Signature=hush"
    lazynwb_dask.export_tables(url, tmp_path / "out")
    for place, _, files in os.walk(tmp_path / "out"):
        for name in files:
            assert b"hush" not in Path(place, name).read_bytes(), name
    found = pd.read_parquet(tmp_path / "out" / "units")
    assert found._nwb_path.unique().tolist() == [url.partition("?")[0]]
    with pytest.raises(ValueError, match="two URLs"):
        lazynwb_dask.export_tables([url, f"{url}2"], tmp_path / "out")


def test_folders_are_named_as_readers_decode_them() -> None:
    for name in ("a", "a/b", "%", "é", ".", "..", "a.b", "_x", "~", " "):
        assert unquote(folder_name(name)) == name
        assert "/" not in folder_name(name)
        assert folder_name(name)[:1] not in "._"
    assert len(folder_name("é" * 5000).encode()) < 200


def test_a_session_that_readers_take_for_none_is_called_as_its_file(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        file["identifier"] = file["general/session_id"] = "__HIVE_DEFAULT_PARTITION__"
        table(file, "/units", 2, [])
    lazynwb_dask.export_tables(tmp_path / "a.nwb", tmp_path / "out", ["units", "sessions"])
    for reader in (read_pandas, read_dask, read_polars, read_duckdb):
        assert set(reader(str(tmp_path / "out/units"))["session"].to_pylist()) == {"a"}
    assert pd.read_parquet(tmp_path / "out/sessions").session.tolist() == ["a"]


def test_columns_that_are_short_or_of_other_types_elsewhere(tmp_path: Path) -> None:
    one: dict[str, Any] = {"x": np.arange(3), "short": np.arange(2.0), "n": np.arange(2), "mixed": np.arange(3)}
    texts = np.array(["p", "q", "r"], dtype=h5py.string_dtype())
    two: dict[str, Any] = {"x": np.array([np.nan, 1, 2.5]), "short": np.full(3, np.nan), "n": np.arange(3)}
    paths = [tmp_path / "a.nwb", tmp_path / "b.nwb"]
    for path, columns in zip(paths, (one, two | {"mixed": texts}), strict=True):
        with nwb(path) as file:
            group = table(file, "/units", 3, list(columns))
            for name, values in columns.items():
                group.create_dataset(name, data=values)
    lazynwb_dask.export_tables(paths, tmp_path / "out", "units")
    for reader in READERS:
        rows = sorted_rows(reader(str(tmp_path / "out" / "units")))
        found = {name: [row[name] for row in rows] for name in two | {"mixed": texts}}
        assert same(found["x"], [0.0, 1.0, 2.0, np.nan, 1.0, 2.5])
        assert same(found["short"], [0.0, 1.0, None, np.nan, np.nan, np.nan])
        assert same(found["n"], [0, 1, None, 0, 1, 2])
        assert same(found["mixed"], ["0", "1", "2", "p", "q", "r"])


def changed(path: Path, random: np.random.Generator) -> None:
    """Write a file with any of some tables and columns, of any of some types."""
    with nwb(path) as file:
        file["general/session_id"] = str(random.choice(["s1", "s/2"]))
        for name in sorted(
            random.choice(["/units", "/units/in", "/x"], random.integers(1, 4), replace=False).tolist()
        ):
            rows = int(random.integers(0, 4))
            group = table(file, name, rows, ["a", "b", "c"])
            for column, kinds in (
                ("a", ["i1", "u2", "i4", "i8"]),
                ("b", ["i4", "f4", "f8", "i8"]),
                ("c", ["i4", "f8"]),
            ):
                values = random.integers(0, 99, rows).astype(str(random.choice(kinds)))
                if random.random() < 0.3:
                    continue
                if column == "c" and random.random() < 0.7:
                    ragged(group, column, np.arange(1, rows + 1), values)
                else:
                    group.create_dataset(column, data=values)


def place(out: Path, done: pd.DataFrame, name: str) -> Path:
    """The folder of a table."""
    part = out / done.path[(done.table == name) & (done.status != "removed")].iloc[0]
    return part.parents[part.parent.name.startswith("session=")]


@pytest.mark.parametrize("partition_by", ["session", "size"])
def test_after_any_changes_an_export_is_as_a_new_one(tmp_path: Path, partition_by: str) -> None:
    random = np.random.default_rng(7)
    old, new = tmp_path / "old", tmp_path / "new"
    paths = [tmp_path / f"{name}.nwb" for name in "pqrs"]
    for step in range(8):
        for path in paths:
            if step == 0 or random.random() < 0.4:
                changed(path, random)
        here = [path for path in paths if random.random() < 0.8] or paths
        size = int(random.choice([1, 200, 10_000]))
        how: dict[str, Any] = {"partition_by": partition_by, "partition_size": size}
        done = lazynwb_dask.export_tables(here, old, prune=True, **how)
        fresh = lazynwb_dask.export_tables(here, new, overwrite=True, **how)
        for name in fresh.table[fresh.status != "removed"].unique():
            if name == "sessions":
                continue
            one, other = (read_polars(str(place(out, made, name))) for out, made in ((old, done), (new, fresh)))
            assert one.schema.equals(other.schema), name
            assert same(sorted_rows(one), sorted_rows(other)), name
        listed = set(done.path[done.status != "removed"])
        assert {path.relative_to(old).as_posix() for path in old.rglob("*.parquet")} == listed
