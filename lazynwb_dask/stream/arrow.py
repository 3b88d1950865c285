"""A frame as record batches of Arrow, which other libraries take one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from lazynwb_dask.stream.batches import batches

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

ROWS = 1 << 16  # of a record batch, at most


def arrow_schema(meta: pd.DataFrame) -> pa.Schema:
    """The types of Arrow that a frame's columns have, without the index."""
    return pa.Schema.from_pandas(meta, preserve_index=False).remove_metadata()


def arrow_table(rows: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """A frame with these types. NaN in columns of numbers become null, as in pandas; in lists they stay."""
    return pa.Table.from_pandas(rows, schema, preserve_index=False).replace_schema_metadata(schema.metadata)


def record_batches(frame: dd.DataFrame, limit: int | None = None) -> pa.RecordBatchReader:
    """The rows of a frame in order, a few partitions at a time.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
    limit : int, optional
        Only so many of the first rows.

    Returns
    -------
    pyarrow.RecordBatchReader
        Nothing is read before the first batch is asked for, and nothing after the reader is closed.
    """
    schema = arrow_schema(frame._meta)

    def made() -> Iterator[pa.RecordBatch]:
        for rows in batches(frame, limit):
            yield from arrow_table(rows, schema).to_batches(max_chunksize=ROWS)

    return pa.RecordBatchReader.from_batches(schema, made())
