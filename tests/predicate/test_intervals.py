"""The range of a column's values that a condition leaves."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from lazynwb_dask.predicate.intervals import EVERYTHING, bounds
from lazynwb_dask.predicate.query import parse_query
from lazynwb_dask.predicate.tree import Column, Constant, Labelled, Method, Operation, then

X = Column("x")
VALUES = pd.DataFrame({"x": [-math.inf, -1, 0, 0.5, 1, 2, 3, 5.5, math.inf, math.nan], "n": 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x >= 1 and x <= 3 and n > 0", (1, 3)),
        ("3 > x > 0.5", (math.nextafter(0.5, 9), math.nextafter(3, 0))),
        ("x == 1 or x in [2, 3]", (1, 3)),
        ("x == [0.5, 2] and not x > 1", (0.5, 2)),
        ("x < 0 and x > 1", (math.nextafter(1, 2), math.nextafter(0, -1))),
        ("x.between(0, 2, inclusive='left')", (0, math.nextafter(2, 0))),
        ("x > 1 and abs(x) < 3", (math.nextafter(1, 2), math.inf)),
        ("x > 1 or n > 0", EVERYTHING),
        ("x != 1", EVERYTHING),
        ("x > n", EVERYTHING),
        ("x * 2 > 3", EVERYTHING),
        ("n > 3", EVERYTHING),
    ],
)
def test_a_query_has_bounds_that_no_row_it_leaves_is_outside_of(
    text: str, expected: tuple[float, float]
) -> None:
    low, high = bounds(parse_query(text), "x")
    assert (low, high) == expected
    assert VALUES.query(text).x.dropna().between(low, high).all()


def test_numbers_that_a_float_cannot_hold_bound_nothing() -> None:
    for value in (2**53 + 1, math.nan, "a", True, None, pd.Timestamp(0)):
        assert bounds(Operation(">", (X, Constant(value))), "x") == EVERYTHING
    for values in ((1, math.nan), ("a",), (), np.array([True])):
        assert bounds(Method("isin", (X, Constant(values))), "x") == EVERYTHING


def test_one_condition_after_the_other_bounds_by_both() -> None:
    both = then(parse_query("x > 1"), Operation(">=", (Constant(np.float32(3)), X)))
    assert bounds(then(both, Labelled(np.array([3]))), "x") == (math.nextafter(1, 2), 3)
