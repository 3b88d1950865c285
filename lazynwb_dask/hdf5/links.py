"""Groups, links and attributes of an HDF5 file.

Links are resolved here, one path component at a time, so that libhdf5 never opens a second file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import h5py
import numpy as np
from h5py import h5, h5a, h5d, h5g, h5i, h5l, h5o, h5t

from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.hdf5.external import GROUP_REFUSED, OTHER_STORE, REFUSED, STORE_REFUSED
from lazynwb_dask.hdf5.object_header import is_object
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile

MAX_LINKS = 32  # soft links followed in one path
MAX_DEPTH = 12  # groups within groups
MAX_GROUPS = 100_000
MAX_NAMED = 200_000  # links looked at to find what references point to
LOST = "\0"  # in place of a path
MAX_CHILDREN = 100_000  # links of one group
MAX_SMALL = 16 << 20  # bytes of an attribute, or of a dataset that is read while indexing

_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")
_SPECIFICATIONS = ("/specifications", "/.specloc")  # of namespaces: they hold no data


class Refused(Exception):
    """A link that is not followed; `external`: because it leads out of the file."""

    def __init__(self, reason: str, external: bool = False) -> None:
        super().__init__(reason)
        self.external = external

    @property
    def of_group(self) -> str:
        """The reason why a table or TimeSeries isn't read."""
        return GROUP_REFUSED if self.external and str(self) != STORE_REFUSED else str(self)


def components(path: str) -> list[str]:
    """The components of a path, without those that stand for the same group.

    >>> components("/a/./b//..")
    ['a', 'b', '..']
    """
    return [p for p in path.split("/") if p and p != "."]


def shown_name(name: bytes) -> str:
    r"""A name in the file as text; bytes that are not UTF-8 are escaped.

    >>> print(shown_name(b"caf\xe9"))
    caf\xe9
    """
    return name.decode("utf-8", "backslashreplace")


def stored_path(group: h5g.GroupID, path: str) -> bytes:
    """The names in the file of a path within a group, where bytes may have been escaped by `shown_name`."""
    if "\\x" not in path:
        return path.encode()
    found = b""
    for name in components(path):
        literal = name.encode()
        bytewise = _ESCAPED.sub(lambda byte: bytes.fromhex(byte[1].decode()), literal)
        for stored in (literal, bytewise):
            if group.links.exists(found + stored):
                break
        else:  # only some of what looks like escapes are
            parent = h5o.open(group, found) if found else group
            names = [stored for stored, *_ in _links(parent) if shown_name(stored) == name]
            stored = names[0] if names else literal
        found += stored + b"/"
    return found[:-1]


def find(root: h5g.GroupID, path: str) -> tuple[h5g.GroupID | h5d.DatasetID, str] | None:
    """The object at an absolute path, and its path with soft links resolved; None if there is none.

    Raises Refused for an external link, and for too many soft links.
    """
    todo = components(path)
    node, followed = root, 0
    walked: list[str] = []
    while todo:
        name = todo.pop(0)
        if name == "..":
            node = root
            walked = walked[:-1]
            for component in walked:
                node = h5o.open(node, stored_path(node, component))
            continue
        if not isinstance(node, h5g.GroupID):
            return None
        key = stored_path(node, name)
        if not node.links.exists(key):
            return None
        info = node.links.get_info(key)
        if info.type == h5l.TYPE_SOFT:
            followed += 1
            if followed > MAX_LINKS:
                raise Refused(f"more than {MAX_LINKS} soft links one after another")
            target = shown_name(node.links.get_val(key))
            todo = components(target) + todo
            if target.startswith("/"):
                node, walked = root, []
        elif info.type == h5l.TYPE_HARD:
            node = h5o.open(node, key)
            walked.append(name)
        else:
            raise Refused(_out_of_file(node, key), external=True)
    return node, "/" + "/".join(walked)


def _out_of_file(group: h5g.GroupID, key: bytes) -> str:
    """Why a link out of the file isn't followed."""
    with suppress(Exception):  # damaged, or of a kind that HDF5 doesn't know
        if group.links.get_val(key)[0] == OTHER_STORE:
            return STORE_REFUSED
    return f"an external link; {REFUSED}"


