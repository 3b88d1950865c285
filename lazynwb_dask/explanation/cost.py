"""What reading a partition would fetch: the steps of the read itself, stopped before the first byte.

Exact where everything that decides is known: where chunks lie, and, for a condition, the values of its columns,
which a catalog holds. Elsewhere an upper bound, by arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.hdf5.chunk_btree import NODE_HEADER
from lazynwb_dask.hdf5.global_heap import FIRST
from lazynwb_dask.hdf5.sparse_file import BLOCK, MAX_METADATA
from lazynwb_dask.model.elements import walk
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex
from lazynwb_dask.model.source import is_local
from lazynwb_dask.predicate.intervals import EVERYTHING, bounds
from lazynwb_dask.read import time_search as seek
from lazynwb_dask.read.column import Reader
from lazynwb_dask.read.executor import ChunkMaps, fill_stored, look_elsewhere, run_steps
from lazynwb_dask.read.part_columns import ahead_steps, column_steps
from lazynwb_dask.read.partition import Piece, chosen_rows
from lazynwb_dask.read.steps import Wave, together
from lazynwb_dask.scan.fields import PROVENANCE
from lazynwb_dask.scan.records import Part
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.storage import Request, Settings, parquet
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.coalesce import FREE_GAP, GAP_ALLOWANCE, plan
from lazynwb_dask.storage.local import GAP, SPLIT
from lazynwb_dask.storage.multi_file import by_part

if TYPE_CHECKING:
    from lazynwb_dask.predicate.tree import Predicate

NODE = 64  # chunks that a node of a chunk B-tree lists at most, as libhdf5 writes them
SPARSE = 6  # and at least, when there are several: it leaves no node less than a tenth when it splits one


@dataclass(frozen=True)
class Cost:
    """What is fetched of an NWB file.

    Attributes
    ----------
    requests, bytes : int
    exact : bool
        Otherwise an upper bound.
    rows : int
        That are left, at most.
    known : bool
        Otherwise there is more, of which nothing can be told.
    """

    requests: int = 0
    bytes: int = 0
    exact: bool = True
    rows: int = 0
    known: bool = True


def cost(
    scan: Scan,
    i: int,
    selection: Selection,
    settings: Settings,
    certain: bool = True,
) -> Cost:
    """What reading one partition fetches. Reads nothing but values that a catalog holds.

    Where it isn't `certain` that all rows are wanted that condition and limit leave, any of them may be.
    """
    part = scan.part(i)
    count = _Count(scan, part, settings)
    rows = np.arange(part.start, part.stop)
    first, predicate, limit = selection.deciding, selection.predicate, selection.limit
    rest = [name for name in selection.columns if name not in first]
    ahead: set[str] = set()
    if limit is not None and predicate is None and not limit.columns:
        rows = rows[limit.rows(pd.DataFrame(index=pd.RangeIndex(len(rows))))]
    elif first and rows.size:
        held = part.held.values.keys() if part.held is not None else set[str]()
        if not first <= held | set(PROVENANCE) | part.facts.keys():
            if predicate is not None:
                count.search(predicate)
            left = len(rows) if limit is None else min(limit.n, len(rows))
            count.bound(sorted(first), rows, None)
            count.bound(rest, rows, left)
            return count.result(left)
        if part.held is None or not first <= held | set(PROVENANCE):
            ahead = count.ahead(rest)
        rows = rows[_kept(scan, part, rows, selection, settings)]
    if certain:
        count.stage(rest, rows, ahead)
    else:
        count.bound(rest, rows, len(rows))
    return count.result(len(rows))


def catalog_cost(
    scan: Scan, parts: Sequence[int], names: Sequence[str], settings: Settings
) -> tuple[int, int]:
    """Requests and bytes of a catalog's values at most, by a process that has read none of them yet."""
    wanted: dict[parquet.ParquetFile, dict[int, set[str]]] = {}
    inlined = scan.files.inlined
    for i in parts:
        held = None if inlined is None else inlined.of(int(scan.file[i]))
        if held is None:
            continue
        columns = [
            mine[name] for mine in (held.values, held.indexes) for name in names if name in mine
        ]
        start, stop = (held.first + int(n[i]) for n in (scan.start, scan.stop))
        if not columns:
            continue
        # (of an index the value before the first row is wanted too)
        start = max(start - 1, held.first)
        groups, _ = parquet.groups_of(held.parquet, start, stop, FileAccess(scan.options, settings))
        for group in groups:
            wanted.setdefault(held.parquet, {}).setdefault(group, set()).update(columns)
    requests = size = 0
    for file, by_group in wanted.items():
        ends = parquet.footer_bytes(file, FileAccess(scan.options, settings))
        requests, size = requests + 1 + (ends > parquet.TAIL), size + ends
        for group, columns_ in by_group.items():
            ranges = parquet.chunk_ranges(file, group, columns_, FileAccess(scan.options, settings))
            total = sum(b - a for a, b in ranges)
            requests += sum(-(-(b - a) // settings.split) for a, b in ranges)
            # what lies between may come along, when the condition's columns are read and the others
            size += total + 2 * min(max(GAP_ALLOWANCE, total // 8), file.size)
    return requests, size


def _kept(
    scan: Scan,
    part: Part,
    rows: np.ndarray,
    selection: Selection,
    settings: Settings,
) -> np.ndarray:
    """The positions of the rows that are left, by the catalog's values."""
    reader = Reader(part.source.reach, ChunkMaps(part.source))
    names = sorted(selection.deciding)
    steps = [column_steps(reader, part, scan.fields[name], rows) for name in names]
    values = run_steps(together(steps), part.source, FileAccess(scan.options, settings))
    piece = Piece(part, rows, dict(zip(names, values, strict=True)))
    return chosen_rows(piece, scan, selection)


class _Count:
    """Counts what columns would fetch, in waves as a read would.

    What is known beforehand is planned as the read plans it. Of the rest, ranges and bytes are added up, and
    no range is taken to be joined with another unless it must be.
    """

    def __init__(self, scan: Scan, part: Part, settings: Settings) -> None:
        self.scan, self.part, self.settings = scan, part, settings
        self.reader = Reader(part.source.reach, ChunkMaps(part.source))
        local = is_local((part.source.parts or (part.source,))[0].url)
        self.gap = min(settings.gap, GAP) if local else settings.gap
        self.split = min(settings.split, SPLIT) if local else settings.split
        self.requests = self.bytes = 0
        self.exact = self.known = True
        self.text = False  # whether values within the text of a LINDI file are wanted
        self.ranges = self.wanted = self.waves = 0  # of what is bounded
        self._listed: set[int] = set()  # datasets whose chunk maps have been counted

    # --- what a read does
    def stage(self, names: Sequence[str], rows: np.ndarray, ahead: set[str]) -> None:
        """Columns that are read together, of these rows; the outermost dataset of some has been."""
        if not rows.size:
            return
        wave: list[Request] = []
        later: list[Iterator[tuple[int, int]]] = []
        for name in names:
            done = 1 if name in ahead else 0
            if not done:
                wave += self._first(name, rows)
                done = self._done(name, rows)
            later.append(self._waves(name, rows, None, done))
        self._add(wave)
        self._later(later)

    def bound(self, names: Sequence[str], rows: np.ndarray, most: int | None) -> None:
        """Columns of these rows, or of some that aren't known: at most so many."""
        self.exact = False
        self._later([self._waves(name, rows, most, 0) for name in names])

    def ahead(self, names: Sequence[str]) -> set[str]:
        """What a read fetches of columns along with a condition's; those whose outermost dataset is."""
        found: set[str] = set()
        wave: list[Request] = []
        later: list[Iterator[tuple[int, int]]] = []
        held = self.part.held
        for name in names:
            if name not in self.part.columns or (held is not None and name in held.values):
                continue
            *inner, outer = self.part.columns[name][0]
            later += [self._map(array) for array in inner]
            located = [replace(a, layout=replace(a.layout, chunk=None)) for a in inner]
            asked = next(ahead_steps(self.reader, [*located, outer], self.part, name), None)
            if asked is None:
                continue
            found.add(name)
            if self._is_late(outer):
                later.append(self._dataset(outer, self.part.start, self.part.stop, 1))
            else:
                wave += asked.requests
        if self.part.source.etag is None or is_local(self.part.source.url):
            self._add(wave)
        elif wave:  # some of it may have been kept since planning
            self.exact = False
            later += [iter([(len(wave), sum(r.stop - r.start for r in wave))])]
        self._later(later)
        return found

    def search(self, predicate: Predicate) -> None:
        """What is looked at to find the rows that times can be in."""
        if not self.settings.sorted_timestamps:
            return
        held = self.part.held
        for name in sorted(predicate.columns & self.part.columns.keys()):
            array = self.part.columns[name][0][-1]
            layout, page = array.layout, seek._page_rows(array)
            if (
                not layout.rising
                or self.scan.fields[name].type != pa.float64()
                or (held is not None and name in held.values)
                or layout.computed
                or layout.external
                or array.rows <= seek.SMALL * page
                or bounds(predicate, name) == EVERYTHING
            ):
                continue
            each, largest = 1, page * layout.row_bytes
            if layout.chunk is not None:
                _, sizes, _ = self._touched(array, 0, array.rows)
                each, largest = page // layout.chunk[0] + 2, int(sizes.max(initial=0))
            # pages at both ends of the series, then of the range
            turns = seek.FEW + math.ceil(math.log2(-(-array.rows // page))) + 2
            waves = [(2 * each, 2 * each * largest)] * turns
            self._later([chain(self._map(array), waves)])

    def result(self, rows: int) -> Cost:
        """All in all."""
        requests, fetched = self.requests, self.bytes
        if self.ranges:
            # what lies between ranges may come along, up to a limit in each wave
            files = max(len(self.part.source.parts), 1)
            between = self.waves * files * GAP_ALLOWANCE + self.wanted // 8
            between += min(FREE_GAP, self.gap) * self.ranges
            between = min(between, (self.ranges - 1) * self.gap)
            most = min(self.wanted + between, self.waves * self.part.source.reach)
            requests, fetched = requests + self.ranges + most // self.split, fetched + most
        if not self.text:
            return Cost(requests, fetched, self.exact, rows, self.known)
        # each process fetches it once, in one request for its beginning and one for the rest, if at all
        size = self.part.source.size or 0
        requests += 1 + -(-size // self.settings.split)
        return Cost(requests, fetched + size, False, rows, self.known)

    def _add(self, requests: Sequence[Request]) -> None:
        """One wave that is known."""
        wanted = [r for r in requests if r.start < r.stop]
        for source, some in by_part(self.part.source, wanted):
            gap, split = self.settings.gap, self.settings.split
            if is_local(source.url):
                gap, split = min(gap, GAP), min(split, SPLIT)
            pieces = plan(some, gap, split).pieces
            self.requests += sum(len(piece.parts(split)) for piece in pieces)
            self.bytes += sum(map(len, pieces))

    def _later(self, columns: Sequence[Iterator[tuple[int, int]]]) -> None:
        """Waves of columns side by side, as ranges and bytes that each has at most."""
        depth = 0
        for waves in map(list, columns):
            depth = max(depth, len(waves))
            self.ranges += sum(ranges for ranges, _ in waves)
            self.wanted += sum(wanted for _, wanted in waves)
        self.waves += depth
        self.exact &= not depth

    def _first(self, name: str, rows: np.ndarray) -> list[Request]:
        """What a column asks of the file at first."""
        steps = column_steps(self.reader, self.part, self.scan.fields[name], rows)
        try:
            while True:
                wave: Wave = next(steps)
                if wave.stored and not wave.requests:
                    fill_stored(wave.stored, FileAccess(self.scan.options, self.settings))
                    continue
                within = bool(wave.elsewhere and self.part.source.parts)  # a LINDI file
                self.text |= within
                if within and not wave.requests:
                    look_elsewhere(
                        self.part.source,
                        wave.elsewhere,
                        FileAccess(self.scan.options, self.settings),
                    )
                    continue
                return list(wave.requests)
        except StopIteration:
            return []
        finally:
            steps.close()

    # --- the waves of a column
    def _done(self, name: str, rows: np.ndarray) -> int:
        """How many of a column's datasets, from the outermost inward, its first wave has."""
        if name not in self.part.columns:
            return 0
        *inner, outer = self.part.columns[name][0]
        steps = [outer, *inner[::-1]]
        # (libhdf5 reads what lies elsewhere before the wave's requests come)
        known = int(self._is_held(name))
        while known < len(steps) and steps[known].layout.external and self.part.source.parts:
            known += 1
        if known == len(steps) or self._is_late(steps[known]) or steps[known].layout.external:
            return known
        whole = int(np.searchsorted(rows, outer.rows)) == outer.rows
        if not known and whole and len(inner) == 1 and inner[0].nbytes:
            return 1 + (not self._is_late(inner[0]))
        return known + 1

    def _waves(
        self, name: str, rows: np.ndarray, most: int | None, done: int
    ) -> Iterator[tuple[int, int]]:
        """Ranges and bytes of each wave at most, without the outermost datasets that have been read."""
        part, held = self.part, self.part.held
        if name not in part.columns or not rows.size or (held and name in held.values):
            return
        arrays = part.columns[name][0]
        for level, array in enumerate(reversed(arrays)):
            if level < done or (not level and self._is_held(name)):
                continue
            if array.layout.external:
                self._elsewhere()
                continue
            start, stop = 0, array.rows
            if not level:
                start = max(int(rows[0]) - (len(arrays) > 1), 0)
                stop = min(int(rows[-1]) + 1, array.rows)
            # (the values of rows side by side lie so too, unless an index is damaged)
            runs = 1 + int(np.count_nonzero(np.diff(rows) != 1))
            if most is not None:
                runs = min(most, (len(rows) + 1) // 2)
            yield from self._dataset(array, start, stop, runs)
        values = arrays[0]
        if values.layout.external and part.source.parts:
            return
        texts = values.rows if len(arrays) > 1 else min(most or len(rows), values.rows)
        yield from self._elements(values, texts)

    def _dataset(
        self, array: ArrayIndex, start: int, stop: int, runs: int
    ) -> Iterator[tuple[int, int]]:
        """The waves for so many runs of rows within a range of rows."""
        if stop <= start or array.layout.computed:
            return
        yield from self._map(array)
        offsets, sizes, whole = self._touched(array, start, stop)
        if not sizes.size:
            return
        near, wanted = min(FREE_GAP, self.gap), int(sizes.sum())
        ranges = len(sizes) if whole else int(np.minimum(runs, sizes // max(near, 1) + 1).sum())
        if array.layout.view is None:
            # a run is one range as long as its chunks follow one another, cut where it gets long
            between = np.diff(offsets) - sizes[:-1]
            breaks = int(np.count_nonzero((between < 0) | (between > near)))
            cuts = -(-2 * (wanted + near * len(sizes)) // self.split) if len(sizes) > 1 else 0
            ranges = min(ranges, runs + breaks + cuts)
        yield ranges, wanted

    def _touched(
        self, array: ArrayIndex, start: int, stop: int
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Where what a range of rows touches lies, its stored bytes, and whether it is fetched whole.

        Of a chunk map that was left unread nothing lies next to anything, and all is as large as it can be.
        """
        layout, extents = array.layout, array.extents
        if layout.chunk is None:
            there = bool(extents.offsets.size) and int(extents.offsets[0]) != UNDEFINED
            sizes = np.array([(stop - start) * layout.row_bytes] * there, np.int64)
            return np.zeros(len(sizes), np.int64), sizes, False
        across = layout.chunks(layout.chunk[0])
        low, high = start // layout.chunk[0] * across, -(-stop // layout.chunk[0]) * across
        if not extents.offsets.size:
            # (what doesn't get smaller is stored as it is, or with a few bytes more)
            nbytes = math.prod(layout.chunk) * layout.element_bytes
            most = nbytes + (nbytes // 8 + 256 if layout.filters else 0)
            sizes = np.full(high - low, min(most, self.part.source.reach))
            return np.zeros(len(sizes), np.int64), sizes, bool(layout.filters)
        offsets, sizes = (
            values[low:high].astype(np.int64) for values in (extents.offsets, extents.sizes)
        )
        there = (extents.offsets[low:high] != UNDEFINED) & (sizes > 0)
        whole = bool(layout.filters) and extents.masks is None and not layout.raw_edges
        return offsets[there], sizes[there], whole

    def _map(self, array: ArrayIndex) -> Iterator[tuple[int, int]]:
        """The waves for a chunk map that was left unread."""
        if not self._is_late(array) or id(array) in self._listed:
            return
        self._listed.add(id(array))
        layout = array.layout
        if layout.unlisted or layout.chunk is None:
            yield self._metadata()
            return
        key = 8 + 8 * (len(layout.chunk) + 1)
        nodes = layout.chunks(array.rows)
        while True:
            nodes = 1 if nodes <= NODE else -(-nodes // SPARSE)
            yield nodes, nodes * (NODE_HEADER + NODE * (key + 8) + key)
            if nodes == 1:
                return

    def _elements(self, values: ArrayIndex, rows: int) -> Iterator[tuple[int, int]]:
        """The waves for what elements refer to: texts and sequences in the heap, objects by their names."""
        kinds = [element[0] for element in walk(values.layout.element)]
        heaps = sum(kind in ("string", "sequence") for kind in kinds)
        reach = self.part.source.reach
        for _ in range(heaps):
            # they may lie anywhere, several in one collection; of some only a part comes at first
            count = rows * math.prod(values.layout.item) if len(kinds) == 1 else reach
            collections = min(count, reach // FIRST + 1)
            yield collections, reach
            yield collections, 0
        if "reference" in kinds and rows:
            yield self._metadata()

    def _metadata(self) -> tuple[int, int]:
        """What libhdf5 reads to look something up: no block of the file twice."""
        size = min(self.part.source.reach, MAX_METADATA)
        return size // BLOCK + 2, size

    def _elsewhere(self) -> None:
        if self.part.source.parts:
            self.text = True
        else:
            self.exact = self.known = False

    def _is_late(self, array: ArrayIndex) -> bool:
        layout = array.layout
        chunked = layout.chunk is not None and not layout.external and array.rows > 0
        return chunked and not array.extents.offsets.size

    def _is_held(self, name: str) -> bool:
        """Whether the catalog holds a ragged column's outermost index."""
        held = self.part.held
        return held is not None and name in held.indexes
