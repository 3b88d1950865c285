"""The metadata of NWB files in HDF5: tables, columns, and where their chunks lie.

No data are read here, but for `colnames`, the labels of enumerations, and references (see `names_of`).
h5py runs over a `SparseFile`. Links are resolved by us, one component at a time, so that libhdf5 never
opens a second file. Each column is tried by itself: a column that can't be understood gets a `problem`
and leaves the others alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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
    walk,
)
from ..options import Options
from ..sources import Source, shown
from ..storage import Settings
from .elements import element_of
from .objects import ChunkTree, DataLayout, FormatError, data_layout
from .sparse import Miss, SparseFile, run

MAX_LINKS = 32  # soft links followed in one path
MAX_CHUNKS = 1 << 22
EAGER_CHUNKS = 16  # a column of up to so many chunks is always indexed whole
NEARBY_CHUNKS = 4096  # one of up to so many if its B-tree is here anyway
MAX_LABELS = 1 << 16
MAX_COLUMNS = 20_000
MAX_DEPTH = 12
MAX_GROUPS = 20_000

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


# ------------------------------------------------------------------------------- links and attributes
class _Refused(Exception):
    """A link that leads out of the file."""


def find(root: h5g.GroupID, path: str) -> tuple[h5g.GroupID | h5d.DatasetID, str] | None:
    """The object at an absolute path and its path after soft links; None if there is none."""
    todo = [p for p in path.split("/") if p and p != "."]
    here, followed = root, 0
    walked: list[str] = []
    while todo:
        name = todo.pop(0)
        if name == "..":
            if walked:
                walked.pop()
            here = _open(root, walked)
            continue
        if not isinstance(here, h5g.GroupID):
            return None
        key = name.encode()
        if not here.links.exists(key):
            return None
        info = here.links.get_info(key)
        if info.type == h5l.TYPE_SOFT:
            followed += 1
            if followed > MAX_LINKS:
                raise _Refused(f"more than {MAX_LINKS} soft links one after another")
            target = here.links.get_val(key).decode("utf-8", "replace")
            parts = [p for p in target.split("/") if p and p != "."]
            todo = parts + todo
            if target.startswith("/"):
                here, walked = root, []
        elif info.type == h5l.TYPE_HARD:
            here = h5o.open(here, key)
            walked.append(name)
        else:
            raise _Refused("an external link; links into other files are not followed")
    return here, "/" + "/".join(walked)


def _open(root: h5g.GroupID, names: list[str]) -> h5g.GroupID:
    here = root
    for name in names:
        here = h5o.open(here, name.encode())
    return here


def has_attribute(obj: h5g.GroupID | h5d.DatasetID, name: str) -> bool:
    return bool(h5a.exists(obj, name.encode()))


def attribute(obj: h5g.GroupID | h5d.DatasetID, name: str) -> object:
    """An attribute's value by h5py, or None."""
    if not has_attribute(obj, name):
        return None
    holder = h5py.Group(obj) if isinstance(obj, h5g.GroupID) else h5py.Dataset(obj)
    return holder.attrs[name]


