"""Tables of the same files belong together file by file: without a shuffle, and as pandas would have it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask.base import collections_to_expr
from distributed import Client, LocalCluster
from files import nwb, ragged, table
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from servers import RangeServer
from toy import READS, ToyScan, reading

import lazynwb_dask
from lazynwb_dask import expr, map_files, merge_by_file, read_nwb
from lazynwb_dask.by_file import join as paired
from lazynwb_dask.by_file import map as mapped
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import ColumnNotFoundError, NWBError
from lazynwb_dask.expr import from_scan

HOWS = ("inner", "left", "right", "outer")


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """One side after the other: toy scans don't note reads of several threads."""
    for module in (paired, mapped):
        monkeypatch.setattr(module, "at_once", lambda calls: [call() for call in calls])


# --------------------------------------------------------------------------------- what pandas would do
def nullable(frame: pd.DataFrame, but: list[str]) -> pd.DataFrame:
    """A frame whose integers and booleans can be missing."""
    kinds = {
        name: pd.ArrowDtype(pa.from_numpy_dtype(dtype))
        for name, dtype in frame.dtypes.items()
        if isinstance(dtype, np.dtype) and dtype.kind in "iub" and name not in but
    }
    return frame.astype(kinds)


def merged(
    left: pd.DataFrame,
    right: pd.DataFrame,
    on: list[tuple[str, str]],
    how: str,
    suffixes: tuple[str, str] = ("_x", "_y"),
    paths: list[str] = [f"/data/{i}.nwb" for i in range(9)],  # noqa: B006
) -> pd.DataFrame:
    """pandas' merge of each file, one after the other."""
    once = [a for a, b in on if a == b]
    plain_k = right.get("k")
    if how in ("right", "outer"):
        left = nullable(left, once)
    if how in ("left", "outer"):
        right = nullable(right, once)
    keys = {"left_on": ["_nwb_path", *[a for a, _ in on]], "right_on": ["_nwb_path", *[b for _, b in on]]}
    whole = left.iloc[:0].merge(right.iloc[:0], how=how, suffixes=suffixes, **keys)
    if ("x", "k") in on:  # pandas can't compare floats with integers that may be missing
        right = right.assign(k=plain_k)
    pieces = [
        left[left._nwb_path == path].merge(right[right._nwb_path == path], how=how, suffixes=suffixes, **keys)
        for path in paths
    ]
    pieces = [piece for piece in pieces if len(piece)]
    return pd.concat(pieces, ignore_index=True).astype(whole.dtypes) if pieces else whole


def assert_same(got: pd.DataFrame, wanted: pd.DataFrame, unique: bool = True) -> None:
    assert got.index.is_unique or not unique
    pd.testing.assert_frame_equal(
        got.reset_index(drop=True), wanted.reset_index(drop=True), check_index_type=False
    )


LEFT_COLUMNS = ["n", "x", "k", "area", "depth", "spikes", "good", "_nwb_path", "_table_index"]
RIGHT_COLUMNS = ["k", "y", "area", "depth", "n", "good", "_nwb_path", "_table_index"]
KEYS = [
    [("k", "k")],
    [("area", "area")],
    [("depth", "depth")],
    [("k", "k"), ("area", "area")],
    [("area", "area"), ("n", "k")],
    [("n", "k")],
    [("k", "n"), ("depth", "depth")],
    [("_table_index", "_table_index")],
    [("x", "k")],
    [("depth", "k")],
]
ON_SIDES: list[Callable[[Any], Any]] = [
    lambda f: f,
    lambda f: f[f.n > 0],
    lambda f: f[f.depth.isin([1, 2, 3])],
    lambda f: f[f._nwb_path != "/data/1.nwb"],
    lambda f: f[f.n > 100],
]
ON_RESULTS: list[Callable[[Any], Any]] = [
    lambda f: f,
    lambda f: f[f.x > 0],
    lambda f: f[f.y < 0.5],
    lambda f: f[f.x > f.y],
    lambda f: f[(f.x > 0) & (f.y < 1) & (f._nwb_path != "/data/0.nwb")],
    lambda f: f[(f.x > 0) | (f.y < 0)],
    lambda f: f[f.x.isna()],
    lambda f: f[f._nwb_path == "/data/2.nwb"],
    lambda f: f.query("x > 0 and y > 0"),
    lambda f: f[f["_table_index_x"] > 1] if "_table_index_x" in f.columns else f,
    lambda f: f[f.k == 1] if "k" in f.columns else f[f.k_y == 1],
    lambda f: f[f.area == "CA1"] if "area" in f.columns else f[f.area_x == "CA1"],
    lambda f: f[f.depth > 3] if "depth" in f.columns else f[f.depth_y > 3],
    lambda f: f[f.y.notnull()][["y", "spikes", "_nwb_path"]],
    lambda f: f[["spikes", "x"]],
]
SIZES = st.lists(st.sampled_from([0, 1, 2, 3, 5, 9]), min_size=1, max_size=5).map(tuple)


