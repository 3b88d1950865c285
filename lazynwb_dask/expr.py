"""The read as a Dask expression. The only module that knows Dask's internals.

Dask rewrites an expression from the top: each node may replace its parent (`_simplify_up`). A `ReadNWB`
takes in what its parents do to it, as far as that means the same for each partition by itself: columns,
conditions on rows, limits of rows. What is left is executed by Dask.

Three things must hold for the result to be right:

- Reads of one table count as aligned, row by row, however they are narrowed. So none may have other
  partitions than the rest: all live reads are cut alike, in one step (`_join`, `_tune_down`).
- Expressions are shared by name, so the name covers all that any rule looks at, and nothing changes.
- Nothing here reads or computes: an expression's properties are asked for under locks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import dask
import numpy as np
import pandas as pd
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype

from . import config, tasks
from .fusion import ONE_EACH, Family, Layout, Scan, columns_of, lay_out, possible
from .masks import NotByRow, accessor_attribute, accessor_method, method, operation
from .predicate import (
    Column,
    Constant,
    Index,
    Limit,
    Predicate,
    parse_query,
    steps,
    then,
    values_of,
)

WORKS_WITH = "2026.3.0 or later (tested up to 2026.8.0)"
try:
    from dask._expr import Expr as AnyExpr
    from dask._expr import FinalizeCompute
    from dask._task_spec import DataNode, Task
    from dask.base import collections_to_expr
    from dask.dataframe.dask_expr import _expr as ex
    from dask.dataframe.dask_expr import new_collection
    from dask.dataframe.dask_expr._accessor import FunctionMap, PropertyMap
    from dask.dataframe.dask_expr._indexing import Loc
    from dask.dataframe.dask_expr._reductions import Len, NLargest, NSmallest
    from dask.dataframe.dask_expr._shuffle import SetIndexBlockwise
    from dask.dataframe.dask_expr.io.io import BlockwiseIO
    from dask.tokenize import _tokenize_deterministic
    from dask.utils import M, methodcaller
except ImportError as exc:
    raise ImportError(
        f"lazynwb_dask works with dask {WORKS_WITH}; this is {dask.__version__}: {exc}"
    ) from exc

# What Dask calls on the classes below, or they on Dask's.
_HOOKS = {
    ex.Expr: "_filter_passthrough_available _lower _simplify_up _tune_down _tune_up substitute",
    ex.PartitionsFiltered: "_filtered_task _partitions divisions substitute_parameters",
    BlockwiseIO: "_absorb_projections _simplify_up",
    NLargest: "chunk_kwargs reduction_aggregate reduction_chunk reduction_combine",
    ex: "_DelayedExpr Assign MethodOperator Query are_co_aligned determine_column_projection "
    "plain_column_projection",
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

# A few tasks for each thread, so that all have work until the end.
MIN_TASKS = max(4, 2 * CPU_COUNT)
# Nodes that hold something for each partition or count them: below them partitions aren't fused.
_COUNTING = (
    ex.Head, ex.Tail, ex.Partitions, ex.Sample, ex.SetDivisions, ex.ResolveOverlappingDivisions,
    SetIndexBlockwise,
)  # fmt: skip
# The same for functions of each partition from which Dask makes facts about partitions.
_STATISTICS = (len, M.min, M.max)
# Where the families of an expression's reads are kept during one pass; not the name of any node.
_FAMILIES = "families of ReadNWB"


def from_scan(scan: Scan, predicate: Predicate | None = None) -> Any:
    """A Dask DataFrame of all rows of a scan, or of those that a predicate leaves."""
    if predicate is not None:
        predicate.validate(scan.meta)
    return new_collection(ReadNWB(scan, None, Pushed(predicate)))


def reads(collection: Any) -> list[ReadNWB]:
    """The reads that computing a collection would make, after all rewriting."""
    optimized = FinalizeCompute(collections_to_expr(collection)).optimize(fuse=False)
    return list(optimized.find_operations(ReadNWB))


def filters_left(collection: Any) -> list[tuple[str, str]]:
    """The filters that stay above the reads after all rewriting, and why each does."""
    optimized = FinalizeCompute(collections_to_expr(collection)).optimize(fuse=False)
    return [(str(node.predicate), _why_left(node)) for node in optimized.find_operations(ex.Filter)]


def _why_left(node: Any) -> str:
    inside = list(node.predicate.walk())
    if any(isinstance(part, ex.Expr) and part.ndim == 0 for part in inside):
        return "it compares with a value that is made of all rows"
    if any(isinstance(part, (ex.MapPartitions, ex.Map, ex.Apply)) for part in inside):
        return "it calls a function, which could look at anything"
    read = node.frame
    while isinstance(read, (ex.Projection, ReadIndex)):
        read = read.frame
    if not isinstance(read, ReadNWB):
        return f"it is of a frame that was changed after reading ({type(read).__name__})"
    if read.limit is not None:
        return "it is of rows that were chosen by their order"
    return "it isn't known to look at each row by itself"


# ------------------------------------------------------------------------------------- the read itself
@dataclass(frozen=True)
class Pushed:
    """What changes a read's rows and cost, but not what it is aligned with."""

    predicate: Predicate | None = None
    family: Family | None = None

    def __dask_tokenize__(self) -> str:
        # Dask compares operands to tell whether two reads are aligned: filtered or not, they are.
        return "pushed"


