"""A file's metadata, opened: HDF5 or LINDI, in this process or in a helper.

What is wanted of a file is a `Job`. `MetadataReader` runs it over what is here of the file, fetches what was
missing, and runs it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5.sparse_file import (
    HEAD,
    MAX_METADATA,
    MAX_WAVES,
    WHOLE,
    Job,
    SparseFile,
    attempt,
)
from lazynwb_dask.isolation.helpers import Attempts
from lazynwb_dask.lindi.file import Lindi
from lazynwb_dask.model.source import Source, is_lindi, shown
from lazynwb_dask.storage import Settings, block_cache, fetch, open_source
from lazynwb_dask.storage.options import Options
from lazynwb_dask.storage.settings import IsolatedSettings

R = TypeVar("R")


class MetadataReader:
    """Runs jobs on one file's metadata. The bytes that they need are fetched in waves between the runs.

    Attributes
    ----------
    source : Source
        With the size and the validator that the first answer gave.

    Raises
    ------
    NWBReadError
        When the file can't be read.
    """

    def __init__(
        self,
        source: Source,
        options: Options,
        settings: Settings,
        allow_external_links: bool = False,
    ) -> None:
        self._lindi: Lindi | None = None
        if is_lindi(source.url):
            self._lindi = Lindi(source, options, settings, allow_external_links, MetadataReader)
            self.source = self._lindi.source
            return
        source, head = open_source(source, HEAD, options, settings)
        assert source.size is not None
        self.source, self.options, self.settings = source, options, settings
        self.name = shown(source.url)
        self.sparse = SparseFile(source.size)
        self.sparse.put(0, head)
        if source.size <= WHOLE and self.sparse.need(len(head), source.size):
            self._fetch()
        # the tail of a large file goes along with the first wave
        self._tail = source.size - HEAD if source.size > WHOLE else None
        self._attempt: Callable[[SparseFile, str, Job[Any]], Any] = attempt
        if isinstance(settings, IsolatedSettings):
            self._attempt = Attempts(settings)

    def run(self, job: Job[R]) -> R:
        """The result of a job.

        Raises
        ------
        NWBReadError
            When the file can't be read, or isn't HDF5, or is damaged.
        """
        if self._lindi is not None:
            return self._lindi.run(job)
        sparse = self.sparse
        for _ in range(MAX_WAVES):
            result: R = self._attempt(sparse, self.name, job)
            if not sparse.missing:
                if sparse.size > WHOLE:
                    block_cache.keep(self.source, sparse.block, sparse.here)
                return result
            if self._tail is not None:
                sparse.need(self._tail, sparse.size)
                self._tail = None
            if sparse.held + sparse.wanted > MAX_METADATA:
                break
            self._fetch()
        raise NWBReadError(
            f"{self.name}: the metadata are spread over more than {MAX_METADATA >> 20} MiB or "
            f"{MAX_WAVES} round trips: the file is damaged"
        )

    def _fetch(self) -> None:
        fetch(self.source, self.sparse.requests(), self.options, self.settings)


def run(source: Source, options: Options, settings: Settings, job: Job[R]) -> tuple[Source, R]:
    """The result of one job on one file. See `MetadataReader`."""
    passes = MetadataReader(source, options, settings)
    return passes.source, passes.run(job)
