"""What reading a partition fetches: a dry run of the read, which gets nothing but what a catalog holds.

It stops where bytes of the file are needed. Where nothing depends on these, what was requested is exact. What
can follow is bounded by all that is stored of the chunks that rows can touch, or by the file's size.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from lazynwb_dask.decode.arrays import Values
from lazynwb_dask.model.index import ArrayIndex
from lazynwb_dask.read.block import Box
from lazynwb_dask.read.bounds import column_bounds
from lazynwb_dask.read.column import PAGE, Reader
from lazynwb_dask.read.executor import Executor, OwnMaps, fill_stored
from lazynwb_dask.read.part_columns import file_arrays
from lazynwb_dask.read.partition import PartReader, float_columns
from lazynwb_dask.read.side_by_side import Blocking, Read, alone
from lazynwb_dask.read.steps import Steps, Wave
from lazynwb_dask.read.time_order import TimeOrder, is_long
from lazynwb_dask.read.time_search import ranges, search_bound
from lazynwb_dask.scan.derived import limits
from lazynwb_dask.scan.records import Part
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.storage import Request, block_cache
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.coalesce import bytes_bound, plan
from lazynwb_dask.storage.fetch import gap_and_split
from lazynwb_dask.storage.multi_file import by_part


@dataclass(frozen=True)
class Cost:
    """Requests to an NWB file and their bytes, and rows that are left: `exact`, or at most.

    Where it isn't `known`, there is more, without any bound. `rising` tells of stored timestamps, of which a
    range is wanted, whether they rise ("yes", "no"), or that it isn't known ("unknown"). `kept`: this process,
    which others needn't be, has all of it from planning.
    """

    requests: int = 0
    bytes: int = 0
    exact: bool = True
    rows: int = 0
    known: bool = True
    rising: str = ""
    kept: bool = False


def cost(scan: Scan, i: int, selection: Selection, access: FileAccess, certain: bool = True) -> Cost:
    """What reading one partition fetches. Reads nothing but values that a catalog holds.

    Where it isn't `certain` that all rows are wanted that condition and limit leave, any of them may be.
    """
    part, first = scan.part(i), selection.deciding
    run = _DryRun(part, access)
    todo = [name for name in selection.columns if name not in first]
    if any(file_arrays(part, name) for name in first):
        rows, limit = np.arange(part.start, part.stop), selection.limit
        left = len(rows) if limit is None else min(limit.n, len(rows))
        rising = ""
        wanted = ranges(part, selection.predicate, float_columns(scan)) if selection.predicate else ()
        for array in [array for array, *_ in wanted if not array.layout.computed and is_long(array)]:
            found = TimeOrder(part.source, access.settings).of(array, part.start, part.stop)
            rising = "unknown" if found is None else "no" if math.isnan(found[2]) else "yes"
            if rising == "yes":
                run.add(*search_bound(array))
        run.bound(first, rows)
        run.bound(todo, rows, left)
        return replace(run.result(left, exact=False), rising=rising)
    if selection.limit is not None and selection.limit.kind == "any":
        rows = np.arange(part.start, part.stop)
        left = min(selection.limit.n, len(rows))
        run.bound(todo, rows, left)
        return run.result(left, exact=False)
    reader = _DryReader(part.source.reach)
    steps = PartReader(scan, part, reader, run)
    rows, _ = alone(steps.choose(selection))
    if not certain:
        run.bound(todo, rows, len(rows))
    elif rows.size:
        try:
            alone(run.through(steps.steps(todo, rows)))
        except _BytesNeeded as needed:
            asked = needed.wave.requests
            run.count([*asked, *run.along(asked, needed.wave.ahead)])
            run.bound(todo, rows, requested=reader.requested)
    return run.result(len(rows), exact=certain)


class _BytesNeeded(Exception):
    """Steps can't go on without bytes of the file, or what else a wave wants of it."""

    def __init__(self, wave: Wave) -> None:
        self.wave = wave


