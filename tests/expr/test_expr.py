"""The expression: what it takes in is not read, and whatever it does the result is what pandas gives."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import toy
from dask.base import collections_to_expr
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from queries import Vocabulary, assert_same, queries, run_dask, run_pandas
from toy import READS, SIZES, ToyScan, reading

from lazynwb_dask import expr
from lazynwb_dask.errors import ColumnNotFoundError
from lazynwb_dask.expr import ReadNWB, from_scan
from lazynwb_dask.predicate.filters_argument import from_filters

ex = expr.ex
SCAN = ToyScan(SIZES)
WHOLE = SCAN.whole()
FEW = ToyScan(SIZES, blocksize=600)  # so that spikes are not fused, and numbers are


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, but tasks as for three."""
    monkeypatch.setattr("lazynwb_dask.cluster.client.threads", lambda: 3)
    with dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.fixture
def df() -> dd.DataFrame:
    return from_scan(SCAN)


def optimized(collection: Any) -> Any:
    """The expression that would be computed, before Dask fuses tasks."""
    return expr.FinalizeCompute(collections_to_expr(collection)).optimize(fuse=False)


def left_to_dask(collection: Any) -> set[str]:
    """The operations on rows that are not in a read."""
    kinds = {type(node).__name__ for node in optimized(collection).walk()}
    return kinds & {"Filter", "Query", "Loc", "NLargest", "NSmallest"}


def equal(got: Any, expected: Any) -> None:
    if isinstance(expected, (pd.DataFrame, pd.Series)):
        assert_same(got, expected)
    else:
        assert got == expected


def read_of(column: str) -> int:
    """How many values of a column were read."""
    return sum(rows for _, columns, rows in READS if column in columns)


def read_parts() -> set[int]:
    return {part for part, _, _ in READS}


# ---------------------------------------------------------------------------------------- conditions
def chained(f: Any) -> Any:
    a = f[f.x > 0]
    return a[a.n > 2].spikes


def within(f: Any, columns: Any) -> Any:
    a = f[columns]
    return a[a.x > 0].spikes


def dropped(f: Any) -> Any:
    a = f.drop(columns=["n", "good"])
    return a[a.area == "CA1"].spikes


def same_frame(f: Any) -> Any:
    a = f[f.x > 0]
    return a[f.n > 2].spikes


PUSHED: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "a comparison": (lambda f: f[f.x > 0].spikes, {"x"}),
    "and": (lambda f: f[(f.x > 0) & (f.n < 3)].spikes, {"x", "n"}),
    "or": (lambda f: f[(f.x > 0) | (f.n == 3)].spikes, {"x", "n"}),
    "not": (lambda f: f[~(f.x > 0)].spikes, {"x"}),
    "xor": (lambda f: f[(f.x > 0) ^ f.good].spikes, {"x", "good"}),
    "a bool column": (lambda f: f[f.good].spikes, {"good"}),
    "isin": (lambda f: f[f.area.isin(["VISp", "CA1"])].spikes, {"area"}),
    "isin numbers": (lambda f: f[f.depth.isin([1, 2, 8])].spikes, {"depth"}),
    "isna": (lambda f: f[f.x.isna()].spikes, {"x"}),
    "notnull": (lambda f: f[f.depth.notnull()].spikes, {"depth"}),
    "between": (lambda f: f[f.x.between(-0.5, 0.5)].spikes, {"x"}),
    "text": (lambda f: f[f.area == "VISp"].spikes, {"area"}),
    "text is not": (lambda f: f[f.area != "VISp"].spikes, {"area"}),
    "startswith": (lambda f: f[f.area.str.startswith("VIS")].spikes, {"area"}),
    "contains": (lambda f: f[f.area.str.contains("IS|1", regex=True)].spikes, {"area"}),
    "text methods": (lambda f: f[f.area.str.lower().str.len() == 3].spikes, {"area"}),
    "a letter": (lambda f: f[f.area.str[0] == "C"].spikes, {"area"}),
    "arithmetic": (lambda f: f[f.x * 2 - 1 > f.y / 2].spikes, {"x", "y"}),
    "modulo": (lambda f: f[f.n % 3 == 1].spikes, {"n"}),
    "column against column": (lambda f: f[f.x > f.y].spikes, {"x", "y"}),
    "minus and abs": (lambda f: f[(-f.x).abs() > 1].spikes, {"x"}),
    "round": (lambda f: f[f.x.round() == 1].spikes, {"x"}),
    "clip": (lambda f: f[f.n.clip(0, 3) == 3].spikes, {"n"}),
    "fillna": (lambda f: f[f.x.fillna(5) > 1].spikes, {"x"}),
    "astype": (lambda f: f[f.n.astype("float64") > 2.5].spikes, {"n"}),
    "where": (lambda f: f[f.x.where(f.good, -1) > 0].spikes, {"x", "good"}),
    "method operators": (lambda f: f[f.x.add(1).gt(0.5) & f.n.le(3)].spikes, {"x", "n"}),
    "a space in the name": (lambda f: f[f["group name"] == "a"].spikes, {"group name"}),
    "chained": (chained, {"x", "n"}),
    "another frame's mask": (same_frame, {"x", "n"}),
    "after selecting": (lambda f: within(f, ["x", "spikes"]), {"x"}),
    "after selecting in another order": (lambda f: within(f, ["spikes", "n", "x"]), {"x"}),
    "after dropping": (dropped, {"area"}),
    "query": (lambda f: f.query("x > 0 and area == 'CA1'").spikes, {"x", "area"}),
    "query with backticks": (lambda f: f.query("`group name` != 'a'").spikes, {"group name"}),
    "query with values": (
        lambda f: f.query("area in @names and n > @n", local_dict={"names": ["CA1"], "n": 1}).spikes,
        {"area", "n"},
    ),
    "query by index": (lambda f: f.query("index > 50 and good").spikes, {"good"}),
    "query after selecting": (lambda f: f[["x", "spikes"]].query("x > 0").spikes, {"x"}),
    "loc": (lambda f: f.loc[f.x > 0].spikes, {"x"}),
    "loc with columns": (lambda f: f.loc[f.x > 0, ["spikes", "n"]].spikes, {"x"}),
    "loc with a column": (lambda f: f.loc[f.x > 0, "spikes"], {"x"}),
    "a column by another's mask": (lambda f: f.spikes[f.x > 0], {"x"}),
    "after reset_index": (lambda f: (lambda a: a[a.x > 0])(f.reset_index(drop=True)).spikes, {"x"}),
}  # fmt: skip


