"""h5py over a file of which only some blocks are present.

h5py holds one lock per process, also while a Python file object waits for the network. So this one never
waits: it records absent blocks and raises `Miss`. They are fetched at once, outside the lock, and the pass
is repeated, on a new `h5py.File` if libhdf5 has missed any. Its result is valid only if nothing was missing,
since libhdf5 ignores some errors of file objects.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import h5py

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import ArrayIndex
from lazynwb_dask.model.other_files import recognized
from lazynwb_dask.storage import Ends, Request
from lazynwb_dask.util.locks import Lock

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

BLOCK = 64 * 1024
# metadata gather at both ends of most files
ENDS = Ends(whole=1024 * 1024, head=128 * 1024, tail=320 * 1024, unknown=512 * 1024)
MORE = 4  # blocks at most that are read on both sides of missing ones
WIDER = 4 * 1024 * 1024  # bytes at most of one round trip that is widened: headers may be all over a file
AHEAD = 128  # blocks read ahead
MAX_WAVES = 200  # round trips for the metadata of one file
MAX_METADATA = 128 * 1024 * 1024  # bytes held of one file while it is indexed


class Miss(OSError):
    """A block that is not present was read."""


class SparseFile(io.RawIOBase):
    """The file object that h5py reads: blocks of `block` bytes by number, without any I/O.

    `parsed` keeps for the next pass what a pass has parsed without libhdf5.
    """

    metadata_only = False
    """Whether the file holds no values; `array` then tells where they lie."""

    def __init__(self, size: int, block: int = BLOCK) -> None:
        self.size, self.block = size, block
        self._blocks: dict[int, bytes] = {}
        self._missing: set[int] = set()
        self.parsed: dict[Any, Any] = {}
        self.file: h5py.File | None = None  # while it is open
        self.failed = False  # whether libhdf5 has missed a block since
        self._at = 0

    def need(self, start: int, stop: int) -> bool:
        """Record the absent blocks of a byte range. Returns whether there are any."""
        start, stop = max(start, 0), min(stop, self.size)
        if stop <= start:
            return False
        blocks = range(start // self.block, (stop - 1) // self.block + 1)
        absent = [i for i in blocks if i not in self._blocks]
        if absent and stop - start < self.block // 2:  # one object, whose neighbours are soon needed too
            margin = self.block // 8
            first, last = max(start - margin, 0), min(stop + margin, self.size) - 1
            near = range(first // self.block, last // self.block + 1)
            absent = [i for i in near if i not in self._blocks]
        self._missing.update(absent)
        return bool(absent)

    def read_ahead(self) -> None:
        """Ask for as many blocks after each missing one as are present before it: what was written in order,
        as the members of a large group, is read in few round trips."""
        for i in sorted(self._missing):
            run = next(n for n in range(AHEAD + 1) if n == AHEAD or i - 1 - n not in self._blocks)
            self.need((i + 1) * self.block, (i + 1 + run) * self.block)

    def widen(self, wave: int) -> None:
        """Ask for more on both sides of what is missing, the more, the more waves there were: what a header
        refers to is seldom far away. A single block between others would be fetched anyway, to be lost."""
        runs = _runs(self._missing)
        room = min(MAX_METADATA // 4 - self.present_bytes, WIDER) - self.missing_bytes
        more = max(int(len(runs) == 1), min(wave - 1, MORE))
        more = min(more, room // (2 * self.block * max(len(runs), 1)))
        for a, b in runs if more > 0 else ():
            self.need((a - more) * self.block, (b + more) * self.block)
        for (_, b), (c, _) in pairwise(_runs(self._missing)):
            if c - b == 1 and room > 0:
                self.need(b * self.block, c * self.block)

    @property
    def missing(self) -> bool:
        return bool(self._missing)

    @property
    def present(self) -> Mapping[int, bytes]:
        """The blocks that are present, by number."""
        return self._blocks

    @property
    def present_bytes(self) -> int:
        """The bytes that are present, in whole blocks."""
        return len(self._blocks) * self.block

    @property
    def missing_bytes(self) -> int:
        """The bytes that are missing, in whole blocks."""
        return len(self._missing) * self.block

    def missing_ranges(self) -> list[tuple[int, int]]:
        """The byte ranges of missing blocks, adjacent ones joined."""
        runs = _runs(self._missing)
        return [(a * self.block, min(b * self.block, self.size)) for a, b in runs]

    def requests(self) -> list[Request]:
        """A request for each missing range. They count as missing no more."""
        ranges = self.missing_ranges()
        self._missing = set()
        return [self._request(start, stop) for start, stop in ranges]

    def runs(self) -> list[tuple[int, list[bytes]]]:
        """The blocks that are present, adjacent ones together, as (start, blocks)."""
        runs = _runs(self._blocks)
        return [(a * self.block, [self._blocks[i] for i in range(a, b)]) for a, b in runs]

    def _request(self, start: int, stop: int) -> Request:
        return Request(start, stop, lambda data: self.put(start, data))

    def put(self, start: int, data: bytes | memoryview) -> None:
        """Store bytes that begin with a block. An incomplete last block is stored at the file's end only."""
        for at in range(0, len(data), self.block):
            piece = bytes(data[at : at + self.block])
            if len(piece) == self.block or start + at + len(piece) == self.size:
                self._blocks[(start + at) // self.block] = piece

    def has(self, start: int, stop: int) -> bool:
        """Whether a byte range is present."""
        blocks = range(start // self.block, (min(stop, self.size) - 1) // self.block + 1)
        return all(i in self._blocks for i in blocks)

    def peek(self, start: int, stop: int) -> bytes:
        """A byte range, cut at the file's end. Raises `Miss` where it is not present."""
        number, begin = divmod(start, self.block)
        found, end = self._blocks.get(number, b""), begin + stop - start
        if begin < end <= len(found):
            return found[begin:end]
        stop = min(stop, self.size)
        if start < 0 or start >= stop:
            raise ValueError(f"address {start} lies outside the file of {self.size} bytes")
        if self.need(start, stop):
            raise Miss(start)
        first = start // self.block
        data = b"".join(self._blocks[i] for i in range(first, (stop - 1) // self.block + 1))
        return data[start - first * self.block : stop - first * self.block]

    def leave(self) -> None:
        """Close the `h5py.File`, if it is open."""
        file, self.file, self.failed = self.file, None, False
        if file is not None:
            file.close()

    def array(self, path: str) -> ArrayIndex | None:
        """Where the values of a dataset lie, if this file doesn't tell."""
        return None

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        start = self._at
        stop = min(start + len(buffer), self.size)
        if stop < start + len(buffer):  # past the end there are zeros: h5py looks at no length
            memoryview(buffer)[max(stop - start, 0) :] = bytes(len(buffer) - max(stop - start, 0))
        if stop <= start:
            return 0
        if self.need(start, stop):
            self.failed = True
            raise Miss(start)
        view, at, block = memoryview(buffer), start, self.block
        while at < stop:
            n = min(stop - at, block - at % block)
            piece = memoryview(self._blocks[at // block])
            view[at - start : at - start + n] = piece[at % block : at % block + n]
            at += n
        self._at = stop
        return stop - start


def _runs(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Consecutive numbers as half-open ranges."""
    runs: list[tuple[int, int]] = []
    for i in sorted(blocks):
        if runs and runs[-1][1] == i:
            runs[-1] = runs[-1][0], i + 1
        else:
            runs.append((i, i + 1))
    return runs


class Job(Protocol[R_co]):
    """What is to be read of a file's metadata."""

    def visit(self, file: h5py.File, sparse: SparseFile, name: str) -> R_co:
        """One pass. It goes on past objects that miss a block, so that one wave of requests fetches all."""


# h5py runs one thread at a time. To wait for a whole pass is cheaper than to contend for each call
_lock = Lock()


def attempt(sparse: SparseFile, name: str, job: Job[R], stay: bool = False) -> R | None:
    """One pass. Its result is valid only if nothing is missing afterwards. With `stay`, the file stays open
    for the next pass if it misses only what is read without libhdf5; `SparseFile.leave` closes it.

    Raises NWBReadError if nothing is missing, and the file can't be read, isn't HDF5, or is damaged.
    """
    try:
        with _lock:
            try:
                sparse.file = sparse.file or h5py.File(sparse, "r")
                return job.visit(sparse.file, sparse, name)
            finally:
                if sparse.failed or not (stay and sparse.missing):
                    sparse.leave()
    except NWBReadError as exc:
        if not sparse.missing:
            raise exc if name in str(exc) else type(exc)(f"{name}: {exc}") from None
    except Exception as exc:  # libhdf5 raises whatever it likes for damaged files
        if not sparse.missing:
            raise unreadable(name, sparse, exc) from None
    return None


def unreadable(name: str, sparse: SparseFile, error: Exception) -> NWBReadError:
    """The error for a file that h5py can't read."""
    if sparse.size == 0:
        return NWBReadError(f"{name}: the file is empty")
    head = sparse.peek(0, 4104)
    if not any(head[at : at + 8] == b"\x89HDF\r\n\x1a\n" for at in (0, 512, 1024, 2048, 4096)):
        what = recognized(head) or f"it starts with {head[:8]!r}"
        return NWBReadError(f"{name}: not an HDF5 file: {what}")
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "truncated" in text:
        return NWBReadError(f"{name}: the file is truncated: {text}")
    return NWBReadError(f"{name}: damaged HDF5 file: {text}")
