"""What people come for: spikes around events, as times, counts and mean rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from lazynwb_dask import expr
from lazynwb_dask.analysis.aligned import (
    INTERVALS,
    SPIKES,
    Counts,
    Rates,
    Times,
    check_lists,
    check_times,
    is_number,
    times_of,
)
from lazynwb_dask.analysis.matrix import coordinates, count_matrix, small_columns
from lazynwb_dask.analysis.series_around import series_around
from lazynwb_dask.api.arguments import check_bools
from lazynwb_dask.api.joins import Keys, Sessions, listed, plans_of
from lazynwb_dask.by_file.alignment import warn_if_apart
from lazynwb_dask.errors import ColumnNotFoundError, UnsupportedColumnError
from lazynwb_dask.expr.extend import scans
from lazynwb_dask.model.source import shown
from lazynwb_dask.timeseries.series import TimeSeries
from lazynwb_dask.util.extras import optional
from lazynwb_dask.util.suggest import near_or_all

if TYPE_CHECKING:
    import dask.dataframe as dd
    import xarray

Bins = int | Sequence[float]

MOST_BINS = 1_000_000


def align_events(
    units: dd.DataFrame,
    events: dd.DataFrame,
    window: tuple[float, float] = (-0.5, 1.0),
    event: str = "start_time",
    by: Keys | None = None,
    *,
    bins: Bins | None = None,
    sessions: Sessions | None = None,
) -> dd.DataFrame:
    """Align spikes to events of the same session: one row for each unit and event.

    Parameters
    ----------
    units : dask.dataframe.DataFrame
        Units with the column `spike_times` (seconds), made by `read_nwb` or `merge_by_file`. Columns may have
        been selected and rows filtered; spikes of other units are not read.
    events : dask.dataframe.DataFrame
        A table of the same files with a column of times, such as trials or stimulus presentations. Only the
        columns `event` and `by` are read.
    window : pair of float, default (-0.5, 1.0)
        Start and stop in seconds, relative to the event. A spike is in the window of an event if ``event +
        window[0] <= spike < event + window[1]``. Windows of events may overlap.
    event : str, default "start_time"
        The column with the times of the events, in seconds. Rows where it is missing, NaN or infinite are no
        events.
    by : str or sequence of str, optional
        Columns of `events` to copy to the result.
    bins : int or sequence of float, optional
        Return counts instead of times. An int: the number of equal bins in the window. A sequence: increasing
        bin edges in seconds, relative to the event; `window` is then not used. Each bin includes its left edge
        and excludes its right edge, also the last bin.
    sessions : "session_id" or mapping, optional
        If units and events of a session are in different files: how files belong together, as the argument `by`
        of `merge_by_file`.

    Returns
    -------
    dask.dataframe.DataFrame
        The columns of `units` that are not lists; the columns of `by`; `event_index` (int64, the row of the
        event in its table); `event_time` (float64, seconds); `relative_times` (lists of float64, seconds from
        the event, increasing), or with `bins` `counts` (lists of int64, one for each bin); and `_nwb_path`, or
        with `sessions` `session_id`. For each unit, events are in the order of their table. Files without units
        or without events have no rows. The index (int64) is unique, with gaps. Columns that are not used are
        not read.

    Raises
    ------
    ColumnNotFoundError
        A frame has no such column.
    UnsupportedColumnError
        `spike_times` has no lists of numbers, or `event` no numbers.
    TypeError
        A frame has computed columns, is a pandas DataFrame, or is not a read of a table for another reason.
    ValueError
        `window` or `bins` is not valid, or a name in `by` is also a column of `units`.

    See Also
    --------
    psth : mean rates of groups of events.
    spike_counts : units x trials x bins as an `xarray.Dataset`.
    align_timeseries : a TimeSeries around events.

    Notes
    -----
    `spike_times` are in seconds on the clock of the session, as are the times of events: see Units and
    TimeIntervals in the `NWB schema <https://nwb-schema.readthedocs.io/en/latest/format.html>`_. Unsorted spike
    times are sorted; NaN is ignored. Times are compared as float64. Nothing is read by this call. Filter
    `units` and `events` before it, and not the result: then less is read.

    Examples
    --------
    >>> from lazynwb_dask import align_events, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> units = read_nwb(paths, "/units")[["unit_id", "firing_rate", "spike_times"]]
    >>> trials = read_nwb(paths, "trials")
    >>> aligned = align_events(units[units.firing_rate > 20], trials[trials.is_hit], by="rewarded_side", bins=3)
    >>> aligned.columns.tolist()
    ['unit_id', 'firing_rate', 'rewarded_side', 'event_index', 'event_time', 'counts', '_nwb_path']
    """
    groups = tuple(listed(by))
    if bins is None:
        return _around(Times((), event, groups, _window(window)), units, events, sessions)
    return _around(Counts((), event, groups, _edges(window, bins, "align_events")), units, events, sessions)


def psth(
    units: dd.DataFrame,
    events: dd.DataFrame,
    window: tuple[float, float] = (-0.5, 1.0),
    event: str = "start_time",
    by: Keys | None = None,
    *,
    bins: Bins = 30,
    observed: bool = False,
    sessions: Sessions | None = None,
) -> dd.DataFrame:
    """Compute the mean firing rate around events, for each unit and group of events (PSTH).

    Parameters
    ----------
    units : dask.dataframe.DataFrame
        Units with the column `spike_times`, as in `align_events`.
    events : dask.dataframe.DataFrame
        A table of the same files with a column of times, as in `align_events`.
    window : pair of float, default (-0.5, 1.0)
        Start and stop in seconds, relative to the event.
    event : str, default "start_time"
        The column with the times of the events, in seconds.
    by : str or sequence of str, optional
        Columns of `events`. Events with equal values are one group; groups are sorted by these values. Events
        with a missing value are in no group. Default: all events are one group.
    bins : int or sequence of float, default 30
        The number of equal bins in the window, or increasing bin edges in seconds, as in `align_events`.
    observed : bool, default False
        Use only the time in which a unit was observed: the spikes within its `obs_intervals`, divided by the
        seconds of these intervals in each bin. Intervals are half-open and may overlap. A unit without
        intervals was never observed.
    sessions : "session_id" or mapping, optional
        If units and events of a session are in different files, as in `align_events`.

    Returns
    -------
    dask.dataframe.DataFrame
        The columns of `units` that are not lists; the columns of `by`; `events` (int64, the number of events of
        the group); `rate` and `sem` (lists of float64 with one value for each bin, in spikes per second): the
        mean rate and its standard error; and `_nwb_path`, or with `sessions` `session_id`. `sem` is NaN for
        less than two events. With `observed`, `rate` and `sem` count only events for which some of the bin was
        observed. The index (int64) is unique, with gaps.

    Raises
    ------
    ColumnNotFoundError
        A frame has no such column; with `observed`, units have no `obs_intervals`.
    UnsupportedColumnError
        `spike_times` or `obs_intervals` has another type than the NWB schema says, or `event` has no numbers.
    TypeError
        A frame is not a read of a table, as in `align_events`, or a column of `by` holds lists.
    ValueError
        `window` or `bins` is not valid, or a name in `by` is also a column of `units`.

    See Also
    --------
    align_events : the spikes or counts of each event.
    spike_counts : the counts of one session as an array.

    Notes
    -----
    The rate of a bin is the number of spikes of all events of the group in it, divided by the number of events
    and the width of the bin, without smoothing (G. L. Gerstein and N. Y.-S. Kiang, *Biophysical Journal*
    1:15-28, 1960). The standard error is the sample standard deviation of the events' rates (``ddof=1``),
    divided by the square root of the number of events. Where events are observed for different times, it is
    that of a ratio estimator (W. G. Cochran, *Sampling Techniques*, 3rd ed., 1977, section 6.4).
    `obs_intervals` is defined with Units in the `NWB schema
    <https://nwb-schema.readthedocs.io/en/latest/format.html>`_.

    Examples
    --------
    >>> from lazynwb_dask import psth, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> units = read_nwb(paths, "/units")[["unit_id", "structure", "spike_times"]]
    >>> found = psth(units[units.structure == "VISp"], read_nwb(paths, "trials"), by="is_hit", bins=15)
    >>> found[["is_hit", "events", "rate", "sem"]].dtypes.astype(str).tolist()
    ['bool', 'int64', 'list<item: double>[pyarrow]', 'list<item: double>[pyarrow]']
    >>> found.rate.nwb.len().compute().unique().tolist()
    [15]
    """
    check_bools(observed=observed)
    edges = _edges(window, bins, "psth")
    return _around(Rates((), event, tuple(listed(by)), edges, bool(observed)), units, events, sessions)


def spike_counts(
    units: dd.DataFrame,
    intervals: dd.DataFrame,
    bins: Bins = 1,
    *,
    window: tuple[float, float] | None = None,
    event: str = "start_time",
) -> xarray.Dataset:
    """Count the spikes of one session in an array of units x trials x bins, for example for decoding.

    Parameters
    ----------
    units : dask.dataframe.DataFrame
        Units of one file with the column `spike_times`, as in `align_events`.
    intervals : dask.dataframe.DataFrame
        Trials, or another table with times, of the same file.
    bins : int or sequence of float, default 1
        Without `window`, an int: the number of equal bins from `start_time` to `stop_time` of each interval.
        With `window`: the number of equal bins in it. A sequence: increasing bin edges in seconds, relative to
        the event; `window` is then not used.
    window : pair of float, optional
        Start and stop in seconds, relative to the event, instead of the whole interval.
    event : str, default "start_time"
        The column of times, in seconds, to which `window` and bin edges are relative.

    Returns
    -------
    xarray.Dataset
        `counts` (int64, a Dask array in blocks of units) with the dimensions `unit`, `trial` and `bin`. The
        coordinates `unit` and `trial` are rows of the tables. Columns that are not lists are coordinates, so
        select few; names of trials' columns that units have, too, get the prefix ``trial_``. `bin_start` and
        `bin_stop` are in seconds: relative to the event, or without `window` absolute for each trial. Trials
        without a time are left out.

    Raises
    ------
    ImportError
        xarray is not installed: ``pip install 'lazynwb-dask[xarray]'``.
    ColumnNotFoundError
        A frame has no such column.
    UnsupportedColumnError
        `spike_times` has no lists of numbers, or a column of times no numbers.
    TypeError
        A frame is not a read of a table, as in `align_events`.
    ValueError
        The frames have rows of several files, or `window` or `bins` is not valid.

    See Also
    --------
    align_events : the counts of many sessions as a frame.
    align_timeseries : a series around events.

    Notes
    -----
    A bin includes its left edge and excludes its right edge. This call reads the columns that are not lists,
    because xarray needs the numbers of units and trials. Spikes are read when the counts are computed.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb, spike_counts
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=1)
    >>> units = read_nwb(paths, "/units")[["unit_id", "structure", "spike_times"]]
    >>> trials = read_nwb(paths, "trials")[["start_time", "stop_time", "is_hit"]]
    >>> found = spike_counts(units, trials, bins=15, window=(-0.5, 1.0))
    >>> dict(found.sizes)
    {'unit': 120, 'trial': 200, 'bin': 15}
    >>> found.counts.sel(bin=slice(0, 1)).mean("trial").compute().dims
    ('unit', 'bin')
    """
    import dask

    xr: Any = optional("xarray", "spike_counts")
    _, plans = plans_of({"the frame units=": units, "the frame intervals=": intervals}, None)
    check_lists(plans[0], SPIKES, 1, "spike_counts")
    whole = window is None and isinstance(bins, (int, np.integer))
    edges = np.array(_edges((0, 1) if window is None else window, bins, "spike_counts"))
    names = ["start_time", "stop_time"] if whole else [event]
    for name in names:
        check_times(plans[1], name, "spike_counts")
    rows, trials = dask.compute(*map(small_columns, plans))
    files = {*rows["_nwb_path"], *trials["_nwb_path"]}
    if len(files) > 1:
        raise ValueError(
            f"spike_counts: the frames have rows of {len(files)} files, whose units and trials don't fit "
            "in one array: give those of one file, as units[units._nwb_path == path], or use align_events"
        )
    times = np.column_stack([times_of(trials[name]) for name in names])
    there = np.isfinite(times).all(axis=1)
    trials, times = trials[there], times[there]
    around = times[:, :1] + edges
    if whole:
        around = np.linspace(times[:, 0], np.maximum(times[:, 0], times[:, 1]), len(edges), axis=-1)
    of_bins: Any = ("trial", "bin") if whole else "bin"
    shown = around if whole else edges
    coords = coordinates(rows, "unit", ["trial", "bin", "bin_start", "bin_stop", "counts"])
    coords |= coordinates(trials, "trial", [*coords, "bin", "bin_start", "bin_stop", "counts"])
    coords |= {
        "bin": np.arange(len(edges) - 1) if whole else edges[:-1],
        "bin_start": (of_bins, shown[..., :-1], {"units": "s"}),
        "bin_stop": (of_bins, shown[..., 1:], {"units": "s"}),
    }
    made = {"counts": (("unit", "trial", "bin"), count_matrix(plans[0], rows, around))}
    found: xarray.Dataset = xr.Dataset(made, coords, {"_nwb_path": files.pop()} if files else {})
    return found


def align_timeseries(
    series: TimeSeries,
    events: dd.DataFrame | pd.DataFrame | Sequence[float],
    window: tuple[float, float] = (-0.5, 1.0),
    event: str = "start_time",
    by: Keys | None = None,
    *,
    rate: float | None = None,
    method: Literal["linear", "nearest"] = "linear",
    scaled: bool = False,
) -> xarray.DataArray:
    """Align a TimeSeries to events: events x times x channels, at the same relative times for each event.

    Parameters
    ----------
    series : TimeSeries
        Returned by `open_timeseries`, with any number of dimensions.
    events : dask.dataframe.DataFrame, pandas.DataFrame or sequence of float
        Events of the same file, in any order, or their times in seconds. Of a frame with the column
        `_nwb_path`, only the rows of the series' file are used.
    window : pair of float, default (-0.5, 1.0)
        Start and stop in seconds, relative to the event. Values are taken at ``event + window[0] + k / rate``
        for k = 0, 1, ..., before ``event + window[1]``.
    event : str, default "start_time"
        The column with the times of the events, in seconds. Rows where it is missing, NaN or infinite are no
        events.
    by : str or sequence of str, optional
        Columns of `events` to add as coordinates.
    rate : float, optional
        Samples per second of the result. Default: the rate of the series. Required if it has timestamps
        instead.
    method : {"linear", "nearest"}, default "linear"
        Interpolate linearly between the two neighboring samples, or take the nearest sample, the earlier of two
        that are equally near.
    scaled : bool, default False
        Convert values to `series.unit`.

    Returns
    -------
    xarray.DataArray
        A Dask array of float64 in blocks of events, with the dimensions `event` (the row in its table), `time`
        (seconds from the event), then `channel`, `dim_3`, ... if the series has them. `event_time` and the
        columns of `by` are coordinates of `event`. NaN before the first sample of the series and after its
        last.

    Raises
    ------
    ImportError
        xarray is not installed: ``pip install 'lazynwb-dask[xarray]'``.
    ColumnNotFoundError
        `events` has no such column.
    UnsupportedColumnError
        The series or the column `event` has no numbers, or the values of the series are in other files.
    TypeError
        `series` is not a TimeSeries.
    ValueError
        The series has no rate and none is given, or another argument is not valid.
    NWBError
        The timestamps of the series are not increasing.

    See Also
    --------
    open_timeseries : returns the series.
    align_events : spikes around events.

    Notes
    -----
    This call reads the events, and stored timestamps block by block to find the samples of each window.
    Computing a part of the result reads the chunks of the file that its windows touch.

    Examples
    --------
    >>> from lazynwb_dask import align_timeseries, open_timeseries, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> (path,) = make_sessions("sessions", n=1, lfp_shape=(20_000, 16))
    >>> lfp, trials = open_timeseries(path, "lfp"), read_nwb(path, "trials")
    >>> around = align_timeseries(lfp, trials, (-1, 2), by="is_hit", rate=10)
    >>> dict(around.sizes)
    {'event': 200, 'time': 30, 'channel': 16}
    >>> around.isel(channel=3).groupby("is_hit").mean().compute().shape
    (2, 30)
    """
    xr: Any = optional("xarray", "align_timeseries")
    if not isinstance(series, TimeSeries):
        raise TypeError(f"align_timeseries: series={type(series).__name__}: one TimeSeries of open_timeseries")
    start, stop = _window(window, "align_timeseries")
    if method not in ("linear", "nearest"):
        raise ValueError(f"align_timeseries: method={method!r}: must be 'linear' or 'nearest'")
    check_bools(scaled=scaled)
    often = series.rate if rate is None else rate
    if often is None:
        raise ValueError(
            f"align_timeseries: {shown(series.file)}: {series.path} has timestamps and no rate: give "
            "rate=, how many samples per second you want"
        )
    if not (isinstance(often, (int, float, np.number)) and np.isfinite(often) and often > 0) or often is True:
        raise ValueError(f"align_timeseries: rate={often!r}: must be a number of samples per second, above 0")
    groups = listed(by)
    rows = _events_of(series, events, event, groups)
    times = times_of(rows[event])
    rows, times = rows[np.isfinite(times)], times[np.isfinite(times)]
    offsets = start + np.arange(int(np.ceil((stop - start) * often)) + 1) / often
    offsets = offsets[offsets < stop]
    values = series_around(series, times, offsets, method == "nearest")
    sample = values.shape[2:]
    values = series.in_unit(values, sample) if scaled else values
    dims = ["event", "time", *["channel"][: len(sample)], *[f"dim_{n}" for n in range(3, len(sample) + 2)]]
    coords = coordinates(rows if event in groups else rows.drop(columns=event), "event", [*dims, "event_time"])
    coords |= {"event_time": ("event", times, {"units": "s"}), "time": ("time", offsets, {"units": "s"})}
    attributes = {
        "units": series.unit if scaled else "",
        "_nwb_path": shown(series.file),
        "_table_path": series.path,
    }
    found: xarray.DataArray = xr.DataArray(values, coords, dims, series.path.rpartition("/")[2], attributes)
    return found


def _events_of(series: TimeSeries, events: Any, event: str, by: Sequence[str]) -> pd.DataFrame:
    """The events of the series' file: their times, the columns of `by`, and their rows."""
    if not hasattr(events, "columns"):
        times = np.asarray(events.compute() if hasattr(events, "compute") else events, np.float64)
        if times.ndim != 1 or by:
            raise ValueError("align_timeseries: events= is a frame, or times in seconds, which have no by=")
        return pd.DataFrame({event: times})
    for name in (event, *by):
        if name not in events.columns:
            hint = near_or_all(name, events.columns)
            raise ColumnNotFoundError(f"align_timeseries: the frame events= has no column {name!r}{hint}")
    if not is_number(events.dtypes[event]):
        raise UnsupportedColumnError(f"align_timeseries: {event!r} is {events.dtypes[event]}, and not a time")
    paths = events["_nwb_path"] if "_nwb_path" in events.columns else None
    if paths is not None:
        events = events[paths == series.file]
    kept = [name for name in events.columns if name in (event, *by, "_table_index")]
    some = events[kept]
    found: pd.DataFrame = some.compute() if hasattr(some, "compute") else some
    if paths is not None and not len(found):
        warn_if_apart([[series.file], _files_in(paths)])
    return found


