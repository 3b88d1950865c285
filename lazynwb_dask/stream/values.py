"""Columns of pandas as arrays of NumPy and Arrow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


def values_of(column: pd.Series[Any]) -> Any:
    """A column as a NumPy array; integers that may be missing are floats where they are. Times with a zone are
    in UTC."""
    if column.dtype.kind == "M" and column.dt.tz is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    if column.isna().any() and column.dtype.kind in "iuf":
        return column.to_numpy(np.float64, na_value=np.nan)
    if column.dtype.kind in "iufbM" and not (column.dtype.kind == "b" and column.isna().any()):
        return column.to_numpy()
    return column.astype(object).where(column.notna(), None).to_numpy()


def arrow_of(column: pd.Series[Any]) -> pa.Array:
    """A column as one array of Arrow."""
    array = pa.array(column.array)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def lengths_of(lists: pa.Array) -> Any:
    """How long each list is, int64; zero where it is missing."""
    return np.asarray(lists.value_lengths().fill_null(0), np.int64)
