"""The functions that a read's tasks run on workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from lazynwb_dask.by_file.alignment import ByFile, expected
from lazynwb_dask.cluster import client as cluster
from lazynwb_dask.cluster.events import observed
from lazynwb_dask.cluster.execute import execute
from lazynwb_dask.plan.index_cache import index_cache
from lazynwb_dask.plan.tasks import Scan
from lazynwb_dask.predicate.tree import Labelled, Limit, Predicate
from lazynwb_dask.read.memory_need import COPIED
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.storage import memory_budget as memory

IN_FLIGHT = 16  # at most 1/16 of a worker's memory may be in flight


def read(
    scan: Scan, columns: tuple[str, ...], predicate: Predicate | None, limit: Limit | None, share: float = 1.0
) -> pd.DataFrame:
    """Read all partitions of a narrowed scan, of which about a `share` of the rows is left, once the worker has
    enough memory."""
    selection = Selection(columns, predicate, limit)
    with observed() as settings:
        settings = replace(settings, orders=index_cache())
        bounds = cluster.memory()
        if bounds is None:
            return execute(scan, selection, settings)
        # bytes in flight come in addition to the decoded ones
        limited = replace(settings, in_flight=min(settings.in_flight, bounds.limit // IN_FLIGHT))
        return memory.within(
            bounds,
            int(COPIED * expected(scan, selection) * share),
            lambda memory: execute(scan, selection, replace(limited, memory=memory)),
            _way_out(scan),
            settings.is_cancelled,
        )


def _way_out(scan: Any) -> str:
    """How users can avoid a task that would need too much memory."""
    more = "read fewer columns, or give workers more memory (memory_limit=)"
    if isinstance(scan, ByFile):
        return f"All rows of a file's tables are read at once to be joined: {more}"
    if not getattr(scan, "indexed", True):
        return f"With a given schema= files are read as a whole: leave it out, {more}"
    return f"Read smaller partitions (blocksize=), {more}"


def nothing(meta: pd.DataFrame) -> pd.DataFrame:
    """No rows, as none can satisfy the predicate."""
    return meta


def with_rest(frame: pd.DataFrame, scan: Scan, names: tuple[str, ...], shown: list[str]) -> pd.DataFrame:
    """Rows of a scan, with further columns of it."""
    labels = np.unique(frame.index.to_numpy())
    rest = scan.meta[list(names)]
    if len(labels):
        assert scan.divisions is not None
        parts = np.unique(np.searchsorted(scan.divisions[:-1], labels, "right") - 1)
        some = scan.narrow(names, parts.tolist())
        rows = len(labels) if some.lengths is None else int(some.lengths.sum())
        rest = read(some, names, Labelled(labels), None, len(labels) / rows)
    rest = rest.iloc[rest.index.get_indexer(frame.index)].set_axis(frame.index)
    return pd.concat([frame, rest], axis=1)[shown]


def candidates(frame: Any, n: int, kind: Any, columns: Any = None) -> Any:
    """The rows that may be among the largest or smallest, in their order. Ties are resolved as in
    pandas."""
    keys, by = (frame.to_frame("value"), "value") if columns is None else (frame, columns)
    limit = Limit(kind, n, (by,) if isinstance(by, str) else tuple(by))
    return frame.iloc[limit.rows(keys)]


def best(frame: Any, n: int, kind: str, **columns: Any) -> Any:
    """The rows with the largest or smallest values, sorted by these."""
    if len(frame) == n:
        # for so few rows pandas would use an unstable sort
        by = {"by": columns["columns"]} if columns else {}
        return frame.sort_values(**by, ascending=kind == "smallest", kind="stable")
    return (frame.nlargest if kind == "largest" else frame.nsmallest)(n, **columns)


def aligned(frame: pd.DataFrame, values: Sequence[Any]) -> list[Any]:
    """The values to assign to a frame, without rows that an empty frame doesn't have: pandas gives an empty
    frame the index of the first Series assigned, which would add rows to partitions emptied by a filter."""
    if len(frame):
        return list(values)
    return [v.iloc[:0] if isinstance(v, pd.Series) else v for v in values]
