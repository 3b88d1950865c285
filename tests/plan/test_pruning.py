"""No file is left out that holds a row, whatever the condition; and those that can't are not opened."""

from __future__ import annotations

import functools
import operator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from files import nwb, ragged, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazynwb_dask
from lazynwb_dask import expr
from lazynwb_dask.catalog import column_stats, tables_schema
from lazynwb_dask.predicate.query import parse_query
from lazynwb_dask.predicate.tree import Column, Constant, Method, Operation, Predicate, then
from lazynwb_dask.scan.scan import Scan

FLOATS = [
    [1.0, 2.5, np.nan], [np.nan] * 3, [-1.0, -0.0, 0.0], [0.7, 0.7, 0.7], [np.inf, -np.inf, 3.0],
    [0.1, 0.30000000000000004, 0.2], [1e300, -1e300, 5.0],
]  # fmt: skip
INTS = [[1, 2, 3], [5, 5, 5], [-7, 0, 9], [2**62, 2**62 + 1, 2**62 + 2], [100, 200, 300]]
TEXTS = [
    ["a", "b", "c"], ["VISp", "VISl", "VISp"], ["", "", ""], ["äöü", "z", "ZZ"], ["x" * 200, "y", "w"],
    ["noise", "sua", "mua"],
]  # fmt: skip
BOOLS = [[True, True, True], [False, False, False], [True, False, True]]
FILES = 14


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files whose columns differ in values, in what is missing, and in type."""
    folder = tmp_path_factory.mktemp("sessions")
    rng = np.random.default_rng(0)
    for i in range(FILES):
        rows = 0 if i == 13 else 3
        with nwb(folder / f"{i:02d}.nwb") as file:
            group = table(file, "/units", rows, ["f", "g", "i", "j", "k", "t", "b", "m", "e", "s"])
            group.create_dataset("f", data=FLOATS[i % len(FLOATS)][:rows])
            group.create_dataset("g", data=np.array(FLOATS[(i + 3) % 6][:rows], np.float32))
            group.create_dataset("i", data=np.array(INTS[i % len(INTS)][:rows], np.int64))
            if i % 4:  # some lack it
                group.create_dataset("j", data=np.array(INTS[i % 3][:rows], np.int16))
            kind = np.float64 if i % 2 else np.int32  # two types
            group.create_dataset("k", data=np.array(INTS[(i + 1) % 3][:rows], kind))
            texts = TEXTS[i % len(TEXTS)][:rows]
            group.create_dataset("t", data=texts, dtype=h5py.string_dtype(), shape=(rows,))
            group.create_dataset("b", data=np.array(BOOLS[i % 3][:rows], bool))
            if i % 3:
                group.create_dataset("m", data=np.array(BOOLS[i % 2][:rows], bool))
            enum = h5py.enum_dtype({"low": 0, "high": 1}, np.int8)  # 2 has no label: null
            group.create_dataset("e", data=rng.integers(0, 3, rows).astype(np.int8), dtype=enum)
            ragged(group, "s", np.arange(rows) + 1, np.arange(float(rows)))
    return folder


@pytest.fixture(scope="module")
def scan(sessions: Path, tmp_path_factory: pytest.TempPathFactory) -> Scan:
    made = lazynwb_dask.build_catalog(sessions, tmp_path_factory.mktemp("catalogs") / "all")
    frame = lazynwb_dask.read_nwb(made, "/units", blocksize=None)
    (node,) = expr.reads(frame)
    assert isinstance(node.scan, Scan)
    return node.scan


@pytest.fixture(scope="module")
def frames(sessions: Path) -> list[pd.DataFrame]:
    """The rows of each file, as a frame of all files has them."""
    whole = lazynwb_dask.read_nwb(sessions, "/units", blocksize=None)
    return [whole.partitions[i].compute() for i in range(whole.npartitions)]


NUMBERS = st.sampled_from(
    [
        *{x for v in FLOATS for x in v if x == x},
        *{x for v in INTS for x in v},
        np.nan,
        None,
        4,
        0.35,
        2.0**53,
        np.float32(0.7),
        np.int64(2),
        True,
        -3,
        10**30,
    ]
)
WORDS = st.sampled_from([*{x for v in TEXTS for x in v}, "b\u0300", "VIS", "~", "low", None])
NUMERIC, TEXTUAL = ["f", "g", "i", "j", "k"], ["t", "e"]
SYMBOLS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@st.composite
def leaves(draw: Any) -> Predicate:
    kind = draw(st.integers(0, 8))
    numeric = draw(st.booleans())
    name = draw(st.sampled_from(NUMERIC if numeric else TEXTUAL))
    values = NUMBERS if numeric else WORDS
    column = Column(name)
    if kind <= 2:
        pair = (column, Constant(draw(values)))
        return Operation(draw(SYMBOLS), pair if draw(st.booleans()) else pair[::-1])
    if kind == 3:
        return Method("isin", (column, Constant(tuple(draw(st.lists(values, max_size=4))))))
    if kind == 4:
        return Method(draw(st.sampled_from(["isna", "notna", "isnull", "notnull"])), (column,))
    if kind == 5 and numeric:
        return Method("between", (column, Constant(draw(values)), Constant(draw(values))))
    if kind == 6:
        return Column(draw(st.sampled_from(["b", "m"])))
    if kind == 7 and not numeric:
        test = draw(st.sampled_from(["startswith", "endswith", "contains", "isupper"]))
        args = () if test == "isupper" else (Constant(draw(st.sampled_from(["V", "s", ""]))),)
        return Method(test, (column, *args), (), "str")
    if kind == 8 and numeric:
        sum_ = Operation(draw(st.sampled_from(["+", "*"])), (column, Constant(2)))
        return Operation(draw(SYMBOLS), (sum_, Constant(draw(NUMBERS))))
    method = draw(st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]))
    return Method(method, (column, Constant(draw(values))))


def combined(parts: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
    return st.one_of(
        parts.map(lambda p: Operation("~", (p,))),
        st.tuples(parts, parts).map(lambda p: Operation("&", p)),
        st.tuples(parts, parts).map(lambda p: Operation("|", p)),
    )


PREDICATES = st.recursive(leaves(), combined, max_leaves=5)


def check(scan: Scan, frames: list[pd.DataFrame], predicate: Predicate) -> None:
    """That every file with a row that passes counts as possible."""
    whole = pd.concat(frames)
    try:
        rows = predicate.rows(whole)
    except Exception:  # a condition that makes no sense of these types
        return
    number = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    truth = np.isin(np.arange(len(frames)), number[rows])
    told = scan.possible(predicate)
    if told is not None:
        missed = [i for i, (t, p) in enumerate(zip(truth, told, strict=True)) if t and not p]
        assert not missed, f"{predicate!r} is true of rows of files {missed}"


@pytest.mark.filterwarnings("ignore:overflow")
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(predicate=PREDICATES)
def test_a_file_with_a_matching_row_is_never_left_out(
    scan: Scan, frames: list[pd.DataFrame], predicate: Predicate
) -> None:
    check(scan, frames, predicate)


TERMS = st.sampled_from(
    [
        "f > 1", "0.1 < f <= 0.7", "g >= 0.7", "g == 0.7", "0.7 <= g", "i in [1, 5]", "i not in [5]",
        "t == 'VISp'", "t in @words", "t != ''", "not b", "b", "f != f", "k >= @limit", "j == 2",
        "t.isna()", "e == 'low'", "f.isna()", "i > 2 or f > 1", "-f < -2", "t == ['a', 'b']", "j != 1",
        "f + i > 3", "m == True", "t.str.startswith('VIS')", "t.str.upper() == 'A'", "abs(f) > 1",
        "i * 2 > 5", "f.between(0.7, 2.5)", "2 < i != 5", "t in ['a', 'VISp'] != 'a'", "i in [1, 5] == i",
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(TERMS, min_size=1, max_size=3), joins=st.lists(st.booleans(), max_size=2))
def test_queries_as_text_leave_out_no_file_either(
    scan: Scan, frames: list[pd.DataFrame], texts: list[str], joins: list[bool]
) -> None:
    query = texts[0]
    for text, both in zip(texts[1:], joins, strict=False):
        query = f"({query}) {'and' if both else 'or'} not ({text})"
    local = {"words": ["VISl", "z"], "limit": 2.5}
    check(scan, frames, parse_query(query, list(scan.meta.columns), local_dict=local))


@pytest.mark.parametrize(
    "query", ["f > 1 or not (e == 'low')", "not (e == 'low')", "not e.isna()", "not (t in ['a'])"]
)
def test_missing_values_count_in_a_query_as_they_do_there(
    scan: Scan, frames: list[pd.DataFrame], query: str
) -> None:
    check(scan, frames, parse_query(query, list(scan.meta.columns)))


@pytest.mark.parametrize("name", [*NUMERIC, *TEXTUAL])
def test_missing_values_count_as_they_do_in_a_frame(scan: Scan, frames: list[pd.DataFrame], name: str) -> None:
    column, value = Column(name), pd.concat(frames)[name].dropna().iloc[0]
    tests: list[Predicate] = [Operation(sign, (column, Constant(value))) for sign in ("==", "!=", "<", ">=")]
    tests += [Method("isin", (column, Constant(held))) for held in ((np.nan,), (None,), (None, value))]
    for predicate in tests:
        check(scan, frames, predicate)
        check(scan, frames, Operation("~", (predicate,)))


def left(scan: Scan, predicate: Predicate) -> set[int]:
    told = scan.possible(predicate)
    return set(range(FILES)) if told is None else set(np.flatnonzero(told).tolist())


def test_files_that_cannot_match_are_left_out(scan: Scan, frames: list[pd.DataFrame]) -> None:
    def of(name: str, symbol: str, value: Any) -> Predicate:
        return Operation(symbol, (Column(name), Constant(value)))

    path = str(frames[4]._nwb_path.iloc[0])
    exact = [
        of("f", ">", 1e10), of("f", "==", 0.7), of("i", "<", 0), of("t", "==", "VISp"), Column("b"),
        Operation("~", (Column("b"),)), of("t", ">", "y"), Method("isna", (Column("f"),)),
        Method("isna", (Column("j"),)), Method("notna", (Column("f"),)), of("g", "==", 0.7),
        Method("isin", (Column("i"), Constant((5, 7)))), of("_nwb_path", "==", path),
        Method("startswith", (Column("t"), Constant("VIS")), (), "str"), of("k", "==", 5),
        Operation("|", (of("_nwb_path", "==", path), of("f", "==", 0.7))),
        then(of("f", "==", 0.7), of("t", "!=", "a")), parse_query("f == 0.7 and i == 200"),
        parse_query("t in ['sua', 'z'] and not b"), of("e", "==", "middle"),
        Operation("~", (Method("isin", (Column("t"), Constant(("", "a", "b", "c")))),)),
        Operation("&", (of("i", ">=", 5), of("i", "<", 9))),
    ]  # fmt: skip
    for predicate in exact:
        check(scan, frames, predicate)
        truth = {i for i, frame in enumerate(frames) if len(predicate.rows(frame))}
        found = left(scan, predicate)
        assert truth <= found
        assert len(found - truth) <= 4, (predicate, found, truth)
        assert len(found) < FILES - 1, predicate


def test_what_is_left_out_never_becomes_a_task(scan: Scan, sessions: Path) -> None:
    frame = expr.from_scan(scan)
    for query in (
        frame[frame.f == 0.7].s,
        frame[(frame.t == "VISp") & (frame.i > 50)][["id", "s"]],
        frame.query("f > 1e10")[["s"]],
    ):
        unpruned = lazynwb_dask.read_nwb(sessions, "/units", blocksize=None)
        assert query.optimize().npartitions <= 5
    got = frame[(frame.t == "VISp") & (frame.i > 50)][["id", "s"]].compute()
    wanted = unpruned[(unpruned.t == "VISp") & (unpruned.i > 50)][["id", "s"]].compute()
    oracle.assert_same(got, wanted)
    a, b = frame[frame.f == 0.7], frame[frame.i == 5]
    assert 2 < a.i.add(b.i).optimize().npartitions < FILES  # what either needs, for both
    x, y = unpruned[unpruned.f == 0.7], unpruned[unpruned.i == 5]
    pd.testing.assert_series_equal((a.i + b.i).compute(), (x.i + y.i).compute())


def test_without_rows_that_pass_the_frame_is_empty_and_whole(scan: Scan) -> None:
    frame = expr.from_scan(scan)
    got = frame[frame.f == 12345.5].compute()
    assert len(got) == 0
    assert list(got.columns) == list(frame.columns)
    assert (got.dtypes == frame.dtypes).all()


def test_statistics_tell_what_the_schema_promises() -> None:
    for values in (
        np.array([1, 2], np.uint8), np.array([True]), np.array([], float), np.array(["a"], object),
        np.array([2**63], np.uint64), np.array([np.nan], np.float32),
    ):  # fmt: skip
        found = column_stats.statistics(values if values.dtype != object else pa.array(values.tolist()))
        assert set(found) <= set(tables_schema.STATISTICS.names)
    assert column_stats.statistics(np.array([2**63], np.uint64)) == {}


def test_several_conditions_prune_together(scan: Scan) -> None:
    terms = [Operation(">", (Column("f"), Constant(0))), Operation("<", (Column("i"), Constant(6)))]
    apart = functools.reduce(operator.and_, [left(scan, term) for term in terms])
    assert left(scan, Operation("&", tuple(terms))) == apart