@settings(
    max_examples=40,
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    sizes=st.tuples(SIZES, SIZES),
    pieces=st.integers(1, 2),
    blocksize=st.sampled_from([1, 900, 1 << 20]),
    fuse=st.booleans(),
    known=st.sampled_from([True, True, True, False]),
    stays=st.booleans(),
    late=st.sampled_from([0, 1 << 16]),
    how=st.sampled_from(HOWS),
    keys=st.sampled_from(KEYS),
    sides=st.tuples(st.sampled_from(ON_SIDES), st.sampled_from(ON_SIDES)),
    then=st.sampled_from(ON_RESULTS),
)
@example(
    sizes=((3, 9, 5), (2, 9)), pieces=2, blocksize=900, fuse=True, known=True, stays=True, late=0,
    how="outer", keys=[("area", "area")], sides=(ON_SIDES[0], ON_SIDES[0]), then=ON_RESULTS[0],
)  # fmt: skip
def test_whatever_is_joined_and_asked_the_result_is_what_pandas_gives(
    in_turn: None, monkeypatch: pytest.MonkeyPatch, sizes: Any, pieces: int, blocksize: int, fuse: bool,
    known: bool, stays: bool, late: int, how: Any, keys: Any, sides: Any, then: Any,
) -> None:  # fmt: skip
    monkeypatch.setattr(paired, "LATE", late)
    scans = [
        ToyScan(s, seed, blocksize, fusable=known, indexed=known, parts_per_file=pieces if known else 1)
        for seed, s in enumerate(sizes)
    ]
    names = LEFT_COLUMNS, RIGHT_COLUMNS
    frames = [f(from_scan(s)[c]) for f, s, c in zip(sides, scans, names, strict=True)]
    wholes = [f(s.whole()[c]) for f, s, c in zip(sides, scans, names, strict=True)]
    on = {"left_on": [a for a, _ in keys], "right_on": [b for _, b in keys]}
    with dask.config.set({"lazynwb-dask.fuse": fuse}):
        joined = merge_by_file(*frames, how=how, **on)
        wanted = merged(*wholes, keys, how)
        assert joined.dtypes.to_dict() == wanted.dtypes.to_dict()
        got = then(joined).compute()
        assert_same(got, then(wanted), unique=known)
        assert joined.known_divisions == known
        if stays and known:  # a row keeps its label whatever else is asked
            whole = joined[got.columns.tolist()].compute()
            pd.testing.assert_frame_equal(whole.loc[got.index], got)


def test_files_come_in_the_order_of_the_left_frame_then_those_of_the_right() -> None:
    left, right = ToyScan((2, 3, 1)), ToyScan((3, 1, 2, 4, 2), 1)
    some = from_scan(right).partitions[[4, 2, 0, 3]]
    joined = merge_by_file(from_scan(left), some, on="k", how="outer")
    paths = list(dict.fromkeys(joined._nwb_path.compute()))
    assert paths == [f"/data/{i}.nwb" for i in (0, 1, 2, 4, 3)]
    inner = merge_by_file(some, from_scan(left), on="k")
    assert list(dict.fromkeys(inner._nwb_path.compute())) <= ["/data/2.nwb", "/data/0.nwb"]


def test_keys_may_have_other_names_and_columns_the_same() -> None:
    left, right = ToyScan((9, 12)), ToyScan((8, 8), 1)
    a, b = left.whole(), right.whole()
    got = merge_by_file(
        from_scan(left), from_scan(right), left_on="n", right_on="k", suffixes=("", "_of_right")
    )
    assert_same(got.compute(), merged(a, b, [("n", "k")], "inner", ("", "_of_right")))
    some = got[got.x_of_right > 0][["x_of_right", "spikes"]]
    wanted = merged(a, b, [("n", "k")], "inner", ("", "_of_right"))
    assert_same(some.compute(), wanted[wanted.x_of_right > 0][["x_of_right", "spikes"]])


def test_the_path_is_there_once_whether_selected_or_not() -> None:
    left, right = from_scan(ToyScan((9, 12))), from_scan(ToyScan((8, 8), 1))
    for a, b in ((left, right), (left[["k", "x"]], right), (left, right[["k", "y"]]),
                 (left[["k", "x"]], right[["k", "y"]])):  # fmt: skip
        joined = merge_by_file(a, b, on="k")
        assert joined.columns.tolist().count("_nwb_path") == 1
        assert joined._nwb_path.compute().isin(["/data/0.nwb", "/data/1.nwb"]).all()
    assert joined.columns.tolist() == ["k", "x", "_nwb_path", "y"]
    assert merge_by_file(left[["x"]], right[["y"]], left_on="x", right_on="y").compute().empty
    by_path = merge_by_file(left[["x", "_nwb_path"]], right[["y"]], on="_nwb_path")
    assert len(by_path) == 9 * 8 + 12 * 8