def _files_in(paths: Any) -> list[str]:
    """The files of a frame, of which this is the column of paths; without conditions, if it is a read."""
    if not hasattr(paths, "compute"):
        return [*paths.unique()]
    read = [url for scan in scans(paths) for url in scan.files.urls]
    return read or [*paths.unique().compute()]


def _around(
    made: Times | Rates, units: dd.DataFrame, events: dd.DataFrame, sessions: Sessions | None
) -> dd.DataFrame:
    named, plans = plans_of({"the frame units=": units, "the frame events=": events}, sessions)
    check_lists(plans[0], SPIKES, 1, made.call)
    if INTERVALS in made.ragged:
        check_lists(plans[0], INTERVALS, 2, made.call)
    check_times(plans[1], made.event, made.call)
    return expr.from_scan(made.scan(plans[0], plans[1], named))


def _window(window: Any, call: str = "align_events") -> tuple[float, float]:
    try:
        start, stop = map(float, window)
    except (TypeError, ValueError):
        start = stop = np.nan
    if not (np.isfinite([start, stop]).all() and start < stop):
        raise ValueError(f"{call}: window={window!r}: must be two numbers, start < stop, in seconds")
    return start, stop


def _edges(window: Any, bins: Any, call: str) -> tuple[float, ...]:
    if isinstance(bins, (int, np.integer)) and not isinstance(bins, bool) and 0 < bins <= MOST_BINS:
        start, stop = _window(window, call)
        return tuple(np.linspace(start, stop, int(bins) + 1).tolist())
    try:
        edges = np.asarray(bins, np.float64)
    except (TypeError, ValueError):
        edges = np.zeros(0)
    if edges.ndim != 1 or len(edges) < 2 or not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
        raise ValueError(
            f"{call}: bins={bins!r}: must be a number of bins (at most {MOST_BINS}), or "
            "at least two increasing edges in seconds"
        )
    return tuple(edges.tolist())
