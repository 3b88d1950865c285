"""One table as it was read, with a condition on rows: a dataset of Parquet without a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lazynwb_dask import expr
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.cluster import failures
from lazynwb_dask.errors import Failure
from lazynwb_dask.export.names import folder_name, part_name, session_column, stem
from lazynwb_dask.export.part import Part, Written
from lazynwb_dask.export.run import write_parts
from lazynwb_dask.export.schema import stored
from lazynwb_dask.export.tables import rows_of
from lazynwb_dask.model.source import shown
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.stream.arrow import arrow_schema

if TYPE_CHECKING:
    import dask.dataframe as dd


def write_frame(frame: dd.DataFrame, folder: Folder, sessions: Mapping[str, str]) -> int:
    """Write a part for each file of a read. Returns the number of rows. `sessions` has the files' sessions by
    URL. Files that can't be read are told of by `read_report`."""
    apart = expr.taken_apart(frame)
    assert apart is not None
    scan, columns, predicate = apart
    assert isinstance(scan, Scan)
    schema = pa.schema([(one.name, stored(one.type)) for one in arrow_schema(frame._meta)])
    column = session_column(columns)
    parts = []
    for file in np.unique(scan.file).tolist():
        url = scan.files.urls[file]
        path = f"{column}={folder_name(sessions.get(url, stem(url)))}/{part_name(stem(url), shown(url))}"
        parts.append(Part(path, schema, (rows_of(scan, file),), tuple(columns), predicate))
    done: list[Written] = []
    write_parts(parts, folder, scan.request.on_error, done.append)
    failed = [Failure(path, "read", error) for written in done for path, error in written.failed]
    failures.record(scan.origin or scan.token, failed)
    return sum(written.rows for written in done)
