"""The one file that says which files a catalog consists of."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from lazynwb_dask._version import __version__
from lazynwb_dask.catalog.batch import What
from lazynwb_dask.catalog.folder import Place
from lazynwb_dask.catalog.layout import FORMAT, MANIFEST
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.source import shown


@dataclass(frozen=True)
class Manifest:
    """What a catalog consists of. Everything it names is never changed.

    Parameters
    ----------
    index : dict
        By what is in it, name and size of a Parquet file.
    values : dict
        Names and sizes of the Parquet files of values.
    sections : dict
        By table, its first row and the row after its last in ``tables``, and the same in ``columns``.
    files : int
    unreadable : int
    what : What
    paths : tuple of str
        What the user named, for `refresh`.
    superseded : dict
        Files of earlier snapshots, which whoever opened one may still read, and since when (in seconds
        since 1970) they are not part of the catalog any more.
    snapshot, created, library
    """

    index: Mapping[str, tuple[str, int]]
    values: Mapping[str, int]
    sections: Mapping[str, tuple[int, int, int, int]]
    files: int
    unreadable: int
    what: What
    paths: tuple[str, ...]
    superseded: Mapping[str, int] = field(default_factory=dict)
    snapshot: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    library: str = __version__

    @property
    def names(self) -> set[str]:
        """All files that it refers to."""
        return {name for name, _ in self.index.values()} | set(self.values)

    def write(self, place: Place) -> None:
        """Make this the catalog, all at once."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1)
        place.write(MANIFEST, text.encode())


def read_manifest(place: Place, *, replaced: bool = False) -> Manifest | None:
    """The catalog in a folder; None if there is none.

    Parameters
    ----------
    replaced : bool
        It is about to be replaced: one that this version of the library can't read counts as none.

    Raises
    ------
    NWBReadError
        There is one that this version of the library can't read.
    """
    data = place.read(MANIFEST)
    if data is None:
        return None
    try:
        return _parsed(data, place)
    except NWBReadError:
        if replaced:
            return None
        raise


def _parsed(data: bytes, place: Place) -> Manifest:
    again = "build it again with build_catalog"
    try:
        held: dict[str, Any] = json.loads(data)
        number = held.pop("format")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NWBReadError(
            f"{shown(place.url)}: {MANIFEST} is not that of a catalog; {again}"
        ) from None
    if number != FORMAT:
        raise NWBReadError(
            f"{shown(place.url)}: a catalog of format {number}, made by lazynwb_dask "
            f"{held.get('library')}; this version reads format {FORMAT}; {again}"
        )
    try:
        what = held.pop("what")
        return Manifest(
            index={k: (str(name), int(size)) for k, (name, size) in held.pop("index").items()},
            sections={k: _four(v) for k, v in held.pop("sections").items()},
            what=What(
                None if what["tables"] is None else tuple(what["tables"]), what["values_limit"]
            ),
            paths=tuple(held.pop("paths")),
            superseded={str(k): int(v) for k, v in held.pop("superseded").items()},
            **held,
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        raise NWBReadError(f"{shown(place.url)}: a damaged {MANIFEST}; {again}") from None


def _four(values: Sequence[int]) -> tuple[int, int, int, int]:
    a, b, c, d = map(int, values)
    return a, b, c, d
