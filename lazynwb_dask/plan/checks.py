"""Errors for missing tables and columns, and warnings about what is left out of a frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lazynwb_dask import errors
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.index import FileIndex, TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.names import table_path
from lazynwb_dask.plan.each_file import none_readable
from lazynwb_dask.plan.schema import EXAMPLES
from lazynwb_dask.scan.fields import PROVENANCE, Schema
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.util.suggest import did_you_mean, listed, near_or_all
from lazynwb_dask.util.warn import warn


def present(
    found: Sequence[FileIndex], failures: Sequence[errors.Failure], request: TableRequest, access: FileAccess
) -> list[tuple[Source, TableIndex]]:
    """The tables of the files that have one. Raises TableNotFoundError or warns about the others."""
    tables = [(f.source, f.table) for f in found if f.table is not None]
    absent = [f.source for f in found if f.table is None]
    if absent and (request.on_missing == "raise" or not tables):
        raise errors.TableNotFoundError(_no_table(absent, len(found), request, access))
    if not tables:
        raise none_readable(failures)
    if absent:
        warn(
            f"{len(absent)} of {len(found)} files have no table {_table_name(request)} and are left out "
            f"(the first: {shown(absent[0].url)}); on_missing='raise' makes this an error"
        )
    return tables


def _table_name(request: TableRequest) -> str:
    return " or ".join(map(table_path, request.table_names)) or "that the function in table= chooses"


def _no_table(absent: Sequence[Source], count: int, request: TableRequest, access: FileAccess) -> str:
    first = absent[0]
    there = queries.list_tables(first, access)
    name = _table_name(request)
    text = f"no table {name} in {shown(first.url)}"
    if len(absent) > 1:
        text += f" and {len(absent) - 1} more of the {count} files"
    series = queries.list_series(first, access)
    text += did_you_mean([table_path(t) for t in request.table_names], [*there, *series])
    if series:
        text += f" It has {len(series)} TimeSeries, see lazynwb_dask.contents."
    return f"{text} Its tables: {listed(there)}"


def warn_cut(tables: Sequence[tuple[Source, TableIndex]]) -> None:
    """Warn about a VectorIndex with more rows than its table: which of them are the table's isn't known."""
    for source, table in tables:
        for name, column in table.columns.items():
            if len(column.arrays) > 1 and column.arrays[-1].rows > column.rows:
                warn(
                    f"{shown(source.url)}: {table.path}: the VectorIndex of column {name!r} has "
                    f"{column.arrays[-1].rows} rows, the table {column.rows}: the extra rows are left out. "
                    "lazynwb_dask.schema_report lists other files"
                )
                return


def check_overrides(overrides: Iterable[str], unified: Schema) -> None:
    for name in overrides:
        if name not in unified.fields and name not in unified.conflicts:
            raise _no_column(name, unified, "schema=")


def check_columns(wanted: Sequence[str], unified: Schema) -> None:
    """Raise if one of the `wanted` columns isn't in the frame."""
    for name in wanted:
        if name in unified.fields or name in PROVENANCE:
            continue
        conflict = unified.conflicts.get(name)
        if conflict is None:
            raise _no_column(name, unified, "columns= or filters=")
        if conflict.unreadable:
            raise errors.UnsupportedColumnError(f"the column {name!r} can't be read: {conflict.reason}")
        raise errors.SchemaConflictError(
            f"the column {name!r} has types without a common one: {conflict.reason}. "
            f"Give schema={{{name!r}: type}}, or read these files separately"
        )


def _no_column(name: str, unified: Schema, where: str) -> errors.ColumnNotFoundError:
    there = [*unified.fields, *PROVENANCE]
    hint = near_or_all(name, there)
    return errors.ColumnNotFoundError(f"{where}: no column {name!r} in any of the files{hint}")


def warn_of_links(linked: Iterable[tuple[Source, Sequence[tuple[str, str]]]], what: str) -> None:
    """Warn of links that aren't followed in some files: what is behind them is missing."""
    some = [(source, links) for source, links in linked if links]
    if some:
        source, links = some[0]
        where = ", ".join(f"{path} ({reason})" for path, reason in links[:EXAMPLES])
        more = f" and {len(links) - EXAMPLES} more" if len(links) > EXAMPLES else ""
        others = f", and others in {len(some) - 1} more files" if len(some) > 1 else ""
        warn(
            f"some links aren't followed, so {what} that they lead to are missing: {shown(source.url)}: {where}"
            f"{more}{others}. Add the files that they lead to, to read these too"
        )


def warn_left_out(unified: Schema) -> None:
    if unified.unread:
        first = unified.unread[0]
        warn(
            f"some columns can't be read in some files, and are missing in their rows ({len(unified.unread)} "
            f"in all, the first: {first.path}: {first.error}); lazynwb_dask.read_report(frame) lists them"
        )
    if unified.conflicts:
        parts = "; ".join(f"{c.name}: {c.reason}" for c in unified.conflicts.values())
        warn(
            f"{len(unified.conflicts)} columns are left out of the frame: {parts}. "
            "lazynwb_dask.schema_report shows the types; schema={column: type} chooses one"
        )
