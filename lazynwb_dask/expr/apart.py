"""Frames whose partitions can be computed one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask

from lazynwb_dask.expr.internals import IO, Repartition, StackPartition, ex, new_collection
from lazynwb_dask.expr.rules import ReadNWB

_WHOLE = (IO, ex._DelayedExpr)  # data, and values that Dask made a task of


def apart(frame: Any) -> Any:
    """A frame with the same rows, of which each partition can be computed by itself, and nothing is read twice.
    So single values that rows are compared with, as a mean, are computed here, and so are frames whose
    partitions need many others (sorts, shuffles, joins).

    Dask selects partitions before it optimizes. Some expressions have other partitions afterwards, or others'
    rows.
    """
    node = frame.expr.simplify()
    values = {one._name: one for one in _nodes(node) if not isinstance(one, _WHOLE) and one.ndim == 0}
    inner = {dep._name for one in values.values() for part in one.dependencies() for dep in _nodes(part)}
    outer = [one for name, one in values.items() if name not in inner]
    if outer:
        known = dict(zip([one._name for one in outer], dask.compute(*map(new_collection, outer)), strict=True))
        node = _with_values(node, known).simplify()
        frame = new_collection(node)
    if _is_apart(node, ()):
        return frame
    lowered = frame.optimize(fuse=False)
    return lowered if _is_apart(lowered.expr, (Repartition, StackPartition)) else lowered.persist()


def _nodes(top: Any) -> Iterator[Any]:
    """The expressions that one is made of, down to reads and data."""
    seen, left = {top._name}, [top]
    while left:
        node = left.pop()
        yield node
        new = [] if isinstance(node, _WHOLE) else [d for d in node.dependencies() if d._name not in seen]
        seen.update(dep._name for dep in new)
        left.extend(new)


def _with_values(node: Any, known: dict[str, Any]) -> Any:
    """An expression with values in place of the expressions of these names."""
    if not isinstance(node, ex.Expr):
        return node
    if node._name not in known:
        operands = [_with_values(operand, known) for operand in node.operands]
        changed = any(new is not old for new, old in zip(operands, node.operands, strict=True))
        known[node._name] = type(node)(*operands) if changed else node
    return known[node._name]


def _is_apart(top: Any, more: tuple[Any, ...]) -> bool:
    """Whether each partition needs one of each frame that it is made of, and no frame is needed as a whole."""
    for node in _nodes(top):
        if isinstance(node, (ReadNWB, *_WHOLE)):
            continue
        needed = node.dependencies()
        if isinstance(node, more):
            good = node.npartitions <= sum(dep.npartitions for dep in needed)
        else:
            good = isinstance(node, ex.Blockwise) and type(node)._lower is ex.Blockwise._lower
            good &= all(dep.npartitions == node.npartitions or isinstance(dep, _WHOLE) for dep in needed)
        if not good:
            return False
    return True