class ReadNWB(ex.PartitionsFiltered, BlockwiseIO):  # type: ignore[misc]
    """Some columns, partitions and rows of a scan.

    As long as `layout` is None, each task reads one partition, and rules may still change the read;
    afterwards `_partitions` counts the layout's tasks.
    """

    _parameters: ClassVar = ["scan", "columns", "pushed", "limit", "layout", "_partitions"]
    _defaults: ClassVar = {**dict.fromkeys(_parameters[1:]), "pushed": Pushed()}
    _absorb_projections = True
    _pickle_functools_cache = False
    _determ_token: str | None

    # --- what Dask asks of every expression
    def __dask_tokenize__(self) -> str:
        if not self._determ_token:
            pushed = self.operand("pushed")
            parts = [self.operand(name) for name in self._parameters if name != "pushed"]
            token: str = _tokenize_deterministic("ReadNWB", parts, pushed.predicate, pushed.family)
            self._determ_token = token
        return self._determ_token

    @property
    def columns(self) -> list[str]:
        columns = self.operand("columns")
        return list(self.scan.meta.columns) if columns is None else list(columns)

    @property
    def predicate(self) -> Predicate | None:
        """The condition on rows."""
        found: Predicate | None = self.operand("pushed").predicate
        return found

    @functools.cached_property
    def _meta(self) -> Any:
        return self.scan.meta[self.columns]

    @property
    def _cut(self) -> Layout:
        return self.layout or ONE_EACH

    @property
    def _tasks(self) -> Sequence[int]:
        tasks = self.operand("_partitions")
        return range(self._cut.count(self.scan.nparts)) if tasks is None else tasks

    @property
    def npartitions(self) -> int:
        return len(self._tasks)

    def _divisions(self) -> tuple[int | None, ...]:
        known = self.scan.divisions
        if known is None:
            return (None,) * (self.npartitions + 1)
        first, last = self._cut.span(np.asarray(self._tasks, dtype=np.int64))
        return (*[known[i] for i in first.tolist()], known[int(last[-1]) + 1])

    @functools.cached_property
    def divisions(self) -> tuple[int | None, ...]:
        return self._divisions()

    def __str__(self) -> str:
        return f"ReadNWB({', '.join(self._operands_for_repr())})"

    def _operands_for_repr(self) -> list[str]:
        shown = [f"columns={self.columns}", f"npartitions={self.npartitions}"]
        given = {"predicate": self.predicate, "limit": self.limit}
        return shown + [f"{name}={value!r}" for name, value in given.items() if value is not None]

    def _tree_repr_lines(self, indent: int = 0, recursive: bool = True) -> list[str]:
        return [" " * indent + str(self)]

    # --- tasks
    @functools.cached_property
    def _inputs(self) -> list[str]:
        """All columns that reading looks at, in the scan's order."""
        used = {*self.columns, *columns_of(self.predicate), *columns_of(self.limit)}
        return [name for name in self.scan.meta.columns if name in used]

    @functools.cached_property
    def _possible(self) -> Any:
        return possible(self.scan, self.predicate)

    def parts(self, task: int) -> NDArray[np.int64]:
        """The scan's partitions that a task reads: those of its own that may have rows left."""
        own = self._cut.bucket(task)
        return own if self._possible is None else own[self._possible[own]]

    def _filtered_task(self, name: Any, index: int) -> Task:
        parts = self.parts(index)
        if not len(parts):
            return Task(name, tasks.nothing, self._meta, _data_producer=True)
        scan = self.scan.narrow(self._inputs, parts)
        given = scan, tuple(self.columns), self.predicate, self.limit
        return Task(name, tasks.read, *given, _data_producer=True)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.layout is None:  # may still be compared with other reads of the whole scan
            return super().__reduce__()  # type: ignore[no-any-return]
        parts, layout = self._cut.take(self._tasks)
        scan = self.scan.narrow(self._inputs, parts)
        operands = (scan, self.columns, Pushed(self.predicate), self.limit, layout, None)
        return _unpickled, (type(self), operands, self.deterministic_token, self.divisions[-1])

    # --- rewriting
    def _with(self, **changes: Any) -> ReadNWB:
        pushed = {k: changes.pop(k) for k in ("predicate", "family") if k in changes}
        if pushed:
            changes["pushed"] = replace(self.operand("pushed"), **pushed)
        changed: ReadNWB = self.substitute_parameters(changes)
        return changed

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        # Other reads of the same table are no veto, as they are for Dask's own: the pushed read
        # returns, partition for partition, what the filter would have.
        return _pushed_condition(self, parent.predicate) is not None

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        for rule in (_project, _push_rows, _push_head, _count):
            changed = rule(self, parent, dependents)
            if changed is not None:
                return changed
        return self._join(parent, dependents)

    def _join(self, parent: Any, dependents: Any) -> Any:
        """Take note of the other reads of the same partitions in the expression.

        What is noted depends on nothing that is noted, so one pass after all other rewriting has
        ended each read knows the same.
        """
        families = _families(dependents)
        if _joined(self, families) is self:
            return None
        # Only here, not further down as well: Dask's rules go by the names of the nodes below, of
        # which it has taken stock before this pass.
        return type(parent)(*[_joined(operand, families) for operand in parent.operands])

    def _tune_down(self) -> Any:
        return self._laid_out() if self.layout is None else None

    def _tune_up(self, parent: Any) -> None:
        return None  # instead of Dask's own fusion, which cuts each read by its own columns

    def _lower(self) -> None:
        before_compute = getattr(self.scan, "before_compute", None)
        if before_compute is not None:
            before_compute()

    def _laid_out(self) -> ReadNWB:
        family = self.operand("pushed").family or Family.of([self])
        family = replace(family, fuse=family.fuse and bool(config.get("fuse")))
        layout = lay_out(self.scan, self._tasks, family, MIN_TASKS)
        if layout == ONE_EACH:
            return self._with(layout=layout, family=None)
        return self._with(layout=layout, family=None, _partitions=None)


