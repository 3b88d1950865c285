"""Columns whose values a catalog holds, for all partitions of a task at once.

Hundreds of small tables are one stretch of a Parquet file, so they are read and filtered as one frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.decode.arrays import Values
from lazynwb_dask.decode.convert import convert
from lazynwb_dask.decode.runs import spread
from lazynwb_dask.scan.catalog_slots import NONE, Inlined, Slots
from lazynwb_dask.scan.records import ABSENT
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.scan.to_pandas import nothing, series
from lazynwb_dask.storage import parquet
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.util.threads import at_once


def in_catalog(scan: Scan, names: Iterable[str]) -> list[str]:
    """The columns of which nothing has to be read from any file of a scan."""
    return [name for name in names if _is_held(scan, name)]


def _is_held(scan: Scan, name: str) -> bool:
    if name in ("_nwb_path", "_table_path", "_table_index") or name in scan.files.facts:
        return True
    if "\0" in name:  # a derived column
        return False
    records = scan.files.records.get(name)
    return scan.files.inlined is not None and (
        records is None or not (records.which[scan.file] != ABSENT).any()
    )


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of a scan's partitions, one partition after the other."""

    scan: Scan
    access: FileAccess
    _read: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def counts(self) -> np.ndarray:
        """The rows of each partition."""
        counts: np.ndarray = self.scan.stop - self.scan.start
        return counts

    @cached_property
    def part(self) -> np.ndarray:
        """For each row, its partition."""
        return np.repeat(np.arange(self.scan.nparts), self.counts)

    @cached_property
    def number(self) -> np.ndarray:
        """For each row, its number in its file's table."""
        return spread(self.scan.start, self.counts)

    @cached_property
    def labels(self) -> np.ndarray:
        """For each row, its place in the frame's index."""
        begin = self.scan.offset if self.scan.numbered else np.zeros(self.scan.nparts, np.int64)
        return spread(begin, self.counts)

    def frame(self, names: Sequence[str]) -> pd.DataFrame:
        """Some columns of all rows; they must be in the catalog."""
        data = {name: self.column(name) for name in names}
        return pd.DataFrame(data, index=index_of(self.labels), copy=False)

    def column(self, name: str) -> Any:
        """One column as the frame has it."""
        if name not in self._read:
            to = self.scan.fields[name]
            self._read[name] = series(self._values(name), to)
        return self._read[name]

    def _values(self, name: str) -> list[Values]:
        scan, part = self.scan, pa.array(self.part)
        if name == "_table_index":
            return [self.number]
        if name in scan.files.facts:
            return [scan.files.facts[name].take(pa.array(scan.file)).take(part)]
        if name == "_nwb_path":
            urls = pa.array([scan.files.urls[i] for i in scan.file.tolist()], pa.large_string())
            return [urls.take(part)]
        if name == "_table_path":
            paths = pa.array(scan.files.tables, pa.large_string())
            return [paths.take(pa.array(scan.files.table[scan.file])).take(part)]
        held = scan.files.inlined
        assert held is not None
        slots = held.values.get(name)
        runs = _runs(scan, held, slots)
        found = at_once([partial(self._run, name, run, held) for run in runs])
        return found or [nothing(0, scan.fields[name])]

    def _run(self, name: str, run: _Run, held: Inlined) -> Values:
        to = self.scan.fields[name]
        if run.slot is None:
            return nothing(run.stop - run.start, to)
        file = held.parquets[run.parquet]
        found = parquet.rows(file, [run.slot], run.start, run.stop, self.access)
        return convert(plain(found[run.slot]), to.type)


def values_bound(scan: Scan, names: Sequence[str], access: FileAccess) -> tuple[int, int]:
    """Requests and bytes of values of all partitions at most, by a process that has read none of them yet."""
    held = scan.files.inlined
    if held is None:
        return 0, 0
    wanted: dict[parquet.ParquetFile, dict[int, set[str]]] = {}
    for kind in (held.values, held.indexes):
        for run in [run for name in names if name in kind for run in _runs(scan, held, kind[name])]:
            if run.slot is not None:
                file = held.parquets[run.parquet]
                # of an index the value before the first row is wanted too
                groups, _ = parquet.groups_of(file, max(run.start - 1, 0), run.stop, access)
                for group in groups:
                    wanted.setdefault(file, {}).setdefault(group, set()).add(run.slot)
    requests = size = 0
    for file, columns in wanted.items():
        found = parquet.columns_bound(file, columns, access)
        requests, size = requests + found[0], size + found[1]
    return requests, size


def index_of(labels: np.ndarray) -> pd.Index:
    """Labels as an index. They don't repeat within what is numbered, and rise there."""
    steady = labels.size > 0 and bool((np.diff(labels) == 1).all())
    if steady:
        return pd.RangeIndex(int(labels[0]), int(labels[-1]) + 1)
    scattered: pd.Index = pd.Index(labels, dtype="int64")
    return scattered


def plain(column: pa.ChunkedArray) -> Values:
    """Values of a catalog as those of a file would come: numbers without nulls in NumPy."""
    values = column.combine_chunks()
    whole = not values.null_count and not pa.types.is_large_string(values.type)
    return values.to_numpy(zero_copy_only=False) if whole else values


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows of one column that follow one another in one Parquet file; or that nobody has."""

    parquet: int
    slot: str | None
    start: int
    stop: int


def _runs(scan: Scan, held: Inlined, slots: Slots | None) -> list[_Run]:
    """The stretches that hold a column's values of all partitions, in their order."""
    files = scan.file
    which = np.full(len(files), NONE) if slots is None else slots.which[files].astype(np.int64)
    where = np.where(which == NONE, NONE, held.parquet[files])
    start = held.first[files] + scan.start
    stop = start + scan.stop - scan.start
    if not len(files):
        return []
    follows = (where[1:] == where[:-1]) & (which[1:] == which[:-1])
    follows &= (start[1:] == stop[:-1]) | (which[1:] == NONE)
    first = np.flatnonzero(np.concatenate([[True], ~follows]))
    lengths = np.add.reduceat(stop - start, first)
    names = () if slots is None else slots.names
    return [
        _Run(int(where[a]), None if which[a] == NONE else names[which[a]], int(start[a]), int(start[a] + n))
        for a, n in zip(first.tolist(), lengths.tolist(), strict=True)
    ]
