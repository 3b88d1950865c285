"""Tables of many files as one frame, and what there is to know of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

import lazynwb_dask.api.accessors  # noqa: F401 registers them
from lazynwb_dask import expr
from lazynwb_dask.api.arguments import (
    Paths,
    check_bools,
    check_frame,
    check_named,
    file_access,
    knows_table,
    one_source,
    sources_of,
    table_request,
)
from lazynwb_dask.by_file.alignment import file_scans
from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.catalog.scan import catalog_scan, report_of
from lazynwb_dask.cluster import failures
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.series_view import Shown
from lazynwb_dask.plan.checks import warn_of_links
from lazynwb_dask.plan.report import report
from lazynwb_dask.plan.schema import schema_of
from lazynwb_dask.plan.table_scan import indexed_tables, table_scan
from lazynwb_dask.scan.request import Table, TableRequest

if TYPE_CHECKING:
    import dask.dataframe as dd


def read_nwb(
    paths: Paths,
    table: Table,
    *,
    columns: str | Sequence[str] | None = None,
    filters: Any = None,
    schema: Any = None,
    blocksize: int | str | None = "128 MiB",
    on_missing: str = "skip",
    on_error: str = "raise",
    allow_external_links: bool = False,
    channels: str | Sequence[int] | None = None,
    scaled: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> dd.DataFrame:
    """One table of many NWB files as a Dask DataFrame.

    Only metadata are read now, a few hundred kilobytes of each file. What a computation needs is read
    when it runs: the columns that it uses, and of columns such as `spike_times` only the rows that its
    filters leave.

    Parameters
    ----------
    paths : str, os.PathLike or iterable of them, or Catalog
        Local paths, globs, directories (every NWB file and Zarr store below them) and URLs that fsspec
        knows (``s3://``, ``http://``, ``https://``, ...), of HDF5 files, Zarr stores, zipped ones too, and
        LINDI files. A name that exists is no glob. The order is kept. Dandisets by name (``dandi:000409``). Or
        a catalog of such files, or a table with a file in each row, in its column `_nwb_path`, as
        `dandi_assets` gives.
    table : str, sequence of str, or callable
        A path in the file (``"/units"``) or an alias: ``trials``, ``epochs``, ``invalid_times``,
        ``electrodes``. Of several, the first that a file has. A callable is given the paths of a file's
        tables and returns one of them, or None. The path of a TimeSeries reads as a table of
        `timestamps` and `data`.
    columns : sequence of str, optional
        Only these columns, in this order.
    filters : list or str, optional
        Rows to keep: ``[("presence_ratio", ">=", 0.7), ...]``, a list of such lists (any of them), or the
        text of a `DataFrame.query`. The same as filtering the frame.
    schema : int, mapping or pyarrow.Schema, optional
        None: the union of all files' columns. A mapping gives the types of some columns. A
        `pyarrow.Schema` gives all columns: then no file is opened before the computation, and each file is
        one partition of unknown length. An int: the same, with the schema of so many of the files. Values
        become another type only where they stay the same.
    blocksize : int or str, optional
        Decoded bytes of a task, about: larger tables are split by rows, smaller ones are read together.
        None: one partition for each file. On a cluster at most an eighth of the memory that its workers
        have for each of their threads.
    on_missing : {"skip", "raise"}
        What to do with files that don't have the table, or under a given `schema` not all columns. Where
        that only shows while computing, `read_report` lists them, and if no file has the table there are
        no rows.
    on_error : {"raise", "skip"}
        What to do with files that can't be read, and folders that can't be listed. With "skip" a column that
        some files can't give is missing in their rows, too; else it is left out. See `read_report`.
    allow_external_links : bool
        Follow links into other files, and read data that a file keeps in others. Only for local files, and
        only if you trust them: a file can name any other.
    channels : sequence of int or "all", optional
        Of a TimeSeries with several channels: a column for each of these, `data_0` and so on, counted from
        0. Only the chunks that hold them are read. If not given, `data` holds lists.
    scaled : bool
        The data of a TimeSeries in its unit, as float64: ``data * conversion + offset``, with
        `channel_conversion` where there is one. Otherwise they are as stored.
    storage_options : mapping, optional
        For fsspec: one mapping, or one for each protocol or URL prefix.

    Returns
    -------
    dask.dataframe.DataFrame
        The table's columns, `id` first, then `_nwb_path` (the file), `_table_path`, and `_table_index`
        (the row in that file's table). Rows are in the order of the files, then of the table. The index
        is the row number over all files.

    Raises
    ------
    NWBReadError
        A file can't be read: missing, forbidden, truncated, not NWB.
    TableNotFoundError
        No file has the table; with ``on_missing="raise"``, some file.
    ColumnNotFoundError
        A column of `columns` or `filters` is in no file.
    SchemaConflictError, UnsupportedColumnError
        A column was asked for that has no common type, or can't be read.

    See Also
    --------
    schema_report : what each column is, and in how many files.
    read_report : the files that could not be read.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> units = lazynwb_dask.read_nwb(paths, "/units")
    >>> good = units[(units.presence_ratio >= 0.7) & (units.isi_violations_ratio <= 0.5)]
    >>> spikes = good[["unit_id", "location", "spike_times", "_nwb_path"]].compute()
    >>> spikes.spike_times.dtype
    list<item: double>[pyarrow]
    """
    check_bools(scaled=scaled)
    access = file_access(paths, storage_options)
    check_named(table, paths, access)
    request = table_request(
        table,
        columns=columns,
        filters=filters,
        schema=schema,
        blocksize=blocksize,
        view=Shown.of(channels, scaled),
        on_missing=on_missing,
        on_error=on_error,
        allow_external_links=allow_external_links,
    )
    if knows_table(paths, request):
        scan = catalog_scan(paths, request)
    else:
        rising = paths.rising if isinstance(paths, Catalog) else None
        scan = table_scan(sources_of(paths, access), request, access, rising)
    frame = expr.from_scan(scan, request.predicate)
    return frame if request.columns is None else frame[list(request.columns)]


def read_report(frame: dd.DataFrame) -> pd.DataFrame:
    """The files that `on_error="skip"` left out of a frame, and why.

    Under a given `schema`, which files lack the table or a column only shows while computing: those that
    ``on_missing="skip"`` passed over are listed too.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or SQLQuery
        Made by `read_nwb`, `read_sessions` or `sql`, or from one that was; but not by `persist`, whose result
        doesn't know what it was read from: the frame that was persisted does.

    Returns
    -------
    pandas.DataFrame
        One row for each failure: ``path``, ``stage`` (``"plan"``, or ``"read"`` for those that only
        showed while computing, in this process or on the workers of the active cluster), ``error``.
        Those that only show while Dask's multiprocessing scheduler computes are not in it: each is a
        warning that a process of that scheduler prints.

    Raises
    ------
    ValueError
        The frame was persisted.

    See Also
    --------
    schema_report : files that lack a column.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> _ = open(paths[1], "r+b").truncate(5_000)
    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     units = read_nwb(paths, "/units", on_error="skip")
    >>> read_report(units)[["stage"]].values.tolist()
    [['plan']]
    """
    if callable(report := getattr(frame, "report", None)):  # of a SQLQuery
        found: pd.DataFrame = report()
        return found
    check_frame("read_report", frame)
    if expr.is_computed(frame):
        raise ValueError(
            "a persisted frame doesn't keep what it was read from; give read_report the frame "
            "on which persist was called: it has the failures of persist(), too"
        )
    scans = [scan for node in expr.reads(frame) for scan in file_scans(node.scan)]
    rows = [failure for scan in scans for failure in scan.failures]
    origins = {scan.origin or scan.token for scan in scans}
    rows += failures.recorded(origins | {node._name for node in frame.expr.walk()})
    return pd.DataFrame(list(dict.fromkeys(rows)), columns=["path", "stage", "error"])


def schema_report(
    paths: Paths, table: Table, *, on_error: str = "raise", storage_options: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """What each column of a table is, and in how many files it is what.

    Parameters
    ----------
    paths, table, on_error, storage_options
        As in `read_nwb`.

    Returns
    -------
    pandas.DataFrame
        One row for each column, by its name: ``dtype``, in the frame; ``found``, the types in the files and in
        how many files each is; ``files`` and ``missing``, how many files have the column and lack it; ``shape``
        of its rows; ``description``, ``unit``; ``refers_to``, the table that row numbers are of; ``notes``,
        what is odd about it; ``problem``, why it is left out of the frame, else empty.

    Raises
    ------
    NWBReadError
        A file can't be read.
    TableNotFoundError
        No file has the table.

    See Also
    --------
    contents : which tables there are.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> report = schema_report(make_sessions("sessions", n=3), "/units")
    >>> report.found["spike_times"], report.found["firing_rate"]
    ('list<item: double> (3)', 'float64 (3)')
    """
    access = file_access(paths, storage_options)
    check_named(table, paths, access)
    request = TableRequest(table, on_error=on_error, details=True)
    if knows_table(paths, request):
        return report_of(paths, request)
    tables, _ = indexed_tables(sources_of(paths, access), request, access)
    unified = schema_of(tables, {}, access, on_error)
    return report([(source.url, index) for source, index in tables], unified)


def list_tables(path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """The paths of all tables of one file. Links to other files aren't followed, but warned of.

    Parameters
    ----------
    path : str or os.PathLike
        One file.
    storage_options : mapping, optional
        As in `read_nwb`.

    Returns
    -------
    list of str
        Paths in the file, each of which `read_nwb` takes as `table`.

    Raises
    ------
    NWBReadError
        The file can't be read.
    ValueError
        The path means several files.

    See Also
    --------
    contents : TimeSeries and all other objects, too; of one or many files.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> list_tables(make_sessions("sessions", n=1)[0])[:2]
    ['/units', '/events/events']
    """
    access = file_access(path, storage_options)
    source = one_source(path, access)
    found, links = queries.list_tables_and_links(source, access)
    warn_of_links([(source, links)], "tables")
    return found
