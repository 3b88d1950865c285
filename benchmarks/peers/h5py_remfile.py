"""h5py over remfile, one file after the other, reading only the datasets that a question needs."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import remfile

from ..workloads import QUALITY, SAMPLES, SCALARS, STRICT, TEXTS, TRIALS, WANTED, Terms
from . import Task
from .kinds import of_hdf5


class Reader:
    def __init__(self, task: Task) -> None:
        self.task = task

    def plan(self) -> None:
        """Nothing is known before a file is opened."""

    def _tables(self) -> Generator[tuple[str, h5py.Group], None, None]:
        for url in self.task.urls:
            with h5py.File(remfile.File(url), "r") as file:
                yield url, file[self.task.table]

    def schema(self) -> Any:
        found = {}
        for _, table in self._tables():
            for name in ["id", *table.attrs["colnames"]]:
                found[name] = of_hdf5(table[name], f"{name}_index" in table)
        return found

    def quality(self) -> Any:
        return self._good(QUALITY)

    def strict(self) -> Any:
        return self._good(STRICT)

    def _good(self, terms: Terms) -> Any:
        parts = []
        for url, table in self._tables():
            keep = np.ones(table["id"].shape, bool)
            for name, sign, value in terms:
                held = column(table, name)
                keep &= {">=": np.greater_equal, "<=": np.less_equal, "!=": np.not_equal}[sign](held, value)
            rows = np.flatnonzero(keep)
            part = {name: column(table, name)[rows] for name in WANTED[:2]}
            part["spike_times"] = spikes(table, rows)
            parts.append(part | {"_nwb_path": np.full(len(rows), url, object)})
        return joined(parts)

    def scalars(self) -> Any:
        return joined([{name: column(t, name) for name in SCALARS} for _, t in self._tables()])

    def texts(self) -> Any:
        return joined([{name: column(t, name) for name in TEXTS} for _, t in self._tables()])

    def spikes(self) -> Any:
        return joined([{"spike_times": all_spikes(t)} for _, t in self._tables()])

    def one(self) -> Any:
        return self._units(lambda table: np.flatnonzero(column(table, "unit_id") == self.task.unit))

    def _units(self, choose: Any) -> Any:
        parts = []
        for _, table in self._tables():
            rows = choose(table)
            if len(rows):
                unit = column(table, "unit_id")[rows]
                parts.append({"unit_id": unit, "spike_times": spikes(table, rows)})
        return joined(parts)

    def top(self) -> Any:
        rates = [column(table, "firing_rate") for _, table in self._tables()]
        best = int(np.argmax([r.max() for r in rates]))
        chosen = type(self)(Task([self.task.urls[best]], self.task.table, self.task.endpoint))
        return chosen._units(lambda _: np.array([rates[best].argmax()]))

    def regions(self) -> Any:
        every = np.concatenate([column(table, "structure") for _, table in self._tables()])
        names, counts = np.unique(every.astype(str), return_counts=True)
        return {"structure": names.astype(object), "count": counts}

    def trials(self) -> Any:
        return joined([{n: column(t, n) for n in ["id", *t.attrs["colnames"]]} for _, t in self._tables()])

    def samples(self) -> Any:
        with contextlib.closing(self._tables()) as tables:
            _, series = next(tables)
            return {name: series[name][:SAMPLES] for name in ("timestamps", "data")}

    def answer(self, name: str, result: Any) -> Mapping[str, Any]:
        return {n: result[n] for n in TRIALS} if name == "trials" else result


def column(table: h5py.Group, name: str) -> np.ndarray:
    data = table[name]
    values: np.ndarray = data.asstr()[:] if data.dtype.kind == "O" else data[:]
    return values


def spikes(table: h5py.Group, rows: np.ndarray) -> pa.Array:
    """The spike times of some rows."""
    ends = table["spike_times_index"][:].astype(np.int64)
    begins = np.concatenate([[0], ends[:-1]])
    held = [table["spike_times"][begins[row] : ends[row]] for row in rows]
    offsets = np.concatenate([[0], np.cumsum(ends[rows] - begins[rows])]).astype(np.int64)
    values = np.concatenate([np.zeros(0), *held])
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values))


def all_spikes(table: h5py.Group) -> pa.Array:
    ends = table["spike_times_index"][:].astype(np.int64)
    offsets = pa.array(np.concatenate([[0], ends]))
    return pa.LargeListArray.from_arrays(offsets, pa.array(table["spike_times"][:]))


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The parts of a result one after the other."""
    names = parts[0] if parts else ()  # none of the file to warm up with, which lacks the unit of the question
    return {name: pa.chunked_array([pa.array(part[name]) for part in parts]) for name in names}
