"""Between which values of a column the rows must lie that a condition leaves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lazynwb_dask.predicate.tree import Predicate
from lazynwb_dask.predicate.visitor import Visitor

Interval = tuple[float, float]
EVERYTHING: Interval = (-math.inf, math.inf)


def bounds(predicate: Predicate, name: str) -> Interval:
    """The range outside of which no float64 of a column can fulfil a predicate.

    >>> from lazynwb_dask.predicate.filters_argument import from_filters
    >>> bounds(from_filters("timestamps > 3 and (timestamps <= 5 and x > 9)"), "timestamps")
    (3.0000000000000004, 5.0)
    >>> bounds(from_filters("timestamps == 3 or 8 <= timestamps <= 9"), "timestamps")
    (3.0, 9.0)
    """
    return _Bounds(name).of(predicate)


class _Bounds(Visitor[Interval]):
    unknown = EVERYTHING

    def __init__(self, name: str) -> None:
        self.name = name

    def both(self, left: Interval, right: Interval) -> Interval:
        return max(left[0], right[0]), min(left[1], right[1])

    def either(self, left: Interval, right: Interval) -> Interval:
        return min(left[0], right[0]), max(left[1], right[1])

    def compared(self, name: str, symbol: str, value: Any) -> Interval:
        if name != self.name or not _is_exact(value):
            return EVERYTHING
        limit = float(value)
        low = math.nextafter(limit, math.inf) if symbol == ">" else limit
        high = math.nextafter(limit, -math.inf) if symbol == "<" else limit
        return (
            low if symbol in (">", ">=", "==") else -math.inf,
            high if symbol in ("<", "<=", "==") else math.inf,
        )

    def among(self, name: str, values: Any) -> Interval:
        numbers = np.asarray(values)
        if name != self.name or not numbers.size or numbers.dtype.kind not in "iuf":
            return EVERYTHING
        low, high = float(numbers.min()), float(numbers.max())
        return EVERYTHING if math.isnan(low) else (low, high)


def _is_exact(value: Any) -> bool:
    """Whether it is a number that float64 holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    whole = isinstance(value, (int, np.integer))
    return abs(int(value)) <= 2**53 if whole else not math.isnan(value)
