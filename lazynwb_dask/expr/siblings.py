"""Finds the reads of the same partitions in one expression, and adds them to each read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lazynwb_dask.cluster import client as cluster
from lazynwb_dask.expr.internals import M, SetIndexBlockwise, ex
from lazynwb_dask.expr.node import Read
from lazynwb_dask.plan.tasks import Siblings

# Below nodes that depend on the number of partitions, partitions aren't fused.
_COUNTING = (
    ex.Head, ex.Tail, ex.Partitions, ex.Sample, ex.SetDivisions, ex.ResolveOverlappingDivisions,
    SetIndexBlockwise,
)  # fmt: skip
_STATISTICS = (len, M.min, M.max)  # likewise: Dask maps these to find lengths and divisions
_SIBLINGS = "siblings of ReadNWB"  # their key in `dependents`, which isn't the name of any node


def join(read: Read, parent: Any, dependents: Any) -> Any:
    """Add the siblings to the reads below a node. They don't depend on earlier results of this rule, so
    after one pass at the end of optimization all these reads have the same siblings."""
    siblings = _siblings_by_partitions(dependents)
    if _knowing(read, siblings) is read:
        return None
    # Only direct operands change: Dask's rules use the names of nodes, collected before this pass.
    return type(parent)(*[_knowing(operand, siblings) for operand in parent.operands])


def partitions_key(read: Read) -> tuple[Any, ...]:
    """A key that reads of the same partitions have in common."""
    tasks = read.operand("_partitions")
    return read.scan.token, read.layout, None if tasks is None else tuple(tasks)


def _siblings_by_partitions(dependents: Any) -> Mapping[tuple[Any, ...], Siblings]:
    """The siblings of all reads in an expression, by `partitions_key`. Computed once in each pass."""
    if _SIBLINGS not in dependents:
        members: dict[tuple[Any, ...], dict[str, Read]] = {}
        for references in list(dependents.values()):
            for node in _alive(references):
                for read in node.dependencies():
                    if isinstance(read, Read) and read.layout is None and read.limit is None:
                        members.setdefault(partitions_key(read), {})[read._name] = read
        threads = cluster.threads()
        dependents[_SIBLINGS] = [
            {
                key: Siblings.of(some.values(), threads, any(_counted(r, dependents) for r in some.values()))
                for key, some in members.items()
            }
        ]
    siblings: Mapping[tuple[Any, ...], Siblings] = dependents[_SIBLINGS][0]
    return siblings


def _knowing(operand: Any, found: Mapping[tuple[Any, ...], Siblings]) -> Any:
    """The read with its siblings. Returns the operand itself if nothing changes, or if it isn't such a
    read."""
    if not isinstance(operand, Read) or operand.layout is not None or operand.limit is not None:
        return operand
    siblings = found.get(partitions_key(operand))
    known = operand.operand("pushed").siblings
    return operand if siblings is None or siblings == known else operand._with(siblings=siblings)


def _alive(references: Iterable[Any]) -> list[Any]:
    return [node for reference in references if (node := reference()) is not None]


def _counted(read: Read, dependents: Any) -> bool:
    """Whether an operation above a read depends on the number of partitions."""
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
