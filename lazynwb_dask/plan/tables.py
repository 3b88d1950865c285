"""From indexed files to one table over all of them: what a frame has, and what is said of the rest."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa

from lazynwb_dask.decode.convert import all_null
from lazynwb_dask.errors import (
    ColumnNotFoundError,
    Failure,
    NWBError,
    SchemaConflictError,
    TableNotFoundError,
    UnsupportedColumnError,
)
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.index import ColumnIndex, FileIndex, TableIndex
from lazynwb_dask.model.series_view import Shown
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.names import Table, table_path
from lazynwb_dask.nwb.series_view import show_all
from lazynwb_dask.plan.index_files import index_files
from lazynwb_dask.read.partition import read_column
from lazynwb_dask.scan.schema import PROVENANCE, Field, Schema, given_type, unify
from lazynwb_dask.storage import Settings
from lazynwb_dask.storage.options import Options


def overrides_of(schema: Any) -> Mapping[str, Any]:
    if schema is None:
        return {}
    if isinstance(schema, Mapping):
        return schema
    raise TypeError(
        f"schema={schema!r}: None, a number of files, a mapping of columns to types, or a pyarrow.Schema"
    )


def given(schema: pa.Schema) -> list[Field]:
    """The columns of a schema that a user gave."""
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise ValueError(f"schema: there is more than one column {', '.join(twice)}")
    return [
        Field(f.name, given_type(f.name, f.type), f.nullable)
        for f in schema
        if f.name not in PROVENANCE
    ]


def spread(sources: Sequence[Source], n: int) -> list[Source]:
    """So many sources, spread evenly over the list."""
    if n < 1:
        raise ValueError(f"schema={n}: at least one file is needed to infer a schema")
    picks = np.unique(np.linspace(0, len(sources) - 1, min(n, len(sources))).round().astype(int))
    return [sources[i] for i in picks.tolist()]


def inferred(
    sample: list[Source],
    table: Table,
    options: Options,
    settings: Settings,
    on_error: str,
    on_missing: str,
    view: Shown | None,
    allow_external_links: bool,
) -> list[Field]:
    """The columns of a few files; any of them may be missing elsewhere."""
    found, failures = index_files(
        sample,
        table,
        options,
        settings,
        on_error=on_error,
        allow_external_links=allow_external_links,
    )
    tables = present(show_all(found, view), failures, table, on_missing, options, settings)
    unified = schema_of(tables, {}, options, settings)
    warn_left_out(unified)
    return [Field(f.name, f.type, nullable=f.name != "id") for f in unified.fields.values()]


def present(
    found: list[FileIndex],
    failures: list[Failure],
    table: Table,
    on_missing: str,
    options: Options,
    settings: Settings,
) -> list[tuple[Source, TableIndex]]:
    """The tables of the files that have one."""
    tables = [(f.source, f.table) for f in found if f.table is not None]
    absent = [f.source for f in found if f.table is None]
    if absent and (on_missing == "raise" or not tables):
        raise TableNotFoundError(_no_table(absent, found, table, options, settings))
    if not tables:
        raise NWBError(
            f"none of the {len(failures)} files can be read; the first: {failures[0].path}: "
            f"{failures[0].error}"
        )
    if absent:
        warnings.warn(
            f"{len(absent)} of {len(found)} files have no table {_table_name(table)} and are left out "
            f"(the first: {shown(absent[0].url)}); on_missing='raise' makes this an error",
            stacklevel=3,
        )
    return tables


def _table_name(table: Table) -> str:
    if isinstance(table, str):
        return table_path(table)
    return "as chosen" if callable(table) else " or ".join(table_path(t) for t in table)


def _no_table(
    absent: list[Source], found: list[FileIndex], table: Table, options: Options, settings: Settings
) -> str:
    """Which table is missing where, and which ones there are."""
    first = absent[0]
    there = queries.list_tables(first, options, settings)
    name = _table_name(table)
    text = f"no table {name} in {shown(first.url)}"
    if len(absent) > 1:
        text += f" and {len(absent) - 1} of the {len(found)} files"
    series = queries.list_series(first, options, settings)
    near = get_close_matches(name, [*there, *series], n=3, cutoff=0.5)
    last = name.rsplit("/", 1)[-1]
    near += [t for t in (*there, *series) if t.rsplit("/", 1)[-1] == last and t not in near]
    near += [t for t in series if t.startswith(f"{name}/") and t not in near][:3]
    if near:
        text += f"; did you mean {' or '.join(near)}?"
    if series:
        text += f" It has {len(series)} TimeSeries, see lazynwb_dask.contents."
    return f"{text} Its tables: {', '.join(there) or 'none'}"


def schema_of(
    tables: list[tuple[Source, TableIndex]],
    overrides: Mapping[str, Any],
    options: Options,
    settings: Settings,
) -> Schema:
    """The schema of all tables; values are looked at only for columns in conflict."""
    named = [(source.url, table) for source, table in tables]
    unified = unify(named, overrides)
    nulls: dict[str, set[int]] = {}
    for name, conflict in unified.conflicts.items():
        if conflict.unreadable:
            continue
        nulls[name] = {
            i
            for i, (source, table) in enumerate(tables)
            if name in table.columns
            and may_be_null(table.columns[name])
            and all_null(read_column(source, table, name, options, settings))
        }
    if any(nulls.values()):
        unified = unify(named, overrides, nulls)
    check_overrides(overrides, unified)
    return unified


def may_be_null(column: ColumnIndex) -> bool:
    """Whether stored values of a column can be null or NaN: other kinds needn't be looked at."""
    if pa.types.is_floating(column.type):
        return True
    labelled = column.labels is not None or column.arrays[0].layout.element[0] == "enum"
    dangling = column.arrays[0].layout.element[0] == "reference"
    return pa.types.is_string(column.type) and (labelled or dangling)


def check_overrides(overrides: Mapping[str, Any], unified: Schema) -> None:
    for name in overrides:
        if name not in unified.fields and name not in unified.conflicts:
            raise _no_column(name, unified, "schema=")


def check_columns(wanted: Sequence[str], unified: Schema) -> None:
    """Raise for a column that was named and isn't in the frame."""
    for name in wanted:
        if name in unified.fields or name in PROVENANCE:
            continue
        conflict = unified.conflicts.get(name)
        if conflict is None:
            raise _no_column(name, unified, "columns= or filters=")
        if conflict.unreadable:
            raise UnsupportedColumnError(f"the column {name!r} can't be read: {conflict.reason}")
        raise SchemaConflictError(
            f"the column {name!r} has types without a common one: {conflict.reason}. "
            f"Give schema={{{name!r}: type}}, or read these files apart"
        )


def _no_column(name: str, unified: Schema, where: str) -> ColumnNotFoundError:
    there = [*unified.fields, *PROVENANCE]
    near = get_close_matches(str(name), there, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(map(repr, near))}?"
        if near
        else f"there are: {', '.join(there)}"
    )
    return ColumnNotFoundError(f"{where}: no column {name!r} in any of the files; {hint}")


def warn_left_out(unified: Schema) -> None:
    if unified.conflicts:
        parts = "; ".join(f"{c.name}: {c.reason}" for c in unified.conflicts.values())
        warnings.warn(
            f"{len(unified.conflicts)} columns are left out of the frame: {parts}. "
            "lazynwb_dask.schema_report tells more; schema={column: type} settles a conflict",
            stacklevel=3,
        )
