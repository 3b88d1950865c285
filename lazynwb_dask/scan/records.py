"""A scan's files, stored compactly over all of them, and the data of one partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from lazynwb_dask.model.index import ArrayIndex, ColumnIndex, Extents, Layout
from lazynwb_dask.model.source import Source
from lazynwb_dask.scan.catalog_slots import NONE, Held, Inlined

Variant = tuple[tuple[Layout, ...], tuple[str, ...] | None]
ABSENT = -1


@dataclass(frozen=True, eq=False)
class Records:
    """One column over all files: its variant in each, and where its chunks are."""

    variants: tuple[Variant, ...]
    which: np.ndarray  # int32 for each file; ABSENT where the file lacks the column
    data: bytes
    ends: np.ndarray  # int64 for each file: where its record ends in `data`
    weights: np.ndarray  # float32 for each file: decoded bytes a row

    def arrays(self, file: int) -> tuple[tuple[ArrayIndex, ...], tuple[str, ...] | None] | None:
        """The datasets of the column in one file, or None if the file lacks the column."""
        kind = int(self.which[file])
        if kind == ABSENT:
            return None
        layouts, labels = self.variants[kind]
        at = int(self.ends[file - 1]) if file else 0
        found = []
        for layout in layouts:
            extents, at = Extents.unpack(self.data, at)
            found.append(ArrayIndex(layout, extents))
        return tuple(found), labels

    def take(self, files: np.ndarray) -> Records:
        """The records of some files, with variants renumbered."""
        begins = np.concatenate([[0], self.ends[:-1]])[files]
        ends = self.ends[files]
        data = b"".join([self.data[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)])
        which = self.which[files]
        used, renumbered = np.unique(which[which != ABSENT], return_inverse=True)
        compact = np.full(len(which), ABSENT, np.int32)
        compact[which != ABSENT] = renumbered
        return Records(
            tuple(self.variants[i] for i in used.tolist()),
            compact,
            data,
            np.cumsum(ends - begins),
            self.weights[files],
        )

    @staticmethod
    def of(columns: Sequence[ColumnIndex | None]) -> Records:
        variants: dict[Variant, tuple[int, list[int]]] = {}  # their numbers, and bytes a row of each dataset
        which = np.full(len(columns), ABSENT, np.int32)
        weights = np.zeros(len(columns), np.float32)
        packed: list[bytes] = []
        for i, column in enumerate(columns):
            if column is None or column.problem:
                packed.append(b"")
                continue
            variant = column.variant
            known = variants.get(variant)
            if known is None:
                known = variants[variant] = len(variants), [layout.memory_bytes for layout in variant[0]]
            which[i], widths = known
            nbytes = sum(array.rows * width for array, width in zip(column.arrays, widths, strict=True))
            weights[i] = nbytes / max(column.rows, 1)
            packed.append(b"".join([array.extents.pack() for array in column.arrays]))
        ends = np.cumsum(np.fromiter(map(len, packed), np.int64, len(packed)))
        return Records(tuple(variants), which, b"".join(packed), ends, weights)


@dataclass(frozen=True, eq=False)
class Files:
    urls: tuple[str, ...]
    sizes: np.ndarray  # int64
    etags: tuple[str | None, ...]
    tables: tuple[str, ...]  # distinct table paths
    table: np.ndarray  # int32 for each file, into `tables`
    records: Mapping[str, Records]
    inlined: Inlined | None = None
    facts: Mapping[str, pa.Array] = field(default_factory=dict)  # by column, a value for each file
    parts: tuple[tuple[Source, ...], ...] = ()  # for each file; nothing if none has any
    documents: tuple[str, ...] = ()  # the same, of Zarr stores

    def source(self, file: int) -> Source:
        size = int(self.sizes[file])
        parts = self.parts[file] if self.parts else ()
        document = self.documents[file] if self.documents else ""
        return Source(self.urls[file], size if size >= 0 else None, self.etags[file], parts, document)

    def lacks(self, name: str) -> np.ndarray:
        """Whether each file, of those that have been indexed, lacks a column, here and in the catalog."""
        records = self.records.get(name)
        slots = None if self.inlined is None else self.inlined.values.get(name)
        nowhere = np.ones(len(self.urls), bool)
        if records is not None:
            nowhere &= records.which == ABSENT
        if slots is not None:
            nowhere &= slots.which == NONE
        return nowhere if name not in self.facts else np.zeros(len(self.urls), bool)

    def take(self, files: np.ndarray) -> Files:
        """Some files, renumbered from 0."""
        pick = files.tolist()
        return Files(
            tuple([self.urls[i] for i in pick]),
            self.sizes[files],
            tuple([self.etags[i] for i in pick]),
            self.tables,
            self.table[files],
            {name: records.take(files) for name, records in self.records.items()},
            None if self.inlined is None else self.inlined.take(files),
            {name: values.take(pa.array(files)) for name, values in self.facts.items()},
            tuple([self.parts[i] for i in pick]) if self.parts else (),
            tuple([self.documents[i] for i in pick]) if self.documents else (),
        )


@dataclass(frozen=True, eq=False)
class Part:
    """One partition: a range of rows of one file's table."""

    source: Source
    table: str
    start: int
    stop: int
    offset: int  # global row number of `start`
    columns: Mapping[str, tuple[tuple[ArrayIndex, ...], tuple[str, ...] | None]]
    held: Held | None = None
    facts: Mapping[str, pa.Scalar] = field(default_factory=dict)  # by column, the value of all rows
