"""Types that hardly go together, schemas that users give, and what files under these lack."""

from __future__ import annotations

import itertools
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from files import nwb, one, ragged, table

import lazynwb_dask
from lazynwb_dask.errors import NWBReadError, SchemaConflictError

TEXT = h5py.string_dtype()
PAIRS = np.array([(1, 2), (3, 4), (5, 6)], [("p", "i4"), ("q", "f4")])
Fill = Callable[[h5py.Group], Any]


def made(path: Path, fill: Fill, rows: int = 3) -> str:
    """A file with a table of one column that something else writes."""
    with nwb(path) as file:
        fill(table(file, "/units", rows, ["x"]))
    return str(path)


def stored(data: Any, **kwargs: Any) -> Fill:
    return lambda group: group.create_dataset("x", data=data, **kwargs)


def lists(data: Any) -> Fill:
    return lambda group: ragged(group, "x", [1, 1, 3], data)


def doubly_ragged(group: h5py.Group) -> None:
    ragged(group, "x", [1, 2, 3], np.arange(3))
    outer = group.create_dataset("x_index_index", data=[1, 2, 3])
    outer.attrs["target"] = group["x_index"].ref
    outer.attrs["neurodata_type"] = "VectorIndex"


# ------------------------------------------------------------------------------------------ other files
def test_leave_to_follow_links_ends_with_the_read_that_it_was_given_for(tmp_path: Path) -> None:
    with nwb(tmp_path / "other.nwb") as file:
        table(file, "/units", 3, ["secret"]).create_dataset("secret", data=[7, 8, 9])
    path = made(
        tmp_path / "a.nwb",
        lambda group: group.__setitem__("x", h5py.ExternalLink("other.nwb", "/units/secret")),
    )
    schema = pa.schema([("x", pa.int64())])

    def read(allowed: bool) -> list[int]:
        frame = lazynwb_dask.read_nwb(
            path, "/units", schema=schema, allow_external_links=allowed, columns=["x"]
        )
        found: list[int] = frame.x.compute().tolist()
        return found

    for _ in range(2):
        with pytest.raises(NWBReadError, match="an external link"):
            read(False)
        assert read(True) == [7, 8, 9]


def test_a_schema_of_some_files_follows_links_where_that_is_allowed(tmp_path: Path) -> None:
    with nwb(tmp_path / "other.nwb") as file:
        table(file, "/units", 3, ["y"]).create_dataset("y", data=[7, 8, 9])
    path = made(
        tmp_path / "a.nwb", lambda group: group.__setitem__("x", h5py.ExternalLink("other.nwb", "/units/y"))
    )
    frame = lazynwb_dask.read_nwb(path, "/units", schema=1, allow_external_links=True)
    assert frame.x.compute().tolist() == [7, 8, 9]


# --------------------------------------------------------------------------------------- nothing but null
NOTHING = {
    "NaN": stored(np.full(3, np.nan)),
    "NaN of 16 bits": stored(np.full(3, np.nan, "f2")),
    "dangling references": lambda group: group.create_dataset(
        "x", data=np.array([h5py.Reference()] * 3, h5py.ref_dtype), dtype=h5py.ref_dtype
    ),
    "no labels": stored(np.full(3, 7, "u1"), dtype=h5py.enum_dtype({"A": 0}, "u1")),
    "no floats": stored(np.zeros(0)),
    "no integers": stored(np.zeros(0, "i4")),
    "no texts": stored(np.array([], object), dtype=TEXT),
    "no structs": stored(PAIRS[:0]),
    "no lists": lambda group: ragged(group, "x", np.zeros(0, int), np.zeros(0)),
}
NESTED: dict[str, tuple[Fill, str]] = {
    "struct": (stored(PAIRS), "struct<p: int32, q: float>"),
    "complex": (stored(np.array([1, 2, 3j])), "struct<r: double, i: double>"),
    "list of structs": (lists(PAIRS), "list<item: struct<p: int32, q: float>>"),
    "matrix": (stored(np.ones((3, 2, 2), "i8")), "list<item: list<item: int64>>"),
    "doubly ragged": (doubly_ragged, "list<item: list<item: int64>>"),
}


