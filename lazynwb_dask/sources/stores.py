"""Zarr stores: the metadata document by which one is told, and its version."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from lazynwb_dask.errors import NWBFileNotFoundError, NWBPermissionError, NWBReadError
from lazynwb_dask.model.other_files import ARRAY, DOCUMENTS, STORE, ZARR_ARRAY, ZIPPED, document_of
from lazynwb_dask.model.source import Source, above, inside, is_zip, shown
from lazynwb_dask.storage import Request, fetch, open_source, zip_members
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.archives import is_zarr_asset

T = TypeVar("T")

FIRST = 1 << 20  # bytes of the first request for a document
MAX_DOCUMENT = 64 << 20

# The document that was found last, by host or bucket: it is tried first.
_found_last: dict[str, str] = {}


def is_store(source: Source) -> bool:
    """Whether a source is a Zarr store, by what is known of it, or by its name."""
    name = shown(source.url).rstrip("/")
    return bool(source.document) or (source.size is None and (name.endswith(STORE) or is_zarr_asset(name)))


def file_or_store(source: Source, as_file: Callable[[], tuple[T, bytes]], as_store: Callable[[], T]) -> T:
    """What one of two functions returns: for files, the beginning of the file too, or for Zarr stores.

    Where neither what is known of it nor its name tells which it is, it is taken to be a file first. The error
    for what isn't there is that of a file.
    """
    absent = (NWBFileNotFoundError, NWBPermissionError)
    first = is_store(source)
    if first:
        try:
            return as_store()
        except absent:
            if source.document:
                raise
    try:
        found, head = as_file()
    except absent:
        if first or source.size is not None:
            raise
        with suppress(*absent):
            return as_store()
        raise
    if head.lstrip().startswith(b"<") and source.size is None:  # a web page in place of a folder
        with suppress(*absent):
            return as_store()
    return found


def open_document(source: Source, nbytes: int, access: FileAccess) -> tuple[Source, bytes]:
    """A Zarr store with its document, size and version, and the first `nbytes` of the document.

    The version is unknown where the metadata lie in many documents, so that none tells whether others changed:
    in version 2. In version 3, only the caller can tell. Raises NWBFileNotFoundError if there is no store.
    """
    place = "/".join(source.url.split("/", 3)[:3])
    names = [source.document] if source.document else [*DOCUMENTS, ARRAY]
    refused: NWBReadError | None = None
    for name in sorted(names, key=lambda name: name != _found_last.get(place)):
        known = Source(inside(source.url, name), source.size, source.etag)
        try:
            document, head = open_source(known, nbytes, access)
        except (NWBFileNotFoundError, NWBPermissionError) as error:  # S3 says the latter of what isn't there
            if isinstance(error, NWBPermissionError) or source.document:
                refused = refused or error
            continue
        if head.lstrip().startswith(b"<"):  # the web page of a server that finds everything
            continue
        if name == ARRAY:
            raise NWBReadError(f"{shown(source.url)}: {ZARR_ARRAY}")
        if name == DOCUMENTS[-1]:  # a store with consolidated metadata has it, too
            return replace(source, size=document.size, etag=None, document=name), head
        _found_last[place] = name
        return replace(source, size=document.size, etag=document.etag, document=name), head
    if refused is not None:
        raise refused
    raise NWBFileNotFoundError(f"{shown(source.url)}: no Zarr store is there.")


def opened_zip(source: Source, access: FileAccess) -> Source:
    """A Zarr store in a zip file, with the file's size and version."""
    return replace(open_source(replace(source, document=""), 1, access)[0], document=ZIPPED)


def read_document(source: Source, access: FileAccess) -> tuple[Source, str, bytes]:
    """A Zarr store with its document, size and version, and the document's name and content.

    Of a store in a zip file, size and version are the file's. Otherwise see `open_document`.
    """
    if is_zip(source.url):
        source, head = opened_zip(source, access), b""
        members = zip_members(source, access)
        name = document_of(members.keys)
        size: int | None = members[name].size
    else:
        source, head = open_document(source, FIRST, access)
        name, size = source.document, source.size
    assert size is not None
    if size > MAX_DOCUMENT:
        raise NWBReadError(f"{shown(source.url)}: metadata of {size} bytes; the limit is {MAX_DOCUMENT}")
    text = bytearray(head) + bytearray(size - len(head))

    def sink(data: memoryview) -> None:
        text[len(head) :] = data

    if size > len(head):
        fetch(source, [Request(len(head), size, sink, name, exact=True)], access)
    return source, name, bytes(text)


def why_not_nwb(source: Source, access: FileAccess) -> str:
    """The error for a Zarr group that is no NWB file: it may be inside one."""
    store, url = "", above(source.url)
    while url is not None and url != store:
        try:
            open_document(Source(url), 1, access)
        except NWBReadError:
            break
        store, url = url, above(url)
    name = shown(source.url)
    if not store:
        return f"{name}: a Zarr store, but not NWB: it has no nwb_version"
    group = name.removeprefix(shown(store))
    return (
        f"{name}: a group inside the Zarr store {shown(store)}. Name the store, and then the group as a table: "
        f"read_nwb({shown(store)!r}, {group!r})"
    )
