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
from lazynwb_dask.hdf5.json_values import Plain
from lazynwb_dask.hdf5.links import attribute, is_table, text, texts, walk_groups
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.elements import element_type
from lazynwb_dask.model.index import ArrayIndex, TableIndex
from lazynwb_dask.nwb.series import SERIES, index_series, is_series
from lazynwb_dask.nwb.tables import Indexer, check_nwb

TABLE, TIMESERIES, OTHER = "table", "time series", "other"


@dataclass(frozen=True)
class TakeStock:
    """The job of `take_stock`."""

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> Plain:
        try:
            check_nwb(file.id, name)
        except Exception:
            if not sparse.missing:
                raise
        indexer = Indexer(file.id, sparse, name, True, False)
        found: list[dict[str, Any]] = []
        for path, group in walk_groups(file.id, sparse):
            if path == "/":
                continue
            try:
                found += _objects(indexer, group, path)
            except Exception as exc:
                if not sparse.missing:
                    found.append(_entry(path, OTHER, "", problem=str(exc).split("\n")[0]))
        if sparse.missing:
            raise Miss("/")
        return Plain(sorted(found, key=lambda entry: str(entry["path"]).split("/")))


@dataclass(frozen=True)
class ListSeries:
    """The job of `list_series`."""

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> list[str]:
        found = []
        for path, group in walk_groups(file.id, sparse):
            try:
                if path != "/" and is_series(file.id, group, path):
                    found.append(path)
            except Exception:
                if not sparse.missing:
                    raise
        if not found and not sparse.missing:
            check_nwb(file.id, name)
        return sorted(found, key=lambda path: path.split("/"))


def _objects(indexer: Indexer, group: h5g.GroupID, path: str) -> Iterator[dict[str, Any]]:
    """A group, if it is an object of its own, and the typed datasets in it that are."""
    kind = text(attribute(group, "neurodata_type"))
    if is_table(group):
        yield _table(indexer, group, path, kind)
        return
    if is_series(indexer.root, group, path):
        yield _series(indexer, index_series(indexer, group, path))
        return
    if kind:
        yield _entry(path, OTHER, kind, **indexer.attributes(group, ["description"]))
    datasets, _ = indexer.datasets(group, path)
    for name, dataset in datasets.items():
        if dataset.path != f"{path}/{name}" or not dataset.here or dataset.problem:
            continue  # a link: what it leads to is listed where it is
        kind = text(attribute(dataset.id, "neurodata_type"))
        if kind:
            yield _entry(dataset.path, OTHER, kind, **_facts(indexer, [dataset], dataset))


def _table(indexer: Indexer, group: h5g.GroupID, path: str, kind: str) -> dict[str, Any]:
    datasets, _ = indexer.datasets(group, path)
    here = [d for name, d in datasets.items() if d.path == f"{path}/{name}"]
    rows = datasets["id"].rows if "id" in datasets else 0
    columns = [
        name for name in texts(attribute(group, "colnames")) if group.links.exists(name.encode())
    ]
    about = indexer.attributes(group, ["description"])
    facts = _facts(indexer, here)
    return _entry(
        path, TABLE, kind, rows=rows, shape=[rows, len(columns)], columns=columns, **facts, **about
    )


def _series(indexer: Indexer, table: TableIndex) -> dict[str, Any]:
    said = table.attributes
    arrays = [column.arrays[0] for column in table.columns.values() if column.arrays]
    stored = [_stored(array) for array in arrays]
    data = table.columns.get("data")
    shape, dtype = [table.rows], ""
    if data is not None and data.arrays:
        layout = data.arrays[0].layout
        shape, dtype = [data.arrays[0].rows, *layout.item], _dtype(data.arrays[0])
    rate = said.get("rate")
    return _entry(
        table.path,
        TIMESERIES,
        said[SERIES],
        rows=table.rows,
        shape=shape,
        dtype=dtype,
        columns=list(table.columns),
        stored_bytes=None if None in stored else sum(filter(None, stored)),
        decoded_bytes=sum(0 if a.layout.computed else a.nbytes for a in arrays),
        rate=None if rate is None else float(rate),
        timestamps=said.get("timestamps"),
        unit=said.get("unit"),
        description=said.get("description"),
        problem="; ".join(f"{c.name}: {c.problem}" for c in table.columns.values() if c.problem),
    )


def _facts(indexer: Indexer, datasets: list[Dataset], one: Dataset | None = None) -> dict[str, Any]:
    """Bytes of some datasets; of a single one also what it is."""
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
    """Bytes in the file; None where the chunks are many and were not looked up."""
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


def _entry(path: str, kind: str, neurodata_type: str, **facts: Any) -> dict[str, Any]:
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    return {"path": path, "kind": kind, "neurodata_type": neurodata_type, **known}
