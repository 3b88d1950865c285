"""The datasets of a group as columns. No data are read, except the labels of enumerations.

Columns are indexed independently of each other: one that can't be understood gets a `problem`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace

import h5py
import numpy as np
from h5py import h5d, h5g, h5i, h5l, h5r, h5t

from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.hdf5.dataset import Dataset, external_data, known_info
from lazynwb_dask.hdf5.dataset_header import DatasetHeader, parse_header
from lazynwb_dask.hdf5.external import REFUSED, external_array
from lazynwb_dask.hdf5.links import (
    Refused,
    attribute,
    children,
    find,
    open_member,
    shown_name,
    small,
    stored_path,
    text,
)
from lazynwb_dask.hdf5.locate import Locator
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, ColumnIndex, TableIndex, flat_length
from lazynwb_dask.model.limits import check_missing
from lazynwb_dask.model.source import Source

MAX_LABELS = 1 << 16  # of an enumeration
MAX_COLUMNS = 20_000  # objects in a table's group
_MAX_INDEXES = 4  # VectorIndex datasets, each of the one before

_NO_DAMAGE = (UnsupportedColumnError, TypeError, NotImplementedError)
"""Raised for data of a form that can't be shown, or isn't known; the last two by h5py."""


@dataclass
class Members:
    """The datasets of a group."""

    datasets: dict[str, Dataset] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)  # why others can't be opened
    others: set[str] = field(default_factory=set)  # groups and datatypes
    indexes: dict[str, str] = field(default_factory=dict)  # VectorIndex by its dataset

    def index_names(self) -> set[str]:
        """The VectorIndex datasets of columns. Those that are each other's belong to none."""
        below = (self.datasets.keys() | self.problems.keys()) - set(self.indexes.values())
        found: set[str] = set()
        while below:
            below = {self.indexes[name] for name in below if name in self.indexes} - found
            found |= below
        addresses = {self.datasets[name].address for name in found} - {UNDEFINED}
        return found | {name for name, dataset in self.datasets.items() if dataset.address in addresses}


