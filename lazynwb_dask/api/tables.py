"""The public functions: thin, each a few lines over the rooms below."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from dask.utils import parse_bytes

from lazynwb_dask import config, expr
from lazynwb_dask.by_file.alignment import file_scans
from lazynwb_dask.catalog import catalog as catalogs
from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.catalog.scan import plan, report_of
from lazynwb_dask.cluster import client as cluster
from lazynwb_dask.cluster import failures
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.series_view import Shown
from lazynwb_dask.model.source import Source
from lazynwb_dask.nwb.names import Table, table_path
from lazynwb_dask.nwb.series_view import show_all
from lazynwb_dask.plan import partitions as assembly
from lazynwb_dask.plan.index_files import index_files
from lazynwb_dask.plan.report import report
from lazynwb_dask.plan.tables import (
    check_columns,
    check_overrides,
    given,
    inferred,
    overrides_of,
    present,
    schema_of,
    spread,
    warn_left_out,
)
from lazynwb_dask.predicate.filters_argument import from_filters
from lazynwb_dask.scan.schema import Schema
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage.options import Options

if TYPE_CHECKING:
    import dask.dataframe as dd
    import h5py

    from lazynwb_dask.explanation.explanation import Explanation

BLOCKS = 8  # of those that fit into the memory of one thread

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Catalog


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
        Local paths, globs, directories (every NWB file below them) and URLs that fsspec knows
        (``s3://``, ``http://``, ``https://``, ...). The order is kept. Or a catalog of such files.
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
        What to do with files that can't be read. See `read_report`.
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
    >>> folder = getfixture("tmp_path")
    >>> paths = make_sessions(folder, n=2)
    >>> units = lazynwb_dask.read_nwb(paths, "/units")
    >>> good = units[(units.presence_ratio >= 0.7) & (units.isi_violations_ratio <= 0.5)]
    >>> spikes = good[["unit_id", "location", "spike_times", "_nwb_path"]].compute()
    >>> spikes.spike_times.dtype
    list<item: double>[pyarrow]
    """
    _one_of("on_missing", on_missing, ("skip", "raise"))
    _one_of("on_error", on_error, ("skip", "raise"))
    names = None if columns is None else [columns] if isinstance(columns, str) else list(columns)
    predicate = from_filters(filters) if filters is not None else None
    wanted = list(dict.fromkeys([*(names or []), *(predicate.columns if predicate else ())]))
    size = None if blocksize is None else _fitting(parse_bytes(blocksize))
    options, settings = _options(paths, storage_options), config.settings()
    links, view = allow_external_links, Shown.of(channels, scaled)
    if isinstance(paths, Catalog) and _holds(paths, table, schema, view, links):

        def check(found: Schema) -> None:
            check_overrides(overrides, found)
            check_columns(wanted, found)
            warn_left_out(found)

        overrides = overrides_of(schema)
        built, unified = plan(
            paths, table, overrides, size, check, on_error=on_error, on_missing=on_missing
        )
        frame = expr.from_scan(built, predicate)
        return frame if names is None else frame[names]
    sources = _sources(paths, options)
    if isinstance(schema, (int, np.integer)) and not isinstance(schema, bool):
        sample = spread(sources, int(schema))
        schema = inferred(sample, table, options, settings, on_error, on_missing, view, links)
        unified = Schema({f.name: f for f in schema})
        built = assembly.unindexed(
            sources, table, unified, options, on_error, on_missing, links, view
        )
    elif isinstance(schema, pa.Schema):
        unified = Schema({f.name: f for f in given(schema)})
        built = assembly.unindexed(
            sources, table, unified, options, on_error, on_missing, links, view
        )
    else:
        overrides = overrides_of(schema)
        found, failed = index_files(
            sources,
            table,
            options,
            settings,
            threads=config.get("index-threads"),
            on_error=on_error,
            progress=config.get("progress"),
            allow_external_links=links,
        )
        failures.warn_skipped(failed, len(sources))
        found = show_all(found, view)
        tables = present(found, failed, table, on_missing, options, settings)
        unified = schema_of(tables, overrides, options, settings)
        check_columns(wanted, unified)
        warn_left_out(unified)
        built = assembly.build(
            tables, unified, options, size,
            numbered=on_error == "raise", on_error=on_error, on_missing=on_missing,
        )  # fmt: skip
        if failed:
            built = replace(built, failures=tuple((f.path, f.stage, f.error) for f in failed))
    check_columns(wanted, unified)
    frame = expr.from_scan(built, predicate)
    return frame if names is None else frame[names]