def test_a_file_that_is_named_twice_is_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "a.nwb")
    session(Path(path), 0, 4)
    whole = read_nwb(path, "/units").compute()
    twice = pd.concat([whole, whole], ignore_index=True)
    for left, right in (([path, path], [path]), ([path], [path, path]), ([path] * 2, [path] * 2)):
        a, b = read_nwb(left, "/units"), read_nwb(right, "trials")
        joined = merge_by_file(a[["unit_id", "k"]], b[["k", "start"]], on="k").compute()
        trials = read_nwb(right, "trials").compute()[["k", "start"]]
        units = (twice if len(left) == 2 else whole)[["unit_id", "k"]]
        wanted = units.assign(_nwb_path=whole._nwb_path[0]).merge(trials, on="k")
        assert_same(joined, wanted.astype({"_nwb_path": "string"}))


# ------------------------------------------------------------------------------------------ the plan
def graph(collection: Any) -> tuple[list[str], dict[Any, Any]]:
    """The kinds of nodes of what would be computed, and its tasks."""
    optimized = expr.FinalizeCompute(collections_to_expr(collection)).optimize(fuse=False)
    kinds = [type(node).__name__ for node in optimized.walk()]
    return kinds, dict(collection.optimize().dask)


def test_no_task_is_made_but_one_for_each_group_of_whole_files() -> None:
    sizes = (5,) * 40
    left = from_scan(ToyScan(sizes, parts_per_file=2, blocksize=1))
    right = from_scan(ToyScan(sizes, 1, parts_per_file=2, blocksize=1))
    joined = merge_by_file(left, right, on="k")
    query = joined[(joined.x_x > 0) & (joined.y_y < 1)][["x_x", "spikes_y", "_nwb_path"]]
    kinds, tasks = graph(query)
    assert kinds.count("ReadNWB") == 1
    assert not [kind for kind in kinds if "Shuffle" in kind or "Merge" in kind or "P2P" in kind]
    assert joined.npartitions == query.npartitions == len(tasks) == 20
    assert all(not task.dependencies for task in tasks.values())
    shuffled, _ = graph(left.merge(right, on=["_nwb_path", "k"]))
    assert [kind for kind in shuffled if "Shuffle" in kind or "Merge" in kind]
    small = merge_by_file(*[from_scan(ToyScan(sizes, s, parts_per_file=2)) for s in (0, 1)], on="k")
    few = graph(small[["x_x"]])[1]
    assert len(few) < 20
    (read,) = expr.reads(small[["x_x"]])
    assert sorted(i for task in read._tasks for i in read.parts(task)) == list(range(20))


def test_each_side_reads_the_columns_and_rows_that_are_left_to_it(in_turn: None) -> None:
    left, right = ToyScan((20, 30)), ToyScan((10, 40, 5), 1)
    a, b = left.whole(), right.whole()
    units, trials = from_scan(left), from_scan(right)
    joined = merge_by_file(units[units.good], trials[["k", "y", "depth", "area"]], on="k")
    with reading():
        got = joined[(joined.x > 0) & (joined.depth_y < 5)][["spikes", "area_y"]].compute()
    wanted = merged(a[a.good], b[["k", "y", "depth", "area", "_nwb_path"]], [("k", "k")], "inner")
    assert_same(got, wanted[(wanted.x > 0) & (wanted.depth_y < 5)][["spikes", "area_y"]])
    rows = dict.fromkeys(("spikes", "area"), 0)
    for _, columns, count in READS:
        assert {*columns} <= {"good", "x", "depth", "k", "spikes", "area"}
        for name in rows:
            rows[name] += count if name in columns else 0
    both = b._nwb_path.isin(a._nwb_path)
    assert rows["spikes"] == (a.good & (a.x > 0)).sum()
    assert rows["area"] == ((b.depth < 5) & both).sum()
    assert {part for part, columns, _ in READS if "area" in columns} <= {0, 1}


@pytest.mark.parametrize(
    ("how", "left", "right"),
    [("inner", True, True), ("left", True, False), ("right", False, True), ("outer", False, False)],
)
def test_a_condition_is_left_to_a_side_that_has_a_row_for_each_of_the_result(
    how: Any, left: bool, right: bool
) -> None:
    scans = ToyScan((20, 30)), ToyScan((10, 40), 1)
    joined = merge_by_file(*map(from_scan, scans), on="k", how=how)

    def taken(query: Any) -> list[bool]:
        (read,) = expr.reads(query)
        return [side is not None for side in read.scan._split(read.predicate).sides]

    assert taken(joined[joined.x_x > 0]) == [left, False]
    assert taken(joined[joined.x_y > 0]) == [False, right]
    assert taken(joined[joined.k > 0]) == [True, True]
    assert taken(joined[joined._nwb_path == "/data/0.nwb"]) == [True, True]
    assert taken(joined[joined.x_x > joined.x_y]) == [False, False]
    assert taken(joined.query("index > 5")) == [False, False]


@pytest.mark.parametrize("how", HOWS)
def test_a_condition_on_the_path_opens_one_file(how: Any, in_turn: None) -> None:
    scans = ToyScan((5,) * 6), ToyScan((6,) * 8, 1)
    joined = merge_by_file(*map(from_scan, scans), on="k", how=how)
    wanted = merged(*[s.whole() for s in scans], [("k", "k")], how)
    with reading():
        some = joined[joined._nwb_path == "/data/3.nwb"]
        assert some.optimize().npartitions == 1
        assert_same(some.compute(), wanted[wanted._nwb_path == "/data/3.nwb"])
    assert {part for part, _, _ in READS} == {3}


