"""What reading a partition would fetch: the steps of the read itself, stopped before the first byte.

Exact where everything that decides is known: where chunks lie, and, for a condition, the values of its columns,
which a catalog holds. Elsewhere an upper bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import parquet
from .column import Reader
from .location import is_local
from .read import Piece, _chosen, _column
from .records import Part
from .running import ChunkMaps, fill_stored, look_elsewhere, run_steps
from .scan import Scan
from .schema import PROVENANCE
from .steps import Wave, together
from .storage import Request, Settings
from .storage.local import GAP, SPLIT
from .storage.parts import by_part
from .storage.ranges import FREE_GAP, GAP_ALLOWANCE, plan

if TYPE_CHECKING:
    from .predicate import Limit, Predicate

HEAP = 32  # bytes of a text or a sequence in the file, as a guess


@dataclass(frozen=True)
class Cost:
    """What is fetched of an NWB file.

    Attributes
    ----------
    requests, bytes : int
    exact : bool
        Otherwise an upper bound, as far as can be told.
    rows : int
        That are left, at most.
    """

    requests: int = 0
    bytes: int = 0
    exact: bool = True
    rows: int = 0


def cost(
    scan: Scan,
    i: int,
    columns: Sequence[str],
    predicate: Predicate | None,
    limit: Limit | None,
    settings: Settings,
) -> Cost:
    """What reading one partition fetches. Reads nothing but values that a catalog holds."""
    part = scan.part(i)
    count = _Count(scan, part, settings)
    rows = np.arange(part.start, part.stop)
    first = (predicate.columns if predicate else frozenset()) | (
        limit.columns if limit else frozenset()
    )
    if limit is not None and predicate is None and not limit.columns:
        rows = rows[limit.rows(pd.DataFrame(index=pd.RangeIndex(len(rows))))]
    elif first and rows.size:
        held = part.held.values.keys() if part.held is not None else set[str]()
        if first <= held | set(PROVENANCE) | part.facts.keys():
            rows = rows[_kept(scan, part, rows, sorted(first), predicate, limit, settings)]
        else:
            count.bound(sorted(first), rows, some=False)
            rest = [name for name in columns if name not in first]
            count.bound(rest, rows, some=True)
            left = len(rows) if limit is None else min(limit.n, len(rows))
            return count.result(left)
    count.stage([name for name in columns if name not in first], rows)
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
        groups, _ = parquet.groups_of(held.parquet, start, stop, scan.options, settings)
        for group in groups:
            wanted.setdefault(held.parquet, {}).setdefault(group, set()).update(columns)
    requests = size = 0
    for file, by_group in wanted.items():
        ends = parquet.footer_bytes(file, scan.options, settings)
        requests, size = requests + 1 + (ends > parquet.TAIL), size + ends
        for group, columns_ in by_group.items():
            ranges = parquet.chunk_ranges(file, group, columns_, scan.options, settings)
            total = sum(b - a for a, b in ranges)
            requests += sum(-(-(b - a) // settings.split) for a, b in ranges)
            # what lies between may come along, when the condition's columns are read and the others
            size += total + 2 * min(max(GAP_ALLOWANCE, total // 8), file.size)
    return requests, size


def _kept(
    scan: Scan,
    part: Part,
    rows: np.ndarray,
    names: list[str],
    predicate: Predicate | None,
    limit: Limit | None,
    settings: Settings,
) -> np.ndarray:
    """The positions of the rows that are left, by the catalog's values."""
    reader = Reader(part.source.reach, ChunkMaps(part.source))
    steps = [_column(reader, part, scan.fields[name], rows) for name in names]
    values = run_steps(together(steps), part.source, scan.options, settings)
    piece = Piece(part, rows, dict(zip(names, values, strict=True)))
    return _chosen(piece, scan, names, predicate, limit)


