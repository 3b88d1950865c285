"""Which partitions are read, and which of them together in one task. Doesn't use Dask. Reads of one table
in one expression may be combined row by row, so their tasks must have the same partitions, whatever columns
each reads. The `TaskLayout` therefore depends only on the `Siblings`, which these reads have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazynwb_dask.predicate.tree import Limit, Predicate, conjuncts

SHARE = 512  # most partitions of a task, as each has a fixed cost however small it is
# Bytes that a thread decodes, Python's part included, in the time of a few round trips to a store. A read of
# less for each thread waits for the network: more tasks than threads would do so one after the other.
QUICK = 24 << 20
FEW = 2  # tasks for each thread, where decoding takes the time, so that all have work until the end


class Scan(Protocol):
    """The interface of scans: all partitions of one table. See `lazynwb_dask.scan.scan.Scan`."""

    @property
    def token(self) -> str: ...
    @property
    def meta(self) -> pd.DataFrame: ...
    @property
    def nparts(self) -> int: ...
    @property
    def lengths(self) -> NDArray[np.int64] | None: ...
    @property
    def divisions(self) -> tuple[int, ...] | None: ...
    @property
    def fusable(self) -> bool: ...
    @property
    def blocksize(self) -> int: ...
    @property
    def constants(self) -> frozenset[str]: ...
    def nbytes(self, columns: Iterable[str], /) -> NDArray[np.int64]: ...
    def constant_frame(self, columns: Iterable[str], /) -> pd.DataFrame: ...
    def possible(self, predicate: Predicate, /) -> NDArray[np.bool_] | None: ...
    def narrow(self, columns: Iterable[str], parts: Sequence[int], /) -> Scan: ...


class Read(Protocol):
    """The interface of reads: some columns and rows of a scan."""

    @property
    def scan(self) -> Scan: ...
    @property
    def columns(self) -> list[str]: ...
    @property
    def predicate(self) -> Predicate | None: ...
    @property
    def limit(self) -> Limit | None: ...


def columns_of(choice: Predicate | Limit | None) -> frozenset[str]:
    return frozenset() if choice is None else choice.columns


@dataclass(frozen=True)
class Siblings:
    """What the reads of one table's partitions in one expression have in common. `columns` are read by any
    of them. A partition is needed if any of `conditions` may be true in it; without conditions all are
    needed. `fuse`: partitions may be read together. `threads` are those that the tasks run on."""

    columns: frozenset[str]
    conditions: frozenset[Predicate]
    fuse: bool = True
    threads: int = 1

    @classmethod
    def of(cls, reads: Iterable[Read], threads: int, counted: bool = False) -> Siblings:
        """The siblings of some reads. If the expression depends on the number of partitions (`counted`),
        none is left out or fused."""
        columns: set[str] = set()
        conditions: set[Predicate] = set()
        pruned = not counted
        for read in reads:
            columns |= columns_of(read.predicate) | columns_of(read.limit)
            if read.limit is None:  # with a limit, only a few rows of other columns are read
                columns |= set(read.columns)
            if read.predicate is not None and _can_prune(read.scan, read.predicate):
                conditions.add(read.predicate)
            else:
                pruned = False
        return cls(frozenset(columns), frozenset(conditions if pruned else ()), not counted, threads)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        conditions = sorted(repr(c.key) for c in self.conditions)
        return "siblings", sorted(self.columns), conditions, self.fuse, self.threads


@dataclass(frozen=True, eq=False)
class TaskLayout:
    """Which partitions each task reads. Task `i` reads ``parts[borders[i]:borders[i + 1]]``."""

    parts: NDArray[np.int64] | None = None  # the partitions that are read; None: all
    borders: NDArray[np.int64] | None = None  # None: one partition for each task

    def count(self, nparts: int) -> int:
        """The number of tasks for a scan of `nparts` partitions."""
        if self.borders is not None:
            return len(self.borders) - 1
        return nparts if self.parts is None else len(self.parts)

    def span(self, tasks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first and the last partition of each task."""
        if self.borders is None:
            first = last = tasks
        else:
            first, last = self.borders[tasks], self.borders[tasks + 1] - 1
        return (first, last) if self.parts is None else (self.parts[first], self.parts[last])

    def sums(self, values: NDArray[np.int64], tasks: Sequence[int]) -> NDArray[np.int64]:
        """The sums over each task's partitions; `values` has one element for each partition of the scan."""
        chosen = values if self.parts is None else values[self.parts]
        if self.borders is not None:
            ends = np.concatenate(([0], np.cumsum(chosen)))
            chosen = np.diff(ends[self.borders])
        found: NDArray[np.int64] = chosen[np.asarray(tasks, dtype=np.int64)]
        return found

    def bucket(self, task: int) -> NDArray[np.int64]:
        start, stop = task, task + 1
        if self.borders is not None:
            start, stop = int(self.borders[task]), int(self.borders[task + 1])
        return np.arange(start, stop) if self.parts is None else self.parts[start:stop]

    def take(self, tasks: Sequence[int]) -> tuple[NDArray[np.int64], TaskLayout]:
        """The partitions of some tasks, and the layout for a scan of only these partitions."""
        buckets = [self.bucket(task) for task in tasks]
        parts = np.concatenate(buckets)
        if self.borders is None:
            return parts, TaskLayout()
        return parts, TaskLayout(None, np.cumsum([0, *map(len, buckets)]))

    @cached_property
    def key(self) -> str:
        """A hash of the content, the same in every process."""
        digest = hashlib.sha256()
        for array in (self.parts, self.borders):
            digest.update(b"all" if array is None else array.astype("<i8").tobytes() + b"some")
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskLayout) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return "layout", self.key

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.parts, self.borders)


