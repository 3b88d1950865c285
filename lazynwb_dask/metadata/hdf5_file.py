"""An HDF5 file's metadata, read by libhdf5 in this process or in a helper process. A `Job` runs on the
blocks that were fetched. If it needs others, these are fetched together, and it runs again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5.sparse_file import ENDS, MAX_METADATA, MAX_WAVES, Job, SparseFile, attempt
from lazynwb_dask.isolation.helpers import Attempts
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.storage import block_cache, fetch, open_ends
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.settings import IsolatedSettings

R = TypeVar("R")
PATIENCE = 8  # round trips before blocks are read ahead; ordinary tables need fewer


class HDF5File:
    """An HDF5 file that runs jobs. See `OpenedFile`.

    With `blocks` that were kept of this version of the file, it isn't opened: only others are requested.
    """

    def __init__(self, source: Source, access: FileAccess, blocks: block_cache.Blocks | None = None) -> None:
        self.access = access
        self.name = shown(source.url)
        self._attempt: Callable[[SparseFile, str, Job[Any]], Any] = partial(attempt, stay=True)
        if isinstance(access.settings, IsolatedSettings):
            self._attempt = Attempts(access.settings)
        self._tail: int | None = None
        self.asked = blocks is None  # whether anything was requested
        if blocks is None:
            self._open(source)
            return
        self.source = source
        assert source.size is not None
        self.sparse = SparseFile(source.size, blocks.block)
        for number, block in blocks.blocks.items():
            self.sparse.put(number * blocks.block, block)

    def _open(self, source: Source) -> None:
        self.source, head, tail = open_ends(source, ENDS, self.access)
        size = self.source.size
        assert size is not None
        self.sparse = SparseFile(size)
        self.sparse.put(0, head)
        start = -(-(size - len(tail)) // self.sparse.block) * self.sparse.block
        self.sparse.put(start, tail[start - size + len(tail) :])
        if size <= ENDS.whole and self.sparse.need(len(head), size):
            self._fetch()
        # the tail of a large file is fetched in the first wave
        self._tail = size - ENDS.tail if size > ENDS.whole and not tail else None

    @property
    def blocks(self) -> block_cache.Blocks:
        """See `OpenedFile.blocks`."""
        return block_cache.Blocks(self.sparse.block, self.sparse.present)

    def run(self, job: Job[R]) -> R:
        """Run a job. See `OpenedFile.run`."""
        try:
            return self._run(job)
        finally:
            self.sparse.leave()

    def _run(self, job: Job[R]) -> R:
        sparse = self.sparse
        for wave in range(MAX_WAVES):
            result: R = self._attempt(sparse, self.name, job)
            if not sparse.missing:
                block_cache.keep(self.source, sparse.block, sparse.present)
                return result
            sparse.widen(wave)
            if self._tail is not None:
                sparse.need(self._tail, sparse.size)
                self._tail = None
            if wave >= PATIENCE and sparse.present_bytes < MAX_METADATA // 2:
                sparse.read_ahead()
            if sparse.present_bytes + sparse.missing_bytes > MAX_METADATA:
                break
            self._fetch()
        raise NWBReadError(
            f"{self.name}: the metadata are spread over more than {MAX_METADATA >> 20} MiB or "
            f"{MAX_WAVES} round trips: the file is damaged"
        )

    def _fetch(self) -> None:
        self.asked = True
        fetch(self.source, self.sparse.requests(), self.access, quick=True)
