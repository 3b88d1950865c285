"""The groups, attributes, types and shapes of what is written as Zarr, as an HDF5 file image in memory.

It holds only values that are read while indexing: small datasets outside of tables, and those that
attributes refer to. Of these, some aren't at hand: their places are known, so that it is noticed when they
are read. Others have external storage, so that their data are never read from it.
"""

from __future__ import annotations

import contextlib
import io
import math
import posixpath
from collections.abc import Iterable
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5p, h5r, h5s, h5t

from lazynwb_dask.errors import NWBError, NWBReadError
from lazynwb_dask.hdf5.external import OTHER_STORE
from lazynwb_dask.zarr.array import Array, element_of, field_type, is_name
from lazynwb_dask.zarr.tree import EXTERNAL, FIELDS, SCALAR, SOFT_LINK, Tree

MAX_HELD = 1 << 16  # values of a dataset
MAX_ABSENT = 4 << 20  # bytes of the values that aren't at hand
MAX_ATTRIBUTES = 1 << 19  # of all objects
MAX_TEXT = 1 << 20  # characters of an attribute
_NOT_SHOWN = frozenset({"object_id", "namespace", SOFT_LINK, EXTERNAL, FIELDS, SCALAR})
_FLOATS = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
_TEXT = h5py.string_dtype()


class Image(NamedTuple):
    """The bytes of an HDF5 file, and where values would be that can be fetched: start, stop and path."""

    data: bytes
    absent: list[tuple[int, int, str]]


def file_image(contents: Tree, paths: Iterable[str] | None) -> Image:
    """The HDF5 file: only the objects at `paths` and what they refer to; None for all."""
    chosen = set(contents.objects) if paths is None else _needed(contents, paths)
    image = io.BytesIO()  # HDF5 1.14 gives the image of a file that is open a wrong checksum
    with h5py.File(image, "w", libver="latest") as file:
        writer = _Writer(contents, file, chosen)
        writer.write()
    return Image(image.getvalue(), sorted(writer.absent))


def _needed(contents: Tree, paths: Iterable[str]) -> set[str]:
    """The paths of some objects, their members, their parents, and the targets of links and references."""
    found = {"/"}
    todo = [(path, True) for path in paths]
    while todo:
        path, whole = todo.pop()
        names = [p for p in posixpath.normpath(path).split("/") if p]
        here = ""
        for i, name in enumerate(names, 1):
            here = f"{here}/{name}"
            known, last = here in found, i == len(names)
            if here not in contents.objects:
                break
            found.add(here)
            if contents.objects[here] == "link":
                if not known:
                    rest = "/".join(names[i:])
                    todo.append((f"{contents.target(here)}/{rest}".rstrip("/"), whole))
                break
            if not known or (last and whole):
                todo += [(target, False) for target in _targets(contents, here)]
            if last and whole:
                below = contents.children.get(here, [])
                todo += [(child, True) for child in below if child not in found]
    return found


def _targets(contents: Tree, path: str) -> list[str]:
    """The paths that an object's attributes refer to."""
    values = contents.attributes(path).values()
    return [target for value in values if (target := _target(value)) is not None]


def _target(value: Any) -> str | None:
    """The path of a reference; None for any other value."""
    reference = value.get("_REFERENCE") if isinstance(value, dict) else None
    path = reference.get("path") if isinstance(reference, dict) else None
    return path if isinstance(path, str) else None


