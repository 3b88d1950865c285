"""Dask's read_parquet of the same tables in Parquet: as it comes, and at its best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask
import dask.dataframe as dd

from ..workloads import QUALITY, SCALARS, STRICT, TEXTS, TRIALS, WANTED, Terms
from . import Task


class Reader:
    def __init__(self, task: Task) -> None:
        self.task = task
        self.keywords: dict[str, Any] = {}
        if task.threads:
            dask.config.set(scheduler="threads", num_workers=task.threads)
            self.keywords["filesystem"] = "arrow"
        if task.urls[0].startswith("s3://"):
            if task.threads:
                from pyarrow.fs import S3FileSystem

                self.keywords["filesystem"] = S3FileSystem(
                    anonymous=True,
                    endpoint_override=task.endpoint.removeprefix("http://"),
                    scheme="http",
                    region="us-east-1",
                )
            else:
                options = {"anon": True, "endpoint_url": task.endpoint}
                self.keywords["storage_options"] = options

    def plan(self) -> None:
        self.frame = self._read()
        self.frame.columns  # noqa: B018  (reads the schema)

    def _read(self, **keywords: Any) -> Any:
        return dd.read_parquet(list(self.task.urls), **self.keywords, **keywords)

    def _chosen(self, filters: Any, columns: Sequence[str]) -> Any:
        return self._read(filters=filters, columns=list(columns)).compute()

    def quality(self) -> Any:
        return self._good(QUALITY)

    def strict(self) -> Any:
        return self._good(STRICT)

    def _good(self, terms: Terms) -> Any:
        return self._chosen(list(terms), WANTED)

    def scalars(self) -> Any:
        return self.frame[list(SCALARS)].compute()

    def texts(self) -> Any:
        return self.frame[list(TEXTS)].compute()

    def spikes(self) -> Any:
        return self.frame[["spike_times"]].compute()

    def one(self) -> Any:
        return self._chosen([("unit_id", "==", self.task.unit)], ["unit_id", "spike_times"])

    def top(self) -> Any:
        rates = self.frame[["unit_id", "firing_rate"]].compute()
        unit = int(rates.nlargest(1, "firing_rate").unit_id.iloc[0])
        return self._chosen([("unit_id", "==", unit)], ["unit_id", "spike_times"])

    def regions(self) -> Any:
        return self.frame.structure.value_counts().compute()

    def trials(self) -> Any:
        return self.frame.compute()

    def answer(self, name: str, result: Any) -> Mapping[str, Any]:
        if name == "regions":
            return {"structure": result.index.to_series(), "count": result}
        if name == "trials":
            result = result[list(TRIALS)]
        return {column: result[column] for column in result.columns}
