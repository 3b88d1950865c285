"""What is there in place of an HDF5 file: Zarr stores, pointers of git-annex and Git LFS, and the like."""

from __future__ import annotations

from collections.abc import Iterable

STORE = ".zarr"
# A folder with any of these is a Zarr store or group, version 2 or 3.
MARKERS = frozenset({".zgroup", ".zattrs", ".zmetadata", "zarr.json"})

NO_ZARR = "this is a Zarr store. Zarr isn't supported yet: files are read in HDF5, and as LINDI."
NOT_FETCHED = "its content isn't here: git-annex (DataLad) keeps it elsewhere; 'datalad get' fetches it."
_NOT_PULLED = "its content isn't here: Git LFS keeps it elsewhere; 'git lfs pull' fetches it."

_STARTS = {
    b"/annex/objects/": NOT_FETCHED,
    b"version https://git-lfs.": _NOT_PULLED,
    b"\x1f\x8b": "it is compressed by gzip. Decompress it first.",
    b"\x0e\x03\x13\x01": "it is an HDF4 file.",
    b"<!doctype html": "it is a web page. Check the address, and whether it asks for a login.",
    b"<html": "it is a web page. Check the address, and whether it asks for a login.",
}


def is_zarr(name: str, entries: Iterable[str] = ()) -> bool:
    """Whether a folder, or prefix, is a Zarr store: by its name, or by what is in it."""
    return name.rstrip("/").endswith(STORE) or not MARKERS.isdisjoint(entries)


def recognized(head: bytes) -> str:
    """What a file that isn't HDF5 is, by its first bytes; empty if that isn't known.

    >>> recognized(b"version https://git-lfs.github.com/spec/v1\\n")
    "its content isn't here: Git LFS keeps it elsewhere; 'git lfs pull' fetches it."
    """
    start = head.lstrip()[:32].lower()
    return next((what for begin, what in _STARTS.items() if start.startswith(begin)), "")
