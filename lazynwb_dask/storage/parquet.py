"""Parquet files in any store, of which only the wanted rows and columns are read.

The footer is read once in a process. Column chunks are fetched as all bytes are: concurrently, retried
after faults, and counted; Arrow reads them from memory. Decoded columns are kept for a while, as many
partitions lie in one row group. Pages have Parquet's checksums. Footers have none, and some that are
damaged would make Arrow end the process; so there is a checksum of 16 bytes before a footer.
"""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.storage import Request, fetch
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.coalesce import bytes_bound
from lazynwb_dask.storage.fetch import gap_and_split
from lazynwb_dask.util.locks import Lock
from lazynwb_dask.util.lru import Cache

TAIL = 64 * 1024  # bytes read of a file's end at first: the footers of most
CHECKSUM = 16  # bytes before a footer
_END = 8  # bytes after it: its length, and a mark

_footers = Cache[pq.FileMetaData]("Parquet footers")
_columns = Cache[pa.ChunkedArray]("Parquet columns")
_locks: dict[tuple[str, int], Lock] = {}
_guard = Lock()


@dataclass(frozen=True)
class ParquetFile:
    """One file that is never changed: its name is its version."""

    url: str
    size: int


def footer(file: ParquetFile, access: FileAccess) -> pq.FileMetaData:
    """What a file holds, and where."""
    known = _footers.get(file)
    if known is None:
        with _lock(file.url, -1):
            known = _footers.get(file)
            if known is None:
                known = _read_footer(file, access)
                _footers.put(file, known, 2 * known.serialized_size + 1000)
    return known


def rows(
    file: ParquetFile, names: Sequence[str], start: int, stop: int, access: FileAccess
) -> dict[str, pa.ChunkedArray]:
    """Rows `start` to `stop` of some columns."""
    ends = _ends(footer(file, access))
    first = int(np.searchsorted(ends, start, "right"))
    last = int(np.searchsorted(ends, stop, "left"))
    groups = range(first, min(last + 1, len(ends))) if stop > start else range(0)
    pieces = [_group(file, group, names, access) for group in groups]
    begin = int(ends[first - 1]) if first else 0
    found = {}
    for name in names:
        chunks = [chunk for piece in pieces for chunk in piece[name].chunks]
        kind = pieces[0][name].type if pieces else _type(file, name, access)
        joined = pa.chunked_array(chunks, kind)
        found[name] = joined.slice(start - begin, stop - start)
    return found


def table(file: ParquetFile, names: Sequence[str], groups: Sequence[int], access: FileAccess) -> pa.Table:
    """Whole row groups, not kept."""
    return _decoded(file, list(groups), list(names), access)


def groups_of(file: ParquetFile, start: int, stop: int, access: FileAccess) -> tuple[range, int]:
    """The row groups that hold some rows, and the number of the first row of the first of them."""
    ends = _ends(footer(file, access))
    if stop <= start:
        return range(0), start
    first = int(np.searchsorted(ends, start, "right"))
    last = int(np.searchsorted(ends, stop, "left"))
    return range(first, last + 1), int(ends[first - 1]) if first else 0


def _lock(url: str, group: int) -> Lock:
    """One for each row group, so that it is fetched once however many tasks need it."""
    with _guard:
        if len(_locks) > 4096:
            for key in [key for key, lock in _locks.items() if not lock.locked()]:
                del _locks[key]
        return _locks.setdefault((url, group), Lock())


def _group(
    file: ParquetFile, group: int, names: Sequence[str], access: FileAccess
) -> dict[str, pa.ChunkedArray]:
    with _lock(file.url, group):
        found = {name: _columns.get((file, group, name)) for name in names}
        absent = [name for name, column in found.items() if column is None]
        if absent:
            read = _decoded(file, [group], absent, access)
            for name in absent:
                found[name] = column = read.column(name)
                _columns.put((file, group, name), column, column.nbytes + 200)
    return {name: column for name, column in found.items() if column is not None}


def _ends(metadata: pq.FileMetaData) -> np.ndarray:
    counts = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    return np.cumsum(np.fromiter(counts, np.int64, metadata.num_row_groups))


def _type(file: ParquetFile, name: str, access: FileAccess) -> pa.DataType:
    return footer(file, access).schema.to_arrow_schema().field(name).type


def with_checksum(data: bytes) -> bytes:
    """A Parquet file of Arrow's, with a checksum before its footer.

    Parquet readers skip it, as they skip page indexes, which may lie there too.
    """
    start = len(data) - _END - int.from_bytes(data[-_END:-4], "little")
    return data[:start] + _checksum(data[start:]) + data[start:]


def _checksum(footer: bytes) -> bytes:
    return hashlib.blake2b(footer, digest_size=CHECKSUM).digest()


