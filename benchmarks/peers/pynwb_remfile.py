"""pynwb over remfile, one file after the other, with pynwb's lazily read columns."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import remfile
from pynwb import NWBHDF5IO

from ..workloads import BINS, QUALITY, SAMPLES, SCALARS, SERIES, STRICT, TEXTS, WANTED, WINDOW, Terms
from . import Task
from .h5py_remfile import Reader as Plain
from .h5py_remfile import joined
from .kinds import histogram, of_hdf5


class Reader(Plain):
    def __init__(self, task: Task) -> None:
        super().__init__(task)

    def _files(self) -> Generator[tuple[str, Any], None, None]:
        for url in self.task.urls:
            with h5py.File(remfile.File(url), "r") as file, NWBHDF5IO(file=file, mode="r") as io:
                yield url, io.read()

    def schema(self) -> Any:
        found = {"id": "int"}
        for _, nwb in self._files():
            for name in nwb.units.colnames:
                held = nwb.units[name]
                ragged = hasattr(held, "target")
                values = held.target.data if ragged else held.data
                values = getattr(values, "dataset", values)  # of references
                found[name] = of_hdf5(values, ragged)
        return found

    def quality(self) -> Any:
        return self._good(QUALITY)

    def strict(self) -> Any:
        return self._good(STRICT)

    def _good(self, terms: Terms) -> Any:
        parts = []
        for url, nwb in self._files():
            units = nwb.units
            rows = _rows(units, terms)
            part = {name: np.asarray(units[name].data[:])[rows] for name in WANTED[:2]}
            part["location"] = _texts(part["location"])
            part["spike_times"] = _lists([units["spike_times"][int(row)] for row in rows])
            parts.append(part | {"_nwb_path": np.full(len(rows), url, object)})
        return joined(parts)

    def psth(self) -> Any:
        ids, every = [], []
        for _, nwb in self._files():
            units, starts = nwb.units, nwb.trials["start_time"].data[:]
            rows = _rows(units, QUALITY)
            counts = np.zeros((len(rows), BINS))
            for i, row in enumerate(rows):
                spikes = units["spike_times"][int(row)]
                for start in starts:
                    first, last = np.searchsorted(spikes, [start + WINDOW[0], start + WINDOW[1]])
                    counts[i] += np.histogram(spikes[first:last] - start, BINS, WINDOW)[0]
            ids.append(units["unit_id"].data[:][rows])
            every.append(counts)
        return histogram(np.concatenate(ids), np.concatenate(every))

    def scalars(self) -> Any:
        return joined([{n: nwb.units[n].data[:] for n in SCALARS} for _, nwb in self._files()])

    def texts(self) -> Any:
        parts = [{n: nwb.units[n].data[:] for n in TEXTS} for _, nwb in self._files()]
        return joined([part | {"location": _texts(part["location"])} for part in parts])

    def spikes(self) -> Any:
        parts = []
        for _, nwb in self._files():
            index = nwb.units.spike_times_index
            offsets = np.concatenate([[0], index.data[:].astype(np.int64)])
            values = pa.array(index.target.data[:])
            parts.append({"spike_times": pa.LargeListArray.from_arrays(pa.array(offsets), values)})
        return joined(parts)

    def _units(self, choose: Any) -> Any:
        parts = []
        for _, nwb in self._files():
            rows = choose({"unit_id": nwb.units["unit_id"].data})
            if len(rows):
                unit = nwb.units["unit_id"].data[:][rows]
                held = [nwb.units["spike_times"][int(row)] for row in rows]
                parts.append({"unit_id": unit, "spike_times": _lists(held)})
        return joined(parts)

    def top(self) -> Any:
        rates = [nwb.units["firing_rate"].data[:] for _, nwb in self._files()]
        best = int(np.argmax([r.max() for r in rates]))
        chosen = Reader(Task([self.task.urls[best]], self.task.table, self.task.endpoint))
        return chosen._units(lambda _: np.array([rates[best].argmax()]))

    def regions(self) -> Any:
        every = np.concatenate([_texts(nwb.units["structure"].data[:]) for _, nwb in self._files()])
        names, counts = np.unique(every.astype(str), return_counts=True)
        return {"structure": names.astype(object), "count": counts}

    def trials(self) -> Any:
        frames = [nwb.trials.to_dataframe() for _, nwb in self._files()]
        return joined([{name: frame[name].to_numpy() for name in frame} for frame in frames])

    def samples(self) -> Any:
        with contextlib.closing(self._files()) as files:
            _, nwb = next(files)
            series = nwb.processing["behavior"][SERIES.rsplit("/", 1)[1]]
            return {"timestamps": series.timestamps[:SAMPLES], "data": series.data[:SAMPLES]}


def _rows(units: Any, terms: Terms) -> np.ndarray:
    """The units that satisfy all terms."""
    keep = np.ones(len(units), bool)
    for name, sign, value in terms:
        held = np.asarray(units[name].data[:])
        held = held.astype(str) if held.dtype.kind == "O" else held
        keep &= {">=": np.greater_equal, "<=": np.less_equal, "!=": np.not_equal}[sign](held, value)
    return np.flatnonzero(keep)


def _texts(values: Any) -> np.ndarray:
    return np.array([v.decode() if isinstance(v, bytes) else v for v in values], object)


def _lists(held: list[np.ndarray]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in held])]).astype(np.int64)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate([np.zeros(0), *held])))
