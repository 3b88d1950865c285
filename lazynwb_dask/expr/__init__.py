"""The read as a Dask expression, the only package that uses Dask's internals. Dask lets each node replace
its parent (`_simplify_up`). A `ReadNWB` absorbs columns, conditions and row limits if they apply to each
partition by itself; Dask executes the rest. Three conditions keep results right. (1) Reads of one table
count as aligned row by row, so all of them get the same partitions, in one step (`join`, `_tune_down`). (2)
Expressions are shared by name, so names cover all that rules use, and nothing is mutated. (3) No property
reads or computes, as Dask gets them under locks."""

from __future__ import annotations

from typing import Any

import numpy as np

import lazynwb_dask.expr.accessor  # noqa: F401 registers it: a frame that is unpickled has it
from lazynwb_dask.expr.apart import apart
from lazynwb_dask.expr.chosen import ReadRest
from lazynwb_dask.expr.internals import FinalizeCompute, FromGraph, Loc, collections_to_expr, ex, new_collection
from lazynwb_dask.expr.node import Pushed, View
from lazynwb_dask.expr.rules import ReadNWB
from lazynwb_dask.plan.tasks import Scan, TaskLayout
from lazynwb_dask.predicate.tree import Limit, Predicate

__all__ = [
    "FinalizeCompute", "Loc", "ReadNWB", "apart", "collections_to_expr", "ex", "filters_left", "from_scan",
    "is_computed", "new_collection", "partition_bytes", "reads", "taken_apart",
]  # fmt: skip


def from_scan(scan: Scan, predicate: Predicate | None = None) -> Any:
    """A Dask DataFrame of all rows of a scan, or of those that satisfy the predicate."""
    if predicate is not None:
        predicate.validate(scan.meta)
    return new_collection(ReadNWB(scan, None, Pushed(predicate)))


def reads(collection: Any) -> list[ReadNWB]:
    """The reads of a collection after optimization."""
    optimized = FinalizeCompute(collections_to_expr(collection)).optimize(fuse=False)
    found = list(optimized.find_operations(ReadNWB))
    for node in optimized.find_operations(ReadRest):
        # one task reads a few rows of any partitions
        limit = Limit("any", node.rest.n)
        layout = TaskLayout(None, np.array([0, node.rest.scan.nparts]))
        found.append(ReadNWB(node.rest.scan, None, Pushed(), limit, layout))
    return found


def partition_bytes(collection: Any) -> list[int]:
    """The decoded bytes of each partition of a read, with the columns that it uses, before its condition has
    taken any rows; zero for partitions where no row can satisfy it. Of what isn't made of reads with as many
    partitions, none."""
    each = []
    for node in collection.expr.simplify().find_operations(ReadNWB):
        weights = node.scan.nbytes(node._inputs)
        each.append([int(weights[node.parts(int(task))].sum()) for task in node._tasks])
    return [sum(one) for one in zip(*each, strict=True)] if len(set(map(len, each))) == 1 else []


def is_computed(collection: Any) -> bool:
    """Whether a collection starts from data that `persist` has computed, and reads nothing."""
    computed = next(collection.expr.find_operations(FromGraph), None)
    return computed is not None and not reads(collection)


def taken_apart(collection: Any) -> tuple[Scan, list[str], Predicate | None] | None:
    """The scan, columns and predicate of a frame that optimizes to a single read; None for any other
    frame."""
    if getattr(collection, "ndim", None) != 2 or not isinstance(getattr(collection, "expr", None), ex.Expr):
        return None
    node = collection.expr.simplify()
    columns = list(node.columns)
    while isinstance(node, ex.Projection):
        node = node.frame
    if not isinstance(node, ReadNWB) or node.limit is not None:
        return None
    if len({*columns}) < len(columns):
        return None
    scan = node.scan
    if node.layout is not None or node.operand("_partitions") is not None:
        parts = np.concatenate([node.parts(task) for task in node._tasks])
        scan = scan.narrow(scan.meta.columns, parts.tolist())
    return scan, columns, node.predicate


def filters_left(collection: Any) -> list[tuple[str, str]]:
    """The filters that remain above the reads after optimization, and the reason for each."""
    optimized = FinalizeCompute(collections_to_expr(collection)).optimize(fuse=False)
    kinds = (ex.Filter, ex.Query, ex.DropnaFrame, ex.DropnaSeries)
    return [(_said(node), _why_left(node)) for node in optimized.find_operations(kinds)]


def _said(node: Any) -> str:
    """A filter as the user would write it."""
    if isinstance(node, ex.Filter):
        return str(node.predicate)
    if isinstance(node, ex.Query):
        return str(node.operand("_expr"))
    given = {name: node.operand(name) for name in node._parameters[1:]}
    known = [f"{k}={v!r}" for k, v in given.items() if v is not node._defaults[k]]
    return f"dropna({', '.join(known)})"


def _why_left(node: Any) -> str:
    inside = list(node.predicate.walk()) if isinstance(node, ex.Filter) else []
    if any(isinstance(part, ex.Expr) and part.ndim == 0 for part in inside):
        return "it compares with a value computed from all rows"
    if any(isinstance(part, (ex.MapPartitions, ex.Map, ex.Apply)) for part in inside):
        return "it calls a function, which could look at anything"
    read = node.frame
    while isinstance(read, (ex.Projection, View)):
        read = read.frame
    if not isinstance(read, ReadNWB):
        return f"the frame was changed after reading ({type(read).__name__})"
    if read.limit is not None:
        return "it is of rows that were chosen by their order"
    if isinstance(node, (ex.DropnaFrame, ex.DropnaSeries)):
        return "dropna is not pushed down; use frame[frame.column.notnull()]"
    return "it isn't known to look at each row by itself"
