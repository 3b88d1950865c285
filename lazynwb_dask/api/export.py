"""Tables of many files, exported to Parquet."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lazynwb_dask import config
from lazynwb_dask.api.arguments import (
    Paths,
    byte_count,
    check_bools,
    file_access,
    knows_table,
    names_of,
    sources_of,
)
from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.catalog.scan import catalog_scan, report_of
from lazynwb_dask.errors import Failure
from lazynwb_dask.export import part
from lazynwb_dask.export.tables import Layout, export
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.names import table_path
from lazynwb_dask.nwb.session import Session
from lazynwb_dask.plan.checks import warn_cut, warn_left_out
from lazynwb_dask.plan.index_files import index_files
from lazynwb_dask.plan.partitions import build
from lazynwb_dask.plan.report import report
from lazynwb_dask.plan.schema import schema_of
from lazynwb_dask.plan.sessions import read_sessions
from lazynwb_dask.plan.table_scan import indexed_tables
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.sources.stat import versions
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

if TYPE_CHECKING:
    import pandas as pd


def export_tables(
    paths: Paths,
    out: str | os.PathLike[str],
    tables: str | Sequence[str] | None = None,
    format: str = "parquet",
    *,
    partition_by: str = "session",
    partition_size: int | str = "128 MiB",
    on_missing: str = "skip",
    on_error: str = "raise",
    prune: bool = False,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Write tables of many files to datasets of Parquet, one for each table.

    Parts are written by Dask's tasks: by threads, or by the workers of the active cluster. None holds more
    than some row groups of about 32 MiB. A part appears once it is complete. What is complete is kept: after
    an interruption the same call goes on where it was; and called again it writes parts of new and changed
    files only. One export to a folder runs at a time: a second one warns and waits.

    Parameters
    ----------
    paths : str, os.PathLike or iterable of them, or Catalog
        As in `read_nwb`. Each file is exported once.
    out : str or os.PathLike
        A folder: a local one, or one in any store that fsspec can write.
    tables : str or sequence of str, optional
        Tables and TimeSeries, by path or alias; ``"sessions"`` is the table of `read_sessions`. All tables that
        any file has, and the sessions, if not given.
    format : {"parquet"}
    partition_by : {"session", "size"}
        One Parquet file for each source file, in a folder ``session=...`` for each session, or Parquet files
        of several source files.
    partition_size : int or str
        Decoded bytes of a Parquet file, about, with ``partition_by="size"``. Source files stay in the Parquet
        file that they are in; new ones come into further Parquet files.
    on_missing : {"skip", "raise"}
        What to do with files that don't have one of `tables`.
    on_error : {"raise", "skip"}
        What to do with files that can't be read. With "skip", what was exported of them before stays.
    prune : bool
        Remove what was exported of files that aren't among `paths`. Otherwise it stays.
    overwrite : bool
        Begin anew, with nothing of what was exported to `out` before.
    storage_options : mapping, optional
        As in `read_nwb`, for the files and for `out`: one mapping, or one for each protocol or URL prefix.

    Returns
    -------
    pandas.DataFrame
        The parts: ``table``, ``path`` below `out`, ``rows``, ``bytes``, ``status`` (``"written"``, ``"kept"``,
        ``"removed"``); and files that were left out, as ``"failed"``, with their ``error``.

    Raises
    ------
    NWBReadError
        A file can't be read, or a part can't be written. Parts that are complete stay.
    OSError
        The folder can't be made, or is read-only.
    NWBError
        A later version of this library has exported to the folder.
    TableNotFoundError
        No file has one of `tables`; with ``on_missing="raise"``, some file.
    SchemaConflictError
        Files that were exported before have a column with a type that these files' type has nothing in common
        with.

    See Also
    --------
    read_nwb : a table as a Dask DataFrame.

    Examples
    --------
    >>> import pandas as pd
    >>> from lazynwb_dask import export_tables
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("nwb", n=2)
    >>> done = export_tables(paths, "out", ["units", "trials"])
    >>> done.groupby("table").rows.sum().to_dict() == {"/intervals/trials": 400, "/units": 240}
    True
    >>> units = pd.read_parquet("out/units", dtype_backend="pyarrow")
    >>> units.spike_times.dtype
    list<element: double>[pyarrow]
    """
    if format != "parquet":
        raise ValueError(f"format={format!r}: only 'parquet'")
    if partition_by not in ("session", "size"):
        raise ValueError(f"partition_by={partition_by!r}: must be one of 'session', 'size'")
    check_bools(prune=prune, overwrite=overwrite)
    names = None if tables is None else names_of("tables", tables, "table")
    wanted = None if names is None else tuple(dict.fromkeys(map(_path, names)))
    if wanted is not None and not wanted:
        raise ValueError("tables=[]: name a table, or None for all")
    request = TableRequest((), blocksize=part.ROW_GROUP, on_missing=on_missing, on_error=on_error, details=True)
    access = file_access(paths, storage_options)
    folder = Folder.of(out, config.file_access(Options(storage_options)))
    size = byte_count("partition_size", partition_size)
    layout = Layout(wanted, partition_by, size, on_missing, on_error, prune, overwrite)
    return export(_Files(paths, access, request, wanted), folder, layout)


