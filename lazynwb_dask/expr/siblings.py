"""Reads of the same partitions in one expression: what each must know of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lazynwb_dask.expr.internals import M, SetIndexBlockwise, ex
from lazynwb_dask.expr.node import Read
from lazynwb_dask.plan.tasks import Siblings

# Nodes that hold something for each partition or count them: below them partitions aren't fused.
_COUNTING = (
    ex.Head, ex.Tail, ex.Partitions, ex.Sample, ex.SetDivisions, ex.ResolveOverlappingDivisions,
    SetIndexBlockwise,
)  # fmt: skip
# The same for functions of each partition from which Dask makes facts about partitions.
_STATISTICS = (len, M.min, M.max)
# Where the siblings of an expression's reads are kept during one pass; not the name of any node.
_SIBLINGS = "siblings of ReadNWB"


def join(read: Read, parent: Any, dependents: Any) -> Any:
    """Take note of the other reads of the same partitions in the expression.

    What is noted depends on nothing that is noted, so one pass after all other rewriting has
    ended each read knows the same.
    """
    siblings = _siblings_by_partitions(dependents)
    if _knowing(read, siblings) is read:
        return None
    # Only here, not further down as well: Dask's rules go by the names of the nodes below, of
    # which it has taken stock before this pass.
    return type(parent)(*[_knowing(operand, siblings) for operand in parent.operands])


def partitions_key(read: Read) -> tuple[Any, ...]:
    """The same for reads of the same partitions."""
    tasks = read.operand("_partitions")
    return read.scan.token, read.layout, None if tasks is None else tuple(tasks)


def _siblings_by_partitions(dependents: Any) -> Mapping[tuple[Any, ...], Siblings]:
    """The siblings of all reads in an expression, by the partitions that they read; found once in each pass."""
    if _SIBLINGS not in dependents:
        members: dict[tuple[Any, ...], dict[str, Read]] = {}
        for references in list(dependents.values()):
            for node in _alive(references):
                for read in node.dependencies():
                    if isinstance(read, Read) and read.layout is None and read.limit is None:
                        members.setdefault(partitions_key(read), {})[read._name] = read
        dependents[_SIBLINGS] = [
            {
                key: Siblings.of(
                    found.values(), any(_counted(r, dependents) for r in found.values())
                )
                for key, found in members.items()
            }
        ]
    siblings: Mapping[tuple[Any, ...], Siblings] = dependents[_SIBLINGS][0]
    return siblings


def _knowing(operand: Any, found: Mapping[tuple[Any, ...], Siblings]) -> Any:
    """The same, if it is a read that knows its siblings already, or nothing of the kind."""
    if not isinstance(operand, Read) or operand.layout is not None or operand.limit is not None:
        return operand
    siblings = found.get(partitions_key(operand))
    known = operand.operand("pushed").siblings
    return operand if siblings is None or siblings == known else operand._with(siblings=siblings)


def _alive(references: Iterable[Any]) -> list[Any]:
    return [node for reference in references if (node := reference()) is not None]


def _counted(read: Read, dependents: Any) -> bool:
    """Whether something above a read depends on how many partitions it has."""
    stack, seen = [read], {read._name}
    while stack:
        for parent in _alive(dependents.get(stack.pop()._name, ())):
            if isinstance(parent, _COUNTING):
                return True
            if not isinstance(parent, ex.Blockwise):
                continue
            if isinstance(parent, ex.MapPartitions) and parent.func in _STATISTICS:
                return True
            if isinstance(parent._meta, np.ndarray):  # of as many blocks as Dask believes
                return True
            if not ex.are_co_aligned(*parent.dependencies()):  # with as many of something else
                return True
            if parent._name not in seen:
                seen.add(parent._name)
                stack.append(parent)
    return False
