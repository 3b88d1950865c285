"""Functions of lists give what Python's lists give, for slices, nulls, chunks and elements of every kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazynwb_dask.scan.lists import SeriesLists

KINDS = {
    "numbers": (pa.float64(), st.one_of(st.none(), st.floats(-9, 9), st.just(math.nan))),
    "integers": (pa.int16(), st.integers(-9, 9)),
    "texts": (pa.string(), st.text("abc", max_size=3)),
    "structs": (
        pa.struct([("t", pa.string()), ("x", pa.uint8())]),
        st.fixed_dictionaries({"t": st.text("ab", max_size=2), "x": st.integers(0, 9)}),
    ),
    "lists": (pa.list_(pa.int64()), st.lists(st.integers(0, 9), max_size=2)),
}
LIMIT = st.one_of(st.none(), st.floats(-9, 9))
BORDER = st.one_of(st.none(), st.integers(-6, 6))


@st.composite
def columns(draw: st.DrawFn, *kinds: str) -> tuple[pd.Series, list[Any]]:
    """A Series of lists in several chunks, each a slice of something longer; and the lists."""
    kind, elements = KINDS[draw(st.sampled_from(kinds or tuple(KINDS)))]
    make = draw(st.sampled_from([pa.list_, pa.large_list]))(kind)
    lists = st.lists(st.one_of(st.none(), st.lists(elements, max_size=5)), max_size=6)
    parts = draw(st.lists(lists, max_size=3))
    chunks = [pa.array([[], None, *part, None], make).slice(2, len(part)) for part in parts]
    rows = [row for part in parts for row in part]
    array = pd.ArrowDtype(make).__from_arrow__(pa.chunked_array(chunks, make))
    return pd.Series(array, index=range(10, 10 + len(rows)), name="x"), rows


def same(found: pd.Series, wanted: list[Any], like: pd.Series) -> None:
    held = pa.chunked_array(found.array.__arrow_array__())
    assert repr(held.to_pylist()) == repr(pa.array(wanted, held.type).to_pylist())  # NaN too
    assert found.name == like.name
    assert found.index.equals(like.index)


def each(rows: list[Any], make: Any) -> list[Any]:
    return [None if row is None else make(row) for row in rows]


@given(columns(), st.integers(-6, 6), BORDER, BORDER, st.sampled_from([None, 1, 2, -1, -3]))
@settings(max_examples=60, deadline=None)
def test_lengths_elements_and_slices_are_pythons(drawn: Any, at: int, start: Any, stop: Any, step: Any) -> None:
    series, rows = drawn
    there = SeriesLists(series)
    assert there.len().dtype == "int32[pyarrow]"
    same(there.len(), each(rows, len), series)
    same(there[at], each(rows, lambda r: r[at] if -len(r) <= at < len(r) else None), series)
    part = slice(start, stop, step)
    same(there[part], each(rows, lambda r: r[part]), series)
    assert there[part].dtype == series.dtype


@given(columns("numbers", "integers"), LIMIT, LIMIT)
@settings(max_examples=40, deadline=None)
def test_between_takes_the_values_of_a_half_open_range(drawn: Any, start: Any, stop: Any) -> None:
    series, rows = drawn

    def inside(value: Any) -> bool:
        known = value is not None and not math.isnan(value)
        return known and (start is None or value >= start) and (stop is None or value < stop)

    wanted = each(rows, lambda r: [v for v in r if inside(v)])
    found = series.nwb.between(start, stop)
    assert found.dtype == series.dtype
    same(found, wanted, series)
    same(series.nwb.count_between(start, stop), each(wanted, len), series)


@given(columns())
@settings(max_examples=40, deadline=None)
def test_flattened_and_exploded_elements_keep_the_index_of_their_row(drawn: Any) -> None:
    series, rows = drawn
    flat, one = series.nwb.flatten(), series.nwb.explode()
    pairs = [(i, v) for i, row in zip(series.index, rows, strict=True) for v in row or []]
    same(flat, [v for _, v in pairs], pd.Series(index=[i for i, _ in pairs], name="x", dtype=object))
    pairs = [(i, v) for i, row in zip(series.index, rows, strict=True) for v in row or [None]]
    assert list(one.index) == [i for i, _ in pairs]
    if rows:
        same(one, [v for _, v in pairs], pd.Series(index=[i for i, _ in pairs], name="x", dtype=object))


@given(columns("structs"))
@settings(max_examples=30, deadline=None)
def test_a_field_of_structs_is_a_list_again(drawn: Any) -> None:
    series, rows = drawn
    same(series.nwb["t"], each(rows, lambda r: [v["t"] for v in r]), series)
    with pytest.raises(KeyError):
        series.nwb["z"]


def test_rows_are_numpy_arrays() -> None:
    kind = pa.list_(pa.list_(pa.int64()))
    rows = [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]]
    chunks = pa.chunked_array([pa.array([[], row], kind).slice(1) for row in rows])
    series = pd.Series(pd.ArrowDtype(kind).__from_arrow__(chunks))
    assert (series.nwb.to_numpy((3, 2)) == np.array(rows)).all()
    assert series.nwb.to_numpy((3, 2)).dtype == np.int64
    assert series.iloc[:0].nwb.to_numpy((3, 2)).shape == (0, 3, 2)
    assert [v.tolist() for v in series.nwb.flatten().nwb.to_numpy()] == rows[0] + rows[1]
    for wrong in ((2, 2), (3, 3), (3, 2, 1), (3,)):
        with pytest.raises(ValueError, match="shape="):
            series.nwb.to_numpy(wrong)
    with pytest.raises(ValueError, match="without a value"):
        pd.Series([[1], None], dtype=pd.ArrowDtype(pa.list_(pa.int64()))).nwb.to_numpy((1,))


def test_what_has_no_lists_has_no_accessor() -> None:
    with pytest.raises(AttributeError, match="lists, not"):
        pd.Series([1.0]).nwb.len()
    lists = pd.Series([[["a"]]], dtype=pd.ArrowDtype(pa.list_(pa.list_(pa.string()))))
    with pytest.raises(TypeError, match="order"):
        lists.nwb.between("a", "b")
    for key in (1.5, True, None):
        with pytest.raises(TypeError, match="slice"):
            lists.nwb[key]
    with pytest.raises(ValueError, match="cannot be zero"):
        lists.nwb[::0]


@pytest.mark.parametrize("kind", ["halffloat", "float", "double", "int8", "uint8", "int64", "uint64"])
def test_limits_of_any_size_and_kind_are_compared_exactly(kind: str) -> None:
    large = 1 << {"int64": 60, "uint64": 60, "double": 60, "float": 30}.get(kind, 6)
    one = {"double": 1 << 10, "float": 1 << 10}.get(kind, 1)
    item = pa.type_for_alias(kind)
    values = np.array([0, 1, 3, large, large + one]).astype(item.to_pandas_dtype())
    series = pd.Series([values, [], None], dtype=pd.ArrowDtype(pa.list_(item)))
    held = values.tolist()
    limits = [
        None,
        0,
        1.5,
        3,
        large,
        large + 1,
        float(large),
        -1,
        -0.5,
        1 << 70,
        -(1 << 70),
        10**400,
        -(10**400),
    ]
    limits += [np.inf, -np.inf, np.nan, np.float32(0.1), np.uint8(3), np.int64(large), True]
    for start in limits:
        for stop in limits:
            a, b = (x.item() if isinstance(x, np.generic) else x for x in (start, stop))
            wanted = [v for v in held if (a is None or v >= a) and (b is None or v < b)]
            assert list(series.nwb.between(start, stop).iloc[0]) == wanted, (start, stop)
            assert series.nwb.count_between(start, stop).fillna(-1).tolist() == [len(wanted), 0, -1]
