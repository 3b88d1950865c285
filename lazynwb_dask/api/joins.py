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
    """Merge two tables of the same files, file by file: nothing is shuffled.

    The same as `pandas.merge` with `_nwb_path` among the keys, at the cost of reading the two tables:
    each partition holds whole files. Columns that are not used are not read of either side. Conditions on
    the result are part of the reads of the sides, wherever that is the same: conditions on one side's
    columns if all rows of the result have a row of it, conditions on keys always. Large columns, such as
    `spike_times`, are read for the rows that are left.

    Parameters
    ----------
    left, right : dask.dataframe.DataFrame
        Made by `read_nwb`, `merge_by_file` or `map_files`, perhaps with columns selected and rows left
        out by conditions that `explain` shows as part of the read.
    on : str or sequence of str
        Columns that both have. `_nwb_path` is always a key, and need not be named: frames without a path
        in common give no rows of both, and a warning.
    how : {"inner", "left", "right", "outer"}
    suffixes : pair of str
        For columns of both sides that are no keys, `_table_path` and `_table_index` among them.
    left_on, right_on : str or sequence of str
        Instead of `on`, where keys are called differently. Both are kept.
    by : "session_id", or a mapping from file to session, optional
        Where a session is split over several files: rows of all its files meet, session by session. The
        column `session_id` takes the place of `_nwb_path`, which is a column like others then. The files'
        own `session_id` is read from them; a mapping, such as `group_assets_by_session` gives, costs nothing.
        A file of which no session is known is alone.

    Returns
    -------
    dask.dataframe.DataFrame
        The left columns, then the right ones without the keys of `on`. `_nwb_path` is always there, once.
        Files come in the order of `left`, then those that only `right` has; the rows of each in the order
        in which pandas merges them. The index numbers the pairs of rows: it is unique (within a file,
        where divisions are unknown), has gaps, and stays with a row whatever conditions are added.

    Raises
    ------
    TypeError
        A frame is anything else, such as one with computed columns, or a key holds lists.
    ColumnNotFoundError
        A key is not among a frame's columns.

    See Also
    --------
    map_files : anything else with tables of the same files.
    with_sessions : values of sessions on each row.

    Notes
    -----
    Where a row lacks its partner, integers and booleans are missing as ``int64[pyarrow]`` and
    ``bool[pyarrow]`` are, and become no floats. As in pandas missing keys match each other. A file that is
    read several times is one file. A task holds what is read of both tables of one file, at least, and the
    result.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> trials = read_nwb(paths, "trials")[["id", "start_time", "is_hit"]]
    >>> licks = read_nwb(paths, "trials")[["id", "stop_time"]]
    >>> merge_by_file(trials, licks, on="id").columns.tolist()
    ['id', 'start_time', 'is_hit', '_nwb_path', 'stop_time']
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
    """Call a function for each file with some of its tables, whole.

    Parameters
    ----------
    func : callable
        Is given each table as a `pandas.DataFrame` by name, with the columns selected and `_nwb_path`,
        and returns one. Where a file doesn't have a table, or it couldn't be read under
        ``on_error="skip"``, the frame has no rows.
    meta : pandas.DataFrame, mapping or iterable of (name, dtype), optional
        The columns of what it returns. If not given, it is called with frames without rows to find out.
    by : "session_id", or a mapping from file to session, optional
        As in `merge_by_file`: the function is called for each session, with the rows of all its files and the
        column `session_id`, which is among the result instead of `_nwb_path`.
    **frames : dask.dataframe.DataFrame
        As for `merge_by_file`. Columns that are not selected are not read, rows that conditions leave out
        neither.

    Returns
    -------
    dask.dataframe.DataFrame
        What the function returns, and `_nwb_path` if that is not among it, for all files: in the order of
        the first frame, then those that only the next one has. The index numbers rows within files.

        The function is called once for a file in each computation, and again for each branch of one that
        selects other columns or rows. Conditions on `_nwb_path` leave files out.

    Raises
    ------
    TypeError
        A frame isn't a read, or the function returns something else than a frame.
    ValueError
        The result's columns can't be told.
    NWBError
        While computing: the function has failed, or returned other columns; names the file.

    See Also
    --------
    merge_by_file : joins two tables by keys.
    align_events : spikes around events.

    Examples
    --------
    >>> import pandas as pd
    >>> from lazynwb_dask import read_nwb
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
