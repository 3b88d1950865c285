"""What the text of a `DataFrame.query` looks at: pandas evaluates it, this only reads it.

A query may be evaluated before the other columns are read, and for some rows of a table at a time,
if it says something about each row by itself. So it is parsed, and whatever isn't known to be of
that kind is refused: ``snr > snr.mean()`` would mean something else for each part of a table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from pandas.api.types import is_scalar

# What a Series can be asked whose answer for a row depends on that row alone.
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
_FUNCTIONS = "abs arctan2 ceil cos exp expm1 floor log log10 log1p sin sqrt tan tanh"
METHODS = frozenset(_SERIES.split())
ACCESSORS = {"str": frozenset(_STR.split()), "dt": frozenset(_DT.split())}
ATTRIBUTES = {"str": frozenset[str](), "dt": frozenset(_DT_ATTRIBUTES.split())}
FUNCTIONS = frozenset(_FUNCTIONS.split())

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_COMPARISON = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_LISTS = (list, tuple, set, frozenset, np.ndarray)
_LOCAL, _QUOTED = "_local_", "_quoted_"
# Strings, names in backticks, and what queries and Python read differently.
_WORDS = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|`((?:[^`]|``)*)`|@(?=[^\W\d])|&|\|""")

_OWN = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|\b(_local_\w+|_quoted_\d+)\b""")


def look_ups(
    text: str, columns: Iterable[str] | None, local: Mapping[str, Any]
) -> frozenset[str | None]:
    """The columns that a query looks at, and None if it looks at the index.

    Parameters
    ----------
    text : str
    columns : iterable of str or None
        The columns there are. None: every name is taken for one, except ``index``.
    local : mapping
        The values of ``@name``.

    Raises
    ------
    ValueError
        It can't be parsed, or doesn't look at each row by itself, or at no column.

    Examples
    --------
    >>> sorted(look_ups("snr > 3 and `group name` in @areas", None, {"areas": ["VISp"]}))
    ['group name', 'snr']
    """
    reader = _Reader(columns, local)
    tree = reader.parse(text)
    if not reader.each_row(tree) or not reader.inputs:
        raise ValueError(
            f"the query {text!r} is not a condition on each row by itself: use known columns, "
            "comparisons, `and`, `or`, `not`, `in` with a list, arithmetic, and methods such as "
            "`.isna()` or `.str.startswith()`"
        )
    return frozenset(reader.inputs)


def parsed(text: str, local: Mapping[str, Any]) -> tuple[ast.expr, Callable[[str], str | None]]:
    """A query as Python's own tree, and what tells the column that a name in it stands for.

    The second gives None for the names of `local`, which begin with ``_local_``.
    """
    reader = _Reader(None, local)
    tree = ast.parse(_WORDS.sub(reader.as_python, text.strip()), mode="eval").body

    def column(name: str) -> str | None:
        return None if name.startswith(_LOCAL) else reader.quoted.get(name, name)

    return tree, column


def terms_of(text: str) -> list[str]:
    """The parts of a query that must all be true.

    Examples
    --------
    >>> terms_of("snr > 3 and (`group name` == 'a' or good) & k in @ks")
    ['snr > 3', "`group name` == 'a' or good", 'k in @ks']
    """
    reader = _Reader(None, {})
    parts, found = [reader.parse(text)], []
    while parts:
        part = parts.pop(0)
        if isinstance(part, ast.BoolOp) and isinstance(part.op, ast.And):
            parts = [*part.values, *parts]
        else:
            found.append(_OWN.sub(reader.as_query, ast.unparse(part)))
    return found


class _Reader:
    """Walks a query and notes what it looks at."""

    def __init__(self, columns: Iterable[str] | None, local: Mapping[str, Any]) -> None:
        self.columns = None if columns is None else frozenset(columns)
        self.local = {f"{_LOCAL}{name}": value for name, value in local.items()}
        self.quoted: dict[str, str] = {}
        self.inputs: set[str | None] = set()

    def parse(self, text: str) -> ast.expr:
        """The query as Python would read it, under names of its own."""
        try:
            return ast.parse(_WORDS.sub(self.as_python, text.strip()), mode="eval").body
        except SyntaxError as exc:
            raise ValueError(f"not a query: {text!r}: {exc.msg}") from None

    def as_python(self, word: re.Match[str]) -> str:
        """One word of the query as Python would have it."""
        string, quoted = word.groups()
        if string is not None:
            return str(string)
        if quoted is not None:
            name = f"{_QUOTED}{len(self.quoted)}"
            self.quoted[name] = quoted.replace("``", "`")
            return name
        return {"&": " and ", "|": " or ", "@": _LOCAL}[word.group()]

    def as_query(self, word: re.Match[str]) -> str:
        """One of our own names as it was in the query."""
        string, name = word.groups()
        if string is not None:
            return str(string)
        if name in self.quoted:
            return f"`{self.quoted[name].replace('`', '``')}`"
        return f"@{name.removeprefix(_LOCAL)}"

    def each_row(self, node: ast.expr) -> bool:
        """Whether it has a value for each row that depends on that row alone."""
        match node:
            case ast.Constant():
                return True
            case ast.Name(id=name) if name.startswith(_LOCAL):
                return is_scalar(self.local.get(name, ()))
            case ast.Name(id=name):
                return self._look_up(self.quoted.get(name, name))
            case ast.BoolOp(values=parts):
                return all(map(self.each_row, parts))
            case ast.UnaryOp(operand=part):
                return self.each_row(part)
            case ast.BinOp(left=left, op=op, right=right):
                return isinstance(op, _ARITHMETIC) and all(map(self.each_row, (left, right)))
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self.each_row(left) and all(map(self._compares, ops, others))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                return name in FUNCTIONS and all(map(self.each_row, args))
            case ast.Call(func=ast.Attribute() as method, args=args, keywords=named):
                return self._calls(method, [*args, *[k.value for k in named]])
        return False

    def _look_up(self, name: str) -> bool:
        known = self.columns is None or name in self.columns
        is_index = name == "index" and (self.columns is None or not known)
        self.inputs.add(None if is_index else name)
        return known or is_index

    def _calls(self, method: ast.Attribute, given: list[ast.expr]) -> bool:
        owner, known = method.value, METHODS
        if isinstance(owner, ast.Attribute) and owner.attr in ACCESSORS:
            known = ACCESSORS[owner.attr]
            owner = owner.value
        return method.attr in known and self.each_row(owner) and all(map(self._fixed, given))

    def _compares(self, op: ast.cmpop, other: ast.expr) -> bool:
        if isinstance(op, (ast.In, ast.NotIn, ast.Eq, ast.NotEq)) and self._fixed(other):
            return True  # to be equal to a list means to be in it
        return isinstance(op, _COMPARISON) and self.each_row(other)

    def _fixed(self, node: ast.expr) -> bool:
        """Whether it is a constant or a list of constants."""
        match node:
            case ast.Constant() | ast.UnaryOp(operand=ast.Constant()):
                return True
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                return all(map(self._fixed, parts))
            case ast.Name(id=name) if name in self.local:
                value = self.local[name]
                return is_scalar(value) or isinstance(value, _LISTS)
        return False