def has_attribute(obj: h5g.GroupID | h5d.DatasetID, name: str) -> bool:
    return bool(h5a.exists(obj, name.encode()))


def attribute(obj: h5g.GroupID | h5d.DatasetID, name: str | bytes) -> object:
    """An attribute's value as h5py gives it; None if there is none."""
    key = name.encode() if isinstance(name, str) else name
    if not h5a.exists(obj, key):
        return None
    opened = h5a.open(obj, key)
    _check_small(opened.shape, opened.get_type(), f"the attribute {shown_name(key)}")
    holder = h5py.Group(obj) if isinstance(obj, h5g.GroupID) else h5py.Dataset(obj)
    return holder.attrs[name]


def small(dataset: h5d.DatasetID) -> np.ndarray:
    """The values of a dataset that is read while indexing, as a flat array of h5py's values.

    Raises UnsupportedColumnError if its data are in another file, and NWBReadError if it is too large.
    """
    plist = dataset.get_create_plist()
    if plist.get_layout() == h5d.VIRTUAL or plist.get_external_count():
        raise UnsupportedColumnError(f"its data are in other files; {REFUSED}")
    kind = dataset.get_type()
    _check_small(dataset.shape, kind, "a dataset")
    if plist.get_layout() == h5d.CHUNKED:
        _check_small(plist.get_chunk(), kind, "a chunk")
    values: np.ndarray = np.atleast_1d(h5py.Dataset(dataset)[()])
    return values.reshape(-1)


def _check_small(shape: tuple[int, ...] | None, kind: h5t.TypeID, what: str) -> None:
    """Raise before h5py allocates more than `MAX_SMALL` bytes."""
    # a Python object takes about 64 bytes
    nbytes = math.prod(shape or ()) * max(kind.get_size(), 64 if kind.get_class() > 2 else 1)
    if nbytes > MAX_SMALL:
        raise NWBReadError(f"damaged: {what} of the shape {shape}")


def text(value: object) -> str:
    """An attribute's value as text; empty if there is none."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").rstrip("\0 ")
    if isinstance(value, np.ndarray):
        return text(value.reshape(-1)[0]) if value.size else ""
    if isinstance(value, np.floating):
        return repr(float(value))  # that of a float32 would be the text of another float64
    if value is None or isinstance(value, h5py.Empty):
        return ""
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def texts(value: object) -> list[str]:
    """`colnames`, in all the forms that writers use: an array, one string, bytes, padded, or empty. As
    `shown_name` has them."""
    if value is None or isinstance(value, h5py.Empty):
        return []
    if isinstance(value, (str, bytes)):
        return [_name(value)]
    if isinstance(value, np.ndarray) and value.dtype.kind in "SUO":
        return [_name(v) for v in value.reshape(-1)]
    return []


def _name(value: object) -> str:
    if isinstance(value, str):  # h5py keeps bytes that are not UTF-8 as surrogates
        return shown_name(value.encode("utf-8", "surrogateescape"))
    return shown_name(value).rstrip("\0 ") if isinstance(value, bytes) else text(value)


def children(group: h5g.GroupID) -> list[tuple[str, int, int]]:
    """The names in a group, the types of their links, and the addresses of the objects of hard links."""
    found = [(shown_name(name), kind, address) for name, kind, address in _links(group)]
    if len({name for name, *_ in found}) < len(found):
        raise NWBReadError("a group with two names of which one is, or is written with escapes as, the other")
    return found


def _links(group: h5g.GroupID) -> list[tuple[bytes, int, int]]:
    count = group.get_num_objs()
    found: list[tuple[bytes, int, int]] = []

    def visit(name: bytes, info: h5l.LinkInfo) -> bool | None:
        found.append((name, int(info.type), int(info.u)))
        return True if len(found) > MAX_CHILDREN else None  # True ends the iteration

    if count <= MAX_CHILDREN:  # one by one, libhdf5 would search the group for each
        # In the order in which they are stored: to sort them, HDF5 1.14 makes a table, and frees what it has
        # not filled of this when a read fails.
        group.links.iterate(visit, order=h5.ITER_NATIVE, info=True)
    found.sort()
    if max(count, len(found)) > MAX_CHILDREN:
        raise NWBReadError(f"damaged: a group of {count} links; the limit is {MAX_CHILDREN}")
    return found


def open_member(group: h5g.GroupID, name: str, address: int) -> h5g.GroupID | h5d.DatasetID:
    """The object of a hard link. NWBReadError if it isn't at the address: the group is damaged."""
    key = stored_path(group, name)
    if int(group.links.get_info(key).u) != address:
        raise NWBReadError(f"damaged: a group that has another {name!r} by name than in its list")
    return h5o.open(group, key)


