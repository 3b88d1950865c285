"""The walk over a condition: what it means, made of what its comparisons of one column mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import reduce
from typing import Any, Generic, TypeVar

from lazynwb_dask.predicate.query import Query
from lazynwb_dask.predicate.tree import Column, Constant, Method, Operation, Predicate, Then

T = TypeVar("T")

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_SYMBOLS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_MISSING = {"isna": True, "isnull": True, "notna": False, "notnull": False}
_INCLUSIVE = {
    "both": (">=", "<="), "left": (">=", "<"), "right": (">", "<="), "neither": (">", "<"),
}  # fmt: skip


class Visitor(ABC, Generic[T]):
    """What a condition means for something, such as which values of a column it leaves.

    `of` walks over the condition, through queries, ``&``, ``|`` and ``~``, and gives each comparison to
    `compared`, `among` or `missing`, however it was written. The other methods combine their results.
    """

    @property
    @abstractmethod
    def unknown(self) -> T:
        """Of a condition of which nothing is known."""

    @abstractmethod
    def both(self, left: T, right: T) -> T:
        """Of two conditions that must both be true."""

    @abstractmethod
    def either(self, left: T, right: T) -> T:
        """Of two conditions one of which must be true."""

    def negated(self, of: T) -> T:
        """Of the negation of a condition."""
        return self.unknown

    def one_by_one(self, steps: list[T]) -> T:
        """Of conditions each of which is evaluated on the rows that those before it left."""
        return reduce(self.both, steps)

    def compared(self, name: str, symbol: str, value: Any) -> T:
        """Of a column that is compared with a constant."""
        return self.unknown

    def among(self, name: str, values: Any) -> T:
        """Of a column's `isin`."""
        return self.unknown

    def missing(self, name: str, missing: bool) -> T:
        """Of a column's `isna`, or `notna`."""
        return self.unknown

    def query(self, query: Query) -> T:
        """Of the text of a query."""
        return self.of(query.tree)

    def of(self, node: Predicate) -> T:
        """What a condition means."""
        match node:
            case Query():
                return self.query(node)
            case Then(steps):
                return self.one_by_one([self.of(step) for step in steps])
            case Operation("&", (left, right)):
                return self.both(self.of(left), self.of(right))
            case Operation("|", (left, right)):
                return self.either(self.of(left), self.of(right))
            case Operation("~", (part,)):
                return self.negated(self.of(part))
            case Operation(symbol, (Column(name), Constant(value))) if symbol in _FLIPPED:
                return self.compared(name, symbol, value)
            case Operation(symbol, (Constant(value), Column(name))) if symbol in _FLIPPED:
                return self.compared(name, _FLIPPED[symbol], value)
            case Method("isin", (Column(name), Constant(values)), (), None):
                return self.among(name, values)
            case Method("isin", (Column(name),), (("values", values),), None):
                return self.among(name, values)
            case Method(method, (Column(name),), (), None) if method in _MISSING:
                return self.missing(name, _MISSING[method])
            case Method() if (plain := as_operators(node)) is not None:
                return self.of(plain)
        return self.unknown


def as_operators(method: Method) -> Operation | None:
    """What a method such as ``gt`` or ``between`` says, by operators; None for any other method.

    Arguments come by position or by name, also with their default value, as Dask passes them.

    >>> as_operators(Method("between", (Column("x"), Constant(3)), (("right", 5), ("inclusive", "left"))))
    (x >= 3) & (x < 5)
    >>> as_operators(Method("gt", (Column("x"), Constant(3)), (("fill_value", 0),)))
    """
    between = method.name == "between"
    names = ("left", "right", "inclusive") if between else ("other", "level", "fill_value", "axis")
    column, *values = method.args
    if not (between or method.name in _SYMBOLS) or method.accessor or len(values) > len(names):
        return None
    given: dict[str, Predicate] = dict(zip(names, values, strict=False))
    given |= {name: Constant(value) for name, value in method.kwargs}
    match given:
        case {"left": left, "right": right, **rest} if between:
            inclusive = rest.pop("inclusive", Constant("both"))
            ends = _INCLUSIVE.get(inclusive.value) if isinstance(inclusive, Constant) else None
            if ends and not rest:
                low, high = Operation(ends[0], (column, left)), Operation(ends[1], (column, right))
                return Operation("&", (low, high))
        case {"other": other, **rest} if not between:
            if rest.get("axis") == Constant(0):  # the only axis there is
                del rest["axis"]
            if all(value == Constant(None) for value in rest.values()):
                return Operation(_SYMBOLS[method.name], (column, other))
    return None
