"""Catalogs of many files: made, and opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from lazynwb_dask.api.arguments import Paths, byte_count, names_of
from lazynwb_dask.catalog import catalog
from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.scan.request import Policy
from lazynwb_dask.storage.options import Options


def build_catalog(
    paths: Paths,
    url: str | os.PathLike[str],
    *,
    on_error: Policy = "raise",
    tables: str | Sequence[str] | None = None,
    values_limit: int | str = "4 MiB",
    storage_options: Mapping[str, Any] | None = None,
) -> Catalog:
    """Index many NWB files once, and store the index in a folder.

    Later calls with the catalog instead of paths read no metadata of files. The active Dask cluster indexes
    files, or else threads do. After an interruption, the same call continues; on a complete catalog, it indexes
    new and changed files only. Processes that have the catalog open continue to read its earlier state. If
    another process builds or refreshes the catalog, the call warns and waits.

    Parameters
    ----------
    paths : str, os.PathLike, iterable of these, or DataFrame
        The NWB files, as in `read_nwb`. The catalog has each file once.
    url : str or os.PathLike
        The folder of the catalog: local, or a URL that fsspec can write to.
    on_error : {"raise", "skip"}, default "raise"
        What to do with files that can't be read: raise an error, or leave them out. `Catalog.failures` lists
        those that were left out.
    tables : str or sequence of str, optional
        The tables to index, by path or short name as in `read_nwb`. Default: all tables and TimeSeries. Then
        timestamps of long TimeSeries are read, to know whether they are increasing.
    values_limit : int or str, default "4 MiB"
        The largest size in bytes of the column values that the catalog stores, for one table of one file:
        numbers, booleans and texts. Conditions on these columns need no request to NWB files.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`, for the files and the catalog.

    Returns
    -------
    Catalog
        For the argument `paths` of other functions.

    Raises
    ------
    NWBReadError
        A file can't be read, or the folder can't be written.
    TableNotFoundError
        No file has any of `tables`.
    TypeError, ValueError
        An argument has a wrong type or value.

    See Also
    --------
    open_catalog : open an existing catalog.
    Catalog.refresh : index new and changed files.

    Examples
    --------
    >>> from lazynwb_dask import build_catalog, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> catalog = build_catalog(make_sessions("sessions", n=2), "catalog")
    >>> catalog.tables.loc["/units"].to_dict()
    {'files': 2, 'rows': 240}
    >>> units = read_nwb(catalog, "/units")
    >>> fast = units[units.firing_rate > 5][["unit_id", "spike_times"]].compute()
    """
    if tables is not None and not (tables := names_of("tables", tables, "table")):
        raise ValueError("tables=[]: name a table, or None for all")
    return catalog.create(
        paths, url, tables, byte_count("values_limit", values_limit, 0), on_error, Options(storage_options)
    )


def open_catalog(url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> Catalog:
    """Open a catalog that `build_catalog` has made. No NWB file is read.

    Parameters
    ----------
    url : str or os.PathLike
        The folder of the catalog: a local path or a URL.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`, for the catalog and its files.

    Returns
    -------
    Catalog
        For the argument `paths` of other functions.

    Raises
    ------
    NWBFileNotFoundError
        The folder has no catalog.
    NWBReadError
        The catalog can't be read, is damaged, or has a version that this library can't read.

    See Also
    --------
    build_catalog : make a catalog.

    Examples
    --------
    >>> from lazynwb_dask import build_catalog, open_catalog
    >>> from lazynwb_dask.datasets import make_sessions
    >>> _ = build_catalog(make_sessions("sessions", n=2), "catalog")
    >>> len(open_catalog("catalog"))
    2
    """
    return catalog.load(url, Options(storage_options))
