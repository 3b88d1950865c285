"""Optimization rules that push operations into a read, one for each kind of parent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from lazynwb_dask.cluster import client as cluster
from lazynwb_dask.expr import tasks
from lazynwb_dask.expr.internals import BlockwiseIO, Len, Loc, NLargest, NSmallest, ex
from lazynwb_dask.expr.masks import pushed_condition, pushed_query
from lazynwb_dask.expr.node import Read, View, listed, read_of
from lazynwb_dask.expr.siblings import join
from lazynwb_dask.plan.tasks import Siblings
from lazynwb_dask.predicate.tree import Limit, then


class ReadNWB(Read):
    """A read that absorbs columns, conditions, row limits, lengths and partitions."""

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        # other reads of the table don't matter: the pushed read returns the filter's rows in each partition
        return pushed_condition(self, parent.predicate) is not None

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        for rule in (_project, _push_rows, _push_head, _count, join):
            changed = rule(self, parent, dependents)
            if changed is not None:
                return changed
        return None


def _project(read: ReadNWB, parent: Any, dependents: Any) -> Any:
    """Read only the columns that any parent uses."""
    if isinstance(parent, ex.Projection):
        narrowed = BlockwiseIO._simplify_up(read, parent, dependents)
        if narrowed is None and not isinstance(parent, ReadProjection):
            return ReadProjection(read, parent.operand("columns"))
        return narrowed
    if isinstance(parent, ex.Index):
        wanted = listed(ex.determine_column_projection(read, parent, dependents))
        columns = [name for name in read.columns if name in wanted]
        if columns != read.columns or not isinstance(parent, ReadIndex):
            return ReadIndex(read._with(columns=columns))
    return None


def _push_rows(view: Any, parent: Any, dependents: Any) -> Any:
    """Read only the rows of a filter, a query, or the largest or smallest values."""
    read = read_of(view)
    if read is None:
        return None
    condition = None
    if isinstance(parent, ex.Filter) and parent.frame._name == view._name:
        condition = pushed_condition(view, parent.predicate)
    elif isinstance(parent, Loc) and parent.frame._name == view._name and parent.cindexer is None:
        condition = pushed_condition(view, parent.iindexer)
    elif isinstance(parent, ex.Query) and read.limit is None:
        condition = pushed_query(view, parent)
    elif type(parent) in _KINDS and read.limit is None and not isinstance(view, ReadIndex):
        return _pushed_top(view, read, parent)
    elif isinstance(parent, ex.Assign) and not isinstance(parent, ReadAssign):
        base = read_of(parent.frame)
        if base is None or base.predicate is not None:
            return ReadAssign(*parent.operands)
    if condition is None:
        return None
    return view.substitute(read, read._with(predicate=then(read.predicate, condition)))


def _pushed_top(view: Any, read: ReadNWB, parent: Any) -> Any:
    by, shown = listed(parent.operand("_columns")), view.columns
    if parent.n < 0 or not {*(by or shown)} <= {*shown} & {*read.scan.meta.columns}:
        return None
    kind = _KINDS[type(parent)]
    limited = read._with(limit=Limit(kind, parent.n, tuple(by or shown)), columns=shown, siblings=None)
    return TopRows(limited if by else ex.Projection(limited, view.name), *parent.operands[1:], kind)


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
    limited = read._with(limit=Limit("first" if first else "last", parent.n), _partitions=tasks, siblings=None)
    # Dask means one partition, so don't fuse several
    limited = limited._with(siblings=replace(Siblings.of([limited], cluster.threads()), fuse=asked < 0))
    return (ReadHead if first else ReadTail)(limited, *parent.operands[1:])


def _count(view: Any, parent: Any, dependents: Any) -> Any:
    """Use known lengths, or else count rows by reading only the index."""
    read = read_of(view)
    if read is not None and isinstance(parent, (Len, ex.Lengths)):
        lengths = _lengths(read)
        if lengths is not None:
            known = lengths.tolist()
            return ex.Literal(sum(known) if isinstance(parent, Len) else tuple(known))
        if isinstance(parent, Len) and not isinstance(view, ReadIndex):
            return Len(ReadIndex(read))  # no column need be read to count rows
    return None


def _lengths(read: ReadNWB) -> Any:
    """The length of each partition; None if it isn't known without reading."""
    known = read.scan.lengths
    if known is None or read.predicate is not None or read.limit is not None:
        return None
    return read._cut.sums(known, read._tasks)


