"""DynamicTables: which groups are tables, and the columns of a table."""

from __future__ import annotations

from h5py import h5g

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5.links import Refused, attribute, find, has_attribute, texts
from lazynwb_dask.hdf5.sparse_file import Miss
from lazynwb_dask.model.index import ColumnIndex, TableIndex, flat_length
from lazynwb_dask.nwb.columns import ColumnIndexer, Members
from lazynwb_dask.nwb.vector_index import enum_elements, vector_indexes

MAX_UNSEEN = 1 << 24  # rows of a table whose id can't be read
MAX_CATEGORIES = 256  # of a table, those of its categories counted
MAX_NESTED = 4  # categories within categories


def is_table(group: h5g.GroupID) -> bool:
    """Whether a group is a DynamicTable: it has `colnames` and `id`."""
    return has_attribute(group, "colnames") and group.links.exists(b"id")


class TableIndexer(ColumnIndexer):
    """Indexes one table. See `ColumnIndexer`."""

    _categories_seen = 0

    def table(self, group: h5g.GroupID, path: str, prefix: str = "", aligned: int | None = None) -> TableIndex:
        """The index of a table.

        For a category, `prefix` begins the names of its columns; `aligned` is the whole table's row count.
        Raises NWBReadError if a table that is no category has no usable `id`.
        """
        notes: list[str] = []
        names: list[str] = []
        try:
            names = texts(attribute(group, "colnames"))
        except Exception as exc:
            if not self.sparse.missing:
                notes.append(f"colnames can't be read: {exc}")
        members = self.members(group, path, prefix)
        found = members.datasets.get("id")
        if found is None or found.problem:
            if self.sparse.missing:
                raise Miss(path)
            reason = found.problem if found else members.problems.get("id", "it is not a dataset")
            if aligned is None:
                raise NWBReadError(f"{self.name}: {path}: no usable id column: {reason}")
            members.problems["id"], own = reason, aligned
        else:
            own = found.length
        rows = own if aligned is None else aligned
        for name in members.others.intersection(names).difference(self._categories(group)):
            members.problems[name] = "it is not a dataset"
        members.indexes = vector_indexes(members.datasets, self.sparse, members.problems)
        columns = {
            prefix + name: self.column(prefix + name, name, members, rows, single=name == "id")
            for name in self._order(names, members, own)
        }
        unread = columns[f"{prefix}id"].problem
        if unread and rows > MAX_UNSEEN and not self.sparse.missing:
            raise NWBReadError(f"{self.name}: {path}: an id column of {rows} rows: {unread}")
        for category in dict.fromkeys(self._categories(group)):
            for name, column in self._category(category, path, prefix, rows, notes).items():
                columns.setdefault(name, column)
        attributes = self.attributes(group, ["description"]) if self.details else {}
        if self.sparse.missing:
            raise Miss(path)
        return TableIndex(path, rows, columns, tuple(notes), attributes)

    def _order(self, names: list[str], members: Members, rows: int) -> list[str]:
        """The names of the columns: `id`, the `colnames`, then other datasets that are columns."""
        index_names = members.index_names()
        elements: set[str] | None = None
        order = dict.fromkeys(["id"])
        for name in names:
            if name in index_names:
                continue
            if name in members.datasets or name in members.problems:
                order.setdefault(name)
        for name, dataset in members.datasets.items():
            if name in order or name in index_names:
                continue
            try:
                if (
                    name in members.indexes
                    or rows in (dataset.rows, flat_length(dataset.shape))
                    or not dataset.in_file
                    or dataset.has("neurodata_type")
                ):
                    if elements is None:
                        elements = enum_elements(members.datasets, self.sparse)
                    if name not in elements:
                        order.setdefault(name)
            except Exception:
                if not self.sparse.missing:
                    order.setdefault(name)
        return list(order)

    def _categories(self, group: h5g.GroupID) -> list[str]:
        try:
            return texts(attribute(group, "categories"))
        except Exception:
            if not self.sparse.missing:
                raise
            return []

    def _category(
        self, category: str, path: str, prefix: str, rows: int, notes: list[str]
    ) -> dict[str, ColumnIndex]:
        """The columns of a category. One that can't be read is a column with a `problem`."""
        where, name = f"{path}/{category}", prefix + category
        self._categories_seen += 1
        if self._categories_seen > MAX_CATEGORIES or name.count("/") > MAX_NESTED:
            problem = "a category of too many, or too deep within others"
            return {name: ColumnIndex(name, rows=rows, problem=problem)}
        reason = "it is not a table"
        try:
            target = find(self.root, where)
            if target is None:
                reason = "it isn't there"
            elif isinstance(target[0], h5g.GroupID) and is_table(target[0]):
                table = self.table(target[0], where, f"{name}/", rows)
                notes += [f"{name}: {note}" for note in table.notes]
                return table.columns
        except Refused as exc:
            reason = exc.of_group
        except Exception as exc:  # also for missing blocks: then there is another pass
            reason = self.reason(name, exc)
        problem = f"a category that can't be read: {reason}"
        return {name: ColumnIndex(name, rows=rows, problem=problem)}
