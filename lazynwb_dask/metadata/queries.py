"""What may be asked of one file's metadata: one function for each question."""

from __future__ import annotations

from typing import Any

from lazynwb_dask.hdf5.links import ListTables, NameObjects
from lazynwb_dask.metadata.open import MetadataReader, run
from lazynwb_dask.model.index import Extents, FileIndex
from lazynwb_dask.model.source import Source
from lazynwb_dask.nwb.contents import ListSeries, TakeStock
from lazynwb_dask.nwb.session import ReadSession, Session
from lazynwb_dask.nwb.tables import IndexTable, ListChunks, Table, table_path
from lazynwb_dask.storage import Settings
from lazynwb_dask.storage.options import Options


def index_file(
    source: Source,
    table: Table,
    options: Options,
    settings: Settings,
    *,
    details: bool = False,
    allow_external_links: bool = False,
) -> FileIndex:
    """The index of the table that a file has under a name.

    Parameters
    ----------
    source : Source
    table : str, sequence of str or callable
        As in `read_nwb`.
    details : bool
        Also descriptions, units and the targets of regions: more bytes to fetch.
    allow_external_links : bool
        Let libhdf5 open other files that this one names.

    Raises
    ------
    NWBReadError
        When the file can't be read or isn't an NWB 2 file.
    """

    passes = MetadataReader(source, options, settings, allow_external_links)
    if callable(table):
        picked = table(passes.run(ListTables()))
        names = [] if picked is None else [picked]
    else:
        names = [table] if isinstance(table, str) else list(table)
    paths = tuple(table_path(name) for name in names)
    return FileIndex(passes.source, passes.run(IndexTable(paths, details, allow_external_links)))


def list_chunks(source: Source, path: str, options: Options, settings: Settings) -> Extents:
    """Where the chunks of a dataset lie that were left unlisted when the file was indexed."""
    found = MetadataReader(source, options, settings).run(ListChunks(path))
    return found.columns[path].arrays[0].extents


def list_tables(source: Source, options: Options, settings: Settings) -> list[str]:
    """The paths of all tables of a file."""
    return run(source, options, settings, ListTables())[1]


def names_of(
    source: Source, addresses: set[int], options: Options, settings: Settings
) -> dict[int, str]:
    """The paths of the objects whose headers are at addresses; those that no link reaches are left out.

    Of several hard links the one nearest the root counts, then the first. Groups are read level by level,
    only as deep as it takes.
    """
    return run(source, options, settings, NameObjects(tuple(addresses)))[1]


def read_session(source: Source, options: Options, settings: Settings) -> Session:
    """The session and subject fields of one file.

    Raises
    ------
    NWBReadError
        When the file can't be read or isn't an NWB 2 file.
    """
    source, found = run(source, options, settings, ReadSession())
    return Session(source, found.value)


def take_stock(
    source: Source, options: Options, settings: Settings
) -> tuple[Source, list[dict[str, Any]]]:
    """What a file holds, in the order of the paths.

    Returns
    -------
    Source
    list of dict
        For each object its ``path``, ``kind`` and ``neurodata_type``, and what else there is to say.

    Raises
    ------
    NWBReadError
        When the file can't be read or isn't an NWB 2 file.
    """
    source, found = run(source, options, settings, TakeStock())
    return source, found.value


def list_series(source: Source, options: Options, settings: Settings) -> list[str]:
    """The paths of all TimeSeries of a file."""
    return run(source, options, settings, ListSeries())[1]
