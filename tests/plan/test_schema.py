"""One schema over many files: the same whatever their order, and nothing lost."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from files import nwb, ragged, table

import lazynwb_dask
from lazynwb_dask.errors import ColumnNotFoundError, NWBReadError, SchemaConflictError, UnsupportedColumnError
from lazynwb_dask.plan.schema import common


def files(folder: Path, *columns: object) -> list[str]:
    """One file for each column; an object array is text, None lacks the column."""
    paths = []
    for i, values in enumerate(columns):
        path = folder / f"f{i}.nwb"
        with nwb(path) as file:
            group = table(file, "/units", 3 if values is None else len(values), ["x"])  # type: ignore[arg-type]
            if values is not None:
                array = np.asarray(values)
                kind = h5py.string_dtype() if array.dtype.kind in "OU" else None
                group.create_dataset("x", data=array.astype(object) if kind else array, dtype=kind)
        paths.append(str(path))
    return paths


PROMOTED = [
    (["i1", "i4"], "int32"),
    (["u1", "i1"], "int16"),
    (["u4", "u8"], "uint64"),
    (["i8", "f4"], "float64"),
    (["f2", "f4"], "float32"),
    (["?", "u2"], "uint16"),
    (["?", "f4"], "float64"),
    (["i8", "U"], "string"),
    (["?", "i4", "f8", "U"], "string"),
]


@pytest.mark.parametrize(("kinds", "wanted"), PROMOTED)
def test_dtypes_are_resolved_the_same_in_every_order_of_files(
    tmp_path: Path, kinds: list[str], wanted: str
) -> None:
    paths = files(tmp_path, *[np.array([0, 1, 1]).astype(kind) for kind in kinds])
    found = set()
    for order in itertools.permutations(paths):
        frame = lazynwb_dask.read_nwb(order, "/units", columns="x")
        found.add(str(frame.x.dtype))
        assert frame.x.dtype == frame.x.compute().dtype
    assert found == {wanted}


def test_common_types_do_not_depend_on_order() -> None:
    kinds = [pa.bool_(), pa.int8(), pa.uint32(), pa.int64(), pa.float32(), pa.float64(), pa.string()]
    kinds += [pa.list_(pa.int32()), pa.list_(pa.list_(pa.float32())), pa.struct([("a", pa.int8())])]
    for size in (2, 3):
        for some in itertools.combinations(kinds, size):
            assert len({common(order) for order in itertools.permutations(some)}) == 1, some


def test_no_value_changes_when_types_are_joined(tmp_path: Path) -> None:
    big = [2**53, -(2**53), 0]
    paths = files(tmp_path, np.array(big), np.array([0.5, 1e308, np.nan]))
    got = lazynwb_dask.read_nwb(paths, "/units").x.compute().tolist()
    assert got[:5] == [*big, 0.5, 1e308]
    assert np.isnan(got[5])


def test_an_integer_that_float64_cannot_hold_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    paths = files(tmp_path, np.array([2**53 + 1, 0, 1]), np.array([0.5, 1, 2]))
    frame = lazynwb_dask.read_nwb(paths, "/units")
    with pytest.raises(NWBReadError, match=r"f0\.nwb: /units: column 'x'.*9007199254740993.*schema="):
        frame.x.compute()
    apart = lazynwb_dask.read_nwb(paths, "/units", schema={"x": "string"}).x.compute().tolist()
    assert apart[0] == "9007199254740993"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([-1, 0, 1], "u8"),
        ([2**64 - 1, 0, 1], "i8"),
        ([0.5, 1, 2], "i4"),
        ([300, 1, 2], "i1"),
        ([2**63 - 1, 0, 1], "f8"),
    ],
)
def test_an_override_that_would_change_a_value_is_an_error(
    tmp_path: Path, values: list[float], kind: str
) -> None:
    (path,) = files(tmp_path, np.array(values, "u8" if 2**64 - 1 in values else None))
    with pytest.raises(NWBReadError, match="not the same as"):
        lazynwb_dask.read_nwb(path, "/units", schema={"x": kind}).x.compute()


def test_a_column_that_some_files_lack_gets_a_nullable_dtype(tmp_path: Path) -> None:
    for values, dtype in (
        (np.array([1, 2, 3], "i4"), "int32[pyarrow]"),
        (np.array([True, False, True]), "bool[pyarrow]"),
        (np.array([1.5, 2, 3]), "float64"),
        (np.array(["a", "b", ""], object), "string"),
    ):
        paths = files(tmp_path, values, None)
        frame = lazynwb_dask.read_nwb(paths, "/units")
        got = frame.compute()
        assert str(frame.x.dtype) == str(got.x.dtype) == dtype
        assert got.x.tolist()[:3] == list(values)
        assert got.x.isna().tolist() == [False] * 3 + [True] * 3


def test_files_without_rows_have_no_say(tmp_path: Path) -> None:
    paths = files(tmp_path, np.zeros(0, "f8"), np.array([1, 2, 3], "i2"))
    assert lazynwb_dask.read_nwb(paths, "/units").x.compute().tolist() == [1, 2, 3]
    assert lazynwb_dask.read_nwb(paths, "/units").x.dtype == np.dtype("i2")


def conflicting(folder: Path, other: object) -> list[str]:
    """A column of structs in one file, of something else in another."""
    paths = []
    for name, values in (("a", np.zeros(2, [("p", "i4"), ("q", "f4")])), ("b", other)):
        with nwb(folder / f"{name}.nwb") as file:
            group = table(file, "/units", 2, ["x", "y"])
            group.create_dataset("x", data=values)
            group.create_dataset("y", data=np.arange(2))
        paths.append(str(folder / f"{name}.nwb"))
    return paths


def test_a_conflict_costs_only_its_column_and_is_an_error_when_it_is_named(tmp_path: Path) -> None:
    paths = conflicting(tmp_path, np.array([1.5, 2.5]))
    with pytest.warns(UserWarning, match=r"1 columns are left out.*x: .*b\.nwb.*a\.nwb"):
        frame = lazynwb_dask.read_nwb(paths, "/units")
    assert list(frame.columns) == ["id", "y", "_nwb_path", "_table_path", "_table_index"]
    assert frame.y.compute().tolist() == [0, 1, 0, 1]
    for arguments in ({"columns": ["x"]}, {"filters": [("x", ">", 1)]}):
        with pytest.raises(SchemaConflictError, match=r"b\.nwb.*a\.nwb.*schema="):
            lazynwb_dask.read_nwb(paths, "/units", **arguments)  # type: ignore[arg-type]


def test_a_column_that_is_all_null_in_one_file_takes_the_others_type(tmp_path: Path) -> None:
    paths = conflicting(tmp_path, np.array([np.nan, np.nan]))
    got = lazynwb_dask.read_nwb(paths, "/units").compute()
    assert got.x.isna().tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    "sources", [list, lambda paths: lazynwb_dask.build_catalog(paths, f"{paths[0]}.catalog")]
)
@pytest.mark.parametrize("kind", ["i8", "u8"])
@pytest.mark.parametrize("nan", [np.full(3, np.nan), np.full(2, np.nan, "f4")])
def test_nan_only_beside_integers_that_float64_cannot_hold_is_null(
    tmp_path: Path, sources: Any, kind: str, nan: np.ndarray
) -> None:
    big = [2**53 + 1, 5, 7]
    paths = files(tmp_path, nan, np.array(big, kind), np.array([7], "i4"))
    frame = lazynwb_dask.read_nwb(sources(paths), "/units")
    got = frame.compute()
    assert str(got.x.dtype) == "int64[pyarrow]"
    assert got.x.isna().tolist() == [True] * len(nan) + [False] * 4
    assert got.x.dropna().tolist() == [*big, 7]
    assert frame[frame.x > 2**53].compute().x.tolist() == [2**53 + 1]


def test_lists_and_scalars_join_and_ranks_do_not(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 2, ["x", "w"])
        ragged(group, "x", [2, 3], np.array([1, 2, 3], "i4"))
        group.create_dataset("w", data=np.zeros((2, 3)))
    with nwb(tmp_path / "b.nwb") as file:
        group = table(file, "/units", 2, ["x", "w"])
        group.create_dataset("x", data=np.array([0.5, np.nan]))
        group.create_dataset("w", data=np.zeros((2, 3, 4)))
    with pytest.warns(UserWarning, match="w: "):
        got = lazynwb_dask.read_nwb([tmp_path / "a.nwb", tmp_path / "b.nwb"], "/units").compute()
    assert str(got.x.dtype) == "list<item: double>[pyarrow]"
    assert got.x.tolist()[:3] == [[1.0, 2.0], [3.0], [0.5]]
    assert "w" not in got


def test_shapes_that_differ_are_no_conflict(tmp_path: Path) -> None:
    paths = files(tmp_path, np.ones((2, 3)), np.ones((2, 5)))
    got = lazynwb_dask.read_nwb(paths, "/units").x.compute()
    assert got.list.len().tolist() == [3, 3, 5, 5]


def test_an_unreadable_column_is_an_error_only_when_it_is_named(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 2, ["x", "y"])
        group.create_dataset("x", data=np.zeros(2, "V3"))
        group.create_dataset("y", data=np.arange(2))
    with pytest.warns(UserWarning, match="opaque"):
        assert "x" not in lazynwb_dask.read_nwb(tmp_path / "f.nwb", "/units")
    with pytest.raises(UnsupportedColumnError, match=r"opaque.*f\.nwb"):
        lazynwb_dask.read_nwb(tmp_path / "f.nwb", "/units", columns=["x"])


def test_unknown_columns_are_errors_that_name_what_is_near(tmp_path: Path) -> None:
    (path,) = files(tmp_path, np.arange(3))
    for arguments in ({"columns": ["xx"]}, {"schema": {"xx": "f8"}}):
        with pytest.raises(ColumnNotFoundError, match="did you mean 'x'"):
            lazynwb_dask.read_nwb(path, "/units", **arguments)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        lazynwb_dask.read_nwb(path, "/units", filters="xx > 1")


def test_a_given_schema_opens_no_file_while_planning(tmp_path: Path) -> None:
    paths = files(tmp_path, np.array([1, 2, 3], "i4"), None, np.array([0.5, 1, 2]))
    schema = pa.schema([("x", pa.float64()), ("id", pa.int64())])
    frame = lazynwb_dask.read_nwb([*paths, str(tmp_path / "not there.nwb")], "/units", schema=schema)
    assert list(frame.columns) == ["x", "id", "_nwb_path", "_table_path", "_table_index"]
    assert not frame.known_divisions
    got = frame.partitions[:3].compute()
    assert got.x.tolist()[:3] == [1, 2, 3]
    assert got.x.isna().sum() == 3
    assert got._table_index.tolist() == [0, 1, 2] * 3
    assert got.index.tolist() == [0, 1, 2] * 3
    assert len(frame.partitions[:3]) == 9
    kept = frame.partitions[:3]
    kept = kept[kept.x >= 1].compute()
    assert kept.x.tolist() == [1, 2, 3, 1, 2]


def test_a_schema_of_some_files_serves_all(tmp_path: Path) -> None:
    paths = files(tmp_path, np.array([1, 2, 3], "i4"), None, np.array([4, 5, 6], "i4"))
    frame = lazynwb_dask.read_nwb(paths, "/units", schema=1)
    assert str(frame.x.dtype) == "int32[pyarrow]"
    assert frame.x.compute().tolist()[:3] == [1, 2, 3]


def test_files_that_give_the_schema_are_spread_over_the_list(tmp_path: Path) -> None:
    paths = files(tmp_path, [1, 2, 3], None, None, None, np.array([0.5, 1, 2]))
    frame = lazynwb_dask.read_nwb(paths, "/units", schema=2)
    assert str(frame.x.dtype) == "float64"
    assert frame.x.compute().dropna().tolist() == [1, 2, 3, 0.5, 1, 2]


def test_the_schema_report_says_what_was_found_where(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 2, ["x"])
        made = group.create_dataset("x", data=np.zeros((2, 3), "i2"))
        made.attrs["description"], made.attrs["unit"] = "how many", "volts"
    with nwb(tmp_path / "b.nwb") as file:
        table(file, "/units", 2, []).create_dataset("only", data=[1.5, 2])
    report = lazynwb_dask.schema_report([tmp_path / "a.nwb", tmp_path / "b.nwb"], "units")
    assert isinstance(report, pd.DataFrame)
    x = report.loc["x"]
    assert (x["files"], x["missing"], x["shape"]) == (1, 1, "rows x 3")
    assert (x["description"], x["unit"]) == ("how many", "volts")
    assert report.loc["only", "found"] == "float64 (1)"
    (tmp_path / "c.nwb").write_text("not HDF5")
    every = [tmp_path / "a.nwb", tmp_path / "b.nwb", tmp_path / "c.nwb"]
    with pytest.raises(NWBReadError, match=r"c\.nwb"):
        lazynwb_dask.schema_report(every, "units")
    with pytest.warns(UserWarning, match="1 of 3 files can't be read"):
        tolerant = lazynwb_dask.schema_report(every, "units", on_error="skip")
    pd.testing.assert_frame_equal(tolerant, report)
