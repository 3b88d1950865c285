"""Translates Dask's masks and query strings to predicates on the rows of a read."""

from __future__ import annotations

from typing import Any

from pandas.api.types import is_bool_dtype

from lazynwb_dask.expr.internals import DataNode, FunctionMap, PropertyMap, ex, methodcaller
from lazynwb_dask.expr.lists import OfLists, ReadDerived, derived
from lazynwb_dask.expr.node import Read, read_of
from lazynwb_dask.expr.siblings import partitions_key
from lazynwb_dask.predicate.query import parse_query
from lazynwb_dask.predicate.row_wise import NotByRow, accessor_attribute, accessor_method, method, operation
from lazynwb_dask.predicate.tree import Column, Constant, Index, Method, Predicate, steps, values_of


def pushed_condition(view: Any, mask: Any) -> Predicate | None:
    """The predicate of a mask; None if the mask can't be translated."""
    read = read_of(view)
    if read is None or read.limit is not None or not isinstance(mask, ex.Expr):
        return None
    bases: list[Predicate | None] = []
    try:
        condition = _translated(mask, read, bases)
    except NotByRow:
        return None
    if not bases or not is_bool_dtype(getattr(mask._meta, "dtype", object)):
        return None
    # the read may have more conditions than the mask's frame, but not fewer
    before = steps(bases[0])
    same = all(base == bases[0] for base in bases)
    return condition if same and steps(read.predicate)[: len(before)] == before else None


def _translated(node: Any, read: Read, bases: list[Predicate | None]) -> Predicate:
    """The predicate of a part of a mask. Appends the predicates of the reads in it to `bases`."""
    if not isinstance(node, ex.Expr):
        return Constant(node)
    if isinstance(node, (ex.Projection, ex.Index)):
        source = read_of(node.frame)
        if source is None or source.limit is not None or partitions_key(source) != partitions_key(read):
            raise NotByRow
        bases.append(source.predicate)
        if isinstance(node, ex.Index):
            return Index()
        if node.frame.ndim != 2 or node.ndim != 1:
            raise NotByRow
        return Column(node.operand("columns"))
    if isinstance(node, ex._DelayedExpr):  # the values of an isin
        value = dict(node.obj.dask).get(node.obj.key)
        if isinstance(value, DataNode):
            return Constant(values_of(value.value))
    if isinstance(node, ReadDerived):
        return _translated(node.frame, read, bases)
    if isinstance(node, OfLists):
        of = _translated(node.frame, read, bases)
        if isinstance(of, Column) and (name := derived(read, of.name, node)) is not None:
            made = Column(name)
            return Method("len", (made,), (), "nwb") if node.function == "count_between" else made
        return accessor_method("nwb", node.function, [of, *map(Constant, node.args)], {})
    if not isinstance(node, ex.Elemwise):
        raise NotByRow
    function, args, named = node.operation, node._args, node._kwargs
    if type(node) is PropertyMap:
        frame, accessor, name = node.operands
        return accessor_attribute(accessor, name, _translated(frame, read, bases))
    if type(node) is FunctionMap:
        frame, accessor, name, args, named = node.operands
        values = [_translated(arg, read, bases) for arg in (frame, *args)]
        return accessor_method(accessor, name, values, named)
    if isinstance(node, ex.MethodOperator):
        function, args = methodcaller(args[0]), args[1:]
    values = [_translated(arg, read, bases) for arg in args]
    if isinstance(function, methodcaller):
        return method(function.method, values, named)
    return operation(function, values)


def pushed_query(view: Any, query: Any) -> Predicate | None:
    """The predicate of a query; None if the query can't be translated."""
    try:
        condition = parse_query(query.operand("_expr"), view.columns, **query.expr_kwargs)
        condition.validate(view._meta)
    except (TypeError, ValueError, LookupError):
        return None  # right or wrong, it is left to Dask
    return condition