def text(value: object) -> str:
    """An attribute as text, as far as it is text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0 ")
    if isinstance(value, np.ndarray):
        return text(value.reshape(-1)[0]) if value.size else ""
    return "" if value is None or isinstance(value, h5py.Empty) else str(value)


def texts(value: object) -> list[str]:
    """`colnames` as writers have written it: strings, bytes, padded, one string, empty, a number."""
    if value is None or isinstance(value, h5py.Empty):
        return []
    if isinstance(value, (str, bytes)):
        return [text(value)]
    if isinstance(value, np.ndarray) and value.dtype.kind in "SUO":
        return [text(v) for v in value.reshape(-1)]
    return []


# --------------------------------------------------------------------------------------------- tables
def is_table(group: h5g.GroupID) -> bool:
    """A table is a group with `colnames` and `id`."""
    return has_attribute(group, "colnames") and group.links.exists(b"id")


def index_file(
    source: Source, table: Table, options: Options, settings: Settings, *, details: bool = False
) -> FileIndex:
    """The index of the table that a file has under a name.

    Parameters
    ----------
    source : Source
    table : str, sequence of str or callable
        As in `read_nwb`.
    details : bool
        Also descriptions, units and the targets of regions: more bytes to fetch.

    Raises
    ------
    NWBReadError
        When the file can't be read or isn't an NWB 2 file.
    """

    def visit(file: h5py.File, sparse: SparseFile) -> TableIndex | None:
        found = choose(file.id, sparse, table)
        if found is None:
            check_nwb(file.id, source)
            return None
        group, path = found
        return _Indexer(file.id, sparse, source, details).table(group, path)

    source, index = run(source, options, settings, visit)
    return FileIndex(source, index)


def choose(root: h5g.GroupID, sparse: SparseFile, table: Table) -> tuple[h5g.GroupID, str] | None:
    """The group of the first table that exists of those asked for, and its path as named."""
    if callable(table):
        picked = table(table_paths(root, sparse))
        names = [] if picked is None else [picked]
    else:
        names = [table] if isinstance(table, str) else list(table)
    for name in names:
        path = table_path(name)
        try:
            found = find(root, path)
        except _Refused as exc:
            raise NWBReadError(f"{path}: {exc}") from None
        if found is not None and isinstance(found[0], h5g.GroupID) and is_table(found[0]):
            return found[0], path
    return None


def check_nwb(root: h5g.GroupID, source: Source) -> None:
    """Raise if the file isn't NWB 2: for files that lack a table."""
    version = root_version(root)
    name = shown(source.url)
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
    return text(h5py.Dataset(found[0])[()])


def children(group: h5g.GroupID) -> Iterator[tuple[str, h5l.LinkInfo]]:
    """The names in a group and their links, in storage order."""
    for i in range(group.get_num_objs()):
        name = group.get_objname_by_idx(i)
        yield name.decode("utf-8", "replace"), group.links.get_info(name)


def walk_groups(root: h5g.GroupID, sparse: SparseFile) -> Iterator[tuple[str, h5g.GroupID]]:
    """Every group that hard links reach, breadth first, `/specifications` left out."""
    specs = ".specloc"
    level: list[tuple[str, h5g.GroupID]] = [("", root)]
    seen: set[int] = set()
    for _ in range(MAX_DEPTH):
        below: list[tuple[str, h5g.GroupID]] = []
        for path, group in level:
            yield path or "/", group
            try:
                links = list(children(group))
            except Exception:
                if sparse.missing:
                    continue
                raise
            for name, info in links:
                if info.type != h5l.TYPE_HARD or (not path and name in (specs, "specifications")):
                    continue
                try:
                    child = h5o.open(group, name.encode())
                except Exception:
                    continue  # not here yet, or damaged
                if not isinstance(child, h5g.GroupID):
                    continue
                address = h5o.get_info(child).addr
                if address in seen:
                    continue
                seen.add(address)
                if len(seen) > MAX_GROUPS:
                    return
                below.append((f"{path}/{name}", child))
        level = below


def table_paths(root: h5g.GroupID, sparse: SparseFile) -> list[str]:
    """The paths of all tables of a file."""
    found = []
    for path, group in walk_groups(root, sparse):
        try:
            if is_table(group):
                found.append(path)
        except Exception:
            if not sparse.missing:
                raise
    return found


def list_tables(source: Source, options: Options, settings: Settings) -> list[str]:
    """The paths of all tables of a file."""
    return run(source, options, settings, lambda file, sparse: table_paths(file.id, sparse))[1]


