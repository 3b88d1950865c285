"""The public functions beside `read_nwb`: what files say of themselves. Thin, as those of `api`."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lazynwb_dask import config
from lazynwb_dask.api.tables import Paths, _options, _sources
from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.cluster import failures
from lazynwb_dask.cluster.secrets_plugin import share
from lazynwb_dask.errors import (
    ColumnNotFoundError,
    Failure,
    NWBError,
    NWBReadError,
    UnsupportedColumnError,
)
from lazynwb_dask.plan import contents as inventory
from lazynwb_dask.plan import sessions as room
from lazynwb_dask.scan.schema import series
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage.options import Options
from lazynwb_dask.util.suggest import near_or_all

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

    from lazynwb_dask.scan.scan import Scan
    from lazynwb_dask.timeseries.series import TimeSeries

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

    Notes
    -----
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
    >>> sessions = read_sessions(make_sessions(getfixture("tmp_path"), n=2))
    >>> sessions[["subject_id", "session_start_time", "species"]].compute()
      subject_id            session_start_time       species
    0     600000 2023-01-09 17:30:12.345+00:00  Mus musculus
    1     600000 2023-01-10 17:31:12.345+00:00  Mus musculus
    """
    _check(on_error)
    if isinstance(paths, Catalog):
        return _frame(paths.sessions)
    options = Options(storage_options)
    sources = expand(paths, options)
    found, failed = room.read_sessions(
        sources,
        options,
        config.settings(),
        threads=config.get("index-threads"),
        on_error=on_error,
        progress=config.get("progress"),
    )
    failures.warn_skipped(failed, len(sources))
    if not found:
        raise _none(failed)
    table, odd = room.table(found)
    if odd:
        warnings.warn(
            f"{len(odd)} times can't be understood and are missing (the first: {odd[0]})",
            stacklevel=2,
        )
    frame = _frame(table)
    failures.note(frame._name, failed)
    return frame


def _frame(table: pd.DataFrame) -> dd.DataFrame:
    import dask.dataframe as dd

    return dd.from_pandas(table, npartitions=max(1, math.ceil(len(table) / SESSIONS)))


