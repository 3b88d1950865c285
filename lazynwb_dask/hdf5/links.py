"""The tree of an HDF5 file: links, groups, attributes, and what is where.

Links are resolved here, one component at a time, so that libhdf5 never opens a second file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5t

from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.hdf5.external import REFUSED
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile

MAX_LINKS = 32  # soft links followed in one path
MAX_DEPTH = 12  # groups within groups
MAX_GROUPS = 20_000
MAX_NAMED = 200_000  # links looked at to find what references point to
MAX_CHILDREN = 100_000  # links of one group
MAX_SMALL = 16 << 20  # bytes of an attribute, or of a dataset that is read while indexing


class Refused(Exception):
    """A link that is not followed.

    Parameters
    ----------
    foreign : bool
        Because it leads out of the file.
    """

    def __init__(self, reason: str, foreign: bool = False) -> None:
        super().__init__(reason)
        self.foreign = foreign


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
                raise Refused(f"more than {MAX_LINKS} soft links one after another")
            target = here.links.get_val(key).decode("utf-8", "replace")
            parts = [p for p in target.split("/") if p and p != "."]
            todo = parts + todo
            if target.startswith("/"):
                here, walked = root, []
        elif info.type == h5l.TYPE_HARD:
            here = h5o.open(here, key)
            walked.append(name)
        else:
            raise Refused(f"an external link; {REFUSED}", foreign=True)
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
    held = h5a.open(obj, name.encode())
    _check_small(held.shape, held.get_type(), f"the attribute {name}")
    holder = h5py.Group(obj) if isinstance(obj, h5g.GroupID) else h5py.Dataset(obj)
    return holder.attrs[name]


def small(dataset: h5d.DatasetID) -> np.ndarray:
    """The values of a dataset that is read while indexing, by h5py, as a flat array.

    Raises
    ------
    UnsupportedColumnError
        When its data are in another file.
    """
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5d.VIRTUAL or plist.get_external_count():
        raise UnsupportedColumnError(f"its data are in other files; {REFUSED}")
    kind = dataset.get_type()
    _check_small(dataset.shape, kind, "a dataset")
    if plist.get_layout() == h5d.CHUNKED:
        _check_small(plist.get_chunk(), kind, "a chunk")
    return np.atleast_1d(h5py.Dataset(dataset)[()]).reshape(-1)


def _check_small(shape: tuple[int, ...] | None, kind: h5t.TypeID, what: str) -> None:
    """Raise before h5py takes memory for what no attribute holds."""
    # 64 bytes is about what a Python object takes
    nbytes = math.prod(shape or ()) * max(kind.get_size(), 64 if kind.get_class() > 2 else 1)
    if nbytes > MAX_SMALL:
        raise NWBReadError(f"damaged: {what} of the shape {shape}")


def text(value: object) -> str:
    """An attribute as text, as far as it is text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0 ")
    if isinstance(value, np.ndarray):
        return text(value.reshape(-1)[0]) if value.size else ""
    if isinstance(value, np.floating):
        return repr(float(value))  # that of a float32 would be the text of another float64
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


def is_table(group: h5g.GroupID) -> bool:
    """A table is a group with `colnames` and `id`."""
    return has_attribute(group, "colnames") and group.links.exists(b"id")


def children(group: h5g.GroupID) -> Iterator[tuple[str, h5l.LinkInfo]]:
    """The names in a group and their links, in storage order."""
    count = group.get_num_objs()
    if count > MAX_CHILDREN:
        raise NWBReadError(f"damaged: a group of {count} links; the limit is {MAX_CHILDREN}")
    for i in range(count):
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
                if info.u in seen:
                    continue
                seen.add(info.u)
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


@dataclass(frozen=True)
class ListTables:
    """The job of `list_tables`."""

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> list[str]:
        return table_paths(file.id, sparse)


@dataclass(frozen=True)
class NameObjects:
    """The job of `names_of`."""

    addresses: tuple[int, ...]

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> dict[int, str]:
        addresses = set(self.addresses)
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
                for child, info in links:
                    if info.type != h5l.TYPE_HARD or info.u in seen:
                        continue
                    seen.add(info.u)
                    if info.u in addresses:
                        found[info.u] = f"{path}/{child}"
                    below.append((f"{path}/{child}", child.encode(), group))
            if sparse.missing:
                raise Miss(level[0][0])
            if len(found) == len(addresses) or len(seen) > MAX_NAMED:
                break
            level = []
            for path, key, group in below:
                if path in ("/specifications", "/.specloc"):
                    continue
                try:
                    opened = h5o.open(group, key)
                except Exception:
                    continue  # not here yet, or damaged
                if isinstance(opened, h5g.GroupID):
                    level.append((path, opened))
            if sparse.missing:
                raise Miss("")
        return found