class ColumnIndexer:
    """Indexes columns in one pass over a file. `name` is the file, for messages.

    `details` also reads descriptions, units and the targets of regions. `allow_external_links` lets libhdf5
    open other files that this one names. `list_all` lists all chunks, however many.
    """

    def __init__(
        self,
        root: h5g.GroupID,
        sparse: SparseFile,
        name: str,
        details: bool = False,
        allow_external_links: bool = False,
        list_all: bool = False,
    ) -> None:
        self.root, self.sparse, self.name, self.details = root, sparse, name, details
        self.allow_external_links = allow_external_links
        self._damage: dict[str, str] = {}  # by column
        plist = h5i.get_file_id(root).get_create_plist()
        standard_sizes = tuple(plist.get_sizes()) == (8, 8)
        self.locator = Locator(sparse, int(plist.get_userblock()), standard_sizes, list_all)

    def members(self, group: h5g.GroupID, path: str, prefix: str = "") -> Members:
        """The datasets of a group, and what is wrong with members that can't be opened.

        `path` is the group's. `prefix` begins the names of columns, for `damage`.
        """
        found = Members()
        links = children(group)
        if len(links) > MAX_COLUMNS:
            raise NWBReadError(f"{self.name}: {path}: {len(links)} objects; the limit is {MAX_COLUMNS}")
        for name, kind, address in links:
            where = f"{path}/{name}"
            try:
                dataset = self._member(group, name, where, address if kind == h5l.TYPE_HARD else None)
                if dataset is not None:
                    found.datasets[name] = dataset
                else:
                    found.others.add(name)
            except Refused as exc:
                if not (exc.external and self.allow_external_links):
                    found.problems[name] = str(exc)
                    continue
                try:
                    array = external_array(Source(self.name), where)
                    found.datasets[name] = Dataset(name, where, array.shape, array=array)
                except UnsupportedColumnError as unsupported:
                    found.problems[name] = str(unsupported)
            except Exception as exc:
                if not isinstance(exc, Miss):
                    found.problems[name] = self.reason(prefix + name, exc)
        return found

    def _member(self, group: h5g.GroupID, name: str, where: str, address: int | None) -> Dataset | None:
        """A dataset of a group; None if it is another object. `address` is that of a hard link's object."""
        if address is not None:
            known = self._unopened(group, name, where, address)
            if known is not None:
                return known
            obj = open_member(group, name, address)
        else:
            target = find(self.root, where)
            if target is None:
                raise UnsupportedColumnError("a link that leads nowhere")
            obj, where = target
        return self.dataset(name, obj, where, address) if isinstance(obj, h5d.DatasetID) else None

    def _unopened(self, group: h5g.GroupID, name: str, where: str, address: int) -> Dataset | None:
        """A dataset with a header of which it is known what h5py says; None for others."""
        if not self.locator.standard_sizes or self.sparse.metadata_only:
            return None
        header = self._header(address)
        info = None if header is None else known_info(header)
        if info is None:
            return None
        return Dataset(name, where, info.shape, lambda: open_member(group, name, address), address, header)

    def _header(self, address: int) -> DatasetHeader | None:
        known: dict[int, DatasetHeader | None] = self.sparse.parsed.setdefault("headers", {})
        if address not in known:
            base = self.locator.base
            known[address] = parse_header(self.sparse, address + base, base)
        return known[address]

    def dataset(self, name: str, opened: h5d.DatasetID, where: str, address: int | None = None) -> Dataset:
        """A dataset in this file; `where` is its path with links resolved, `address` its object header's.

        If its data are in other files, not even its shape may be read: libhdf5 would open them.
        """
        if address is None:
            address = int(self.root.links.get_info(stored_path(self.root, where)).u)  # a hard link: see `find`
        array = self.sparse.array(where)
        if array is None:
            reason = external_data(opened)
            if not reason:
                header = self._header(address) if self.locator.standard_sizes else None
                return Dataset(name, where, opened.shape or (), lambda: opened, address, header)
            if not self.allow_external_links:
                problem = f"{reason}: its data are in other files; {REFUSED}"
                return Dataset(name, where, (-1,), lambda: opened, address, problem=problem)
            array = external_array(Source(self.name), where)
        return Dataset(name, where, array.shape, lambda: opened, address, array=array)

    def array(self, dataset: Dataset) -> ArrayIndex:
        """The index of one dataset. See `Locator.array`."""
        return self.locator.array(dataset)

    def attributes(self, obj: h5g.GroupID | h5d.DatasetID, names: list[str]) -> dict[str, str]:
        """Those of some attributes that there are, as text; references as the paths of their targets."""
        found = {}
        for name in names:
            try:
                value = attribute(obj, name)
                if isinstance(value, h5py.Reference):
                    target = h5r.dereference(value, self.root) if value else None
                    value = shown_name(h5i.get_name(target) or b"") if target is not None else None
            except Exception:
                continue  # missing blocks are fetched; a damaged description is left out
            if value is not None and text(value):
                found[name] = text(value)
        return found

    def column(
        self, shown_name: str, name: str, members: Members, rows: int, single: bool = False
    ) -> ColumnIndex:
        """One column of a table with `rows` rows. What is wrong with it becomes its `problem`.

        `shown_name` is the column's name, `name` that of the dataset with its values. `single`: each row has
        one value.
        """
        if name in members.problems:
            return ColumnIndex(shown_name, rows=rows, problem=members.problems[name])
        try:
            chain = self._chain(shown_name, name, members)
            # that of a pass before, if nothing but the bytes of headers and B-trees told it
            key = shown_name, rows, single, *[dataset.address for dataset in chain]
            known: ColumnIndex | None = self.sparse.parsed.get(key)
            if known is not None and not self.details:
                return known
            arrays = tuple(self._arrays(chain, rows, single))
            check_missing(ColumnIndex(shown_name, arrays, rows))
            notes = _length_notes(arrays[-1].rows, rows)
            values = chain[0]
            if not values.in_file:
                return ColumnIndex(shown_name, arrays, rows, notes=notes)
            labels = self._labels(values)
            attributes = {}
            if self.details:
                attributes = self.attributes(values.id, ["description", "unit", "table"])
            region = values.has("table")
            found = ColumnIndex(shown_name, arrays, rows, labels, region, "", notes, attributes)
            if all(dataset.unopened for dataset in chain):
                self.sparse.parsed[key] = found
            return found
        except Exception as exc:
            return ColumnIndex(shown_name, rows=rows, problem=self.reason(shown_name, exc))

    def _chain(self, shown_name: str, name: str, members: Members) -> list[Dataset]:
        """The values of a column, then its VectorIndex datasets from the innermost outward."""
        chain = [members.datasets[name]]
        while chain[-1].name in members.indexes:
            index = members.datasets[members.indexes[chain[-1].name]]
            if index in chain or len(chain) > _MAX_INDEXES:
                raise UnsupportedColumnError("its indexes go round in a circle")
            chain.append(index)
        lost = f"{chain[-1].name}_index"
        if lost in members.problems:  # without it, the values would be taken for rows
            damaged = f"{shown_name.removesuffix(name)}{lost}" in self._damage
            error = NWBReadError if damaged else UnsupportedColumnError
            raise error(f"its index {lost!r} can't be read: {members.problems[lost]}")
        return chain

    def _arrays(self, chain: list[Dataset], rows: int, single: bool) -> list[ArrayIndex]:
        """The indexes of a column's datasets, row and column vectors as one dimension where they are meant so.

        Raises UnsupportedColumnError if rows are not the first dimension.
        """
        values, *indexes = chain
        shape, length = values.shape, flat_length(values.shape)
        if indexes:
            flat = len(shape) == 2 and shape[0] == 1 and self._ends_within(indexes[0], shape[1])
        else:
            flat = single or (0 < rows != values.rows and rows in shape[1:])
        if flat and (length is None or not (indexes or single or length == rows)):
            raise UnsupportedColumnError(f"its shape {shape}: the first dimension is not that of the rows")
        return [self._flat(d) if flat or d is not values else self.array(d) for d in chain]

    def _flat(self, dataset: Dataset) -> ArrayIndex:
        """The index of a dataset that has one value for each row."""
        found = self.array(dataset).flattened()
        if found is None:  # perhaps only since its chunks are not listed
            found = replace(self.locator, list_all=True).array(dataset).flattened()
        if found is None:
            raise UnsupportedColumnError(
                f"the shape {dataset.shape} of {dataset.name!r} is not one value a row"
            )
        return found

    def _ends_within(self, index: Dataset, count: int) -> bool:
        """Whether a VectorIndex points to more than one row, and to no more than so many."""
        if not index.in_file or self.sparse.metadata_only:
            return False
        ends = small(index.id)
        return bool(ends.size and 1 < ends.max() <= count)

    def _labels(self, dataset: Dataset) -> tuple[str, ...] | None:
        """The labels of EnumData: the strings that its `elements` refer to."""
        if dataset.type_class != h5t.INTEGER or not dataset.has("elements"):
            return None
        reference = attribute(dataset.id, "elements")
        if isinstance(reference, np.ndarray) and reference.size == 1:
            reference = reference.reshape(-1)[0]
        if not isinstance(reference, h5r.Reference):
            return None
        target = None
        with suppress(Exception):  # missing blocks are fetched; a dangling one is no damage of the values
            target = h5r.dereference(reference, self.root) if reference else None
        if not isinstance(target, h5d.DatasetID):
            raise UnsupportedColumnError("the elements of its enumeration can't be found")
        values = small(target)
        if len(values) > MAX_LABELS:
            raise UnsupportedColumnError(f"an enumeration of {len(values)} labels")
        return tuple(text(v) for v in values)

    def reason(self, name: str, exc: Exception) -> str:
        """The `problem` of a column that can't be read. Whether the file is damaged is noted."""
        first = (str(exc).splitlines() or [""])[0] or type(exc).__name__
        if not isinstance(exc, _NO_DAMAGE):
            self._damage[name] = first
        return first

    def damage(self, table: TableIndex) -> str:
        """The first damaged column, and how it is damaged. See `TableIndex`."""
        for name, reason in self._damage.items():
            if name in table.columns and table.columns[name].problem:
                return f"column {name!r}: {reason}"
        return ""


def _length_notes(have: int, rows: int) -> tuple[str, ...]:
    if have < rows:
        return (f"{have} of the table's {rows} rows; the rest is null",)
    if have > rows:
        return (f"{have} rows, the table has {rows}; cut",)
    return ()
