"""Spikes around events, file by file: as relative times, as counts, or as mean rates of groups of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.analysis import kernels
from lazynwb_dask.by_file.alignment import Plan
from lazynwb_dask.by_file.map import Mapped, map_over
from lazynwb_dask.decode.arrays import listed
from lazynwb_dask.errors import ColumnNotFoundError, UnsupportedColumnError
from lazynwb_dask.util.suggest import near_or_all

_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType)
SPIKES, INTERVALS = "spike_times", "obs_intervals"


def list_of(kind: pa.DataType) -> pd.ArrowDtype:
    return pd.ArrowDtype(pa.list_(kind))


def list_column(values: Any, offsets: Any) -> Any:
    return pd.arrays.ArrowExtensionArray(listed(np.asarray(offsets), pa.array(values)))


def is_nested(dtype: Any) -> bool:
    return isinstance(dtype, pd.ArrowDtype) and pa.types.is_nested(dtype.pyarrow_dtype)


def is_number(dtype: Any) -> bool:
    return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)


def held(plan: Plan, name: str, call: str) -> Any:
    """The dtype of a column that a function needs; ColumnNotFoundError if it isn't among those selected."""
    if name not in plan.columns:
        hint = near_or_all(name, plan.columns)
        known = "; the table has it: select it too" if name in plan.scan.meta.columns else hint
        raise ColumnNotFoundError(f"{call}: the frame has no column {name!r}{known}")
    return plan.scan.meta[name].dtype


def check_lists(plan: Plan, name: str, depth: int, call: str) -> None:
    """Whether a column holds lists of numbers, or lists of pairs of them."""
    dtype = held(plan, name, call)
    kind = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else None
    for level in range(depth):
        # a list of pairs is stored as rows of two numbers, and is a list of lists of that size
        if not isinstance(kind, _LISTS) or (level and getattr(kind, "list_size", 2) != 2):
            kind = None
            break
        kind = kind.value_type
    if kind is None or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        pairs = "lists of numbers" if depth == 1 else "lists of a start and a stop"
        raise UnsupportedColumnError(f"{call}: {name!r} is {dtype}, and not {pairs} for each unit")


def check_times(plan: Plan, name: str, call: str) -> None:
    dtype = held(plan, name, call)
    if not is_number(dtype):
        raise UnsupportedColumnError(f"{call}: {name!r} is {dtype}, and not a time in seconds")


def times_of(column: pd.Series[Any]) -> kernels.Floats:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


