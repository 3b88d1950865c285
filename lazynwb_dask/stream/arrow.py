"""A frame as record batches of Arrow, which other libraries take one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask import expr
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.stream.batches import batches

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

Missing = Mapping[str, Sequence[str]]  # column to files
ROWS = 1 << 16  # of a record batch, at most


def arrow_schema(meta: pd.DataFrame) -> pa.Schema:
    """The types of Arrow that a frame's columns have, without the index."""
    return pa.Schema.from_pandas(meta, preserve_index=False).remove_metadata()


def arrow_table(rows: pd.DataFrame, schema: pa.Schema, *, nan_to_null: bool = True) -> pa.Table:
    """A frame with these types. NaN in columns of numbers become null, as in pandas, unless `nan_to_null` is
    False; in lists they stay."""
    try:
        table = pa.Table.from_pandas(rows, schema, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as exc:
        raise TypeError(
            f"{'; '.join(map(str, exc.args))}: the values have other types than the frame's dtypes say: give "
            f"the column its type, as frame.astype({{name: 'string[pyarrow]'}}), or leave it out"
        ) from exc
    table = table.replace_schema_metadata(schema.metadata)
    for at, field in enumerate(schema):
        values = rows[field.name]
        stored = pa.types.is_floating(field.type)  # NaN in integers: rows without a match in a join
        if stored and not nan_to_null and isinstance(values.dtype, np.dtype) and values.dtype.kind == "f":
            table = table.set_column(at, field, pa.array(values.to_numpy(), field.type, from_pandas=False))
    return table


def missing_in_files(frame: dd.DataFrame) -> tuple[dd.DataFrame, Missing]:
    """Which files lack which columns of floats, whose NaN there are none that are stored; and the frame, with
    `_nwb_path` if that is needed to tell. Known of a read of one table."""
    scan, columns, predicate = expr.taken_apart(frame) or (None, [], None)
    missing: dict[str, list[str]] = {}
    if isinstance(scan, Scan) and scan.indexed:
        floats = [n for n, t in frame.dtypes.items() if isinstance(t, np.dtype) and t.kind == "f"]
        lacking = {name: np.flatnonzero(scan.files.lacks(name)) for name in floats if name in scan.meta}
        missing = {name: [scan.files.urls[i] for i in some] for name, some in lacking.items() if len(some)}
    if scan is not None and missing and "_nwb_path" not in columns:
        return expr.from_scan(scan, predicate)[[*columns, "_nwb_path"]], missing
    return frame, missing


def set_missing(table: pa.Table, rows: pd.DataFrame, missing: Missing) -> pa.Table:
    """The table with null in columns that the rows' files lack."""
    for at, field in enumerate(table.schema):
        if field.name in missing:
            lacking = pa.array(rows["_nwb_path"].isin(missing[field.name]).to_numpy(bool))
            table = table.set_column(at, field, pc.if_else(lacking, pa.scalar(None, field.type), table[at]))
    return table


def record_batches(
    frame: dd.DataFrame, limit: int | None = None, *, nan_to_null: bool = True, missing: Missing | None = None
) -> pa.RecordBatchReader:
    """The rows of a frame in order, a few partitions at a time.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
    limit : int, optional
        Only so many of the first rows.
    nan_to_null : bool
        Whether NaN in columns of numbers become null; else those that files lack. In lists they stay.
    missing : mapping, optional
        What `missing_in_files` said of a frame that this one is made of.

    Returns
    -------
    pyarrow.RecordBatchReader
        Nothing is read before the first batch is asked for, and nothing after the reader is closed.
    """
    schema = arrow_schema(frame._meta)
    if missing is None:
        frame, missing = (frame, {}) if nan_to_null else missing_in_files(frame)

    def made() -> Iterator[pa.RecordBatch]:
        for rows in batches(frame, limit):
            table = arrow_table(rows[schema.names] if missing else rows, schema, nan_to_null=nan_to_null)
            yield from set_missing(table, rows, missing).to_batches(ROWS)

    return pa.RecordBatchReader.from_batches(schema, made())
