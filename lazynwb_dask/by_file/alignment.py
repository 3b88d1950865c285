"""Several tables of the same files, side by side. Operations on them are scans with one partition for each
file, which reads all partitions of that file in the underlying scans: no data move between tasks. Doesn't
use Dask."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazynwb_dask.cluster.execute import execute
from lazynwb_dask.decode.runs import spread
from lazynwb_dask.model.source import shown
from lazynwb_dask.model.task_names import tables, task_label
from lazynwb_dask.plan.tasks import Scan, possible
from lazynwb_dask.predicate.tree import Predicate, then
from lazynwb_dask.scan.derived import ordered
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.util.threads import at_once
from lazynwb_dask.util.warn import warn

Ints = NDArray[np.int64]
LONGEST = 1 << 40  # rows of a partition whose length is unknown


class Plan(NamedTuple):
    """What a frame reads of a scan."""

    scan: Scan
    columns: Sequence[str]
    predicate: Predicate | None


class Rows(NamedTuple):
    """Rows of several files' tables."""

    frame: pd.DataFrame
    file: Ints  # the number of each row's file
    number: Ints  # unique in its file, and the same whatever else is read


@dataclass(frozen=True, eq=False)
class Side:
    """One table of several files."""

    scan: Scan
    columns: tuple[str, ...]  # selected
    predicate: Predicate | None
    parts: Ints  # partitions of the scan, file by file
    borders: Ints  # file i has parts[borders[i]:borders[i + 1]], which may be empty
    starts: Ints | None  # first label of each of `parts`; None: labels start over in each
    sizes: Ints | None  # how many labels each of `parts` may have; None: unknown
    by: str = "_nwb_path"  # the column that says which rows belong together: a file's, or a session's

    @property
    def there(self) -> NDArray[np.bool_]:
        """Whether each file has the table."""
        found: NDArray[np.bool_] = np.diff(self.borders) > 0
        return found

    def sums(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum for each file; `values` has one element for each of `parts`."""
        return np.diff(np.concatenate(([0], np.cumsum(values)))[self.borders])

    def nbytes(self, names: Iterable[str]) -> Ints:
        """The decoded bytes of some columns in each file."""
        return self.sums(self.scan.nbytes(sorted(names))[self.parts])

    def possible(self, predicate: Predicate | None) -> NDArray[np.bool_] | None:
        """Whether each file may hold rows that satisfy the predicate; None if that is unknown."""
        found = possible(self.scan, predicate)
        return None if found is None else self.sums(found[self.parts].astype(np.int64)) > 0

    def constant(self, name: str) -> Any:
        """The value of a constant column in each file; missing for files without the table."""
        held = self.scan.constant_frame([name]) if len(self.parts) else self.scan.meta
        values = held[name].array
        at = np.full(len(self.there), -1)
        at[self.there] = self.parts[self.borders[:-1][self.there]]
        return values.take(at, allow_fill=True)

    def narrow(self, names: Iterable[str], files: Ints) -> Side:
        """Only some columns, with those of the predicate, and some files."""
        counts = np.diff(self.borders)[files]
        picks = spread(self.borders[:-1][files], counts)
        kept = {*names}
        columns = tuple(name for name in self.columns if name in kept)
        return Side(
            self.scan.narrow(self._needed([*kept, self.by]), self.parts[picks].tolist()),
            columns,
            self.predicate,
            np.arange(len(picks)),
            np.concatenate(([0], np.cumsum(counts))),
            None if self.starts is None else self.starts[picks],
            None if self.sizes is None else self.sizes[picks],
            self.by,
        )

    def read(self, names: Sequence[str], condition: Predicate | None, settings: Any) -> Rows:
        """Some columns of the rows that satisfy the side's own predicate and `condition`, file by file."""
        predicate = self.predicate if condition is None else then(self.predicate, condition)
        needed, selection = self._needed(names, condition), Selection(tuple(names), predicate)

        def read(parts: Sequence[int]) -> pd.DataFrame:
            return execute(self.scan.narrow(needed, parts), selection, settings)

        parts = self.parts.tolist()
        if not parts:
            frame, part = self.scan.meta[list(names)], np.zeros(0, np.int64)
        elif self.starts is not None:
            frame = read(parts)
            part = self._part_of(frame.index.to_numpy())
        else:
            frames = at_once([lambda p=p: read([p]) for p in parts])  # type: ignore[misc]
            frame = pd.concat(frames) if len(frames) > 1 else frames[0]
            part = np.repeat(np.arange(len(parts)), [len(f) for f in frames])
        return Rows(frame, self._file[part], self._number(frame.index.to_numpy(), part))

    def plan(self, names: Iterable[str], condition: Predicate | None) -> Plan:
        """What `read` reads of the scan."""
        predicate = self.predicate if condition is None else then(self.predicate, condition)
        return Plan(self.scan, ordered(self.scan.meta.columns, names), predicate)

    def _needed(self, names: Iterable[str], condition: Predicate | None = None) -> list[str]:
        needed = {*names}
        for predicate in (self.predicate, condition):
            needed |= predicate.columns if predicate is not None else frozenset()
        return ordered(self.scan.meta.columns, needed)

    @cached_property
    def _file(self) -> Ints:
        return np.repeat(np.arange(len(self.there)), np.diff(self.borders))

    def _part_of(self, labels: Ints) -> Ints:
        """Which of `parts` each label belongs to."""
        assert self.starts is not None
        assert self.sizes is not None
        order = np.lexsort((self.sizes, self.starts))  # of several that begin together all but one are empty
        found: Ints = order[np.searchsorted(self.starts[order], labels, side="right") - 1]
        return found

    def _number(self, labels: Ints, part: Ints) -> Ints:
        sizes = np.full(len(self.parts), LONGEST) if self.sizes is None else self.sizes
        before = np.concatenate(([0], np.cumsum(sizes)))
        base = before[:-1] - before[self.borders[self._file]]
        numbers: Ints = labels - (0 if self.starts is None else self.starts[part]) + base[part]
        return numbers

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    def token(self) -> tuple[Any, ...]:
        """The side's identity, the same in every process."""
        condition = None if self.predicate is None else self.predicate.key
        where = [a.astype("<i8").tobytes() for a in (self.parts, self.borders)]
        return self.scan.token, self.columns, condition, self.by, *where


def align(
    plans: Sequence[Plan], wanted: Callable[[Sequence[NDArray[np.bool_]]], NDArray[np.bool_]], by: str
) -> tuple[Side, ...]:
    """The sides of an operation on the same files. Files are identified by `by`: `_nwb_path`, or the session,
    whose files count as one; and a file that a frame has several times counts once. They are in the order of
    the first frame, then those that only the second has, and so on. `wanted` gets for each side whether it has
    each file, and returns whether the file takes part."""
    parts, paths = [], []
    names_of = []  # of each side
    for scan, _, predicate in plans:
        left = possible(scan, predicate)
        kept = np.arange(scan.nparts) if left is None else np.flatnonzero(left)
        of_parts = scan.constant_frame([by])[by].to_numpy(object)
        parts.append(kept)
        paths.append(of_parts[kept])
        # a file whose table has no rows may have no partition, but has its place
        files = getattr(scan, "files", None)
        if files is None:
            names_of.append([*of_parts])
        else:
            names_of.append([*(files.urls if by == "_nwb_path" else files.facts[by].to_pylist())])
    ordered = [name for some in names_of for name in some]
    warn_if_apart(names_of, by)
    names = pd.Index(pd.unique(np.array(ordered, object)))
    by_side = [names.get_indexer(pd.Index(path, dtype=names.dtype)) for path in paths]
    chosen = wanted([np.isin(np.arange(len(names)), file) for file in by_side])
    if not chosen.any():  # a frame has at least one partition: here one of a file that no side has
        return tuple(_side(p, np.zeros(0, np.int64), np.zeros(0, np.int64), 1, by) for p in plans)
    renumbered = np.cumsum(chosen) - 1
    sides = []
    for plan, kept, file in zip(plans, parts, by_side, strict=True):
        here = chosen[file]
        number = renumbered[file[here]]
        order = np.argsort(number, kind="stable")
        sides.append(_side(plan, kept[here][order], number[order], int(chosen.sum()), by))
    return tuple(sides)


def warn_if_apart(names_of: Sequence[Sequence[Any]], by: str = "_nwb_path") -> None:
    """Warn if two frames have files, or sessions, and none in common. Files are known by their names."""
    for one, other in itertools.combinations([some for some in names_of if len(some)], 2):
        if {*one}.isdisjoint(other):
            first, second = (shown(str(some[0])) for some in (one, other))
            what = "file" if by == "_nwb_path" else by
            warn(
                f"two frames have no {what} in common, so no rows match: one has {first}, the other "
                f"{second}. If these are the same, read both frames from the same paths: a link and the file "
                "behind it are two names; files of one session meet by session: by= or sessions="
            )
            return


def _side(plan: Plan, parts: Ints, file: Ints, files: int, by: str) -> Side:
    scan = plan.scan
    sizes = scan.lengths if scan.lengths is not None else getattr(scan, "extents", None)
    starts = None if scan.divisions is None else np.array(scan.divisions[:-1], np.int64)
    return Side(
        scan,
        tuple(plan.columns),
        plan.predicate,
        parts,
        np.searchsorted(file, np.arange(files + 1)),
        None if starts is None else starts[parts],
        None if sizes is None else np.asarray(sizes)[parts],
        by,
    )


@dataclass(frozen=True, eq=False)
class ByFile:
    """A scan with one partition for each file, made of the sides' partitions of that file."""

    sides: tuple[Side, ...]
    offset: Ints | None  # the first label of each file; None where labels begin anew in each

    certain: ClassVar[bool] = True  # whether all that `leaves` says is read
    kind: ClassVar[str]  # what is done to the tables, in a word

    @property
    def meta(self) -> pd.DataFrame:
        raise NotImplementedError

    @property
    def extents(self) -> Ints | None:
        """How many labels each file may have; None if that is unknown."""
        raise NotImplementedError

    def leaves(self, selection: Selection) -> Iterator[tuple[Side, Plan]]:
        """What is read of each side for a selection of the result."""
        raise NotImplementedError

    def remaining(self, predicate: Predicate | None) -> Predicate | None:
        """The part of a predicate on the result that no side can apply."""
        raise NotImplementedError

    def _what(self) -> tuple[Any, ...]:
        """What distinguishes this operation from others on the same sides."""
        raise NotImplementedError

    @property
    def nparts(self) -> int:
        return len(self.sides[0].there)

    @property
    def lengths(self) -> None:
        return None

    @property
    def divisions(self) -> tuple[int, ...] | None:
        if self.offset is None or self.extents is None:
            return None
        return (*self.offset.tolist(), int(self.offset[-1] + self.extents[-1] - 1))

    @property
    def fusable(self) -> bool:
        return self.offset is not None and all(side.scan.fusable for side in self.sides)

    @property
    def blocksize(self) -> int:
        return min(side.scan.blocksize for side in self.sides)

    @property
    def by(self) -> str:
        """The column that says which rows belong together."""
        return self.sides[0].by

    @cached_property
    def urls(self) -> Any:
        """The files, or the sessions."""
        found = self.sides[0].constant(self.by)
        for side in self.sides[1:]:
            found = pd.Series(found).where(~pd.isna(found), side.constant(self.by)).array
        return found

    @cached_property
    def token(self) -> str:
        parts = [repr(self._what()), *[repr(side.token()) for side in self.sides]]
        if self.offset is not None:
            parts.append(repr(self.offset.tolist()))
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    @property
    def label(self) -> str:
        """The name of tasks: ``join-units-trials``."""
        about = [w for s in self.sides for w in tables(getattr(s.scan, "label", "read-nwb"))]
        urls = [str(url) for url in self.urls if not pd.isna(url)] if self.nparts == 1 else []
        return task_label(self.kind, about, urls)

    def __dask_tokenize__(self) -> str:
        return self.token

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    def _of_files(self, names: Sequence[Iterable[str]], files: Sequence[int]) -> Any:
        """The same for some files, and for some columns of each side."""
        chosen = np.asarray(files, np.int64)
        pairs = zip(self.sides, names, strict=True)
        return replace(
            self,
            sides=tuple(side.narrow(wanted, chosen) for side, wanted in pairs),
            offset=None if self.offset is None else self.offset[chosen],
        )


def file_scans(scan: Any) -> list[Any]:
    """The scans of files that a scan reads: itself, or those of its sides."""
    if not isinstance(scan, ByFile):
        return [scan]
    return [found for side in scan.sides for found in file_scans(side.scan)]


def hold(rows: Sequence[Rows], urls: Sequence[str], joined: int, settings: Any) -> None:
    """Reserve memory for `joined` rows made of the given rows."""
    if settings.memory is None:
        return
    sizes = [(int(one.frame.memory_usage(index=False).sum()), len(one.frame)) for one in rows]
    nbytes = sum(size * joined // max(count, 1) for size, count in sizes)
    more = f" and {len(urls) - 1} more" if len(urls) > 1 else ""
    settings.memory.take(nbytes, lambda: f"{urls[0]}{more}: {joined} joined rows take about {nbytes >> 20} MiB")


class Leaf(NamedTuple):
    """What a read reads of one table."""

    scan: Any
    selection: Selection
    buckets: Sequence[Ints]
    certain: bool  # or may turn out to be less


def leaves(scan: Any, selection: Selection, buckets: Sequence[Ints], certain: bool = True) -> list[Leaf]:
    """What a read takes from each table; each bucket has the partitions of one task."""
    if not isinstance(scan, ByFile):
        return [Leaf(scan, selection, buckets, certain)]
    found = []
    for side, plan in scan.leaves(selection):
        pieces = [
            np.concatenate([side.parts[side.borders[f] : side.borders[f + 1]] for f in bucket.tolist()]
                           or [np.zeros(0, np.int64)])
            for bucket in buckets
        ]  # fmt: skip
        part = Selection(tuple(plan.columns), plan.predicate)
        found += leaves(plan.scan, part, pieces, certain and scan.certain)
    return found


def expected(scan: Any, selection: Selection) -> int:
    """The decoded bytes that are read first: if rows are selected, only the columns that decide."""
    found = 0
    for leaf in leaves(scan, selection, [np.arange(scan.nparts)]):
        first = leaf.selection.deciding or leaf.selection.columns
        found += int(leaf.scan.nbytes(first)[leaf.buckets[0]].sum())
    return found
