"""What is there in place of an HDF5 file: Zarr stores, pointers of git-annex and Git LFS, and the like."""

from __future__ import annotations

from collections.abc import Collection

STORE = ".zarr"
# The documents of which a Zarr store has one: consolidated metadata of version 2; the root group of version 3,
# with consolidated metadata or without; the root group of version 2.
DOCUMENTS = (".zmetadata", "zarr.json", ".zgroup")
ZIPPED = ".zip"  # in place of a document, for a store in a zip file, all of whose objects have one version
ARRAY = ".zarray"  # what an array of version 2 has instead

ZARR_ARRAY = "this is a Zarr array, not a store. Name the store that it is in, and then the array's table."
NOT_FETCHED = "its content isn't here: git-annex (DataLad) keeps it elsewhere; 'datalad get' fetches it."
_NOT_PULLED = "its content isn't here: Git LFS keeps it elsewhere; 'git lfs pull' fetches it."

_STARTS = {
    b"/annex/objects/": NOT_FETCHED,
    b"version https://git-lfs.": _NOT_PULLED,
    b"\x1f\x8b": "it is compressed by gzip. Decompress it first.",
    b"pk\x03\x04": "it is a zip file. If it has a Zarr store, its name must end in .zip; else name what is in "
    "it, as zip://NAME::PATH.",
    b"\x0e\x03\x13\x01": "it is an HDF4 file.",
    b"{": "it is JSON. Of a Zarr store, name its folder; the name of a LINDI file ends in .lindi.json.",
    b"<!doctype html": "it is a web page. Check the address, and whether it asks for a login.",
    b"<html": "it is a web page. Check the address, and whether it asks for a login.",
}


def document_of(entries: Collection[str]) -> str:
    """The metadata document of the Zarr store that a folder with these entries is; empty if it is none.

    >>> document_of([".zgroup", "units", ".zmetadata"]), document_of(["a.nwb"])
    ('.zmetadata', '')
    """
    return next((name for name in DOCUMENTS if name in entries), "")


def recognized(head: bytes) -> str:
    """What a file that isn't HDF5 is, by its first bytes; empty if that isn't known.

    >>> recognized(b"version https://git-lfs.github.com/spec/v1\\n")
    "its content isn't here: Git LFS keeps it elsewhere; 'git lfs pull' fetches it."
    """
    start = head.lstrip()[:32].lower()
    return next((what for begin, what in _STARTS.items() if start.startswith(begin)), "")
