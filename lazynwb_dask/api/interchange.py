"""Frames and series as objects of other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb_dask.interchange.columns import check_frame
from lazynwb_dask.interchange.polars_source import lazy_frame
from lazynwb_dask.stream.arrow import record_batches

if TYPE_CHECKING:
    import dask.dataframe as dd
    import polars as pl
    import pyarrow as pa


def to_arrow(frame: dd.DataFrame, *, nan_to_null: bool = False) -> pa.RecordBatchReader:
    """The rows of a frame in order, as record batches of Arrow, read a few partitions at a time.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        Of `read_nwb`, or made of one.
    nan_to_null : bool
        Whether NaN in columns of numbers become null. In lists they stay.

    Returns
    -------
    pyarrow.RecordBatchReader
        Ragged columns are lists. Without the index. Nothing is read before the first batch is asked for.

    Raises
    ------
    TypeError
        A column holds Python objects.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions(getfixture("tmp_path"), n=2, units=5), "/units")
    >>> sum(batch.num_rows for batch in to_arrow(units[["unit_id", "spike_times"]]))
    10
    """
    check_frame(frame, "to_arrow")
    return record_batches(frame, nan_to_null=nan_to_null)


def to_polars(frame: dd.DataFrame) -> pl.LazyFrame:
    """A frame as a `polars.LazyFrame`, of which a query reads what it needs.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        Of `read_nwb`, or made of one, perhaps with computed columns.

    Returns
    -------
    polars.LazyFrame
        The columns of the frame, without the index; ragged columns are `polars.List`. Nothing is read before
        it is collected.

    Raises
    ------
    ImportError
        Polars isn't installed.
    TypeError
        A column holds Python objects.

    See Also
    --------
    to_arrow : record batches, for other libraries.

    Notes
    -----
    A query reads the columns that it uses, and of a `head` its rows. Comparisons of columns with numbers, texts
    and truth values, `is_in`, `is_between`, `is_null`, `is_nan`, and these combined by ``&``, ``|`` and ``~``,
    are conditions on the frame: so other columns are read for the rows that pass. All other conditions are
    applied by Polars to what was read. Dask reads a few partitions at a time, on its scheduler or the active
    client, and `sink_parquet` and the streaming engine hold no more of them.

    NaN stay NaN, which Polars takes to be greater than all numbers; null is what is missing in columns of other
    types. Columns of floats that a file lacks are NaN in its rows, as they are in the frame.

    Examples
    --------
    >>> import polars as pl
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = to_polars(read_nwb(make_sessions(getfixture("tmp_path"), n=2), "/units"))
    >>> good = units.filter(pl.col("presence_ratio") >= 0.9).select("unit_id", "spike_times").collect()
    >>> good.schema["spike_times"]
    List(Float64)
    """
    check_frame(frame, "to_polars")
    return lazy_frame(frame, "to_polars")
