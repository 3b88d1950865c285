"""Frames and series as objects of other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from lazynwb_dask.api.arguments import check_bools
from lazynwb_dask.interchange import awkward_array, pynapple_objects, xarray_table
from lazynwb_dask.interchange.columns import check_frame
from lazynwb_dask.interchange.polars_source import lazy_frame
from lazynwb_dask.stream.arrow import missing_in_files, record_batches
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
    """The rows of a frame in order, as record batches of Arrow, read a few partitions at a time.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        Of `read_nwb`, or made of one.
    nan_to_null : bool
        Whether NaN in columns of numbers become null, and not only what files lack. In lists they stay.

    Returns
    -------
    pyarrow.RecordBatchReader
        Ragged columns are lists. Without the index. Nothing is read before the first batch is asked for.

    Raises
    ------
    TypeError
        A column holds Python objects.

    See Also
    --------
    to_polars : a LazyFrame, of which a query reads what it needs.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2, units=5), "/units")
    >>> sum(batch.num_rows for batch in to_arrow(units[["unit_id", "spike_times"]]))
    10
    """
    check_bools(nan_to_null=nan_to_null)
    check_frame(frame, "to_arrow", dask=True)
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
    client, and the streaming engine holds no more of them; `sink_parquet` holds the rows of a row group, too:
    give it a `row_group_size` for rows with spikes. What Dask must have whole, as a sort or a join of two
    frames, is computed first, and held in memory.

    A stored NaN stays NaN, which Polars takes to be greater than all numbers. What a file lacks is null;
    of floats only where the frame is a read of one table: else it is NaN, as in the frame.

    Examples
    --------
    >>> import polars as pl
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = to_polars(read_nwb(make_sessions("sessions", n=2), "/units"))
    >>> good = units.filter(pl.col("presence_ratio") >= 0.9).select("unit_id", "spike_times").collect()
    >>> good.schema["spike_times"]
    List(Float64)
    """
    check_frame(frame, "to_polars", dask=True)
    return lazy_frame(frame, "to_polars")


def to_xarray(frame: Frame, *, dim: str = "row") -> xarray.Dataset:
    """The rows of a table as an `xarray.Dataset`. The frame is computed.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or pandas.DataFrame
        Of `read_nwb`, or made of one: select columns and rows first.
    dim : str
        What to call the dimension of rows. Its coordinate is the frame's index.

    Returns
    -------
    xarray.Dataset
        A variable for each column. Arrays of a fixed shape (`waveform_mean`) have dimensions of their own:
        ``waveform_mean_dim_1``, ... A ragged column is a contiguous ragged array, as in the CF conventions: the
        lists one after the other, along ``spike_times_sample``, and how many are each row's, in
        ``spike_times_row_size``. Fields of structs are variables, as ``timeseries_count``. The attributes
        `description`, `unit` and `units` are those of the first file, if the frame is a read of one table.

    Raises
    ------
    ImportError
        xarray isn't installed.
    UnsupportedColumnError
        A column is ragged in more than one dimension.
    TypeError
        A column holds Python objects.
    ValueError
        Two variables would have the same name, or one that of another one's dimension.

    See Also
    --------
    lazynwb_dask.timeseries.series.TimeSeries.to_xarray : a series, lazily.
    spike_counts : units x trials x bins.

    Notes
    -----
    In the file, a VectorIndex makes a column ragged. Of frames that are more than a read (computed columns,
    joins, persisted), lists are taken to be ragged if their lengths differ. Missing integers make floats with
    NaN, missing texts are null (`isnull`), a missing list is empty. Times with a zone are in UTC.

    References
    ----------
    CF Metadata Conventions 1.12, section 9.3.3, "Contiguous ragged array representation".

    Examples
    --------
    >>> import numpy as np
    >>> from lazynwb_dask import read_nwb
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
    """Units, trials or a series of one session as an object of pynapple. What it holds is read.

    Parameters
    ----------
    data : dask.dataframe.DataFrame, pandas.DataFrame or TimeSeries
        A frame with `spike_times`; one with `start_time` and `stop_time`; or what `open_timeseries` returns.
    scaled : bool
        A series in its unit rather than as stored.

    Returns
    -------
    pynapple.TsGroup
        Of units. Its index is `id`, if these are unique, else `_table_index`. The other columns that aren't
        lists are metadata, missing texts as ``""`` (`rate`, a name of pynapple's, is ``rate_in_table``).
        The time support, of which pynapple has one for all units, is the union of their `obs_intervals`, if the
        frame has them, and spikes outside are left out, with a warning; else it is from the first spike to the
        last. Times that aren't finite are no spikes.
    pynapple.IntervalSet
        Of trials, epochs and the like, by their starts, with the other columns as metadata. pynapple itself
        joins intervals that overlap and leaves out those without a start, stop or duration. It warns, and drops
        all metadata if intervals have changed.
    pynapple.Tsd, pynapple.TsdFrame or pynapple.TsdTensor
        Of a series with one, two or more dimensions: its samples by their times, without those whose time isn't
        finite.

    Raises
    ------
    ImportError
        pynapple isn't installed.
    ValueError
        The frame has rows of several files.
    TypeError
        It is nothing of these.
    UnsupportedColumnError, NWBError
        Spike times aren't lists of numbers, a series has no numbers, or no timestamps.

    See Also
    --------
    open_timeseries : gives a series.
    spike_counts : counts of a session, by xarray.

    Notes
    -----
    Other lists than `spike_times` and `obs_intervals` are not read. pynapple rounds times to nanoseconds.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2, units=5)
    >>> units = read_nwb(paths, "/units")[["id", "structure", "spike_times", "_nwb_path"]]
    >>> group = to_pynapple(units[units._nwb_path == paths[0]])  # doctest: +SKIP
    >>> group.getby_category("structure")  # doctest: +SKIP
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
    """The rows of a table as an Awkward Array of records. The frame is computed.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or pandas.DataFrame
        Of `read_nwb`, or made of one: select columns and rows first. Of pandas, one of its partitions.

    Returns
    -------
    awkward.Array
        A field for each column, without the index. Ragged columns and arrays are lists of any depth, structs
        are records. Types are options where something is missing, as in `to_polars`. A stored NaN stays NaN.

    Raises
    ------
    ImportError
        Awkward Array isn't installed.
    TypeError
        A column holds Python objects.

    See Also
    --------
    to_arrow : record batches, a few partitions at a time.

    Examples
    --------
    >>> import awkward as ak
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2, units=5), "/units")
    >>> found = to_awkward(units[["unit_id", "spike_times"]])
    >>> print(found.type)
    10 * {unit_id: int64, spike_times: var * float64}
    >>> ak.count(found.spike_times[found.spike_times < 60.0], axis=1).ndim
    1
    """
    optional("awkward", "to_awkward")  # before anything is read
    check_frame(frame, "to_awkward")
    names = frame.columns.tolist()
    wide, missing = (frame, {}) if isinstance(frame, pd.DataFrame) else missing_in_files(frame)
    return awkward_array.records(_computed(wide), names, missing)


def _computed(frame: Frame) -> pd.DataFrame:
    rows: pd.DataFrame = frame if isinstance(frame, pd.DataFrame) else frame.compute()
    return rows
