"""Results of DuckDB as frames of pandas, with the dtypes that tables of NWB files have."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

TEXT = pd.StringDtype("pyarrow")


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A table as a frame. Whole numbers and bools with missing values have Arrow's dtypes."""
    columns = [_series(column) for column in table.columns]
    found = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(table.num_rows))
    return found.set_axis(table.column_names, axis=1)


def _series(column: pa.ChunkedArray) -> pd.Series[Any]:
    kind = column.type
    if pa.types.is_decimal(kind) and kind.scale == 0:  # the sum of whole numbers
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid:
            return pd.Series(pd.array(column, dtype=pd.ArrowDtype(kind)))
        kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = pc.cast(column, pa.string()), pa.string()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pd.Series(TEXT.__from_arrow__(column))  # type: ignore[attr-defined]
    plain = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if pa.types.is_floating(kind) or pa.types.is_timestamp(kind) or (plain and not column.null_count):
        made: pd.Series[Any] = column.to_pandas()
        return made
    if pa.types.is_interval(kind) or pa.types.is_union(kind):
        return pd.Series(column.to_pylist(), dtype=object)
    return pd.Series(pd.ArrowDtype(kind).__from_arrow__(column))  # type: ignore[attr-defined]