def unfollowed(root: h5g.GroupID, group: h5g.GroupID, path: str) -> Iterator[tuple[str, str]]:
    """The links of a group that lead to another file, or nowhere, and which of these."""
    for name, kind, _ in children(group):
        where = f"{path.rstrip('/')}/{name}"
        if kind == h5l.TYPE_HARD or where in _SPECIFICATIONS:
            continue
        try:
            reason = "" if find(root, where) else "a link that leads nowhere"
        except Refused as exc:
            reason = "a link into another file" if exc.external else str(exc)
        if reason:
            yield where, reason


def walk_groups(root: h5g.GroupID, sparse: SparseFile) -> Iterator[tuple[str, h5g.GroupID]]:
    """Every group that hard links reach, and its path, breadth first; `/specifications` is left out."""
    level: list[tuple[str, h5g.GroupID]] = [("", root)]
    seen: set[int] = set()
    for _ in range(MAX_DEPTH):
        below: list[tuple[str, h5g.GroupID]] = []
        for path, group in level:
            yield path or "/", group
            for name, address in _hard_links(group, sparse):
                where = f"{path}/{name}"
                if where in _SPECIFICATIONS or address in seen:
                    continue
                child = _opened_group(group, name)
                if child is None:
                    continue
                seen.add(address)
                if len(seen) > MAX_GROUPS:
                    raise NWBReadError(f"more than {MAX_GROUPS} groups are not looked through")
                below.append((where, child))
        level = below


def _hard_links(group: h5g.GroupID, sparse: SparseFile) -> list[tuple[str, int]]:
    """The hard links of a group, and the addresses of their objects; none if bytes are missing."""
    try:
        links = children(group)
    except Exception:
        if sparse.missing:
            return []
        raise
    return [(name, address) for name, kind, address in links if kind == h5l.TYPE_HARD]


def _opened_group(group: h5g.GroupID, name: str) -> h5g.GroupID | None:
    """A group in a group; None if it is another object, absent, or damaged."""
    try:
        child = h5o.open(group, stored_path(group, name))
    except Exception:
        return None
    return child if isinstance(child, h5g.GroupID) else None


@dataclass(frozen=True)
class NameObjects:
    """The job of `names_of`: the paths of objects by the addresses of their object headers.

    An object that no link reaches is absent. Where a link can't be followed, those that may be behind it are
    `LOST`.
    """

    addresses: tuple[int, ...]

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> dict[int, str]:
        addresses = set(self.addresses)
        found: dict[int, str] = {}
        level: list[tuple[str, h5g.GroupID]] = [("", file.id)]
        root = int(h5o.get_info(file.id).addr)
        seen = {root}
        if root in addresses:
            found[root] = "/"
        closed = False  # whether there are objects that can't be opened
        for _ in range(MAX_DEPTH):
            below: list[tuple[str, str, h5g.GroupID]] = []
            for path, group in level:
                for child, address in _hard_links(group, sparse):
                    if address in seen:
                        continue
                    seen.add(address)
                    if address in addresses:
                        found[address] = f"{path}/{child}"
                    below.append((f"{path}/{child}", child, group))
            if sparse.missing:
                raise Miss(level[0][0])
            if len(found) == len(addresses) or len(seen) > MAX_NAMED:
                break
            level = []
            for path, child, group in below:
                try:
                    opened = h5o.open(group, stored_path(group, child))
                except Exception:
                    closed = True
                    continue
                if isinstance(opened, h5g.GroupID) and path not in _SPECIFICATIONS:
                    level.append((path, opened))
            if sparse.missing:
                raise Miss("")
        absent = addresses - found.keys()
        if absent and (closed or level):
            base = int(h5i.get_file_id(file.id).get_create_plist().get_userblock())
            found |= {a: LOST for a in absent if is_object(sparse, a + base)}
            if sparse.missing:
                raise Miss("")
        return found
