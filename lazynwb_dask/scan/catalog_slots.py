"""Where a catalog holds the values of small columns. A task carries the name of a Parquet file, a row
number for each of its files and the names of the columns there; the worker reads the values from the
catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lazynwb_dask.model.packing import thin, wide
from lazynwb_dask.storage.parquet import ParquetFile

NONE = -1


@dataclass(frozen=True, eq=False)
class Slots:
    """The name of one column among the catalog's values, for each file."""

    names: tuple[str, ...]
    which: np.ndarray  # int16 for each file, into `names`; NONE where its values aren't held

    def of(self, file: int) -> str | None:
        kind = int(self.which[file])
        return None if kind == NONE else self.names[kind]


@dataclass(frozen=True, eq=False)
class Held:
    """Where the values of one file's table are."""

    parquet: ParquetFile
    first: int  # the row there of the table's first row
    values: Mapping[str, str]  # by column, its name there
    indexes: Mapping[str, str]  # by ragged column, the name there of its outermost index


@dataclass(frozen=True, eq=False)
class Inlined:
    """Where the values of a table over all files are. Arrays have one element for each file."""

    parquets: tuple[ParquetFile, ...]
    parquet: np.ndarray  # int32, into `parquets`; NONE where the catalog has no values
    first: np.ndarray  # int64: the row of the table's first row
    values: Mapping[str, Slots]
    indexes: Mapping[str, Slots]

    def of(self, file: int) -> Held | None:
        at = int(self.parquet[file])
        if at == NONE:
            return None
        values = {name: s for name, slots in self.values.items() if (s := slots.of(file))}
        indexes = {name: s for name, slots in self.indexes.items() if (s := slots.of(file))}
        return Held(self.parquets[at], int(self.first[file]), values, indexes)

    def narrow(self, columns: Iterable[str]) -> Inlined:
        wanted = set(columns)
        return replace(
            self,
            values={name: slots for name, slots in self.values.items() if name in wanted},
            indexes={name: slots for name, slots in self.indexes.items() if name in wanted},
        )

    def take(self, files: np.ndarray) -> Inlined:
        """The entries of some files, renumbered from 0."""
        parquet = self.parquet[files]
        used, renumbered = np.unique(parquet[parquet != NONE], return_inverse=True)
        compact = np.full(len(parquet), NONE, np.int32)
        compact[parquet != NONE] = renumbered.reshape(-1)
        return Inlined(
            tuple(self.parquets[i] for i in used.tolist()),
            compact,
            self.first[files],
            {name: Slots(s.names, s.which[files]) for name, s in self.values.items()},
            {name: Slots(s.names, s.which[files]) for name, s in self.indexes.items()},
        )

    def pack(self) -> tuple[dict[str, Any], list[bytes]]:
        """As JSON and buffers."""
        buffers = [thin(self.parquet), thin(self.first)]
        head: dict[str, Any] = {"parquets": [(p.url, p.size) for p in self.parquets]}
        for kind, held in (("values", self.values), ("indexes", self.indexes)):
            head[kind] = {name: slots.names for name, slots in held.items()}
            buffers += [thin(slots.which) for slots in held.values()]
        return head, buffers

    @staticmethod
    def unpack(head: dict[str, Any], buffers: list[bytes]) -> Inlined:
        rest = iter(buffers[2:])
        values, indexes = (
            {name: Slots(tuple(names), wide(next(rest)).astype(np.int16)) for name, names in head[kind].items()}
            for kind in ("values", "indexes")
        )
        return Inlined(
            tuple(ParquetFile(url, size) for url, size in head["parquets"]),
            wide(buffers[0]).astype(np.int32),
            wide(buffers[1]),
            values,
            indexes,
        )