def _unpickled(kind: type, operands: tuple[Any, ...], token: str, end: int | None) -> Any:
    # Past the registry of expressions by name: what was pickled is narrower than its namesake here.
    read = AnyExpr.__new__(kind, *operands, _determ_token=token)
    read.__dict__["divisions"] = (*read._divisions()[:-1], end)
    return read


def _kin(read: ReadNWB) -> tuple[Any, ...]:
    """The same for reads of the same partitions."""
    tasks = read.operand("_partitions")
    return read.scan.token, read.layout, None if tasks is None else tuple(tasks)


def _families(dependents: Any) -> Mapping[tuple[Any, ...], Family]:
    """The families of all reads in an expression, by kinship; found once in each pass."""
    if _FAMILIES not in dependents:
        members: dict[tuple[Any, ...], dict[str, ReadNWB]] = {}
        for references in list(dependents.values()):
            for node in _alive(references):
                for read in node.dependencies():
                    if isinstance(read, ReadNWB) and read.layout is None and read.limit is None:
                        members.setdefault(_kin(read), {})[read._name] = read
        dependents[_FAMILIES] = [
            {
                kin: Family.of(found.values(), any(_counted(r, dependents) for r in found.values()))
                for kin, found in members.items()
            }
        ]
    families: Mapping[tuple[Any, ...], Family] = dependents[_FAMILIES][0]
    return families


def _joined(operand: Any, families: Mapping[tuple[Any, ...], Family]) -> Any:
    """The same, if it is a read that knows its family already, or nothing of the kind."""
    if not isinstance(operand, ReadNWB) or operand.layout is not None or operand.limit is not None:
        return operand
    family = families.get(_kin(operand))
    known = operand.operand("pushed").family
    return operand if family is None or family == known else operand._with(family=family)


def _alive(references: Iterable[Any]) -> list[Any]:
    return [node for reference in references if (node := reference()) is not None]


def _counted(read: ReadNWB, dependents: Any) -> bool:
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