def test_conditions_that_fail_elsewhere_fail_only_where_pandas_would() -> None:
    scans = ToyScan((20, 30)), ToyScan((10, 40), 1)
    joined = merge_by_file(*map(from_scan, scans), on="k")
    wanted = merged(*[s.whole() for s in scans], [("k", "k")], "inner")

    def ask(f: Any) -> Any:
        known = f[f.x_x.notnull() & (f.y_y > f.y_x)]
        return known[known.x_x.astype("int64") > 0]

    def later(f: Any) -> Any:
        known = f[f.x_y.fillna(-1) > f.x_x.fillna(9)]
        return known[known.x_x.astype("int64") > 0]

    assert_same(ask(joined).compute(), ask(wanted))
    assert_same(later(joined).compute(), later(wanted))
    with pytest.raises(pd.errors.IntCastingNaNError):
        joined[joined.x_x.astype("int64") > 0].compute()


def test_large_columns_are_read_for_the_rows_that_the_join_leaves(
    monkeypatch: pytest.MonkeyPatch, in_turn: None
) -> None:
    monkeypatch.setattr(paired, "LATE", 100)
    left, right = ToyScan((20, 30)), ToyScan((3, 2), 1)
    joined = merge_by_file(from_scan(left)[["n", "spikes"]], from_scan(right)[["n", "y"]], on="n")
    wanted = merged(left.whole()[["n", "spikes", "_nwb_path"]],
                    right.whole()[["n", "y", "_nwb_path"]], [("n", "n")], "inner")  # fmt: skip
    with reading():
        assert_same(joined.compute(), wanted)
    matched = left.whole().merge(right.whole()[["n", "_nwb_path"]].drop_duplicates())
    assert sum(rows for _, columns, rows in READS if "spikes" in columns) == len(matched) < 50
    with reading():
        assert_same(joined.head(1), wanted.head(1))
    assert sum(rows for _, columns, rows in READS if "spikes" in columns) == 1
    with reading():
        assert_same(joined.nlargest(2, "y").compute(), wanted.nlargest(2, "y"))
    assert sum(rows for _, columns, rows in READS if "spikes" in columns) <= 4


def test_branches_of_a_join_fit_together(in_turn: None) -> None:
    scans = ToyScan((5, 9, 0, 12), blocksize=600), ToyScan((6, 4, 3, 20), 1, blocksize=600)
    whole = [s.whole() for s in scans]
    for how in ("left", "outer"):
        joined = merge_by_file(*map(from_scan, scans), on="k", how=how)
        wanted = merged(*whole, [("k", "k")], how)
        some, more = joined[joined.x_x > 0], wanted[wanted.x_x > 0]
        assert_same(some[["k"]].assign(z=joined.y_y).compute(), more[["k"]].assign(z=more.y_y))
        assert_same(joined[["k"]].assign(z=some.spikes_x).compute(), wanted[["k"]].assign(z=more.spikes_x))
        held = joined[["x_x"]].persist()
        assert_same(some[["k"]].assign(z=held.x_x).compute(), more[["k"]].assign(z=more.x_x))
        assert len(joined) == len(wanted)
        assert len(some) == len(more)
        assert some.x_x.sum().compute() == pytest.approx(more.x_x.sum())


def test_a_join_can_be_joined_again() -> None:
    scans = [ToyScan((5, 9, 7), seed) for seed in range(3)]
    a, b, c = (from_scan(s) for s in scans)
    names = ["k", "n", "x"], ["k", "depth", "y"], ["n", "area", "spikes"]
    first = merge_by_file(a[names[0]], b[names[1]], on="k", how="left")
    both = merge_by_file(first[first.y > 0], c[names[2]], on="n")
    wholes = [s.whole()[[*n, "_nwb_path"]] for s, n in zip(scans, names, strict=True)]
    halfway = merged(*wholes[:2], [("k", "k")], "left")
    wanted = merged(halfway[halfway.y > 0], wholes[2], [("n", "n")], "inner")
    assert_same(both.compute(), wanted)
    assert_same(both[both.x > 0][["spikes", "y"]].compute(), wanted[wanted.x > 0][["spikes", "y"]])
    assert graph(both)[0].count("ReadNWB") == 1


