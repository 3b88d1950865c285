"""The session and subject fields of NWB files in HDF5. Values are never evaluated: text stays text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
from h5py import h5a, h5d, h5g, h5t

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5.dataset import external_data
from lazynwb_dask.hdf5.json_values import JSONValue, json_value
from lazynwb_dask.hdf5.links import Refused, attribute, children, find, shown_name, small, unfollowed
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.source import Source
from lazynwb_dask.nwb.version import check_nwb, nwb_version

SUBJECT = "/general/subject"
GROUPS = ("/", "/general", SUBJECT)
LINKS = ""  # in place of a group: links that aren't followed
MAX_BYTES = 1 << 20  # of a field as stored; a larger dataset is no field
MAX_FIELDS = 2_000
# Attributes of the format, which say nothing about the subject.
_OF_THE_FORMAT = frozenset({".specloc", "help", "namespace", "neurodata_type", "object_id"})
_KINDS = (h5t.TypeStringID, h5t.TypeIntegerID, h5t.TypeFloatID, h5t.TypeEnumID)


@dataclass(frozen=True, eq=False)
class Session:
    """The session and subject fields of one file."""

    source: Source
    fields: dict[str, dict[str, Any]]  # by the group's path and by name, values that JSON has

    @property
    def links(self) -> dict[str, str]:
        """The links that aren't followed, by path, and why."""
        return self.fields.get(LINKS, {})


@dataclass(frozen=True)
class ReadSession:
    """The job of `read_session`: the fields of a `Session`."""

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> JSONValue:
        fields: dict[str, dict[str, Any]] = {}
        links: dict[str, str] = {}
        try:
            check_nwb(file.id, name)
            fields["/"] = {"nwb_version": nwb_version(file.id)}
        except Exception:
            if not sparse.missing:
                raise
        for path in GROUPS:
            try:
                found = find(file.id, path)
            except Refused as exc:
                links[path] = "a link into another file" if exc.external else str(exc)
                continue
            except Exception:
                if sparse.missing:
                    continue
                raise
            if found is not None and isinstance(found[0], h5g.GroupID):
                fields.setdefault(path, {}).update(fields_of(file.id, path, found[0]))
                try:
                    links.update(unfollowed(file.id, found[0], path))
                except Exception:
                    if not sparse.missing:
                        raise
        if sparse.missing:
            raise Miss("/")
        if sum(map(len, fields.values())) > MAX_FIELDS:
            raise NWBReadError(f"damaged: more than {MAX_FIELDS} fields of a session")
        return JSONValue({**fields, LINKS: links} if links else fields)


def fields_of(root: h5g.GroupID, path: str, group: h5g.GroupID) -> Iterator[tuple[str, Any]]:
    """A group's fields. One that is not present, refused or damaged is left out."""
    for name, *_ in children(group):
        try:
            found = find(root, f"{path}/{name}")
            if found is None or not isinstance(found[0], h5d.DatasetID):
                continue
            dataset = found[0]
            kind = dataset.get_type()
            if not isinstance(kind, _KINDS) or external_data(dataset):
                continue
            shape = dataset.shape
            if shape is None or len(shape) > 2:
                continue
            if math.prod(shape) * int(kind.get_size()) > MAX_BYTES:
                continue
            yield name, _stripped(json_value(small(dataset).reshape(shape)), kind)
            if path == SUBJECT and name == "age":
                yield "age_reference", json_value(attribute(dataset, "reference"))
        except Exception:
            continue
    if path == SUBJECT:
        yield from attributes_of(group)


def attributes_of(group: h5g.GroupID) -> Iterator[tuple[str, Any]]:
    """The attributes of a group, where extensions store fields."""
    for i in range(min(h5a.get_num_attrs(group), MAX_FIELDS)):
        try:
            name = h5a.open(group, index=i).name
            if shown_name(name) not in _OF_THE_FORMAT:
                yield shown_name(name), json_value(attribute(group, name))
        except Exception:
            continue


def _stripped(value: Any, kind: h5t.TypeID) -> Any:
    """Space-padded text without its padding."""
    if isinstance(kind, h5t.TypeStringID) and not kind.is_variable_str():
        if isinstance(value, list):
            return [_stripped(v, kind) for v in value]
        if kind.get_strpad() == h5t.STR_SPACEPAD and isinstance(value, str):
            return value.rstrip(" ")
    return value
