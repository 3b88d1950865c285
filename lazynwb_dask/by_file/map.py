"""A function of several tables of the same file, called for each file, as a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from dask.tokenize import tokenize
from numpy.typing import NDArray
from pandas.api.types import is_string_dtype

from lazynwb_dask.by_file.alignment import ByFile, Ints, Plan, Rows, Side, align
from lazynwb_dask.errors import NWBError
from lazynwb_dask.predicate.tree import Predicate
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.util.threads import at_once

ROWS = 1 << 40  # labels of a file, of which there may be four million

# May have a method `needs`: for some columns of the result, the columns of each table that these are made of.
# It then returns at least those columns.
Function = Callable[..., pd.DataFrame]


def map_over(
    func: Function, plans: Mapping[str, Plan], meta: pd.DataFrame | None, by: str = "_nwb_path"
) -> Mapped:
    """The scan of a function's results. `plans` are tables by the names of the function's arguments. `meta`
    is the result without rows; if None, the function is called with empty frames. `by` is as in `align`."""
    sides = align(list(plans.values()), lambda there: np.any(list(there), axis=0), by)
    names, numbers = tuple(plans), np.arange(len(sides[0].there), dtype=np.int64)
    if meta is None:
        meta = _inferred(func, {name: side.scan.meta[_given(side)] for name, side in
                                zip(names, sides, strict=True)})  # fmt: skip
    if by not in meta.columns:
        meta = meta.assign(**{by: sides[0].scan.meta[by]})
    meta = meta.iloc[:0].set_axis(pd.Index([], dtype="int64"))
    return Mapped(sides, numbers * ROWS, func, names, meta, tuple(meta.columns))


def _inferred(func: Function, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The function's result for empty frames."""
    try:
        found = func(**frames)
    except Exception as exc:
        raise ValueError(
            f"map_files: {_name(func)} fails on frames without rows, from which its result's columns "
            f"would be told ({type(exc).__name__}: {exc}): give meta=, such as {{'column': 'float64'}}"
        ) from exc
    _check_frame(func, found)
    unknown = [
        name for name, dtype in found.dtypes.items() if dtype.kind == "O" and isinstance(dtype, np.dtype)
    ]
    if unknown:
        raise ValueError(
            f"map_files: the types of {', '.join(map(repr, unknown))} can't be told from frames without "
            "rows: give meta=, such as {'column': 'float64'}"
        )
    return found


def _check_frame(func: Function, found: Any) -> None:
    if not isinstance(found, pd.DataFrame):
        raise TypeError(
            f"map_files: {_name(func)} has to return a pandas.DataFrame, and returned a {type(found).__name__}"
        )
    if any(name is not None for name in found.index.names):
        raise ValueError(
            f"map_files: what {_name(func)} returns is indexed by {list(found.index.names)}; rows are "
            "numbered anew, so return that as a column: .reset_index()"
        )


def _name(func: Function) -> str:
    return getattr(func, "__name__", None) or repr(func)


def _given(side: Side) -> list[str]:
    """The columns that the function gets: those selected, the path, and the session."""
    told = [name for name in ("_nwb_path", side.by) if name in side.scan.meta.columns]
    return list(dict.fromkeys([*side.columns, *told]))


