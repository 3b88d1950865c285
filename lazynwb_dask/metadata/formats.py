"""The file formats. No other package depends on a file's format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5.external import external_rows
from lazynwb_dask.hdf5.sparse_file import Job
from lazynwb_dask.lindi.file import Lindi, inlined_rows
from lazynwb_dask.metadata.hdf5_file import HDF5File
from lazynwb_dask.model.index import Layout
from lazynwb_dask.model.source import Source, is_lindi, is_zip
from lazynwb_dask.sources.stores import file_or_store, is_store, why_not_nwb
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.block_cache import Blocks
from lazynwb_dask.zarr.store import Store

R = TypeVar("R")

Rows = tuple[Layout, np.ndarray, np.ndarray]
"""Row ranges of a dataset: its layout, and where they start and stop."""


class OpenedFile(Protocol):
    """A file that runs jobs, one after the other."""

    source: Source  # with size and validator from the first response

    @property
    def blocks(self) -> Blocks | None:
        """What was fetched of it, if that has values as they are stored."""

    def run(self, job: Job[R]) -> R:
        """Run a job. Raises NWBReadError if the file can't be read, is of another format, or is damaged."""


@dataclass(frozen=True)
class Format:
    """How files of one format are read. `open` takes a source, the access and `allow_external_links`;
    `read_rows` reads values that aren't byte ranges of the file."""

    recognizes: Callable[[Source], bool]  # whether a source has the format
    open: Callable[[Source, FileAccess, bool], OpenedFile]
    read_rows: Callable[[Source, Sequence[Rows], FileAccess], list[np.ndarray]]
    is_index: bool = False  # whether files are indexes of others and need no cached index


def _open_lindi(source: Source, access: FileAccess, allow_external_links: bool) -> Any:
    return Lindi(source, access, allow_external_links, HDF5File)


def _external_rows(source: Source, wanted: Sequence[Rows], access: FileAccess) -> list[np.ndarray]:
    return [external_rows(source, *one) for one in wanted]


def _open_store(source: Source, access: FileAccess, allow_external_links: bool) -> Any:
    store = Store(source, access)
    if "nwb_version" not in store.contents.attributes("/"):
        raise NWBReadError(why_not_nwb(source, access))
    return store


LINDI = Format(lambda source: is_lindi(source.url), _open_lindi, inlined_rows, is_index=True)
HDF5 = Format(lambda source: True, lambda s, a, links: HDF5File(s, a), _external_rows)
ZARR = Format(is_store, _open_store, lambda s, wanted, a: [])
FORMATS = (LINDI, ZARR, HDF5)


def format_of(source: Source) -> Format:
    """The first format that recognizes the source. Of a Zarr store its document must be known, or its name must
    be that of a store."""
    return next(one for one in FORMATS if one.recognizes(source))


def open_file(source: Source, access: FileAccess, allow_external_links: bool) -> OpenedFile:
    """A file or Zarr store for jobs. Where it isn't known which it is, its content tells."""

    def as_file() -> tuple[OpenedFile, bytes]:
        file = HDF5File(source, access)
        return file, bytes(file.sparse.present.get(0, b"")[:64])

    if LINDI.recognizes(source):
        return LINDI.open(source, access, allow_external_links)
    if is_zip(source.url):
        return ZARR.open(source, access, allow_external_links)
    return file_or_store(source, as_file, lambda: ZARR.open(source, access, allow_external_links))
