"""One table's index as bytes: what caches and catalogs keep of a file.

An entry is a header, a checksum, and a compressed body of JSON and chunk positions. Nothing in it is
evaluated or unpickled; bytes that are not an entry of this very format are no entry.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass

from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.table_json import pack_table, unpack_table

MAGIC = b"nwb-index"
FORMAT = 3
MAX_BODY = 1 << 30  # decoded bytes: whatever is larger was not written here
_CHECKSUM = 16


@dataclass(frozen=True, eq=False)
class Entry:
    """What was learned of one version of a file.

    Parameters
    ----------
    name : str
        The file, as messages show it.
    size : int
    etag : str
        The version that this was learned of.
    table : TableIndex or None
        None: the file doesn't have the table.
    paths : tuple of str or None
        The paths of all its tables, where these were asked for.
    """

    name: str
    size: int
    etag: str
    table: TableIndex | None = None
    paths: tuple[str, ...] | None = None


def dump(entry: Entry) -> bytes:
    """An entry as bytes.

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
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    raw = b"".join([len(text).to_bytes(8, "little"), text, *extents])
    body = zlib.compress(raw, 3)
    return MAGIC + bytes([FORMAT]) + hashlib.blake2b(body, digest_size=_CHECKSUM).digest() + body


def load(data: bytes) -> Entry | None:
    """The entry that bytes hold; None if they are damaged, or of another format."""
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
    )
