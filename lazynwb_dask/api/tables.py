"""Tables of many files as one frame, and what there is to know of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

import lazynwb_dask.api.accessors  # noqa: F401 registers it
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
from lazynwb_dask.scan.request import Policy, Table, TableRequest

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
    on_missing: Policy = "skip",
    on_error: Policy = "raise",
    allow_external_links: bool = False,
    channels: str | Sequence[int] | None = None,
    scaled: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> dd.DataFrame:
    """Read one table of many NWB files as a Dask DataFrame.

    This call reads only the metadata of the files, a few hundred kilobytes of each. `compute` then reads the
    columns that the computation uses. Of large columns, such as `spike_times`, it reads only the rows that pass
    the conditions.

    Parameters
    ----------
    paths : str, os.PathLike, iterable of these, Catalog, or DataFrame
        The NWB files: HDF5 files, Zarr stores (also zipped) or LINDI files. Each path is a local file, a folder
        (all NWB files and Zarr stores in it and its subfolders), a glob such as ``"data/*.nwb"``, a URL of a
        protocol that fsspec knows (``s3://``, ``https://``, ...), or a dandiset such as ``"dandi:000409"``. The
        order is kept; files of a folder or glob are sorted. Instead of paths: a catalog, or a table with one
        file per row in its column `_nwb_path`, such as that of `dandi_assets`.
    table : str, sequence of str, or callable
        The path of the table in the file, such as ``"/units"``, or one of the short names ``trials``,
        ``epochs``, ``invalid_times`` and ``electrodes``. If several are given, the first that exists in a file
        is read. A callable gets the list of the paths of a file's tables, and returns one of them or None. A
        TimeSeries is read as a table with the columns `timestamps` (seconds) and `data`.
    columns : str or sequence of str, optional
        The columns to return, in this order. Default: all.
    filters : list or str, optional
        The rows to keep: ``[("presence_ratio", ">=", 0.7), ...]`` (all must be true), a list of such lists (one
        must be true), or an expression of `pandas.DataFrame.query`. Operators: ``==``, ``!=``, ``<``, ``<=``,
        ``>``, ``>=``, ``in``, ``not in``, ``is null``, ``is not null``. This is the same as filtering the
        frame.
    schema : int, mapping or pyarrow.Schema, optional
        Default: the union of the columns of all files. A mapping of names to types sets the types of some
        columns. With a `pyarrow.Schema`, or an int n (the schema of n of the files), other files are first
        opened when the frame is computed, and each file is one partition of unknown length. A value that would
        change by conversion to its type is an error.
    blocksize : int, str or None, default "128 MiB"
        Approximate size of a partition in memory, in bytes. Larger tables are split by rows. Small partitions
        are read together by one task. None: one partition for each file. On a cluster, partitions are at most
        an eighth of the memory that a worker has for each of its threads.
    on_missing : {"skip", "raise"}, default "skip"
        What to do with files that don't have the table: leave them out with a warning, or raise an error.
    on_error : {"raise", "skip"}, default "raise"
        What to do with files that can't be read: raise an error, or leave them out with a warning.
        `read_report` lists those that were left out.
    allow_external_links : bool, default False
        Follow links to other files, and read datasets that are stored in other files. Local files only. Use it
        only for files that you trust: a link can name any file of your computer.
    channels : sequence of int or "all", optional
        For a TimeSeries with several channels: the channels to read, counted from 0. Each becomes a column, as
        `data_0`. Default: one column `data` of lists.
    scaled : bool, default False
        For a TimeSeries: convert `data` to its unit, as float64:
        ``data * conversion * channel_conversion + offset``. Default: values as stored.
    storage_options : mapping, optional
        Options for fsspec, such as ``{"anon": True}``: one mapping for all files, or a mapping of protocols or
        URL prefixes to such mappings.

    Returns
    -------
    dask.dataframe.DataFrame
        One row for each row of the table in each file, in the order of the files. The columns of the table,
        `id` first, then `_nwb_path` (string, the file), `_table_path` (string, the path of the table in it) and
        `_table_index` (int64, the row in it, from 0). Ragged and multi-dimensional columns are lists, such as
        ``list<item: double>[pyarrow]``; texts are ``string``. A column that a file lacks has missing values
        there. The index is the row number over all files, int64; with a `pyarrow.Schema` or an int as `schema`,
        the row number within each file.

    Raises
    ------
    NWBReadError
        A file is missing, forbidden, truncated, or not an NWB file.
    TableNotFoundError
        No file has the table; with ``on_missing="raise"``: a file lacks it.
    ColumnNotFoundError
        No file has a column of `columns` or `filters`.
    SchemaConflictError
        A column of `columns` or `filters` has types in different files that can't be combined.
    UnsupportedColumnError
        A column of `columns` or `filters` can't be read.
    TypeError, ValueError
        An argument has a wrong type or value.

    Warns
    -----
    UserWarning
        Files or columns were left out, or links to other files were not followed.

    See Also
    --------
    list_tables : the tables of one file.
    schema_report : the columns of a table, and their types in the files.
    read_report : the files that were left out.
    explain : what `compute` would read.

    Notes
    -----
    A table is an object of the type DynamicTable of the `HDMF common schema
    <https://hdmf-common-schema.readthedocs.io/en/stable/format.html>`_ or of a type derived from it. Its
    columns with a VectorIndex are ragged.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> units = lazynwb_dask.read_nwb(paths, "/units")
    >>> len(units)
    240
    >>> good = units[(units.presence_ratio >= 0.7) & (units.isi_violations_ratio <= 0.5)]
    >>> spikes = good[["unit_id", "location", "spike_times", "_nwb_path"]].compute()
    >>> spikes.spike_times.dtype
    list<item: double>[pyarrow]

    The same rows by `filters`:

    >>> filters = [("presence_ratio", ">=", 0.7), ("isi_violations_ratio", "<=", 0.5)]
    >>> len(lazynwb_dask.read_nwb(paths, "/units", filters=filters)) == len(spikes)
    True
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
    """List the files that were left out of a frame, and why.

    These are files that ``on_error="skip"`` left out. With a `pyarrow.Schema` or an int as `schema`, they are
    also the files that ``on_missing="skip"`` left out, because that is known only when the frame has been
    computed.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or SQLQuery
        Returned by `read_nwb`, `read_sessions` or `sql`, or derived from such a frame. Not the result of
        `persist`: use the frame on which `persist` was called.

    Returns
    -------
    pandas.DataFrame
        One row for each failure: `path`; `stage`, ``"plan"`` for failures in the call of `read_nwb` and
        ``"read"`` for failures while computing; `error`, the class and text of the error. Failures on the
        workers of the active cluster are included. Failures in Dask's multiprocessing scheduler are not; they
        are only printed as warnings.

    Raises
    ------
    ValueError
        The frame is the result of `persist`.
    TypeError
        `frame` is neither a Dask DataFrame nor a SQLQuery.

    See Also
    --------
    read_nwb : has the argument `on_error`.
    schema_report : the files that lack a column.

    Examples
    --------
    >>> import warnings
    >>> from lazynwb_dask import read_nwb, read_report
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> _ = open(paths[1], "r+b").truncate(5_000)
    >>> with warnings.catch_warnings(action="ignore"):
    ...     units = read_nwb(paths, "/units", on_error="skip")
    >>> found = read_report(units)
    >>> found.path.tolist() == paths[1:], found.stage.tolist()
    (True, ['plan'])
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
    return pd.DataFrame(list(dict.fromkeys(rows)), columns=["path", "stage", "error"], dtype="str")


def schema_report(
    paths: Paths, table: Table, *, on_error: Policy = "raise", storage_options: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Report the columns of a table, and their types in the files.

    Parameters
    ----------
    paths : str, os.PathLike, iterable of these, Catalog, or DataFrame
        The NWB files, as in `read_nwb`.
    table : str, sequence of str, or callable
        The table, as in `read_nwb`.
    on_error : {"raise", "skip"}, default "raise"
        What to do with files that can't be read: raise an error, or leave them out with a warning.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`.

    Returns
    -------
    pandas.DataFrame
        One row for each column; its name is the index. All texts are empty where there is nothing to report.

        - `dtype`: in the frame of `read_nwb`.
        - `found`: the types in the files, and the number of files with each.
        - `files`, `missing` (int64): the number of files with and without the column.
        - `shape`: of the dataset; ``*`` is a ragged dimension.
        - `description`, `unit`: as in the first file that has one.
        - `refers_to`: the path of the table whose row numbers the column holds.
        - `notes`: oddities in the files, such as a length that differs from the table's.
        - `problem`: why the column is left out of the frame.

    Raises
    ------
    NWBReadError
        A file can't be read.
    TableNotFoundError
        No file has the table.
    TypeError, ValueError
        An argument has a wrong type or value.

    See Also
    --------
    contents : the tables and TimeSeries of files.
    read_nwb : its argument `schema` sets types of columns.

    Examples
    --------
    >>> from lazynwb_dask import schema_report
    >>> from lazynwb_dask.datasets import make_sessions
    >>> report = schema_report(make_sessions("sessions", n=3, varied=True), "/units")
    >>> report.loc[["spike_times", "default_qc", "d_prime"], ["found", "missing"]].values.tolist()
    [['list<item: double> (3)', 0], ['bool (2), int8 (1)', 0], ['float64 (2)', 1]]
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
    """List the paths of all tables of one file.

    Parameters
    ----------
    path : str or os.PathLike
        One file: a local path or a URL.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`.

    Returns
    -------
    list of str
        Paths in the file, such as ``"/units"``, for the argument `table` of `read_nwb`.

    Raises
    ------
    NWBReadError
        The file can't be read.
    ValueError
        The path is a folder or glob with several files.
    TypeError
        The path is not a path.

    Warns
    -----
    UserWarning
        The file has links to other files. They are not followed.

    See Also
    --------
    contents : also TimeSeries and all other objects; of one or many files.

    Examples
    --------
    >>> from lazynwb_dask import list_tables
    >>> from lazynwb_dask.datasets import make_sessions
    >>> list_tables(make_sessions("sessions", n=1)[0])[:2]
    ['/units', '/events/events']
    """
    access = file_access(path, storage_options)
    source = one_source(path, access)
    found, links = queries.list_tables_and_links(source, access)
    warn_of_links([(source, links)], "tables")
    return found
