"""Many files' indexes: made concurrently, in source order, with one failure policy for all."""

from __future__ import annotations

from collections.abc import Sequence

from lazynwb_dask.errors import Failure, NWBError, NWBReadError
from lazynwb_dask.model.index import FileIndex
from lazynwb_dask.model.source import Source, is_local, shown
from lazynwb_dask.nwb.tables import Table
from lazynwb_dask.plan import index_cache as store
from lazynwb_dask.sources.stat import versions
from lazynwb_dask.storage import Settings
from lazynwb_dask.storage.options import Options
from lazynwb_dask.util.concurrently import concurrently


def index_files(
    sources: Sequence[Source],
    table: Table,
    options: Options,
    settings: Settings,
    *,
    threads: int = 32,
    on_error: str = "raise",
    details: bool = False,
    progress: bool = False,
    allow_external_links: bool = False,
) -> tuple[list[FileIndex], list[Failure]]:
    """The index of one table of many files, and the files that can't be read.

    Parameters
    ----------
    sources : sequence of Source
        A file that is named more than once is read once.
    threads : int
        Files that are read at a time.
    on_error : {"raise", "skip"}
        Raise the error of the first such file in source order, or leave such files out, and those
        with a column whose metadata can't be right.
    details : bool
        Descriptions and units too.
    progress : bool
        Show a progress bar if it takes long.
    allow_external_links : bool
        Let libhdf5 open other files that these name.

    Returns
    -------
    list of FileIndex
        In source order, files that failed left out.
    list of Failure
    """

    def index(source: Source) -> FileIndex | Failure:
        try:
            found = store.index_file(
                source,
                table,
                options,
                settings,
                details=details,
                allow_external_links=allow_external_links,
            )
        except NWBError as exc:
            if on_error == "raise":
                raise
            return Failure.of(shown(source.url), "plan", exc)
        if on_error == "skip" and found.table is not None and found.table.damage:
            return damaged(source.url, found.table.path, found.table.damage)
        return found

    if not allow_external_links:
        sources = _identified(sources, table, options, settings, threads, details)
    distinct = list(dict.fromkeys(sources))
    results = dict(zip(distinct, concurrently(distinct, index, threads, progress), strict=True))
    ordered = [results[s] for s in sources]
    return (
        [r for r in ordered if isinstance(r, FileIndex)],
        [r for r in ordered if isinstance(r, Failure)],
    )


def damaged(url: str, table: str, damage: str) -> Failure:
    """What is told of a file whose metadata can't be right in one column."""
    error = NWBReadError(
        f"{shown(url)}: {table}: {damage} (on_error='raise' leaves out the column, not the file)"
    )
    return Failure.of(shown(url), "plan", error)


def _identified(
    sources: Sequence[Source],
    table: Table,
    options: Options,
    settings: Settings,
    threads: int,
    details: bool,
) -> list[Source]:
    """The sources with the versions of those of which something is kept from earlier."""
    held = store.store()
    if held is None:
        return list(sources)
    what = store.first_asked(table)

    def asked(source: Source) -> bool:
        return not is_local(source.url) and held.has(source.url, what, details)

    return versions(sources, options, settings, threads=threads, asked=asked)
