"""Conditions on rows: they mean what pandas means, and travel well."""

from __future__ import annotations

import functools
import pickle
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import toy

from lazynwb_dask.errors import ColumnNotFoundError
from lazynwb_dask.predicate.filters_argument import from_filters
from lazynwb_dask.predicate.query import parse_query
from lazynwb_dask.predicate.tree import (
    Attribute,
    Column,
    Constant,
    Index,
    Limit,
    Method,
    Operation,
    Predicate,
    conjuncts,
    steps,
    then,
    values_of,
)

FRAME = toy.ToyScan((60,)).whole()
X, N, AREA = Column("x"), Column("n"), Column("area")


def left(predicate: Predicate, frame: pd.DataFrame = FRAME) -> pd.DataFrame:
    """The rows that a predicate leaves, of a frame with no more than it asks for."""
    return frame.iloc[predicate.rows(frame[sorted(predicate.columns)])]


def op(symbol: str, a: Predicate, b: object) -> Operation:
    return Operation(symbol, (a, b if isinstance(b, Predicate) else Constant(b)))


# ------------------------------------------------------------------------------------------ filters
@pytest.mark.parametrize(
    ("filters", "mask"),
    [
        ([("x", ">", 0.3)], FRAME.x > 0.3),
        ([("x", "=", 0.3)], FRAME.x == 0.3),
        ([("x", "!=", 0.3)], FRAME.x != 0.3),
        ([("n", "<=", 3), ("x", ">=", 0)], (FRAME.n <= 3) & (FRAME.x >= 0)),
        ([[("n", "<", 0)], [("x", ">", 1), ("good", "==", True)]],
         (FRAME.n < 0) | ((FRAME.x > 1) & FRAME.good)),
        ([("area", "in", ["VISp", "CA1"])], FRAME.area.isin(["VISp", "CA1"])),
        ([("area", "in", {"VISp"})], FRAME.area.isin(["VISp"])),
        ([("area", "not in", ("VISp",))], ~FRAME.area.isin(["VISp"])),
        ([("area", "==", "VISp")], FRAME.area == "VISp"),
        ([("area", "!=", "VISp")], FRAME.area != "VISp"),
        ([("x", "is null")], FRAME.x.isna()),
        ([("x", "IS  NOT NULL", None)], FRAME.x.notna()),
        ([("area", "is", None)], FRAME.area.isna()),
        ([("x", "is not", np.nan)], FRAME.x.notna()),
        ([("depth", ">", 3)], FRAME.depth > 3),
        ([["n", ">", 3]], FRAME.n > 3),
    ],
)  # fmt: skip
def test_filters_leave_the_rows_that_pandas_leaves(filters: object, mask: pd.Series) -> None:
    predicate = from_filters(filters)
    assert predicate is not None
    predicate.validate(FRAME.iloc[:0])
    pd.testing.assert_frame_equal(left(predicate), FRAME[mask])
    assert left(predicate, FRAME.iloc[:0]).empty


@pytest.mark.parametrize(
    "text",
    [
        "x > 0.3 and area == 'VISp'",
        "`group name` == 'a' | n in [1, 2]",
        "not (x > y) & area.str.startswith('VIS')",
        "0 < x < 1 and area != 'it`s'",
        "index >= 50",
        "abs(x) * 2 > n",
        "good",
        "~good and x.isna()",
        "n.between(-1, 2)",
        "k == [0, 2] and n not in [3]",
        'area == "VISp" and `group name` != "a & `b`"',
        "depth > 3 and depth ** 2 < 50 and -n < 2",
    ],
)
def test_a_query_leaves_the_rows_that_pandas_leaves(text: str) -> None:
    predicate = from_filters(text)
    assert predicate is not None
    predicate.validate(FRAME.iloc[:0])
    expected = FRAME.query(text)
    assert 0 < len(expected) < len(FRAME)
    pd.testing.assert_frame_equal(left(predicate), expected)


