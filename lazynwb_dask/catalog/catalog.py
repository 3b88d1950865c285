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
from lazynwb_dask.scan.to_pandas import series
from lazynwb_dask.storage.options import Options


@dataclass(frozen=True, eq=False)
class Catalog:
    """The index of many NWB files, made by `build_catalog` or opened by `open_catalog`. Goes wherever paths go.

    ``catalog[mask]``, with a condition on `sessions`, is a catalog of some of the files; ``len(catalog)`` their
    number.

    See Also
    --------
    read_nwb : takes a catalog in the place of paths.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=3)
    >>> catalog = lazynwb_dask.build_catalog(paths, "catalog")
    >>> males = catalog[catalog.sessions.sex == "M"]
    >>> lazynwb_dask.read_nwb(males, "/units").npartitions <= 3
    True
    """

    index: IndexReader
    chosen: np.ndarray | None = None

    @property
    def url(self) -> str:
        """The folder that it is in."""
        return self.index.folder.url

    @property
    def manifest(self) -> Manifest:
        """What it consists of."""
        return self.index.manifest

    @cached_property
    def numbers(self) -> np.ndarray:
        """The rows of its files in the index."""
        if self.chosen is not None:
            return self.chosen
        readable: np.ndarray = self.index.files["problem"].is_null().to_numpy()
        return np.flatnonzero(readable)

    @cached_property
    def files(self) -> pa.Table:
        """``url``, ``size``, ``etag``, ``parts`` and ``document`` of its files."""
        return self.index.files.take(pa.array(self.numbers)).drop_columns("problem")

    @property
    def paths(self) -> list[str]:
        """Its files."""
        found: list[str] = self.files["url"].to_pylist()
        return found

    @property
    def sources(self) -> list[Source]:
        """Its files, with sizes and versions."""
        return list(map(source_of, self.files.to_pylist()))

    @cached_property
    def rising(self) -> dict[str, frozenset[str]]:
        """By file, which timestamps of its TimeSeries are known to rise."""
        rows = self.index.rows("files", ["url", "rising"])
        rows = rows.filter(rows["rising"].is_valid())
        texts = rows["rising"].to_pylist()
        return dict(zip(rows["url"].to_pylist(), map(frozenset, map(json.loads, texts)), strict=True))

    def holds(self, tables: Sequence[str]) -> bool:
        """Whether it knows which of its files have tables of these paths, as far as they are tables."""
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
        """The table of sessions: a row for each file. A condition on it chooses files of the catalog."""
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
        """The tables: path, in how many of the files, and rows."""
        rows = self.index.rows("tables", ["table", "file", "rows"])
        frame = pd.DataFrame(
            {"table": rows["table"].cast(pa.string()).to_pandas(), "rows": rows["rows"].to_numpy()}
        )
        frame = frame[np.isin(rows["file"].to_numpy(), self.numbers)]
        grouped = frame.groupby("table")["rows"]
        return pd.DataFrame({"files": grouped.size(), "rows": grouped.sum()})

    @property
    def failures(self) -> pd.DataFrame:
        """The files that could not be read when the catalog was built, and why."""
        bad = self.index.files.filter(self.index.files["problem"].is_valid())
        data = {
            "path": [shown(url) for url in bad["url"].to_pylist()],
            "stage": ["plan"] * bad.num_rows,
            "error": bad["problem"].to_pylist(),
        }
        return pd.DataFrame(data, columns=["path", "stage", "error"])

    def __getitem__(self, mask: Any) -> Catalog:
        """The files for which a condition on `sessions` is true."""
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
        """References to one file's arrays of numbers, as Kerchunk's JSON (version 1).

        Tables are read from the catalog. TimeSeries are not in it: the file is opened for them.

        Parameters
        ----------
        path : str or os.PathLike
            One of the catalog's files.
        tables : str or sequence of str, optional
            Only these tables and TimeSeries, by path; all if not given.
        columns : str or sequence of str, optional
            Only these columns. All that are numbers if not given.

        Returns
        -------
        dict
            For fsspec's ``reference`` filesystem: a Zarr group for each table, in it an array for each
            column and, called ``..._index``, for its indexes; and one for each TimeSeries, with ``data``
            as they are stored and ``timestamps``. Where the times follow from a rate there are none;
            it is among the group's attributes, as are conversion, offset and unit.

        Raises
        ------
        UnsupportedColumnError
            A column is stored in a way that Kerchunk can't express.

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

    def refresh(self, *, on_error: str = "raise", anew: bool = False) -> Catalog:
        """The catalog brought up to date: new and changed files are indexed, vanished ones dropped.

        The paths that it was built of are looked up again. Files that haven't changed are not read. While
        another process builds or refreshes this catalog, it waits.

        Parameters
        ----------
        on_error : {"raise", "skip"}
            As in `build_catalog`.
        anew : bool
            Index all files again, for instance with a later version of this library.

        Returns
        -------
        Catalog
            With all files, whichever this one was narrowed to.
        """
        _check_policy(on_error)
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
    _check_policy(on_error)
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


def _check_policy(on_error: str) -> None:
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: must be one of 'raise', 'skip'")