def _read_footer(file: ParquetFile, access: FileAccess) -> pq.FileMetaData:
    tail = _fetched(file, [(max(0, file.size - TAIL), file.size)], access)[0]
    need = int.from_bytes(tail[-_END:-4], "little") + _END + CHECKSUM
    if tail[-4:] != b"PAR1" or need > file.size:
        raise _damaged(file, "it doesn't end as a Parquet file does")
    if need > len(tail):
        tail = _fetched(file, [(file.size - need, file.size)], access)[0]
    data = tail[len(tail) - need + CHECKSUM :]
    if tail[len(tail) - need :][:CHECKSUM] != _checksum(data):
        raise _damaged(file, "its Parquet footer isn't what was written")
    return pq.read_metadata(pa.BufferReader(b"PAR1" + data))


def _damaged(file: ParquetFile, why: str) -> NWBReadError:
    return NWBReadError(
        f"{shown(file.url)}: a damaged file of a catalog: {why}. catalog.refresh(anew=True) makes the "
        "catalog anew"
    )


def columns_bound(
    file: ParquetFile, wanted: Mapping[int, Collection[str]], access: FileAccess
) -> tuple[int, int]:
    """Requests and bytes of columns of row groups at most, each read once, and of the file's end before."""
    need = int(footer(file, access).serialized_size) + _END + CHECKSUM
    tail = min(file.size, TAIL)
    ranges = [r for group, names in wanted.items() for r in _chunk_ranges(file, group, names, access)]
    gap, split = gap_and_split(Source(file.url), access.settings)
    calls = sum(map(len, wanted.values()))
    most = bytes_bound(calls, len(ranges), sum(b - a for a, b in ranges), gap)
    most = min(most, calls * file.size)
    requests = 1 + (need > tail) + len(ranges) + most // split
    return requests, tail + need * (need > tail) + most


def _chunk_ranges(
    file: ParquetFile, group: int, names: Collection[str], access: FileAccess
) -> list[tuple[int, int]]:
    """Where some columns of a row group lie."""
    columns = footer(file, access).row_group(group)
    ranges = []
    for i in range(columns.num_columns):
        chunk = columns.column(i)
        path = chunk.path_in_schema
        if any(path == name or path.startswith(f"{name}.") for name in names):
            begin = chunk.data_page_offset
            if chunk.has_dictionary_page:
                begin = min(begin, chunk.dictionary_page_offset)
            ranges.append((begin, begin + chunk.total_compressed_size))
    return ranges


def _decoded(file: ParquetFile, groups: list[int], names: list[str], access: FileAccess) -> pa.Table:
    metadata = footer(file, access)
    ranges = [r for group in groups for r in _chunk_ranges(file, group, names, access)]
    ranges.sort()
    parts = _fetched(file, ranges, access)
    memory = _Ranges(file.size, [a for a, _ in ranges], parts)
    try:
        reader = pq.ParquetFile(
            pa.PythonFile(memory, "r"), metadata=metadata, pre_buffer=False,
            page_checksum_verification=True,
        )  # fmt: skip
        return reader.read_row_groups(groups, columns=names, use_threads=False).select(names)
    except (pa.ArrowException, OSError, KeyError) as exc:
        raise _damaged(file, str(exc)) from None


def _fetched(file: ParquetFile, ranges: Sequence[tuple[int, int]], access: FileAccess) -> list[bytes]:
    source = Source(file.url, file.size)
    parts = [b""] * len(ranges)

    def request(i: int, start: int, stop: int) -> Request:
        def sink(data: memoryview) -> None:
            parts[i] = bytes(data)

        return Request(start, stop, sink)

    try:
        fetch(source, [request(i, a, b) for i, (a, b) in enumerate(ranges)], access)
    except NWBFileChangedError:
        raise _damaged(file, f"it isn't the one of {file.size} bytes that was written") from None
    except NWBFileNotFoundError:
        raise NWBFileNotFoundError(
            f"{shown(file.url)}: a file of a catalog is gone. If the catalog was built again "
            "meanwhile, open it again with open_catalog; else catalog.refresh(anew=True) makes it anew"
        ) from None
    return parts


class _Ranges(io.RawIOBase):
    """A file of which only some ranges are here."""

    def __init__(self, size: int, begins: list[int], parts: list[bytes]) -> None:
        self.size, self._begins, self._parts, self._at = size, begins, parts, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        i = bisect_right(self._begins, self._at) - 1
        begin = self._at - self._begins[i] if i >= 0 else 0
        if i < 0 or size < 0 or begin + size > len(self._parts[i]):
            raise OSError("bytes outside its column chunks")
        self._at += size
        return self._parts[i][begin : begin + size]
