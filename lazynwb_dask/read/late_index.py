"""The metadata of files that were not looked at while planning, read by the task that reads the file."""

from __future__ import annotations

from lazynwb_dask.errors import Failure, NWBReadError, TableNotFoundError
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.names import table_path
from lazynwb_dask.nwb.series_view import show
from lazynwb_dask.scan.fields import PROVENANCE
from lazynwb_dask.scan.records import Part
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.block_cache import Blocks
from lazynwb_dask.util.lru import Cache

_tables = Cache[TableIndex]("tables")


def indexed_part(
    part: Part, scan: Scan, access: FileAccess, lacking: list[Failure]
) -> tuple[Part, Blocks | None]:
    """A partition with the rows and columns that its file turns out to have, and what was fetched of it now.

    With ``on_missing="skip"``, a file that lacks the table or a column is appended to `lacking`; with
    ``on_error="skip"``, one with a column that can't be read, which is null.
    """
    source, table, blocks = _table_of(part.source, scan, access)
    request, name = scan.request, shown(source.url)
    if table is None:
        none = f"no table {' or '.join(map(table_path, request.table_names))}"
        if request.on_missing == "skip":
            lacking.append(Failure(name, "read", none))
            return Part(source, "", 0, 0, 0, {}, facts=part.facts), blocks
        raise TableNotFoundError(f"{name}: {none}")
    table = show(table, request.view, name)
    columns, unread = {}, list[str]()
    for column in [table.columns[c] for c in scan.fields if c in table.columns]:
        what = f"column {column.name!r}"
        if not column.problem:
            columns[column.name] = (column.arrays, column.labels)
        elif request.on_error == "skip" and not table.damage:
            unread.append(column.name)
            lacking.append(
                Failure(name, "read", f"no {what} in {table.path} that can be read: {column.problem}")
            )
        else:
            raise NWBReadError(f"{name}: {table.path}: {what}: {column.problem}")
    known = {*columns, *unread, *part.facts, *PROVENANCE}
    absent = [c for c in scan.fields if c not in known]
    if absent:
        none = f"no column {', '.join(absent)}"
        if request.on_missing == "raise":
            raise NWBReadError(f"{name}: {table.path}: {none}")
        lacking.append(Failure(name, "read", f"{none} in {table.path}"))
    return Part(source, table.path, 0, table.rows, 0, columns, facts=part.facts), blocks


def _table_of(
    source: Source, scan: Scan, access: FileAccess
) -> tuple[Source, TableIndex | None, Blocks | None]:
    """The index of a file's table, read at most once by each process."""
    names = tuple(scan.request.table_names)
    # Nothing tells whether other files that this one names are still the same, or may still be opened.
    alone = not scan.request.allow_external_links
    known = _tables.get((source.key, names)) if source.etag is not None and alone else None
    if known is not None:
        return source, known, None
    found, blocks = queries.index_and_blocks(source, scan.request, access)
    if found.table is not None and alone and not found.source.parts:
        nbytes = 2000 * len(found.table.columns)
        _tables.put((found.source.key, names), found.table, nbytes)
    return found.source, found.table, None if found.source.parts else blocks
