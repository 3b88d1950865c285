"""Columns whose chunks can't be decoded in this process.

That is no part of an index, which is kept, and used where other filters are installed: it is asked anew of
each index that a read is planned with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from lazynwb_dask.decode.filters import check_filters
from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, ColumnIndex, Filter, Layout, TableIndex


def usable(table: TableIndex) -> TableIndex:
    """A table, its columns whose chunks can't be decoded here marked as unreadable."""
    marked = {}
    for name, column in table.columns.items():
        reason = "" if column.problem else _reason(steps for a in column.arrays for steps in _of(a))
        if reason:
            marked[name] = ColumnIndex(name, rows=column.rows, problem=reason)
    return replace(table, columns=table.columns | marked) if marked else table


def lacking(layouts: Iterable[Layout]) -> str:
    """Why chunks of such layouts can't be decoded here; empty if they can."""
    return _reason(layout.filters for layout in layouts)


def _reason(pipelines: Iterable[tuple[Filter, ...]]) -> str:
    try:
        for steps in pipelines:
            check_filters(steps)
    except UnsupportedColumnError as exc:
        return str(exc)
    return ""


def _of(array: ArrayIndex) -> Iterator[tuple[Filter, ...]]:
    """What was applied to the chunks of a dataset, as far as the index tells."""
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
