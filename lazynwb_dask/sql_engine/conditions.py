"""Conditions of DuckDB's plan as masks of a frame: a row for which the condition is true is never left out.

In the frame and in SQL a missing value makes no comparison true. NaN in a column of numbers is NULL. What might
mean another thing in pandas, such as a comparison after a cast, is left to DuckDB.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import Decimal
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

_COMPARE: dict[str, tuple[str, str, str]] = {  # the operator, its contrary, and with the sides exchanged
    "COMPARE_EQUAL": ("==", "!=", "=="),
    "COMPARE_NOTEQUAL": ("!=", "==", "!="),
    "COMPARE_LESSTHAN": ("<", ">=", ">"),
    "COMPARE_LESSTHANOREQUALTO": ("<=", ">", ">="),
    "COMPARE_GREATERTHAN": (">", "<=", "<"),
    "COMPARE_GREATERTHANOREQUALTO": (">=", "<", "<="),
}
_APPLY: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip
_TEXTS = {
    "prefix": "startswith", "starts_with": "startswith", "^@": "startswith", "suffix": "endswith",
    "ends_with": "endswith", "contains": "contains",
}  # fmt: skip
_NUMBERS = {
    "DOUBLE",
    "FLOAT",
    "TINYINT",
    "UTINYINT",
    "SMALLINT",
    "USMALLINT",
    "INTEGER",
    "UINTEGER",
    "BIGINT",
    "UBIGINT",
}
_NEEDS = {"int8": 3, "uint8": 3, "int16": 5, "uint16": 5, "int32": 10, "uint32": 10, "int64": 19, "uint64": 20}
_WIDER = {
    "int8": {"SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "DOUBLE"},
    "uint8": {"SMALLINT", "USMALLINT", "INTEGER", "UINTEGER", "BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"},
    "int16": {"INTEGER", "BIGINT", "HUGEINT", "DOUBLE"},
    "uint16": {"INTEGER", "UINTEGER", "BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"},
    "int32": {"BIGINT", "HUGEINT", "DOUBLE"},
    "uint32": {"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"},
    "int64": {"HUGEINT"},
    "uint64": {"HUGEINT"},
}


MOST = 50  # parts of a condition: Dask looks at expressions recursively


class NotPushed(Exception):
    """A condition that is left to DuckDB; says why."""


def masks(
    node: dict[str, Any], column: Callable[[str], Any], negated: bool = False
) -> tuple[list[Any], list[tuple[dict[str, Any], str]]]:
    """The masks of the parts of a condition that must all be true, and the parts that have none, and why.

    Parameters
    ----------
    node : dict
        A condition in DuckDB's syntax tree.
    column : callable
        Gives the series of a column's name in it; raises KeyError for a name that is none of the frame.
    """
    kind = node.get("type")
    if kind == "OPERATOR_NOT":
        return masks(node["children"][0], column, not negated)
    if kind == ("CONJUNCTION_OR" if negated else "CONJUNCTION_AND"):
        found = [masks(child, column, negated) for child in node["children"]]
        return [mask for some, _ in found for mask in some], [left for _, some in found for left in some]
    try:
        return [_mask(node, column, negated)], []
    except NotPushed as why:
        return [], [(node, str(why))]
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        ArithmeticError,
    ):  # a tree of another version of DuckDB
        return [], [(node, "DuckDB says it in a way that isn't understood")]


def _mask(node: dict[str, Any], column: Callable[[str], Any], negated: bool) -> Any:
    kind, form = node.get("type"), node.get("class")
    if form == "CONJUNCTION":  # any of these is enough
        if len(node["children"]) > MOST:
            raise NotPushed("it has too many parts; IN (...) may have more")
        each = [masks(child, column, negated) for child in node["children"]]
        if not all(some for some, _ in each):
            raise NotPushed("a part of it can't be")
        return reduce(operator.or_, [reduce(operator.and_, some) for some, _ in each])
    if form == "COMPARISON" and kind in _COMPARE:
        return _compared(_COMPARE[kind], node["left"], node["right"], column, negated)
    if form == "BETWEEN":
        low = {"class": "COMPARISON", "type": "COMPARE_GREATERTHANOREQUALTO", "right": node["lower"]}
        high = {"class": "COMPARISON", "type": "COMPARE_LESSTHANOREQUALTO", "right": node["upper"]}
        sides = [_mask(side | {"left": node["input"]}, column, negated) for side in (low, high)]
        return sides[0] | sides[1] if negated else sides[0] & sides[1]
    if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
        series, _ = _column(node["children"][0], column)
        if isinstance(series.dtype, pd.ArrowDtype) and pa.types.is_floating(series.dtype.pyarrow_dtype):
            raise NotPushed("NaN and NULL differ in this column")
        return series.isnull() if (kind == "OPERATOR_IS_NULL") != negated else series.notnull()
    if kind == "COMPARE_IN":
        return _isin(node["children"], column, negated)
    if form == "FUNCTION" and node["function_name"] in _TEXTS and len(node["arguments"]) == 2:
        return _text(node, column, negated)
    if form == "COLUMN_REF":
        series, _ = _column(node, column)
        if _kind(series.dtype) != "bool":
            raise NotPushed("it is not a condition on one column")
        return ~series if negated else series
    raise NotPushed("it is not a comparison of a column with a value")


def _compared(
    signs: tuple[str, str, str], left: Any, right: Any, column: Callable[[str], Any], negated: bool
) -> Any:
    sign, contrary, exchanged = signs
    if left["class"] == "CONSTANT" or (left["class"] == "CAST" and left["child"]["class"] == "CONSTANT"):
        left, right, sign = right, left, exchanged
        contrary = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}[sign]
    sign = contrary if negated else sign
    series, cast = _column(left, column)
    if right["class"] == "COLUMN_REF":
        other, other_cast = _column(right, column)
        if (
            cast
            or other_cast
            or series.dtype != other.dtype
            or _kind(series.dtype) not in ("int", "float", "text")
        ):
            raise NotPushed("columns of two types are compared")
        return _APPLY[sign](series, other)
    value = _literal(right)
    kind = _kind(series.dtype)
    if kind == "text" and isinstance(value, str) and not cast:
        return _APPLY[sign](series, value)
    if not isinstance(value, Decimal):
        raise NotPushed("the types of the column and the value differ")
    if kind == "float":
        return _APPLY[sign](series, _float(value, series.dtype, cast))
    if kind == "int":
        whole = int(value.to_integral_value("ROUND_FLOOR" if sign in ("<=", ">") else "ROUND_CEILING"))
        if sign in ("==", "!=") and whole != value:
            raise NotPushed("no whole number is equal to it")
        _check_size(whole)
        return _APPLY[sign](series, whole)
    raise NotPushed("the types of the column and the value differ")


def _isin(children: Any, column: Callable[[str], Any], negated: bool) -> Any:
    series, cast = _column(children[0], column)
    values = [v for v in map(_literal, children[1:]) if v is not None]  # NULL is equal to nothing
    numbers = [v for v in values if isinstance(v, Decimal)]
    kind = _kind(series.dtype)
    if not values:
        raise NotPushed("the list is empty")
    if kind == "text" and not cast and all(isinstance(v, str) for v in values):
        found = series.isin(values)
    elif kind == "float" and len(numbers) == len(values):
        found = reduce(operator.or_, [series == _float(v, series.dtype, cast) for v in numbers])
    elif kind == "int" and len(numbers) == len(values) and all(v == int(v) for v in numbers):
        whole = [int(v) for v in numbers]
        _check_size(*whole)
        found = series.isin(whole)
    else:
        raise NotPushed("the types of the column and the values differ")
    return ~found if negated else found


def _text(node: dict[str, Any], column: Callable[[str], Any], negated: bool) -> Any:
    given, sought = [one["expression"] for one in node["arguments"]]
    series, cast = _column(given, column)
    value = _literal(sought)
    if cast or _kind(series.dtype) != "text" or not isinstance(value, str):
        raise NotPushed("it is not a search for text in a column of text")
    method = _TEXTS[node["function_name"]]
    kwargs = {"regex": False} if method == "contains" else {}
    found = getattr(series.str, method)(value, **kwargs)
    return ~found if negated else found


def _column(node: dict[str, Any], column: Callable[[str], Any]) -> tuple[Any, bool]:
    """The series of a column, and whether it is cast to a type that holds the same numbers."""
    if (
        node["class"] == "FUNCTION"
        and node["function_name"] in ("len", "array_length")
        and len(node["arguments"]) == 1
    ):
        series, cast = _column(node["arguments"][0]["expression"], column)
        if cast or _kind(series.dtype) != "list":
            raise NotPushed("it is the length of no list")
        return series.nwb.len(), False
    cast = node["class"] == "CAST"
    if cast:
        node, into = node["child"], node["type_expr"]
    if node["class"] != "COLUMN_REF" or len(node["column_names"]) != 1:
        raise NotPushed("it is of more than a column and a value")
    try:
        series = column(node["column_names"][0])
    except KeyError:
        raise NotPushed("it is of more than the table's own columns") from None
    if cast and not _holds(into, str(series.dtype).removesuffix("[pyarrow]")):
        raise NotPushed("the column is cast to another type")
    return series, cast


def _holds(into: dict[str, Any], name: str) -> bool:
    """Whether a type of SQL has all values of a type of numbers."""
    to = into.get("type_name", "").upper()
    if to == "DECIMAL":
        precision, scale = (int(part["literal"]["text"]) for part in into["children"])
        return precision - scale >= _NEEDS.get(name, 99)
    return to in _WIDER.get(name, {"DOUBLE"} if name in ("float32", "float") else ())


def _literal(node: dict[str, Any]) -> Decimal | str | None:
    """A value: a number, a text, or None for NULL."""
    is_number = node["class"] == "CAST" and node["type_expr"].get("type_name", "").upper() in _NUMBERS
    if is_number:
        node = node["child"]
    if node["class"] != "CONSTANT" or "literal" not in node:
        raise NotPushed("it is not a comparison with a plain value")
    kind, text = node["literal"]["kind"], node["literal"].get("text", "")
    if kind == "NULL_LITERAL":
        return None
    if kind == "STRING" and not is_number:
        return str(text)
    if kind in ("INTEGER", "NUMERIC"):
        return Decimal(text)
    raise NotPushed("it is not a comparison with a plain value")


def _float(value: Decimal, dtype: Any, cast: bool) -> Any:
    """A number as SQL compares it with a column: in the column's precision, or in double precision."""
    number = float(value)
    if not math.isfinite(number):
        raise NotPushed("the value is too large")
    narrow = not cast and str(dtype) in ("float32", "float[pyarrow]")
    return np.float32(number) if narrow else np.float64(number)


def _check_size(*values: int) -> None:
    if not all(abs(value) < 1 << 63 for value in values):
        raise NotPushed("the value is too large")


def _kind(dtype: Any) -> str:
    if isinstance(dtype, pd.ArrowDtype):
        held = dtype.pyarrow_dtype
        checks = {"int": pa.types.is_integer, "bool": pa.types.is_boolean, "list": pa.types.is_list}
        return next((name for name, check in checks.items() if check(held)), "")
    if isinstance(dtype, pd.StringDtype):
        return "text"
    kinds = {"i": "int", "u": "int", "b": "bool", "f": "float"}
    return kinds.get(dtype.kind, "") if isinstance(dtype, np.dtype) and dtype != np.float16 else ""
