"""Conditions that nobody writes, but this package makes: rows by label, and conditions under other names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazynwb_dask.predicate.tree import Predicate


@dataclass(frozen=True, eq=False, repr=False)
class Renamed(Predicate):
    """A condition on columns that are called otherwise here: pairs of the name there and here."""

    of: Predicate
    names: tuple[tuple[str, str], ...]

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        return frozenset(here for _, here in self.names)

    def __call__(self, frame: pd.DataFrame) -> Any:
        return self.of(self._there(frame))

    def rows(self, frame: pd.DataFrame) -> NDArray[np.intp]:
        return self.of.rows(self._there(frame))

    def _there(self, frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({there: frame[here] for there, here in self.names}, index=frame.index)

    def __repr__(self) -> str:
        return repr(self.of)


@dataclass(frozen=True, eq=False, repr=False)
class Labelled(Predicate):
    """The rows with some labels, which are given in order."""

    labels: Any

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        return frozenset([None])

    def __call__(self, frame: pd.DataFrame) -> Any:
        if not len(self.labels):
            return np.zeros(len(frame), bool)
        asked = frame.index.to_numpy()
        at = np.searchsorted(self.labels, asked)
        return self.labels[np.minimum(at, len(self.labels) - 1)] == asked

    def __repr__(self) -> str:
        return f"one of {len(self.labels)} rows"