class _DryReader(Reader):
    """Notes which datasets steps have requested all of that they need."""

    def __init__(self, size: int) -> None:
        super().__init__(size, OwnMaps())  # not those that this process has kept: others haven't
        self.requested: set[int] = set()

    def raw(
        self, array: ArrayIndex, starts: np.ndarray, stops: np.ndarray, box: Box | None = None
    ) -> Steps[np.ndarray]:
        if array.located:
            self.requested.add(id(array))
        return super().raw(array, starts, stops, box)


class _DryRun(Executor):
    """Gives steps what a catalog holds and nothing else; adds up what they request and what can follow."""

    def __init__(self, part: Part, access: FileAccess) -> None:
        super().__init__(part.source, access)
        self.part = part
        limits = [gap_and_split(s, access.settings) for s in self.source.parts or [self.source]]
        self.gap, self.split = max(gap for gap, _ in limits), min(split for _, split in limits)
        self.requests = self.bytes = 0  # that are known
        self.waves = self.ranges = self.wanted = 0  # at most, of what can follow
        self.text = self.elsewhere = False  # whether values lie within a LINDI file, in other files
        self.kept = False

    def through(self, steps: Steps[Values], deciding: bool = False) -> Read[Values]:
        try:
            while True:
                wave = next(steps)
                if wave.stored:
                    yield Blocking(partial(fill_stored, wave.stored, self.access))
                if wave.requests or wave.addresses or wave.elsewhere or wave.listings:
                    raise _BytesNeeded(wave)
        except StopIteration as stop:
            return stop.value

    def _has(self, start: int, stop: int) -> bool:
        return False

    def count(self, requests: Iterable[Request]) -> None:
        """Count what is requested, as the read plans it."""
        wanted = [r for r in requests if r.start < r.stop]
        if not self.source.document:
            self.kept |= bool(wanted) and all(block_cache.has(self.source, r.start, r.stop) for r in wanted)
        for source, some in by_part(self.source, wanted):
            gap, split = gap_and_split(source, self.access.settings)
            pieces = plan(some, gap, split).pieces
            self.requests += sum(len(piece.parts(split)) for piece in pieces)
            self.bytes += sum(map(len, pieces))

    def bound(
        self, names: Iterable[str], rows: np.ndarray, most: int | None = None, requested: Collection[int] = ()
    ) -> None:
        """Count what columns that are read together take at most. See `column_bounds`."""
        arrays = {name: file_arrays(self.part, name) for name in names if rows.size}
        if any(array.layout.external for some in arrays.values() for array in some):
            self.text, self.elsewhere = bool(self.source.parts), not self.source.parts
        deepest = 0
        for name in [name for name, some in arrays.items() if some]:
            found = list(column_bounds(self.part, name, rows, self.split, most, requested))
            deepest = max(deepest, sum(waves for waves, _, _ in found))
            self.add(0, sum(ranges for _, ranges, _ in found), sum(nbytes for *_, nbytes in found))
            if limits(name) is not None:  # values are looked up
                looks = math.ceil(math.log2(max(arrays[name][0].rows / PAGE, 1))) + 1
                pages = 2 * len(rows) * looks
                self.add(looks, pages, pages * PAGE * 8)
        # (where it isn't known of which rows, some can come along with what decides on these)
        self.waves += deepest if most is None else 2 * deepest

    def add(self, waves: int, ranges: int, nbytes: int) -> None:
        """Count what can be requested."""
        self.waves, self.ranges = self.waves + waves, self.ranges + ranges
        self.wanted += nbytes

    def result(self, rows: int, exact: bool) -> Cost:
        """All in all."""
        calls = self.waves * max(len(self.source.parts), 1)
        most = bytes_bound(calls, self.ranges, self.wanted, self.gap)
        if not self.source.document:
            most = min(most, self.waves * self.source.reach)
        # of a LINDI file each process fetches all once at most: its beginning, then the rest
        size = (self.source.size or 0) * self.text
        requests = self.requests + self.ranges + most // self.split
        requests += self.text + -(-size // self.split)
        nbytes = self.bytes + most + size
        if self.source.document and requests:  # whose objects may be missing, and one tells of a change
            requests, nbytes, exact = requests + 1, nbytes + 1, False
        exact = exact and not (self.waves or self.text or self.elsewhere or self.kept)
        return Cost(requests, nbytes, exact, rows, not self.elsewhere, kept=self.kept)
