"""The metadata of NWB files in HDF5: tables, columns, and where their chunks lie.

No data are read here, but for `colnames`, the labels of enumerations, and references (see `names_of`).
h5py runs over a `SparseFile`. Links are resolved by us, one component at a time, so that libhdf5 never
opens a second file. Each column is tried by itself: a column that can't be understood gets a `problem`
and leaves the others alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5i, h5l, h5o, h5r, h5s, h5t, h5z

from ..errors import NWBReadError, UnsupportedColumnError
from ..index import (
    UNDEFINED,
    ArrayIndex,
    ColumnIndex,
    ElementType,
    Extents,
    FileIndex,
    Filter,
    Layout,
    TableIndex,
    element_bytes,
    walk,
)
from ..options import Options
from ..sources import Source
from ..storage import Settings
from . import foreign
from .elements import element_of
from .limits import MAX_ELEMENT, check_extents, check_missing, check_shape
from .objects import ChunkTree, DataLayout, FormatError, data_layout, grid_positions
from .series import index_series, is_series
from .sparse import Miss, Passes, SparseFile
from .tree import (
    MAX_SMALL,
    ListTables,
    Refused,
    attribute,
    children,
    find,
    has_attribute,
    is_table,
    small,
    text,
    texts,
)

EAGER_CHUNKS = 16  # a column of up to so many chunks is always indexed whole
NEARBY_CHUNKS = 4096  # one of up to so many if its B-tree is here anyway
MAX_LABELS = 1 << 16  # of an enumeration
MAX_COLUMNS = 20_000  # objects in a table's group
MAX_UNSEEN = 1 << 24  # rows of a table whose id can't be read

Table = str | Sequence[str] | Callable[[list[str]], str | None]

_ADDRESSED = ("string", "sequence", "reference")

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
def index_file(
    source: Source,
    table: Table,
    options: Options,
    settings: Settings,
    *,
    details: bool = False,
    allow_external_links: bool = False,
) -> FileIndex:
    """The index of the table that a file has under a name.

    Parameters
    ----------
    source : Source
    table : str, sequence of str or callable
        As in `read_nwb`.
    details : bool
        Also descriptions, units and the targets of regions: more bytes to fetch.
    allow_external_links : bool
        Let libhdf5 open other files that this one names.

    Raises
    ------
    NWBReadError
        When the file can't be read or isn't an NWB 2 file.
    """

    passes = Passes(source, options, settings)
    if callable(table):
        picked = table(passes.run(ListTables()))
        names = [] if picked is None else [picked]
    else:
        names = [table] if isinstance(table, str) else list(table)
    paths = tuple(table_path(name) for name in names)
    return FileIndex(passes.source, passes.run(IndexTable(paths, details, allow_external_links)))


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
        return indexer.table(group, path) if is_table(group) else index_series(indexer, group, path)


def list_chunks(source: Source, path: str, options: Options, settings: Settings) -> Extents:
    """Where the chunks of a dataset lie that were left unlisted when the file was indexed."""
    found = Passes(source, options, settings).run(ListChunks(path))
    return found.columns[path].arrays[0].extents


@dataclass(frozen=True)
class ListChunks:
    """The job of `list_chunks`."""

    path: str

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> TableIndex:
        indexer = Indexer(file.id, sparse, name, False, False)
        indexer.listing = True
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
            raise NWBReadError(f"{name}: {path}: {exc}") from None
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
@dataclass
class Dataset:
    """A dataset of a table's group: open, or in another file and indexed by libhdf5."""

    name: str
    id: h5d.DatasetID | None
    rows: int
    path: str
    address: int = UNDEFINED  # of its header. (Not by h5o.get_info, which walks all chunk indexes)
    elsewhere: ArrayIndex | None = None
    problem: str = ""


