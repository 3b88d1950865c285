"""Session and subject metadata of many files: as a table, and on each row of a frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lazynwb_dask import config
from lazynwb_dask.api.arguments import Paths, check_frame, file_access, names_of, sources_of
from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.cluster import failures
from lazynwb_dask.errors import ColumnNotFoundError
from lazynwb_dask.plan import assets as assets_plan
from lazynwb_dask.plan import sessions as sessions_plan
from lazynwb_dask.plan.each_file import none_readable
from lazynwb_dask.plan.grouping import by_session
from lazynwb_dask.plan.table_scan import warn_skipped
from lazynwb_dask.scan.request import Policy, check_policy
from lazynwb_dask.scan.to_pandas import series
from lazynwb_dask.util.suggest import near_or_all
from lazynwb_dask.util.warn import warn

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

    from lazynwb_dask.scan.scan import Scan

SESSIONS = 2_000  # rows of a partition of the session table


def read_sessions(
    paths: Paths, *, on_error: Policy = "raise", storage_options: Mapping[str, Any] | None = None
) -> dd.DataFrame:
    """Read the session and subject metadata of many NWB files: one row for each file.

    All files are read by this call, many at a time, with a few small requests each. Computing the result reads
    nothing more. With a catalog, no file is read.

    Parameters
    ----------
    paths : str, os.PathLike, iterable of these, Catalog, or DataFrame
        The NWB files, as in `read_nwb`.
    on_error : {"raise", "skip"}, default "raise"
        What to do with files that can't be read: raise an error, or leave them out with a warning.
        `read_report` lists those that were left out.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`.

    Returns
    -------
    dask.dataframe.DataFrame
        The fields of NWBFile, then those of Subject, with their names in the file; then other fields, such as
        those of extensions; last `_nwb_path`. `description`, `age`, `sex`, `weight` and so on are the
        subject's. If a field of the subject or an extension has the name of a field of NWBFile, it gets the
        prefix ``subject_`` or ``general_``. Fields that a file lacks are missing. Texts are ``string``; times
        are ``datetime64[us, UTC]``; `experimenter`, `keywords`, `related_publications` and `file_create_date`
        are lists. The index is 0, 1, ...

    Raises
    ------
    NWBReadError
        A file can't be read; with ``on_error="skip"``: none can.
    TypeError, ValueError
        An argument has a wrong type or value.

    Warns
    -----
    UserWarning
        Files were left out, or texts are not valid times.

    See Also
    --------
    with_sessions : these values on each row of another frame.
    Catalog.sessions : the same of a catalog.

    Notes
    -----
    The fields are defined in the `NWB schema <https://nwb-schema.readthedocs.io/en/latest/format.html>`_.

    The times `session_start_time`, `timestamps_reference_time`, `file_create_date` and `date_of_birth` are
    converted to UTC. **A time without a time zone is taken as UTC**, because the file does not have the zone. A
    text that is not an ISO 8601 time becomes missing, with a warning.

    Standard fields are text, whatever type a file stores. Other fields get the type that holds the values of
    all files. Values are never evaluated.

    Examples
    --------
    >>> from lazynwb_dask import read_sessions
    >>> from lazynwb_dask.datasets import make_sessions
    >>> sessions = read_sessions(make_sessions("sessions", n=2))
    >>> sessions[["subject_id", "session_start_time", "species"]].compute()
      subject_id            session_start_time       species
    0     600000 2023-01-09 17:30:12.345...+00:00  Mus musculus
    1     600000 2023-01-10 17:31:12.345...+00:00  Mus musculus
    """
    check_policy("on_error", on_error)
    if isinstance(paths, Catalog):
        return _frame(paths.sessions)
    access = file_access(paths, storage_options)
    sources = sources_of(paths, access)
    found, failed = sessions_plan.read_sessions(sources, access, on_error)
    warn_skipped(failed, len(sources))
    if not found:
        raise none_readable(failed)
    table, odd = sessions_plan.table(found)
    if odd:
        warn(f"{len(odd)} times are not valid dates and are missing (the first: {odd[0]})")
    frame = _frame(table)
    failures.record(frame._name, failed)
    return frame


def read_sessions_of(frame: dd.DataFrame) -> dd.DataFrame:
    """The session table of the files that a frame reads. Raises ValueError if it reads none."""
    from lazynwb_dask.expr import extend as expr_extend

    scans = expr_extend.scans(frame)
    if not scans:
        raise ValueError(
            "this frame was not made by read_nwb, or has been computed since: call sessions() of the frame "
            "before that, or lazynwb_dask.read_sessions(paths)"
        )
    return _frame(sessions_plan.session_table(scans))


def with_sessions(
    frame: dd.DataFrame,
    columns: str | Sequence[str] | None = None,
    *,
    sessions: dd.DataFrame | pd.DataFrame | None = None,
    by: str | Mapping[str, str] | pd.Series | None = None,
) -> dd.DataFrame:
    """Add session and subject metadata to each row of a frame: those of the file from which the row is.

    Works without a shuffle, and reads only the session table. For a read of a table, filtered or not, a
    condition on the new columns leaves out whole files.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        Made by `read_nwb`, or derived from such a frame. It needs the column `_nwb_path` if it is more than
        selected columns, conditions, assigned columns and `head` of one table. If it has been persisted, it
        also needs `sessions`.
    columns : str or sequence of str, optional
        The columns of the session table to add. For files of a dandiset also columns of `dandi_assets`, with
        the prefix ``dandi_``; these need one request to the archive, and no file is opened. Default: all
        columns of the session table.
    sessions : dask.dataframe.DataFrame or pandas.DataFrame, optional
        The session table with the column or index `_nwb_path`, if you have it already; it may have your own
        columns. Or the table of `dandi_assets`. Default: it is read.
    by : "session_id" or mapping, optional
        If `sessions` has rows for sessions instead of files, or for other files of the same sessions: how files
        belong together, as in `merge_by_file`. Of several rows of a session, the one with the fewest missing
        values is used.

    Returns
    -------
    dask.dataframe.DataFrame
        The columns of the frame, then the new ones, with the dtypes of `read_sessions`. Values are missing for
        files that `sessions` doesn't have.

    Raises
    ------
    ColumnNotFoundError
        The session table has no such column.
    ValueError
        The frame already has a column with the name, or the file of a row is unknown: the frame was not made by
        `read_nwb` or was persisted, or has no `_nwb_path`.
    NWBReadError
        A file can't be read.
    TypeError
        `frame` is not a Dask DataFrame.

    See Also
    --------
    read_sessions : the session table.
    merge_by_file : merge tables of the same files.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb, with_sessions
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=4), "/units")
    >>> units = with_sessions(units, ["subject_id", "session_start_time"])
    >>> late = units[units.session_start_time > "2023-01-11"]  # reads two of the four files
    >>> late.subject_id.unique().compute().tolist()
    ['600007']
    """
    import pandas as pd

    from lazynwb_dask.expr import extend as expr_extend

    check_frame("with_sessions", frame)
    columns = None if columns is None else names_of("columns", columns)
    scans = expr_extend.scans(frame)
    if by is not None and (sessions is None or not scans):
        raise ValueError("with_sessions: by= needs sessions=, and a frame that was made by read_nwb")
    if sessions is not None:
        if not isinstance(sessions, pd.DataFrame):
            check_frame("with_sessions: sessions=", sessions)
        table = sessions if isinstance(sessions, pd.DataFrame) else sessions.compute()
        if table.index.name == "_nwb_path":
            table = table.reset_index()
        if "asset_id" in table.columns:
            table = assets_plan.on_rows(table)
        if by is not None:
            table = by_session(table, scans, by)
        if "_nwb_path" not in table.columns:
            raise ValueError("with_sessions: sessions= needs the column _nwb_path of read_sessions")
    elif scans:
        table = _table(scans, columns)
    else:
        raise ValueError(
            "with_sessions: this frame was not made by read_nwb, or has been computed since: give "
            "sessions=lazynwb_dask.read_sessions(paths), and keep its column _nwb_path"
        )
    there = [name for name in table.columns if name != "_nwb_path"]
    wanted = [columns] if isinstance(columns, str) else list(there if columns is None else columns)
    for name in wanted:
        if name not in there:
            raise _no_column(name, there)
        if name in frame.columns:
            raise ValueError(
                f"with_sessions: the frame has a column {name!r} already; rename it, or name the "
                "columns that you want"
            )

    def extend(scan: Scan) -> Scan:
        return scan.with_facts(*sessions_plan.facts(table, wanted, scan.files.urls))

    if scans and not any(name in scan.fields for scan in scans for name in wanted):
        with suppress(expr_extend.CantPass):
            return expr_extend.widened(frame, wanted, extend)
    if "_nwb_path" not in frame.columns:
        raise ValueError(
            "with_sessions: it is not known which file each row of this frame is from: keep its "
            "column _nwb_path, or call with_sessions first, before other operations"
        )
    urls = list(dict.fromkeys(url for scan in scans for url in scan.files.urls))
    urls = urls or table["_nwb_path"].drop_duplicates().tolist()
    fields, values = sessions_plan.facts(table, wanted, urls)
    data = {f.name: series([held], f) for f, held in zip(fields, values, strict=True)}
    return expr_extend.mapped(frame, pd.DataFrame(data, index=pd.Index(urls)), fields)


def _table(scans: Sequence[Scan], columns: Sequence[str] | None) -> pd.DataFrame:
    """The session table of some scans' files, what an archive tells of those that are its assets, or both."""
    told = [name for name in columns or () if name.startswith(assets_plan.PREFIX)]
    if columns is None or not told:
        return sessions_plan.session_table(scans)
    urls = dict.fromkeys(url for scan in scans for url in scan.files.urls)
    found = assets_plan.of_files(urls, config.file_access(scans[0].options))
    if len(told) == len(columns):
        return found
    return sessions_plan.session_table(scans).merge(found, on="_nwb_path", how="left")


def _frame(table: pd.DataFrame) -> dd.DataFrame:
    import dask.dataframe as dd

    import lazynwb_dask.api.accessors
    import lazynwb_dask.expr  # noqa: F401 registers accessors, as the other

    return dd.from_pandas(table, npartitions=max(1, math.ceil(len(table) / SESSIONS)))


def _no_column(name: str, there: Sequence[str]) -> ColumnNotFoundError:
    hint = near_or_all(name, there)
    return ColumnNotFoundError(f"with_sessions: the sessions have no column {name!r}{hint}")
