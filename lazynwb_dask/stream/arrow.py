"""A frame as record batches of Arrow, which other libraries take one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lazynwb_dask.stream.batches import batches

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

ROWS = 1 << 16  # of a record batch, at most


def arrow_schema(meta: pd.DataFrame) -> pa.Schema:
    """The types of Arrow that a frame's columns have, without the index."""
    return pa.Schema.from_pandas(meta, preserve_index=False).remove_metadata()


def arrow_table(rows: pd.DataFrame, schema: pa.Schema, *, nan_to_null: bool = True) -> pa.Table:
    """A frame with these types. NaN in columns of numbers become null, as in pandas, unless `nan_to_null` is
    False; in lists they stay."""
    table = pa.Table.from_pandas(rows, schema, preserve_index=False).replace_schema_metadata(schema.metadata)
    for at, field in enumerate(schema):
        values = rows[field.name]
        if not nan_to_null and isinstance(values.dtype, np.dtype) and values.dtype.kind == "f":
            table = table.set_column(at, field, pa.array(values.to_numpy(), field.type, from_pandas=False))
    return table


def record_batches(
    frame: dd.DataFrame, limit: int | None = None, *, nan_to_null: bool = True
) -> pa.RecordBatchReader:
    """The rows of a frame in order, a few partitions at a time.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
    limit : int, optional
        Only so many of the first rows.
    nan_to_null : bool
        Whether NaN in columns of numbers become null. In lists they stay.

    Returns
    -------
    pyarrow.RecordBatchReader
        Nothing is read before the first batch is asked for, and nothing after the reader is closed.
    """
    schema = arrow_schema(frame._meta)

    def made() -> Iterator[pa.RecordBatch]:
        for rows in batches(frame, limit):
            yield from arrow_table(rows, schema, nan_to_null=nan_to_null).to_batches(ROWS)

    return pa.RecordBatchReader.from_batches(schema, made())
