"""The electrode groups of a file, which references of units and electrodes lead to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
from h5py import h5g

from lazynwb_dask.hdf5.json_values import JSONValue
from lazynwb_dask.hdf5.links import Refused, children, find
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.nwb.session import attributes_of, fields_of
from lazynwb_dask.nwb.tables import is_table
from lazynwb_dask.nwb.version import check_nwb

FOLDER = "/general/extracellular_ephys"
PATH = "path"  # the field by which references name a group


@dataclass(frozen=True)
class ListElectrodeGroups:
    """The job of `electrode_groups`: a mapping for each group, with its path, its name, its fields, and the
    names of objects that it links to, such as its device."""

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> JSONValue:
        found: list[dict[str, Any]] = []
        try:
            check_nwb(file.id, name)
            found += _groups(file.id)
        except Exception:
            if not sparse.missing:
                raise
        if sparse.missing:
            raise Miss(FOLDER)
        return JSONValue(found)


def _groups(root: h5g.GroupID) -> Iterator[dict[str, Any]]:
    for name, group, path in _member_groups(root, FOLDER):
        if is_table(group):
            continue
        linked = {link: where.rpartition("/")[2] for link, _, where in _member_groups(root, path)}
        fields = {**dict(fields_of(root, path, group)), **dict(attributes_of(group))}
        yield {**linked, **fields, "name": name, PATH: path}


def _member_groups(root: h5g.GroupID, path: str) -> Iterator[tuple[str, h5g.GroupID, str]]:
    """The name of each group in a group, the group, and its path with links resolved."""
    found = find(root, path)
    for name, *_ in children(found[0]) if found is not None and isinstance(found[0], h5g.GroupID) else ():
        try:
            member = find(root, f"{path}/{name}")
        except Refused:
            continue
        if member is not None and isinstance(member[0], h5g.GroupID):
            yield name, member[0], member[1]