def names_of(
    source: Source, addresses: set[int], options: Options, settings: Settings
) -> dict[int, str]:
    """The paths of the objects whose headers are at addresses; those that no link reaches are left out.

    Of several hard links the one nearest the root counts, then the first. Groups are read level by level,
    only as deep as it takes.
    """

    def visit(file: h5py.File, sparse: SparseFile) -> dict[int, str]:
        found: dict[int, str] = {}
        level: list[tuple[str, h5g.GroupID]] = [("", file.id)]
        seen = {int(h5o.get_info(file.id).addr)}
        if seen & addresses:
            found[seen.copy().pop()] = "/"
        for _ in range(MAX_DEPTH):
            below: list[tuple[str, bytes, h5g.GroupID]] = []
            for path, group in level:
                try:
                    links = list(children(group))
                except Exception:
                    if sparse.missing:
                        continue
                    raise
                for name, info in links:
                    if info.type != h5l.TYPE_HARD or info.u in seen:
                        continue
                    seen.add(info.u)
                    if info.u in addresses:
                        found[info.u] = f"{path}/{name}"
                    below.append((f"{path}/{name}", name.encode(), group))
            if sparse.missing:
                raise Miss(level[0][0])
            if len(found) == len(addresses) or len(seen) > MAX_GROUPS * 10:
                break
            level = []
            for path, key, group in below:
                if path in ("/specifications", "/.specloc"):
                    continue
                try:
                    child = h5o.open(group, key)
                except Exception:
                    continue  # not here yet, or damaged
                if isinstance(child, h5g.GroupID):
                    level.append((path, child))
            if sparse.missing:
                raise Miss("")
        return found

    return run(source, options, settings, visit)[1]


# -------------------------------------------------------------------------------------------- columns
@dataclass
class _Dataset:
    """An open dataset of a table's group."""

    name: str
    id: h5d.DatasetID
    rows: int
    path: str


