"""The file that lists the files of a catalog."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from lazynwb_dask._version import __version__
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.catalog.tables_schema import FORMAT, MANIFEST
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.source import shown
from lazynwb_dask.nwb.names import table_path

GRACE = 3600  # minimum seconds for which files of earlier snapshots are kept


@dataclass(frozen=True)
class Keeps:
    """What a catalog stores of each file."""

    tables: tuple[str, ...] | None  # paths; None: all
    values_limit: int  # bytes of the values of one table of one file

    @staticmethod
    def of(tables: str | Sequence[str] | None, values_limit: int) -> Keeps:
        names = [tables] if isinstance(tables, str) else tables
        return Keeps(None if names is None else tuple(map(table_path, names)), values_limit)


@dataclass(frozen=True)
class Manifest:
    """The files that a catalog consists of. They are never changed."""

    index: Mapping[str, tuple[str, int]]  # by kind, name and size of the Parquet file
    values: Mapping[str, int]  # names and sizes of the Parquet files of values
    # by table, its first row and the row after its last in ``tables``, and the same in ``columns``
    sections: Mapping[str, tuple[int, int, int, int]]
    files: int
    unreadable: int
    keeps: Keeps
    paths: tuple[str, ...]  # as the user gave them, for `refresh`
    # files of earlier snapshots, which open catalogs may still read, and the time (in seconds since 1970)
    # since which they have not been part of the catalog
    superseded: Mapping[str, int] = field(default_factory=dict)
    snapshot: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    library: str = __version__

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.index.values()} | set(self.values)

    def after(self, before: Manifest | None) -> Manifest:
        """This manifest, keeping the files of earlier snapshots for `GRACE` seconds."""
        if before is None:
            return self
        now, names = int(time.time()), self.names
        kept = {name: since for name, since in before.superseded.items() if now - since < GRACE}
        kept |= dict.fromkeys(sorted(before.names), now)
        return replace(self, superseded={n: since for n, since in kept.items() if n not in names})

    def write(self, folder: Folder) -> None:
        held = {"format": FORMAT, **asdict(self)}
        text = json.dumps({**held, "checksum": _checksum(held)}, indent=1)
        folder.write(MANIFEST, text.encode())


def _checksum(held: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(held).encode(), digest_size=16).hexdigest()


def read_manifest(folder: Folder, *, replaced: bool = False) -> Manifest | None:
    """The catalog's manifest; None if there is none. Raises NWBReadError if this version of the library
    can't read it; with `replaced` returns None then."""
    data = folder.read(MANIFEST)
    if data is None:
        return None
    try:
        return _parsed(data, folder)
    except NWBReadError:
        if replaced:
            return None
        raise


def _parsed(data: bytes, folder: Folder) -> Manifest:
    again = "build it again with build_catalog"
    try:
        held: dict[str, Any] = json.loads(data)
        number = held["format"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NWBReadError(f"{shown(folder.url)}: {MANIFEST} is not that of a catalog; {again}") from None
    if number != FORMAT:
        raise NWBReadError(
            f"{shown(folder.url)}: a catalog of format {number}, made by lazynwb_dask "
            f"{held.get('library')}; this version reads format {FORMAT}; {again}"
        )
    try:
        if held.pop("checksum") != _checksum(held):
            raise ValueError("something else was written")
        keeps = held.pop("keeps")
        tables = keeps["tables"]
        return Manifest(
            index={k: (str(name), int(size)) for k, (name, size) in held.pop("index").items()},
            sections={k: _four(v) for k, v in held.pop("sections").items()},
            keeps=Keeps(None if tables is None else tuple(tables), keeps["values_limit"]),
            paths=tuple(held.pop("paths")),
            superseded={str(k): int(v) for k, v in held.pop("superseded").items()},
            **{name: value for name, value in held.items() if name != "format"},
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        raise NWBReadError(f"{shown(folder.url)}: a damaged {MANIFEST}; {again}") from None


def _four(values: Sequence[int]) -> tuple[int, int, int, int]:
    a, b, c, d = map(int, values)
    return a, b, c, d
