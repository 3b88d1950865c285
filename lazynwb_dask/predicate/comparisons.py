"""Methods that compare, as the operators that they stand for: so that limits are looked for in one way.

Only for looking: a condition itself is evaluated as it was said.
"""

from __future__ import annotations

from lazynwb_dask.predicate.tree import Constant, Method, Operation, Predicate

_SYMBOLS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_INCLUSIVE = {
    "both": (">=", "<="),
    "left": (">=", "<"),
    "right": (">", "<="),
    "neither": (">", "<"),
}
_COMPARING = ("other", "level", "fill_value", "axis")
_BETWEEN = ("left", "right", "inclusive")


def as_operators(term: Predicate) -> Predicate | None:
    """What a method such as ``gt`` or ``between`` says, by operators; None for anything else.

    Arguments may come by position or by name, as pandas takes them, and as Dask passes them on: with
    those that were not given.

    >>> from lazynwb_dask.predicate.tree import Column, Constant, Method
    >>> as_operators(Method("gt", (Column("x"), Constant(3), Constant(None), Constant(None))))
    x > 3
    >>> as_operators(Method("between", (Column("x"), Constant(3)), (("right", 5), ("inclusive", "left"))))
    (x >= 3) & (x < 5)
    >>> as_operators(Method("gt", (Column("x"), Constant(3)), (("fill_value", 0),)))
    """
    if not isinstance(term, Method) or term.accessor is not None:
        return None
    names = _BETWEEN if term.name == "between" else _COMPARING if term.name in _SYMBOLS else ()
    column, *values = term.args
    if not names or len(values) > len(names):
        return None
    given: dict[str, Predicate] = dict(zip(names, values, strict=False))
    given |= {name: Constant(value) for name, value in term.kwargs}
    if term.name == "between":
        left, right = given.pop("left", None), given.pop("right", None)
        inclusive = given.pop("inclusive", Constant("both"))
        if left is None or right is None or given or not isinstance(inclusive, Constant):
            return None
        if not isinstance(inclusive.value, str) or inclusive.value not in _INCLUSIVE:
            return None
        low, high = _INCLUSIVE[inclusive.value]
        return Operation("&", (Operation(low, (column, left)), Operation(high, (column, right))))
    other = given.pop("other", None)
    if given.get("axis") == Constant(0):  # the only axis there is
        del given["axis"]
    if other is None or any(value != Constant(None) for value in given.values()):
        return None
    return Operation(_SYMBOLS[term.name], (column, other))
