"""Spike counts of one session as an array of units x trials x bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
from dask.utils import parse_bytes

from lazynwb_dask import expr
from lazynwb_dask.analysis import kernels
from lazynwb_dask.analysis.aligned import SPIKES, is_nested, list_column, list_of
from lazynwb_dask.by_file.alignment import Plan
from lazynwb_dask.by_file.map import map_over
from lazynwb_dask.errors import NWBError
from lazynwb_dask.predicate.tree import Labelled, then
from lazynwb_dask.stream.values import values_of


def rows_per_block(row: int) -> int:
    """How many rows of so many numbers Dask's setting ``array.chunk-size`` allows in a block."""
    return max(1, int(parse_bytes(dask.config.get("array.chunk-size"))) // (8 * max(row, 1)))


def small_columns(plan: Plan) -> Any:
    """A Dask frame of the columns that aren't lists, with the path and the row in the table."""
    always = {"_nwb_path", "_table_index"}
    kept = [c for c in plan.scan.meta.columns
            if c in always or (c in plan.columns and not is_nested(plan.scan.meta[c].dtype))]  # fmt: skip
    return expr.from_scan(plan.scan, plan.predicate)[kept]


@dataclass(frozen=True, eq=False)
class _Counted:
    """The counts of each unit, all trials one after the other."""

    edges: kernels.Floats
    __name__ = "spike_counts"

    def __call__(self, units: pd.DataFrame) -> pd.DataFrame:
        some = kernels.counts(kernels.rising(kernels.lists(units[SPIKES])), self.edges)
        size = some.shape[1] * some.shape[2]
        return pd.DataFrame({"counts": list_column(some.ravel(), np.arange(len(units) + 1) * size)})


def _matrix(frame: pd.DataFrame, shape: tuple[int, ...]) -> kernels.Ints:
    if len(frame) != shape[0]:
        raise NWBError(
            f"spike_counts: {len(frame)} units are there, and not {shape[0]} as before: call it again"
        )
    flat: kernels.Ints = frame["counts"].list.flatten().to_numpy(np.int64)
    return flat.reshape(shape)


def count_matrix(units: Plan, rows: pd.DataFrame, edges: kernels.Floats) -> da.Array:
    """Units x trials x bins, in blocks of units. `rows` are the units, which have been read; of one file."""
    trials, bins = edges.shape[0], edges.shape[1] - 1
    if not (len(rows) and trials):
        return da.zeros((len(rows), trials, bins), dtype=np.int64)
    of_parts = units.scan.constant_frame(["_nwb_path"])["_nwb_path"].to_numpy(object)
    parts = np.flatnonzero(of_parts == rows["_nwb_path"].iloc[0])
    scan = units.scan.narrow([*units.scan.meta.columns], parts.tolist())
    step = rows_per_block(trials * bins) if rows.index.is_unique else len(rows)
    meta = pd.DataFrame({"counts": pd.Series([], dtype=list_of(pa.int64()))})
    blocks = []
    for first in range(0, len(rows), step):
        labels = rows.index[first : first + step].to_numpy()
        some = units.predicate
        if len(labels) < len(rows):
            some = then(some, Labelled(np.sort(labels)))
        mapped = map_over(_Counted(edges), {"units": Plan(scan, [SPIKES], some)}, meta)
        shape = (len(labels), trials, bins)
        (frame,) = expr.from_scan(mapped).to_delayed()
        blocks.append(da.from_delayed(dask.delayed(_matrix)(frame, shape), shape, np.int64))
    return da.concatenate(blocks)


def coordinates(rows: pd.DataFrame, dim: str, taken: Sequence[str]) -> dict[str, Any]:
    """The columns of a table as coordinates of one dimension, of which its row numbers are the index. Those
    whose name is taken begin with the dimension's."""
    here = rows["_table_index"].to_numpy() if "_table_index" in rows else np.arange(len(rows))
    found: dict[str, Any] = {dim: (dim, here)}
    for name in rows.columns:
        if name not in ("_nwb_path", "_table_path", "_table_index"):
            found[f"{dim}_{name}" if name in (dim, *taken) else name] = (dim, values_of(rows[name]))
    return found