class _Indexer:
    """One pass over one table."""

    def __init__(
        self, root: h5g.GroupID, sparse: SparseFile, source: Source, details: bool
    ) -> None:
        self.root, self.sparse, self.source, self.details = root, sparse, source, details
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
        datasets, problems = self._datasets(group, path)
        if "id" not in datasets:
            if self.sparse.missing:
                raise Miss(path)
            reason = problems.get("id", "it is not a dataset")
            raise NWBReadError(f"{shown(self.source.url)}: {path}: no usable id column: {reason}")
        rows = datasets["id"].rows
        indexes = self._indexes(datasets)
        columns: dict[str, ColumnIndex] = {}
        for name in self._order(names, datasets, problems, indexes, rows):
            if name in problems:
                columns[prefix + name] = ColumnIndex(
                    prefix + name, rows=rows, problem=problems[name]
                )
                continue
            columns[prefix + name] = self._column(prefix + name, name, datasets, indexes, rows)
        for category in self._categories(group):
            columns.update(self._category(group, path, category, rows, notes))
        attributes = self._attributes(group, ["description"]) if self.details else {}
        if self.sparse.missing:
            raise Miss(path)
        return TableIndex(path, rows, columns, tuple(notes), attributes)

    def _datasets(
        self, group: h5g.GroupID, path: str
    ) -> tuple[dict[str, _Dataset], dict[str, str]]:
        """The datasets of a table's group, and what is wrong with those that can't be opened."""
        found: dict[str, _Dataset] = {}
        problems: dict[str, str] = {}
        links = list(children(group))
        if len(links) > MAX_COLUMNS:
            raise NWBReadError(
                f"{shown(self.source.url)}: {path}: {len(links)} objects; the limit is {MAX_COLUMNS}"
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
                    shape = obj.shape
                    found[name] = _Dataset(name, obj, shape[0] if shape else 1, where)
            except _Refused as exc:
                problems[name] = str(exc)
            except Exception as exc:
                if not isinstance(exc, Miss):
                    problems[name] = _reason(exc)
        return found, problems

    def _order(
        self,
        names: list[str],
        datasets: dict[str, _Dataset],
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
                    or has_attribute(dataset.id, "neurodata_type")
                ):
                    order.setdefault(name)
            except Exception:
                if not self.sparse.missing:
                    order.setdefault(name)
        return list(order)

    def _indexes(self, datasets: dict[str, _Dataset]) -> dict[str, str]:
        """The name of the VectorIndex of each dataset that has one."""
        found: dict[str, str] = {}
        addresses = {}
        for name, dataset in datasets.items():
            try:
                addresses[h5o.get_info(dataset.id).addr] = name
            except Exception:
                continue
        for name, dataset in datasets.items():
            try:
                if len(dataset.id.shape) != 1:
                    continue
                typed = dataset.id.get_type().get_class() in (h5t.INTEGER, h5t.FLOAT)
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
        if not has_attribute(dataset, "target"):
            return None
        held = h5a.open(dataset, b"target")
        if held.get_type().get_class() != h5t.REFERENCE or held.get_type().get_size() != 8:
            return None
        raw = np.zeros(held.shape, "<u8")
        held.read(raw, held.get_type())
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
        except _Refused as exc:
            notes.append(f"the category {category}: {exc}")
            return {}
        except Miss:
            return {}
        if table.rows != rows:
            notes.append(f"the category {category} has {table.rows} rows, the table {rows}")
        return {name: replace(c, rows=rows) for name, c in table.columns.items()}

    def _column(
        self,
        shown_name: str,
        name: str,
        datasets: dict[str, _Dataset],
        indexes: dict[str, str],
        rows: int,
    ) -> ColumnIndex:
        """One column. Its own troubles are its own."""
        try:
            chain = [datasets[name]]
            while chain[-1].name in indexes:
                outer = datasets[indexes[chain[-1].name]]
                if outer in chain or len(chain) > 4:
                    raise FormatError("its indexes go round in a circle")
                chain.append(outer)
            arrays = tuple([self._array(d) for d in chain])
            labels = self._labels(chain[0].id)
            notes = _notes(arrays, rows)
            attributes = (
                self._attributes(chain[0].id, ["description", "unit", "table"])
                if self.details
                else {}
            )
            region = has_attribute(chain[0].id, "table")
            return ColumnIndex(shown_name, arrays, rows, labels, region, "", notes, attributes)
        except UnsupportedColumnError as exc:
            return ColumnIndex(shown_name, rows=rows, problem=str(exc))
        except Exception as exc:
            return ColumnIndex(shown_name, rows=rows, problem=_reason(exc))

    # --- one dataset
    def _array(self, dataset: _Dataset) -> ArrayIndex:
        plist = dataset.id.get_create_plist()
        if plist.get_external_count():
            raise UnsupportedColumnError("its data are in another file (external storage)")
        kind = plist.get_layout()
        if kind == h5d.VIRTUAL:
            raise UnsupportedColumnError(
                "a virtual dataset: its data are in other datasets or files"
            )
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
            held = data_layout(
                self.sparse, int(h5o.get_info(dataset.id).addr) + self.base, self.base
            )
        layout = Layout(
            element,
            tuple(shape[1:]),
            chunk,
            tuple(_filters(plist)),
            _fill(plist, dataset.id, element),
            held.raw_edges,
            self.base,
        )
        return ArrayIndex(layout, self._extents(dataset, layout, shape, held))

    def _extents(
        self, dataset: _Dataset, layout: Layout, shape: tuple[int, ...], held: DataLayout
    ) -> Extents:
        rows, nbytes = shape[0], math.prod(shape) * layout.element_bytes
        if layout.chunk is None:
            offset, size = dataset.id.get_offset(), nbytes
            if offset is None:
                offset = held.address
                if held.kind == "compact" and held.size < nbytes:
                    raise FormatError(
                        f"compact data of {held.size} bytes where {nbytes} are declared"
                    )
            elif offset + nbytes > self.sparse.size:
                raise NWBReadError(
                    f"{shown(self.source.url)}: the file is truncated: {dataset.path} ends at byte "
                    f"{offset + nbytes}, the file at {self.sparse.size}"
                )
            return Extents(rows, np.array([offset], "<u8"), np.array([size], "<u8"))
        count = layout.chunks(rows)
        if count > MAX_CHUNKS:
            raise UnsupportedColumnError(f"{count} chunks; the limit is {MAX_CHUNKS}")
        if not count or not held.btree or not self.standard:
            return self._listed(dataset, layout, shape, count)
        if held.address == UNDEFINED:  # no chunk was ever written
            return Extents(rows, np.full(count, UNDEFINED, "<u8"), np.zeros(count, "<u8"))
        nothing = np.zeros(0, "<u8")
        later = Extents(rows, nothing, nothing, None, held.address)
        if count > NEARBY_CHUNKS:
            return later
        tree = ChunkTree(held.address, shape, layout.chunk, self.base, self.sparse.size)
        if not tree.read(self.sparse, opportunistic=count > EAGER_CHUNKS):
            return later
        return checked(rows, tree.offsets, tree.sizes, tree.masks, self.sparse.size, dataset.path)

    def _listed(
        self, dataset: _Dataset, layout: Layout, shape: tuple[int, ...], count: int
    ) -> Extents:
        """The chunks as libhdf5 lists them, for the chunk indexes of HDF5 1.10 and later."""
        assert layout.chunk is not None
        offsets = np.full(count, UNDEFINED, "<u8")
        sizes, masks = np.zeros(count, "<u8"), np.zeros(count, "<u4")
        if not count:
            return Extents(shape[0], offsets, sizes)
        grid = tuple(-(-n // c) for n, c in zip(shape, layout.chunk, strict=True))
        listed: list[h5d.StoreInfo] = []
        dataset.id.chunk_iter(listed.append)
        if self.sparse.missing:
            raise Miss(dataset.path)
        if listed:
            start = np.array([info.chunk_offset for info in listed], np.int64)
            where = start // np.array(layout.chunk, np.int64)
            flat = np.ravel_multi_index(tuple(where.T), grid)
            offsets[flat] = [info.byte_offset for info in listed]
            sizes[flat] = [info.size for info in listed]
            masks[flat] = [info.filter_mask for info in listed]
        return checked(shape[0], offsets, sizes, masks, self.sparse.size, dataset.path)

    def _labels(self, dataset: h5d.DatasetID) -> tuple[str, ...] | None:
        """The labels of EnumData: the strings that its `elements` refer to."""
        if dataset.get_type().get_class() != h5t.INTEGER or not has_attribute(dataset, "elements"):
            return None
        reference = attribute(dataset, "elements")
        if not isinstance(reference, h5r.Reference):
            return None
        target = h5r.dereference(reference, self.root) if reference else None
        if not isinstance(target, h5d.DatasetID) or math.prod(target.shape) > MAX_LABELS:
            raise UnsupportedColumnError("the elements of its enumeration can't be found")
        values = h5py.Dataset(target)[()]
        return tuple(text(v) for v in np.atleast_1d(values).reshape(-1))

    def _attributes(self, obj: h5g.GroupID | h5d.DatasetID, names: list[str]) -> dict[str, str]:
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


def checked(
    rows: int, offsets: np.ndarray, sizes: np.ndarray, masks: np.ndarray, limit: int, path: str
) -> Extents:
    """Extents whose chunks all lie within the file."""
    there = offsets != UNDEFINED
    ends = offsets[there] + sizes[there]
    if (ends > limit).any() or (ends < sizes[there]).any():
        raise NWBReadError(
            f"the file is truncated or damaged: a chunk of {path} ends at byte "
            f"{int(ends.max())}, the file at {limit}"
        )
    return Extents(rows, offsets, sizes, masks if masks.any() else None)


def _reason(exc: Exception) -> str:
    first = (str(exc).splitlines() or [""])[0]
    return first or type(exc).__name__


def _notes(arrays: tuple[ArrayIndex, ...], rows: int) -> tuple[str, ...]:
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
