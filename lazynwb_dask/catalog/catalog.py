"""An open catalog, which goes wherever paths go."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask import config
from lazynwb_dask.catalog.build import build, refresh
from lazynwb_dask.catalog.folder import Folder, absolute_paths
from lazynwb_dask.catalog.kerchunk import to_kerchunk
from lazynwb_dask.catalog.manifest import Keeps, Manifest, read_manifest
from lazynwb_dask.catalog.reader import IndexReader, source_of
from lazynwb_dask.errors import NWBFileNotFoundError
from lazynwb_dask.model.source import Source, is_local, shown
from lazynwb_dask.scan.fields import Field
from lazynwb_dask.scan.request import Policy, check_policy
from lazynwb_dask.scan.to_pandas import series
from lazynwb_dask.storage.options import Options


@dataclass(frozen=True, eq=False)
class Catalog:
    """The index of many NWB files, for the argument `paths` of functions.

    Made by `build_catalog` and `open_catalog`. ``len(catalog)`` is the number of files, iteration gives their
    paths, and ``catalog[condition]`` is a catalog of some of them.

    See Also
    --------
    read_nwb : takes a catalog instead of paths.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> catalog = lazynwb_dask.build_catalog(make_sessions("sessions", n=3), "catalog")
    >>> later = catalog[catalog.sessions.session_start_time > "2023-01-10"]
    >>> len(catalog), len(later)
    (3, 2)
    >>> lazynwb_dask.read_nwb(later, "/units").npartitions <= 2
    True
    """

    index: IndexReader
    chosen: np.ndarray | None = None

    @property
    def url(self) -> str:
        """The folder of the catalog.

        Returns
        -------
        str
            An absolute path or a URL.
        """
        return self.index.folder.url

    @property
    def manifest(self) -> Manifest:
        """The list of files of which the catalog consists. For internal use."""
        return self.index.manifest

    @cached_property
    def numbers(self) -> np.ndarray:
        """The rows of the files in the index. For internal use."""
        if self.chosen is not None:
            return self.chosen
        readable: np.ndarray = self.index.files["problem"].is_null().to_numpy()
        return np.flatnonzero(readable)

    @cached_property
    def files(self) -> pa.Table:
        """``url``, ``size``, ``etag``, ``parts`` and ``document`` of the files. For internal use."""
        return self.index.files.take(pa.array(self.numbers)).drop_columns("problem")

    @property
    def paths(self) -> list[str]:
        """The paths or URLs of the files.

        Returns
        -------
        list of str
            In the order in which they were given to `build_catalog`.
        """
        found: list[str] = self.files["url"].to_pylist()
        return found

    @property
    def sources(self) -> list[Source]:
        """The files, with sizes and versions. For internal use."""
        return list(map(source_of, self.files.to_pylist()))

    @cached_property
    def rising(self) -> dict[str, frozenset[str]]:
        """For each file, the timestamps of TimeSeries that are known to be increasing. For internal use."""
        rows = self.index.rows("files", ["url", "rising"])
        rows = rows.filter(rows["rising"].is_valid())
        texts = rows["rising"].to_pylist()
        return dict(zip(rows["url"].to_pylist(), map(frozenset, map(json.loads, texts)), strict=True))

    def holds(self, tables: Sequence[str]) -> bool:
        """Return whether the catalog knows which files have these tables. For internal use."""
        kept = self.manifest.keeps.tables
        return any(path in self.manifest.sections for path in tables) and (
            kept is None or set(tables) <= set(kept)
        )

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    @cached_property
    def sessions(self) -> pd.DataFrame:
        """Session and subject metadata: one row for each file.

        Returns
        -------
        pandas.DataFrame
            The columns of `read_sessions`. The index is 0, 1, ... in the order of `paths`. A condition on this
            table selects files of the catalog: ``catalog[catalog.sessions.species == "Mus musculus"]``.
        """
        rows = self.index.rows("sessions")
        readable = np.flatnonzero(self.index.files["problem"].is_null().to_numpy())
        rows = rows.take(pa.array(np.searchsorted(readable, self.numbers)))
        data = {}
        for field in rows.schema:
            kind = pa.string() if pa.types.is_large_string(field.type) else field.type
            made = Field(field.name, kind, nullable=True)
            data[field.name] = series([rows[field.name].combine_chunks()], made)
        return pd.DataFrame(data, copy=False)

    @cached_property
    def tables(self) -> pd.DataFrame:
        """The tables that files have.

        Returns
        -------
        pandas.DataFrame
            One row for each table; its path is the index. `files` (int64): how many files have it; `rows`
            (int64): the rows in all files.
        """
        rows = self.index.rows("tables", ["table", "file", "rows"])
        frame = pd.DataFrame(
            {"table": rows["table"].cast(pa.string()).to_pandas(), "rows": rows["rows"].to_numpy()}
        )
        frame = frame[np.isin(rows["file"].to_numpy(), self.numbers)]
        grouped = frame.groupby("table")["rows"]
        return pd.DataFrame({"files": grouped.size(), "rows": grouped.sum()})

    @property
    def failures(self) -> pd.DataFrame:
        """The files that could not be read when the catalog was built, and why.

        Returns
        -------
        pandas.DataFrame
            One row for each file: `path`, `stage` (always ``"plan"``) and `error`, as in `read_report`.
        """
        bad = self.index.files.filter(self.index.files["problem"].is_valid())
        data = {
            "path": [shown(url) for url in bad["url"].to_pylist()],
            "stage": ["plan"] * bad.num_rows,
            "error": bad["problem"].to_pylist(),
        }
        return pd.DataFrame(data, dtype="str")

    def __getitem__(self, mask: Any) -> Catalog:
        """Return a catalog of some of the files.

        Parameters
        ----------
        mask : sequence of bool, pandas.Series or slice
            A condition on `sessions`, with one value for each file; missing values count as False. Or a slice
            of the files.

        Returns
        -------
        Catalog
            With the files for which the condition is true, in the same order.

        Raises
        ------
        TypeError
            `mask` is something else.
        ValueError
            `mask` has another length or index than `sessions`.

        See Also
        --------
        Catalog.sessions : the table for conditions.

        Examples
        --------
        >>> import lazynwb_dask
        >>> from lazynwb_dask.datasets import make_sessions
        >>> catalog = lazynwb_dask.build_catalog(make_sessions("sessions", n=3), "catalog")
        >>> len(catalog[catalog.sessions.species == "Mus musculus"]), len(catalog[:1])
        (3, 1)
        """
        if isinstance(mask, pd.Series):
            if not mask.index.equals(pd.RangeIndex(len(self))):
                raise ValueError("the condition must have a row for each of the catalog's files")
            mask = mask.array
        kind: Any = getattr(mask, "dtype", np.asarray(mask).dtype)
        if pd.api.types.is_bool_dtype(kind):
            chosen = pd.array(mask, dtype="boolean").to_numpy(bool, na_value=False)
            if len(chosen) != len(self):
                raise ValueError(f"a condition of {len(chosen)} rows, but the catalog has {len(self)} files")
            return replace(self, chosen=self.numbers[chosen])
        if isinstance(mask, slice):
            return replace(self, chosen=self.numbers[mask])
        raise TypeError(
            "a catalog takes a condition on its sessions, as in "
            'catalog[catalog.sessions.species == "Mus musculus"], or a slice'
        )

    def to_kerchunk(
        self,
        path: str | os.PathLike[str],
        *,
        tables: str | Sequence[str] | None = None,
        columns: str | Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Return references to the numeric arrays of one file, as Kerchunk's JSON (version 1).

        Tables are read from the catalog. For TimeSeries, the file is opened.

        Parameters
        ----------
        path : str or os.PathLike
            One of the catalog's files.
        tables : str or sequence of str, optional
            The tables and TimeSeries to include, by path. Default: all.
        columns : str or sequence of str, optional
            The columns to include. Default: all that are numbers.

        Returns
        -------
        dict
            For fsspec's ``reference`` filesystem. A Zarr group for each table, with an array for each column,
            and arrays ``..._index`` for the indexes of ragged columns. A group for each TimeSeries, with `data`
            as stored and `timestamps`. If the series has a rate instead of timestamps, it is an attribute of
            the group, as are conversion, offset and unit.

        Raises
        ------
        NWBFileNotFoundError
            The file is not in the catalog.
        TableNotFoundError
            The file has no such table.
        ColumnNotFoundError
            The tables have no such column.
        UnsupportedColumnError
            A requested column is stored in a way that Kerchunk has no references for.

        See Also
        --------
        open_timeseries : a TimeSeries as Dask arrays, without references.

        Notes
        -----
        The format is the `specification of references
        <https://fsspec.github.io/kerchunk/spec.html>`_ of Kerchunk, with Zarr version 2.

        Examples
        --------
        >>> import fsspec, lazynwb_dask
        >>> from lazynwb_dask.datasets import make_sessions
        >>> (path,) = make_sessions("sessions", n=1)
        >>> catalog = lazynwb_dask.build_catalog(path, "catalog")
        >>> references = catalog.to_kerchunk(path, tables="/units")
        >>> fsspec.filesystem("reference", fo=references).exists("units/spike_times/.zarray")
        True
        """
        (name,) = absolute_paths(path)
        urls = self.paths
        if name not in urls:
            raise NWBFileNotFoundError(f"{shown(name)}: not in the catalog at {shown(self.url)}")
        number = int(self.numbers[urls.index(name)])
        found = self.index.contents(number, [tables] if isinstance(tables, str) else tables)
        source = self.index.source(number)
        return to_kerchunk(source, found, columns, self.index.folder.access)

    def refresh(self, *, on_error: Policy = "raise", anew: bool = False) -> Catalog:
        """Return the catalog brought up to date: new and changed files are indexed, deleted ones removed.

        The paths that were given to `build_catalog` are listed again. Unchanged files are not read. If another
        process builds or refreshes the catalog, the call warns and waits.

        Parameters
        ----------
        on_error : {"raise", "skip"}, default "raise"
            What to do with files that can't be read, as in `build_catalog`.
        anew : bool, default False
            Index all files again, for example with a later version of this library.

        Returns
        -------
        Catalog
            With all files, also if this catalog is a part of one.

        Raises
        ------
        NWBReadError
            A file can't be read, or the folder can't be written.
        ValueError
            `on_error` has a wrong value.

        See Also
        --------
        build_catalog : make a catalog.

        Examples
        --------
        >>> import lazynwb_dask
        >>> from lazynwb_dask.datasets import make_sessions
        >>> _ = make_sessions("sessions", n=2)
        >>> catalog = lazynwb_dask.build_catalog("sessions", "catalog")
        >>> _ = make_sessions("sessions", n=3)
        >>> len(catalog), len(catalog.refresh())
        (2, 3)
        """
        check_policy("on_error", on_error)
        folder = self.index.folder
        return Catalog(IndexReader(folder, refresh(folder, on_error=on_error, anew=anew)))

    def __repr__(self) -> str:
        return (
            f"<Catalog of {len(self)} NWB files at {shown(self.url)}, {len(self.manifest.sections)} "
            f"tables, {self.manifest.created}>"
        )

    def _repr_html_(self) -> str:
        about = html.escape(repr(self).strip("<>"))
        return f"<p>{about}</p>{self.tables._repr_html_()}"  # type: ignore[operator]


def create(paths: Any, url: Any, tables: Any, values_limit: int, on_error: str, options: Options) -> Catalog:
    """Build a catalog. See `lazynwb_dask.build_catalog`."""
    check_policy("on_error", on_error)
    folder = Folder.of(url, config.file_access(options))
    keeps = Keeps.of(tables, values_limit)
    manifest = build(absolute_paths(paths), folder, keeps, on_error=on_error)
    return Catalog(IndexReader(folder, manifest))


def load(url: Any, options: Options) -> Catalog:
    """Open a catalog. See `lazynwb_dask.open_catalog`."""
    folder = Folder.of(url, config.file_access(options))
    if is_local(folder.url) and os.path.isfile(folder.url):
        raise NWBFileNotFoundError(
            f"{folder.url}: this is a file; a catalog is a folder, which build_catalog(paths, url) makes"
        )
    manifest = read_manifest(folder)
    if manifest is None:
        raise NWBFileNotFoundError(
            f"{shown(folder.url)}: no catalog is there; build_catalog(paths, url) makes one"
        )
    return Catalog(IndexReader(folder, manifest))
