"""The text of a `DataFrame.query` as a condition. It is parsed here; pandas evaluates it.

Only a query that is a condition on each row by itself may be evaluated before the other columns are read,
and for a part of a table. Others are refused: ``snr > snr.mean()`` would differ for each part of a table.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_scalar

from lazynwb_dask.predicate.row_wise import ACCESSORS, NotByRow, accessor_method, method
from lazynwb_dask.predicate.tree import Column, Constant, Index, Method, Operation, Predicate, joined

_FUNCTION_NAMES = "abs arctan2 ceil cos exp expm1 floor log log10 log1p sin sqrt tan tanh"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_COMPARISONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_MEMBERSHIP = (ast.In, ast.NotIn, ast.Eq, ast.NotEq)  # to equal a list means to be in it
_LISTS = (list, tuple, set, frozenset, np.ndarray)
_STRING = r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")"""
# Strings, columns in backticks and variables, and the operators that Python binds otherwise.
_WORDS = re.compile(_STRING + r"|(`(?:[^`]|``)*`|@[^\W\d]\w*)|&|\|")


def parse_query(text: str, columns: Iterable[str] | None = None, **options: Any) -> Query:
    """The text of a `DataFrame.query` as a predicate.

    `columns` are the columns there are; None: every name is one, except ``index``. The options are
    `local_dict`, with the values of ``@name``, and `engine`, as of `DataFrame.query`. Raises ValueError if
    the text can't be parsed, names an unknown variable, uses no column, or isn't a condition on each row by
    itself.

    >>> query = parse_query("snr > 3 and `group name` in @areas", local_dict={"areas": ["VISp"]})
    >>> sorted(query.columns), query.tree
    (['group name', 'snr'], (snr > 3) & `group name`.isin(['VISp']))
    """
    if not set(options) <= {"local_dict", "global_dict", "engine"} or options.get("global_dict"):
        raise ValueError(f"options of a query that only a whole frame can serve: {sorted(options)}")
    reader = _Reader(text, columns, options.get("local_dict") or {})
    with suppress(NotByRow):
        reader.condition(reader.root)
        if reader.inputs:
            names = tuple(sorted(reader.inputs, key=str))
            return Query(text, names, tuple(sorted(options.items())))
    raise ValueError(
        f"the query {text!r} is not a condition on each row by itself: use known columns, "
        "comparisons, `and`, `or`, `not`, `in` with a list, arithmetic, and methods such as "
        "`.isna()` or `.str.startswith()`"
    )


@dataclass(frozen=True, eq=False, repr=False)
class Query(Predicate):
    """The text of a `DataFrame.query`, which pandas evaluates. Made by `parse_query`."""

    text: str
    names: tuple[str | None, ...]
    options: tuple[tuple[str, Any], ...] = ()
    compound = True

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        return frozenset(self.names)

    def __call__(self, frame: pd.DataFrame) -> Any:
        # names are looked up here and nowhere else: else pandas takes them from whoever calls it
        return frame.eval(self.text, **({"local_dict": {}, "global_dict": {}} | dict(self.options)))

    def __repr__(self) -> str:
        return self.text

    @property
    def terms(self) -> list[Predicate]:
        texts, options = self._reader.terms(), dict(self.options)
        try:
            return [parse_query(text, self.columns, **options) for text in texts]
        except ValueError:  # one of them looks at no column
            return [self]

    @cached_property
    def tree(self) -> Predicate:
        """What it says, to be judged but not evaluated: parts for which there are no nodes are `UNJUDGED`."""
        reader = self._reader
        return reader.condition(reader.root)

    @property
    def _reader(self) -> _Reader:
        return _Reader(self.text, self.columns, dict(self.options).get("local_dict") or {})


class _Unjudged(Predicate):
    """A part of a query that only pandas can judge: numexpr, say, calculates in wider types than Series do."""

    inputs = frozenset([None])  # it may look at anything

    def __repr__(self) -> str:
        return "..."


UNJUDGED = _Unjudged()


