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
    """Spikes relative to events of the same files: a row for each unit and event.

    Parameters
    ----------
    units : dask.dataframe.DataFrame
        Made by `read_nwb` (or `merge_by_file`), with a column `spike_times`, perhaps with columns selected and
        rows left out by conditions: of other units no spikes are read.
    events : dask.dataframe.DataFrame
        Any table of the same files with a column of times: trials, stimulus presentations, events. Only the
        columns `event` and `by` are read.
    window : pair of float
        Seconds before and after the event. A spike belongs to an event if ``event + window[0] <= spike < event
        + window[1]``. Windows may overlap.
    event : str
        The column of times. Where it is missing, NaN or infinite, there is no event.
    by : str or sequence of str, optional
        Columns of `events` that are carried along.
    bins : int or sequence of float, optional
        Count spikes, and don't list their times: in this number of equal bins of the window, or between these
        edges, which are rising seconds relative to the event; then the window doesn't matter. A bin includes
        its first edge and excludes its last, the last bin too.
    sessions : "session_id", or a mapping from file to session, optional
        As `by` of `map_files`, where units and events of a session are in different files.

    Returns
    -------
    dask.dataframe.DataFrame
        The columns of `units` that aren't lists; those of `by`; `event_index`, the event's row in its table;
        `event_time`, float64, seconds; and `relative_times`, lists of float64, seconds from the event, rising;
        or `counts`, lists of int64, one for each bin. Unit by unit, of each the events in their table's order.
        Columns that aren't used are not read: of ``[["unit_id", "counts"]]`` no others. A file without units or
        without events has no rows. The index numbers rows within files.

    Raises
    ------
    ColumnNotFoundError
        A frame lacks a column.
    UnsupportedColumnError
        `spike_times` aren't lists of numbers, or `event` no numbers.
    TypeError
        A frame isn't a plain read of a table: it has computed columns, for example.
    ValueError
        The window or the bins aren't valid, or a column of `by` has a name that a column of `units` has.

    See Also
    --------
    psth : mean rates of groups of events.
    spike_counts : units x trials x bins as an `xarray.Dataset`.

    Notes
    -----
    Nothing is read when called. Each file is one task, or a part of one. Conditions on `units` and `events`
    lessen what is read; those on the result are applied to it once spikes have been read. Spikes that aren't
    in order are sorted; NaN among them belong to no event. Times are compared in float64.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
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
    """The peri-stimulus time histogram: the mean rate around events, for each unit and group of events.

    Parameters
    ----------
    units, events, window, event
        As of `align_events`.
    by : str or sequence of str, optional
        Columns of `events`: one row for each unit and group of equal values, in their order. Events that lack
        a value belong to no group. If not given, all events are one group.
    bins, sessions
        As of `align_events`.
    observed : bool
        Rates over observed time only: of spikes within the unit's `obs_intervals`, by the seconds of these in
        each bin. Intervals are half-open and may overlap. A unit without intervals was never observed.

    Returns
    -------
    dask.dataframe.DataFrame
        The columns of `units` that aren't lists; those of `by`; `events`, how many the group has; `rate` and
        `sem`, lists of float64 with one number for each bin: the mean rate in spikes per second, and its
        standard error. `sem` is NaN for less than two events; with `observed`, both only count events of which
        something of the bin was observed.

    Raises
    ------
    ColumnNotFoundError, UnsupportedColumnError, TypeError, ValueError
        As of `align_events`.

    See Also
    --------
    align_events : the spikes and counts of each event.
    spike_counts : the counts of one session as an array.

    Notes
    -----
    The rate is all spikes of the group in the bin by all seconds. The standard error is the sample standard
    deviation (``ddof=1``) of the events' rates by the root of their number; where bins are observed in part,
    that of a ratio estimator (W. G. Cochran, *Sampling Techniques*, 3rd ed., 1977, section 6.4), which is the
    same where they are whole.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> units = read_nwb(paths, "/units")[["unit_id", "structure", "spike_times"]]
    >>> found = psth(units[units.structure == "VISp"], read_nwb(paths, "trials"), by="is_hit", bins=15)
    >>> found[["is_hit", "events", "rate", "sem"]].dtypes.astype(str).tolist()
    ['bool', 'int64', 'list<item: double>[pyarrow]', 'list<item: double>[pyarrow]']
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
    """The spike counts of one session: units x trials x bins, for decoding.

    Parameters
    ----------
    units : dask.dataframe.DataFrame
        Of `read_nwb`, with `spike_times`, perhaps with columns selected and rows left out.
    intervals : dask.dataframe.DataFrame
        Trials, or any table with times, of the same file.
    bins : int or sequence of float
        Without a window, in how many equal parts each interval is cut, from its `start_time` to its
        `stop_time`. With one, as of `align_events`; edges are relative to the event, and need no window.
    window : pair of float, optional
        Seconds before and after the event, in place of the interval itself.
    event : str
        The column of times that `window` and edges are relative to.

    Returns
    -------
    xarray.Dataset
        `counts`, int64, with the dimensions `unit`, `trial` and `bin`, as a Dask array in blocks of units.
        The index of `unit` and `trial` is the row in their table. The columns that aren't lists are
        coordinates of them, so select few; those of trials that units have too begin with ``trial_``.
        `bin_start` and `bin_stop` are in seconds: relative to the event, or for each trial without a window.
        Trials without a time are left out.

    Raises
    ------
    ImportError
        xarray isn't installed.
    ValueError
        The frames have rows of several files.
    ColumnNotFoundError, UnsupportedColumnError, TypeError
        As `align_events`.

    See Also
    --------
    align_events : the same of many sessions, as a frame.
    align_timeseries : a series around events.

    Notes
    -----
    The small columns are read when called, as xarray needs to know how many units and trials there are. Spikes
    are read when the counts are computed. A bin has its start, and not its stop.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
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
    """A TimeSeries around each event, at the same relative times: events x times x channels.

    Parameters
    ----------
    series : TimeSeries
        Of `open_timeseries`, with any number of dimensions.
    events : dask.dataframe.DataFrame, pandas.DataFrame or sequence of float
        Events of the series' file, in any order; or their times in seconds. Of a frame with `_nwb_path` the
        rows of that file are taken.
    window : pair of float
        Seconds before and after the event: samples are taken at ``event + window[0] + k / rate`` for k = 0, 1,
        ..., before ``event + window[1]``.
    event : str
        The column of times. Where it is missing, NaN or infinite, there is no event.
    by : str or sequence of str, optional
        Columns of `events` that are carried along, as coordinates.
    rate : float, optional
        Samples per second of the result; the series' own, if it has one.
    method : {"linear", "nearest"}
        Interpolated between the two samples around; or the nearest one, of two as near the earlier.
    scaled : bool
        In `series.unit` rather than as stored.

    Returns
    -------
    xarray.DataArray
        A Dask array of float64, in blocks of events, with the dimensions `event` (its row in its table),
        `time` (seconds from the event), and for more dimensions `channel`, `dim_3`, ...; `event_time` and the
        columns of `by` are coordinates. NaN before the series' first sample and after its last.

    Raises
    ------
    ImportError
        xarray isn't installed.
    ValueError
        The series has no rate, and none is given; or another argument isn't valid.
    UnsupportedColumnError
        The series holds no numbers, or they are in other files.
    NWBError
        Stored timestamps don't rise.

    See Also
    --------
    open_timeseries : gives the series.
    align_events : spikes around events.

    Notes
    -----
    Events are read when called, and stored timestamps too, block by block, to find the rows of each window.
    When a part of the result is computed, it reads the chunks of the file that its windows touch.

    Examples
    --------
    >>> from lazynwb_dask import open_timeseries, read_nwb
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
