"""Version 1 B-trees of a dataset's chunks. All nodes of a level are read in one wave of requests.

See the HDF5 File Format Specification, version 3.0, section III.A.1 "Version 1 B-trees".
"""

from __future__ import annotations

import math
import struct

import numpy as np

from lazynwb_dask.hdf5.object_header import FormatError
from lazynwb_dask.hdf5.sparse_file import Miss, SparseFile
from lazynwb_dask.model.index import UNDEFINED, Extents
from lazynwb_dask.model.limits import MAX_CHUNKS

MAX_NODES = 1 << 17  # of one B-tree
MAX_LEVEL = 128 << 20  # bytes of one level
NODE_HEADER = 24  # bytes: signature, node type, level, entries used, two sibling addresses
NODE = 64  # chunks that a node lists at most, as libhdf5 writes them
_ONE_CHUNK = b"TREE\1\0\1\0"  # how a leaf with one begins
SPARSE = 6  # and at least, when there are several: a split leaves no node less than a tenth


def tree_bound(chunks: int, rank: int) -> tuple[int, int, int]:
    """The levels, nodes and bytes of a chunk B-tree that libhdf5 has written, at most."""
    levels = 1 + math.ceil(math.log(max(chunks / NODE, 1), SPARSE))
    nodes = 1 if chunks <= NODE else chunks // (SPARSE - 1) + levels
    key = 8 + 8 * (rank + 1)
    return levels, nodes, nodes * (NODE_HEADER + NODE * (key + 8) + key)


class ChunkBTree:
    """The B-tree of one dataset. `feed` takes the `wanted` nodes until there are none; then call `extents`.

    `root` is the root node's byte offset, `base` the superblock's base address, `limit` the file's size.
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
        # a node of the default capacity (64 children); a level of larger ones is read again
        self.guess = NODE_HEADER + 64 * (self.key + 8) + self.key

    def extents(self) -> Extents:
        """Where the chunks lie, in the order of the chunk grid."""
        masks = self.masks if self.masks.any() else None
        return Extents(self.rows, self.offsets, self.sizes, masks)

    @property
    def wanted(self) -> list[tuple[int, int]]:
        """Byte ranges of the nodes to read next."""
        if any(at >= self.limit for at in self._wanted):
            raise FormatError("a chunk B-tree's node lies outside the file")
        if len(self._wanted) * self.guess > MAX_LEVEL:
            raise FormatError("a chunk B-tree of too many bytes")
        return [(at, min(at + self.guess, self.limit)) for at in self._wanted]

    def feed(self, nodes: list[bytes]) -> None:
        """Take the bytes of the nodes that were wanted."""
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
        if size > self.guess:
            self.guess = size
            return
        self._level, self._wanted = level, []
        tables = [
            np.frombuffer(data, self._entry_dtype(), count, NODE_HEADER)
            for data, count in zip(nodes, counts, strict=True)
        ]
        table = np.concatenate(tables)
        if (table["child"] > self.limit).any():
            raise FormatError("a chunk B-tree that points outside the file")
        if level == 0:
            self._leaves(table)
            return
        children = table["child"] + np.uint64(self.base)
        if np.unique(children).size < children.size:
            raise FormatError("a chunk B-tree with nodes in two places")
        self._wanted = children.tolist()

    def _entry_dtype(self) -> np.dtype:
        """A key (size, filter mask, offset in each dimension, 0 for that within an element) and a child."""
        return np.dtype([
            ("size", "<u4"), ("mask", "<u4"), ("start", "<u8", (len(self.chunk),)), ("zero", "<u8"),
            ("child", "<u8"),
        ])  # fmt: skip

    def _leaves(self, table: np.ndarray) -> None:
        flat = grid_positions(table["start"], self.chunk, self.grid)
        inside = flat >= 0
        table, flat = table[inside], flat[inside]
        if (np.diff(flat) <= 0).any() or table["zero"].any():
            raise FormatError("a chunk B-tree whose keys don't rise")
        if not inside.all() and len(flat) < len(self.offsets):
            # a dataset that shrank may leave chunks behind, but then it has no gaps
            raise FormatError("chunks that lie outside their dataset, while others are missing")
        self.offsets[flat] = table["child"] + np.uint64(self.base)
        self.sizes[flat] = table["size"]
        self.masks[flat] = table["mask"]

    def read(self, sparse: SparseFile, *, opportunistic: bool = False) -> bool:
        """Read the whole tree. With `opportunistic`, return False if a node is absent.

        Otherwise raises Miss for absent nodes, after all those of one level were recorded.
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


def one_chunk(sparse: SparseFile, root: int, rank: int, base: int) -> tuple[int, int, int] | None:
    """The offset, size and filter mask of the only chunk of a dataset, as most columns have, in less time
    than a `ChunkBTree` takes; None if it has to tell. Raises Miss if the node is absent."""
    if root >= sparse.size:
        return None
    node = sparse.peek(root, root + NODE_HEADER + 16 + 8 * (rank + 1))
    if node[:8] != _ONE_CHUNK or len(node) < NODE_HEADER + 16 + 8 * (rank + 1):
        return None
    size, mask, *start, child = struct.unpack_from(f"<II{rank + 2}Q", node, NODE_HEADER)
    if any(start) or child > sparse.size:
        return None
    return child + base, size, mask


def grid_positions(start: np.ndarray, chunk: tuple[int, ...], grid: tuple[int, ...]) -> np.ndarray:
    """Positions in the chunk grid (C order) of chunks by their first elements, rows of `start`.

    `grid` is the number of chunks in each dimension. A chunk outside it has the position -1.
    """
    step = np.array(chunk, "<u8")
    if (start % step).any():
        raise FormatError("a chunk that begins where none does")
    where = start // step
    outside = (where >= np.array(grid, "<u8")).any(axis=1)
    where[outside] = 0
    flat = np.ravel_multi_index(tuple(where.T.astype(np.int64)), grid)
    return np.where(outside, -1, flat)
