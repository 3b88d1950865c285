"""Queries of one file's metadata, for all formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lazynwb_dask.hdf5.links import NameObjects
from lazynwb_dask.metadata import formats
from lazynwb_dask.metadata.formats import OpenedFile, Rows, format_of
from lazynwb_dask.metadata.hdf5_file import HDF5File
from lazynwb_dask.model.index import Extents, FileIndex
from lazynwb_dask.model.source import Source
from lazynwb_dask.nwb.contents import ListObjects
from lazynwb_dask.nwb.electrode_groups import ListElectrodeGroups
from lazynwb_dask.nwb.jobs import IndexTable, ListChunks, ListLinks, ListSeries, ListTables
from lazynwb_dask.nwb.names import table_path
from lazynwb_dask.nwb.session import ReadSession, Session
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.block_cache import Blocks, kept


def open_file(source: Source, access: FileAccess, allow_external_links: bool = False) -> OpenedFile:
    """The opened file, for several queries. Raises NWBReadError if it can't be read."""
    return formats.open_file(source, access, allow_external_links)


def is_index(source: Source) -> bool:
    """Whether the file is only an index of data stored elsewhere."""
    return format_of(source).is_index


def read_rows(source: Source, wanted: Sequence[Rows], access: FileAccess) -> list[np.ndarray]:
    """Row ranges of datasets whose values aren't byte ranges of the file, as stored bytes or text
    objects."""
    return format_of(source).read_rows(source, wanted, access)


def index_file(source: Source, request: TableRequest, access: FileAccess) -> FileIndex:
    """The index of the requested table. Raises NWBReadError if the file can't be read or isn't an NWB 2
    file."""
    return index_and_blocks(source, request, access)[0]


def index_and_blocks(
    source: Source, request: TableRequest, access: FileAccess
) -> tuple[FileIndex, Blocks | None]:
    """The index of the requested table, see `index_file`, and what was fetched of the file."""
    links = request.allow_external_links
    file = open_file(source, access, links)
    names = request.table_names
    if callable(request.table):
        picked = request.table(file.run(ListTables()))
        names = [] if picked is None else [picked]
    paths = tuple(table_path(name) for name in names)
    found = FileIndex(file.source, file.run(IndexTable(paths, request.details, links)))
    return found, file.blocks


def list_chunks(source: Source, path: str, access: FileAccess) -> Extents:
    """The chunk positions of a dataset whose chunks were not listed when the file was indexed."""
    found = open_file(source, access).run(ListChunks(path))
    return found.columns[path].arrays[0].extents


def list_tables(source: Source, access: FileAccess) -> list[str]:
    """The paths of all tables."""
    return open_file(source, access).run(ListTables())


def list_tables_and_links(source: Source, access: FileAccess) -> tuple[list[str], list[tuple[str, str]]]:
    """The paths of all tables, and the links behind which there may be others: path and reason."""
    file = open_file(source, access)
    return file.run(ListTables()), file.run(ListLinks()).value


def names_of(source: Source, addresses: set[int], access: FileAccess) -> tuple[dict[int, str], bool]:
    """The paths of the objects with the given header addresses, without those that no link reaches. Of
    several hard links the one nearest the root counts, then the first. Groups are read level by level, only
    as deep as needed. What was kept of the file is used without a request; whether there was one is returned,
    too."""
    job, blocks = NameObjects(tuple(addresses)), kept(source)
    if blocks is None:
        return open_file(source, access).run(job), True
    file = HDF5File(source, access, blocks)
    return file.run(job), file.asked


def read_session(source: Source, access: FileAccess) -> Session:
    """Session and subject fields. Raises NWBReadError if the file can't be read or isn't an NWB 2 file."""
    file = open_file(source, access)
    return Session(file.source, file.run(ReadSession()).value)


def electrode_groups(source: Source, access: FileAccess) -> tuple[str, list[dict[str, Any]]]:
    """The source's URL, and the fields of each electrode group. See `ListElectrodeGroups`."""
    return source.url, open_file(source, access).run(ListElectrodeGroups()).value


def list_objects(source: Source, access: FileAccess) -> tuple[Source, list[dict[str, Any]]]:
    """The source, and for each object, sorted by path, a dict with ``path``, ``kind``, ``neurodata_type``
    and more; the kind of links that aren't followed is `LINK`. Raises NWBReadError if the
    file can't be read or isn't an NWB 2 file."""
    file = open_file(source, access)
    return file.source, file.run(ListObjects()).value


def list_series(source: Source, access: FileAccess) -> list[str]:
    """The paths of all TimeSeries."""
    return open_file(source, access).run(ListSeries())
