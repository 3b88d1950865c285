"""Frames and series as objects of other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from lazynwb_dask.api.arguments import check_bools
from lazynwb_dask.interchange import awkward_array, pynapple_objects, xarray_table
from lazynwb_dask.interchange.columns import check_frame
from lazynwb_dask.interchange.polars_source import lazy_frame
from lazynwb_dask.stream.arrow import arrow_schema, missing_in_files, record_batches
from lazynwb_dask.timeseries.series import TimeSeries
from lazynwb_dask.util.extras import optional

if TYPE_CHECKING:
    import awkward as ak
    import dask.dataframe as dd
    import polars as pl
    import pyarrow as pa
    import xarray

    Frame: TypeAlias = dd.DataFrame | pd.DataFrame


def to_arrow(frame: dd.DataFrame, *, nan_to_null: bool = False) -> pa.RecordBatchReader:
    """Return the rows of a frame as a stream of Arrow record batches, in order.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        Made by `read_nwb`, or derived from such a frame.
    nan_to_null : bool, default False
        Replace NaN in columns of numbers by null. Values that files lack are null in any case. NaN in lists is
        kept.

    Returns
    -------
    pyarrow.RecordBatchReader
        The columns of the frame without its index; ragged columns are lists. Partitions are read a few at a
        time, as batches are requested.

    Raises
    ------
    TypeError
        The frame is not a Dask DataFrame, or a column has Python objects.
    ValueError
        Several columns have the same name.

    See Also
    --------
    to_polars : a LazyFrame, whose queries read only what they need.
    export_tables : Parquet files of whole tables.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb, to_arrow
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2, units=5), "/units")
    >>> sum(batch.num_rows for batch in to_arrow(units[["unit_id", "spike_times"]]))
    10
    """
    check_bools(nan_to_null=nan_to_null)
    check_frame(frame, "to_arrow", dask=True)
    return record_batches(frame, nan_to_null=nan_to_null)


def to_polars(frame: dd.DataFrame) -> pl.LazyFrame:
    """Return a frame as a `polars.LazyFrame`. Its queries read only what they need.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        Made by `read_nwb`, or derived from such a frame.

    Returns
    -------
    polars.LazyFrame
        The columns of the frame without its index; ragged columns are `polars.List`. Nothing is read before
        `collect`.

    Raises
    ------
    ImportError
        Polars is not installed: ``pip install 'lazynwb-dask[polars]'``.
    TypeError
        The frame is not a Dask DataFrame, or a column has Python objects.
    ValueError
        Several columns have the same name.

    See Also
    --------
    to_arrow : record batches, for other libraries.

    Notes
    -----
    A query reads the columns that it uses, and the rows of a `head`. Some conditions are passed to Dask, so
    that other columns are read only for the matching rows: comparisons of a column with a number, text or bool,
    `is_in`, `is_between`, `is_null`, `is_nan`, and combinations of these with ``&``, ``|`` and ``~``. Polars
    applies all other conditions after reading.

    Dask reads a few partitions at a time, with its scheduler or the active client. With Polars' streaming
    engine, only these are in memory; `sink_parquet` also holds a row group, so use a small `row_group_size` for
    rows with spike times. Results of a sort or a join in Dask are computed first, and held in memory.

    NaN that is stored stays NaN. Polars sorts it after all numbers. Values that a file lacks are null. But in
    float columns of a frame that is not a plain read of one table, they are NaN, as in the frame.

    Examples
    --------
    >>> import polars as pl
    >>> from lazynwb_dask import read_nwb, to_polars
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = to_polars(read_nwb(make_sessions("sessions", n=2), "/units"))
    >>> good = units.filter(pl.col("presence_ratio") >= 0.9).select("unit_id", "spike_times").collect()
    >>> good.schema["spike_times"]
    List(Float64)
    """
    check_frame(frame, "to_polars", dask=True)
    return lazy_frame(frame, "to_polars")


def to_xarray(frame: Frame, *, dim: str = "row") -> xarray.Dataset:
    """Return the rows of a table as an `xarray.Dataset`. The frame is computed.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or pandas.DataFrame
        Made by `read_nwb`, or derived from such a frame. Select columns and rows first.
    dim : str, default "row"
        The name of the dimension of rows. Its coordinate is the index of the frame.

    Returns
    -------
    xarray.Dataset
        One variable for each column. Arrays of a fixed shape, such as `waveform_mean`, have further dimensions
        ``waveform_mean_dim_1``, ... A ragged column becomes two variables: all values, along the dimension
        ``spike_times_sample``, and the number of values of each row, ``spike_times_row_size``. Fields of
        structs become variables, such as ``timeseries_count``. If the frame is a read of one table, variables
        have the attributes `description`, `unit` and `units` of the first file.

    Raises
    ------
    ImportError
        xarray is not installed: ``pip install 'lazynwb-dask[xarray]'``.
    UnsupportedColumnError
        A column is ragged in more than one dimension.
    TypeError
        `frame` is not a DataFrame, or a column has Python objects.
    ValueError
        Variables and dimensions would have the same name.

    See Also
    --------
    lazynwb_dask.timeseries.series.TimeSeries.to_xarray : a TimeSeries as lazy arrays.
    spike_counts : units x trials x bins.

    Notes
    -----
    A column is ragged if it has a VectorIndex in the file. If the frame is not a plain read of a table
    (computed columns, joins, persisted frames), it is ragged if the lengths of its lists differ. Integer
    columns with missing values become float64 with NaN. A missing text is None or NaN, a missing list is empty.
    Times with a zone become UTC.

    Ragged columns are contiguous ragged arrays of the CF Metadata Conventions 1.12, section 9.3.3.

    Examples
    --------
    >>> import numpy as np
    >>> from lazynwb_dask import read_nwb, to_xarray
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2, units=5), "/units")
    >>> found = to_xarray(units[["unit_id", "spike_times", "waveform_mean"]], dim="unit")
    >>> found.waveform_mean.dims
    ('unit', 'waveform_mean_dim_1', 'waveform_mean_dim_2')
    >>> spikes = np.split(found.spike_times.values, found.spike_times_row_size.values.cumsum()[:-1])
    >>> len(spikes)
    10
    """
    optional("xarray", "to_xarray")  # before anything is read
    check_frame(frame, "to_xarray", more="; a TimeSeries has a method to_xarray()")
    if not isinstance(dim, str) or not dim:
        raise TypeError(f"to_xarray: dim={dim!r}: must be text, the name of the dimension of the rows")
    known = xarray_table.known_of(frame)
    found: xarray.Dataset = xarray_table.dataset(_computed(frame), known, dim)
    return found


def to_pynapple(data: Frame | TimeSeries, *, scaled: bool = False) -> Any:
    """Return units, trials or a TimeSeries of one session as a pynapple object. The data are read.

    Parameters
    ----------
    data : dask.dataframe.DataFrame, pandas.DataFrame or TimeSeries
        A frame with `spike_times`; a frame with `start_time` and `stop_time`; or a series of `open_timeseries`.
    scaled : bool, default False
        For a series: convert the data to its unit.

    Returns
    -------
    pynapple.TsGroup
        For units. The index is `id` if its values are unique, or else `_table_index`. Columns that are not
        lists are metadata; missing texts are ``""``, and a column `rate` is called ``rate_in_table``. The time
        support is the union of the units' `obs_intervals` if the frame has them; spikes outside are left out
        with a warning. Otherwise it is from the first to the last spike. Times that are not finite are left
        out.
    pynapple.IntervalSet
        For trials and other intervals, sorted by start, with the other columns as metadata. pynapple merges
        overlapping intervals, and drops intervals without start, stop or duration. In these cases it warns, and
        drops all metadata.
    pynapple.Tsd, pynapple.TsdFrame or pynapple.TsdTensor
        For a series with one, two or more dimensions. Samples whose time is not finite are left out.

    Raises
    ------
    ImportError
        pynapple is not installed: ``pip install 'lazynwb-dask[pynapple]'``.
    ValueError
        The frame has rows of several files.
    TypeError
        `data` is something else.
    UnsupportedColumnError
        `spike_times` has no lists of numbers, or the series has no numbers.
    NWBError
        The series has no timestamps that can be read.

    See Also
    --------
    open_timeseries : returns a series.
    spike_counts : counts of a session, with xarray.

    Notes
    -----
    Lists other than `spike_times` and `obs_intervals` are not read. pynapple rounds times to nanoseconds.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb, to_pynapple
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2, units=5)
    >>> units = read_nwb(paths, "/units")[["id", "structure", "spike_times", "_nwb_path"]]
    >>> group = to_pynapple(units[units._nwb_path == paths[0]])
    >>> len(group), "structure" in group.metadata_columns
    (5, True)
    """
    optional("pynapple", "to_pynapple")  # before anything is read
    check_bools(scaled=scaled)
    if isinstance(data, TimeSeries):
        return pynapple_objects.series_of(data, scaled)
    check_frame(data, "to_pynapple", more=", or a TimeSeries of open_timeseries")
    columns = {*data.columns}
    if pynapple_objects.SPIKES in columns:
        return pynapple_objects.group(pynapple_objects.session_rows(data))
    if columns >= {*pynapple_objects.SPAN}:
        return pynapple_objects.intervals(pynapple_objects.session_rows(data))
    raise TypeError(
        "to_pynapple: a frame with a column spike_times, or with start_time and stop_time; this one has "
        f"{', '.join(map(str, data.columns[:10]))}"
    )


def to_awkward(frame: Frame) -> ak.Array:
    """Return the rows of a table as an Awkward Array of records. The frame is computed.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or pandas.DataFrame
        Made by `read_nwb`, or derived from such a frame. Select columns and rows first.

    Returns
    -------
    awkward.Array
        One field for each column, without the index. Ragged columns and arrays are lists, structs are records.
        Types are option types where values are missing. NaN that is stored stays NaN.

    Raises
    ------
    ImportError
        Awkward Array is not installed: ``pip install 'lazynwb-dask[awkward]'``.
    TypeError
        `frame` is not a DataFrame, or a column has Python objects.
    ValueError
        Several columns have the same name.

    See Also
    --------
    to_arrow : record batches, a few partitions at a time.

    Examples
    --------
    >>> import awkward as ak
    >>> from lazynwb_dask import read_nwb, to_awkward
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2, units=5), "/units")
    >>> found = to_awkward(units[["unit_id", "spike_times"]])
    >>> print(found.type)
    10 * {unit_id: int64, spike_times: var * float64}
    >>> len(ak.count(found.spike_times[found.spike_times < 60.0], axis=1))
    10
    """
    optional("awkward", "to_awkward")  # before anything is read
    check_frame(frame, "to_awkward")
    schema = arrow_schema(frame.iloc[:0] if isinstance(frame, pd.DataFrame) else frame._meta)
    wide, missing = (frame, {}) if isinstance(frame, pd.DataFrame) else missing_in_files(frame)
    return awkward_array.records(_computed(wide), schema, missing)


def _computed(frame: Frame) -> pd.DataFrame:
    rows: pd.DataFrame = frame if isinstance(frame, pd.DataFrame) else frame.compute()
    return rows