@dataclass(frozen=True)
class AroundEvents:
    """What is made of the units and the events of one file."""

    units: tuple[str, ...]  # the columns of the units that are carried along
    event: str
    by: tuple[str, ...]
    edges: tuple[float, ...]  # of the bins, or of the window

    call: ClassVar[str]  # the public function
    made: ClassVar[dict[str, Any]]  # columns that are made of the spikes, with their dtypes
    one_of_each: ClassVar[dict[str, Any]]  # and of the events

    @property
    def __name__(self) -> str:
        return self.call

    @property
    def ragged(self) -> tuple[str, ...]:
        return (SPIKES,)

    def needs(self, columns: set[str]) -> dict[str, set[str]]:
        ragged = self.ragged if columns & {*self.made} else ()
        number = {"_table_index"} & {"_table_index" for name in columns if name == "event_index"}
        return {"units": {*self.units} & columns | {*ragged}, "events": {self.event, *self.by} | number}

    def scan(self, units: Plan, events: Plan, session: str) -> Mapped:
        """The results of all files, as a scan. `session` is the column that says which rows meet."""
        carried = [c for c in units.columns if not is_nested(units.scan.meta[c].dtype)]
        one = {n: d for n, d in self.one_of_each.items()
               if n != "event_index" or "_table_index" in events.scan.meta.columns}  # fmt: skip
        groups = {name: held(events, name, self.call) for name in self.by}
        twice = [n for n in [*one, *groups, *self.made] if n in carried] + [n for n in groups if n in one]
        if twice:
            raise ValueError(
                f"{self.call}: the result would have two columns {twice[0]!r}: select other columns of the "
                "units, or rename what comes of the events with the result of map_files"
            )
        wrong = [name for name, dtype in groups.items() if is_nested(dtype)]
        if wrong:
            raise TypeError(f"{self.call}: by={wrong[0]!r} is {groups[wrong[0]]}, which can't be a group")
        dtypes = {name: units.scan.meta[name].dtype for name in carried} | groups | one | self.made
        meta = pd.DataFrame({name: pd.Series([], dtype=dtype) for name, dtype in dtypes.items()})
        func = type(self)(tuple(carried), self.event, self.by, self.edges, **self._more())
        plans = {
            "units": Plan(units.scan, [*carried, *self.ragged], units.predicate),
            "events": Plan(events.scan, [c for c in events.scan.meta.columns
                                         if c in {self.event, *self.by, "_table_index"}], events.predicate),
        }  # fmt: skip
        return map_over(func, plans, meta, session)

    def _more(self) -> dict[str, Any]:
        return {}

    def __call__(self, units: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        times = times_of(events[self.event])
        there = np.isfinite(times)
        return self.of(units, events[there], times[there])

    def of(self, units: pd.DataFrame, events: pd.DataFrame, times: kernels.Floats) -> pd.DataFrame:
        raise NotImplementedError

    def carried(self, units: pd.DataFrame, times: int) -> pd.DataFrame:
        """Columns of units, each row several times."""
        kept = units[[name for name in self.units if name in units]]
        return kept.iloc[np.repeat(np.arange(len(units)), times)].reset_index(drop=True)


@dataclass(frozen=True)
class Times(AroundEvents):
    """A row for each unit and event, with the spikes' times relative to the event."""

    call = "align_events"
    made: ClassVar = {"relative_times": list_of(pa.float64())}
    one_of_each: ClassVar = {"event_index": np.dtype(np.int64), "event_time": np.dtype(np.float64)}

    def of(self, units: pd.DataFrame, events: pd.DataFrame, times: kernels.Floats) -> pd.DataFrame:
        found = self.carried(units, len(times))
        again = np.tile(np.arange(len(times)), len(units))
        for name in self.by:
            found[name] = events[name].array.take(again)
        if "_table_index" in events:
            found["event_index"] = events["_table_index"].to_numpy(np.int64)[again]
        found["event_time"] = times[again]
        if SPIKES in units:
            spikes = kernels.rising(kernels.lists(units[SPIKES]))
            for name, column in self.of_spikes(spikes, times).items():
                found[name] = column
        return found

    def of_spikes(self, spikes: kernels.Lists, times: kernels.Floats) -> dict[str, Any]:
        return {"relative_times": list_column(*kernels.around(spikes, times, (self.edges[0], self.edges[-1])))}


@dataclass(frozen=True)
class Counts(Times):
    """A row for each unit and event, with the spikes counted in bins."""

    made: ClassVar = {"counts": list_of(pa.int64())}

    def of_spikes(self, spikes: kernels.Lists, times: kernels.Floats) -> dict[str, Any]:
        some = kernels.counts(spikes, times[:, None] + np.array(self.edges))
        bins = len(self.edges) - 1
        return {"counts": list_column(some.ravel(), np.arange(0, some.size + 1, bins))}


@dataclass(frozen=True)
class Rates(AroundEvents):
    """A row for each unit and group of events, with the mean rate in bins and its standard error."""

    observed: bool = False
    call = "psth"
    made: ClassVar = {"rate": list_of(pa.float64()), "sem": list_of(pa.float64())}
    one_of_each: ClassVar = {"events": np.dtype(np.int64)}

    @property
    def ragged(self) -> tuple[str, ...]:
        return (SPIKES, INTERVALS) if self.observed else (SPIKES,)

    def _more(self) -> dict[str, Any]:
        return {"observed": self.observed}

    def of(self, units: pd.DataFrame, events: pd.DataFrame, times: kernels.Floats) -> pd.DataFrame:
        order, starts = _groups(events, self.by)
        found = self.carried(units, len(starts))
        again = np.tile(order[starts], len(units))
        for name in self.by:
            found[name] = events[name].array.take(again)
        found["events"] = np.tile(np.diff(np.append(starts, len(order))), len(units))
        if SPIKES in units:
            edges = times[order][:, None] + np.array(self.edges)
            pieces = [[np.zeros((0,)), np.zeros((0,))]]
            if len(starts):
                pieces += [[part.ravel() for part in pair] for pair in self._rates(units, edges, starts)]
            bins = len(self.edges) - 1
            for name, values in zip(self.made, zip(*pieces, strict=True), strict=True):
                flat = np.concatenate(values)
                found[name] = list_column(flat, np.arange(0, flat.size + 1, bins))
        return found

    def _rates(self, units: pd.DataFrame, edges: kernels.Floats, starts: kernels.Ints) -> Iterator[Any]:
        """The rates and their errors of some units after the other."""
        spikes = kernels.lists(units[SPIKES])
        shape = (-1, len(edges), len(self.edges) - 1)
        if self.observed:
            intervals = kernels.lists(units[INTERVALS])
            spikes = kernels.within(spikes, intervals)
        spikes = kernels.rising(spikes)
        for first, stop in kernels.blocks(len(units), edges.size):
            seconds = np.diff(self.edges)
            if self.observed:
                watched = kernels.observed(intervals.part(first, stop), np.min(edges), np.max(edges))
                until = watched.until(edges.ravel()).reshape(-1, *edges.shape)
                seconds = np.maximum(np.diff(until, axis=2), 0).reshape(shape)
            yield kernels.rates(kernels.counts(spikes.part(first, stop), edges), seconds, starts)


def _groups(events: pd.DataFrame, by: Sequence[str]) -> tuple[kernels.Ints, kernels.Ints]:
    """Positions of events, group by group and without those that belong to none, and where groups begin."""
    if not by:
        return np.arange(len(events)), np.arange(min(1, len(events)))
    numbered = events.groupby([*by], sort=True, observed=True, dropna=True).ngroup()
    number = numbered.fillna(-1).to_numpy(np.int64)
    order = np.argsort(number, kind="stable")
    order = order[number[order] >= 0]
    return order, np.flatnonzero(np.diff(number[order], prepend=-1))
