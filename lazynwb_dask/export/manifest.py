"""What an export has written: its parts, of which version of which files they are, and with which schema."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from lazynwb_dask._version import __version__
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.errors import NWBError, NWBFileNotFoundError
from lazynwb_dask.export.names import digest, is_part
from lazynwb_dask.export.part import SCRATCH
from lazynwb_dask.model.source import Source, is_local, shown
from lazynwb_dask.storage import retried
from lazynwb_dask.util.threads import at_once

MANIFEST = "_lazynwb_export.json"
FORMAT = 1  # of the manifest and of parts; those of another are written again


@dataclass
class Record:
    """A part. `members` are its files, with the versions that it was written of; None: it is to be written."""

    table: str
    members: dict[str, str | None]
    rows: int
    bytes: int
    schema: str

    @property
    def pending(self) -> bool:
        return None in self.members.values()


@dataclass
class Manifest:
    partition_by: str = ""
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)  # by path: version, session's fields
    parts: dict[str, Record] = field(default_factory=dict)  # by path below the folder
    schemas: dict[str, str] = field(default_factory=dict)  # of parts, by their digest
    done: str = ""  # the digest of what was asked when all was written

    def of(self, table: str) -> dict[str, Record]:
        return {path: record for path, record in self.parts.items() if record.table == table}

    def schema(self, key: str) -> pa.Schema:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.schemas[key])))

    def add_schema(self, schema: pa.Schema) -> str:
        """The digest of a schema's names and types."""
        key = digest(repr([(one.name, str(one.type)) for one in schema]))
        self.schemas[key] = base64.b64encode(schema.remove_metadata().serialize()).decode()
        return key

    def write(self, folder: Folder) -> None:
        used = {record.schema for record in self.parts.values()}
        schemas = {key: held for key, held in self.schemas.items() if key in used}
        held = json.dumps({"format": FORMAT, "library": __version__, **asdict(self), "schemas": schemas})
        folder.write(MANIFEST, json.dumps({"checksum": _checksum(held), "held": held}).encode())

    @staticmethod
    def read(folder: Folder) -> Manifest:
        """The manifest of a folder; an empty one if there is none, or if it is damaged. Raises NWBError if it
        is of a later version."""
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            outer = json.loads(folder.read(MANIFEST) or b"")
            held = json.loads(outer["held"])
            library, version = held.pop("library"), held.pop("format")
            if version > FORMAT:
                raise NWBError(
                    f"{shown(folder.url)}: it was exported with lazynwb-dask {library}, whose manifest this "
                    "version can't read: update lazynwb-dask, or export to another folder"
                )
            if outer["checksum"] == _checksum(outer["held"]) and version == FORMAT:
                parts = {path: Record(**one) for path, one in held.pop("parts").items() if is_part(path)}
                found = Manifest(parts=parts, **held)
                for record in parts.values():
                    found.schema(record.schema)
                return found
        return Manifest()


def _checksum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def version_of(source: Source) -> str:
    return json.dumps([source.size, source.etag, source.document])


def parquet_files(folder: Folder) -> dict[str, int]:
    """The Parquet files below a folder, with their sizes."""
    if not is_local(folder.url):
        return retried(folder.url, folder.access, _found)
    found = {}
    for place, folders, files in os.walk(folder.url):
        folders[:] = [name for name in folders if name != SCRATCH]
        for name in files:
            if name.endswith(".parquet"):
                path = os.path.join(place, name)
                found[os.path.relpath(path, folder.url).replace(os.sep, "/")] = os.path.getsize(path)
    return found


def _found(filesystem: Any, path: str) -> dict[str, int]:
    filesystem.invalidate_cache()
    found = filesystem.find(path, detail=True)
    begin = len(path.rstrip("/")) + 1
    return {name[begin:]: info["size"] for name, info in found.items() if name.endswith(".parquet")}


def remove_parts(folder: Folder, paths: Iterable[str]) -> None:
    """Delete parts, and local folders that are empty then. Raises OSError if that isn't possible: their rows
    would be there twice."""
    at_once([partial(_remove, folder, path) for path in paths], 16)


def _remove(folder: Folder, path: str) -> None:
    url = folder.url_of(path)
    with suppress(FileNotFoundError):
        if not is_local(folder.url):
            retried(url, folder.access, _delete)
            return
        os.unlink(url)
    with suppress(OSError):
        os.removedirs(os.path.dirname(url))


def _delete(filesystem: Any, path: str) -> None:
    filesystem.rm_file(path)


def remove_scratch(folder: Folder) -> None:
    """Delete what a run that was killed has left."""
    if is_local(folder.url):
        shutil.rmtree(folder.url_of(SCRATCH), ignore_errors=True)
    else:
        with suppress(NWBFileNotFoundError):
            retried(folder.url_of(SCRATCH), folder.access, _clear)


def _clear(filesystem: Any, path: str) -> None:
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)