@pytest.mark.parametrize("scan", [SCAN, FEW], ids=["fused", "partly"])
@pytest.mark.parametrize("name", PUSHED)
def test_rows_that_a_condition_leaves_out_are_not_read(name: str, scan: ToyScan) -> None:
    ask, decides = PUSHED[name]
    expected = ask(WHOLE)
    result = ask(from_scan(scan))
    assert not left_to_dask(result)
    with reading():
        got = result.compute()
    if "reset" in name:  # Dask numbers each partition from 0
        got, expected = got.reset_index(drop=True), expected.reset_index(drop=True)
    assert_same(got, expected)
    assert 0 < len(expected) < len(WHOLE)
    assert read_of("spikes") == len(expected)
    assert {c for _, columns, _ in READS for c in columns} == decides | {"spikes"}


LEFT: dict[str, Callable[[Any], Any]] = {
    "a mean": lambda f: f[f.x > f.x.mean()].spikes,
    "a neighbour": lambda f: f[f.y > f.y.shift()].spikes,
    "a running sum": lambda f: f[f.n.cumsum() > 3].spikes,
    "another row order": lambda f: f[f.y.ffill() > 0].spikes,
    "half of it another row": lambda f: f[(f.x > 0) & (f.y > f.y.mean())].spikes,
    "an assigned column": lambda f: (lambda a: a[a.z > 1])(f.assign(z=f.x + 1)).spikes,
    "a renamed column": lambda f: (lambda a: a[a.xx > 0])(f.rename(columns={"x": "xx"})).spikes,
    "a query of a mean": lambda f: f.query("x > @m", local_dict={"m": float(WHOLE.x.mean())}).spikes,
}


@pytest.mark.parametrize("name", LEFT)
def test_conditions_that_look_at_other_rows_are_still_right(name: str) -> None:
    assert_same(LEFT[name](from_scan(SCAN)).compute(), LEFT[name](WHOLE))


@pytest.mark.parametrize(
    "mask",
    [
        lambda f: f.x.map(lambda v: v > 0, meta=("x", bool)),
        lambda f: f.x.apply(lambda v: v > 0, meta=("x", bool)),
        lambda f: f.map_partitions(lambda p: p.x > p.x.mean(), meta=("x", bool)),
        lambda f: f.area.str.replace("V", lambda m: "W", regex=True) == "WISp",
        lambda f: f.x > f.y.mean(),
        lambda f: f.x > f.x.shift(),
        lambda f: f.x.rank() > 3 if hasattr(f.x, "rank") else f.x.diff() > 0,
        lambda f: (f[["x", "y"]] > 0).all(axis=1),
        lambda f: f.n.isin(f.k.nlargest(1)),
        lambda f: f.x.fillna(f.y) > 0,
    ],
)
def test_functions_and_other_rows_never_become_conditions(df: dd.DataFrame, mask: Any) -> None:
    frame = optimized(df[mask(df)])
    pushed = [read.predicate for read in frame.find_operations(ReadNWB) if read.predicate]
    assert all("fillna(y)" in repr(p) for p in pushed)


def test_a_condition_that_fails_fails_as_in_pandas(df: dd.DataFrame) -> None:
    with pytest.raises(pd.errors.IntCastingNaNError):
        df[df.x.astype("int64") > 0].compute()
    known = df[df.x.notnull()]
    expected = WHOLE[WHOLE.x.notnull()]
    assert_same(known[known.x.astype("int64") > 0].compute(), expected[expected.x.astype(int) > 0])


def test_every_mask_of_one_computation_is_pushed(df: dd.DataFrame) -> None:
    with reading():
        one, two = dask.compute(df[df.x > 0].spikes, df[df.n == 3].area)
    assert_same(one, WHOLE[WHOLE.x > 0].spikes)
    assert_same(two, WHOLE[WHOLE.n == 3].area)
    assert read_of("spikes") == len(one)
    assert read_of("area") == len(two)
    pair = df[df.x > 0][["k", "y"]].merge(df[df.x < -1][["k", "spikes"]], on="k")
    assert not left_to_dask(pair)


