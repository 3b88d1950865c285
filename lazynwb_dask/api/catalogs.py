"""Catalogs of many files: made, and opened."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from lazynwb_dask.api.arguments import Paths, byte_count, names_of
from lazynwb_dask.catalog import catalog
from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.storage.options import Options


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
    only. Whoever has the catalog open meanwhile goes on reading the old one. One build or refresh of a catalog
    runs at a time: a second one warns and waits.

    Parameters
    ----------
    paths : str, os.PathLike or iterable of them
        As in `read_nwb`. The catalog holds each file once.
    url : str or os.PathLike
        The folder: a local one, or one in any store that fsspec can write.
    on_error : {"raise", "skip"}
        What to do with files that can't be read: raise, or leave them out, see `Catalog.failures`.
    tables : sequence of str, optional
        Only these tables. All if not given; then timestamps of long TimeSeries are read, too, to know whether
        they rise.
    values_limit : int or str
        How many bytes of values of one table of one file the catalog holds, at most: numbers, booleans and
        texts, columns in their order. Conditions on these columns then cost no request for any NWB file.
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

    See Also
    --------
    open_catalog : open one that was built.
    Catalog.refresh : index what is new.

    Examples
    --------
    >>> from lazynwb_dask import build_catalog, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> catalog = build_catalog(make_sessions("sessions", n=2), "catalog")
    >>> units = read_nwb(catalog, "/units")
    >>> fast = units[units.firing_rate > 5][["unit_id", "spike_times"]].compute()
    """
    if tables is not None and not (tables := names_of("tables", tables, "table")):
        raise ValueError("tables=[]: name a table, or None for all")
    return catalog.create(
        paths, url, tables, byte_count("values_limit", values_limit, 0), on_error, Options(storage_options)
    )


def open_catalog(url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> Catalog:
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

    Raises
    ------
    NWBFileNotFoundError
        There is no catalog.
    NWBReadError
        It can't be read, is damaged, or is of another version.

    See Also
    --------
    build_catalog : make one.

    Examples
    --------
    >>> from lazynwb_dask import build_catalog, open_catalog
    >>> from lazynwb_dask.datasets import make_sessions
    >>> _ = build_catalog(make_sessions("sessions", n=2), "catalog")
    >>> len(open_catalog("catalog"))
    2
    """
    return catalog.load(url, Options(storage_options))