def test_what_is_more_than_a_read_is_refused_with_a_way_out() -> None:
    left, right = from_scan(ToyScan((5, 9))), from_scan(ToyScan((6, 4), 1))
    way_out = r"left frame .*map_files.*merge"
    for other, said in (
        (left.assign(z=left.x + 1), way_out),
        (left[left.x > left.x.mean()], way_out),
        (left.x, way_out),
        (left.x.to_frame().rename(columns={"x": "k"}), way_out),
        (dd.from_pandas(pd.DataFrame({"k": [1]}), npartitions=1), way_out),
        (pd.DataFrame({"k": [1]}), "left frame is a pandas DataFrame: give a frame of read_nwb that is not"),
        (left.merge(right, on="k"), way_out),
    ):
        with pytest.raises(TypeError, match=said):
            merge_by_file(other, right, on="k")
        with pytest.raises(TypeError, match="right frame"):
            merge_by_file(left, other, on="k")
        with pytest.raises(TypeError, match="the frame units="):
            map_files(counts, units=other)
    with pytest.raises(ValueError, match="give on="):
        merge_by_file(left, right)
    with pytest.raises(ValueError, match="either on="):
        merge_by_file(left, right, on="k", left_on="k")
    with pytest.raises(ValueError, match="as many"):
        merge_by_file(left, right, left_on=["k", "n"], right_on="k")
    with pytest.raises(ValueError, match="how='cross'"):
        merge_by_file(left, right, on="k", how="cross")  # type: ignore[arg-type]
    with pytest.raises(ColumnNotFoundError, match=r"'depht' in the right frame; did you mean 'dep"):
        merge_by_file(left, right, left_on="depth", right_on="depht")
    with pytest.raises(ColumnNotFoundError, match="There are: x"):
        merge_by_file(left[["x"]], right, on="k")
    with pytest.raises(TypeError, match="can't be a key"):
        merge_by_file(left, right, on="spikes")
    with pytest.raises(ValueError, match="merge on"):
        merge_by_file(left, right, left_on="area", right_on="k")
    with pytest.raises(ValueError, match="overlap"):
        merge_by_file(left, right, on="k", suffixes=(None, None))


def test_a_join_means_the_same_wherever_it_is_unpickled() -> None:
    joined = merge_by_file(from_scan(ToyScan((5, 9))), from_scan(ToyScan((6, 4), 1)), on="k")
    query = joined[joined.x_x > 0][["spikes_y"]]
    for one in (joined, query, query.optimize(), query.optimize(fuse=False)):
        again = pickle.loads(pickle.dumps(one.expr))
        assert again._name == one.expr._name
        assert again.divisions == one.divisions
    plan = query.optimize(fuse=False).expr
    (read,) = pickle.loads(pickle.dumps(plan)).find_operations(expr.ReadNWB)
    assert [list(side.scan.meta.columns) for side in read.scan.sides] == [
        ["x", "k", "_nwb_path"],
        ["k", "spikes", "_nwb_path"],
    ]
    assert len(pickle.dumps(merge_by_file(from_scan(ToyScan((5,))), from_scan(ToyScan((6,))), on="n")
                            .optimize().expr)) < 20_000  # fmt: skip


def test_floats_are_keys_of_integers_that_may_be_missing() -> None:
    left, right = ToyScan((9, 20)), ToyScan((12, 8), 1)
    a, b = left.whole()[["x", "n", "_nwb_path"]], right.whole()[["depth", "y", "_nwb_path"]]
    joined = merge_by_file(
        from_scan(left)[["x", "n"]], from_scan(right)[["depth", "y"]], left_on="x",
        right_on="depth", how="left",
    )  # fmt: skip
    plain = b.assign(depth=b.depth.to_numpy("f8", na_value=np.nan))
    wanted = merged(a, plain, [("x", "depth")], "left").astype({"depth": "int64[pyarrow]"})
    assert wanted.y.notna().sum() >= 3
    assert_same(joined.compute(), wanted)


def test_zeros_of_another_sign_are_the_left_ones(tmp_path: Path) -> None:
    path = tmp_path / "zeros.nwb"
    with nwb(path) as file:
        for name, zero in (("/units", -0.0), ("/intervals/trials", 0.0)):
            table(file, name, 1, ["z"]).create_dataset("z", data=[zero])
    joined = merge_by_file(read_nwb(path, "/units"), read_nwb(path, "trials"), on="z")
    assert len(joined[1 / joined.z < 0]) == 1
    assert len(joined[1 / joined.z > 0]) == 0


# ------------------------------------------------------------------------------------------ map_files
def counts(units: pd.DataFrame, trials: pd.DataFrame | None = None) -> pd.DataFrame:
    trials = units.iloc[:0] if trials is None else trials
    return pd.DataFrame({"units": [len(units)], "trials": [len(trials)], "x": [units.x.sum()]})


CALLS: list[tuple[str, int, tuple[str, ...]]] = []


