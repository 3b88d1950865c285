"""Tables of many files, exported to Parquet."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

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
from lazynwb_dask.scan.request import Policy, TableRequest
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
    format: Literal["parquet"] = "parquet",
    *,
    partition_by: Literal["session", "size"] = "session",
    partition_size: int | str = "128 MiB",
    on_missing: Policy = "skip",
    on_error: Policy = "raise",
    prune: bool = False,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Export tables of many files to Parquet: one dataset for each table.

    The active Dask cluster writes the Parquet files, or else threads do. A task needs memory for a few row
    groups of about 32 MiB. After an interruption, the same call continues; on a complete export, it writes new
    and changed files only. If another process exports to the folder, the call warns and waits.

    Parameters
    ----------
    paths : str, os.PathLike, iterable of these, Catalog, or DataFrame
        The NWB files, as in `read_nwb`. Each file is exported once.
    out : str or os.PathLike
        The folder to write to: local, or a URL that fsspec can write to.
    tables : str or sequence of str, optional
        Tables and TimeSeries, by path or short name as in `read_nwb`; ``"sessions"`` is the table of
        `read_sessions`. Default: all tables of all files, and the sessions.
    format : {"parquet"}, default "parquet"
        The file format.
    partition_by : {"session", "size"}, default "session"
        ``"session"``: one Parquet file for each NWB file, in a folder ``session=...`` for each session.
        ``"size"``: Parquet files with the rows of several NWB files.
    partition_size : int or str, default "128 MiB"
        With ``partition_by="size"``: approximate size of a Parquet file's data in memory, in bytes.
    on_missing : {"skip", "raise"}, default "skip"
        What to do with files that lack one of `tables`: leave them out with a warning, or raise an error.
    on_error : {"raise", "skip"}, default "raise"
        What to do with files that can't be read: raise an error, or leave them out. What was exported of them
        before is kept.
    prune : bool, default False
        Delete what was exported from files that are not in `paths`.
    overwrite : bool, default False
        Delete all that was exported to `out` before.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`, for the files and for `out`.

    Returns
    -------
    pandas.DataFrame
        One row for each Parquet file: `table`; `path`, relative to `out`; `rows` and `bytes` (int64); `status`:
        ``"written"``, ``"kept"`` or ``"removed"``. Also one row for each file that was left out, with the
        `status` ``"failed"`` and the `error`.

    Raises
    ------
    NWBReadError
        A file can't be read, or a Parquet file can't be written. Complete Parquet files are kept.
    TableNotFoundError
        No file has one of `tables`; with ``on_missing="raise"``: a file lacks it.
    SchemaConflictError
        A column has a type that can't be combined with its type in files that were exported before.
    NWBError
        The folder was exported to by a later version of this library, or the lock on the folder was lost.
    OSError
        The folder can't be made or written.
    TypeError, ValueError
        An argument has a wrong type or value.

    See Also
    --------
    read_nwb : a table as a Dask DataFrame.
    to_arrow : rows as record batches, without files.

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
