"""lazynwb 1.0, at its best for each question: lazy frames, filters and columns pushed down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..workloads import BINS, QUALITY, SAMPLES, SCALARS, STRICT, TEXTS, TRIALS, WANTED, WINDOW, Terms
from . import Task
from .kinds import histogram, of_polars


def _allow_http() -> None:
    """Let obstore read without TLS, for which lazynwb has no setting."""
    import obstore.store

    plain = obstore.store.from_url
    options = {"client_options": {"allow_http": True}}

    def from_url(url: str, **keywords: Any) -> Any:
        return plain(url, **options) if url.startswith("http") else plain(url, **keywords)

    obstore.store.from_url = from_url


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
        self.task, self.lazynwb, self.whole = task, lazynwb, lazynwb.get_df

    def plan(self) -> None:
        self.frame = self.lazynwb.scan_nwb(list(self.task.urls), self.task.table, disable_progress=True)

    def schema(self) -> Any:
        found = self.frame.collect_schema()
        return {name: of_polars(kind) for name, kind in found.items() if name[0] != "_"}

    def quality(self) -> Any:
        return self._good(QUALITY, WANTED)

    def strict(self) -> Any:
        return self._good(STRICT, WANTED)

    def psth(self) -> Any:
        import polars as pl
        from lazynwb import tables

        # it reads whole tables, and can't where one has references
        tables.get_df = partial(self.whole, exclude_column_names=["electrode_group"])
        start = pl.col("start_time")
        units = self._good(QUALITY, ("unit_id", "_nwb_path", "_table_index"))
        if self.task.urls[0].startswith("s3://"):  # for which it asks Amazon, whatever the endpoint
            _allow_http()
            path = pl.col("_nwb_path").str.replace("s3://", f"{self.task.endpoint}/", literal=True)
            units = units.with_columns(path)
        aligned = tables.get_spike_times_in_intervals(
            units,
            {"spikes": (start + WINDOW[0], start + WINDOW[1])},
            apply_obs_intervals=False,
            use_process_pool=False,  # which knows nothing of this process's settings
            disable_progress=True,
            as_polars=True,
            align_times=True,
        )
        spikes = aligned.select("unit_id", "spikes").explode("spikes").drop_nulls()
        names = np.unique(aligned["unit_id"].to_numpy())
        counts = np.zeros((len(names), BINS))
        place = dict(zip(names.tolist(), range(len(names)), strict=True))
        row = spikes["unit_id"].replace_strict(place).to_numpy()
        edges = np.linspace(*WINDOW, BINS + 1)
        bins = np.searchsorted(edges, spikes["spikes"].to_numpy(), side="right") - 1
        inside = (bins >= 0) & (bins < BINS)
        np.add.at(counts, (row[inside], bins[inside]), 1)
        return {"unit_id": names, "counts": counts}

    def _good(self, terms: Terms, columns: Sequence[str]) -> Any:
        import polars as pl

        frame = self.frame
        for name, sign, value in terms:
            column = pl.col(name)
            frame = frame.filter({">=": column >= value, "<=": column <= value, "!=": column != value}[sign])
        return frame.select(*columns).collect()

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
        if name == "psth":
            return histogram(result["unit_id"], result["counts"])
        if name == "trials":
            result = result.select(*TRIALS)
        return {column: result[column] for column in result.columns}