def test_filters_of_the_read_are_a_condition(df: dd.DataFrame) -> None:
    given = from_scan(SCAN, from_filters([("x", ">", 0), ("area", "in", ["CA1"])]))
    mask = (WHOLE.x > 0) & WHOLE.area.isin(["CA1"])
    assert_same(given.compute(), WHOLE[mask])
    assert_same(df.assign(z=given.y).compute(), WHOLE.assign(z=WHOLE[mask].y))
    assert len(given) == mask.sum()
    with pytest.raises(ColumnNotFoundError, match="did you mean"):
        from_scan(SCAN, from_filters("aera == 'CA1'"))


# ------------------------------------------------------------------------------------------- columns
def test_only_the_columns_asked_for_are_read(df: dd.DataFrame) -> None:
    with reading():
        assert_same(df[["spikes", "x"]].compute(), WHOLE[["spikes", "x"]])
        assert_same(df.n.compute(), WHOLE.n)
        assert_same((df.n + df.k).compute(), WHOLE.n + WHOLE.k)
    assert {c for _, columns, _ in READS for c in columns} == {"spikes", "x", "n", "k"}


# ------------------------------------------------------------------------------------------- lengths
def test_lengths_are_known_without_reading(df: dd.DataFrame) -> None:
    with reading():
        assert len(df) == len(df.x) == len(df[["x", "y"]]) == len(df.assign(z=1)) == len(WHOLE)
        assert len(df.index) == len(WHOLE)
        assert df.shape[0].compute() == len(WHOLE)
        assert df.size.compute() == WHOLE.size
        assert len(df.partitions[2:4]) == sum(SIZES[2:4])
        assert len(df.get_partition(9)) == SIZES[9]
        lengths = expr.new_collection(ex.Lengths(df[["x"]].expr))
        assert dask.compute(lengths)[0] == SIZES
    assert READS == []


def test_the_length_of_a_filtered_frame_reads_the_mask_alone(df: dd.DataFrame) -> None:
    with reading():
        assert len(df[(df.x > 0) & df.good]) == ((WHOLE.x > 0) & WHOLE.good).sum()
    assert {columns for _, columns, _ in READS} == {("good", "x")}


def test_unknown_lengths_are_counted() -> None:
    df = from_scan(ToyScan(SIZES, indexed=False, fusable=False))
    assert not df.known_divisions
    assert len(df) == len(WHOLE)
    assert len(df[df.x > 0]) == (WHOLE.x > 0).sum()
    assert_same(df[df.x > 0].spikes.reset_index(drop=True).compute().reset_index(drop=True),
                WHOLE[WHOLE.x > 0].spikes.reset_index(drop=True))  # fmt: skip
    both = df[df.x > 0].assign(z=df.y).compute()
    assert (both.z == both.y).all()
    assert optimized(df).npartitions == 1
    assert [read.npartitions for read in expr.reads(df)] == [len(SIZES)]


# ------------------------------------------------------------------------------------ first and largest
@pytest.mark.parametrize("fuse", [True, False])
def test_head_reads_the_rows_and_columns_that_it_returns(df: dd.DataFrame, fuse: bool) -> None:
    with dask.config.set({"lazynwb-dask.fuse": fuse}):
        with reading():
            assert_same(df.head(3), WHOLE.head(3))
        assert [(0, tuple(WHOLE.columns), 3)] == READS
        with reading():
            assert_same(df[["spikes", "x"]].head(4), WHOLE[["spikes", "x"]].head(4))
            assert_same(df.x.head(2), WHOLE.x.head(2))
        assert READS == [(0, ("x", "spikes"), 4), (0, ("x",), 2)]
        with reading():
            assert_same(df[df.n > 0].spikes.head(2), WHOLE[WHOLE.n > 0].spikes.head(2))
        assert READS == [(0, ("n",), 7), (0, ("spikes",), 2)]


def test_head_of_several_partitions_reads_no_others(df: dd.DataFrame) -> None:
    with reading():
        assert_same(df.head(9, npartitions=4), WHOLE.head(9))
    assert read_parts() <= {0, 1, 2, 3}
    with reading():
        assert_same(df[["x"]].head(9, npartitions=-1), WHOLE[["x"]].head(9))
    assert read_parts() == {0, 1, 2, 3}  # enough rows; the lengths are known
    with reading():
        assert_same(df.head(0), WHOLE.head(0))
        assert_same(df.head(10_000, npartitions=-1), WHOLE)
        assert_same(df[df.good].head(20, npartitions=-1), WHOLE[WHOLE.good].head(20))
    with pytest.raises((ValueError, IndexError), match=r"partition|index"):
        df.head(3, npartitions=13)


def test_head_below_something_else_reads_one_partition(df: dd.DataFrame) -> None:
    with reading():
        doubled = df.map_partitions(lambda p: p.assign(z=2 * p.n), meta=WHOLE.iloc[:0].assign(z=1))
        assert_same(doubled.head(3), WHOLE.assign(z=2 * WHOLE.n).head(3))
        above = df[df.x > df.x.min()].head(3)
    assert_same(above, WHOLE[WHOLE.x > WHOLE.x.min()].head(3))
    assert {part for part, columns, _ in READS if "spikes" in columns} == {0}


