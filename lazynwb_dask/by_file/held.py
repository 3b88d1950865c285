"""A table in memory, with some rows of each file, as one side of a join."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from dask.tokenize import tokenize
from numpy.typing import NDArray

from lazynwb_dask.by_file.alignment import ByFile, Ints, Plan, Side
from lazynwb_dask.decode.runs import spread
from lazynwb_dask.predicate.tree import Predicate
from lazynwb_dask.scan.request import Selection


def held(table: pd.DataFrame, urls: Sequence[str], borders: Ints) -> Held:
    """The scan of a table. File i has the rows `borders[i]:borders[i + 1]`."""
    path = pd.Series(np.repeat(np.array(urls, object), np.diff(borders)), dtype="string")
    row = np.arange(len(table)) - np.repeat(borders[:-1], np.diff(borders))
    return Held((), borders[:-1], table.assign(_nwb_path=path, _table_index=row), tuple(urls), borders)


@dataclass(frozen=True, eq=False)
class Held(ByFile):
    """Rows of files that were read while planning. Made by `held`."""

    table: pd.DataFrame
    paths: tuple[str, ...]
    borders: Ints
    kind = "held"

    @property
    def meta(self) -> pd.DataFrame:
        return self.table.iloc[:0]

    @property
    def nparts(self) -> int:
        return len(self.paths)

    @property
    def extents(self) -> Ints:
        return np.diff(self.borders)

    @property
    def urls(self) -> Any:
        return pd.array(list(self.paths), dtype="string")

    @property
    def constants(self) -> frozenset[str]:
        return frozenset(["_nwb_path"])

    @property
    def blocksize(self) -> int:
        return 1 << 62

    def constant_frame(self, columns: Iterable[str]) -> pd.DataFrame:
        return pd.DataFrame(dict.fromkeys(columns, self.urls))

    def possible(self, predicate: Predicate) -> NDArray[np.bool_] | None:
        return None

    def nbytes(self, columns: Iterable[str]) -> Ints:
        return np.zeros(self.nparts, np.int64)

    def narrow(self, columns: Iterable[str], parts: Sequence[int]) -> Held:
        chosen = np.asarray(parts, np.int64)
        counts = np.diff(self.borders)[chosen]
        kept = {*columns, "_nwb_path"}
        table = self.table[[name for name in self.table.columns if name in kept]]
        rows = table.iloc[spread(self.borders[chosen], counts)]
        return Held((), self.borders[chosen], rows, tuple(self.paths[i] for i in parts),
                    np.append(0, np.cumsum(counts)))  # fmt: skip

    def leaves(self, selection: Selection) -> Iterator[tuple[Side, Plan]]:
        return iter(())

    def remaining(self, predicate: Predicate | None) -> Predicate | None:
        return predicate

    def _what(self) -> tuple[Any, ...]:
        return "held", tokenize(self.table), self.paths, tuple(self.borders.tolist())

    def read(self, selection: Selection, settings: Any) -> pd.DataFrame:
        found = self.table
        if selection.predicate is not None:
            found = found.iloc[selection.predicate.rows(found)]
        return found[list(selection.columns)]
