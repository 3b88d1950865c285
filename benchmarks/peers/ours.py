"""lazynwb_dask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import dask
import numpy as np

import lazynwb_dask

from ..workloads import AREA, BINS, QUALITY, SAMPLES, SCALARS, STRICT, TEXTS, TRIALS, WANTED, WINDOW, Terms
from . import Task
from .kinds import histogram, of_pandas


@cache
def _cluster(workers: int) -> Any:
    """The client of processes with a thread each, which have the settings of this one."""
    from distributed import Client, LocalCluster

    return Client(LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None))


def _answered(task: Task, question: str) -> None:
    with dask.config.set(scheduler="sync"):
        reader = Reader(task)
        reader.plan()
        getattr(reader, question)()


class Reader:
    """Queries as a user of Dask writes them."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.options = {}
        if task.urls[0].startswith("s3://"):
            self.options = {"anon": True, "endpoint_url": task.endpoint}
        directory = {"lazynwb-dask.cache-directory": task.settings["catalog"]}
        dask.config.set({"lazynwb-dask.progress": False, **directory})
        if task.threads:
            dask.config.set(scheduler="threads", num_workers=task.threads)
        self.client = _cluster(task.workers) if task.workers else None

    def everywhere(self, work: Callable[[], Any]) -> list[Any]:
        """Run a function in each process that has to do with the answer."""
        return [work(), *(self.client.run(work).values() if self.client is not None else ())]

    def warm_up(self, question: str) -> None:
        """Have each worker answer a question: one file is a task for one of them alone."""
        if self.client is not None:
            task = replace(self.task, workers=0)
            for worker in self.client.scheduler_info()["workers"]:
                self.client.submit(_answered, task, question, pure=False, workers=[worker]).result()

    def plan(self) -> None:
        self.frame = lazynwb_dask.read_nwb(list(self.task.urls), self.task.table, storage_options=self.options)

    def schema(self) -> Any:
        return {name: of_pandas(kind) for name, kind in self.frame.dtypes.items() if name[0] != "_"}

    def quality(self) -> Any:
        return self._good(QUALITY)[list(WANTED)].compute()

    def strict(self) -> Any:
        return self._good(STRICT)[list(WANTED)].compute()

    def psth(self) -> Any:
        units = self._good(QUALITY)[["unit_id", "spike_times"]]
        trials = lazynwb_dask.read_nwb(list(self.task.urls), "/intervals/trials", storage_options=self.options)
        return lazynwb_dask.psth(units, trials, WINDOW, bins=BINS)[["unit_id", "events", "rate"]].compute()

    def _good(self, terms: Terms) -> Any:
        units, mask = self.frame, None
        for name, sign, value in terms:
            term = {">=": units[name] >= value, "<=": units[name] <= value, "!=": units[name] != value}
            mask = term[sign] if mask is None else mask & term[sign]
        return units[mask]

    def scalars(self) -> Any:
        return self.frame[list(SCALARS)].compute()

    def texts(self) -> Any:
        return self.frame[list(TEXTS)].compute()

    def spikes(self) -> Any:
        return self.frame[["spike_times"]].compute()

    def one(self) -> Any:
        units = self.frame
        return units[units.unit_id == self.task.unit][["unit_id", "spike_times"]].compute()

    def top(self) -> Any:
        return self.frame.nlargest(1, "firing_rate")[["unit_id", "spike_times"]].compute()

    def regions(self) -> Any:
        return self.frame.structure.value_counts().compute()

    def trials(self) -> Any:
        return self.frame.compute()

    def areas(self) -> Any:
        electrodes = self.frame
        return electrodes[electrodes.location == AREA][["_nwb_path", "_table_index"]].compute()

    def samples(self) -> Any:
        return self.frame[["timestamps", "data"]].head(SAMPLES, npartitions=-1)

    def answer(self, name: str, result: Any) -> Mapping[str, Any]:
        if name == "regions":
            return {"structure": result.index.to_series(), "count": result}
        if name == "psth":
            rates = np.stack(result.rate.to_numpy()) * (WINDOW[1] - WINDOW[0]) / BINS
            return histogram(result.unit_id, np.rint(rates * result.events.to_numpy()[:, None]))
        if name == "areas":
            files = result._nwb_path.str.rsplit("/", n=1).str[-1]
            return {"file": files.drop_duplicates().reset_index(drop=True)}
        if name == "trials":
            result = result[list(TRIALS)]
        return {column: result[column] for column in result.columns}
