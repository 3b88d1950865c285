"""Which operations on columns give each row a value that depends on that row alone, and their predicates.

All others are refused: they may look at other rows, draw random numbers or run a user's function.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from pandas.api.extensions import ExtensionDtype
from pandas.api.types import is_scalar

from lazynwb_dask.predicate.tree import BINARY, UNARY, Attribute, Constant, Method, Operation, Predicate

_SERIES = """
abs add astype between clip div eq fillna floordiv ge gt isin isna isnull le lt mask mod mul ne
notna notnull pow radd rdiv rfloordiv rmod rmul round rpow rsub rtruediv sub truediv where
"""
_STR = """
__getitem__ capitalize casefold center contains count endswith find fullmatch get isalnum isalpha
isdecimal isdigit islower isnumeric isspace istitle isupper len ljust lower lstrip match normalize
pad removeprefix removesuffix repeat replace rfind rjust rstrip slice slice_replace startswith strip
swapcase title upper zfill
"""
_DT = "ceil day_name floor month_name normalize round strftime total_seconds tz_convert tz_localize"
_DT_ATTRIBUTES = """
date day day_of_week day_of_year dayofweek dayofyear days hour microsecond minute month nanosecond
quarter second seconds time weekday year
"""
_METHODS = frozenset(_SERIES.split())
_NWB = "__getitem__ between count_between len"
ACCESSORS = {name: frozenset(known.split()) for name, known in (("str", _STR), ("dt", _DT), ("nwb", _NWB))}
_ATTRIBUTES = {"str": frozenset[str](), "dt": frozenset(_DT_ATTRIBUTES.split())}
_REFUSED = ("limit", "inplace")  # arguments that count rows, or change the frame
_SYMBOLS: Mapping[Any, str] = {
    **{function: symbol for symbol, function in BINARY.items()},
    **{function: symbol for symbol, function in UNARY.items()},
    operator.inv: "~",
}
_DTYPES = (type, np.dtype, ExtensionDtype)


class NotByRow(Exception):
    """An operation that isn't known to give each row a value that depends on that row alone."""


def operation(function: Any, args: Iterable[Predicate]) -> Predicate:
    """A function of the operator module, applied to one or two values."""
    values = tuple(args)
    if function not in _SYMBOLS or not _allowed(values, {}, is_scalar):
        raise NotByRow
    return Operation(_SYMBOLS[function], values)


def method(name: str | None, args: Iterable[Predicate], named: Mapping[str, Any]) -> Predicate:
    """A method of a Series."""
    values = tuple(args)
    allowed: Callable[[Any], bool] = is_scalar
    if name == "astype":
        allowed = _is_dtype
    elif name == "isin":
        allowed = _is_no_function
    if name not in _METHODS or not _allowed(values[1:], named, allowed):
        raise NotByRow
    return Method(name, values, tuple(named.items()))


def accessor_method(accessor: str, name: str, args: Iterable[Predicate], named: Mapping[str, Any]) -> Predicate:
    """A method of an accessor such as `str`."""
    values = tuple(args)
    known = ACCESSORS.get(accessor, ())
    if name not in known or not _allowed(values[1:], named, _is_scalar_or_pattern):
        raise NotByRow
    return Method(name, values, tuple(named.items()), accessor)


def accessor_attribute(accessor: str, name: str, of: Predicate) -> Predicate:
    """An attribute of an accessor such as `dt`."""
    if name not in _ATTRIBUTES.get(accessor, ()):
        raise NotByRow
    return Attribute(name, of, accessor)


def _allowed(values: Iterable[Predicate], named: Mapping[str, Any], allowed: Callable[[Any], bool]) -> bool:
    """Whether all arguments that are constants are of a kind that is allowed."""
    constants = [v.value for v in values if isinstance(v, Constant)] + list(named.values())
    refused = any(named.get(name) for name in _REFUSED)
    return not refused and all(value is None or allowed(value) for value in constants)


def _is_no_function(value: Any) -> bool:
    return not callable(value)


def _is_dtype(value: Any) -> bool:
    return is_scalar(value) or isinstance(value, _DTYPES)


def _is_scalar_or_pattern(value: Any) -> bool:
    """What methods for text and times take: no functions, which could do anything."""
    if isinstance(value, (tuple, list)):
        return all(map(is_scalar, value))
    return is_scalar(value) or isinstance(value, (slice, re.Pattern))
