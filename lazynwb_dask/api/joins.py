"""What can be done with tables of the same files without moving rows between tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow as pa

from lazynwb_dask import expr
from lazynwb_dask.api.arguments import names_of
from lazynwb_dask.by_file.alignment import Plan
from lazynwb_dask.by_file.join import join
from lazynwb_dask.by_file.map import map_over
from lazynwb_dask.errors import ColumnNotFoundError
from lazynwb_dask.plan.grouping import column_of, session_of, with_sessions_of
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.util.suggest import near_or_all

if TYPE_CHECKING:
    import dask.dataframe as dd

Keys = str | Sequence[str]
Sessions = str | Mapping[str, str] | pd.Series  # "session_id", or from file to session


def merge_by_file(
    left: dd.DataFrame,
    right: dd.DataFrame,
    on: Keys | None = None,
    how: Literal["inner", "left", "right", "outer"] = "inner",
    suffixes: tuple[str | None, str | None] = ("_x", "_y"),
    *,
    left_on: Keys | None = None,
    right_on: Keys | None = None,
    by: Sessions | None = None,
) -> dd.DataFrame:
    """Merge two tables of the same files, file by file, without a shuffle.

    The result is that of `pandas.merge` with `_nwb_path` as a further key. Each partition has whole files, so
    that no rows move between tasks. Columns that are not used are not read. Conditions on the result are
    applied while reading the two tables where this gives the same rows; large columns, such as `spike_times`,
    are read only for rows that remain.

    Parameters
    ----------
    left, right : dask.dataframe.DataFrame
        Made by `read_nwb`, `merge_by_file` or `map_files`. Columns may have been selected and rows filtered by
        conditions that `explain` shows as part of the read.
    on : str or sequence of str, optional
        Columns of both frames to merge on. `_nwb_path` is always a key.
    how : {"inner", "left", "right", "outer"}, default "inner"
        The rows to keep, as in `pandas.merge`.
    suffixes : pair of str, default ("_x", "_y")
        For columns of both frames that are not keys, such as `_table_path` and `_table_index`.
    left_on, right_on : str or sequence of str, optional
        Instead of `on`, if the keys have different names. Both are kept.
    by : "session_id" or mapping, optional
        If a session has several files: merge the rows of all its files. ``"session_id"`` uses the `session_id`
        of each file. A mapping of `_nwb_path` to session (dict or Series), such as that of
        `group_assets_by_session`, needs no reading. The result has `session_id` instead of `_nwb_path` as key.
        A file without a session is a session of its own.

    Returns
    -------
    dask.dataframe.DataFrame
        The columns of `left`, then those of `right` without the keys of `on`; `_nwb_path` once. Files are in
        the order of `left`, then those that only `right` has; the rows of a file are in the order of
        `pandas.merge`. The index (int64) is unique, with gaps, and the same for a row whatever conditions are
        added. If divisions are unknown, it is unique within a file.

    Raises
    ------
    TypeError
        A frame is not a read of a table: it has computed columns, for example. Or a key has lists.
    ColumnNotFoundError
        A frame has no such key.
    ValueError
        Keys or `how` are not valid, or columns have the same name in spite of `suffixes`.

    Warns
    -----
    UserWarning
        The frames have no file in common.

    See Also
    --------
    map_files : any function of tables of the same file.
    with_sessions : session and subject metadata on each row.
    join_region : columns of the rows that a column refers to.

    Notes
    -----
    Integers and booleans of rows without a match become ``int64[pyarrow]`` and ``bool[pyarrow]`` with missing
    values, not floats. Missing keys match each other, as in pandas. A task needs memory for both tables of one
    file, and the result.

    Examples
    --------
    >>> from lazynwb_dask import merge_by_file, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> trials = read_nwb(paths, "trials")[["id", "start_time", "is_hit"]]
    >>> stimuli = read_nwb(paths, "/intervals/stimulus_presentations")[["trial_index", "image_name"]]
    >>> merged = merge_by_file(trials, stimuli, left_on="id", right_on="trial_index")
    >>> merged.columns.tolist()
    ['id', 'start_time', 'is_hit', '_nwb_path', 'trial_index', 'image_name']
    >>> len(trials), len(merged)
    (400, 1600)
    """
    if how not in ("inner", "left", "right", "outer"):
        raise ValueError(f"how={how!r}: must be one of 'inner', 'left', 'right', 'outer'")
    named, (ours, theirs) = plans_of({"the left frame": left, "the right frame": right}, by)
    plans = ours, theirs
    keys = [pair for pair in _keys(on, left_on, right_on) if pair != (named, named)]
    for i, (plan, side) in enumerate(zip(plans, ("left", "right"), strict=True)):
        for pair in keys:
            _check_key(pair[i], plan, side)
    return expr.from_scan(join(plans, keys, how, suffixes, named))


def map_files(
    func: Callable[..., pd.DataFrame], meta: Any = None, *, by: Sessions | None = None, **frames: dd.DataFrame
) -> dd.DataFrame:
    """Call a function once for each file, with whole tables of it as pandas DataFrames.

    Parameters
    ----------
    func : callable
        Gets each table as a `pandas.DataFrame`, with the selected columns and `_nwb_path`, under the name of
        its keyword argument. Returns a `pandas.DataFrame`. If a file lacks a table, or it can't be read with
        ``on_error="skip"``, that frame has no rows.
    meta : pandas.DataFrame, mapping or iterable of (name, dtype), optional
        The columns of the returned frame. Default: found by a call of `func` with frames without rows.
    by : "session_id" or mapping, optional
        Call the function once for each session, with the rows of all its files, as in `merge_by_file`. Frames
        have `session_id`, and the result has it instead of `_nwb_path`.
    **frames : dask.dataframe.DataFrame
        The tables, by name, as in `merge_by_file`. Columns that are not selected and rows that are filtered out
        are not read.

    Returns
    -------
    dask.dataframe.DataFrame
        The returned frames of all files, with `_nwb_path`. Files are in the order of the first frame, then
        those that only other frames have. The index (int64) is unique, with gaps between files.

    Raises
    ------
    TypeError
        A frame is not a read of a table, or the function does not return a DataFrame.
    ValueError
        The columns of the result can't be found: give `meta`.
    NWBError
        While computing: the function failed, or returned other columns than before. The message names the file.

    See Also
    --------
    merge_by_file : merge two tables on keys.
    align_events : spikes around events.

    Notes
    -----
    A computation calls the function once for each file, and again for each branch of the computation that
    selects other columns or rows. Conditions on `_nwb_path` leave files out.

    Examples
    --------
    >>> import pandas as pd
    >>> from lazynwb_dask import map_files, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> def counts(units, trials):
    ...     return pd.DataFrame({"units": [len(units)], "trials": [len(trials)]})
    >>> units, trials = read_nwb(paths, "/units")[["id"]], read_nwb(paths, "trials")[["id"]]
    >>> map_files(counts, units=units, trials=trials)[["units", "trials"]].compute().values.tolist()
    [[120, 200], [120, 200]]
    """
    if not callable(func):
        raise TypeError(f"map_files: {func!r} is not a function; tables are given by name")
    if not frames:
        raise TypeError("map_files: give the tables by name, as in map_files(func, units=units)")
    named, found = plans_of({f"the frame {name}=": frame for name, frame in frames.items()}, by)
    plans = dict(zip(frames, found, strict=True))
    if meta is not None:
        from dask.dataframe.utils import make_meta

        meta = make_meta(meta)
        if not isinstance(meta, pd.DataFrame):
            raise TypeError("map_files: meta= must be a DataFrame, or columns with their dtypes")
    return expr.from_scan(map_over(func, plans, meta, named))


def plan_of(frame: Any, what: str) -> Plan:
    """What a frame reads."""
    if isinstance(frame, pd.DataFrame):
        raise TypeError(f"{what} is a pandas DataFrame: give a frame of read_nwb that is not computed")
    if not hasattr(type(frame), "expr"):
        raise TypeError(f"{what} is of the type {type(frame).__name__}: give a frame of read_nwb")
    found = expr.taken_apart(frame)
    if found is None:
        raise TypeError(
            f"{what} isn't columns and rows of a table as read_nwb gives it: it is made of more tables, "
            "has computed columns, or conditions that look at other rows, or limits. Do that with the "
            "result, or use lazynwb_dask.map_files, or dask.dataframe.merge, which moves rows"
        )
    return Plan(*found)


def plans_of(frames: Mapping[str, Any], by: Sessions | None) -> tuple[str, list[Plan]]:
    """What frames read, and the column that says which of their rows belong together."""
    plans = [plan_of(frame, what) for what, frame in frames.items()]
    named = "_nwb_path" if by is None else column_of(by)
    if by is not None:
        scans = [plan.scan for plan in plans if isinstance(plan.scan, Scan)]
        sessions = session_of(scans, by) if scans else {}
        for i, plan in enumerate(plans):
            if isinstance(plan.scan, Scan):
                plans[i] = plan._replace(scan=with_sessions_of(plan.scan, named, sessions))
    for plan, what in zip(plans, frames, strict=True):
        if named not in plan.scan.constants:
            whose = "file" if by is None else "session"
            raise TypeError(f"{what} doesn't say which {whose} a row is from: give all operations the same by=")
    return named, plans


def _keys(on: Keys | None, left_on: Keys | None, right_on: Keys | None) -> list[tuple[str, str]]:
    """The names of each key on the left and on the right, without `_nwb_path`."""
    if on is not None and (left_on is not None or right_on is not None):
        raise ValueError("merge_by_file: give either on=, or left_on= and right_on=")
    ours, theirs = (
        listed(own if on is None else on, name if on is None else "on")
        for own, name in ((left_on, "left_on"), (right_on, "right_on"))
    )
    if not ours or len(ours) != len(theirs):
        raise ValueError("merge_by_file: give on=, or as many columns left_on= as right_on=")
    return [pair for pair in zip(ours, theirs, strict=True) if pair != ("_nwb_path", "_nwb_path")]


def listed(names: Keys | None, argument: str = "by") -> list[str]:
    return [] if names is None else names_of(argument, names)


def _check_key(name: str, plan: Plan, side: str) -> None:
    if name not in plan.columns:
        hint = near_or_all(name, plan.columns)
        raise ColumnNotFoundError(f"merge_by_file: no column {name!r} in the {side} frame{hint}")
    dtype = plan.scan.meta[name].dtype
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_nested(dtype.pyarrow_dtype):
        raise TypeError(
            f"merge_by_file: {name!r} of the {side} frame is {dtype}, which can't be a key; "
            "lazynwb_dask.map_files can take it apart"
        )
