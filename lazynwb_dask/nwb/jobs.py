"""Jobs on the tables and TimeSeries of an NWB file in HDF5. See `Job`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import h5py
from h5py import h5d, h5g

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5.json_values import JSONValue
from lazynwb_dask.hdf5.links import Refused, find, unfollowed, walk_groups
from lazynwb_dask.hdf5.sparse_file import SparseFile
from lazynwb_dask.model.index import ColumnIndex, TableIndex
from lazynwb_dask.nwb.columns import ColumnIndexer
from lazynwb_dask.nwb.series import index_series, is_series
from lazynwb_dask.nwb.tables import TableIndexer, is_table
from lazynwb_dask.nwb.version import check_nwb


@dataclass(frozen=True)
class IndexTable:
    """The index of the first table or TimeSeries that exists at one of the paths. See `ColumnIndexer`."""

    paths: tuple[str, ...]
    details: bool = False
    allow_external_links: bool = False

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> TableIndex | None:
        found = choose(file.id, self.paths, name)
        if found is None:
            check_nwb(file.id, name)
            return None
        group, path = found
        indexer = TableIndexer(file.id, sparse, name, self.details, self.allow_external_links)
        if is_table(group):
            table = indexer.table(group, path)
        else:
            table = index_series(indexer, group, path)
        return replace(table, damage=indexer.damage(table))


@dataclass(frozen=True)
class ListChunks:
    """The index of one dataset, with all its chunks: a table of one column, named by the path."""

    path: str

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> TableIndex:
        indexer = ColumnIndexer(file.id, sparse, name, list_all=True)
        found = find(file.id, self.path)
        if found is None or not isinstance(found[0], h5d.DatasetID):
            raise NWBReadError(f"{name}: {self.path}: no such dataset any more")
        dataset = indexer.dataset(self.path, *found)
        column = ColumnIndex(self.path, (indexer.array(dataset),), dataset.rows)
        return TableIndex(self.path, dataset.rows, {self.path: column})


@dataclass(frozen=True)
class ListTables:
    """The paths of all tables."""

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> list[str]:
        return _paths(file.id, sparse, lambda path, group: is_table(group))


@dataclass(frozen=True)
class ListLinks:
    """The links that aren't followed, behind which there may be tables and TimeSeries: path and reason."""

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> JSONValue:
        found: list[tuple[str, str]] = []
        for path, group in walk_groups(file.id, sparse):
            try:
                if path == "/" or not (is_table(group) or is_series(file.id, group, path)):
                    found += unfollowed(file.id, group, path)
            except Exception:
                if not sparse.missing:
                    raise
        return JSONValue(found)


@dataclass(frozen=True)
class ListSeries:
    """The paths of all TimeSeries, sorted by their components; or of those with more than so many stored
    timestamps."""

    more_than: int | None = None

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> list[str]:
        def accepts(path: str, group: h5g.GroupID) -> bool:
            if path == "/" or not is_series(file.id, group, path):
                return False
            return self.more_than is None or _stored_times(file.id, path) > self.more_than

        found = _paths(file.id, sparse, accepts)
        if not found and not sparse.missing:
            check_nwb(file.id, name)
        return sorted(found, key=lambda path: path.split("/"))


def _stored_times(root: h5g.GroupID, path: str) -> int:
    found = find(root, f"{path}/timestamps")
    return found[0].shape[0] if found and isinstance(found[0], h5d.DatasetID) and found[0].shape else 0


def _paths(root: h5g.GroupID, sparse: SparseFile, accepts: Callable[[str, h5g.GroupID], bool]) -> list[str]:
    """The paths of the groups that are accepted."""
    found = []
    for path, group in walk_groups(root, sparse):
        try:
            if accepts(path, group):
                found.append(path)
        except Exception:
            if not sparse.missing:
                raise
    return found


def choose(root: h5g.GroupID, paths: Sequence[str], name: str) -> tuple[h5g.GroupID, str] | None:
    """The first table or TimeSeries that exists at one of the paths, and its path."""
    for path in paths:
        try:
            found = find(root, path)
        except Refused as exc:
            raise NWBReadError(f"{name}: {path}: {exc.of_group}") from None
        if found is None or not isinstance(found[0], h5g.GroupID):
            continue
        if is_table(found[0]) or is_series(root, *found):
            return found[0], path
    return None