class Indexer:
    """One pass over one table."""

    def __init__(
        self, root: h5g.GroupID, sparse: SparseFile, name: str, details: bool, foreign: bool
    ) -> None:
        self.root, self.sparse, self.name, self.details = root, sparse, name, details
        self.foreign = foreign
        self.listing = False  # of all chunks, however many
        plist = h5i.get_file_id(root).get_create_plist()
        self.base = int(plist.get_userblock())
        self.standard = tuple(plist.get_sizes()) == (8, 8)

    def table(self, group: h5g.GroupID, path: str, prefix: str = "") -> TableIndex:
        notes: list[str] = []
        names: list[str] = []
        try:
            names = texts(attribute(group, "colnames"))
        except Exception as exc:
            if not self.sparse.missing:
                notes.append(f"colnames can't be read: {exc}")
        datasets, problems = self.datasets(group, path)
        found = datasets.get("id")
        if found is None or found.problem:
            if self.sparse.missing:
                raise Miss(path)
            reason = found.problem if found else problems.get("id", "it is not a dataset")
            raise NWBReadError(f"{self.name}: {path}: no usable id column: {reason}")
        rows = found.rows
        indexes = self._indexes(datasets)
        columns: dict[str, ColumnIndex] = {}
        for name in self._order(names, datasets, problems, indexes, rows):
            if name in problems:
                columns[prefix + name] = ColumnIndex(
                    prefix + name, rows=rows, problem=problems[name]
                )
                continue
            columns[prefix + name] = self.column(
                prefix + name, name, datasets, indexes, rows, problems
            )
        unread = columns[f"{prefix}id"].problem
        if unread and rows > MAX_UNSEEN and not self.sparse.missing:
            raise NWBReadError(f"{self.name}: {path}: an id column of {rows} rows: {unread}")
        for category in self._categories(group):
            columns.update(self._category(group, path, category, rows, notes))
        attributes = self.attributes(group, ["description"]) if self.details else {}
        if self.sparse.missing:
            raise Miss(path)
        return TableIndex(path, rows, columns, tuple(notes), attributes)

    def datasets(self, group: h5g.GroupID, path: str) -> tuple[dict[str, Dataset], dict[str, str]]:
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
                    found[name] = Dataset(name, None, array.rows, where, elsewhere=array)
                except UnsupportedColumnError as unsupported:
                    problems[name] = str(unsupported)
            except Exception as exc:
                if not isinstance(exc, Miss):
                    problems[name] = reason_of(exc)
        return found, problems

    def opened(
        self, name: str, dataset: h5d.DatasetID, where: str, address: int | None = None
    ) -> Dataset:
        """A dataset that is here. Of one whose data are elsewhere not even the shape may be asked for:
        libhdf5 would open the other files to find out."""
        if address is None:
            address = int(self.root.links.get_info(where.encode()).u)  # a hard link: see `find`
        reason = elsewhere(dataset)
        if not reason:
            shape = dataset.shape
            return Dataset(name, dataset, shape[0] if shape else 1, where, address)
        if self.foreign:
            array = foreign.array_of(Source(self.name), where)
            return Dataset(name, dataset, array.rows, where, address, array)
        problem = f"{reason}: its data are in other files; {foreign.REFUSED}"
        return Dataset(name, dataset, -1, where, address, problem=problem)

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
                    or dataset.id is None
                    or has_attribute(dataset.id, "neurodata_type")
                ):
                    order.setdefault(name)
            except Exception:
                if not self.sparse.missing:
                    order.setdefault(name)
        return list(order)

    def _indexes(self, datasets: dict[str, Dataset]) -> dict[str, str]:
        """The name of the VectorIndex of each dataset that has one."""
        found: dict[str, str] = {}
        addresses = {dataset.address: name for name, dataset in datasets.items()}
        for name, dataset in datasets.items():
            try:
                if dataset.elsewhere is not None:
                    layout, target = dataset.elsewhere.layout, None
                    typed = not layout.item and layout.element[0] == "number"
                elif dataset.id is None or dataset.problem or len(dataset.id.shape) != 1:
                    continue
                else:
                    typed = dataset.id.get_type().get_class() in (h5t.INTEGER, h5t.FLOAT)
                    typed = typed or (name.endswith("_index") and is_typed_index(dataset.id))
                    target = self._target(dataset.id, addresses) if typed else None
            except Exception:
                continue
            if typed and target is None and name.endswith("_index"):
                sibling = name.removesuffix("_index")
                target = sibling if sibling in datasets else None
            if target is not None and target != name and target not in found:
                found[target] = name
        return found

    def _target(self, dataset: h5d.DatasetID, addresses: dict[int, str]) -> str | None:
        """The sibling that a VectorIndex's `target` refers to; None for none, a dead one, or itself."""
        try:
            if not has_attribute(dataset, "target"):
                return None
            held = h5a.open(dataset, b"target")
            kind = held.get_type()
            if kind.get_class() != h5t.REFERENCE or kind.get_size() != 8:
                return None
            if math.prod(held.shape) > MAX_SMALL:
                return None
            raw = np.zeros(held.shape, "<u8")
            held.read(raw, kind)
        except Exception:
            if self.sparse.missing:
                raise
            return None  # damaged: as good as dead
        return addresses.get(int(raw.reshape(-1)[0])) if raw.size else None

    def _categories(self, group: h5g.GroupID) -> list[str]:
        try:
            return texts(attribute(group, "categories"))
        except Exception:
            if not self.sparse.missing:
                raise
            return []

    def _category(
        self, group: h5g.GroupID, path: str, category: str, rows: int, notes: list[str]
    ) -> dict[str, ColumnIndex]:
        """The columns of one category of an AlignedDynamicTable."""
        where = f"{path}/{category}"
        try:
            hit = find(self.root, where)
            if hit is None or not isinstance(hit[0], h5g.GroupID) or not is_table(hit[0]):
                notes.append(f"the category {category} is not a table")
                return {}
            table = self.table(hit[0], where, f"{category}/")
        except Refused as exc:
            notes.append(f"the category {category}: {exc}")
            return {}
        except Miss:
            return {}
        if table.rows != rows:
            notes.append(f"the category {category} has {table.rows} rows, the table {rows}")
        return {name: fitted(replace(c, rows=rows)) for name, c in table.columns.items()}

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
                    raise FormatError("its indexes go round in a circle")
                chain.append(outer)
            lost = f"{chain[-1].name}_index"
            if lost in problems:  # without it, the values would be taken for rows
                raise UnsupportedColumnError(f"its index {lost!r} can't be read: {problems[lost]}")
            arrays = tuple([self.array(d) for d in chain])
            notes = notes_of(arrays, rows)
            values = chain[0].id
            if values is None:
                return fitted(ColumnIndex(shown_name, arrays, rows, notes=notes))
            labels = self._labels(values)
            attributes = {}
            if self.details:
                attributes = self.attributes(values, ["description", "unit", "table"])
            region = has_attribute(values, "table")
            return fitted(
                ColumnIndex(shown_name, arrays, rows, labels, region, "", notes, attributes)
            )
        except UnsupportedColumnError as exc:
            return ColumnIndex(shown_name, rows=rows, problem=str(exc))
        except Exception as exc:
            return ColumnIndex(shown_name, rows=rows, problem=reason_of(exc))

    # --- one dataset
    def array(self, dataset: Dataset) -> ArrayIndex:
        if dataset.elsewhere is not None:
            return dataset.elsewhere
        assert dataset.id is not None
        if dataset.problem:
            raise UnsupportedColumnError(dataset.problem)
        plist = dataset.id.get_create_plist()
        kind = plist.get_layout()
        space = dataset.id.get_space()
        if space.get_simple_extent_type() == h5s.NULL:
            raise UnsupportedColumnError("an empty dataspace: it has no values")
        shape = dataset.id.shape or (1,)
        element = element_of(dataset.id.get_type())
        chunk = plist.get_chunk() if kind == h5d.CHUNKED else None
        held = DataLayout("contiguous")
        if not self.standard and any(e[0] in _ADDRESSED for e in walk(element)):
            raise UnsupportedColumnError("a file whose addresses are not of 8 bytes")
        if kind != h5d.CONTIGUOUS and self.standard:
            held = data_layout(self.sparse, dataset.address + self.base, self.base)
        if element_bytes(element) > MAX_ELEMENT:  # before its fill value is read
            raise UnsupportedColumnError(f"elements of {element_bytes(element)} bytes")
        layout = Layout(
            element,
            tuple(shape[1:]),
            chunk,
            tuple(_filters(plist)),
            _fill(plist, dataset.id, element),
            held.raw_edges,
            self.base,
        )
        if self._is_left(layout, shape[0], held):
            layout = replace(layout, unlisted=dataset.path)
        return ArrayIndex(layout, self._extents(dataset, layout, shape, held))

    def _extents(
        self, dataset: Dataset, layout: Layout, shape: tuple[int, ...], held: DataLayout
    ) -> Extents:
        rows, size = shape[0], self.sparse.size
        check_shape(layout, rows, size)
        extents = self._located(dataset, layout, shape, held)
        check_extents(layout, extents, size, dataset.path)
        return extents

    def _located(
        self, dataset: Dataset, layout: Layout, shape: tuple[int, ...], held: DataLayout
    ) -> Extents:
        """Where a dataset lies, as the file has it."""
        assert dataset.id is not None
        rows, nothing = shape[0], np.zeros(0, "<u8")
        if layout.chunk is None:
            offset, nbytes = dataset.id.get_offset(), rows * layout.row_bytes
            if offset is None:
                offset = held.address
                if held.kind == "compact" and held.size < nbytes:
                    raise FormatError(
                        f"compact data of {held.size} bytes where {nbytes} are declared"
                    )
            return Extents(rows, np.array([offset], "<u8"), np.array([nbytes], "<u8"))
        if layout.unlisted:
            return Extents(rows, nothing, nothing)
        count = layout.chunks(rows)
        if not count or not held.btree or not self.standard:
            return self._listed(dataset, layout, shape, count)
        if held.address == UNDEFINED:  # no chunk was ever written
            return Extents(rows, np.full(count, UNDEFINED, "<u8"), np.zeros(count, "<u8"))
        later = Extents(rows, nothing, nothing, None, held.address)
        if count > NEARBY_CHUNKS:
            return later
        tree = ChunkTree(held.address, shape, layout.chunk, self.base, self.sparse.size)
        if not tree.read(self.sparse, opportunistic=count > EAGER_CHUNKS):
            return later
        return tree.extents()

    def _is_left(self, layout: Layout, rows: int, held: DataLayout) -> bool:
        """Whether the chunks are left unlisted: many, in an index that only libhdf5 can read."""
        if layout.chunk is None or self.listing or (held.btree and self.standard):
            return False
        return min(layout.chunk) > 0 and layout.chunks(rows) > NEARBY_CHUNKS

    def _listed(
        self, dataset: Dataset, layout: Layout, shape: tuple[int, ...], count: int
    ) -> Extents:
        """The chunks as libhdf5 lists them, for the chunk indexes of HDF5 1.10 and later."""
        assert layout.chunk is not None
        assert dataset.id is not None
        offsets = np.full(count, UNDEFINED, "<u8")
        sizes, masks = np.zeros(count, "<u8"), np.zeros(count, "<u4")
        if not count:
            return Extents(shape[0], offsets, sizes)
        grid = tuple(-(-n // c) for n, c in zip(shape, layout.chunk, strict=True))
        listed: list[h5d.StoreInfo] = []

        def take(info: h5d.StoreInfo) -> bool | None:
            listed.append(info)
            return True if len(listed) > count else None  # true ends it

        dataset.id.chunk_iter(take)
        if self.sparse.missing:
            raise Miss(dataset.path)
        if listed:
            start = np.array([info.chunk_offset for info in listed], np.uint64)
            flat = grid_positions(start, layout.chunk, grid)
            if (flat < 0).any() or np.unique(flat).size < flat.size:
                raise FormatError("a chunk index that lists chunks twice or outside the dataset")
            offsets[flat] = [info.byte_offset for info in listed]
            sizes[flat] = [info.size for info in listed]
            masks[flat] = [info.filter_mask for info in listed]
        return Extents(shape[0], offsets, sizes, masks if masks.any() else None)

    def _labels(self, dataset: h5d.DatasetID) -> tuple[str, ...] | None:
        """The labels of EnumData: the strings that its `elements` refer to."""
        if dataset.get_type().get_class() != h5t.INTEGER or not has_attribute(dataset, "elements"):
            return None
        reference = attribute(dataset, "elements")
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


def fitted(column: ColumnIndex) -> ColumnIndex:
    """A column of a table of so many rows, or what is wrong with it."""
    if not column.problem:
        try:
            check_missing(column)
        except NWBReadError as exc:
            return ColumnIndex(column.name, rows=column.rows, problem=str(exc))
    return column


def is_typed_index(dataset: h5d.DatasetID) -> bool:
    """Whether a dataset says that it is a VectorIndex, whatever it holds."""
    return text(attribute(dataset, "neurodata_type")) == "VectorIndex"


def elsewhere(dataset: h5d.DatasetID) -> str:
    """How a dataset's data come to be in other files; empty if they don't."""
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5d.VIRTUAL:
        return "a virtual dataset"
    return "external storage" if plist.get_external_count() else ""


def reason_of(exc: Exception) -> str:
    first = (str(exc).splitlines() or [""])[0]
    return first or type(exc).__name__


def notes_of(arrays: tuple[ArrayIndex, ...], rows: int) -> tuple[str, ...]:
    have = arrays[-1].rows
    if have < rows:
        return (f"{have} of the table's {rows} rows; the rest is null",)
    if have > rows:
        return (f"{have} rows, the table has {rows}; cut",)
    return ()


def _filters(plist: h5py.h5p.PropDCID) -> Iterator[Filter]:
    for i in range(plist.get_nfilters()):
        number, _, values, name = plist.get_filter(i)
        yield Filter(number, tuple(values), name.decode("ascii", "replace"))


def _fill(plist: h5py.h5p.PropDCID, dataset: h5d.DatasetID, element: ElementType) -> bytes:
    """The fill value as stored; empty for zeros."""
    if plist.fill_value_defined() != h5d.FILL_VALUE_USER_DEFINED:
        return b""
    if element[0] not in ("number", "bool", "enum", "text", "complex"):
        return b""  # null descriptors and references
    kind = dataset.get_type()
    value = np.zeros((), h5py.Dataset(dataset).dtype)
    plist.get_fill_value(value)
    raw = value.tobytes()
    if isinstance(kind, (h5t.TypeIntegerID, h5t.TypeFloatID)):
        raw = value.astype(np.dtype(element[1])).tobytes()
    return raw if any(raw) else b""


def available(number: int) -> bool:
    """Whether libhdf5 has a filter here."""
    return bool(h5z.filter_avail(number))
