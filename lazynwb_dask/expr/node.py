"""The read node: columns, partitions and rows of a scan, as a leaf of an expression."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazynwb_dask import config
from lazynwb_dask.cluster import client as cluster
from lazynwb_dask.expr import tasks
from lazynwb_dask.expr.internals import AnyExpr, BlockwiseIO, Task, ex, tokenize_deterministic
from lazynwb_dask.expr.prepare import prepare
from lazynwb_dask.plan.tasks import ONE_EACH, Siblings, TaskLayout, lay_out, possible
from lazynwb_dask.predicate.tree import Predicate
from lazynwb_dask.scan.derived import ordered
from lazynwb_dask.scan.request import Selection


@dataclass(frozen=True)
class Pushed:
    """What changes a read's rows and cost, but not its alignment with other reads."""

    predicate: Predicate | None = None
    siblings: Siblings | None = None

    def __dask_tokenize__(self) -> str:
        # Dask compares operands to decide whether reads are aligned; filters don't change that
        return "pushed"


class Read(ex.PartitionsFiltered, BlockwiseIO):  # type: ignore[misc]
    """Some columns, partitions and rows of a scan. While `layout` is None, each task reads one partition
    and rules may change the read; later `_partitions` counts the layout's tasks."""

    _parameters: ClassVar = ["scan", "columns", "pushed", "limit", "layout", "_partitions"]
    _defaults: ClassVar = {**dict.fromkeys(_parameters[1:]), "pushed": Pushed()}
    _absorb_projections = True
    _pickle_functools_cache = False
    _determ_token: str | None

    def __dask_tokenize__(self) -> str:
        if not self._determ_token:
            pushed = self.operand("pushed")
            parts = [self.operand(name) for name in self._parameters if name != "pushed"]
            token: str = tokenize_deterministic("ReadNWB", parts, pushed.predicate, pushed.siblings)
            self._determ_token = token
        return self._determ_token

    @functools.cached_property
    def _funcname(self) -> str:
        return str(getattr(self.scan, "label", "read-nwb"))

    @functools.cached_property
    def _name(self) -> str:
        return f"{self._funcname}-{self.deterministic_token}"

    @property
    def columns(self) -> list[str]:
        columns = self.operand("columns")
        return list(self.scan.meta.columns) if columns is None else list(columns)

    @property
    def predicate(self) -> Predicate | None:
        found: Predicate | None = self.operand("pushed").predicate
        return found

    @property
    def selection(self) -> Selection:
        return Selection(tuple(self.columns), self.predicate, self.limit)

    @functools.cached_property
    def _meta(self) -> Any:
        known = self.scan.meta
        there = {*self.columns} <= {*known.columns}
        return known[self.columns] if there else self.scan.empty(self.columns)

    @property
    def _cut(self) -> TaskLayout:
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

    @functools.cached_property
    def _inputs(self) -> list[str]:
        """All columns that reading needs, in the scan's order."""
        return ordered(self.scan.meta.columns, self.selection.used)

    @functools.cached_property
    def _possible(self) -> Any:
        return possible(self.scan, self.predicate)

    def parts(self, task: int) -> NDArray[np.int64]:
        """The scan's partitions that a task reads, without those where no row can satisfy the predicate."""
        own = self._cut.bucket(task)
        return own if self._possible is None else own[self._possible[own]]

    def _filtered_task(self, name: Any, index: int) -> Task:
        parts = self.parts(index)
        if not len(parts):
            return Task(name, tasks.nothing, self._meta, _data_producer=True)
        scan = self.scan.narrow(self._inputs, parts)
        selected = tuple(self.columns), self.predicate, self.limit  # tasks are many: plain values travel light
        return Task(name, tasks.read, scan, *selected, _data_producer=True)

    def __reduce__(self) -> tuple[Any, ...]:
        name = self._funcname, self.deterministic_token
        if self.layout is None:  # may still be compared with other reads of the whole scan
            return _unpickled, (type(self), tuple(self.operands), name, None)
        parts, layout = self._cut.take(self._tasks)
        scan = self.scan.narrow(self._inputs, parts)
        operands = (scan, self.columns, Pushed(self.predicate), self.limit, layout, None)
        return _unpickled, (type(self), operands, name, self.divisions[-1:])

    def substitute_parameters(self, substitutions: dict[str, Any]) -> Any:
        """All partitions are no choice of partitions: the read is the one that other nodes hold. (Dask doesn't
        choose partitions of masks that have one.)"""
        chosen = substitutions.get("_partitions")
        if chosen is not None and [*chosen] == [*range(self._cut.count(self.scan.nparts))]:
            substitutions = {**substitutions, "_partitions": None}
        return super().substitute_parameters(substitutions)

    def _with(self, **changes: Any) -> Read:
        pushed = {k: changes.pop(k) for k in ("predicate", "siblings") if k in changes}
        if pushed:
            changes["pushed"] = replace(self.operand("pushed"), **pushed)
        changed: Read = self.substitute_parameters(changes)
        return changed

    def _tune_down(self) -> Any:
        return self._laid_out() if self.layout is None else None

    def _tune_up(self, parent: Any) -> None:
        return None  # instead of Dask's own fusion, which cuts each read by its own columns

    def _lower(self) -> None:
        prepare(self.scan)

    def _laid_out(self) -> Read:
        siblings = self.operand("pushed").siblings or Siblings.of([self], cluster.threads())
        siblings = replace(siblings, fuse=siblings.fuse and bool(config.get("fuse")))
        layout = lay_out(self.scan, self._tasks, siblings)
        if layout == ONE_EACH:
            return self._with(layout=layout, siblings=None)
        return self._with(layout=layout, siblings=None, _partitions=None)


def _unpickled(kind: type, operands: tuple[Any, ...], name: tuple[str, str], end: tuple[Any] | None) -> Any:
    # Not by Dask's registry of names: the pickled read is narrower than the one registered here. The name
    # is kept, as a new one would depend on the narrowed scan and change the keys of tasks.
    read = AnyExpr.__new__(kind, *operands, _determ_token=name[1])
    read.__dict__.update(_funcname=name[0], _name="-".join(name))
    if end is not None:
        read.__dict__["divisions"] = (*read._divisions()[:-1], *end)
    return read


def read_of(view: Any) -> Read | None:
    """The read below projections and views; None if there is another operation."""
    while isinstance(view, (ex.Projection, View)):
        view = view.frame
    return view if isinstance(view, Read) else None


def listed(columns: Any) -> list[Any]:
    """One name, several, or None, as a list."""
    if columns is None:
        return []
    return list(columns) if isinstance(columns, (list, tuple, pd.Index)) else [columns]


class View:
    """Columns or the index of a read."""

    frame: Any