class _Reader:
    """Reads a query, and notes in `inputs` which columns `condition` met; None stands for the index.

    `columns` are the columns there are; None: every name is one, except ``index``. `local` has the values of
    ``@name``. `root` is the query as Python parses it, with placeholders for variables and names in backticks.
    """

    def __init__(self, text: str, columns: Iterable[str] | None, local: Mapping[str, Any]) -> None:
        self.columns = None if columns is None else frozenset(columns)
        self.local = local
        self.inputs: set[str | None] = set()
        self._words: dict[str, str] = {}  # by our own name: the word of the query that it stands for
        self._prefix = "_word"
        while self._prefix in text:
            self._prefix += "_"
        try:
            self.root = ast.parse(_WORDS.sub(self._as_python, text.strip()), mode="eval").body
        except SyntaxError as exc:
            raise ValueError(f"not a query: {text!r}: {exc.msg}") from None
        variables = [word for word in self._words.values() if word.startswith("@")]
        unknown = list(dict.fromkeys(word for word in variables if word[1:] not in local))
        if unknown:
            name = unknown[0][1:]
            raise ValueError(
                f"the query {text!r} uses {', '.join(unknown)}, but a text can't see your variables: "
                f"put the value into the text, as in f'... {{{name}!r}}', or filter the frame, with "
                f".query(text, local_dict={{{name!r}: {name}}})"
            )

    def _as_python(self, word: re.Match[str]) -> str:
        string, name = word.groups()
        if string is not None:
            return str(string)
        if name is None:
            return {"&": " and ", "|": " or "}[word.group()]
        own = f"{self._prefix}{len(self._words)}"
        self._words[own] = name
        return own

    def terms(self) -> list[str]:
        """The parts of the query that must all be true, as text."""
        own = re.compile(_STRING + rf"|\b{self._prefix}\d+\b")
        parts, found = [self.root], []
        while parts:
            part = parts.pop(0)
            if isinstance(part, ast.BoolOp) and isinstance(part.op, ast.And):
                parts = [*part.values, *parts]
            else:
                text = ast.unparse(part)
                found.append(own.sub(lambda m: self._words.get(m.group(), m.group()), text))
        return found

    def condition(self, node: ast.expr) -> Predicate:
        """A part of the query that has a value for each row; `NotByRow` for any other."""
        match node:
            case ast.Constant(value=value):
                return Constant(value)
            case ast.Name(id=name):
                return self._named(name)
            case ast.BoolOp(op=op, values=parts):
                symbol = "&" if isinstance(op, ast.And) else "|"
                return joined(symbol, map(self.condition, parts))
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=part):
                return Operation("~", (self.condition(part),))
            case ast.UnaryOp(operand=ast.Constant()):
                return Constant(self._constant(node))
            case ast.UnaryOp(operand=part):
                return self._unjudged(part)
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ARITHMETIC):
                return self._unjudged(left, right)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
                return self._unjudged(*args)
            case ast.Compare(left=first, ops=ops, comparators=others):
                sides = [self.condition(first), *map(self._compared_with, ops, others)]
                return joined("&", map(_comparison, sides, ops, sides[1:]))
            case ast.Call(func=ast.Attribute(value=owner, attr=name), args=args, keywords=named):
                given = [Constant(self._constant(arg)) for arg in args]
                by_name = {str(one.arg): self._constant(one.value) for one in named}
                if isinstance(owner, ast.Attribute) and owner.attr in ACCESSORS:
                    of = self.condition(owner.value)
                    return accessor_method(owner.attr, name, [of, *given], by_name)
                return method(name, [self.condition(owner), *given], by_name)
        raise NotByRow

    def _unjudged(self, *parts: ast.expr) -> Predicate:
        for part in parts:
            self.condition(part)
        return UNJUDGED

    def _named(self, name: str) -> Predicate:
        word = self._words.get(name, name)
        if word.startswith("@"):
            value = self.local[word[1:]]
            if not is_scalar(value):
                raise NotByRow
            return Constant(value)
        column = word[1:-1].replace("``", "`") if word.startswith("`") else word
        known = self.columns is None or column in self.columns
        is_index = column == "index" and (self.columns is None or not known)
        if not known and not is_index:
            raise NotByRow
        self.inputs.add(None if is_index else column)
        return Index() if is_index else Column(column)

    def _compared_with(self, op: ast.cmpop, other: ast.expr) -> Predicate:
        """The right side of a comparison."""
        if isinstance(op, _MEMBERSHIP):
            with suppress(NotByRow):
                return Constant(self._constant(other))
        if type(op) not in _COMPARISONS:
            raise NotByRow
        return self.condition(other)

    def _constant(self, node: ast.expr) -> Any:
        """A constant or a list of constants; `NotByRow` for anything else."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(operand=ast.Constant()):
                with suppress(ValueError):
                    return ast.literal_eval(node)
            case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
                return list(map(self._constant, parts))
            case ast.Name(id=name) if self._words.get(name, "").startswith("@"):
                value = self.local[self._words[name][1:]]
                if is_scalar(value) or isinstance(value, _LISTS):
                    return value
        raise NotByRow


def _comparison(left: Predicate, op: ast.cmpop, right: Predicate) -> Predicate:
    if isinstance(right, Constant) and isinstance(right.value, _LISTS):
        among = Method("isin", (left, right))
        return among if isinstance(op, (ast.In, ast.Eq)) else Operation("~", (among,))
    if type(op) not in _COMPARISONS or (isinstance(left, Constant) and not is_scalar(left.value)):
        return UNJUDGED
    return Operation(_COMPARISONS[type(op)], (left, right))
