"""The indexes of one table in many files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lazynwb_dask import config
from lazynwb_dask.decode.available import mark_undecodable
from lazynwb_dask.errors import Failure, NWBReadError
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.index import FileIndex
from lazynwb_dask.model.source import Source, is_local, shown
from lazynwb_dask.nwb.names import table_path
from lazynwb_dask.plan.each_file import each_file
from lazynwb_dask.plan.index_cache import ALL_TABLES, IndexCache, index_cache
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.sources.stat import versions
from lazynwb_dask.storage.access import FileAccess


def index_file(source: Source, request: TableRequest, access: FileAccess) -> FileIndex:
    """The index of one file's table, from the cache on disk if possible. Columns whose chunks can't be
    decoded in this process are marked. Not cached are files that may link to others, whose changes would go
    unnoticed, and LINDI files, which are indexes themselves."""
    no_cache = request.allow_external_links or queries.is_index(source)
    cache = None if no_cache else index_cache()
    if cache is None:
        return _usable(queries.index_file(source, request, access))
    known = _known(cache, source, request)
    if known is not None:
        return _usable(known)
    listed: list[str] = []

    def choose(paths: list[str]) -> str | None:
        listed.extend(paths)
        return request.table(paths) if callable(request.table) else None

    asked = replace(request, table=choose) if callable(request.table) else request
    found = queries.index_file(source, asked, access)
    if callable(request.table):
        cache.put(found.source, ALL_TABLES, paths=listed)
    _keep(cache, found, request)
    return _usable(found)


def _usable(found: FileIndex) -> FileIndex:
    return found if found.table is None else replace(found, table=mark_undecodable(found.table))


def _keep(cache: IndexCache, found: FileIndex, request: TableRequest) -> None:
    there = found.table.path if found.table is not None else None
    if there is not None:
        cache.put(found.source, there, found, details=request.details)
    for path in map(table_path, request.table_names):
        if path == there:
            break
        cache.put(found.source, path, details=request.details)


def _known(cache: IndexCache, source: Source, request: TableRequest) -> FileIndex | None:
    names = request.table_names
    if callable(request.table):
        entry = cache.get(source, ALL_TABLES)
        if entry is None or entry.paths is None:
            return None
        picked = request.table(list(entry.paths))
        names = [] if picked is None else [picked]
    for path in map(table_path, names):
        entry = cache.get(source, path, request.details)
        if entry is None:
            return None
        if entry.table is not None:
            return FileIndex(source, entry.table)
    return FileIndex(source, None)


def index_files(
    sources: Sequence[Source], request: TableRequest, access: FileAccess
) -> tuple[list[FileIndex], list[Failure]]:
    """The table indexes in source order, and the files that can't be read. With ``on_error="skip"`` these
    are left out, and so are files with invalid metadata in one column."""

    def index(source: Source) -> FileIndex | Failure:
        found = index_file(source, request, access)
        if request.on_error == "skip" and found.table is not None and found.table.damage:
            return damaged(source.url, found.table.path, found.table.damage)
        return found

    if not request.allow_external_links:
        sources = _identified(sources, request, access)
    return each_file(sources, index, request.on_error)


def damaged(url: str, table: str, damage: str) -> Failure:
    """The failure of a file that has invalid metadata in one column."""
    error = NWBReadError(
        f"{shown(url)}: {table}: {damage} (on_error='raise' leaves out the column, not the file)"
    )
    return Failure.of(shown(url), "plan", error)


def _identified(sources: Sequence[Source], request: TableRequest, access: FileAccess) -> list[Source]:
    """The sources, with the versions of those that have an entry in the cache."""
    cache = index_cache()
    if cache is None:
        return list(sources)
    first = next(map(table_path, request.table_names), ALL_TABLES)

    def has_entry(source: Source) -> bool:
        return not is_local(source.url) and cache.has(source, first, request.details)

    threads = int(config.get("index-threads"))
    return versions(sources, access, threads=threads, asked=has_entry)