class _Writer:
    def __init__(self, contents: Tree, file: h5py.File, chosen: set[str]) -> None:
        self.contents, self.file, self.chosen = contents, file, chosen
        self.made: dict[str, Any] = {"/": file.id}
        self.external = h5p.create(h5p.DATASET_CREATE)
        self.external.set_external(b"elsewhere", 0, h5f.UNLIMITED)
        self.targets = {target for path in chosen for target in _targets(contents, path)}
        self.empty = h5p.create(h5p.DATASET_CREATE)
        self.empty.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        self.absent: list[tuple[int, int, str]] = []
        self.room, self.count = MAX_ABSENT, 0

    def write(self) -> None:
        references: list[tuple[str, str, str]] = []
        for path, kind in self.contents.objects.items():
            if path in self.chosen:
                if path != "/":
                    self._object(path, kind)
                references += self._attributes(path)
        for path, name, target in references:
            with contextlib.suppress(KeyError, ValueError, RuntimeError, NWBError):
                reference = h5r.create(self.made[self.contents.resolved(target)], b".", h5r.OBJECT)
                _create(self.made[path], name, reference, h5py.ref_dtype)

    def _object(self, path: str, kind: str) -> None:
        above, _, last = path.rpartition("/")
        parent = self.made.get(above or "/")
        if not isinstance(parent, h5g.GroupID):
            return
        name = last.encode("utf-8", "surrogateescape")
        if kind == "link":
            target = self.contents.target(path).encode("utf-8", "surrogateescape")
            parent.links.create_soft(name, target)
        elif kind == "external":
            parent.links.create_external(name, OTHER_STORE, b"/")
        elif kind == "group":
            self.made[path] = h5g.create(parent, name)
        else:
            self.made[path] = self._dataset(parent, name, path)

    def _dataset(self, parent: h5g.GroupID, name: bytes, path: str) -> h5d.DatasetID:
        shape: tuple[int, ...] = (0,)
        dtype: Any = np.dtype("<f8")
        values, absent = None, False
        with contextlib.suppress(NWBError):  # raised again when the dataset is indexed
            array = self.contents.array(path)
            shape, dtype = array.shape, _dtype(array)
            if self._may_be_read(path, array):
                values = self.contents.held(path, array)
                absent = values is None and self.contents.can_fetch(path, array)
        if self.contents.attributes(path).get(SCALAR) is True and shape == (1,):
            shape = ()
        if values is not None:
            data = _writable(values).reshape(shape)
            return h5py.Group(parent).create_dataset(name, data=data, dtype=dtype).id
        kind, space = h5t.py_create(dtype, logical=True), h5s.create_simple(shape)
        size = math.prod(shape) * kind.get_size()
        if absent and 0 < size <= self.room:
            self.room -= size
            made = h5d.create(parent, name, kind, space, self.empty)
            start = made.get_offset()
            self.absent.append((start, start + made.get_storage_size(), path))
            return made
        return h5d.create(parent, name, kind, space, self.external)

    def _may_be_read(self, path: str, array: Array) -> bool:
        """Whether the values of a dataset are few and may be read while indexing."""
        table = "colnames" in self.contents.attributes(path.rpartition("/")[0] or "/")
        return array.count <= MAX_HELD and (not table or path in self.targets)

    def _attributes(self, path: str) -> list[tuple[str, str, str]]:
        """Write an object's attributes, and return the references as (object, attribute's name, target)."""
        found = []
        here = self.made.get(path)
        values = self.contents.attributes(path) if here is not None else {}
        self.count += len(values)
        if self.count > MAX_ATTRIBUTES:
            raise NWBReadError(f"{self.contents.name}: more than {MAX_ATTRIBUTES} attributes, the limit")
        for name, value in values.items():
            if name in _NOT_SHOWN or not is_name(name):
                continue
            target = _target(value)
            if target is not None:
                found.append((path, name, target))
            elif (written := _attribute(value)) is not None:
                _create(here, name, *written)
        return found


def _create(here: h5g.GroupID | h5d.DatasetID, name: str, value: Any, dtype: np.dtype[Any]) -> None:
    """Write an attribute; h5py's own way takes four times as long."""
    data = np.asarray(value, dtype)
    kind = h5t.py_create(dtype, logical=True)
    space = h5s.create_simple(data.shape) if data.shape else h5s.create(h5s.SCALAR)
    h5a.create(here, name.encode("utf-8", "surrogateescape"), kind, space).write(data)


def _dtype(array: Array) -> np.dtype[Any]:
    if array.fields is not None:
        fields = [(name, field_type(kind) or _TEXT) for name, kind in array.fields]
        return np.dtype(fields)
    return _TEXT if array.is_object else _shown(array.numpy)


def _shown(kind: np.dtype[Any]) -> np.dtype[Any]:
    """A type that HDF5 has in place of a stored one."""
    if kind.names is not None:
        return np.dtype([(name, _shown(kind[name])) for name in kind.names])
    if kind.subdtype is not None:
        inner: np.dtype[Any] = np.dtype((_shown(kind.base), kind.shape))
        return inner
    if kind.kind == "U":
        return _TEXT  # type: ignore[no-any-return]
    element_of(kind)  # raises for what isn't read
    return kind


def _attribute(value: Any) -> tuple[Any, np.dtype[Any]] | None:
    """An attribute's value and dtype; None if HDF5 has no type for it."""
    if isinstance(value, str):
        if value in _FLOATS:
            return _FLOATS[value], np.dtype("<f8")
        return (_cleaned(value), _TEXT) if len(value) <= MAX_TEXT else None
    if isinstance(value, (bool, float)):
        return value, np.dtype(type(value))
    if isinstance(value, int):
        return (value, np.dtype("<i8")) if -(2**63) <= value < 2**63 else None
    if not isinstance(value, list):
        return None
    if not value or isinstance(value[0], str):
        if not all(isinstance(text, str) for text in value):
            return None
        return np.array([_cleaned(text) for text in value], object), _TEXT
    try:
        made = np.array(value)
    except (ValueError, OverflowError):
        return None
    return (made, made.dtype) if made.dtype.kind in "biuf" else None


def _writable(values: np.ndarray) -> np.ndarray:
    """Values whose texts HDF5 can hold."""
    if not values.dtype.hasobject:
        return values
    made = values.copy()
    if values.dtype.names is None:
        made.reshape(-1)[...] = [_cleaned(text or "") for text in values.reshape(-1)]
    for name in values.dtype.names or ():
        made[name] = _writable(values[name])
    return made


def _cleaned(text: str) -> str:
    """Text that HDF5 can hold: it ends at the first NUL."""
    return text.partition("\0")[0].encode("utf-8", "replace").decode()
