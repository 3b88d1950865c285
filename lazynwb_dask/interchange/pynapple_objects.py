"""Units, intervals and series of one session as objects of pynapple."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask import expr
from lazynwb_dask.errors import NWBError, UnsupportedColumnError
from lazynwb_dask.expr.extend import scans
from lazynwb_dask.stream.values import arrow_of, lengths_of, values_of
from lazynwb_dask.timeseries.series import TimeSeries
from lazynwb_dask.util.extras import optional
from lazynwb_dask.util.warn import warn

SPIKES, OBSERVED, SPAN = "spike_times", "obs_intervals", ("start_time", "stop_time")
RATE = "rate"  # pynapple's own


def session_rows(frame: Any) -> pd.DataFrame:
    """The rows of one session, with the columns that pynapple can hold. ValueError if they are of several."""
    kept = [name for name, dtype in frame.dtypes.items()
            if name in (SPIKES, OBSERVED) or not _nested(dtype)]  # fmt: skip
    if isinstance(frame, pd.DataFrame):
        rows = frame[kept]
    else:
        if "_nwb_path" not in frame.columns:
            frame = _with_path(frame)
        if len({url for scan in scans(frame) for url in scan.files.urls}) != 1:
            _check_one(frame["_nwb_path"].unique().compute())  # before anything large is read
        rows = frame[[*dict.fromkeys([*kept, "_nwb_path"])]].compute()
    if "_nwb_path" in rows:
        _check_one(rows["_nwb_path"].unique())
    return rows


def _with_path(frame: Any) -> Any:
    found = expr.taken_apart(frame)
    if found is None or "_nwb_path" not in found[0].meta:
        raise ValueError("to_pynapple: keep the column _nwb_path: it says whether the rows are of one file")
    scan, columns, predicate = found
    return expr.from_scan(scan, predicate)[[*columns, "_nwb_path"]]


def _check_one(paths: Any) -> None:
    if len(paths) > 1:
        raise ValueError(
            f"to_pynapple: the frame has rows of {len(paths)} files, and pynapple's objects are of one "
            f"session: choose one, as frame[frame._nwb_path == {str(paths[0])!r}]"
        )


def _nested(dtype: Any) -> bool:
    return isinstance(dtype, pd.ArrowDtype) and pa.types.is_nested(dtype.pyarrow_dtype)


def group(rows: pd.DataFrame) -> Any:
    """A `TsGroup` of the units."""
    nap: Any = optional("pynapple", "to_pynapple")
    lists = arrow_of(rows[SPIKES])
    if not pa.types.is_list(lists.type) or pa.types.is_nested(lists.type.value_type):
        raise UnsupportedColumnError(f"to_pynapple: {SPIKES} is of {lists.type}, not lists of numbers")
    times = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    ends = np.cumsum(lengths_of(lists))
    there = np.isfinite(times)
    if not there.all():
        ends = np.concatenate(([0], np.cumsum(there)))[ends]
        times = times[there]
    support = _union(nap, rows) if OBSERVED in rows else None
    support = _span(nap, times) if support is None else support
    labels = _labels(rows)
    pieces = np.split(times, ends[:-1]) if len(ends) else []
    trains = [nap.Ts(piece, time_support=support) for piece in pieces]
    found = nap.TsGroup(
        dict(zip(labels.tolist(), trains, strict=True)),
        time_support=support,
        metadata=_metadata(rows, labels, {SPIKES, OBSERVED}),
    )
    lost = len(times) - sum(len(found[label]) for label in found.index.tolist())
    if lost:
        warn(
            f"to_pynapple: {lost} spikes are outside of the time support, which is the union of the units' "
            f"{OBSERVED}: pynapple leaves them out; without the column it is from the first spike to the last"
        )
    return found


def _span(nap: Any, times: Any) -> Any:
    """From the first time to the last, and never without a duration."""
    if not len(times):
        return nap.IntervalSet(np.zeros(0), np.zeros(0))
    return nap.IntervalSet(times.min(), max(times.max(), times.min() + 1e-6))


def _union(nap: Any, rows: pd.DataFrame) -> Any:
    """The time that any unit was observed; None if nothing says so."""
    pairs = arrow_of(rows[OBSERVED]).flatten()
    if pa.types.is_nested(pairs.type):
        if (lengths_of(pairs) != 2).any():
            raise UnsupportedColumnError(f"to_pynapple: {OBSERVED} are not pairs of start and stop")
        pairs = pairs.flatten()
    spans = pairs.to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, 2)
    spans = spans[spans[:, 1] > spans[:, 0]]
    if not len(spans):
        return None
    start, stop = spans[np.argsort(spans[:, 0], kind="stable")].T
    reached = np.maximum.accumulate(stop)
    first = np.concatenate(([True], start[1:] > reached[:-1]))
    last = np.concatenate((first[1:], [True]))
    return nap.IntervalSet(start[first], reached[last])


def _labels(rows: pd.DataFrame) -> Any:
    """`id` where these are unique, else the rows of the table, else their numbers here."""
    for name in ("id", "_table_index"):
        if name in rows and rows[name].dtype.kind in "iu" and rows[name].notna().all() and rows[name].is_unique:
            return rows[name].to_numpy(np.int64)
    return np.arange(len(rows))


def _metadata(rows: pd.DataFrame, labels: Any, without: set[str]) -> pd.DataFrame:
    names = [n for n in rows.columns if n not in without and not _nested(rows[n].dtype)]
    columns = {}
    for name in names:
        values = rows[name].fillna("") if isinstance(rows[name].dtype, pd.StringDtype) else rows[name]
        key = f"{name}_in_table" if name == RATE else name
        while key != name and key in rows:
            key += "_"
        columns[key] = values_of(values)
    return pd.DataFrame(columns, index=labels)


def intervals(rows: pd.DataFrame) -> Any:
    """An `IntervalSet` of the rows of trials, epochs or the like, in the order of their starts."""
    nap: Any = optional("pynapple", "to_pynapple")
    for name in SPAN:
        if rows[name].dtype.kind not in "iuf":
            raise UnsupportedColumnError(f"to_pynapple: {name} is of {rows[name].dtype}, not numbers")
    start, stop = (np.asarray(values_of(rows[name]), np.float64) for name in SPAN)
    order = np.argsort(start, kind="stable")
    metadata = _metadata(rows, np.arange(len(rows)), {*SPAN, SPIKES, OBSERVED})
    return nap.IntervalSet(start[order], stop[order], metadata=metadata.iloc[order].reset_index(drop=True))


def series_of(series: TimeSeries, scaled: bool) -> Any:
    """A `Tsd`, `TsdFrame` or `TsdTensor`, by the number of dimensions."""
    import dask

    nap: Any = optional("pynapple", "to_pynapple")
    where = f"to_pynapple: {series.file}: {series.path}"
    data = series.scaled if scaled else series.data
    if data is None or series.timestamps is None:
        raise NWBError(f"{where}: it has no {'data' if data is None else 'timestamps'} here")
    if data.dtype.kind not in "buif":
        raise UnsupportedColumnError(f"{where}: its data are not numbers: series.to_dataframe() gives them")
    times, values = dask.compute(series.timestamps, data)
    kind = {1: nap.Tsd, 2: nap.TsdFrame}.get(values.ndim, nap.TsdTensor)
    there = np.isfinite(times)
    if not there.all() or (times[1:] < times[:-1]).any():  # pynapple would sort the times without the values
        order = np.flatnonzero(there)[np.argsort(times[there], kind="stable")]
        times, values = times[order], values[order]
    return kind(t=times, d=values, time_support=_span(nap, times))