# ------------------------------------------------------------------ the rules: one kind of parent each
def _project(read: ReadNWB, parent: Any, dependents: Any) -> Any:
    """Read only the columns that any parent uses."""
    if isinstance(parent, ex.Projection):
        narrowed = BlockwiseIO._simplify_up(read, parent, dependents)
        if narrowed is None and not isinstance(parent, ReadProjection):
            return ReadProjection(read, parent.operand("columns"))
        return narrowed
    if isinstance(parent, ex.Index):
        wanted = _listed(ex.determine_column_projection(read, parent, dependents))
        columns = [name for name in read.columns if name in wanted]
        if columns != read.columns or not isinstance(parent, ReadIndex):
            return ReadIndex(read._with(columns=columns))
    return None


def _push_rows(view: Any, parent: Any, dependents: Any) -> Any:
    """Read only the rows that a filter, a query, or a choice of the largest leaves."""
    read = _read_of(view)
    if read is None:
        return None
    condition = None
    if isinstance(parent, ex.Filter) and parent.frame._name == view._name:
        condition = _pushed_condition(view, parent.predicate)
    elif isinstance(parent, Loc) and parent.frame._name == view._name and parent.cindexer is None:
        condition = _pushed_condition(view, parent.iindexer)
    elif isinstance(parent, ex.Query) and read.limit is None:
        condition = _pushed_query(view, parent)
    elif type(parent) in _KINDS and read.limit is None and not isinstance(view, ReadIndex):
        return _pushed_top(view, read, parent)
    elif isinstance(parent, ex.Assign) and not isinstance(parent, ReadAssign):
        base = _read_of(parent.frame)
        if base is None or base.predicate is not None:
            return ReadAssign(*parent.operands)
    if condition is None:
        return None
    return view.substitute(read, read._with(predicate=then(read.predicate, condition)))


def _pushed_query(view: Any, query: Any) -> Predicate | None:
    try:
        condition = parse_query(query.operand("_expr"), view.columns, **query.expr_kwargs)
        condition.validate(view._meta)
    except (TypeError, ValueError, LookupError):
        return None  # right or wrong, it is left to Dask
    return condition


def _pushed_top(view: Any, read: ReadNWB, parent: Any) -> Any:
    by, shown = _listed(parent.operand("_columns")), view.columns
    if parent.n < 0 or not {*(by or shown)} <= {*read.scan.meta.columns}:
        return None
    kind = _KINDS[type(parent)]
    # the columns that decide stay, also where Dask has dropped them already
    columns = list(dict.fromkeys([*shown, *by]))
    limit = Limit(kind, parent.n, tuple(by or shown))
    limited = read._with(limit=limit, columns=columns, family=None)
    if not by:
        return TopRows(ex.Projection(limited, view.name), *parent.operands[1:], kind)
    top = TopRows(limited, *parent.operands[1:], kind)
    if view.ndim == 1:
        return ex.Projection(top, view.name)
    return top if columns == shown else ex.Projection(top, shown)


def _push_head(read: ReadNWB, parent: Any, dependents: Any) -> Any:
    """Read only the first or last rows."""
    if type(parent) not in (ex.Head, ex.Tail) or read.limit is not None or parent.n < 0:
        return None
    first = type(parent) is ex.Head
    asked = parent.operand("npartitions") if first else 1
    if asked == 0 or asked > read.npartitions:
        return None  # Dask says what is wrong
    tasks = read.operand("_partitions")
    lengths = _lengths(read)
    if asked < 0 and lengths is not None:
        enough = int(np.searchsorted(np.cumsum(lengths), parent.n)) + 1
        tasks = list(read._tasks[:enough])
    limited = read._with(
        limit=Limit("first" if first else "last", parent.n), _partitions=tasks, family=None
    )
    # one partition is what was asked for, not one task's worth of them
    limited = limited._with(family=replace(Family.of([limited]), fuse=asked < 0))
    return (ReadHead if first else ReadTail)(limited, *parent.operands[1:])


def _count(view: Any, parent: Any, dependents: Any) -> Any:
    """Lengths are known beforehand."""
    read = _read_of(view)
    if read is not None and isinstance(parent, (Len, ex.Lengths)):
        lengths = _lengths(read)
        if lengths is not None:
            known = lengths.tolist()
            return ex.Literal(sum(known) if isinstance(parent, Len) else tuple(known))
    return None


def _lengths(read: ReadNWB) -> Any:
    """The length of each partition, where it is known without reading."""
    known = read.scan.lengths
    if known is None or read.predicate is not None or read.limit is not None:
        return None
    return read._cut.sums(known, read._tasks)


