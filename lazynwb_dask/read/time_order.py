"""In which rows stored timestamps are known to rise: because they were read once, or because the user says so.

What partitions of a series read is noted one by one; runs of rows that follow on become one. The process keeps
them, and so does the cache of indexes on disk, for that version of the file. Timestamps of few rows are read
whole anyway, and nothing is noted of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Iterable
from dataclasses import replace

import numpy as np

from lazynwb_dask.model.index import ArrayIndex, TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.read.column import Reader
from lazynwb_dask.read.executor import ChunkMaps, guarded, run_steps
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.settings import Run, Settings
from lazynwb_dask.util.locks import Lock
from lazynwb_dask.util.lru import Cache

PAGE = 8192  # rows that are looked at together, where no chunk has more
SMALL = 4  # a series of so few pages is read whole
BLOCK = 1 << 19  # rows that are read at a time to see whether all rise
LONGEST = 1 << 29  # rows that are read to see it

_runs = Cache[tuple[Run, ...]]("order of timestamps")
_lock = Lock()


class TimeOrder:
    """What is known of the timestamps in one version of a file."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self.source, self.trusted = source, settings.sorted_timestamps
        self.key = None if source.etag is None else (source.key, source.parts)
        # other files, whose values a LINDI file refers to, may change while it stays the same
        self._disk = settings.orders if self.key is not None and not source.parts else None

    def of(self, array: ArrayIndex, start: int, stop: int) -> Run | None:
        """The run that a range of rows lies in. One without times (NaN) if rows of the range were read, and
        don't rise; None if it isn't known whether they do."""
        if array.layout.rising or self.trusted:
            return 0, array.rows, -math.inf, math.inf
        if self.key is None:
            return None
        name = place(array)
        known = _runs.get((self.key, name)) or ()
        found = _covering(known, start, stop)
        if found is None and self._disk is not None:
            on_disk = self._disk.runs(self.source, name)
            if found := _covering(on_disk, start, stop):
                self._keep(name, [*known, *on_disk])
        return found

    def note(self, array: ArrayIndex, start: int, times: np.ndarray) -> None:
        """Note whether rows from `start` on rise, all of which were read."""
        stop = start + len(times)
        if array.layout.rising is not False or not is_long(array) or self.key is None or stop == start:
            return
        if self.of(array, start, stop) is not None:
            return
        name = place(array)
        with _lock:
            held = [*(_runs.get((self.key, name)) or ()), (start, stop, *_ends(times))]
            if self._disk is not None:
                held += self._disk.runs(self.source, name)
            held = self._keep(name, held)
            if self._disk is not None:
                self._disk.put_runs(self.source, name, held)

    def _keep(self, name: str, runs: Iterable[Run]) -> list[Run]:
        found = merged(runs)
        _runs.put((self.key, name), tuple(found), 200 * len(found) + 200)
        return found


def all_rise(array: ArrayIndex, source: Source, access: FileAccess) -> bool:
    """Whether all timestamps of a dataset rise. They are read block by block, until some don't."""
    if array.rows > LONGEST:
        return False
    step = -(-BLOCK // array.layout.chunk[0]) * array.layout.chunk[0] if array.layout.chunk else BLOCK
    reader, runs = Reader(source.reach, ChunkMaps(source)), list[Run]()
    for start in range(0, array.rows, step):
        rows = np.arange(start, min(start + step, array.rows))
        steps = guarded(reader.column([array], None, rows), f"{shown(source.url)}: timestamps: ")
        times = np.asarray(run_steps(steps, source, access))
        runs = merged([*runs, (start, start + len(rows), *_ends(times))])
        if len(runs) > 1 or math.isnan(runs[0][2]):
            return False
    return True


def long_timestamps(series: TableIndex) -> ArrayIndex | None:
    """The stored timestamps of a TimeSeries, if they are many and it isn't known whether they rise."""
    column = series.columns.get("timestamps")
    array = None if column is None or column.problem else column.arrays[0]
    return array if array is not None and array.layout.rising is False and is_long(array) else None


def known_to_rise(series: TableIndex, places: Container[str]) -> TableIndex:
    """The series, its timestamps known to rise if they are among those at some places."""
    array = long_timestamps(series) if places else None
    if array is None or place(array) not in places:
        return series
    rising = replace(array, layout=replace(array.layout, rising=True))
    column = replace(series.columns["timestamps"], arrays=(rising,))
    return replace(series, columns=series.columns | {"timestamps": column})


def is_long(array: ArrayIndex) -> bool:
    """Whether stored timestamps are so many that they are not all read where it can be helped."""
    return not array.layout.external and array.rows > SMALL * page_rows(array)


def page_rows(array: ArrayIndex) -> int:
    """Rows to look at together: whole chunks, of compressed data or of objects of their own."""
    layout = array.layout
    if layout.chunk is None or not (layout.filters or (layout.objects and layout.chunk[0] < PAGE)):
        return PAGE
    return -(-PAGE // layout.chunk[0]) * layout.chunk[0]


def place(array: ArrayIndex) -> str:
    """What tells a dataset from all of the same file that hold other values: series may share timestamps."""
    about = repr(replace(array.layout, rising=None)).encode() + array.extents.pack()
    return hashlib.blake2b(about, digest_size=12).hexdigest()


def merged(runs: Iterable[Run]) -> list[Run]:
    """The same runs, those that follow on or overlap as one."""
    found: list[Run] = []
    for b in sorted(runs, key=lambda run: (math.isnan(run[2]), run[0], run[1])):
        a = found[-1] if found else None
        if a is not None and math.isnan(a[2]) == math.isnan(b[2]) and (
            b[0] < a[1] or (b[0] == a[1] and not a[3] > b[2])
        ):  # fmt: skip
            found[-1] = (a[0], max(a[1], b[1]), a[2], b[3] if b[1] > a[1] else a[3])
        else:
            found.append(b)
    return found


def _covering(runs: Iterable[Run], start: int, stop: int) -> Run | None:
    """The run that holds all rows of a range, else one of rows in it that don't rise."""
    falling = None
    for run in runs:
        if not math.isnan(run[2]):
            if run[0] <= start and stop <= run[1]:
                return run
        elif run[0] < stop and start < run[1]:
            falling = run
    return falling


def _ends(times: np.ndarray) -> tuple[float, float]:
    """The first and the last of timestamps that rise; NaN if they don't, or any is NaN."""
    if np.isnan(times[0]) or not (times[1:] >= times[:-1]).all():
        return math.nan, math.nan
    return float(times[0]), float(times[-1])
