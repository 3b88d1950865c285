"""Columns whose chunks can't be decoded in this process.

This is no part of an index, since an index is kept and may be used where other filters are installed. It is
determined again for each index that a read is planned with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from lazynwb_dask.decode.filters import check_filters
from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, ColumnIndex, Filter, Layout, TableIndex


def mark_undecodable(table: TableIndex) -> TableIndex:
    """A table in which columns whose chunks can't be decoded here have a `problem`."""
    marked = {}
    for name, column in table.columns.items():
        if not column.problem:
            # if all filters are there, so are those of chunks with fewer
            reason = missing_filter(array.layout for array in column.arrays)
            reason = reason and _problem(steps for array in column.arrays for steps in _pipelines(array))
            if reason:
                marked[name] = ColumnIndex(name, rows=column.rows, problem=reason)
    return replace(table, columns=table.columns | marked) if marked else table


def missing_filter(layouts: Iterable[Layout]) -> str:
    """Why chunks of such layouts can't be decoded here; empty if they can."""
    return _problem(layout.filters for layout in layouts)


def _problem(pipelines: Iterable[tuple[Filter, ...]]) -> str:
    try:
        for steps in pipelines:
            check_filters(steps)
    except UnsupportedColumnError as exc:
        return str(exc)
    return ""


def _pipelines(array: ArrayIndex) -> Iterator[tuple[Filter, ...]]:
    """The different filter pipelines of a dataset's chunks; the dataset's own if no chunk is known."""
    layout, extents = array.layout, array.extents
    if not layout.filters or not array.rows:
        return
    if not extents.offsets.size:
        yield layout.filters
        return
    written = extents.offsets != UNDEFINED
    masks = [0] if written.any() else []
    if extents.masks is not None:
        masks = np.unique(extents.masks[written]).tolist()
    for mask in masks:
        yield tuple(step for i, step in enumerate(layout.filters) if not mask >> i & 1)