@dataclass(frozen=True, eq=False)
class Mapped(ByFile):
    """A function's results for some tables of each file. Made by `map_over`."""

    func: Function
    names: tuple[str, ...]
    made: pd.DataFrame  # what the function makes, without rows
    columns: tuple[str, ...]
    kind = "map"

    @property
    def meta(self) -> pd.DataFrame:
        return self.made[list(self.columns)]

    @property
    def extents(self) -> Ints:
        return np.full(self.nparts, ROWS)

    @property
    def constants(self) -> frozenset[str]:
        return frozenset([self.by])

    def constant_frame(self, columns: Iterable[str]) -> pd.DataFrame:
        return pd.DataFrame(dict.fromkeys(columns, self.urls))

    def possible(self, predicate: Predicate) -> NDArray[np.bool_] | None:
        """None, as nothing is known about values that the function returns."""
        return None

    def nbytes(self, columns: Iterable[str]) -> Ints:
        total = np.zeros(self.nparts, np.int64)
        for side, names in zip(self.sides, self._needed(columns), strict=True):
            total = total + side.nbytes(names)
        return total

    def _needed(self, columns: Iterable[str]) -> list[list[str]]:
        """The columns of each table that some columns of the result are made of, and the path."""
        given = [_given(side) for side in self.sides]
        if not hasattr(self.func, "needs"):
            return given
        wanted = self.func.needs({*columns})
        tables = zip(self.names, given, strict=True)
        return [
            [c for c in names if c in wanted[table] or c in ("_nwb_path", self.by)] for table, names in tables
        ]

    def narrow(self, columns: Iterable[str], parts: Sequence[int]) -> Mapped:
        kept = {*columns}
        of_files = self._of_files(self._needed(kept), parts)
        narrowed: Mapped = replace(of_files, columns=tuple(c for c in self.columns if c in kept))
        return narrowed

    def leaves(self, selection: Selection) -> Iterator[tuple[Side, Plan]]:
        for side, names in zip(self.sides, self._needed(selection.used), strict=True):
            yield side, side.plan(names, None)

    def remaining(self, predicate: Predicate | None) -> Predicate | None:
        return predicate

    def _what(self) -> tuple[Any, ...]:
        return "map", tokenize(self.func), self.names, tokenize(self.made), self.columns

    def read(self, selection: Selection, settings: Any) -> pd.DataFrame:
        """The function's results, file by file."""
        assert self.offset is not None
        rows = at_once(
            [
                lambda side=side: side.read(_given(side), None, settings)  # type: ignore[misc]
                for side in self.sides
            ]
        )
        if settings.memory is not None:
            # if the function computes a frame, that read would wait for this task's memory
            settings.memory.give_back()
        files = np.arange(self.nparts + 1)
        borders = [np.searchsorted(one.file, files).tolist() for one in rows]
        pieces = []
        for i, (url, first) in enumerate(zip(self.urls, self.offset.tolist(), strict=True)):
            frame = self._called(str(url), self._of_file(rows, borders, i))
            frame = frame.set_axis(pd.RangeIndex(first, first + len(frame)), axis=0)
            if selection.predicate is not None:
                frame = frame.iloc[selection.predicate.rows(frame)]
            if selection.limit is not None:
                frame = frame.iloc[selection.limit.rows(frame)]
            pieces.append(frame[list(selection.columns)])
        joined = pd.concat(pieces) if len(pieces) > 1 else pieces[0]
        return joined.set_axis(joined.index.astype("int64"), axis=0)

    def _of_file(self, rows: Sequence[Rows], borders: Sequence[list[int]], i: int) -> dict[str, pd.DataFrame]:
        return {
            name: one.frame.iloc[cut[i] : cut[i + 1]]
            for name, one, cut in zip(self.names, rows, borders, strict=True)
        }

    def _called(self, url: str, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """The result for one file, with the columns and dtypes of `made`."""
        try:
            found = self.func(**frames)
            _check_frame(self.func, found)
        except Exception as exc:
            raise NWBError(
                f"map_files: {_name(self.func)} fails for {url}: {type(exc).__name__}: {exc}"
            ) from exc
        path = pd.Series(url, found.index, dtype=self.made[self.by].dtype)
        found = found.assign(**{self.by: path})
        whole = not hasattr(self.func, "needs")
        wanted = self.made.columns if whole else [c for c in self.made.columns if c in found]
        if {*found.columns} != {*wanted}:
            raise NWBError(
                f"map_files: {_name(self.func)} returns the columns {list(found.columns)} for {url}, and "
                f"not {list(self.made.columns)}: give meta=, or return the same columns for every file"
            )
        return pd.DataFrame({name: self._as_announced(found[name], url) for name in wanted}, index=found.index)

    def _as_announced(self, column: pd.Series[Any], url: str) -> pd.Series[Any]:
        """A column in the dtype of `made`, if the conversion is lossless."""
        wanted = self.made[column.name].dtype
        if wanted in (column.dtype, np.dtype(object)):
            return column
        if _is_safe(column, wanted):
            with suppress(TypeError, ValueError):
                return column.astype(wanted)
        raise NWBError(
            f"map_files: {_name(self.func)} returns {column.name!r} as {column.dtype} for {url}, and not as "
            f"{wanted}: give meta={{{column.name!r}: ...}}, or convert it for every file"
        )


def _is_safe(column: pd.Series[Any], wanted: Any) -> bool:
    """Whether a conversion keeps each value, or fails."""
    if not len(column):
        return True
    if isinstance(wanted, np.dtype):
        return isinstance(column.dtype, np.dtype) and np.can_cast(column.dtype, wanted, "safe")
    return is_string_dtype(column.dtype) or not is_string_dtype(wanted)