def noted(units: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    path = [*units._nwb_path, *trials._nwb_path][:1]
    CALLS.append((*path, len(units), tuple(units.columns)))
    return units[["x"]].assign(several=len(trials))


def test_a_function_is_called_once_for_each_file_with_whole_tables(in_turn: None) -> None:
    left, right = ToyScan((4, 3, 5, 0, 2, 2), parts_per_file=2), ToyScan((6, 4), 1)
    units = from_scan(left)
    made = map_files(noted, units=units[units.n > 0][["x"]], trials=from_scan(right)[["k"]])
    assert made.columns.tolist() == ["x", "several", "_nwb_path"]
    assert graph(made)[0].count("ReadNWB") == 1
    CALLS.clear()
    with reading():
        got = made.compute()
    a = left.whole()
    wanted = a[a.n > 0][["x", "_nwb_path"]]
    sizes = {"/data/0.nwb": 6, "/data/1.nwb": 4}
    several = wanted._nwb_path.map(sizes).fillna(0).astype("int64")
    assert_same(got, wanted.assign(several=several)[["x", "several", "_nwb_path"]])
    paths = [f"/data/{i}.nwb" for i in range(3)]
    assert sorted((path, columns) for path, _, columns in CALLS) == [
        (path, ("x", "_nwb_path")) for path in paths
    ]
    assert {c for _, columns, _ in READS for c in columns} == {"n", "x", "k", "_nwb_path"}
    CALLS.clear()
    one = made[made._nwb_path == paths[1]]
    assert_same(one.compute(), got[got._nwb_path == paths[1]])
    assert [path for path, _, _ in CALLS] == paths[1:2]


def test_what_a_function_made_is_a_frame_like_any_other() -> None:
    scan = ToyScan((5, 9, 0, 12), blocksize=300)
    made = map_files(counts, units=from_scan(scan)[["x"]])
    whole = scan.whole()
    wanted = (
        whole.groupby("_nwb_path", sort=False)
        .agg(units=("n", "size"), x=("x", "sum"))
        .reset_index()
        .assign(trials=0)
    )[["units", "trials", "x", "_nwb_path"]]
    got = made.compute()
    assert_same(got[got.units > 0], wanted)
    some = made[made.units > 5]
    assert_same(some[["units"]].assign(z=made.x).compute(),
                wanted[wanted.units > 5][["units"]].assign(z=wanted.x))  # fmt: skip
    assert_same(made.nlargest(1, "units").compute(), wanted.nlargest(1, "units"))
    assert made.head(1).units.tolist() == [5]
    joined = merge_by_file(from_scan(scan)[["x", "n"]], made[["units"]], left_on="n", right_on="units")
    pairs = whole[["x", "n", "_nwb_path"]].merge(
        wanted[["units", "_nwb_path"]], left_on=["_nwb_path", "n"], right_on=["_nwb_path", "units"]
    )
    assert_same(joined.compute(), pairs[["x", "n", "_nwb_path", "units"]])


def test_errors_of_a_function_name_the_file() -> None:
    units = from_scan(ToyScan((5, 9)))

    def fails(units: pd.DataFrame) -> pd.DataFrame:
        if (units._nwb_path == "/data/1.nwb").any():
            raise KeyError("no such thing")
        return units[["x"]]

    with pytest.raises(NWBError, match=r"fails for /data/1\.nwb: KeyError: 'no such thing'"):
        map_files(fails, units=units).compute()

    def others(units: pd.DataFrame) -> pd.DataFrame:
        return units[["x", "y"]] if (units._nwb_path == "/data/1.nwb").any() else units[["x"]]

    with pytest.raises(NWBError, match=r"'y'.*/data/1\.nwb.*meta="):
        map_files(others, units=units).compute()

    def odd(units: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"n": [0.5 if len(units) else 0]})

    with pytest.raises(NWBError, match=r"'n' as float64 for /data/[01]\.nwb, and not as int64"):
        map_files(odd, units=units).compute()
    right = map_files(odd, meta={"n": "float64"}, units=units)
    assert right.n.compute().tolist() == [0.5, 0.5]


def test_the_columns_of_a_function_are_told_or_asked_for() -> None:
    units = from_scan(ToyScan((5, 9)))
    with pytest.raises(ValueError, match=r"fails on frames without rows.*IndexError.*meta="):
        map_files(lambda units: units.iloc[[0]], units=units)
    first = map_files(lambda units: units.iloc[[0]][["x"]], meta={"x": "f8"}, units=units)
    assert len(first) == 2
    with pytest.raises(ValueError, match=r"types of 'a'.*meta="):
        map_files(lambda units: pd.DataFrame({"a": np.array([], object)}), units=units)
    with pytest.raises(TypeError, match="returned a Series"):
        map_files(lambda units: units.x, units=units)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match=r"indexed by \['area'\].*reset_index"):
        map_files(lambda units: units.groupby("area")[["x"]].sum(), units=units)
    with pytest.raises(TypeError, match="by name"):
        map_files(counts)
    with pytest.raises(TypeError, match="not a function"):
        map_files(units)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ real files
