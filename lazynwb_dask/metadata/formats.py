"""The formats that files have: each plugs in here, and no other room asks which one a file is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from lazynwb_dask.hdf5.external import external_rows
from lazynwb_dask.hdf5.sparse_file import Job
from lazynwb_dask.lindi.file import Lindi, inlined_rows
from lazynwb_dask.metadata.hdf5_file import HDF5File
from lazynwb_dask.model.index import Layout
from lazynwb_dask.model.source import Source, is_lindi
from lazynwb_dask.storage.access import FileAccess

R = TypeVar("R")

Rows = tuple[Layout, np.ndarray, np.ndarray]
"""Row ranges of a dataset: its layout, and where they start and stop."""


class OpenedFile(Protocol):
    """A file of which jobs can be asked, one after the other.

    Attributes
    ----------
    source : Source
        With the size and the validator that the first response gave.
    """

    source: Source

    def run(self, job: Job[R]) -> R:
        """The result of a job.

        Raises
        ------
        NWBReadError
            When the file can't be read, is of another format, or is damaged.
        """


@dataclass(frozen=True)
class Format:
    """How files of one format are read.

    Attributes
    ----------
    recognizes : callable
        Whether a source is of the format.
    open : callable
        Opens a source: ``open(source, access, allow_external_links)``.
    read_rows : callable
        Reads values that are no byte ranges of the file: ``read_rows(source, wanted, access)``.
    is_index : bool
        Whether a file is but an index of what lies elsewhere: then its own index need not be kept.
    """

    recognizes: Callable[[Source], bool]
    open: Callable[[Source, FileAccess, bool], OpenedFile]
    read_rows: Callable[[Source, Sequence[Rows], FileAccess], list[np.ndarray]]
    is_index: bool = False


def _open_lindi(source: Source, access: FileAccess, allow_external_links: bool) -> Any:
    return Lindi(source, access, allow_external_links, HDF5File)


def _external_rows(source: Source, wanted: Sequence[Rows], access: FileAccess) -> list[np.ndarray]:
    return [external_rows(source, *one) for one in wanted]


LINDI = Format(lambda source: is_lindi(source.url), _open_lindi, inlined_rows, is_index=True)
HDF5 = Format(lambda source: True, lambda s, a, links: HDF5File(s, a), _external_rows)
FORMATS = (LINDI, HDF5)


def format_of(source: Source) -> Format:
    """The format of a source: the first that recognizes it."""
    return next(one for one in FORMATS if one.recognizes(source))