class _Count:
    """Counts what columns would fetch, in waves as a read would."""

    def __init__(self, scan: Scan, part: Part, settings: Settings) -> None:
        self.scan, self.part, self.settings = scan, part, settings
        self.reader = Reader(part.source.reach, ChunkMaps(part.source))
        self.requests = self.bytes = 0
        self.exact = True
        self.text = False  # whether values within the text of a LINDI file are wanted

    def stage(self, names: Sequence[str], rows: np.ndarray) -> None:
        """Columns that are read together."""
        if not rows.size:
            return
        wave: list[Request] = []
        later: list[Request] = []
        for name in names:
            wave += self._first(name, rows)
            if not self._is_single(name):
                later += self._rest(name, rows)
        self._add(wave)
        self._add(later)

    def bound(self, names: Sequence[str], rows: np.ndarray, *, some: bool) -> None:
        """Columns of all rows, or of some that aren't known: never less than what is read."""
        self.exact = False
        wanted = 0
        for name in names:
            requests = self._first(name, rows)
            if not self._is_single(name):
                requests += self._rest(name, rows)
            for request in requests:
                size = request.stop - request.start
                wanted += size
                whole = -(-size // self.settings.split)
                # some rows may lie apart from each other, with too much between them to take along
                apart = min((len(rows) + 1) // 2, size // FREE_GAP + 1) if some else 1
                self.requests += max(whole, apart)
        # what lies between ranges may come along, up to a limit
        self.bytes += wanted + (max(GAP_ALLOWANCE, wanted // 8) if wanted else 0)

    def _add(self, requests: Sequence[Request]) -> None:
        wanted = [r for r in requests if r.start < r.stop]
        for source, some in by_part(self.part.source, wanted):
            gap, split = self.settings.gap, self.settings.split
            if is_local(source.url):
                gap, split = min(gap, GAP), min(split, SPLIT)
            pieces = plan(some, gap, split).pieces
            self.requests += sum(len(piece.parts(split)) for piece in pieces)
            self.bytes += sum(map(len, pieces))

    def result(self, rows: int) -> Cost:
        """All in all."""
        size = self.part.source.size or 0
        if not self.text:
            return Cost(self.requests, self.bytes, self.exact, rows)
        # each process fetches it once, in one request for its beginning and one for the rest, if at all
        requests = self.requests + 1 + -(-size // self.settings.split)
        return Cost(requests, self.bytes + size, False, rows)

    def _first(self, name: str, rows: np.ndarray) -> list[Request]:
        """What a column asks of the file at first."""
        steps = _column(self.reader, self.part, self.scan.fields[name], rows)
        try:
            while True:
                wave: Wave = next(steps)
                if wave.stored and not wave.requests:
                    fill_stored(wave.stored, self.scan.options, self.settings)
                    continue
                within = bool(wave.elsewhere and self.part.source.parts)  # a LINDI file
                self.text |= within
                if within and not wave.requests:
                    look_elsewhere(
                        self.part.source, wave.elsewhere, self.scan.options, self.settings
                    )
                    continue
                if wave.addresses or wave.listings or (wave.elsewhere and not within):
                    self.exact = False
                return list(wave.requests)
        except StopIteration:
            return []
        finally:
            steps.close()

    def _is_single(self, name: str) -> bool:
        """Whether what a column asks for first is all that it asks for."""
        part, held = self.part, self.part.held
        if name in PROVENANCE or name not in part.columns or (held and name in held.values):
            return True
        arrays, _ = part.columns[name]
        known = sum(bool(part.source.parts and a.layout.foreign) for a in arrays)
        if held is not None and name in held.indexes and not arrays[-1].layout.foreign:
            known += 1
        levels = len(arrays) - known
        if not levels:
            return True
        return (
            levels == 1
            and arrays[0].layout.element[0] not in ("string", "sequence", "reference", "compound")
            and all(a.extents.offsets.size or a.layout.foreign or not a.rows for a in arrays)
        )

    def _rest(self, name: str, rows: np.ndarray) -> list[Request]:
        """What it may ask for later, at most."""
        self.exact = False
        arrays, _ = self.part.columns[name]
        found: list[Request] = []
        for array in arrays[:-1]:
            extents = array.extents
            there = np.flatnonzero(extents.sizes)
            pairs = zip(extents.offsets[there].tolist(), extents.sizes[there].tolist(), strict=True)
            found += [Request(a, a + n, _nowhere) for a, n in pairs]
        values = arrays[0]
        if values.layout.element[0] in ("string", "sequence"):
            share = values.rows if len(arrays) > 1 else len(rows)
            found.append(Request(0, HEAP * share, _nowhere))
        return found


def _nowhere(data: memoryview) -> None:
    """Nothing is fetched."""