class _View(View):
    """Columns or the index of a read. Applies row rules to the read where Dask's own rules stop."""

    def _filter_passthrough_available(self, parent: Any, dependents: Any) -> bool:
        return pushed_condition(self, parent.predicate) is not None

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        for rule in (_push_rows, _count):
            changed = rule(self, parent, dependents)
            if changed is not None:
                return changed
        return super()._simplify_up(parent, dependents)  # type: ignore[misc]


class ReadProjection(_View, ex.Projection):  # type: ignore[misc]
    """Columns of a read of which other nodes use more columns."""


class ReadIndex(_View, ex.Index):  # type: ignore[misc]
    """The index of a read."""


class _End:
    """The first or last rows of a read, with only the columns that are used. Dask's own nodes keep all
    columns."""

    def _simplify_up(self: Any, parent: Any, dependents: Any) -> Any:
        read = self.frame
        if isinstance(parent, ex.Projection) and isinstance(read, ReadNWB):
            wanted = listed(ex.determine_column_projection(self, parent, dependents))
            columns = [name for name in read.columns if name in wanted]
            if columns != read.columns:
                narrowed = type(self)(read._with(columns=columns), *self.operands[1:])
                return type(parent)(narrowed, parent.operand("columns"))
        return super()._simplify_up(parent, dependents)  # type: ignore[misc]


class ReadHead(_End, ex.Head):  # type: ignore[misc]
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


def _keep_deciding_columns(top: Any, parent: Any, dependents: Any) -> Any:
    """Of chosen rows, read the columns that are asked for and those that decide which rows they are."""
    if not isinstance(parent, ex.Projection) or top.ndim != 2:
        return None
    by, there = listed(top.operand("_columns")), top.frame.columns
    wanted = listed(ex.determine_column_projection(top, parent, dependents, additional_columns=by))
    columns = [name for name in there if name in wanted]
    if columns == there:
        return None
    return type(parent)(type(top)(top.frame[columns], *top.operands[1:]), parent.operand("columns"))


# Dask's own rule forgets the columns that decide, for every frame: `nlargest(k, "x")[["y"]]`, and the same of
# `sort_values("x").head()`, end in KeyError. Its nodes are often far above the read, where no rule of the
# read's is asked. So this one is Dask's too, in a process that imports this package.
if "_simplify_up" not in vars(NLargest):  # else Dask has mended it
    NLargest._simplify_up = _keep_deciding_columns


class TopRows(NLargest):  # type: ignore[misc]
    """The rows of a read with the largest or smallest values."""

    _parameters: ClassVar = [*NLargest._parameters, "kind"]
    reduction_chunk = staticmethod(tasks.candidates)
    reduction_combine = staticmethod(tasks.candidates)
    reduction_aggregate = staticmethod(tasks.best)

    @property
    def chunk_kwargs(self) -> dict[str, Any]:
        return {**super().chunk_kwargs, "kind": self.kind}


_KINDS: dict[type, Any] = {NLargest: "largest", NSmallest: "smallest"}


class ReadAssign(ex.Assign):  # type: ignore[misc]
    """Columns assigned to a filtered read, whose partitions may be empty."""

    @staticmethod
    def operation(frame: pd.DataFrame, *pairs: Any) -> Any:
        return ex.Assign.operation(frame, *tasks.aligned(frame, pairs))
