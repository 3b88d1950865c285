"""Calls on columns as predicates: which are known to give each row a value that depends on it alone.

What isn't on the lists here is refused, so a mask that looks at other rows, draws random numbers or runs
a user's function is never taken for a condition on rows.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from pandas.api.extensions import ExtensionDtype
from pandas.api.types import is_scalar

from lazynwb_dask.predicate.query_text import ACCESSORS, ATTRIBUTES, METHODS
from lazynwb_dask.predicate.tree import Attribute, Constant, Method, Operation, Predicate

_SYMBOLS: Mapping[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
    operator.and_: "&",
    operator.or_: "|",
    operator.xor: "^",
    operator.inv: "~",
    operator.invert: "~",
    operator.neg: "-",
    operator.pos: "+",
}
_DTYPES = (type, np.dtype, ExtensionDtype)
_PIECES = (slice, re.Pattern)


class NotByRow(Exception):
    """It depends on more than its row, or isn't known to depend on less."""


def operation(function: Any, args: Iterable[Predicate]) -> Predicate:
    """A function of the operator module, of one or two values."""
    values = tuple(args)
    if function not in _SYMBOLS or not all(_single(value) for value in values):
        raise NotByRow
    return Operation(_SYMBOLS[function], values)


def method(name: str | None, args: Iterable[Predicate], named: Mapping[str, Any]) -> Predicate:
    """A method of a Series."""
    values = tuple(args)
    allowed: Callable[[Any], bool] = is_scalar
    if name == "astype":
        allowed = _is_dtype
    elif name == "isin":
        allowed = _is_anything
    if name not in METHODS or not _harmless([*values[1:], *map(Constant, named.values())], allowed):
        raise NotByRow
    return Method(name, values, tuple(named.items()))


def accessor_method(
    accessor: str, name: str, args: Iterable[Predicate], named: Mapping[str, Any]
) -> Predicate:
    """A method of an accessor such as `str`."""
    values = tuple(args)
    given = [*values[1:], *map(Constant, named.values())]
    if name not in ACCESSORS.get(accessor, ()) or not _harmless(given, _is_piece):
        raise NotByRow
    return Method(name, values, tuple(named.items()), accessor)


def accessor_attribute(accessor: str, name: str, of: Predicate) -> Predicate:
    """An attribute of an accessor such as `dt`."""
    if name not in ATTRIBUTES.get(accessor, ()):
        raise NotByRow
    return Attribute(name, of, accessor)


def _single(value: Predicate) -> bool:
    return not isinstance(value, Constant) or is_scalar(value.value)


def _harmless(values: Iterable[Predicate], allowed: Callable[[Any], bool]) -> bool:
    return all(not isinstance(v, Constant) or v.value is None or allowed(v.value) for v in values)


def _is_anything(value: Any) -> bool:
    return not callable(value)


def _is_dtype(value: Any) -> bool:
    return is_scalar(value) or isinstance(value, _DTYPES)


def _is_piece(value: Any) -> bool:
    """What methods for text and times take: no functions, which could do anything."""
    if isinstance(value, (tuple, list)):
        return all(map(is_scalar, value))
    return is_scalar(value) or isinstance(value, _PIECES)