def with_sessions(
    frame: dd.DataFrame,
    columns: str | Sequence[str] | None = None,
    *,
    sessions: dd.DataFrame | pd.DataFrame | None = None,
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
        Of the session table; all of them if not given.
    sessions : DataFrame, optional
        The session table, if it has been read already, with `_nwb_path` as a column or as its index; may
        have further columns of your own.

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

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions(getfixture("tmp_path"), n=4), "/units")
    >>> units = with_sessions(units, ["subject_id", "session_start_time"])
    >>> late = units[units.session_start_time > "2023-01-11"]  # reads two of the four files
    >>> late.subject_id.unique().compute().tolist()
    ['600007']
    """
    import pandas as pd

    from lazynwb_dask.expr import extend as widen

    scans = widen.scans(frame)
    if sessions is not None:
        table = sessions if isinstance(sessions, pd.DataFrame) else sessions.compute()
        if table.index.name == "_nwb_path":
            table = table.reset_index()
        if "_nwb_path" not in table.columns:
            raise ValueError("with_sessions: sessions= needs the column _nwb_path of read_sessions")
    elif scans:
        table = _session_table(scans)
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
        return scan.with_facts(*room.facts(table, wanted, scan.files.urls))

    if scans and not any(name in scan.fields for scan in scans for name in wanted):
        with suppress(widen.CantPass):
            return widen.widened(frame, wanted, extend)
    if "_nwb_path" not in frame.columns:
        raise ValueError(
            "with_sessions: it can't be told which file the rows of this frame are from: keep its "
            "column _nwb_path, or call with_sessions before what else is done with the frame"
        )
    urls = list(dict.fromkeys(url for scan in scans for url in scan.files.urls))
    urls = urls or table["_nwb_path"].drop_duplicates().tolist()
    fields, values = room.facts(table, wanted, urls)
    data = {f.name: series([held], f) for f, held in zip(fields, values, strict=True)}
    return widen.mapped(frame, pd.DataFrame(data, index=pd.Index(urls)), fields)


def _session_table(scans: Sequence[Scan]) -> pd.DataFrame:
    """The sessions of the files of some scans."""
    found = []
    seen: set[str] = set()
    for scan in scans:
        new = [i for i, url in enumerate(scan.files.urls) if url not in seen]
        seen.update(scan.files.urls)
        sources = [scan.files.source(i) for i in new]
        found += room.read_sessions(
            sources,
            scan.options,
            config.settings(),
            threads=config.get("index-threads"),
            on_error=scan.on_error,
            progress=config.get("progress"),
        )[0]
    return room.table(found)[0]


def contents(
    paths: Paths,
    *,
    per_file: bool = False,
    on_error: str = "raise",
    storage_options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """What a file holds: tables, TimeSeries and all other typed objects. No data are read.

    Parameters
    ----------
    paths
        As in `read_nwb`. One path of one file: its contents. Several files: which object is in how many
        of them.
    per_file : bool
        Of several files: the objects of each, with `_nwb_path`, rather than how many files have them.
    on_error : {"raise", "skip"}
        What to do with files that can't be read.
    storage_options : mapping, optional
        As in `read_nwb`.

    Returns
    -------
    pandas.DataFrame
        Of one file, a row for each object, which a notebook shows as a tree: ``path``, ``kind`` (table,
        time series, other), ``neurodata_type``, ``rows``, ``shape`` (of the data, of a table rows and
        columns), ``dtype``, ``columns``, ``stored_bytes`` (missing where there are so many compressed
        chunks that their sizes were not looked up), ``decoded_bytes`` (without the text of strings),
        ``rate`` or ``timestamps`` (where these are stored), ``unit``, ``description``, ``problem`` (why it
        can't be read).

        Of several, a row for each path and kind: the number of ``files`` that have it and of those that
        don't, their ``rows`` and bytes together, one file as ``example``.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions(getfixture("tmp_path"), n=3)
    >>> found = contents(paths[0]).set_index("path")
    >>> found.loc["/acquisition/lick_sensor", ["neurodata_type", "shape", "unit"]].tolist()
    ['TimeSeries', (36000,), 'volts']
    >>> contents(paths).query("path == '/units'")[["files", "rows"]].values.tolist()
    [[3, 360]]
    """
    _check(on_error)
    options = _options(paths, storage_options)
    sources = _sources(paths, options)
    found, failed = inventory.stock(
        sources,
        options,
        config.settings(),
        threads=config.get("index-threads"),
        on_error=on_error,
        progress=config.get("progress"),
    )
    failures.warn_skipped(failed, len(sources))
    if not found:
        raise _none(failed)
    if len(sources) == 1 and isinstance(paths, (str, os.PathLike)):
        return inventory.of_one(*found[0])
    return inventory.of_each(found) if per_file else inventory.of_many(found)


def open_timeseries(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    match_all: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> TimeSeries | dict[str, TimeSeries]:
    """A TimeSeries of a file as lazy arrays.

    Opening reads metadata only, and of large series not even the index of their chunks. What is computed
    of the arrays reads the chunks that it touches.

    Parameters
    ----------
    path : str or os.PathLike
        One file.
    name : str, optional
        The series' path in the file (``"/acquisition/lfp"``), or the end or any part of it, if no other
        series has that too.
    match_all : bool
        All series that `name` means, by path; all of the file if there is no name. One that can't be
        read is left out with a warning.
    storage_options : mapping, optional
        As in `read_nwb`.

    Returns
    -------
    TimeSeries, or dict of str to TimeSeries
        With `data` and `timestamps` as `dask.array.Array`, `rate`, `unit`, `conversion`, ...

    Raises
    ------
    TableNotFoundError
        No series has the name, or several do.

    See Also
    --------
    read_nwb : the same series of many files as one table, with conditions on time pushed down.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> (path,) = make_sessions(getfixture("tmp_path"), n=1, lfp_shape=(20_000, 16))
    >>> lfp = open_timeseries(path, "lfp")
    >>> lfp.data.shape, lfp.data.dtype, lfp.data.chunksize
    ((20000, 16), dtype('int16'), (20000, 16))
    >>> lfp.data[5_000:5_010, :4].mean().compute().round(3)
    np.float64(15.4)
    >>> lfp.electrodes.table, lfp.rate
    ('/general/extracellular_ephys/electrodes', 11.11111111111111)
    """
    from lazynwb_dask.timeseries.find import find
    from lazynwb_dask.timeseries.series import open_series

    options = Options(storage_options)
    source, *more = expand(path, options)
    if more:
        raise ValueError(f"{path}: open_timeseries takes one file; these are {1 + len(more)}")
    if name is None and not match_all:
        raise ValueError("name a TimeSeries, or give match_all=True")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name={name!r}: the path of a TimeSeries, or a part of it")
    share(options)
    known, tables = find(source, name, match_all, options, config.settings())
    if not match_all:
        return open_series(known, tables[0], options)
    found = {}
    for table in tables:
        try:
            found[table.path] = open_series(known, table, options)
        except (UnsupportedColumnError, NWBReadError) as exc:
            warnings.warn(f"a TimeSeries is left out: {exc}", stacklevel=2)
    return found


def _check(on_error: str) -> None:
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: one of 'raise', 'skip'")


def _no_column(name: str, there: Sequence[str]) -> ColumnNotFoundError:
    hint = near_or_all(name, there)
    return ColumnNotFoundError(f"with_sessions: the sessions have no column {name!r}{hint}")


def _none(failed: list[Failure]) -> NWBError:
    return NWBError(
        f"none of the {len(failed)} files can be read; the first: {failed[0].path}: "
        f"{failed[0].error}"
    )