def test_no_filters_are_no_predicate() -> None:
    assert from_filters([]) is None


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (3, "must be a list"),
        ({"x": 3}, "must be a list"),
        ([[]], "empty list"),
        ([[("x", ">", 1)], []], "empty list"),
        (["x > 1"], "is .column, operator, value."),
        (("x", ">", 1), "is .column, operator, value."),
        ([("x",)], "is .column, operator, value."),
        ([("x", ">", 1, 2)], "is .column, operator, value."),
        ([(1, ">", "x")], "is .column, operator, value."),
        ([("x", "~", 1)], "unknown operator '~'.*not in"),
        ([("x", None, 1)], "unknown operator None"),
        ([("x", ">")], "lacks a value"),
        ([("x", "is null", 3)], "is null"),
        ([("x", "is", 3)], "is null"),
        ([("x", "==", None)], "'is null'"),
        ([("x", "in", "VISp")], "needs a list"),
        ([("x", ">", [1, 2])], "single value.*'in'"),
        ("x >", "not a query"),
        ("x > 1 ; import os", "not a query"),
        ("x = 3", "not a query"),
        ("x > x.mean()", "each row by itself"),
        (
            "x > @limit and n in @some",
            r"uses @limit, @some.*f'... {limit!r}'.*\.query\(text, local_dict={'limit': limit}",
        ),
        ("x == 'a@b' and n > @limit", "uses @limit, but a text can't see your variables"),
        ("x.eq([1, 2])", "each row by itself"),
        ("x.fillna(0, limit=1) > 1", "each row by itself"),
        ("x in y", "each row by itself"),
        ("x.shift() > 1", "each row by itself"),
        ("__import__('os').system('true')", "each row by itself"),
        ("[v for v in x]", "each row by itself"),
        ("(lambda: x)()", "each row by itself"),
        ("1 > 0", "each row by itself"),
    ],
)
def test_malformed_filters_say_what_is_wrong(filters: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_filters(filters)


def test_an_unknown_column_lists_near_ones() -> None:
    predicate = from_filters([("aera", "==", "VISp")])
    assert predicate is not None
    with pytest.raises(ColumnNotFoundError, match=r"'aera'.*did you mean 'area'"):
        predicate.validate(FRAME.iloc[:0])


@pytest.mark.parametrize(
    "filters", [[("area", ">", 3)], [("n", "<", "a")], "x + 1", "area > 1", "area.abs() > 1"]
)
def test_a_filter_that_makes_no_sense_for_a_type_names_it(filters: object) -> None:
    predicate = from_filters(filters)
    assert predicate is not None
    with pytest.raises(TypeError, match=r"makes no sense, \w+ is"):
        predicate.validate(FRAME.iloc[:0])


# ------------------------------------------------------------------------------------------ queries
def test_a_query_finds_its_values_where_it_is_told_and_nowhere_else() -> None:
    areas, n = ["CA1"], 100  # noqa: F841  (not to be seen)
    query = parse_query("area in @areas and n > @n", FRAME.columns, local_dict={"areas": ["VISp"], "n": 2})
    expected = FRAME[FRAME.area.isin(["VISp"]) & (FRAME.n > 2)]
    pd.testing.assert_frame_equal(left(query), expected)
    assert len(expected)


def test_a_query_names_its_columns_also_in_strings_and_backticks() -> None:
    query = parse_query("`group name` == 'x > `y` & @z' and area == \"n's | k\"", FRAME.columns)
    assert query.columns == {"group name", "area"}


def test_a_column_called_index_hides_the_index() -> None:
    frame = FRAME.assign(index=5)
    query = parse_query("index == 5", frame.columns)
    assert query.columns == {"index"}
    assert len(left(query, frame)) == len(frame)
    assert parse_query("index == 5", FRAME.columns).inputs == {None}


def test_options_that_change_what_a_query_means_are_refused() -> None:
    for options in ({"parser": "python"}, {"inplace": True}, {"global_dict": {"a": 1}}):
        with pytest.raises(ValueError, match="options"):
            parse_query("x > 1", FRAME.columns, **options)


# ------------------------------------------------------------------------------------------ meaning
def test_missing_values_are_not_true_and_their_negation_is_as_in_pandas() -> None:
    deep = op(">", Column("depth"), 3)
    assert left(deep).depth.notna().all()
    not_deep = Operation("~", (deep,))
    pd.testing.assert_frame_equal(left(not_deep), FRAME[~(FRAME.depth > 3)])


def test_a_later_condition_only_sees_the_rows_that_the_earlier_one_left() -> None:
    whole = Method("astype", (X, Constant("int64")))
    both = then(Method("notna", (X,)), op(">", whole, 0))
    pd.testing.assert_frame_equal(left(both), FRAME[FRAME.x.notna() & (FRAME.x.fillna(0) >= 1)])
    with pytest.raises(pd.errors.IntCastingNaNError):
        left(op("&", Method("notna", (X,)), op(">", whole, 0)))


def test_what_is_not_a_condition_raises() -> None:
    with pytest.raises(TypeError, match="neither true nor false"):
        left(op("+", X, 1))


def test_conjuncts_are_what_must_all_be_true() -> None:
    a, b, c = op(">", X, 0), op("<", N, 3), op("==", AREA, "CA1")
    assert conjuncts(then(op("&", a, b), c)) == [a, b, c]
    assert conjuncts(op("|", a, b)) == [op("|", a, b)]
    assert conjuncts(None) == []
    text = "x > 0 and (`group name` == '_quoted_0 and @n' or good) & area in @local"
    terms = conjuncts(parse_query(text, FRAME.columns, local_dict={"local": ["CA1"]}))
    assert list(map(repr, terms)) == [
        "x > 0", "`group name` == '_quoted_0 and @n' or good", "area in @local",
    ]  # fmt: skip
    whole = parse_query(text, FRAME.columns, local_dict={"local": ["CA1"]})
    pd.testing.assert_frame_equal(left(functools.reduce(then, terms)), left(whole))
    assert conjuncts(parse_query("x > 0 and 1 < 2")) == [parse_query("x > 0 and 1 < 2")]
    assert steps(then(then(None, a), then(b, c))) == (a, b, c)
    assert then(None, a) == a


def test_accessors_and_attributes_are_evaluated_by_pandas() -> None:
    times = pd.DataFrame({"t": pd.date_range("2020-01-01", periods=48, freq="h", unit="us")})
    morning = op("<", Attribute("hour", Column("t"), "dt"), 6)
    assert left(morning, times).t.dt.hour.tolist() == [*range(6), *range(6)]
    starts = Method("startswith", (AREA, Constant("VIS")), (), "str")
    pd.testing.assert_frame_equal(left(starts), FRAME[FRAME.area.str.startswith("VIS")])


@pytest.mark.parametrize("kind", ["largest", "smallest"])
@pytest.mark.parametrize("by", [("x",), ("k",), ("k", "n"), ("good", "y"), ("depth",)])
@pytest.mark.parametrize("n", [0, 1, 7, 59, 60, 100])
def test_a_limit_takes_the_rows_that_pandas_takes(kind: str, by: tuple[str, ...], n: int) -> None:
    limit = Limit(kind, n, by)  # type: ignore[arg-type]
    expected = getattr(FRAME, f"n{kind}")(n, list(by)).sort_index()
    pd.testing.assert_frame_equal(FRAME.iloc[limit.rows(FRAME[list(by)])], expected)
    assert limit.columns == {*by}


def test_first_and_last_rows_need_no_column() -> None:
    bare = pd.DataFrame(index=range(5))
    assert Limit("first", 3).rows(bare).tolist() == [0, 1, 2]
    assert Limit("last", 3).rows(bare).tolist() == [2, 3, 4]
    assert Limit("first", 9).rows(bare).tolist() == [0, 1, 2, 3, 4]
    assert Limit("last", 0).rows(bare).tolist() == []


# --------------------------------------------------------------------------------- identity and travel
SAME = [
    op(">", X, 0.3),
    then(op(">", X, 0.3), Method("isin", (AREA, Constant(("CA1",))))),
    parse_query("x in @v", ["x"], local_dict={"v": [1, 2]}),
    Method("contains", (AREA, Constant("a")), (("na", False),), "str"),
    Attribute("hour", Column("t"), "dt"),
    Index(),
]


@pytest.mark.parametrize("predicate", SAME, ids=repr)
def test_a_predicate_survives_pickling_small_and_equal(predicate: Predicate) -> None:
    hash(predicate)  # what is cached must not travel
    data = pickle.dumps(predicate)
    again = pickle.loads(data)
    assert again == predicate
    assert hash(again) == hash(predicate)
    assert again.columns == predicate.columns
    assert len(data) < 500
    assert b"dask.dataframe" not in data


def test_predicates_that_differ_are_different() -> None:
    variants = [
        op(">", X, 1), op(">", X, 1.0), op(">", X, True), op(">", X, np.float32(1)),
        op(">", X, "1"), op(">=", X, 1), op(">", N, 1), op(">", X, N), op(">", X, None),
        op(">", X, np.array([1])), op(">", X, np.array([1.0])), op(">", X, (1,)),
        Method("contains", (X, Constant("a"))), Method("contains", (X, Constant("a")), (), "str"),
        Method("contains", (X, Constant("a")), (("na", False),)),
        op(">", X, re.compile("a" * 300)), op(">", X, re.compile("a" * 301)),
        op(">", X, pd.Timestamp("2020-01-01")), op(">", X, pd.CategoricalDtype(["a"])),
        op(">", X, pd.CategoricalDtype(["b"])),
    ]  # fmt: skip
    assert len(set(variants)) == len({v.key for v in variants}) == len(variants)


def test_the_values_of_isin_are_the_same_in_every_process() -> None:
    code = (
        "from lazynwb_dask.predicate.tree import values_of; import numpy as np;"
        "names = {'VISp', 'VISl', 'CA1', 'LP'};"
        "print(values_of(names), values_of(np.array(list(names), dtype=object)),"
        " values_of(np.array(list(names))).tolist())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    assert values_of([3, 1, 3, None]) == (None, 1, 3)


def test_a_predicate_reads_as_one_would_write_it() -> None:
    good = op("&", op(">=", Column("presence_ratio"), 0.7), Method("isin", (AREA, Constant(("a",)))))
    assert repr(good) == "(presence_ratio >= 0.7) & area.isin(['a'])"
    assert repr(Operation("~", (op("<", Column("group name"), "b"),))) == "~(`group name` < 'b')"
    assert repr(then(parse_query("x > 1"), Method("isna", (X,)))) == "(x > 1) & x.isna()"
    assert repr(Method("contains", (AREA, Constant("a")), (("na", False),), "str")) == (
        "area.str.contains('a', na=False)"
    )
    assert repr(Limit("largest", 5, ("x",))) == "largest 5 by x"
