"""NWB-Zarr stores. Their metadata are written to an HDF5 file image in memory, so that jobs on HDF5 files run
on them too. The few values that a job reads are fetched all at once, once it is known which."""

from __future__ import annotations

from bisect import bisect_right
from typing import TypeVar

from lazynwb_dask.hdf5.sparse_file import Job, SparseFile, attempt
from lazynwb_dask.model.index import ArrayIndex
from lazynwb_dask.model.limits import check_shape
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.zarr.array import stored_layout
from lazynwb_dask.zarr.documents import load
from lazynwb_dask.zarr.fetched import fetch_values
from lazynwb_dask.zarr.file_image import Image, file_image

R = TypeVar("R")


class Store:
    """Runs jobs on a Zarr store, as `metadata.hdf5_file.HDF5File` does on an HDF5 file.

    The attribute `source` has the store's document, and that one's size and version.
    """

    blocks = None  # its values are objects of their own

    def __init__(self, source: Source, access: FileAccess) -> None:
        self.access, self.name = access, shown(source.url)
        self.source, self.contents = load(source, access)
        self._whole: Image | None = None

    def run(self, job: Job[R]) -> R:
        """The result of a job. See `metadata.formats.OpenedFile`."""
        paths: tuple[str, ...] | None = getattr(job, "paths", None)
        while True:
            image = self._whole
            if image is None:
                image = file_image(self.contents, paths)
                self._whole = image if paths is None else None
            sparse = _FileImage(image, self)
            result = attempt(sparse, self.name, job)
            if not sparse.missing:
                return result  # type: ignore[return-value]
            arrays = {path: self.contents.array(path) for path in sorted(sparse.wanted)}
            self.contents.known.update(fetch_values(self.source, arrays, self.access))
            self._whole = None

    def array(self, path: str) -> ArrayIndex:
        """Where the values of a dataset lie, by its path without links.

        Raises UnsupportedColumnError if they can't be read.
        """
        array = self.contents.array(path)
        layout = stored_layout(array, path)
        rows = (array.shape or (1,))[0]
        check_shape(layout, rows, 0)  # what the objects hold is not known
        return ArrayIndex.without_chunks(layout, rows)


class _FileImage(SparseFile):
    """A file image, all of which is present, except values of datasets that can be fetched."""

    metadata_only = True

    def __init__(self, image: Image, store: Store) -> None:
        super().__init__(len(image.data))
        self.put(0, image.data)
        self._absent, self._store = image.absent, store
        self._starts = [start for start, _, _ in image.absent]
        self.wanted: set[str] = set()
        """The paths of datasets whose values are to be fetched before the next pass."""

    @property
    def missing(self) -> bool:
        return bool(self.wanted)

    def need(self, start: int, stop: int) -> bool:
        at = bisect_right(self._starts, start) - 1
        if at >= 0 and start < self._absent[at][1]:
            self.wanted.add(self._absent[at][2])
            return True
        return False

    def array(self, path: str) -> ArrayIndex | None:
        return self._store.array(self._store.contents.resolved(path))
