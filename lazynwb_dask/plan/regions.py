"""What a column refers to, by what the files say: rows of a table, or electrode groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask import config
from lazynwb_dask.decode.objects import are_references
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.electrode_groups import FOLDER, PATH
from lazynwb_dask.plan.each_file import each_file
from lazynwb_dask.plan.sessions import as_type, type_of
from lazynwb_dask.plan.table_scan import indexed_tables
from lazynwb_dask.scan.fields import Field
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.scan.to_pandas import series

GROUPS = FOLDER


def sources_of(scan: Scan) -> list[Source]:
    return [scan.files.source(i) for i in range(len(scan.files.urls))]


def target_of(scan: Scan, region: str) -> str:
    """The path of the table that a DynamicTableRegion of a scan's table refers to; `GROUPS` if the column
    has references to objects.

    Raises
    ------
    ValueError
        It refers to none, or to different ones in different files.
    """
    request = TableRequest(
        sorted(set(scan.files.tables)) or scan.request.table,
        on_error=scan.request.on_error,
        allow_external_links=scan.request.allow_external_links,
        details=True,
    )
    tables, _ = indexed_tables(sources_of(scan), request, config.file_access(scan.options))
    found: dict[str, str] = {}
    for source, table in tables:
        column = table.columns.get(region)
        if column is None or column.problem:
            continue
        target = GROUPS if are_references(column.arrays[0].layout) else column.attributes.get("table")
        if target:
            found.setdefault(target, shown(source.url))
    if not found:
        raise ValueError(
            f"join_region: no file says which table {region!r} refers to: give target=, and key= unless it "
            "has row numbers"
        )
    if len(found) > 1:
        (one, first), (two, second), *_ = found.items()
        raise ValueError(
            f"join_region: {region!r} refers to {one} in {first}, and to {two} in {second}: give target=, or "
            "read these files as frames of their own"
        )
    return next(iter(found))


def electrode_groups(scan: Scan) -> tuple[pd.DataFrame, Sequence[str], np.ndarray]:
    """The electrode groups of all files as a table, the files, and where in the table each one's begin."""
    access = config.file_access(scan.options)
    work = partial(queries.electrode_groups, access=access)
    found = dict(each_file(sources_of(scan), work, scan.request.on_error)[0])
    rows = [row for groups in found.values() for row in groups]
    data = {}
    for name in dict.fromkeys(["name", PATH, *sorted({name for row in rows for name in row})]):
        values = [row.get(name) for row in rows]
        kind = type_of(values) or pa.string()
        field = Field(name, kind, nullable=True)
        data[name] = series([pa.array([as_type(value, kind) for value in values], kind)], field)
    borders = np.cumsum([0, *map(len, found.values())])
    return pd.DataFrame(data, index=range(len(rows))), list(found), borders