ONE_EACH = TaskLayout()


def possible(scan: Scan, predicate: Predicate | None) -> NDArray[np.bool_] | None:
    """Whether each partition may hold rows that satisfy the predicate, by columns that are constant within
    a partition and by statistics. None if that is unknown."""
    found: NDArray[np.bool_] | None = None
    if predicate is not None and _has_statistics(scan):
        found = scan.possible(predicate)
    for term in decidable(scan, predicate):
        hit = np.zeros(scan.nparts, dtype=bool)
        try:
            hit[term.rows(scan.constant_frame(sorted(term.columns)))] = True
        except Exception:
            # an earlier condition may leave out the rows where it fails; if not, reading raises
            continue
        found = hit if found is None else found & hit
    return found


def _can_prune(scan: Scan, predicate: Predicate) -> bool:
    return bool(decidable(scan, predicate)) or _has_statistics(scan)


def _has_statistics(scan: Scan) -> bool:
    return getattr(scan, "statistics", None) is not None


def decidable(scan: Scan, predicate: Predicate | None) -> list[Predicate]:
    """The terms of a predicate that use only columns constant within each partition."""
    return [t for t in conjuncts(predicate) if t.inputs and t.inputs <= scan.constants]


def lay_out(scan: Scan, parts: Sequence[int], siblings: Siblings) -> TaskLayout:
    """The layout of the selected `parts`, the same for all siblings."""
    chosen = np.asarray(parts, dtype=np.int64)
    needed = _needed(scan, siblings)
    kept = chosen if needed is None else chosen[needed[chosen]]
    if not len(kept):
        kept = chosen[:1]  # a frame has at least one partition
    borders = _borders(scan, kept, siblings)
    whole = len(kept) == scan.nparts and bool((kept == np.arange(scan.nparts)).all())
    return TaskLayout(None if whole else kept, borders)


def _needed(scan: Scan, siblings: Siblings) -> NDArray[np.bool_] | None:
    needed: NDArray[np.bool_] | None = None
    for condition in siblings.conditions:
        hit = possible(scan, condition)
        if hit is None:
            return None
        needed = hit if needed is None else needed | hit
    return needed


def _borders(scan: Scan, parts: NDArray[np.int64], siblings: Siblings) -> NDArray[np.int64] | None:
    """Where to cut the partitions so that tasks take about the same time: as many tasks as threads, if these
    wait for the network, or else a few for each; more where a task would have more than `blocksize` bytes."""
    if not (siblings.fuse and scan.fusable):
        return None
    if not (np.diff(parts) > 0).all():
        return None  # not in order: there are no divisions to keep
    weights = np.maximum(scan.nbytes(sorted(siblings.columns))[parts], max(scan.blocksize // SHARE, 1))
    ends = np.cumsum(weights)
    total, threads = int(ends[-1]), siblings.threads
    tasks = threads if total <= threads * QUICK else FEW * threads
    if len(parts) <= tasks:
        return None
    borders = _even(ends, tasks)
    if np.diff(ends[borders[1:] - 1], prepend=0).max() > scan.blocksize:
        borders = _filled(ends, min(scan.blocksize, -(-total // tasks)))
    return None if len(borders) > len(parts) else borders


def _even(ends: NDArray[np.int64], tasks: int) -> NDArray[np.int64]:
    """The borders of so many tasks of about the same weight; `ends` are the summed weights."""
    goals = ends[-1] / tasks * np.arange(1, tasks)
    after = np.searchsorted(ends, goals)
    before = np.maximum(after - 1, 0)
    nearest = np.where(goals - ends[before] < ends[after] - goals, before, after) + 1
    return np.unique([0, *nearest, len(ends)]).astype(np.int64)


def _filled(ends: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The borders of tasks that each have as many partitions as `most` allows, but at least one."""
    borders = [0]
    while borders[-1] < len(ends):
        done = int(ends[borders[-1] - 1]) if borders[-1] else 0
        stop = int(np.searchsorted(ends, done + most, side="right"))
        borders.append(max(stop, borders[-1] + 1))
    return np.array(borders, dtype=np.int64)