def test_head_of_a_file_finds_the_file(df: dd.DataFrame) -> None:
    with reading():
        got = df[df._nwb_path == "/data/9.nwb"].head(3, npartitions=2)
    assert_same(got, WHOLE[WHOLE._nwb_path == "/data/9.nwb"].head(3))
    assert read_parts() == {9}


def test_tail_reads_the_last_rows(df: dd.DataFrame) -> None:
    with reading():
        assert_same(df[["spikes"]].tail(2), WHOLE[["spikes"]].tail(2))
    assert READS == [(11, ("spikes",), 2)]
    assert_same(df.x.tail(3), WHOLE.x.tail(3))


@pytest.mark.parametrize("scan", [SCAN, FEW], ids=["fused", "partly"])
def test_ragged_columns_are_read_of_the_largest_rows_alone(scan: ToyScan) -> None:
    df = from_scan(scan)
    for ask in (
        lambda f: f.nlargest(3, "x"),
        lambda f: f.nsmallest(3, ["x"]),
        lambda f: f[["x", "spikes"]].nlargest(3, "x"),
        lambda f: f.nlargest(3, ["k", "n"]),
        lambda f: f.nlargest(3, "k"),
        lambda f: f.nlargest(3, "x")[["spikes"]],  # Dask alone forgets x
        lambda f: f.nlargest(3, "x").spikes,
        lambda f: f[f.x > 0].nlargest(3, "y")[["spikes", "n"]],
        lambda f: (lambda good: good[good.x > 0].nlargest(3, "y"))(f[f.good]).spikes,
        lambda f: (lambda top: top[top.index >= 0] if isinstance(top, pd.DataFrame) else top)(
            f.nlargest(3, "x")
        ),
        lambda f: (lambda top: top.assign(z=top.y)[["spikes", "z"]])(f.nlargest(3, "x")),
        lambda f: f.nlargest(9, "x").nsmallest(3, "y")[["spikes"]],
    ):
        with reading():
            assert_same(ask(df).compute(), ask(WHOLE))
        assert read_of("spikes") == 3
        assert not left_to_dask(ask(df))
    for ask in (  # of what was made of a read
        lambda f: f.assign(z=f.x * f.y).nlargest(3, "z")[["spikes", "z"]],
        lambda f: (lambda g: g.assign(z=g.x + 1))(f[f.good]).nlargest(3, "z").spikes,
        lambda f: f[f.x > f.x.mean()].nsmallest(3, "y")[["spikes"]],
    ):
        with reading():
            assert_same(ask(df).compute(), ask(WHOLE))
        assert read_of("spikes") == 3
    with reading():
        got = df[df.good].nlargest(3, "y")
        assert_same(got.compute(), WHOLE[WHOLE.good].nlargest(3, "y"))
    assert read_of("spikes") == 3
    assert_same(df.y.nlargest(4).compute(), WHOLE.y.nlargest(4))
    assert_same(df[df.good].k.nsmallest(4).compute(), WHOLE[WHOLE.good].k.nsmallest(4))


def test_a_column_that_was_assigned_is_not_the_one_that_was_read() -> None:
    def ask(f: Any) -> Any:
        return f.assign(spikes=f.spikes.where(f.x > 0)).nlargest(5, "y")[["spikes"]]

    assert_same(ask(from_scan(SCAN)).compute(), ask(WHOLE))


def test_ties_among_the_largest_are_decided_as_by_pandas() -> None:
    scan = ToyScan((40, 3, 0, 30, 50), seed=3)
    df, whole = from_scan(scan), scan.whole()
    for n in (0, 1, 5, 30, 60, 123, 200):
        assert_same(df.nlargest(n, "k").compute(), whole.nlargest(n, "k"))
        assert_same(df.k.nsmallest(n).compute(), whole.k.nsmallest(n))


# ------------------------------------------------------------------------------- files and partitions
def test_a_condition_on_the_path_opens_only_the_files_it_leaves(df: dd.DataFrame) -> None:
    files = ["/data/3.nwb", "/data/9.nwb"]
    for mask in (
        lambda f: f._nwb_path.isin(files),
        lambda f: (f._nwb_path == files[0]) | (f._nwb_path == files[1]),
        lambda f: f._nwb_path.isin(files) & (f.x > 0),
        lambda f: ~(f._nwb_path < files[0]) & f._nwb_path.isin(files) & f.good,
        lambda f: f._nwb_path.isin(files) & (f._table_path == "/units"),
    ):
        result = df[mask(df)][["x", "spikes"]]
        assert [read.npartitions for read in expr.reads(result)] == [2]
        with reading():
            assert_same(result.compute(), WHOLE[mask(WHOLE)][["x", "spikes"]])
        assert read_parts() == {3, 9}
    query = df.query("_nwb_path == '/data/3.nwb' and x > 0").spikes
    assert [read.npartitions for read in expr.reads(query)] == [1]


