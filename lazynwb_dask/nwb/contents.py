"""What one NWB file in HDF5 holds: its tables, TimeSeries and other typed objects. No data are read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5g

from lazynwb_dask.hdf5.dataset import Dataset
from lazynwb_dask.hdf5.json_values import JSONValue
from lazynwb_dask.hdf5.links import attribute, stored_path, text, texts, unfollowed, walk_groups
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.elements import element_type
from lazynwb_dask.model.index import ArrayIndex, TableIndex
from lazynwb_dask.nwb.columns import ColumnIndexer
from lazynwb_dask.nwb.series import SERIES, index_series, is_series
from lazynwb_dask.nwb.tables import is_table
from lazynwb_dask.nwb.version import check_nwb

TABLE, TIMESERIES, OTHER = "table", "time series", "other"
LINK = "link"  # one that isn't followed


@dataclass(frozen=True)
class ListObjects:
    """The job of `list_objects`: every table, TimeSeries and other typed object, and links that aren't
    followed, sorted by path."""

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> JSONValue:
        try:
            check_nwb(file.id, name)
        except Exception:
            if not sparse.missing:
                raise
        indexer = ColumnIndexer(file.id, sparse, name, details=True)
        found: list[dict[str, Any]] = []
        for path, group in walk_groups(file.id, sparse):
            try:
                if path != "/":
                    found += _typed(indexer, group, path)
                if path == "/" or not (is_table(group) or is_series(file.id, group, path)):
                    links = unfollowed(file.id, group, path)
                    found += [_object(where, LINK, "", problem=why) for where, why in links]
            except Exception as exc:
                if not sparse.missing:
                    found.append(_object(path, OTHER, "", problem=str(exc).split("\n")[0]))
        if sparse.missing:
            raise Miss("/")
        return JSONValue(sorted(found, key=lambda facts: str(facts["path"]).split("/")))


def _typed(indexer: ColumnIndexer, group: h5g.GroupID, path: str) -> Iterator[dict[str, Any]]:
    """A group, if it is an object of its own, and the typed datasets in it."""
    kind = text(attribute(group, "neurodata_type"))
    if is_table(group):
        yield _table(indexer, group, path, kind)
        return
    if is_series(indexer.root, group, path):
        yield _series(index_series(indexer, group, path))
        return
    if kind:
        yield _object(path, OTHER, kind, **indexer.attributes(group, ["description"]))
    for name, dataset in indexer.members(group, path).datasets.items():
        if dataset.path != f"{path}/{name}" or not dataset.in_file or dataset.problem:
            continue  # the target of a link is listed where it is
        kind = text(attribute(dataset.id, "neurodata_type"))
        if kind:
            yield _object(dataset.path, OTHER, kind, **_facts(indexer, [dataset], dataset))


def _table(indexer: ColumnIndexer, group: h5g.GroupID, path: str, kind: str) -> dict[str, Any]:
    members = indexer.members(group, path)
    datasets = members.datasets
    own = [d for name, d in datasets.items() if d.path == f"{path}/{name}"]
    rows = datasets["id"].length if "id" in datasets else 0
    columns = [
        name for name in texts(attribute(group, "colnames")) if group.links.exists(stored_path(group, name))
    ]
    about = indexer.attributes(group, ["description"])
    facts = _facts(indexer, own)
    facts["problem"] = "; ".join(f"{name}: {why}" for name, why in members.problems.items())
    return _object(path, TABLE, kind, rows=rows, shape=[rows, len(columns)], columns=columns, **facts, **about)


def _series(table: TableIndex) -> dict[str, Any]:
    known = table.attributes
    arrays = [column.arrays[0] for column in table.columns.values() if column.arrays]
    stored = [_stored(array) for array in arrays]
    data = table.columns.get("data")
    shape, dtype = [table.rows], ""
    if data is not None and data.arrays:
        layout = data.arrays[0].layout
        shape, dtype = [data.arrays[0].rows, *layout.item], _dtype(data.arrays[0])
    rate = known.get("rate")
    return _object(
        table.path,
        TIMESERIES,
        known[SERIES],
        rows=table.rows,
        shape=shape,
        dtype=dtype,
        columns=list(table.columns),
        stored_bytes=None if None in stored else sum(filter(None, stored)),
        decoded_bytes=sum(0 if a.layout.computed else a.nbytes for a in arrays),
        rate=None if rate is None else float(rate),
        timestamps=known.get("timestamps"),
        unit=known.get("unit"),
        description=known.get("description"),
        problem="; ".join(f"{c.name}: {c.problem}" for c in table.columns.values() if c.problem),
    )


def _facts(indexer: ColumnIndexer, datasets: list[Dataset], one: Dataset | None = None) -> dict[str, Any]:
    """The stored and decoded bytes of some datasets; of `one` also its shape, dtype and unit."""
    stored: int | None = 0
    decoded = 0
    found: dict[str, Any] = {}
    for dataset in datasets:
        try:
            array = indexer.array(dataset)
        except Exception:
            if indexer.sparse.missing:
                continue
            stored = None
            continue
        size = _stored(array)
        stored = None if stored is None or size is None else stored + size
        decoded += array.nbytes
        if one is not None:
            assert one.id is not None
            shape = [array.rows, *array.layout.item]
            found = {"rows": array.rows, "shape": shape, "dtype": _dtype(array)}
            found |= indexer.attributes(one.id, ["description", "unit"])
    return found | {"stored_bytes": stored, "decoded_bytes": decoded}


def _stored(array: ArrayIndex) -> int | None:
    """Bytes in the file; None if the chunks are filtered and were not listed."""
    layout, extents = array.layout, array.extents
    if layout.chunk is not None and not extents.offsets.size and layout.chunks(array.rows):
        if layout.filters:
            return None
        return layout.chunks(array.rows) * math.prod(layout.chunk) * layout.element_bytes
    return int(array.stored_bytes)


def _dtype(array: ArrayIndex) -> str:
    element = array.layout.element
    if element[0] == "number":
        return np.dtype(element[1]).newbyteorder("=").name
    return str(element_type(element))


def _object(path: str, kind: str, neurodata_type: str, **facts: Any) -> dict[str, Any]:
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    return {"path": path, "kind": kind, "neurodata_type": neurodata_type, **known}