@pytest.mark.parametrize("nothing", NOTHING)
def test_a_column_of_nothing_but_null_takes_any_type_that_another_file_has(
    tmp_path: Path, nothing: str
) -> None:
    empty = made(tmp_path / "empty.nwb", NOTHING[nothing])
    for i, (fill, kind) in enumerate(NESTED.values()):
        full = made(tmp_path / f"{i}.nwb", fill)
        for paths in itertools.permutations([empty, full]):
            got = lazynwb_dask.read_nwb(paths, "/units").compute()
            assert str(got.x.dtype) == f"{kind}[pyarrow]"
            assert (got.x.isna() == (got._nwb_path == empty)).all()


@pytest.mark.parametrize("nothing", [name for name in NOTHING if name.startswith("no ")][1:])
def test_a_column_without_a_stored_row_has_no_say(tmp_path: Path, nothing: str) -> None:
    paths = [made(tmp_path / "a.nwb", NOTHING[nothing]), one(tmp_path / "b.nwb", [2**53 + 1, 0])]
    for order in itertools.permutations(paths):
        x = lazynwb_dask.read_nwb(order, "/units").x
        assert str(x.dtype) == "int64[pyarrow]"
        assert x.compute().dropna().tolist() == [2**53 + 1, 0]


def test_values_that_are_not_null_still_are_a_conflict(tmp_path: Path) -> None:
    paths = [made(tmp_path / "a.nwb", stored([np.nan, 1.5, np.nan])), made(tmp_path / "b.nwb", doubly_ragged)]
    with pytest.warns(UserWarning, match=r"x: double.*list"):
        assert "x" not in lazynwb_dask.read_nwb(paths, "/units")


def test_what_is_null_does_not_depend_on_the_rows_that_are_read_along(tmp_path: Path) -> None:
    paths = [
        made(tmp_path / "a.nwb", stored([np.nan, 1.5, np.nan])),
        made(tmp_path / "b.nwb", lists(np.array([1.0, 2, 3]))),
    ]
    frame = lazynwb_dask.read_nwb(paths, "/units")
    whole = frame.compute()
    some = frame[frame.id == 2].x.compute()
    assert str(some.tolist()) == str(whole[whole.id == 2].x.tolist())


# ------------------------------------------------------------------------------------- nothing is lost
def test_integers_in_lists_become_floats_that_hold_them(tmp_path: Path) -> None:
    big = [2**60, -(2**63), 2**62]
    floats = made(tmp_path / "b.nwb", lists(np.array([0.5, 1e308, np.nan])))
    for fill in (lists(np.array(big)), stored(np.array(big[:1]))):
        path = made(tmp_path / "a.nwb", fill)
        got = lazynwb_dask.read_nwb([path, floats], "/units").x.compute()
        assert str(got.dtype) == "list<item: double>[pyarrow]"
        assert got.iloc[0] == [float(2**60)]
    lost = made(tmp_path / "c.nwb", lists(np.array([2**53 + 1, 0, 0])))
    with pytest.raises(NWBReadError, match=r"c\.nwb: /units: column 'x'.*9007199254740993"):
        lazynwb_dask.read_nwb([lost, floats], "/units").x.compute()


@pytest.mark.parametrize("value", [1e308, 0.1])
def test_an_override_changes_no_value_in_lists_structs_or_short_columns(tmp_path: Path, value: float) -> None:
    pair = np.array([(value,)] * 3, [("p", "f8")])
    for i, (fill, kind) in enumerate(
        [
            (lists(np.full(3, value)), "list<float>"),
            (stored(pair), "struct<p: float>"),
            (stored([value]), "float32"),
        ]
    ):
        path = made(tmp_path / f"{i}.nwb", fill)
        with pytest.raises(NWBReadError, match="is not the same as float"):
            lazynwb_dask.read_nwb(path, "/units", schema={"x": kind}).x.compute()


def test_an_override_keeps_values_that_fit(tmp_path: Path) -> None:
    path = made(tmp_path / "a.nwb", lists(np.array([0.5, np.nan, -2])))
    got = lazynwb_dask.read_nwb(path, "/units", schema={"x": "list<float>"}).x.compute()
    assert str(got.dtype) == "list<item: float>[pyarrow]"
    assert str(got.tolist()) == "[[0.5], [], [nan, -2.0]]"


# --------------------------------------------------------------------------------------- schemas given
GIVEN = [pa.schema([("id", pa.int64()), ("x", pa.int64())]), 1]