def test_a_path_that_no_file_has_gives_no_rows(df: dd.DataFrame) -> None:
    with reading():
        got = df[df._nwb_path == "nowhere"].compute()
    assert_same(got, WHOLE[WHOLE._nwb_path == "nowhere"])
    assert READS == []
    assert len(df[df._nwb_path == "nowhere"]) == 0


def test_branches_that_ask_for_different_files_stay_aligned(df: dd.DataFrame) -> None:
    one, other = (df[df._nwb_path == f"/data/{i}.nwb"] for i in (3, 9))
    first, second = (WHOLE[WHOLE._nwb_path == f"/data/{i}.nwb"] for i in (3, 9))
    with reading():
        assert_same((one.x + other.y).compute(), first.x + second.y)
    assert read_parts() == {3, 9}
    assert_same(df.assign(z=one.x).compute(), WHOLE.assign(z=first.x))
    assert_same(one.assign(z=one.index).compute(), first.assign(z=first.index))
    assert_same(one.assign(z=df.x).compute(), first.assign(z=first.x))
    with reading():
        got = dask.compute(one.x, other.n, df.y.sum())
    assert_same(got[0], first.x)
    assert_same(got[1], second.n)
    assert {part for part, columns, _ in READS if "x" in columns} == {3}


def test_a_condition_on_the_path_and_the_index_opens_what_it_needs(df: dd.DataFrame) -> None:
    query = "_nwb_path == '/data/3.nwb' or index > 85"
    assert_same(df.query(query).compute(), WHOLE.query(query))


def test_a_condition_on_the_path_that_fails_for_other_files_is_left_alone() -> None:
    df = from_scan(SCAN)
    known = df[df._nwb_path != "/data/3.nwb"]
    number = known._nwb_path.str.slice(6, 7).astype("int64")
    expected = WHOLE[WHOLE._nwb_path.str.slice(6, 7).astype("int64").between(4, 5)]
    assert_same(known[number.between(4, 5)].compute(), expected)


def test_partitions_are_those_of_the_unread_frame(df: dd.DataFrame) -> None:
    with reading():
        assert_same(df.partitions[3:5].x.compute(), WHOLE.x[8:33])
    assert read_parts() == {3, 4}
    assert df.partitions[3:5].divisions == (8, 28, 33)
    assert_same(df.get_partition(9)[["x"]].compute(), WHOLE[["x"]][55:85])
    some = df.partitions[[3, 7, 9]]
    assert_same((some.x + some.n).compute(), pd.concat([WHOLE[8:28], WHOLE[34:46], WHOLE[55:85]])
                .pipe(lambda w: w.x + w.n))  # fmt: skip
    assert_same(some[some.good].n.compute(), pd.concat([WHOLE[8:28], WHOLE[34:46], WHOLE[55:85]])
                .pipe(lambda w: w[w.good].n))  # fmt: skip
    assert_same(df.partitions[[9, 3]].n.compute(), pd.concat([WHOLE[55:85], WHOLE[8:28]]).n)


@pytest.mark.parametrize("above", [-1.0, 1e9])
def test_conditions_one_by_one_are_read_of_the_only_partition_too(above: float) -> None:
    scan = ToyScan((20,))
    df, whole = from_scan(scan), scan.whole()
    one = df[df.x > above]
    both = one[one.area == "CA1"]
    expected = whole[(whole.x > above) & (whole.area == "CA1")]
    for some in (both.partitions[0], both.partitions[0:1], both.get_partition(0)):
        assert not left_to_dask(some)
        assert_same(some.compute(), expected)
    assert_same(df.assign(y=df.x * 2).partitions[0].compute(), whole.assign(y=whole.x * 2))


def test_rows_by_label_read_their_partitions(df: dd.DataFrame) -> None:
    with dask.config.set({"lazynwb-dask.fuse": False}), reading():
        assert_same(df.loc[10:30].compute(), WHOLE.loc[10:30])
        assert_same(df.loc[[12, 60]].compute(), WHOLE.loc[[12, 60]])
        assert_same(df.loc[89:].compute(), WHOLE.loc[89:])
    assert read_parts() == {3, 4, 9, 11}
    assert_same(df.loc[10:30].n.compute(), WHOLE.loc[10:30].n)


# -------------------------------------------------------------------------------------------- fusion
def buckets(collection: Any) -> list[list[list[int]]]:
    return [[read.parts(task).tolist() for task in range(read.npartitions)] for read in expr.reads(collection)]


def test_small_partitions_are_read_together_but_by_a_few_tasks_at_least(df: dd.DataFrame) -> None:
    (tasks,) = buckets(df[["x"]])
    assert [part for task in tasks for part in task] == list(range(len(SIZES)))
    assert 3 <= len(tasks) < len(SIZES)
    assert_same(df[["x"]].compute(), WHOLE[["x"]])


def test_a_task_reads_about_as_many_bytes_as_it_should() -> None:
    scan = ToyScan((10,) * 40 + (500,) + (10,) * 40, blocksize=800)
    df = from_scan(scan)
    (tasks,) = buckets(df[["x"]])
    weights = [sum(scan.sizes[part] * 8 for part in task) for task in tasks]
    assert [40] in tasks  # the large one is by itself
    assert all(weight <= 800 for task, weight in zip(tasks, weights, strict=True) if task != [40])
    assert len(tasks) == 9
    (wide,) = buckets(df[["x", "y"]])
    assert len(wide) == 17
    (ragged,) = buckets(df.spikes)
    assert ragged == [[part] for part in range(81)]
    few, _rest = buckets(df.nlargest(2, "x").spikes)  # of which little is read
    assert len(few) <= 17


