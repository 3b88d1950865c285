"""Merges small Parquet files of values, since each refresh adds one for each table: files with fewer than
`SMALL` bytes and values of fewer than `FILES` NWB files, where a table has more than `MANY` of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.catalog.values import ROW_GROUP, values_name, written

FILES = 128
SMALL = 1 << 20
MANY = 16


@dataclass
class _Group:
    """Values of one table for one Parquet file."""

    values: pa.Table
    at: list[np.ndarray]  # for each of the old files, its rows of `tables`


def compacted(
    tables: pa.Table,
    sections: Mapping[str, tuple[int, int, int, int]],
    sizes: Mapping[str, int],
    folder: Folder,
) -> tuple[pa.Table, dict[str, bytes]]:
    """`tables` with fewer Parquet files of values, and the files to write. `sizes` are those of the Parquet
    files of values; `sections` as in `Manifest`."""
    names = np.array(tables["values"].to_pylist(), object)
    first, rows = (tables[name].fill_null(0).to_numpy().copy() for name in ("first", "rows"))
    files: dict[str, bytes] = {}
    for start, stop, *_ in sections.values():
        count = Counter(name for name in names[start:stop] if name is not None)
        small = sorted(n for n in count if count[n] < FILES and sizes[n] < SMALL)
        if len(small) <= MANY:
            continue
        groups: list[_Group] = []
        for old in small:
            at = start + np.flatnonzero(names[start:stop] == old)
            used = [np.arange(f, f + n) for f, n in zip(first[at], rows[at], strict=True)]
            values = folder.table(old, sizes[old]).take(pa.array(np.concatenate(used)))
            _add(groups, values, at)
        for group in groups:
            if len(group.at) > 1:
                name = values_name()
                files[name] = written(group.values, ROW_GROUP)
                at = np.concatenate(group.at)
                names[at] = name
                first[at] = np.cumsum(rows[at]) - rows[at]
    for name, values in (("values", names), ("first", first)):
        i = tables.schema.get_field_index(name)
        field = tables.schema.field(i)
        tables = tables.set_column(i, field, pa.array(values, field.type))
    return tables, files


def _add(groups: list[_Group], values: pa.Table, at: np.ndarray) -> None:
    """Add the values to the first group with room and the same column types."""
    for group in groups:
        if sum(map(len, group.at)) < FILES:
            try:
                group.values = pa.concat_tables([group.values, values], promote_options="default")
            except (pa.ArrowTypeError, pa.ArrowInvalid):
                continue
            group.at.append(at)
            return
    groups.append(_Group(values, [at]))
