"""The way out: one file as a plain h5py.File."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import h5py

from lazynwb_dask.api.arguments import file_access, one_source
from lazynwb_dask.errors import NWBError, NWBReadError
from lazynwb_dask.metadata.queries import list_tables
from lazynwb_dask.model.source import Source, is_local, local_path, shown
from lazynwb_dask.sources.stat import opened
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.dandi import last_address


def open_hdf5(path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> h5py.File:
    """Open one file with h5py, for example for pynwb.

    Files at http, https and S3 URLs are read with remfile, a part at a time. If `storage_options` has options
    for a web server, and for other stores, they are read with fsspec.

    Parameters
    ----------
    path : str or os.PathLike
        One file: a local path or a URL.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`.

    Returns
    -------
    h5py.File
        Open for reading. Close it, or use it in a ``with`` block.

    Raises
    ------
    NWBReadError
        The file can't be read, or is not an HDF5 file.
    ValueError
        The path is a folder or glob with several files.
    TypeError
        The path is not a path.

    See Also
    --------
    contents : list the objects of a file, without h5py.

    Examples
    --------
    >>> from lazynwb_dask import open_hdf5
    >>> from lazynwb_dask.datasets import make_sessions
    >>> with open_hdf5(make_sessions("sessions", n=1)[0]) as file:
    ...     file["units/id"].dtype
    dtype('int64')

    With pynwb:

    >>> import pynwb  # doctest: +SKIP
    >>> with open_hdf5(path) as file, pynwb.NWBHDF5IO(file=file) as io:  # doctest: +SKIP
    ...     nwb = io.read()
    """
    access = file_access(path, storage_options)
    source = one_source(path, access)
    try:
        return h5py.File(_opened(source, access), "r")
    except NWBError:
        raise
    except Exception as exc:
        text = (str(exc).splitlines() or [type(exc).__name__])[0]
        text = re.sub(r"\?[^\s'\"]+|(?<=//)[^/\s@]*@", "", text)  # signatures and passwords
    _check_hdf5(opened(source, access))
    list_tables(source, access)  # says it if it is another file
    raise NWBReadError(f"{shown(source.url)}: h5py can't open it: {text}")


def _check_hdf5(source: Source) -> None:
    if source.document:
        raise NWBReadError(
            f"{shown(source.url)}: a Zarr store, not an HDF5 file: zarr.open_group(path) opens it"
        )


def _opened(source: Source, access: FileAccess) -> Any:
    """A local file's path; over http, S3 and of DANDI a file of remfile, else one of fsspec."""
    if is_local(source.url):
        _check_hdf5(opened(source, access))  # h5py would wait for a pipe
        return local_path(source.url)
    protocol = source.url.split("://", 1)[0]
    filesystem, path = access.options.filesystem(source.url)
    if protocol == "dandi":
        known = opened(source, access)
        return _remfile(last_address(filesystem, path, source.etag), _size=known.size)
    if protocol in ("http", "https"):
        source = opened(source, access) if source.size is None else source
        _check_hdf5(source)
        size = source.size
        if filesystem.kwargs or filesystem.client_kwargs:  # remfile takes no headers
            return filesystem.open(path, "rb", size=size)
        return _remfile(source.url, _size=size)
    if protocol in ("s3", "s3a"):
        return _remfile(filesystem.sign(path, expiration=7 * 24 * 3600))
    return filesystem.open(path, "rb")


def _remfile(url: str, **known: Any) -> Any:
    import remfile

    return remfile.File(url, **known)
