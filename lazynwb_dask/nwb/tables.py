"""The metadata of NWB files in HDF5: tables, columns, and where their chunks lie.

No data are read here, but for `colnames`, the labels of enumerations, and references (see `names_of`).
h5py runs over a `SparseFile`. Links are resolved by us, one component at a time, so that libhdf5 never
opens a second file. Each column is tried by itself: a column that can't be understood gets a `problem`
and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import h5py
from h5py import h5d, h5g, h5i, h5l, h5o, h5r, h5t

from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.hdf5 import external as foreign
from lazynwb_dask.hdf5.dataset import Dataset, Locator, elsewhere, known_form
from lazynwb_dask.hdf5.dataset_header import Header, plain_header
from lazynwb_dask.hdf5.links import (
    Refused,
    attribute,
    children,
    find,
    is_table,
    small,
    text,
    texts,
)
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.index import ArrayIndex, ColumnIndex, TableIndex
from lazynwb_dask.model.limits import check_missing
from lazynwb_dask.model.source import Source
from lazynwb_dask.nwb.series import index_series, is_series
from lazynwb_dask.nwb.vector_index import indexes_of

MAX_LABELS = 1 << 16  # of an enumeration
MAX_COLUMNS = 20_000  # objects in a table's group
MAX_UNSEEN = 1 << 24  # rows of a table whose id can't be read
MAX_CATEGORIES = 256  # of a table, those of its categories counted
MAX_NESTED = 4  # categories within categories

_NO_DAMAGE = (UnsupportedColumnError, TypeError, NotImplementedError)
"""What is raised of a form that can't be shown, or isn't known; the last two by h5py."""

Table = str | Sequence[str] | Callable[[list[str]], str | None]

ALIASES = {
    "trials": "/intervals/trials",
    "epochs": "/intervals/epochs",
    "invalid_times": "/intervals/invalid_times",
    "electrodes": "/general/extracellular_ephys/electrodes",
}


def table_path(name: str) -> str:
    """The path of a table that was named by path or alias.

    >>> table_path("trials"), table_path("/trials"), table_path("units")
    ('/intervals/trials', '/trials', '/units')
    """
    return ALIASES.get(name, "/" + name.strip("/"))


# --------------------------------------------------------------------------------------------- tables
@dataclass(frozen=True)
class IndexTable:
    """The job of `index_file`: the first table or TimeSeries that exists of those at some paths."""

    paths: tuple[str, ...]
    details: bool = False
    allow_external_links: bool = False

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> TableIndex | None:
        found = choose(file.id, self.paths, name)
        if found is None:
            check_nwb(file.id, name)
            return None
        group, path = found
        indexer = Indexer(file.id, sparse, name, self.details, self.allow_external_links)
        kind = indexer.table if is_table(group) else partial(index_series, indexer)
        table = kind(group, path)
        return replace(table, damage=indexer.damage(table))


@dataclass(frozen=True)
class ListChunks:
    """The job of `list_chunks`."""

    path: str

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> TableIndex:
        indexer = Indexer(file.id, sparse, name, False, False, listing=True)
        found = find(file.id, self.path)
        if found is None or not isinstance(found[0], h5d.DatasetID):
            raise NWBReadError(f"{name}: {self.path}: no such dataset any more")
        dataset = indexer.opened(self.path, *found)
        column = ColumnIndex(self.path, (indexer.array(dataset),), dataset.rows)
        return TableIndex(self.path, dataset.rows, {self.path: column})


def choose(root: h5g.GroupID, paths: Sequence[str], name: str) -> tuple[h5g.GroupID, str] | None:
    """The group of the first table that exists of those asked for, and its path as named."""
    for path in paths:
        try:
            found = find(root, path)
        except Refused as exc:
            reason = foreign.GROUP if exc.foreign else exc
            raise NWBReadError(f"{name}: {path}: {reason}") from None
        if found is None or not isinstance(found[0], h5g.GroupID):
            continue
        if is_table(found[0]) or is_series(root, *found):
            return found[0], path
    return None


def check_nwb(root: h5g.GroupID, name: str) -> None:
    """Raise if the file isn't NWB 2: for files that lack a table."""
    version = root_version(root)
    if version is None:
        raise NWBReadError(f"{name}: an HDF5 file, but not NWB: it has no nwb_version")
    if version.startswith(("1.", "NWB-1.", "0.")):
        raise NWBReadError(
            f"{name}: NWB {version.removeprefix('NWB-')}; only NWB 2 has tables. "
            "Convert the file, or read it with h5py (lazynwb_dask.open_hdf5)"
        )


