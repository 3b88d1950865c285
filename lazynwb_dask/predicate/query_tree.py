"""The text of a `DataFrame.query` as a tree of conditions, as far as judging it for whole files goes."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazynwb_dask.predicate.query_text import parsed
from lazynwb_dask.predicate.tree import Column, Constant, Method, Operation, Predicate, Query


def tree_of(query: Query) -> Predicate | None:
    """The tree; None where nothing of it can be judged."""
    options = dict(query.options)
    local: Mapping[str, Any] = options.get("local_dict") or {}
    root, name_of = parsed(query.text, local)
    return _Translator(name_of, local).of(root)


_OPERATORS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


class _Opaque(Predicate):
    """A part of a query that is not judged. It may look at anything."""

    inputs = frozenset([None])


@dataclass(frozen=True)
class _Translator:
    name_of: Callable[[str], str | None]  # a column's name; None for a name of `local`
    local: Mapping[str, Any]

    def of(self, node: ast.expr) -> Predicate | None:
        match node:
            case ast.BoolOp(op=op, values=values):
                symbol = "&" if isinstance(op, ast.And) else "|"
                parts = [self.of(value) or _OPAQUE for value in values]
                joined = parts[0]
                for part in parts[1:]:
                    joined = Operation(symbol, (joined, part))
                return joined
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=inner):
                return Operation("~", (self.of(inner) or _OPAQUE,))
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._compared(left, ops, others)
            case ast.Name(id=name) if self.name_of(name) is not None:
                return Column(str(self.name_of(name)))
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=owner), attr=method), args=args, keywords=named
            ):
                column = self.name_of(owner)
                given = [self._value(arg) for arg in args]
                by_name = [(keyword.arg, self._value(keyword.value)) for keyword in named]
                known = [one for one in given if one is not None]
                pairs = [(name, one.value) for name, one in by_name if name and one is not None]
                if column is None or len(known) + len(pairs) < len(args) + len(named):
                    return None
                return Method(method, (Column(column), *known), tuple(pairs))
        return None

    def _compared(
        self, left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr]
    ) -> Predicate | None:
        found: Predicate | None = None
        for op, right in zip(ops, others, strict=True):
            one = self._pair(left, op, right) or _OPAQUE
            found = one if found is None else Operation("&", (found, one))
            left = right
        return found

    def _pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Predicate | None:
        a = self._side(left)
        b = self._side(right)
        if a is None or b is None or isinstance(a, Constant) == isinstance(b, Constant):
            return None
        many = isinstance(b, Constant) and isinstance(b.value, (list, tuple, set, np.ndarray))
        if isinstance(op, (ast.In, ast.NotIn)) or (many and type(op) in (ast.Eq, ast.NotEq)):
            if not many:
                return None
            inside = Method("isin", (a, b))
            return inside if isinstance(op, (ast.In, ast.Eq)) else Operation("~", (inside,))
        symbol = _OPERATORS.get(type(op))
        return None if symbol is None or many else Operation(symbol, (a, b))

    def _side(self, node: ast.expr) -> Predicate | None:
        if isinstance(node, ast.Name) and self.name_of(node.id) is not None:
            return Column(str(self.name_of(node.id)))
        return self._value(node)

    def _value(self, node: ast.expr) -> Constant | None:
        if isinstance(node, ast.Name):
            held = self.local.get(node.id.removeprefix("_local_"), self.local.get(node.id))
            return None if held is None else Constant(held)
        try:
            return Constant(ast.literal_eval(node))
        except ValueError:
            return None


_OPAQUE = _Opaque()
