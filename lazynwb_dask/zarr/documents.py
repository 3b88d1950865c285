"""A store's metadata documents: one that has all, or those of each group and array."""

from __future__ import annotations

from dataclasses import replace

from lazynwb_dask.errors import NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.storage import Request, fetch, open_source
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.util.lru import Cache
from lazynwb_dask.zarr.contents import Contents, consolidated, parsed

FIRST = 1 << 20  # bytes of the first request
MAX_DOCUMENT = 64 << 20  # bytes of one
MEMORY = 12  # bytes of parsed JSON for each byte of text, about
NAMES = (".zmetadata", "zarr.json", ".zgroup")

_contents = Cache[Contents]("Zarr metadata")


def load(source: Source, access: FileAccess) -> tuple[Source, Contents]:
    """A store with its document, that one's size and version, and what its metadata say.

    Raises NWBReadError if it can't be read, or is no store.
    """
    cached = _contents.get(source) if source.etag is not None else None
    if cached is not None:
        return source, cached
    name = shown(source.url)
    source, text = _document(source, access)
    content = parsed(text, f"{name}/{source.document}")
    nodes = consolidated(source.document, content, name)
    if nodes is None:
        raise NWBReadError(f"{name}: not consolidated")
    found = Contents(name, nodes)
    if source.etag is not None:
        _contents.put(source, found, MEMORY * len(text))
    return source, found


def _document(source: Source, access: FileAccess) -> tuple[Source, bytes]:
    """The store's document, whole."""
    for name in (source.document,) if source.document else NAMES:
        where = Source(f"{source.url.rstrip('/')}/{name}", source.size, source.etag)
        try:
            found, head = open_source(where, FIRST, access)
        except NWBFileNotFoundError:
            continue
        assert found.size is not None
        if found.size > MAX_DOCUMENT:
            raise NWBReadError(f"{shown(where.url)}: {found.size} bytes; the limit is {MAX_DOCUMENT}")
        text = bytearray(head) + bytearray(found.size - len(head))

        def sink(data: memoryview, text: bytearray = text, at: int = len(head)) -> None:
            text[at:] = data

        if found.size > len(head):
            fetch(found, [Request(len(head), found.size, sink)], access)
        return replace(source, size=found.size, etag=found.etag, document=name), bytes(text)
    raise NWBFileNotFoundError(f"{shown(source.url)}: no Zarr store is there.")