def test_many_tiny_partitions_are_not_one_task() -> None:
    df = from_scan(ToyScan((0,) * 4000))
    (tasks,) = buckets(df[["x"]])
    assert len(tasks) >= 3
    assert max(map(len, tasks)) <= 1334
    big = from_scan(ToyScan((1,) * 4000, blocksize=1 << 20))
    (tasks,) = buckets(big[["x"]])
    assert max(map(len, tasks)) <= 512


def test_all_branches_of_a_frame_are_cut_alike() -> None:
    df = from_scan(FEW)
    for result in (
        df[["x", "n"]].assign(z=df[df.x > 0].y),
        df[df.x > 0][["x"]].assign(s=df.spikes),
        df[df.good].x + df.y,
        dd.concat([df.x, df[df.good].n], axis=1),
        df[["n"]].assign(i=df[df.x > 0].index.to_series()),
    ):
        reads = expr.reads(result)
        assert len(reads) == 2
        assert len({read.layout for read in reads}) == 1
        assert len({read.divisions for read in reads}) == 1
        assert reads[0].known_divisions


def test_fused_and_unfused_give_the_same(df: dd.DataFrame) -> None:
    frames = [df, from_scan(FEW)]
    wanted = WHOLE[["x", "n"]].assign(z=WHOLE[WHOLE.x > 0].y)
    for frame in frames:
        result = frame[["x", "n"]].assign(z=frame[frame.x > 0].y)
        assert_same(result.compute(), wanted)
        with dask.config.set({"lazynwb-dask.fuse": False}):
            assert_same(result.compute(), wanted)
            assert {read.npartitions for read in expr.reads(result)} == {len(SIZES)}


@pytest.mark.parametrize("tune", [True, False])
def test_nothing_depends_on_dasks_tuning(df: dd.DataFrame, tune: bool) -> None:
    with dask.config.set({"optimization.tune.active": tune}):
        result = df[df._nwb_path.isin(["/data/3.nwb", "/data/9.nwb"])].assign(z=df.y)
        expected = WHOLE[WHOLE._nwb_path.isin(["/data/3.nwb", "/data/9.nwb"])].assign(z=WHOLE.y)
        assert_same(result.compute(), expected)


def test_a_scan_that_may_not_be_fused_is_not() -> None:
    df = from_scan(ToyScan(SIZES, fusable=False))
    assert buckets(df[["x"]]) == [[[part] for part in range(len(SIZES))]]


def test_what_counts_partitions_finds_as_many_as_it_was_told(df: dd.DataFrame) -> None:
    array = df.y.to_dask_array(lengths=True)
    assert array.chunks == (SIZES,)
    assert np.array_equal(array.compute(), WHOLE.y)
    assert_same(df[["n"]].assign(z=df.y.values).compute(), WHOLE[["n"]].assign(z=WHOLE.y))
    assert df.map_partitions(len).compute().tolist() == list(SIZES)
    rows = df.assign(row=df.index.to_series()).set_index("row", sorted=True)
    assert_same(rows[["n"]].compute(), WHOLE[["n"]].rename_axis("row"))
    far = df[(df.index > 50) & (df.x > 0)]  # made of an array
    assert_same(far.compute(), WHOLE[(WHOLE.index > 50) & (WHOLE.x > 0)])
    parts = dd.from_map(functools.partial(piece, "y"), range(len(SIZES)), meta=WHOLE[["y"]][:0])
    both = df[["n"]].map_partitions(beside, parts, align_dataframes=False, meta=WHOLE[["n", "y"]][:0])
    assert_same(both.compute(), WHOLE[["n", "y"]])


def piece(column: str, part: int) -> pd.DataFrame:
    frame = toy.make_part(SCAN.seed, part, SIZES[part], 1)
    start = sum(SIZES[:part])
    return frame[[column]].set_axis(range(start, start + len(frame)))


