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
from lazynwb_dask.scan.request import check_policy
from lazynwb_dask.scan.to_pandas import series
from lazynwb_dask.util.suggest import near_or_all
from lazynwb_dask.util.warn import warn

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

    from lazynwb_dask.scan.scan import Scan

SESSIONS = 2_000  # rows of a partition of the session table


def read_sessions(
    paths: Paths, *, on_error: str = "raise", storage_options: Mapping[str, Any] | None = None
) -> dd.DataFrame:
    """The session and subject metadata of many NWB files: one row for each file.

    All files are read now, many at a time, a few small requests each: the result is a small frame that
    computing costs nothing more. A catalog knows its sessions: then no file is read.

    Parameters
    ----------
    paths
        As in `read_nwb`.
    on_error : {"raise", "skip"}
        What to do with files that can't be read. See `read_report`.
    storage_options : mapping, optional
        As in `read_nwb`.

    Returns
    -------
    dask.dataframe.DataFrame
        The standard's fields of the session, then of the subject, under the names that they have in
        the file; then all others that some file has, such as those of extensions of the subject; last
        `_nwb_path`. `description`, `age`, `sex` and the like are the subject's. A field of the subject
        or of an extension that is called like one of the standard begins with its group's name
        (``subject_``, ``general_``). What a file doesn't say is
        missing.

    Raises
    ------
    NWBReadError
        A file can't be read; with ``on_error="skip"``, none can.

    See Also
    --------
    with_sessions : the same values on each row of another frame.

    Notes
    -----
    The fields are those of NWBFile and Subject in the `NWB schema
    <https://nwb-schema.readthedocs.io/en/latest/format.html>`_.

    Times (`session_start_time`, `timestamps_reference_time`, `file_create_date`, `date_of_birth`) are in
    UTC. **A time without a zone is taken as UTC**: nothing in the file tells the zone that was meant. Texts
    that are no ISO 8601 times are missing, with one warning.

    `experimenter`, `keywords`, `related_publications` and `file_create_date` are lists, also where a file
    has a single value. All other standard fields are text, whatever type a file stores them as; other
    fields have the type that holds all files' values.

    Values are data: whatever they say, they are never evaluated.

    Examples
    --------
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
    """A frame with session and subject metadata on each row: those of the file that the row is from.

    Nothing is shuffled, and no more is read than the session table. Where the frame is a read, filtered or
    not, the new columns are part of the read: a condition on them leaves whole files out.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        Made by `read_nwb`, or from one that was. If it is more than columns, conditions, assigned columns
        and `head` of one table, it needs the column `_nwb_path`; if it has been computed since
        (``persist``), it needs `sessions` too.
    columns : sequence of str, optional
        Of the session table; all of them if not given. Of files in a dandiset also the columns of
        `dandi_assets`, with ``dandi_`` before their names: these cost one request, and no file is opened.
    sessions : DataFrame, optional
        The session table, if it has been read already, with `_nwb_path` as a column or as its index; may
        have further columns of your own. Or the table that `dandi_assets` has made.
    by : "session_id", or a mapping from file to session, optional
        `sessions` has rows for sessions, by its column `session_id`, or for other files of the same sessions.
        As in `merge_by_file`. Of several rows of a session, the one with the fewest missing values counts.

    Returns
    -------
    dask.dataframe.DataFrame
        The frame's columns, then these. Files of which `sessions` has no row have missing values.

    Raises
    ------
    ColumnNotFoundError
        The session table has no such column.
    ValueError
        The frame has a column of that name already, or it can't be told which file a row is from.

    See Also
    --------
    read_sessions : the session table.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
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

    import lazynwb_dask.api.accessors  # noqa: F401 registers them

    return dd.from_pandas(table, npartitions=max(1, math.ceil(len(table) / SESSIONS)))


def _no_column(name: str, there: Sequence[str]) -> ColumnNotFoundError:
    hint = near_or_all(name, there)
    return ColumnNotFoundError(f"with_sessions: the sessions have no column {name!r}{hint}")