def read_report(frame: dd.DataFrame) -> pd.DataFrame:
    """The files that `on_error="skip"` left out of a frame, and why.

    Under a given `schema`, which files lack the table or a column only shows while computing: those that
    ``on_missing="skip"`` passed over are listed too.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        Made by `read_nwb` or `read_sessions`, or from one that was; but not by `persist`, whose result
        doesn't know what it was read from: the frame that was persisted does.

    Returns
    -------
    pandas.DataFrame
        One row for each failure: ``path``, ``stage`` (``"plan"``, or ``"read"`` for those that only
        showed while computing, in this process, in those it started, or on the workers of the
        active cluster), ``error``.

    Raises
    ------
    ValueError
        The frame was persisted.
    """
    if expr.is_computed(frame):
        raise ValueError(
            "a frame that was persisted doesn't know what it was read from; give read_report the frame "
            "that persist was called on: it has the failures that persisting has shown, too"
        )
    rows: list[tuple[str, str, str]] = []
    for scan in (scan for node in expr.reads(frame) for scan in file_scans(node.scan)):
        rows += scan.failures
        rows += failures.told(scan.origin or scan.token)
    rows += failures.noted({node._name for node in frame.expr.walk()})
    return pd.DataFrame(list(dict.fromkeys(rows)), columns=["path", "stage", "error"])


