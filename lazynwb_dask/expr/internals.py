"""All Dask internals that the package uses, imported and checked in one place."""

from __future__ import annotations

import dask

WORKS_WITH = "2026.7.0 or later (tested up to 2026.8.0)"
try:
    from dask._expr import Expr as AnyExpr
    from dask._expr import FinalizeCompute
    from dask._task_spec import DataNode, Task
    from dask.base import collections_to_expr
    from dask.dataframe.dask_expr import _expr as ex
    from dask.dataframe.dask_expr import new_collection
    from dask.dataframe.dask_expr._accessor import FunctionMap, PropertyMap
    from dask.dataframe.dask_expr._concat import StackPartition
    from dask.dataframe.dask_expr._indexing import Loc
    from dask.dataframe.dask_expr._reductions import Len, NLargest, NSmallest
    from dask.dataframe.dask_expr._repartition import Repartition
    from dask.dataframe.dask_expr._shuffle import SetIndexBlockwise
    from dask.dataframe.dask_expr.io.io import IO, BlockwiseIO, FromGraph
    from dask.tokenize import _tokenize_deterministic as tokenize_deterministic
    from dask.utils import M, methodcaller
except ImportError as exc:
    raise ImportError(f"lazynwb_dask works with dask {WORKS_WITH}; this is {dask.__version__}: {exc}") from exc

# Methods that Dask and this package's subclasses call on each other.
_HOOKS = {
    ex.Expr: "_filter_passthrough_available _lower _simplify_up _tune_down _tune_up substitute",
    ex.PartitionsFiltered: "_filtered_task _partitions divisions substitute_parameters",
    BlockwiseIO: "_absorb_projections _simplify_up",
    NLargest: "chunk_kwargs reduction_aggregate reduction_chunk reduction_combine",
    ex: "_DelayedExpr Assign DropnaFrame DropnaSeries MethodOperator Query are_co_aligned "
    "determine_column_projection plain_column_projection",
}
_missing = [
    f"{owner.__name__}.{name}"
    for owner, names in _HOOKS.items()
    for name in names.split()
    if not hasattr(owner, name)
]
if _missing:
    raise ImportError(
        f"lazynwb_dask works with dask {WORKS_WITH}; this is {dask.__version__} and lacks "
        f"{', '.join(_missing)}. Please report it, and use another version of dask until then."
    )

__all__ = [
    "IO", "AnyExpr", "BlockwiseIO", "DataNode", "FinalizeCompute", "FromGraph", "FunctionMap", "Len",
    "Loc", "M", "NLargest", "NSmallest", "PropertyMap", "Repartition", "SetIndexBlockwise", "StackPartition",
    "Task", "collections_to_expr", "ex", "methodcaller", "new_collection", "tokenize_deterministic",
]  # fmt: skip
