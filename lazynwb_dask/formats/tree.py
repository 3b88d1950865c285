"""The tree of an HDF5 file: links, groups, attributes, and what is where.

Links are resolved here, one component at a time, so that libhdf5 never opens a second file.
"""

from __future__ import annotations

from collections.abc import Iterator

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o

from ..options import Options
from ..sources import Source
from ..storage import Settings
from .foreign import REFUSED
from .sparse import Miss, SparseFile, run

MAX_LINKS = 32  # soft links followed in one path
MAX_DEPTH = 12
MAX_GROUPS = 20_000


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


def is_table(group: h5g.GroupID) -> bool:
    """A table is a group with `colnames` and `id`."""
    return has_attribute(group, "colnames") and group.links.exists(b"id")


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