def schema_report(
    paths: Paths,
    table: Table,
    *,
    on_error: str = "raise",
    storage_options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """What each column of a table is, and in how many files it is what.

    Parameters
    ----------
    paths, table, on_error, storage_options
        As in `read_nwb`.

    Returns
    -------
    pandas.DataFrame
        One row for each column: the dtype chosen, the types found and in how many files, how many files
        have it and lack it, its shape, description and unit, what is odd about it, and, where it is left
        out of the frame, why.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> report = schema_report(make_sessions(getfixture("tmp_path"), n=3), "/units")
    >>> report.found["spike_times"], report.found["firing_rate"]
    ('list<item: double> (3)', 'float64 (3)')
    """
    if isinstance(paths, Catalog) and _holds(paths, table, None, None, False):
        return report_of(paths, table)
    _one_of("on_error", on_error, ("skip", "raise"))
    options, settings = _options(paths, storage_options), config.settings()
    sources = _sources(paths, options)
    found, failed = index_files(
        sources, table, options, settings,
        threads=config.get("index-threads"), details=True, progress=config.get("progress"),
        on_error=on_error,
    )  # fmt: skip
    failures.warn_skipped(failed, len(sources))
    tables = present(found, failed, table, "skip", options, settings)
    unified = schema_of(tables, {}, options, settings)
    return report([(source.url, t) for source, t in tables], unified)


def build_catalog(
    paths: Paths,
    url: str | os.PathLike[str],
    *,
    on_error: str = "raise",
    tables: str | Sequence[str] | None = None,
    values_limit: int | str = "4 MiB",
    storage_options: Mapping[str, Any] | None = None,
) -> Catalog:
    """Index many NWB files once, for good, into a folder of any store.

    Files are indexed by the active Dask cluster, else by threads. What is done is kept: after an
    interruption the same call goes on where it was, and called again it indexes new and changed files
    only. Whoever has the catalog open meanwhile goes on reading the old one.

    Parameters
    ----------
    paths : str, os.PathLike or iterable of them
        As in `read_nwb`. The catalog holds each file once.
    url : str or os.PathLike
        The folder: a local one, or one in any store that fsspec can write.
    on_error : {"raise", "skip"}
        What to do with files that can't be read: raise, or leave them out, see `Catalog.failures`.
    tables : sequence of str, optional
        Only these tables. All if not given.
    values_limit : int or str
        The catalog holds the values of numbers, booleans and texts: of one table of one file so many
        bytes, columns in their order. Conditions on these columns then cost no request for any NWB file.
    storage_options : mapping, optional
        As in `read_nwb`, for the files and for the catalog.

    Returns
    -------
    Catalog
        Goes wherever `paths` goes.

    Raises
    ------
    NWBReadError
        A file can't be read, or the folder can't be written.
    TableNotFoundError
        No file has any of `tables`.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> folder = getfixture("tmp_path")
    >>> catalog = build_catalog(make_sessions(folder, n=2), folder / "catalog")
    >>> units = read_nwb(catalog, "/units")
    >>> fast = units[units.firing_rate > 5][["unit_id", "spike_times"]].compute()
    """
    return catalogs.create(
        paths, url, tables, parse_bytes(values_limit), on_error, Options(storage_options)
    )


def open_catalog(
    url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> Catalog:
    """Open a catalog that `build_catalog` has made. No NWB file is touched.

    Parameters
    ----------
    url : str or os.PathLike
        Its folder.
    storage_options : mapping, optional
        As in `read_nwb`, for the catalog and for its files.

    Returns
    -------
    Catalog
        Goes wherever `paths` goes. ``catalog.sessions`` is the table of sessions;
        ``catalog[catalog.sessions.species == "Mus musculus"]`` is a part of the catalog;
        ``catalog.refresh()`` indexes what is new.
    """
    return catalogs.load(url, Options(storage_options))


def explain(frame: dd.DataFrame) -> Explanation:
    """Say what computing a frame would read, without reading it.

    Prints as text, and as a table in a notebook. Of the files themselves nothing is read; of a catalog,
    the values of the condition's columns are.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or Series
        Made by `read_nwb`, or from one that was.

    Returns
    -------
    Explanation
        Files and partitions left and pruned; columns and condition that the read takes in, and conditions
        that it doesn't, with the reason; requests and bytes, an upper bound where that can't be known
        before, or "not known beforehand" where there is none; memory.

    See Also
    --------
    trace : what was fetched in the end.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions(getfixture("tmp_path"), n=2), "/units")
    >>> told = explain(units[["unit_id", "firing_rate"]])
    >>> told.requests <= 4, told.reads[0].columns
    (True, ('unit_id', 'firing_rate'))
    """
    from lazynwb_dask.explanation.explanation import explain as explained

    return explained(frame)


def list_tables(
    path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> list[str]:
    """The paths of all tables of one file.

    >>> from lazynwb_dask.datasets import make_sessions
    >>> list_tables(make_sessions(getfixture("tmp_path"), n=1)[0])[:2]
    ['/units', '/events/events']
    """
    options = Options(storage_options)
    return queries.list_tables(expand(path, options)[0], options, config.settings())


def open_hdf5(
    path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> h5py.File:
    """One file as a plain `h5py.File`, for pynwb or to look around.

    Over http, https and S3 it is read through remfile, a little at a time. Nothing of this package's own
    reading is involved.

    Parameters
    ----------
    path : str or os.PathLike
        A local path or a URL.
    storage_options : mapping, optional
        As in `read_nwb`.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> with open_hdf5(make_sessions(getfixture("tmp_path"), n=1)[0]) as file:
    ...     file["units/id"].dtype
    dtype('int64')
    """
    from lazynwb_dask.api.open_hdf5 import open_file

    options = Options(storage_options)
    return open_file(expand(path, options)[0], options)


# --------------------------------------------------------------------------------------------- planning
def _options(paths: Paths, storage_options: Mapping[str, Any] | None) -> Options:
    """What was given, else what a catalog was opened with."""
    if storage_options is None and isinstance(paths, Catalog):
        return paths.place.options
    return Options(storage_options)


def _sources(paths: Paths, options: Options) -> list[Source]:
    return paths.sources if isinstance(paths, Catalog) else expand(paths, options)


def _holds(catalog: Catalog, table: Table, schema: Any, view: Shown | None, links: bool) -> bool:
    """Whether a catalog can say all that is asked: of tables, not of TimeSeries or other files' data."""
    if view is not None or links or not (schema is None or isinstance(schema, Mapping)):
        return False
    if callable(table):
        return catalog.manifest.what.tables is None
    names = [table] if isinstance(table, str) else list(table)
    return catalog.holds([table_path(name) for name in names])


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: one of {', '.join(map(repr, allowed))}")


def _fitting(blocksize: int) -> int:
    """A block size at which a few blocks for each thread fit into the memory of the cluster's workers."""
    share = cluster.memory_of_a_thread()
    return blocksize if share is None else max(min(blocksize, share // BLOCKS), 1)