def session(path: Path, number: int, rows: int, trials: int = 3) -> str:
    """A file with units and trials that share two keys, one of them with missing texts."""
    generator = np.random.default_rng(number)
    with nwb(path) as file:
        if rows:
            group = table(file, "/units", rows, ["unit_id", "k", "area", "spike_times"])
            group.create_dataset("unit_id", data=np.arange(rows) + 100 * number)
            group.create_dataset("k", data=generator.integers(0, 4, rows))
            areas = generator.choice(["VISp", "VISl", ""], rows).astype(object)
            group.create_dataset("area", data=areas, dtype=h5py.string_dtype())
            counted = generator.integers(0, 5, rows)
            ragged(group, "spike_times", np.cumsum(counted), generator.normal(size=counted.sum()))
        if trials:
            group = table(file, "/intervals/trials", trials, ["k", "start", "good"])
            group.create_dataset("k", data=generator.integers(0, 4, trials).astype("int16"))
            group.create_dataset("start", data=generator.normal(size=trials).round(2))
            group.create_dataset("good", data=generator.random(trials) < 0.5)
    return str(path)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    rows = [(7, 4), (0, 3), (1, 0), (12, 9), (3, 2)]
    return [session(folder / f"s{i}.nwb", i, a, b) for i, (a, b) in enumerate(rows)]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def speed(units: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each unit: how many spikes, and the file's last trial."""
    return pd.DataFrame(
        {"unit_id": units.unit_id, "spikes": units.spike_times.list.len().astype("float64"),
         "last": trials.start.max()}
    )  # fmt: skip


@pytest.mark.parametrize("blocksize", ["128 MiB", "200 B", None])
def test_real_tables_are_joined_alike_on_every_scheduler(
    paths: list[str], client: Client, blocksize: str | None
) -> None:
    units = read_nwb(paths, "/units", blocksize=blocksize)
    trials = read_nwb(paths[::-1], "trials", blocksize=blocksize)
    a, b = units.compute(), trials.compute()
    by_file = dict(list(b.groupby("_nwb_path", sort=False)))
    order = [*dict.fromkeys([*a._nwb_path, *paths[::-1]])]
    for how in HOWS:
        joined = merge_by_file(units, trials, on="k", how=how)
        wanted = merged(a, b, [("k", "k")], how, paths=order)
        assert_same(joined.compute(), wanted)
        query = joined[joined.start > 0][["spike_times", "good", "_nwb_path"]]
        part = wanted[wanted.start > 0][["spike_times", "good", "_nwb_path"]]
        # processes cost seconds
        others = ["processes"] if blocksize is None and how == "outer" else []
        for scheduler in ("threads", client, *others):
            assert_same(query.compute(scheduler=scheduler), part)
    made = map_files(speed, units=units[["unit_id", "spike_times"]], trials=trials[["start"]])
    wanted = pd.DataFrame(
        {
            "unit_id": a.unit_id,
            "spikes": a.spike_times.list.len().astype("float64"),
            "last": [by_file[path].start.max() if path in by_file else np.nan for path in a._nwb_path],
            "_nwb_path": a._nwb_path,
        }
    )
    for scheduler in ("sync", "threads", client):
        assert_same(made.compute(scheduler=scheduler), wanted)


def test_tables_whose_files_workers_look_at_are_joined_too(paths: list[str]) -> None:
    kinds = pa.schema([("k", pa.int64()), ("spike_times", pa.list_(pa.float64()))])
    units = read_nwb(paths, "/units", schema=kinds)
    trials = read_nwb(paths, "trials")[["k", "start"]]
    a = read_nwb(paths, "/units")[["k", "spike_times", "_nwb_path"]]
    joined = merge_by_file(units[["k", "spike_times"]], trials, on="k", how="left")
    assert not joined.known_divisions
    wanted = merged(a.compute(), trials.assign(_nwb_path=read_nwb(paths, "trials")._nwb_path)
                    .compute(), [("k", "k")], "left", paths=paths)  # fmt: skip
    got = joined.compute().reset_index(drop=True)
    assert_same(got.astype(wanted.dtypes), wanted)


def test_only_the_columns_that_are_needed_are_fetched_of_either_side(
    tmp_path: Path, range_server: RangeServer
) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=300, mean_spikes=3000, layout="contiguous")
    url = range_server.put("one.nwb", Path(path).read_bytes())
    units, trials = read_nwb(url, "/units"), read_nwb(url, "trials")
    joined = merge_by_file(units, trials, left_on="unit_id", right_on="start_time", how="left")
    asked = ["firing_rate", "stop_time"]
    range_server.clear_log()
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):  # or what planning fetched would not be fetched
        joined[asked].compute()
    touched = fetched(path, range_server)
    assert touched["/units"] <= {"unit_id", "firing_rate"}
    assert touched["/intervals/trials"] <= {"start_time", "stop_time"}
    assert {len(names) for names in touched.values()} == {2}
    assert len(range_server.requests("GET")) <= 4
    with h5py.File(path) as file:
        ids = file["units/unit_id"][()]
        ends = file["units/spike_times_index"][()].astype(int)
        rates = file["units/firing_rate"][()]
    both = merge_by_file(units, units[["unit_id", "snr"]], on="unit_id")
    best = both[both.firing_rate >= np.sort(rates)[-3]][["spike_times", "snr_y"]]
    range_server.clear_log()
    got = best.compute()
    rows = np.flatnonzero(rates >= np.sort(rates)[-3])
    spikes = sum(8 * (ends[r] - (ends[r - 1] if r else 0)) for r in rows)
    assert len(got) == len(rows) < len(ids)
    assert range_server.sent < spikes + 64 * 1024
    assert fetched(path, range_server)["/units"] >= {"spike_times", "unit_id"}


