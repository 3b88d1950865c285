"""A scan of made-up partitions, for tests of the expression without files.

It answers what `lazynwb_dask.scan.scan.Scan` answers, and notes every read in `READS`: the partition, the
columns, and how many rows of them. Importable by name, so that Dask can pickle it.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.predicate.tree import Limit, Predicate
from lazynwb_dask.scan.request import Selection

SPIKES = pd.ArrowDtype(pa.list_(pa.float64()))
WIDTH = {"spikes": 4000, "_nwb_path": 16, "_table_path": 8}  # bytes a row; the others have 8
READS: list[tuple[int, tuple[str, ...], int]] = []
_lock = threading.Lock()


@functools.lru_cache(maxsize=4096)
def make_part(seed: int, part: int, rows: int, parts_per_file: int) -> pd.DataFrame:
    """The rows of one partition, with an index from 0."""
    rng = np.random.default_rng([seed, part])
    x = rng.normal(size=rows).round(1)
    x[rng.random(rows) < 0.15] = np.nan
    areas = rng.choice(np.array(["VISp", "VISl", "CA1", None], dtype=object), rows)
    spikes = [rng.normal(size=int(k)).tolist() for k in rng.integers(0, 4, rows)]
    file, piece = divmod(part, parts_per_file)
    return pd.DataFrame(
        {
            "x": x,
            "y": rng.normal(size=rows),
            "n": rng.integers(-5, 9, rows),
            "k": rng.integers(0, 3, rows).astype("int32"),
            "good": rng.random(rows) < 0.5,
            "area": pd.array(areas, dtype="string[pyarrow]"),
            "group name": pd.array(rng.choice(["a", "b"], rows), dtype="string[pyarrow]"),
            "depth": pd.array(
                [None if v == 0 else int(v) for v in rng.integers(0, 9, rows)], dtype="int64[pyarrow]"
            ),
            "spikes": pd.array(spikes, dtype=SPIKES),
            "_nwb_path": pd.array([f"/data/{file}.nwb"] * rows, dtype="string[pyarrow]"),
            "_table_path": pd.array(["/units"] * rows, dtype="string[pyarrow]"),
            "_table_index": piece * 1000 + np.arange(rows),
        }
    )


@dataclass(frozen=True)
class ToyScan:
    """Partitions of the given lengths; every `parts_per_file` of them are of one file."""

    sizes: tuple[int, ...]
    seed: int = 0
    blocksize: int = 1 << 27
    fusable: bool = True
    indexed: bool = True
    parts_per_file: int = 1
    parts: tuple[int, ...] | None = None
    names: tuple[str, ...] | None = None

    @property
    def _parts(self) -> tuple[int, ...]:
        return tuple(range(len(self.sizes))) if self.parts is None else self.parts

    @functools.cached_property
    def _offsets(self) -> list[int]:
        return [0, *np.cumsum(self.sizes).tolist()]

    @functools.cached_property
    def token(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def __dask_tokenize__(self) -> str:
        return self.token

    @functools.cached_property
    def meta(self) -> pd.DataFrame:
        empty = make_part(self.seed, 0, 0, self.parts_per_file)
        names = empty.columns if self.names is None else self.names
        return empty[list(names)].set_index(pd.Index([], dtype="int64"))

    @property
    def nparts(self) -> int:
        return len(self._parts)

    @property
    def lengths(self) -> Any:
        return np.array([self.sizes[p] for p in self._parts]) if self.indexed else None

    @property
    def divisions(self) -> tuple[int, ...] | None:
        if not self.indexed:
            return None
        start = [self._offsets[p] for p in self._parts]
        last = self._offsets[self._parts[-1] + 1]
        return (*start, max(last - 1, start[-1]))

    @property
    def constants(self) -> frozenset[str]:
        return frozenset(["_nwb_path", "_table_path"])

    def constant_frame(self, columns: Iterable[str]) -> pd.DataFrame:
        rows = [make_part(self.seed, p, 1, self.parts_per_file)[list(columns)] for p in self._parts]
        return pd.concat(rows, ignore_index=True)

    def nbytes(self, columns: Iterable[str]) -> Any:
        width = sum(WIDTH.get(name, 8) for name in columns)
        return np.array([self.sizes[p] * width for p in self._parts], dtype=np.int64)

    def narrow(self, columns: Iterable[str], parts: Sequence[int]) -> ToyScan:
        wanted = set(columns)
        names = tuple(name for name in self.meta.columns if name in wanted)
        return replace(self, parts=tuple(self._parts[p] for p in parts), names=names)

    def read(self, selection: Selection, settings: Any) -> pd.DataFrame:
        columns, predicate, limit = selection.columns, selection.predicate, selection.limit
        assert {*columns} <= {*self.meta.columns}, "a column that the task was not given"
        frames = [self._read(p, list(columns), predicate, limit) for p in self._parts]
        return pd.concat(frames)

    def _rows(self, part: int, columns: Sequence[str], rows: Any) -> pd.DataFrame:
        frame = make_part(self.seed, part, self.sizes[part], self.parts_per_file)
        start = self._offsets[part] if self.indexed else 0
        frame = frame.set_axis(range(start, start + len(frame)))[list(columns)].iloc[rows]
        with _lock:
            READS.append((part, tuple(columns), len(frame)))
        return frame.set_axis(frame.index.astype("int64"))

    def _read(
        self, part: int, columns: list[str], predicate: Predicate | None, limit: Limit | None
    ) -> pd.DataFrame:
        keep = np.arange(self.sizes[part])
        first: set[str] = set()
        for choice in (predicate, limit):
            if choice is None:
                continue
            assert choice.columns <= {*self.meta.columns}, "a column that the task was not given"
            new = sorted(choice.columns - first)
            first |= choice.columns
            frame = self._rows(part, new, keep) if new else None
            known = self._silently(part, sorted(first), keep)
            assert frame is None or frame.equals(known[new])
            keep = keep[choice.rows(known)]
        rest = [name for name in columns if name not in first]
        if rest:
            self._rows(part, rest, keep)
        return self._silently(part, columns, keep)

    def _silently(self, part: int, columns: Sequence[str], rows: Any) -> pd.DataFrame:
        count = len(READS)
        frame = self._rows(part, columns, rows)
        with _lock:
            del READS[count : count + 1]
        return frame

    def whole(self) -> pd.DataFrame:
        """All rows, as pandas has them."""
        frames = [
            make_part(self.seed, p, self.sizes[p], self.parts_per_file)[list(self.meta.columns)]
            for p in self._parts
        ]
        return pd.concat(frames, ignore_index=True)


@contextmanager
def reading() -> Iterator[list[tuple[int, tuple[str, ...], int]]]:
    """What is read in the block."""
    READS.clear()
    yield READS


SIZES = (7, 0, 1, 20, 5, 0, 1, 12, 9, 30, 2, 4)