def root_version(root: h5g.GroupID) -> str | None:
    """The NWB version that a file says it has; None if it doesn't say."""
    value = attribute(root, "nwb_version")
    if value is not None:
        return text(value)
    if not root.links.exists(b"nwb_version"):
        return None
    found = find(root, "nwb_version")
    if found is None or not isinstance(found[0], h5d.DatasetID):
        return None
    return text(small(found[0]))


# -------------------------------------------------------------------------------------------- columns
class Indexer:
    """One pass over one table."""

    def __init__(
        self,
        root: h5g.GroupID,
        sparse: SparseFile,
        name: str,
        details: bool,
        foreign: bool,
        listing: bool = False,
    ) -> None:
        self.root, self.sparse, self.name, self.details = root, sparse, name, details
        self.foreign = foreign
        self._blamed: dict[str, str] = {}  # by column: what the file is to blame for
        self._categories_seen = 0
        plist = h5i.get_file_id(root).get_create_plist()
        standard = tuple(plist.get_sizes()) == (8, 8)
        self.locator = Locator(sparse, int(plist.get_userblock()), standard, listing)

    def table(
        self, group: h5g.GroupID, path: str, prefix: str = "", aligned: int | None = None
    ) -> TableIndex:
        """The index of a table; of a category with a prefix, and aligned to the rows of the whole."""
        notes: list[str] = []
        names: list[str] = []
        try:
            names = texts(attribute(group, "colnames"))
        except Exception as exc:
            if not self.sparse.missing:
                notes.append(f"colnames can't be read: {exc}")
        datasets, problems = self.datasets(group, path, prefix)
        found = datasets.get("id")
        if found is None or found.problem:
            if self.sparse.missing:
                raise Miss(path)
            reason = found.problem if found else problems.get("id", "it is not a dataset")
            if aligned is None:
                raise NWBReadError(f"{self.name}: {path}: no usable id column: {reason}")
            problems["id"], own = reason, aligned
        else:
            own = found.rows
        rows = own if aligned is None else aligned
        indexes = indexes_of(datasets, self.sparse)
        columns: dict[str, ColumnIndex] = {}
        for name in self._order(names, datasets, problems, indexes, own):
            shown_name = prefix + name
            if name in problems:
                columns[shown_name] = ColumnIndex(shown_name, rows=rows, problem=problems[name])
            else:
                columns[shown_name] = self.column(
                    shown_name, name, datasets, indexes, rows, problems
                )
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

    def datasets(
        self, group: h5g.GroupID, path: str, prefix: str = ""
    ) -> tuple[dict[str, Dataset], dict[str, str]]:
        """The datasets of a table's group, and what is wrong with those that can't be opened."""
        found: dict[str, Dataset] = {}
        problems: dict[str, str] = {}
        links = list(children(group))
        if len(links) > MAX_COLUMNS:
            raise NWBReadError(
                f"{self.name}: {path}: {len(links)} objects; the limit is {MAX_COLUMNS}"
            )
        for name, info in links:
            try:
                where = f"{path}/{name}"
                if info.type == h5l.TYPE_HARD:
                    plain = self._plain(group, name, where, int(info.u))
                    if plain is not None:
                        found[name] = plain
                        continue
                    obj = h5o.open(group, name.encode())
                else:
                    hit = find(self.root, where)
                    if hit is None:
                        problems[name] = "a link that leads nowhere"
                        continue
                    obj, where = hit
                if isinstance(obj, h5d.DatasetID):
                    hard = info.type == h5l.TYPE_HARD
                    found[name] = self.opened(name, obj, where, info.u if hard else None)
            except Refused as exc:
                if not (exc.foreign and self.foreign):
                    problems[name] = str(exc)
                    continue
                try:
                    array = foreign.array_of(Source(self.name), where)
                    found[name] = Dataset(name, where, array.rows, elsewhere=array)
                except UnsupportedColumnError as unsupported:
                    problems[name] = str(unsupported)
            except Exception as exc:
                if not isinstance(exc, Miss):
                    problems[name] = self._reason(prefix + name, exc)
        return found, problems

    def _plain(self, group: h5g.GroupID, name: str, where: str, address: int) -> Dataset | None:
        """A dataset of which is known already what h5py would say, and which is not opened therefore."""
        if not self.locator.standard or self.sparse.is_skeleton:
            return None
        header = self._header(address)
        form = None if header is None else known_form(header)
        if form is None:
            return None

        def opener() -> h5d.DatasetID:
            return h5o.open(group, name.encode())

        return Dataset(name, where, (form.shape or (1,))[0], opener, address, header)

    def _header(self, address: int) -> Header | None:
        """The header at an address, if it is a plain one."""
        known: dict[int, Header | None] = self.sparse.known.setdefault("headers", {})
        if address not in known:
            base = self.locator.base
            known[address] = plain_header(self.sparse, address + base, base)
        return known[address]

    def opened(
        self, name: str, dataset: h5d.DatasetID, where: str, address: int | None = None
    ) -> Dataset:
        """A dataset that is here. Of one whose data are elsewhere not even the shape may be asked for:
        libhdf5 would open the other files to find out."""
        if address is None:
            address = int(self.root.links.get_info(where.encode()).u)  # a hard link: see `find`

        def opener() -> h5d.DatasetID:
            return dataset

        known = self.sparse.array(where)
        if known is not None:
            return Dataset(name, where, known.rows, opener, address, elsewhere=known)
        reason = elsewhere(dataset)
        if not reason:
            header = None
            if self.locator.standard:
                header = self._header(address)
            rows = (dataset.shape or (1,))[0]
            return Dataset(name, where, rows, opener, address, header)
        if self.foreign:
            array = foreign.array_of(Source(self.name), where)
            return Dataset(name, where, array.rows, opener, address, elsewhere=array)
        problem = f"{reason}: its data are in other files; {foreign.REFUSED}"
        return Dataset(name, where, -1, opener, address, problem=problem)

    def _order(
        self,
        names: list[str],
        datasets: dict[str, Dataset],
        problems: dict[str, str],
        indexes: dict[str, str],
        rows: int,
    ) -> list[str]:
        """`id`, the `colnames`, then what else is a column."""
        index_names = set(indexes.values())
        order = dict.fromkeys(["id"])
        for name in names:
            if name in index_names:
                continue
            if name in datasets or name in problems:
                order.setdefault(name)
        for name, dataset in datasets.items():
            if name in order or name in index_names:
                continue
            try:
                if (
                    name in indexes
                    or dataset.rows == rows
                    or not dataset.here
                    or dataset.has("neurodata_type")
                ):
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
        """The columns of one category of an AlignedDynamicTable; itself as one, if it can't be read."""
        where, name = f"{path}/{category}", prefix + category
        self._categories_seen += 1
        if self._categories_seen > MAX_CATEGORIES or name.count("/") > MAX_NESTED:
            problem = "a category of too many, or too deep within others"
            return {name: ColumnIndex(name, rows=rows, problem=problem)}
        reason = "it is not a table"
        try:
            hit = find(self.root, where)
            if hit is None:
                reason = "it isn't there"
            elif isinstance(hit[0], h5g.GroupID) and is_table(hit[0]):
                table = self.table(hit[0], where, f"{name}/", rows)
                notes += [f"{name}: {note}" for note in table.notes]
                return table.columns
        except Refused as exc:
            reason = foreign.GROUP if exc.foreign else str(exc)
        except Exception as exc:  # also for want of blocks: then there is another pass
            reason = self._reason(name, exc)
        problem = f"a category that can't be read: {reason}"
        return {name: ColumnIndex(name, rows=rows, problem=problem)}

    def column(
        self,
        shown_name: str,
        name: str,
        datasets: dict[str, Dataset],
        indexes: dict[str, str],
        rows: int,
        problems: Mapping[str, str] = MappingProxyType({}),
    ) -> ColumnIndex:
        """One column. Its own troubles are its own."""
        try:
            chain = [datasets[name]]
            while chain[-1].name in indexes:
                outer = datasets[indexes[chain[-1].name]]
                if outer in chain or len(chain) > 4:
                    raise UnsupportedColumnError("its indexes go round in a circle")
                chain.append(outer)
            lost = f"{chain[-1].name}_index"
            if lost in problems:  # without it, the values would be taken for rows
                blamed = f"{shown_name.removesuffix(name)}{lost}" in self._blamed
                error = NWBReadError if blamed else UnsupportedColumnError
                raise error(f"its index {lost!r} can't be read: {problems[lost]}")
            arrays = tuple([self.array(d) for d in chain])
            check_missing(ColumnIndex(shown_name, arrays, rows))
            notes = notes_of(arrays, rows)
            values = chain[0]
            if not values.here:
                return ColumnIndex(shown_name, arrays, rows, notes=notes)
            labels = self._labels(values)
            attributes = {}
            if self.details:
                attributes = self.attributes(values.id, ["description", "unit", "table"])
            region = values.has("table")
            return ColumnIndex(shown_name, arrays, rows, labels, region, "", notes, attributes)
        except Exception as exc:
            return ColumnIndex(shown_name, rows=rows, problem=self._reason(shown_name, exc))

    def _reason(self, name: str, exc: Exception) -> str:
        """What is said of a column that can't be read; that the file is to blame is noted."""
        first = (str(exc).splitlines() or [""])[0] or type(exc).__name__
        if not isinstance(exc, _NO_DAMAGE):
            self._blamed[name] = first
        return first

    def damage(self, table: TableIndex) -> str:
        """See `TableIndex`."""
        for name, reason in self._blamed.items():
            if name in table.columns and table.columns[name].problem:
                return f"column {name!r}: {reason}"
        return ""

    def array(self, dataset: Dataset) -> ArrayIndex:
        """The index of one dataset."""
        return self.locator.array(dataset)

    def _labels(self, dataset: Dataset) -> tuple[str, ...] | None:
        """The labels of EnumData: the strings that its `elements` refer to."""
        if dataset.kind != h5t.INTEGER or not dataset.has("elements"):
            return None
        reference = attribute(dataset.id, "elements")
        if not isinstance(reference, h5r.Reference):
            return None
        target = h5r.dereference(reference, self.root) if reference else None
        if not isinstance(target, h5d.DatasetID):
            raise UnsupportedColumnError("the elements of its enumeration can't be found")
        values = small(target)
        if len(values) > MAX_LABELS:
            raise UnsupportedColumnError(f"an enumeration of {len(values)} labels")
        return tuple(text(v) for v in values)

    def attributes(self, obj: h5g.GroupID | h5d.DatasetID, names: list[str]) -> dict[str, str]:
        found = {}
        for name in names:
            try:
                value = attribute(obj, name)
                if isinstance(value, h5py.Reference):
                    target = h5r.dereference(value, self.root) if value else None
                    value = h5i.get_name(target) if target is not None else None
            except Exception:
                continue  # missing blocks are fetched, a damaged description is done without
            if value is not None and text(value):
                found[name] = text(value)
        return found


def notes_of(arrays: tuple[ArrayIndex, ...], rows: int) -> tuple[str, ...]:
    have = arrays[-1].rows
    if have < rows:
        return (f"{have} of the table's {rows} rows; the rest is null",)
    if have > rows:
        return (f"{have} rows, the table has {rows}; cut",)
    return ()
