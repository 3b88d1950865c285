"""lazynwb 1.0, at its best for each question: lazy frames, filters and columns pushed down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..workloads import QUALITY, SAMPLES, SCALARS, STRICT, TEXTS, TRIALS, WANTED, Terms
from . import Task
from .kinds import of_polars


def _allow_http() -> None:
    """Let obstore read without TLS, for which lazynwb has no setting."""
    import obstore.store

    plain = obstore.store.from_url
    options = {"client_options": {"allow_http": True}}
    obstore.store.from_url = lambda url, **keywords: plain(url, **keywords | options)


class Reader:
    def __init__(self, task: Task) -> None:
        # before the import, which reads the environment
        os.environ["LAZYNWB_CATALOG_CACHE_PATH"] = f"{task.settings['catalog']}.sqlite"
        s3 = task.urls[0].startswith("s3://")
        if s3:
            os.environ |= {
                "AWS_ENDPOINT_URL": task.endpoint,
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": "us-east-1",
            }
        import lazynwb

        lazynwb.config.anon = s3
        if not s3:
            _allow_http()
        lazynwb.config.fsspec_storage_options = {}
        self.task, self.lazynwb = task, lazynwb

    def plan(self) -> None:
        self.frame = self.lazynwb.scan_nwb(list(self.task.urls), self.task.table, disable_progress=True)

    def schema(self) -> Any:
        found = self.frame.collect_schema()
        return {name: of_polars(kind) for name, kind in found.items() if name[0] != "_"}

    def quality(self) -> Any:
        return self._good(QUALITY)

    def strict(self) -> Any:
        return self._good(STRICT)

    def _good(self, terms: Terms) -> Any:
        import polars as pl

        frame = self.frame
        for name, sign, value in terms:
            column = pl.col(name)
            frame = frame.filter({">=": column >= value, "<=": column <= value, "!=": column != value}[sign])
        return frame.select(*WANTED).collect()

    def scalars(self) -> Any:
        return self.frame.select(*SCALARS).collect()

    def texts(self) -> Any:
        return self.frame.select(*TEXTS).collect()

    def spikes(self) -> Any:
        return self.frame.select("spike_times").collect()

    def one(self) -> Any:
        import polars as pl

        return self.frame.filter(pl.col("unit_id") == self.task.unit).select("unit_id", "spike_times").collect()

    def top(self) -> Any:
        import polars as pl

        # in two steps: sorting first would read the spikes of all units
        rates = self.frame.select("unit_id", "firing_rate").collect()
        unit = rates.top_k(1, by="firing_rate")["unit_id"][0]
        return self.frame.filter(pl.col("unit_id") == unit).select("unit_id", "spike_times").collect()

    def regions(self) -> Any:
        return self.frame.select("structure").collect()["structure"].value_counts()

    def trials(self) -> Any:
        return self.frame.collect()

    def samples(self) -> Any:
        return self.frame.select("timestamps", "data").head(SAMPLES).collect()

    def answer(self, name: str, result: Any) -> Mapping[str, Any]:
        if name == "trials":
            result = result.select(*TRIALS)
        return {column: result[column] for column in result.columns}