def _path(name: str) -> str:
    return name if name == "sessions" else table_path(name)


@dataclass(frozen=True)
class _Files:
    """The files that the user means, and what is asked of them."""

    paths: Paths
    access: FileAccess
    request: TableRequest
    named: tuple[str, ...] | None

    def sources(self) -> list[Source]:
        found = list({source.url: source for source in sources_of(self.paths, self.access)}.values())
        names: dict[str, str] = {}
        for source in found:
            if (other := names.setdefault(shown(source.url), source.url)) != source.url:
                raise ValueError(
                    f"{shown(other)}: two URLs of it differ only in their query; an export tells files "
                    "apart by the rest of their URLs"
                )
        return versions(found, self.access, threads=2 * int(config.get("index-threads")))

    def sessions(self, sources: Sequence[Source]) -> tuple[Sequence[Session], Sequence[Failure]]:
        if isinstance(self.paths, Catalog):
            rows = self.paths.index.rows("files", ["url", "session"])
            held = dict(zip(rows["url"].to_pylist(), rows["session"].to_pylist(), strict=True))
            return [Session(source, json.loads(held[source.url])) for source in sources], []
        return read_sessions(sources, self.access, self.request.on_error) if sources else ([], [])

    def tables(self, sources: Sequence[Source]) -> tuple[list[str], Sequence[Failure]]:
        if self.named is not None:
            return list(self.named), []
        if isinstance(self.paths, Catalog) and self.paths.manifest.keeps.tables is None:
            return [*self.paths.tables.index.tolist(), "sessions"], []
        found: dict[str, None] = {}

        def note(paths: list[str]) -> None:
            found.update(dict.fromkeys(paths))

        _, failed = index_files(sources, replace(self.request, table=note), self.access)
        return [*sorted(found), "sessions"], failed

    def scan(self, table: str, sources: Sequence[Source]) -> tuple[Scan, pd.DataFrame]:
        request = replace(self.request, table=table)
        if self.named is None:
            request = replace(request, on_missing="skip")
        with _unwarned(self.named is None):
            if knows_table(self.paths, request):
                return catalog_scan(self.paths, request), report_of(self.paths, request)
            tables, failures = indexed_tables(sources, request, self.access)
        unified = schema_of(tables, {}, self.access, request.on_error)
        warn_left_out(unified)
        warn_cut(tables)
        scan = build(tables, unified, request, self.access.options)
        scan = replace(scan, failures=tuple((f.path, f.stage, f.error) for f in failures))
        return scan, report([(source.url, index) for source, index in tables], unified)


@contextmanager
def _unwarned(all_tables: bool) -> Iterator[None]:
    """Without a word of files that lack a table, where nobody named it."""
    with warnings.catch_warnings():
        if all_tables:
            warnings.filterwarnings("ignore", message=".* files have no table ")
        yield
