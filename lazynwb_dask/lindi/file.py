"""LINDI files: JSON that describes, as Zarr does, what an HDF5 file holds and where its chunks lie.

Small datasets are in the JSON, others are byte ranges of the HDF5 file, those of very many chunks are links
to it (external array links). Groups, attributes, types and shapes are written to an HDF5 file image in
memory, so that jobs on HDF5 files run on LINDI files too. A remote LINDI file may not name local files,
unless the user allows it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from lazynwb_dask.errors import NWBError, NWBReadError, UnsupportedColumnError
from lazynwb_dask.hdf5.external import REFUSED
from lazynwb_dask.hdf5.sparse_file import Job, Miss, SparseFile, attempt
from lazynwb_dask.lindi.references import Contents, parse
from lazynwb_dask.model.elements import walk
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, Extents, Layout
from lazynwb_dask.model.limits import check_extents, check_shape
from lazynwb_dask.model.source import Source, is_local, links, local_path, shown
from lazynwb_dask.nwb.jobs import ListChunks
from lazynwb_dask.storage import Request, fetch, open_source
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.util.lru import Cache
from lazynwb_dask.zarr.array import Array, element_of, element_of_objects, filters_of, layout_of
from lazynwb_dask.zarr.file_image import file_image

R = TypeVar("R")

FIRST = 1 << 20  # bytes of the first request
MAX_FILE = 256 << 20  # bytes of a LINDI file
MAX_PARTS = 64  # files that one refers to
MEMORY = 6  # bytes of parsed JSON for each byte of text, about
_STORES = frozenset({"http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
_POINTERS = ("string", "sequence")

_contents = Cache[Contents]("LINDI files")
_values = Cache[np.ndarray]("LINDI values")


def load(source: Source, access: FileAccess) -> tuple[Source, Contents]:
    """A LINDI file with its size and version, and its parsed content.

    Raises NWBReadError if it can't be read, or is no LINDI file.
    """
    cached = _contents.get(source.key) if source.etag is not None else None
    if cached is not None:
        return source, cached
    source = replace(source, parts=())
    source, head = open_source(source, FIRST, access)
    assert source.size is not None
    if source.size > MAX_FILE:
        raise NWBReadError(f"{shown(source.url)}: a LINDI file of {source.size} bytes; the limit is {MAX_FILE}")
    text = bytearray(head) + bytearray(source.size - len(head))

    def sink(data: memoryview) -> None:
        text[len(head) :] = data

    if source.size > len(head):
        fetch(source, [Request(len(head), source.size, sink)], access)
    found = parse(bytes(text), shown(source.url))
    if source.etag is not None:
        _contents.put(source.key, found, MEMORY * source.size)
    return source, found


class Lindi:
    """Runs jobs on a LINDI file, as `metadata.hdf5_file.HDF5File` does on an HDF5 file.

    With `allow_external_links`, a remote file may name local ones. `open_part` opens an HDF5 file for jobs.
    The attribute `source` has its size and version, and the files that it refers to.
    """

    blocks = None  # its values lie in other files

    def __init__(
        self,
        source: Source,
        access: FileAccess,
        allow_external_links: bool,
        open_part: Callable[[Source, FileAccess], Any],
    ) -> None:
        self._open_part = open_part
        source, self.contents = load(source, access)
        self.name = shown(source.url)
        self.access, self.allow = access, allow_external_links
        urls = self.contents.urls
        if len(urls) > MAX_PARTS:
            raise NWBReadError(f"{self.name}: it refers to {len(urls)} files; the limit is {MAX_PARTS}")
        self._refused: dict[str, str] = {}
        parts = []
        self._begins: dict[str, tuple[int, int]] = {}
        begin = 0
        for url in urls:
            where = self._allowed(source.url, url)
            if where is None:
                continue
            part, _ = open_source(Source(where), 1, access)
            parts.append(part)
            self._begins[url] = (begin, len(parts) - 1)
            begin += part.size or 0
        self.source = replace(source, parts=tuple(parts))
        self._passes: dict[int, Any] = {}
        self._whole: bytes | None = None
        self._links: dict[str, ArrayIndex | UnsupportedColumnError] = {}

    def run(self, job: Job[R]) -> R:
        """The result of a job. See `metadata.formats.OpenedFile`."""
        paths: tuple[str, ...] | None = getattr(job, "paths", None)
        data = self._whole
        if data is None:
            data = file_image(self.contents, paths).data
            if paths is None:
                self._whole = data
        while True:
            sparse = _FileImage(data, self)
            result = attempt(sparse, self.name, job)
            if not sparse.missing:
                return result  # type: ignore[return-value]
            for path, (url, name) in sparse.links.items():
                try:
                    self._links[path] = self._linked_array(url, name)
                except UnsupportedColumnError as exc:
                    self._links[path] = exc

    def _allowed(self, here: str, url: str) -> str | None:
        """The URL of a file that this one names; None if it may not be read."""
        local, chained = is_local(url), len(links(url)) > 1
        if local and is_local(here):
            return os.path.join(os.path.dirname(local_path(here)), local_path(url))
        scheme = urlsplit(url).scheme
        known = scheme in _STORES or (scheme == urlsplit(here).scheme and scheme != "")
        if not self.allow and (local or chained or not known):
            what = "a local file" if local else "a store that such files don't name"
            self._refused[url] = f"its values lie in {shown(url)}, {what}: {REFUSED}"
            return None
        if self.access.options.exposes_secrets(url) and urlsplit(url).netloc != urlsplit(here).netloc:
            raise NWBReadError(
                f"{self.name}: it names {shown(url)}, to which the secrets in storage_options would "
                "be sent; give them by the beginning of the URL that they are meant for, as in "
                "storage_options={'https://host/': {...}}"
            )
        return os.path.abspath(local_path(url)) if local else url

    def knows(self, path: str) -> bool:
        """Whether a linked dataset has been looked up in its HDF5 file."""
        return path in self._links

    def array(self, path: str) -> ArrayIndex:
        """Where the values of a dataset lie, by its path without links.

        Raises UnsupportedColumnError if they can't be read.
        """
        found = self._links.get(path)
        if isinstance(found, UnsupportedColumnError):
            raise found
        if found is not None:
            return found
        array = self.contents.array(path)
        if self.contents.is_inlined(path, array):
            return self._inlined(path, array)
        return self._chunked(path, array)

    def _inlined(self, path: str, array: Array) -> ArrayIndex:
        """The index of values in the JSON. They are read by their path."""
        filters_of(array)  # raises for an unknown codec
        if array.fields is not None:
            element = element_of_objects(array.fields)
        elif array.is_object or array.dtype[1] == "U":
            element = ("string",)
        else:
            element = element_of(array.numpy)
        shape = array.shape or (1,)
        layout = Layout(element, shape[1:], external=path)
        check_shape(layout, shape[0], self.source.size or 0)
        return ArrayIndex.without_chunks(layout, shape[0])

    def _chunked(self, path: str, array: Array) -> ArrayIndex:
        """The index of chunks that are byte ranges of other files."""
        if not array.shape or array.is_object:
            what = "objects in another file" if array.is_object else "a Zarr array without dimensions"
            raise UnsupportedColumnError(what)
        layout, rows = layout_of(array), array.shape[0]
        check_shape(layout, rows, self.source.reach)
        if not math.prod(array.grid):
            absent = Extents(rows, np.full(1, UNDEFINED, "<u8"), np.zeros(1, "<u8"))
            return ArrayIndex(replace(layout, chunk=None), absent)
        offsets = np.full(math.prod(array.grid), UNDEFINED, "<u8")
        sizes = np.zeros(len(offsets), "<u8")
        for i, (url, offset, size) in self.contents.ranges(path, array):
            begin, number = self._begin(url)
            if offset + size > (self.source.parts[number].size or 0):
                raise NWBReadError(f"truncated or damaged: it refers beyond the end of {shown(url)}")
            offsets[i], sizes[i] = begin + offset, size
        found = Extents(rows, offsets, sizes)
        index = _contiguous(layout, found)
        check_extents(index.layout, index.extents, self.source.reach)
        return index

    def _begin(self, url: str) -> tuple[int, int]:
        """The byte position at which a file begins (see `Source.parts`), and its number."""
        if url not in self._begins:
            raise UnsupportedColumnError(self._refused[url])
        return self._begins[url]

    def _linked_array(self, url: str, name: str) -> ArrayIndex:
        """The index of a dataset by an external array link."""
        begin, number = self._begin(url)
        if number not in self._passes:
            part = self.source.parts[number]
            self._passes[number] = self._open_part(part, self.access)
        path = "/" + name.strip("/")
        try:
            found = self._passes[number].run(ListChunks(path)).columns[path].arrays[0]
        except NWBReadError as exc:
            if type(exc) is not NWBReadError:
                raise  # the file can't be reached
            raise UnsupportedColumnError(str(exc)) from None
        layout, extents = found.layout, found.extents
        kinds = {element[0] for element in walk(layout.element)}
        if "reference" in kinds:
            raise UnsupportedColumnError(f"references, left in {shown(url)}; read them from there")
        if not kinds.isdisjoint(_POINTERS) and number < len(self.source.parts) - 1:
            raise UnsupportedColumnError("texts that are left in one of several HDF5 files")
        shift = np.where(extents.offsets == UNDEFINED, 0, begin).astype("<u8")
        root = extents.root if extents.root == UNDEFINED else extents.root + begin
        heap = tuple(at + begin for at in extents.heap)
        moved = replace(extents, offsets=extents.offsets + shift, root=root, heap=heap)
        return ArrayIndex(replace(layout, user_block=layout.user_block + begin), moved)


def _contiguous(layout: Layout, extents: Extents) -> ArrayIndex:
    """An index of contiguous data, where chunks follow one another and have no filters."""
    assert layout.chunk is not None
    offsets, sizes = extents.offsets, extents.sizes
    step = np.uint64(math.prod(layout.chunk) * layout.element_bytes)
    nbytes = extents.rows * layout.row_bytes
    if (
        not layout.filters
        and layout.chunk[1:] == layout.item
        and (offsets != UNDEFINED).all()
        and (sizes[:-1] == step).all()
        and (np.diff(offsets) == sizes[:-1]).all()
        and int(sizes.sum()) >= nbytes
    ):
        whole = Extents(extents.rows, offsets[:1], np.array([nbytes], "<u8"))
        return ArrayIndex(replace(layout, chunk=None), whole)
    return ArrayIndex(layout, extents)


class _FileImage(SparseFile):
    """A file image, all of which is present, and where the values lie that it lacks."""

    metadata_only = True

    def __init__(self, data: bytes, lindi: Lindi) -> None:
        super().__init__(len(data))
        self.put(0, data)
        self._lindi = lindi
        self.links: dict[str, tuple[str, str]] = {}
        """By path, the datasets to look up in other files before the next pass."""

    @property
    def missing(self) -> bool:
        return bool(self.links)

    def array(self, path: str) -> ArrayIndex | None:
        path = self._lindi.contents.resolved(path)
        link = self._lindi.contents.link(path)
        if link is not None and not self._lindi.knows(path):
            self.links[path] = link
            raise Miss(path)
        return self._lindi.array(path)


Rows = tuple[Layout, np.ndarray, np.ndarray]


def inlined_rows(source: Source, wanted: Sequence[Rows], access: FileAccess) -> list[np.ndarray]:
    """The row ranges (starts, stops) of datasets with values in the JSON, an array for each dataset.

    Each holds the ranges one after the other: stored bytes as uint8, or elements with texts as objects.
    """
    source, contents = load(source, access)
    found = []
    for layout, starts, stops in wanted:
        try:
            found.append(_rows(values(source, contents, layout.external), layout, starts, stops))
        except NWBError as exc:
            raise type(exc)(f"{shown(source.url)}: {layout.external}: {exc}") from None
    return found


def _rows(whole: np.ndarray, layout: Layout, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    pairs = zip(starts.tolist(), stops.tolist(), strict=True)
    flat = np.concatenate([whole[a:b].reshape(-1) for a, b in pairs])
    if flat.dtype.hasobject:
        return flat
    raw = np.ascontiguousarray(flat).view(np.uint8)
    if raw.size != int((stops - starts).sum()) * layout.row_bytes:
        raise NWBReadError("damaged: its values are of another size than planned with")
    return raw


def values(source: Source, contents: Contents, path: str) -> np.ndarray:
    """All values of a dataset whose values are in the JSON."""
    key = (source.key, path)
    found = _values.get(key) if source.etag is not None else None
    if found is None:
        found = contents.values(path)
        if source.etag is not None:
            _values.put(key, found, found.nbytes * (8 if found.dtype.hasobject else 1) + 100)
    return found
