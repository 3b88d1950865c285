"""The bytes that index caches and catalogs keep of a table: a header, a checksum, and compressed JSON with
chunk positions. Nothing in them is evaluated or unpickled."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass

from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.table_json import pack_table, unpack_table
from lazynwb_dask.storage.settings import Run

MAGIC = b"nwb-index"
FORMAT = 7
MAX_BODY = 1 << 30  # decoded bytes: whatever is larger was not written here
_CHECKSUM = 16


@dataclass(frozen=True, eq=False)
class Entry:
    """What one version of a file holds."""

    name: str  # the file, as shown in messages
    size: int
    etag: str  # the version of the file
    table: TableIndex | None = None  # None: the file doesn't have the table
    paths: tuple[str, ...] | None = None  # the paths of all its tables, if they were listed
    runs: tuple[Run, ...] = ()  # of one dataset of timestamps


def dump(entry: Entry) -> bytes:
    """
    >>> held = load(dump(Entry("/data/a.nwb", 10, "1-2", paths=("/units",))))
    >>> held.paths, held.table
    (('/units',), None)
    """
    extents: list[bytes] = []
    head = {
        "name": entry.name,
        "size": entry.size,
        "etag": entry.etag,
        "table": None if entry.table is None else pack_table(entry.table, extents),
        "paths": entry.paths,
        "runs": entry.runs,
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    raw = b"".join([len(text).to_bytes(8, "little"), text, *extents])
    body = zlib.compress(raw, 3)
    return MAGIC + bytes([FORMAT]) + hashlib.blake2b(body, digest_size=_CHECKSUM).digest() + body


def load(data: bytes) -> Entry | None:
    """The entry, or None if the bytes are damaged or of another format."""
    start = len(MAGIC) + 1
    body = data[start + _CHECKSUM :]
    digest = hashlib.blake2b(body, digest_size=_CHECKSUM).digest()
    if data[:start] != MAGIC + bytes([FORMAT]) or data[start : start + _CHECKSUM] != digest:
        return None
    try:
        return _loaded(body)
    except (zlib.error, ValueError, KeyError, TypeError, IndexError):
        return None


def _loaded(body: bytes) -> Entry:
    stream = zlib.decompressobj()
    raw = stream.decompress(body, MAX_BODY)
    if not stream.eof:
        raise ValueError("too long")
    begin = 8 + int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8:begin])
    table = head["table"]
    return Entry(
        head["name"],
        int(head["size"]),
        head["etag"],
        None if table is None else unpack_table(table, memoryview(raw)[begin:]),
        None if head["paths"] is None else tuple(head["paths"]),
        tuple((int(a), int(b), float(first), float(last)) for a, b, first, last in head["runs"]),
    )