@pytest.mark.parametrize("schema", GIVEN)
def test_one_of_several_tables_is_read_under_a_given_schema(tmp_path: Path, schema: Any) -> None:
    path = one(tmp_path / "a.nwb", [1, 2, 3])
    frame = lazynwb_dask.read_nwb(path, ["/nope", "units"], schema=schema)
    assert frame.x.compute().tolist() == [1, 2, 3]
    assert "read" in repr(frame)


@pytest.mark.parametrize("schema", GIVEN)
def test_counting_rows_reads_no_column_under_a_given_schema(tmp_path: Path, schema: Any) -> None:
    paths = [one(tmp_path / "a.nwb", [1, 2, 3]), one(tmp_path / "b.nwb", [0.5, 1, 2])]
    frame = lazynwb_dask.read_nwb(paths, "/units", schema=schema)
    with pytest.raises(NWBReadError, match=r"0\.5"):
        frame.x.compute()
    assert len(frame) == len(frame.id) == len(frame.x) == len(frame.index) == 6
    assert len(frame[frame.id > 0]) == len(frame[frame.id > 0].x) == 4
    assert frame.shape[0].compute() == 6


@pytest.mark.parametrize(
    "kind",
    [
        None,
        pa.decimal128(10, 2),
        pa.list_(pa.float64(), 3),
        pa.struct([("p", pa.date32())]),
        pa.dictionary(pa.int32(), pa.string()),
        "timedelta64[ns]",
    ],
)
def test_a_type_that_no_column_can_have_is_an_error_while_planning(tmp_path: Path, kind: Any) -> None:
    path = one(tmp_path / "a.nwb", [1, 2, 3])
    with pytest.raises(ValueError, match=r"schema: .*give a"):
        lazynwb_dask.read_nwb(path, "/units", schema={"x": kind})
    if isinstance(kind, pa.DataType):
        with pytest.raises(ValueError, match="the column 'x'"):
            lazynwb_dask.read_nwb(path, "/units", schema=pa.schema([("x", kind)]))


def test_a_schema_that_names_a_column_twice_is_an_error(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.int64()), ("y", pa.int64()), ("x", pa.float64())])
    with pytest.raises(ValueError, match="more than one column x"):
        lazynwb_dask.read_nwb(one(tmp_path / "a.nwb", [1]), "/units", schema=schema)


@pytest.mark.parametrize("kind", ["datetime64[ns]", pa.timestamp("us"), pa.timestamp("ms", "UTC")])
def test_texts_and_integers_become_times_where_that_is_asked_for(tmp_path: Path, kind: Any) -> None:
    texts = np.array(["2020-01-01T00:00:00Z" if "UTC" in str(kind) else "2020-01-01"], object)
    for path, second in (
        (one(tmp_path / "a.nwb", [0, 10**6]), 1),
        (one(tmp_path / "b.nwb", texts, dtype=TEXT), 1577836800),
    ):
        frame = lazynwb_dask.read_nwb(path, "/units", schema={"x": kind})
        got = frame.x.compute()
        assert got.dtype == frame.x.dtype
        unit = str(got.dtype).partition("[")[2][:2]
        per = {"ns": 10**9, "us": 10**6, "ms": 1000}[unit]
        assert got.iloc[-1].timestamp() == (10**6 / per if path.endswith("a.nwb") else second)


@pytest.mark.parametrize(
    ("fill", "kind"),
    [
        (lists(np.arange(3.0)), "double"),
        (lists(np.arange(3.0)), "string"),
        (stored(PAIRS), "string"),
        (stored(PAIRS), "list<double>"),
        (stored(PAIRS), "struct<p: int32, z: int32>"),
        (stored(np.arange(3)), "struct<p: int32>"),
        (stored(np.arange(3)), "list<list<double>>"),
        (stored(np.arange(3.0)), "datetime64[ns]"),
    ],
)
def test_an_override_that_values_cannot_have_is_a_conflict_and_not_damage(
    tmp_path: Path, fill: Fill, kind: str
) -> None:
    path = made(tmp_path / "a.nwb", fill)
    with pytest.raises(SchemaConflictError, match=r"a\.nwb: /units: column 'x': .* become .*schema="):
        lazynwb_dask.read_nwb(path, "/units", schema={"x": kind}).x.compute()


