"""One TimeSeries of one file as lazy Dask arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, overload

from lazynwb_dask.api.arguments import check_bools, file_access, one_source
from lazynwb_dask.cluster.secrets_plugin import share
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.metadata.queries import list_series
from lazynwb_dask.model.source import shown
from lazynwb_dask.timeseries.find import find
from lazynwb_dask.timeseries.series import TimeSeries, open_series
from lazynwb_dask.util.suggest import listed
from lazynwb_dask.util.warn import warn


@overload
def open_timeseries(
    path: str | os.PathLike[str],
    name: str,
    *,
    match_all: Literal[False] = False,
    storage_options: Mapping[str, Any] | None = None,
) -> TimeSeries: ...
@overload
def open_timeseries(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    match_all: Literal[True],
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, TimeSeries]: ...
@overload
def open_timeseries(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    match_all: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> TimeSeries | dict[str, TimeSeries]: ...
def open_timeseries(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    match_all: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> TimeSeries | dict[str, TimeSeries]:
    """Open a TimeSeries of one file as lazy arrays.

    Only metadata are read. Computations with the arrays read the stored chunks that they need.

    Parameters
    ----------
    path : str or os.PathLike
        One file: a local path or a URL.
    name : str, optional
        The path of the series in the file, such as ``"/acquisition/lfp"``, or a part of it that no other series
        has, such as ``"lfp"``. Required unless `match_all`.
    match_all : bool, default False
        Return all series that `name` matches, or without `name` all series of the file. Series that can't be
        read are left out with a warning.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`.

    Returns
    -------
    TimeSeries or dict of str to TimeSeries
        A `TimeSeries` has `data` and `timestamps` as `dask.array.Array`, and
        `rate`, `unit`, `conversion`, ... With `match_all`, a dict of paths to series.

    Raises
    ------
    TableNotFoundError
        No series has the name, or several have it.
    UnsupportedColumnError
        The data of the series can't be read.
    NWBReadError
        The file can't be read.
    ValueError
        There is no `name`, or the path is a folder or glob with several files.
    TypeError
        `name` is not a str.

    Warns
    -----
    UserWarning
        A series is left out, or opened without timestamps because these can't be read.

    See Also
    --------
    read_nwb : a TimeSeries of many files as a table, with conditions on `timestamps`.
    align_timeseries : a series around events.

    Notes
    -----
    TimeSeries is defined in the `NWB schema <https://nwb-schema.readthedocs.io/en/latest/format.html>`_.

    Examples
    --------
    >>> from lazynwb_dask import open_timeseries
    >>> from lazynwb_dask.datasets import make_sessions
    >>> (path,) = make_sessions("sessions", n=1, lfp_shape=(20_000, 16))
    >>> lfp = open_timeseries(path, "lfp")
    >>> lfp.data.shape, lfp.data.dtype, lfp.data.chunksize
    ((20000, 16), dtype('int16'), (20000, 16))
    >>> lfp.data[5_000:5_010, :4].mean().compute().round(3)
    np.float64(15.4)
    >>> lfp.electrodes.table, lfp.rate
    ('/general/extracellular_ephys/electrodes', 11.11111111111111)
    """
    check_bools(match_all=match_all)
    access = file_access(path, storage_options)
    source = one_source(path, access)
    if name is None and not match_all:
        there = listed(list_series(source, access))
        raise ValueError(f"{shown(source.url)}: name a TimeSeries, or give match_all=True. There are: {there}")
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name={name!r}: must be the path of a TimeSeries, or a part of it")
    share(access.options)
    known, tables = find(source, name, match_all, access)
    if not match_all:
        return open_series(known, tables[0], access.options)
    found = {}
    for table in tables:
        try:
            found[table.path] = open_series(known, table, access.options)
        except (UnsupportedColumnError, NWBReadError) as exc:
            warn(f"a TimeSeries is left out: {exc}")
    return found
