"""The way out: one file as a plain h5py.File."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import h5py

from lazynwb_dask.api.arguments import file_access
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage.options import Options


def open_hdf5(path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> h5py.File:
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
    access = file_access(path, storage_options)
    return _open_source(expand(path, access)[0], access.options)


def _open_source(source: Source, options: Options) -> h5py.File:
    """A local file by h5py itself, http and S3 over remfile, all else over fsspec."""
    if "://" not in source.url:
        return _open(source.url, source.url)
    protocol = source.url.split("://", 1)[0]
    filesystem, path = options.filesystem(source.url)
    if protocol in ("http", "https") and "::" not in source.url:
        return _open(_remfile(source.url), source.url)
    if protocol in ("s3", "s3a"):
        return _open(_remfile(filesystem.sign(path, expiration=7 * 24 * 3600)), source.url)
    return _open(filesystem.open(path, "rb"), source.url)


def _remfile(url: str) -> Any:
    import remfile

    return remfile.File(url)


def _open(file: Any, url: str) -> h5py.File:
    try:
        return h5py.File(file, "r")
    except Exception as exc:
        text = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise NWBReadError(f"{shown(url)}: h5py can't open it: {text}") from None
