"""The `filters` of `read_nwb` as a predicate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from pandas.api.types import is_list_like, is_scalar

from lazynwb_dask.predicate.query import parse_query
from lazynwb_dask.predicate.tree import Column, Constant, Method, Operation, Predicate, joined, values_of

_ALIASES = {"=": "==", "is null": "isna", "is not null": "notna", "is": "isna", "is not": "notna"}
_FILTERS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in", "is null", "is not null")


def from_filters(filters: Any) -> Predicate | None:
    """The `filters` of `read_nwb` as a predicate; None for an empty list, ValueError for malformed ones.

    Either the text of a `DataFrame.query`; or ``[(column, op, value), ...]``, which must all be true; or a
    list of such lists, of which one must be. Missing values are treated as by pandas.

    >>> from_filters([("presence_ratio", ">=", 0.7), ("location", "in", ["VISp", "VISl"])])
    (presence_ratio >= 0.7) & location.isin(['VISl', 'VISp'])
    """
    if isinstance(filters, str):
        return parse_query(filters)
    if not isinstance(filters, Sequence):
        raise ValueError(f"filters must be a list of (column, operator, value), or a query: {filters!r}")
    if not filters:
        return None
    nested = all(isinstance(g, list) and not (g and isinstance(g[0], str)) for g in filters)
    groups = filters if nested else [filters]
    if not all(groups):
        raise ValueError("filters hold an empty list")
    return joined("|", [joined("&", map(_comparison, group)) for group in groups])


def _comparison(term: Any) -> Predicate:
    """A tuple (column, operator, value) as a predicate."""
    if not isinstance(term, (tuple, list)) or not 2 <= len(term) <= 3 or not isinstance(term[0], str):
        raise ValueError(f"a filter is (column, operator, value), or a list of them; got {term!r}")
    name, op, *rest = term
    op = " ".join(op.lower().split()) if isinstance(op, str) else op
    value = rest[0] if rest else None
    missing = is_scalar(value) and bool(pd.isna(value))
    if (op in ("is null", "is not null") and missing) or (op in ("is", "is not") and missing and rest):
        return Method(_ALIASES[op], (Column(name),))
    op = _ALIASES.get(op, op)
    if op not in _FILTERS:
        raise ValueError(f"unknown operator {op!r} in the filter {term!r}; use one of {', '.join(_FILTERS)}")
    if not rest:
        raise ValueError(f"the filter {term!r} lacks a value")
    if op in ("in", "not in"):
        if not is_list_like(value):
            raise ValueError(f"the filter {term!r} needs a list of values")
        found = Method("isin", (Column(name), Constant(values_of(value))))
        return found if op == "in" else Operation("~", (found,))
    if missing:
        raise ValueError(f"nothing equals a missing value; use ({name!r}, 'is null') instead of {term!r}")
    if not is_scalar(value):
        raise ValueError(f"the filter {term!r} needs a single value; for several use 'in'")
    return Operation(op, (Column(name), Constant(value)))