def test_an_override_without_a_place_for_missing_values_says_so(tmp_path: Path) -> None:
    path = one(tmp_path / "a.nwb", [1.0, np.nan])
    with pytest.raises(NWBReadError, match=r"a\.nwb: /units: column 'x': .*int64 has no null"):
        lazynwb_dask.read_nwb(path, "/units", schema={"x": "int64"}).x.compute()
    schema = pa.schema([("x", pa.int64())])
    got = lazynwb_dask.read_nwb(path, "/units", schema=schema).x.compute()
    assert got.isna().tolist() == [False, True]


# ------------------------------------------------------------------------------------ what files lack
def test_what_files_lack_under_a_given_schema_is_told_when_they_are_read(tmp_path: Path) -> None:
    paths = [one(tmp_path / "a.nwb", [1, 2, 3])]
    for i in range(2):
        with nwb(tmp_path / f"none{i}.nwb") as file:
            file.create_group("general")
        with nwb(tmp_path / f"short{i}.nwb") as file:
            table(file, "/units", 1, [])
        paths += [str(tmp_path / f"none{i}.nwb"), str(tmp_path / f"short{i}.nwb")]
    schema = pa.schema([("id", pa.int64()), ("x", pa.int64())])
    frame = lazynwb_dask.read_nwb(paths, "/units", schema=schema)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert frame.x.compute(scheduler="sync").isna().sum() == 2
        assert frame.x.compute(scheduler="sync").isna().sum() == 2
    told = sorted(str(w.message).partition(";")[0] for w in caught)
    assert told == ["in some files there is no column x in /units", "in some files there is no table /units"]
    report = lazynwb_dask.read_report(frame)
    assert sorted(map(tuple, report[["path", "error"]].to_numpy())) == [
        *[(p, "no table /units") for p in paths if "none" in p],
        *[(p, "no column x in /units") for p in paths if "short" in p],
    ]
    for path, what in (("none0", "table /units"), ("short0", "column x")):
        strict = lazynwb_dask.read_nwb(tmp_path / f"{path}.nwb", "/units", schema=schema, on_missing="raise")
        for frame in (strict, pickle.loads(pickle.dumps(strict))):  # as in another process
            with pytest.raises(lazynwb_dask.NWBError, match=rf"{path}\.nwb.*no {what}"):
                frame.compute()


def test_no_word_of_columns_that_nobody_reads(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        table(file, "/units", 2, [])
    schema = pa.schema([("id", pa.int64()), ("x", pa.int64())])
    frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units", schema=schema)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert frame.id.compute().tolist() == [0, 1]
        assert len(frame) == 2
    assert not len(lazynwb_dask.read_report(frame))


def test_what_was_persisted_does_not_pretend_that_nothing_failed(tmp_path: Path) -> None:
    path = tmp_path / "rotten.nwb"
    with nwb(path) as file:
        column = table(file, "/units", 30, ["x"]).create_dataset(
            "x", data=np.arange(30), chunks=(30,), fletcher32=True
        )
        offset = column.id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))
    good = one(tmp_path / "good.nwb", [1, 2])
    frame = lazynwb_dask.read_nwb([good, path], "/units", on_error="skip")
    with pytest.warns(UserWarning, match="rotten"):
        kept = frame.assign(y=frame.x + 1).persist()
    assert kept.y.compute().tolist() == [2, 3]
    assert lazynwb_dask.read_report(frame).path.tolist() == [str(path)]
    for made_of in (kept, kept[kept.y > 2]):
        with pytest.raises(ValueError, match="on which persist was called"):
            lazynwb_dask.read_report(made_of)


@pytest.mark.parametrize("nothing", NOTHING)
def test_a_catalog_knows_columns_of_nothing_but_null_as_the_files_do(tmp_path: Path, nothing: str) -> None:
    empty = made(tmp_path / "empty.nwb", NOTHING[nothing])
    for i, (fill, _) in enumerate(NESTED.values()):
        two = [empty, made(tmp_path / f"{i}.nwb", fill)]
        catalog = lazynwb_dask.build_catalog(two, tmp_path / f"catalog{i}")
        got = lazynwb_dask.read_nwb(catalog, "/units")
        want = lazynwb_dask.read_nwb(two, "/units")
        assert (got.dtypes == want.dtypes).all()
        assert str(got.compute().x.tolist()) == str(want.compute().x.tolist())
