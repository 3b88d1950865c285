"""The objects that Zarr metadata describe, and the links between them, for all that is written as Zarr."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.hdf5.links import components
from lazynwb_dask.zarr.array import Array, is_name

MAX_OBJECTS = 100_000
MAX_DEPTH = 32
MAX_LINKS = 32
LEFT_OUT = "specifications"  # schemas, which no table needs
# attributes that say what HDF5 has other words for
SOFT_LINK, EXTERNAL, FIELDS, SCALAR = (
    "_SOFT_LINK", "_EXTERNAL_ARRAY_LINK", "_COMPOUND_DTYPE", "_SCALAR",
)  # fmt: skip


class Tree:
    """What there is, by path. Subclasses say where that is written. `name` is the file, for messages."""

    name: str

    @property
    def objects(self) -> dict[str, str]:
        """By path, in the paths' order, whether it is a ``group``, a ``dataset``, a ``link``, or a link
        that is ``external``."""
        raise NotImplementedError

    def attributes(self, path: str) -> dict[str, Any]:
        """The attributes of an object."""
        raise NotImplementedError

    def array(self, path: str) -> Array:
        """The description of a dataset."""
        raise NotImplementedError

    def target(self, path: str) -> str:
        """The target of a link, as a path from the root of the file that it leads to."""
        raise NotImplementedError

    def held(self, path: str, array: Array) -> np.ndarray | None:
        """All values of a dataset, if they are at hand."""
        raise NotImplementedError

    def can_fetch(self, path: str, array: Array) -> bool:
        """Whether values of a dataset that aren't at hand may be fetched while indexing."""
        return False

    @cached_property
    def children(self) -> dict[str, list[str]]:
        """The paths in each group."""
        found: dict[str, list[str]] = {}
        for path in self.objects:
            if path != "/":
                found.setdefault(path.rpartition("/")[0] or "/", []).append(path)
        return found

    def resolved(self, path: str) -> str:
        """A path with its links resolved."""
        todo = components(path)
        done: list[str] = []
        followed = 0
        while todo:
            name = todo.pop(0)
            if name == "..":
                done = done[:-1]
                continue
            here = "/" + "/".join([*done, name])
            if self.objects.get(here) == "link":
                followed += 1
                if followed > MAX_LINKS:
                    raise UnsupportedColumnError(f"more than {MAX_LINKS} links one after another")
                todo = components(self.target(here)) + todo
                done = []
            else:
                done.append(name)
        return "/" + "/".join(done)

    def is_shown(self, key: str) -> bool:
        """Whether the object with a key, which isn't empty, is one of `objects`."""
        names = key.split("/")
        if len(names) > MAX_DEPTH or not {"", ".", ".."}.isdisjoint(names) or not is_name(key):
            raise NWBReadError(f"{self.name}: damaged: an object called {key[:200]!r}")
        return names[0] != LEFT_OUT

    def checked(self, found: dict[str, str]) -> dict[str, str]:
        """`objects` in their order, if they aren't too many."""
        if len(found) > MAX_OBJECTS:
            raise NWBReadError(f"{self.name}: {len(found)} objects; the limit is {MAX_OBJECTS}")
        return dict(sorted(found.items()))