def beside(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    return left.assign(y=right.y.to_numpy())


def test_frames_that_are_already_planned_or_read_combine_with_the_rest(df: dd.DataFrame) -> None:
    wanted = WHOLE[["x"]].assign(z=WHOLE.n)
    for other in (df[["n"]].persist(), df[["n"]].optimize(), df[["n"]].optimize(fuse=False)):
        assert other.npartitions < df.npartitions
        assert_same(df[["x"]].assign(z=other.n).compute(), wanted)
        again = other[other.n > 2].n
        assert_same(again.compute(), WHOLE[WHOLE.n > 2].n)
        assert_same(df[df.good].assign(z=again).compute(),
                    WHOLE[WHOLE.good].assign(z=WHOLE[WHOLE.n > 2].n))  # fmt: skip
        assert_same(other.partitions[1].compute(), WHOLE.loc[range_of(other, 1), ["n"]])


def range_of(collection: dd.DataFrame, part: int) -> slice:
    start, stop = collection.divisions[part : part + 2]
    return slice(start, stop - 1)


def test_repartitioning_keeps_every_row(df: dd.DataFrame) -> None:
    for count in (1, 2, 5, 30):
        assert_same(df.repartition(npartitions=count)[["x"]].compute(), WHOLE[["x"]])
    assert_same(df.repartition(divisions=[0, 10, 40, 90])[["n"]].compute(), WHOLE[["n"]])


# ------------------------------------------------------------------------------------- known to be odd
def test_a_partition_without_rows_left_gains_none_by_assigning(df: dd.DataFrame) -> None:
    good = df[df.x > 1]
    wanted = WHOLE[WHOLE.x > 1]
    assert 0 in good.map_partitions(len).compute().tolist()
    assert_same(good.assign(z=df.y).compute(), wanted.assign(z=WHOLE.y))
    assert_same(good.assign(z=df.y * 2, w=3).compute(), wanted.assign(z=WHOLE.y * 2, w=3))
    assert_same(good[["x"]].assign(z=df[df.good].n).compute(),
                wanted[["x"]].assign(z=WHOLE[WHOLE.good].n))  # fmt: skip
    rare = df[df.x > df.x.max() - 0.1]
    assert_same(rare.assign(z=df.y).compute(), WHOLE[WHOLE.x > WHOLE.x.max() - 0.1].assign(z=WHOLE.y))


def test_tables_without_rows_can_be_asked_anything() -> None:
    for sizes in ((0,), (0, 0, 0, 0, 0)):
        scan = ToyScan(sizes)
        df, whole = from_scan(scan), scan.whole()
        assert_same(df.compute(), whole)
        assert_same(df[df.x > 0].assign(z=df.y).compute(), whole.assign(z=whole.y))
        assert_same(df.nlargest(3, "x").compute(), whole)
        assert_same(df.head(3, npartitions=-1), whole)
        assert len(df[df.good]) == len(df) == 0


# -------------------------------------------------------------------------------- identity and travel
def test_the_same_query_has_the_same_name_and_another_has_another() -> None:
    def plan(scan: ToyScan, threshold: float = 0) -> str:
        df = from_scan(scan)
        return str(optimized(df[(df.x > threshold) & df.area.isin(["CA1", "VISp"])].spikes)._name)

    assert plan(SCAN) == plan(ToyScan(SIZES))
    assert len({plan(SCAN), plan(FEW), plan(SCAN, 1), plan(SCAN, 0.0), plan(ToyScan(SIZES, 1))}) == 5
    fused = plan(SCAN)
    with dask.config.set({"lazynwb-dask.fuse": False}):
        assert plan(SCAN) != fused


def pickled_plans(df: dd.DataFrame) -> dict[str, Any]:
    plans = {
        "filtered": df[(df.x > 0) & df.area.isin(["CA1", "VISp"])][["n", "spikes"]],
        "branches": df[df.x > 0].assign(z=df.y),
        "some": df.partitions[[3, 7, 9]].x,
        "files": df[df._nwb_path.isin(["/data/3.nwb", "/data/9.nwb"])].n,
        "head": df[["x", "spikes"]].head(4, compute=False),
        "top": df.nlargest(3, "x"),
        "bare": df,
    }
    return {name: expr.FinalizeCompute(collections_to_expr(plan)).optimize() for name, plan in plans.items()}


def test_a_plan_means_the_same_in_another_process(df: dd.DataFrame, tmp_path: Path) -> None:
    plans = pickled_plans(df)
    path = tmp_path / "plans.pickle"
    path.write_bytes(pickle.dumps(plans))
    code = f"""
import pickle, sys, threading
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from dask.threaded import get
with open({str(path)!r}, "rb") as file:
    plans = pickle.load(file)
out = {{}}
for name, plan in plans.items():
    graph = plan.__dask_graph__()
    keys = [key for row in [plan.__dask_keys__()] for key in row]
    out[name] = plan._name, sorted(map(str, graph)), get(graph, keys)[0]
sys.stdout.buffer.write(pickle.dumps(out))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    for name, (plan_name, keys, result) in pickle.loads(done.stdout).items():
        assert plan_name == plans[name]._name
        assert keys == sorted(map(str, plans[name].__dask_graph__()))
        assert_same(result, dask.threaded.get(plans[name].__dask_graph__(), plans[name].__dask_keys__())[0])


def test_a_pickled_read_carries_only_what_it_reads(df: dd.DataFrame) -> None:
    (read,) = expr.reads(df[df._nwb_path.isin(["/data/3.nwb", "/data/9.nwb"]) & df.good][["spikes"]])
    copy = pickle.loads(pickle.dumps(read))
    assert copy._name == read._name
    assert copy is not read
    assert copy.scan.nparts == 2
    assert list(copy.scan.meta.columns) == ["good", "spikes", "_nwb_path"]
    assert copy.divisions == read.divisions
    assert copy.columns == ["spikes"]
    again = pickle.loads(pickle.dumps(copy))
    assert again._name == read._name
    assert list(again.__dask_graph__()) == list(read.__dask_graph__())
    assert ReadNWB(*read.operands) is read  # a narrower namesake must not take its place


def test_tasks_carry_only_what_they_read(df: dd.DataFrame) -> None:
    (read,) = expr.reads(df[df.x > 0].spikes)
    for index, task in enumerate(read.__dask_graph__().values()):
        scan, columns, predicate, limit = task.args
        assert list(scan.meta.columns) == ["x", "spikes"]
        assert scan._parts == tuple(read.parts(index).tolist())
        assert (columns, repr(predicate), limit) == (("spikes",), "x > 0", None)
        assert task.data_producer


class Announced(ToyScan):
    """A scan that wants to know when its graph is about to be used."""

    told: list[str] = []  # noqa: RUF012

    def before_compute(self) -> None:
        self.told.append("before")


def test_the_scan_is_told_before_its_graph_is_used_and_not_for_asking_what_it_is() -> None:
    df = from_scan(Announced(SIZES))
    Announced.told.clear()
    result = df[df.x > 0].assign(z=df.y)
    assert result.npartitions, result.divisions
    assert list(result.columns)
    assert repr(result)
    assert Announced.told == []
    result.compute()
    assert Announced.told


# ------------------------------------------------------------------------------------- Dask underneath
def test_an_unsuitable_dask_is_named(tmp_path: Path) -> None:
    code = (
        "import dask.dataframe.dask_expr._expr as ex; del ex.determine_column_projection\n"
        "import lazynwb_dask.expr"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: lazynwb_dask works with dask 2026.7.0 or later")
    assert "determine_column_projection" in message


def subclasses(kind: type) -> Iterator[type]:
    for sub in kind.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_dask_lets_filters_pass_where_it_did() -> None:
    """If this fails, Dask's rules have changed: see whether conditions are still pushed, then adapt."""
    passing = {
        kind.__name__
        for kind in subclasses(ex.Expr)
        if kind._filter_passthrough and kind.__module__.startswith("dask.")
    }
    assert passing == {
        "AddPrefixSeries", "AddSuffixSeries", "ArrowStringConversion", "AsType", "BlockwiseMerge",
        "BroadcastJoin", "DiskShuffle", "Filter", "FilterAlign", "HashJoinP2P", "Merge", "P2PShuffle",
        "ReadParquetPyarrowFS", "RearrangeByColumn", "RenameAxis", "RenameSeries", "Repartition",
        "RepartitionDivisions", "RepartitionFreq", "RepartitionSize", "RepartitionToFewer",
        "RepartitionToMore", "ResetIndex", "SemiMerge", "SetIndex", "SetPartition", "Shuffle",
        "ShuffleBase", "SimpleShuffle", "SortValues", "TaskShuffle", "ToBackend", "ToFrame",
        "ToFrameIndex", "ToPandasBackend", "ToSeriesIndex", "ToTimestamp", "_DeepCopy",
    }  # fmt: skip


@pytest.mark.parametrize(
    "later",
    [
        lambda f: (lambda a: a[a.x > 0])(f.astype({"n": "float64"})),
        lambda f: (lambda a: a[a.x > 0])(f.repartition(npartitions=2)),
        lambda f: (lambda a: a[a.x > 0])(f.sort_values("y")),
        lambda f: (lambda a: a[a.x > 0])(f.merge(LOOKUP, on="k")),
    ],
    ids=["astype", "repartition", "sort", "merge"],
)
def test_filters_reach_the_read_through_other_operations(df: dd.DataFrame, later: Any) -> None:
    reads = [read for read in expr.reads(later(df).spikes) if "spikes" in read.columns]
    assert [repr(read.predicate) for read in reads] == ["x > 0"]


LOOKUP = dd.from_pandas(pd.DataFrame({"k": np.arange(3, dtype="int32"), "label": [10, 20, 30]}), 1)


# ------------------------------------------------------------------------------------ anything at all
WORDS = Vocabulary(
    floats={"x": [-0.5, 0.0, 0.3, 1.0], "y": [-1.0, 0.2]},
    ints={"n": [-2, 0, 3, 5], "k": [0, 1, 2]},
    strings={"area": ["VISp", "CA1"], "group name": ["a"]},
    constants={"_nwb_path": [f"/data/{i}.nwb" for i in (0, 1, 3, 5)], "_table_path": ["/units"]},
    bools=["good"],
    ragged=["spikes"],
    key=["_nwb_path", "_table_index"],
)


@dataclass(frozen=True)
class Setting:
    """A table and how it is read."""

    sizes: tuple[int, ...]
    blocksize: int
    parts_per_file: int
    fuse: bool


SETTINGS = st.builds(
    Setting,
    st.lists(st.sampled_from([0, 0, 1, 2, 3, 8, 20, 40]), min_size=1, max_size=9).map(tuple),
    st.sampled_from([1, 600, 3000, 1 << 20]),
    st.integers(1, 3),
    st.booleans(),
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(query=queries(WORDS), setting=SETTINGS)
def test_whatever_is_asked_the_result_is_what_pandas_gives(query: Any, setting: Setting) -> None:
    scan = ToyScan(setting.sizes, 0, setting.blocksize, parts_per_file=setting.parts_per_file)
    try:
        expected = run_pandas(query, scan.whole())
    except TypeError:  # of masks of two dtypes with missing values; by partition there may be none
        reject()
    with dask.config.set({"lazynwb-dask.fuse": setting.fuse}):
        got = run_dask(query, from_scan(scan))
    assert_same(got, expected)