def _read_of(view: Any) -> ReadNWB | None:
    """The read that something is columns or the index of."""
    while isinstance(view, (ex.Projection, ReadIndex)):
        view = view.frame
    return view if isinstance(view, ReadNWB) else None


def _listed(columns: Any) -> list[Any]:
    if columns is None:
        return []
    return list(columns) if isinstance(columns, (list, tuple, pd.Index)) else [columns]


class _View:
    """Columns or the index of a read: passes on to it what Dask would stop here."""

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        return _pushed_condition(self, parent.predicate) is not None

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        for rule in (_push_rows, _count):
            changed = rule(self, parent, dependents)
            if changed is not None:
                return changed
        return super()._simplify_up(parent, dependents)  # type: ignore[misc]


class ReadProjection(_View, ex.Projection):  # type: ignore[misc]
    """Columns of a read that others use more columns of."""


class ReadIndex(_View, ex.Index):  # type: ignore[misc]
    """The index of a read."""


class _End:
    """The first or last rows of a read, of only the columns that are used: Dask takes them all."""

    def _simplify_up(self: Any, parent: Any, dependents: Any) -> Any:
        read = self.frame
        if isinstance(parent, ex.Projection) and isinstance(read, ReadNWB):
            wanted = _listed(ex.determine_column_projection(self, parent, dependents))
            columns = [name for name in read.columns if name in wanted]
            if columns != read.columns:
                narrowed = type(self)(read._with(columns=columns), *self.operands[1:])
                return type(parent)(narrowed, parent.operand("columns"))
        return super()._simplify_up(parent, dependents)  # type: ignore[misc]


class ReadHead(_End, ex.Head):  # type: ignore[misc]
    """The first rows of some partitions of a read."""

    def _divisions(self) -> tuple[Any, Any]:
        return self.frame.divisions[0], self.frame.divisions[self._asked]

    def _lower(self) -> Any:
        if self._asked < self.operand("npartitions"):  # a condition has left fewer partitions
            return type(self)(self.frame, self.n, -1)
        return super()._lower()

    @property
    def _asked(self) -> int:
        asked, there = int(self.operand("npartitions")), int(self.frame.npartitions)
        return there if asked < 0 else min(asked, there)


class ReadTail(_End, ex.Tail):  # type: ignore[misc]
    """The last rows of a read's last partition."""


class TopRows(NLargest):  # type: ignore[misc]
    """The rows of a read with the largest or smallest values."""

    _parameters: ClassVar = [*NLargest._parameters, "kind"]
    reduction_chunk = staticmethod(tasks.candidates)
    reduction_combine = staticmethod(tasks.candidates)
    reduction_aggregate = staticmethod(tasks.best)

    @property
    def chunk_kwargs(self) -> dict[str, Any]:
        return {**super().chunk_kwargs, "kind": self.kind}

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if isinstance(parent, ex.Projection) and self.ndim == 2:
            by = _listed(self.operand("_columns"))
            return ex.plain_column_projection(self, parent, dependents, additional_columns=by)
        return None


_KINDS: dict[type, Any] = {NLargest: "largest", NSmallest: "smallest"}


class ReadAssign(ex.Assign):  # type: ignore[misc]
    """Columns assigned to a filtered read, of which a partition may have no rows left."""

    @staticmethod
    def operation(frame: pd.DataFrame, *pairs: Any) -> Any:
        return ex.Assign.operation(frame, *tasks.aligned(frame, pairs))


# ------------------------------------------------------------------------ Dask's masks as conditions
def _pushed_condition(view: Any, mask: Any) -> Predicate | None:
    """A mask as a condition on the rows of a read; None if it isn't one."""
    read = _read_of(view)
    if read is None or read.limit is not None or not isinstance(mask, ex.Expr):
        return None
    bases: list[Predicate | None] = []
    try:
        condition = _translated(mask, read, bases)
    except NotByRow:
        return None
    if not bases or not is_bool_dtype(getattr(mask._meta, "dtype", object)):
        return None
    # the mask may be of rows that the read has left out since, but not of fewer rows
    before = steps(bases[0])
    same = all(base == bases[0] for base in bases)
    return condition if same and steps(read.predicate)[: len(before)] == before else None


def _translated(node: Any, read: ReadNWB, bases: list[Predicate | None]) -> Predicate:
    """A part of a mask; notes which rows of the read it is of."""
    if not isinstance(node, ex.Expr):
        return Constant(node)
    if isinstance(node, (ex.Projection, ex.Index)):
        source = _read_of(node.frame)
        if source is None or source.limit is not None or _kin(source) != _kin(read):
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
