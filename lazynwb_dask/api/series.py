"""One TimeSeries of one file as lazy Dask arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lazynwb_dask.api.arguments import check_bools, file_access, one_source
from lazynwb_dask.cluster.secrets_plugin import share
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.metadata.queries import list_series
from lazynwb_dask.model.source import shown
from lazynwb_dask.timeseries.find import find
from lazynwb_dask.timeseries.series import TimeSeries, open_series
from lazynwb_dask.util.suggest import listed
from lazynwb_dask.util.warn import warn


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
