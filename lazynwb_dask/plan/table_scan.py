"""From files and a request to the scan that a frame reads."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from lazynwb_dask.errors import Failure
from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.source import Source
from lazynwb_dask.nwb.series_view import show_all
from lazynwb_dask.plan.checks import check_columns, check_overrides, present, warn_cut, warn_left_out
from lazynwb_dask.plan.index_files import index_files
from lazynwb_dask.plan.partitions import build, unindexed
from lazynwb_dask.plan.schema import schema_of
from lazynwb_dask.plan.user_types import given
from lazynwb_dask.read.time_order import known_to_rise
from lazynwb_dask.scan.fields import Field, Schema
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.util.warn import warn


def table_scan(
    sources: Sequence[Source],
    request: TableRequest,
    access: FileAccess,
    rising: Mapping[str, Container[str]] | None = None,
) -> Scan:
    """The scan of one table in many files, with the request checked. No file is opened if a schema is
    given, and only a sample of the files if the schema is inferred. `rising` has by URL which timestamps a
    catalog knows to rise."""
    schema = request.schema
    if isinstance(schema, int):
        fields = _inferred(_spread(sources, schema), request, access)
    elif isinstance(schema, pa.Schema):
        fields = given(schema)
    else:
        return _indexed(sources, request, access, rising or {})
    unified = Schema({field.name: field for field in fields})
    check_columns(request.named_columns, unified)
    return unindexed(sources, unified, request, access.options)


def indexed_tables(
    sources: Sequence[Source], request: TableRequest, access: FileAccess
) -> tuple[list[tuple[Source, TableIndex]], list[Failure]]:
    """The tables of the files that have one, and the files that can't be read. Warns of files that are left
    out."""
    found, failures = index_files(sources, request, access)
    warn_skipped(failures, len(sources))
    return present(show_all(found, request.view), failures, request, access), failures


def warn_skipped(failures: Sequence[Failure], count: int) -> None:
    """Warn about files left out while planning; `count` is the number of all files."""
    if failures:
        warn(
            f"{len(failures)} of {count} files can't be read and are left out (the first: "
            f"{failures[0].path}: {failures[0].error}); lazynwb_dask.read_report(frame) lists them"
        )


def _indexed(
    sources: Sequence[Source], request: TableRequest, access: FileAccess, rising: Mapping[str, Container[str]]
) -> Scan:
    tables, failures = indexed_tables(sources, request, access)
    tables = [(source, known_to_rise(table, rising.get(source.url, ()))) for source, table in tables]
    unified = schema_of(tables, request.overrides, access, request.on_error)
    check_overrides(request.overrides, unified)
    check_columns(request.named_columns, unified)
    warn_left_out(unified)
    warn_cut(tables)
    scan = build(tables, unified, request, access.options)
    if failures or unified.unread:
        told = tuple((f.path, f.stage, f.error) for f in (*failures, *unified.unread))
        scan = replace(scan, failures=told)
    return scan


def _inferred(sample: Sequence[Source], request: TableRequest, access: FileAccess) -> list[Field]:
    """The columns of a sample of files. All but `id` are nullable, as other files may lack them."""
    found, failures = index_files(sample, request, access)
    tables = present(show_all(found, request.view), failures, request, access)
    unified = schema_of(tables, {}, access, request.on_error)
    warn_left_out(unified)
    return [Field(f.name, f.type, nullable=f.name != "id") for f in unified.fields.values()]


def _spread(sources: Sequence[Source], n: int) -> list[Source]:
    """`n` sources, spread evenly over the list."""
    picks = np.unique(np.linspace(0, len(sources) - 1, min(n, len(sources))).round().astype(int))
    return [sources[i] for i in picks.tolist()]