def fetched(path: str, server: RangeServer) -> dict[str, set[str]]:
    """The columns of each table of which the server has sent any byte that begins one."""
    found: dict[str, set[str]] = {"/units": set(), "/intervals/trials": set()}
    spans = [entry.range for entry in server.requests("GET") if entry.range]
    with h5py.File(path) as file:
        for name, columns in found.items():
            for column, data in file[name].items():
                offset = data.id.get_offset()
                size = data.id.get_storage_size()
                if offset and any(a < offset + size and b > offset for a, b in spans):
                    columns.add(column.removesuffix("_index"))
    return found


def test_files_that_fail_are_left_out_and_reported(tmp_path: Path, client: Client) -> None:
    names = [session(tmp_path / f"s{i}.nwb", i, 5, 4) for i in range(4)]
    rotten = tmp_path / "s1.nwb"
    with h5py.File(rotten, "r+") as file:
        del file["/units/k"]
        made = file["/units"].create_dataset("k", data=np.arange(5), chunks=(5,), fletcher32=True)
        offset = made.id.get_chunk_info(0).byte_offset
    data = bytearray(rotten.read_bytes())
    data[offset] ^= 1
    rotten.write_bytes(bytes(data))
    (tmp_path / "s2.nwb").write_bytes(b"not NWB")
    with client.as_current(), dask.config.set(scheduler=None):
        for how, there in (("inner", [0, 3]), ("outer", [0, 1, 3])):
            units = read_nwb(names, "/units", on_error="skip")
            trials = read_nwb(names, "trials", on_error="skip")
            joined = merge_by_file(units, trials, on="k", how=how)
            got = joined.compute(scheduler=client)
            assert [*dict.fromkeys(got._nwb_path)] == [names[i] for i in there]
            report = lazynwb_dask.read_report(joined)
            assert sorted({*zip(report.path, report.stage, strict=True)}) == [
                (names[1], "read"),
                (names[2], "plan"),
            ]
            made = map_files(lambda units, trials: pd.DataFrame({"n": [len(units)]}),
                             units=units[["k"]], trials=trials)  # fmt: skip
            assert made.n.compute(scheduler=client).tolist() == [5, 0, 5]
    alone = read_nwb([n for n in names if "s2" not in n], "/units")
    with pytest.raises(lazynwb_dask.NWBReadError, match=r"s1\.nwb.*'k'"):
        merge_by_file(alone, alone, on="k").compute()


@pytest.mark.parametrize("late", [0, 1 << 20])
def test_a_catalog_says_which_files_a_join_can_leave_out(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    monkeypatch.setattr(paired, "LATE", late)
    catalog = lazynwb_dask.build_catalog(paths, tmp_path / "catalog")
    units, trials = read_nwb(catalog, "/units"), read_nwb(catalog, "trials")
    joined = merge_by_file(units, trials, on="k")
    plain = merge_by_file(read_nwb(paths, "/units"), read_nwb(paths, "trials"), on="k")
    assert_same(joined.compute(), plain.compute())
    some = joined[joined.unit_id >= 300]
    assert_same(some.compute(), plain.compute().query("unit_id >= 300"))
    with dask.config.set({"lazynwb-dask.fuse": False}):
        assert some.optimize().npartitions == 2
    with lazynwb_dask.trace() as trace:
        some[["spike_times", "start"]].compute()
    assert {Path(name).name for name in trace.by_file if name.endswith(".nwb")} <= {"s3.nwb", "s4.nwb"}
    early = units[units.unit_id < 100]
    assert merge_by_file(early, trials, on="k").npartitions == 1


def test_explain_and_sessions_know_both_sides(tmp_path: Path) -> None:
    made = make_sessions(tmp_path, n=3, units=20, mean_spikes=50)
    units, electrodes = read_nwb(made, "/units"), read_nwb(made, "electrodes")
    joined = merge_by_file(units, electrodes, left_on="peak_channel", right_on="channel")
    told = lazynwb_dask.explain(joined[(joined.snr > 1) & (joined.x > 0)][["spike_times", "group"]])
    assert [read.tables for read in told.reads] == [("/units",), ("/general/extracellular_ephys/electrodes",)]
    assert [read.condition for read in told.reads] == ["snr > 1", "x > 0"]
    assert told.reads[0].columns == ("peak_channel", "spike_times")
    assert not told.left
    both = lazynwb_dask.explain(joined[(joined.snr > joined.x) & (joined.y > 0)].unit_id)
    assert both.left == (("snr > x", "it is of what is made of several tables of a file"),)
    with lazynwb_dask.trace() as trace:
        joined[(joined.snr > 1) & (joined.x > 0)][["spike_times", "group"]].compute()
    assert trace.total.requests <= told.requests
    late = lazynwb_dask.with_sessions(joined, ["subject_id"])
    one = late[late.subject_id == "600007"][["unit_id", "subject_id", "_nwb_path"]].compute()
    assert set(one._nwb_path) == {made[2]}
    before = lazynwb_dask.with_sessions(units, ["subject_id"])
    pruned = merge_by_file(before, electrodes, left_on="peak_channel", right_on="channel")
    pruned = pruned[pruned.subject_id == "600007"]
    assert pruned.optimize().npartitions == 1
    assert_same(pruned[["unit_id"]].compute(), one[["unit_id"]])
