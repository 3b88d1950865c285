"""The few structures of the HDF5 file format that h5py does not show.

The address of a chunk B-tree and of compact data stand in a dataset's object header; the B-tree's leaves
are wanted in one wave, which libhdf5's walk can't do. Names follow the HDF5 File Format Specification
(version 3.0, sections III.A.1 "Version 1 B-trees" and IV "Disk Format: Level 2").
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.index import UNDEFINED, Extents
from lazynwb_dask.model.limits import MAX_CHUNKS

DATA_LAYOUT = 0x0008
CONTINUATION = 0x0010
MAX_BLOCKS = 256  # of one object header
MAX_HEADER = 32 << 20  # bytes of one object header
MAX_NODES = 1 << 17  # of one chunk B-tree
MAX_LEVEL = 128 << 20  # bytes of one level of a chunk B-tree
NODE_HEADER = 24
NODE = 64  # chunks that a node of a chunk B-tree lists at most, as libhdf5 writes them
SPARSE = 6  # and at least, when there are several: it leaves no node less than a tenth when it splits one


class FormatError(ValueError):
    """Not as the specification has it."""


@dataclass(frozen=True, slots=True)
class DataLayout:
    """A data layout message: only what h5py does not tell."""

    kind: str  # "compact", "contiguous", "chunked", "virtual"
    address: int = UNDEFINED  # of the data, or of the version 1 B-tree of chunks; absolute
    size: int = 0
    btree: bool = False
    raw_edges: bool = False  # chunks at the edge are stored without filters


def messages(sparse: SparseFile, address: int, base: int) -> Iterator[tuple[int, int, bytes]]:
    """The messages of an object header as (type, absolute address of the data, data)."""
    prefix = sparse.peek(address, address + 16)
    if prefix[:4] == b"OHDR":
        yield from _messages_2(sparse, address, base)
    elif prefix[0] == 1:
        size = struct.unpack_from("<I", prefix, 8)[0]
        yield from _messages_1(sparse, address + 16, size, base)
    else:
        raise FormatError("no object header")


def _messages_1(
    sparse: SparseFile, at: int, size: int, base: int
) -> Iterator[tuple[int, int, bytes]]:
    blocks = _Blocks(sparse, at, size)
    for start, data in blocks:
        at = 0
        while at + 8 <= len(data):
            kind, n = struct.unpack_from("<HH", data, at)
            body = data[at + 8 : at + 8 + n]
            if kind == CONTINUATION:
                offset, more = struct.unpack_from("<QQ", body)
                blocks.add(offset + base, more)
            else:
                yield kind, start + at + 8, body
            at += 8 + n


def _messages_2(sparse: SparseFile, address: int, base: int) -> Iterator[tuple[int, int, bytes]]:
    prefix = sparse.peek(address, address + 64)
    flags, at = prefix[5], 6
    at += 16 if flags & 0x20 else 0
    at += 4 if flags & 0x10 else 0
    width = 1 << (flags & 3)
    size = int.from_bytes(prefix[at : at + width], "little")
    blocks = _Blocks(sparse, address + at + width, size)
    head = 6 if flags & 4 else 4
    for start, data in blocks:
        at = 0
        while at + head <= len(data):
            kind, n = data[at], struct.unpack_from("<H", data, at + 1)[0]
            body = data[at + head : at + head + n]
            if kind == CONTINUATION:
                offset, more = struct.unpack_from("<QQ", body)
                blocks.add(offset + base + 4, more - 8)  # without signature and checksum
            else:
                yield kind, start + at + head, body
            at += head + n


class _Blocks:
    """The blocks of an object header, each once, as (address, data); more may be added meanwhile."""

    def __init__(self, sparse: SparseFile, start: int, size: int) -> None:
        self._sparse, self._bytes = sparse, 0
        self._seen: set[int] = set()
        self._todo: list[tuple[int, int]] = []
        self.add(start, size)

    def add(self, start: int, size: int) -> None:
        self._bytes += size
        if start in self._seen or size < 0:
            raise FormatError("an object header that goes round in a circle")
        if self._bytes > MAX_HEADER or len(self._seen) == MAX_BLOCKS:
            raise FormatError("an object header of too many blocks or bytes")
        self._seen.add(start)
        self._todo.append((start, size))

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while self._todo:
            start, size = self._todo.pop(0)
            yield start, self._sparse.peek(start, start + size) if size else b""


def data_layout(sparse: SparseFile, address: int, base: int) -> DataLayout:
    """The data layout message of the dataset whose object header is at an address."""
    for kind, at, body in messages(sparse, address, base):
        if kind == DATA_LAYOUT:
            return parse_layout(at, body, base)
    raise FormatError("no data layout message")


def parse_layout(at: int, body: bytes, base: int) -> DataLayout:
    """A data layout message, whose data lie at an absolute address."""

    def absolute(address: int) -> int:
        return UNDEFINED if address == UNDEFINED else address + base

    version = body[0]
    if version in (1, 2):
        rank, kind = body[1], body[2]
        if kind == 0:
            size = struct.unpack_from("<I", body, 8 + 4 * rank)[0]
            return DataLayout("compact", at + 12 + 4 * rank, size)
        address = struct.unpack_from("<Q", body, 8)[0]
        name = "contiguous" if kind == 1 else "chunked"
        return DataLayout(name, absolute(address), btree=kind == 2)
    if version in (3, 4, 5):
        kind = body[1]
        if kind == 0:
            return DataLayout("compact", at + 4, struct.unpack_from("<H", body, 2)[0])
        if kind == 1:
            address, size = struct.unpack_from("<QQ", body, 2)
            return DataLayout("contiguous", absolute(address), size)
        if kind == 2:
            if version == 3:
                return DataLayout(
                    "chunked", absolute(struct.unpack_from("<Q", body, 3)[0]), btree=True
                )
            return DataLayout("chunked", raw_edges=bool(body[2] & 1))
        if kind == 3:
            return DataLayout("virtual")
    raise FormatError(f"data layout message of version {version}")


def tree_bound(chunks: int, rank: int) -> tuple[int, int, int]:
    """The levels, nodes and bytes of a chunk B-tree that libhdf5 has written, at most."""
    levels = 1 + math.ceil(math.log(max(chunks / NODE, 1), SPARSE))
    nodes = 1 if chunks <= NODE else chunks // (SPARSE - 1) + levels
    key = 8 + 8 * (rank + 1)
    return levels, nodes, nodes * (NODE_HEADER + NODE * (key + 8) + key)


class ChunkTree:
    """The version 1 B-tree that lists a dataset's chunks, read level by level.

    A level's nodes are read in one wave: `wanted` says what to fetch, `feed` takes it, until `wanted` is
    empty. `extents` are in the order of the chunk grid.

    Parameters
    ----------
    root : int
        Byte offset of the root node.
    shape, chunk : tuple of int
    base : int
        What addresses in the file count from.
    limit : int
        The size of the file.
    """

    def __init__(
        self, root: int, shape: tuple[int, ...], chunk: tuple[int, ...], base: int, limit: int
    ) -> None:
        self.rows, self.chunk, self.base, self.limit = shape[0], chunk, base, limit
        self.grid = tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))
        self.key = 8 + 8 * (len(chunk) + 1)
        count = math.prod(self.grid)
        if count > MAX_CHUNKS:
            raise FormatError(f"{count} chunks; the limit is {MAX_CHUNKS}")
        self.offsets = np.full(count, UNDEFINED, "<u8")
        self.sizes = np.zeros(count, "<u8")
        self.masks = np.zeros(count, "<u4")
        self.nodes = 0
        self._level: int | None = None
        self._wanted = [root]
        # a node of the default capacity; larger ones are asked for again
        self.guess = NODE_HEADER + NODE * (self.key + 8) + self.key

    def extents(self) -> Extents:
        """What was found, once nothing is wanted any more."""
        return Extents(
            self.rows, self.offsets, self.sizes, self.masks if self.masks.any() else None
        )

    @property
    def wanted(self) -> list[tuple[int, int]]:
        """Byte ranges of the nodes to read next."""
        if any(at >= self.limit for at in self._wanted):
            raise FormatError("a chunk B-tree's node lies outside the file")
        if len(self._wanted) * self.guess > MAX_LEVEL:
            raise FormatError("a chunk B-tree of too many bytes")
        return [(at, min(at + self.guess, self.limit)) for at in self._wanted]

    def feed(self, nodes: list[bytes]) -> None:
        """The bytes of the nodes that were wanted."""
        self.nodes += len(nodes)
        if self.nodes > MAX_NODES:
            raise FormatError("a chunk B-tree of too many nodes")
        if not all(data[:4] == b"TREE" and data[4] == 1 for data in nodes):
            raise FormatError("not a node of a chunk B-tree")
        levels = {data[5] for data in nodes}
        level = levels.pop()
        if levels or (self._level is not None and level != self._level - 1):
            raise FormatError("a chunk B-tree whose levels don't descend")
        counts = [struct.unpack_from("<H", data, 6)[0] for data in nodes]
        size = NODE_HEADER + max(counts) * (self.key + 8) + self.key
        if size > self.guess:  # larger nodes than the default: ask for this level again
            self.guess = size
            return
        if level == 0 and counts == [1] and len(self.offsets) == 1 and self._only(nodes[0]):
            self._level, self._wanted = level, []
            return
        tables = [
            np.frombuffer(data, self._entry(), count, NODE_HEADER)
            for data, count in zip(nodes, counts, strict=True)
        ]
        table = np.concatenate(tables)
        if (table["child"] > self.limit).any():
            raise FormatError("a chunk B-tree that points outside the file")
        self._level, self._wanted = level, []
        if level == 0:
            self._leaf(table)
            return
        children = table["child"] + np.uint64(self.base)
        if np.unique(children).size < children.size:
            raise FormatError("a chunk B-tree with nodes in two places")
        self._wanted = children.tolist()

    def _entry(self) -> np.dtype:
        return np.dtype(
            [
                ("size", "<u4"),
                ("mask", "<u4"),
                ("start", "<u8", (len(self.chunk),)),
                ("zero", "<u8"),
                ("child", "<u8"),
            ]
        )

    def _only(self, node: bytes) -> bool:
        """Take the one chunk of most columns, without the ado that many chunks are worth."""
        size, mask, *start, child = struct.unpack_from(
            f"<II{len(self.chunk) + 2}Q", node, NODE_HEADER
        )
        if any(start) or child > self.limit:
            return False
        self.offsets[0], self.sizes[0], self.masks[0] = child + self.base, size, mask
        return True

    def _leaf(self, table: np.ndarray) -> None:
        flat = grid_positions(table["start"], self.chunk, self.grid)
        inside = flat >= 0
        table, flat = table[inside], flat[inside]
        if (np.diff(flat) <= 0).any() or table["zero"].any():
            raise FormatError("a chunk B-tree whose keys don't rise")
        if not inside.all() and len(flat) < len(self.offsets):
            # (a dataset that shrank may leave chunks behind, but then it has no gaps)
            raise FormatError("chunks that lie outside their dataset, while others are missing")
        self.offsets[flat] = table["child"] + np.uint64(self.base)
        self.sizes[flat] = table["size"]
        self.masks[flat] = table["mask"]

    def read(self, sparse: SparseFile, *, opportunistic: bool = False) -> bool:
        """Read the whole tree from a sparse file; False if only what is here may be used and some isn't.

        Raises `Miss` after recording every node that is missing.
        """
        while self.wanted:
            ranges = self.wanted
            if opportunistic and not all(sparse.has(a, b) for a, b in ranges):
                return False
            absent = [a for a, b in ranges if sparse.need(a, b)]
            if absent:
                raise Miss(absent[0])
            self.feed([sparse.peek(a, b) for a, b in ranges])
        return True


def grid_positions(start: np.ndarray, chunk: tuple[int, ...], grid: tuple[int, ...]) -> np.ndarray:
    """Where chunks that begin at some elements lie in the chunk grid (C order); -1 outside of it."""
    step = np.array(chunk, "<u8")
    if (start % step).any():
        raise FormatError("a chunk that begins where none does")
    where = start // step
    outside = (where >= np.array(grid, "<u8")).any(axis=1)
    where[outside] = 0
    flat = np.ravel_multi_index(tuple(where.T.astype(np.int64)), grid)
    return np.where(outside, -1, flat)
