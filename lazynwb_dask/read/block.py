"""Blocks of n-dimensional datasets: which bytes of which chunks they take, and where these go.

Of a chunked dataset only the chunks that a block touches are fetched. Data without filters are fetched by
rows. A chunk that several columns need is fetched and decoded once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from lazynwb_dask.decode.codecs import unshuffle, unshuffle_part
from lazynwb_dask.decode.filters import before_shuffle, stored_bound
from lazynwb_dask.decode.objects import fill_of, object_values
from lazynwb_dask.decode.runs import gather, merged, spread
from lazynwb_dask.decode.shards import per_shard
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import UNDEFINED, Extents, Layout
from lazynwb_dask.read.steps import named
from lazynwb_dask.storage import Request

NEAR = 4096  # rows closer than this many bytes are fetched as one range
AT_ONCE = 1 << 15  # chunks that are fetched together: each takes some KB besides its bytes
RUN = 32 * 1024  # bytes that are unshuffled while one more run of rows is taken by itself

Box = tuple[tuple[int, int], ...]
"""A range of each dimension but the first."""

Decoders = MutableMapping[tuple[str, int, int], "ChunkDecoder"]
"""The decoders of chunks that are being fetched, by the key of their object, offset and size."""


@dataclass(frozen=True, eq=False)
class Block:
    """Row ranges of a dataset, sorted and disjoint, and of each row a box."""

    starts: np.ndarray  # int64
    stops: np.ndarray
    box: Box

    @property
    def shape(self) -> tuple[int, ...]:
        return (int((self.stops - self.starts).sum()), *[b - a for a, b in self.box])


def block_requests(
    layout: Layout, chunks: Chunks, block: Block, out: np.ndarray, decoders: Decoders
) -> Iterator[list[Request]]:
    """The requests that fill `out`, uint8 of the block's shape and, as last dimension, an element's bytes (1 of
    objects).

    All blocks that are read at the same time share `decoders`. Those of very many chunks are to be fetched one
    list after the other; an empty one is for chunks that are fetched for other blocks.
    """
    requests: list[Request] = []
    shared = False
    for n, part in enumerate(_chunk_parts(layout, chunks, block), 1):
        copy = _CopyRows(out[part.target], part)
        if part.offset == UNDEFINED:
            copy.fill(layout)
        elif part.is_plain:
            requests += _plain_requests(layout, part, copy)
        else:
            name = part.key, part.offset, part.size
            if name in decoders:
                shared = True
            else:
                decoders[name] = one = ChunkDecoder(layout, part, partial(decoders.pop, name))
                missing = one.missing if part.is_object else None
                stop, inside = part.offset + part.size, not part.is_object
                requests.append(Request(part.offset, stop, one, part.key, missing, exact=inside))
            decoders[name].copies.append(copy)
        if n % AT_ONCE == 0 and requests:
            yield requests
            requests, shared = [], False
    if requests or shared:
        yield requests


@dataclass(frozen=True)
class Chunks:
    """Where a dataset's chunks lie: `extents` list them, or those of each shard, by its key."""

    extents: Extents
    shards: Mapping[str, Extents] = field(default_factory=dict)

    def at(self, layout: Layout, place: tuple[int, ...], n: int) -> tuple[str, int, int]:
        """The key of the object that a chunk is in, its offset, and its stored bytes, or the most that these
        can be. `n` is its number in the grid, of which it is at `place`."""
        objects = layout.objects
        if objects is None:
            return "", int(self.extents.offsets[n]), int(self.extents.sizes[n])
        if objects.shard is None:
            return objects.key(place), 0, stored_bound(layout)
        per = per_shard(layout)
        key = objects.key(tuple(p // many for p, many in zip(place, per, strict=True)))
        n = int(np.ravel_multi_index([p % many for p, many in zip(place, per, strict=True)], per))
        return key, int(self.shards[key].offsets[n]), int(self.shards[key].sizes[n])


@dataclass(frozen=True)
class _ChunkPart:
    """What a block takes of one chunk. Contiguous data are one chunk without filters."""

    key: str  # of the object that it is in
    offset: int
    size: int
    mask: int
    is_plain: bool  # stored without filters
    shape: tuple[int, ...]  # of the chunk
    starts: np.ndarray  # rows within the chunk
    counts: np.ndarray
    inside: tuple[slice, ...]  # of each row, within the chunk
    target: tuple[slice, ...]  # within the block

    is_object: bool  # it is the whole object

    @property
    def whole_rows(self) -> bool:
        """Whether all of each of the chunk's rows is taken."""
        return all(s.start == 0 and s.stop == n for s, n in zip(self.inside, self.shape[1:], strict=True))


def _chunk_parts(layout: Layout, chunks: Chunks, block: Block) -> Iterator[_ChunkPart]:
    extents, is_object = chunks.extents, layout.objects is not None and layout.objects.shard is None
    chunk = layout.chunk or (max(extents.rows, 1), *layout.item)
    step = chunk[0]
    starts, stops, box = block.starts, block.stops, block.box
    grid = [-(-n // c) for n, c in zip(layout.item, chunk[1:], strict=True)]
    across = math.prod(grid)
    places = [range(a // c, -(-b // c)) for (a, b), c in zip(box, chunk[1:], strict=True)]
    base = np.cumsum(np.concatenate([[0], stops - starts]))
    touched = np.zeros(-(-extents.rows // step) + 1, np.int64)
    np.add.at(touched, starts // step, 1)
    np.add.at(touched, (stops - 1) // step + 1, -1)
    for k in np.flatnonzero(np.cumsum(touched) > 0).tolist():
        low, high = k * step, min((k + 1) * step, extents.rows)
        i = int(np.searchsorted(stops, low, "right"))
        j = int(np.searchsorted(starts, high, "left"))
        begin, end = np.maximum(starts[i:j], low), np.minimum(stops[i:j], high)
        first = int(base[i] + begin[0] - starts[i])
        rows = slice(first, first + int((end - begin).sum()))
        for place in itertools.product(*places):
            n = k * across + (int(np.ravel_multi_index(place, grid)) if place else 0)
            corner = [p * c for p, c in zip(place, chunk[1:], strict=True)]
            inside = [(max(a, o), min(b, o + c)) for (a, b), o, c in zip(box, corner, chunk[1:], strict=True)]
            edge = high - low < step or any(
                o + c > m for o, c, m in zip(corner, chunk[1:], layout.item, strict=True)
            )
            mask = 0 if extents.masks is None else int(extents.masks[n])
            plain = not layout.filters or (layout.raw_edges and edge)
            plain = plain or all(mask >> f & 1 for f in range(len(layout.filters)))
            yield _ChunkPart(
                *chunks.at(layout, (k, *place), n), mask, plain, chunk,
                begin - low, end - begin,
                tuple(slice(a - o, b - o) for (a, b), o in zip(inside, corner, strict=True)),
                (rows, *[slice(a - o, b - o) for (a, b), (o, _) in zip(inside, box, strict=True)]),
                is_object,
            )  # fmt: skip


def _plain_requests(layout: Layout, part: _ChunkPart, copy: _CopyRows) -> Iterator[Request]:
    """Requests for the rows of a part whose bytes lie as they are."""
    width = math.prod(part.shape[1:]) * layout.element_bytes
    stops = part.starts + part.counts
    if int(stops[-1]) * width > part.size:
        raise NWBReadError("damaged: fewer bytes are stored than its shape declares")
    a, b = merged(part.starts, stops, NEAR // max(width, 1))
    group = np.append(np.searchsorted(part.starts, a), len(part.starts)).tolist()
    for n, (begin, end) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        sink = copy if len(a) == 1 and not begin else copy.of_runs(group[n], group[n + 1], begin)
        first, last = part.offset + begin * width, part.offset + end * width
        if part.is_object:
            yield Request(first, last, sink, part.key, partial(sink.fill, layout), part.size)
        else:
            yield Request(first, last, sink, part.key, exact=True)


class _CopyRows:
    """Copies runs of rows, and of each row what a block wants, out of bytes that hold whole rows.

    `target` is uint8 of the shape (rows, box, bytes of an element). The runs, counted from the first row of
    the bytes, are `starts` and `counts`; if not given, those of the part.
    """

    def __init__(
        self,
        target: np.ndarray,
        part: _ChunkPart,
        starts: np.ndarray | None = None,
        counts: np.ndarray | None = None,
    ) -> None:
        self.target, self.part = target, part
        self.starts = part.starts if starts is None else starts
        self.counts = part.counts if counts is None else counts

    def of_runs(self, first: int, last: int, begin: int) -> _CopyRows:
        """The same for some of the runs, out of bytes that begin at a row."""
        skipped = int(self.counts[:first].sum())
        counts = self.counts[first:last]
        target = self.target[skipped : skipped + int(counts.sum())]
        return _CopyRows(target, self.part, self.starts[first:last] - begin, counts)

    def fill(self, layout: Layout) -> None:
        """What was never written is the fill value."""
        if layout.of_objects:
            self.target[...] = fill_of(layout)
        else:
            self.target[...] = np.frombuffer(layout.fill, np.uint8) if layout.fill else 0

    def __call__(self, data: memoryview | np.ndarray) -> None:
        row = (*self.part.shape[1:], self.target.shape[-1])
        size = math.prod(row)
        source = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        if self.part.whole_rows and self.target.flags.c_contiguous:
            copy_runs(source, self.starts, self.counts, self.target.reshape(-1, size))
            return
        rows = source[: len(source) // size * size].reshape(-1, *row)
        inside = (*self.part.inside, slice(None))
        if len(self.starts) == 1:
            start, stop = int(self.starts[0]), int(self.starts[0] + self.counts[0])
            self.target[...] = rows[(slice(start, stop), *inside)]
        else:
            self.target[...] = rows[(slice(None), *inside)][spread(self.starts, self.counts)]

    def from_shuffled(self, held: memoryview, width: int) -> bool:
        """Take a few runs out of a chunk that is still shuffled, straight into their place."""
        few = (len(self.starts) - 1) * RUN <= len(held) - self.target.size
        if not (few and self.part.whole_rows and self.target.flags.c_contiguous):
            return False
        row, at = math.prod(self.part.shape[1:]) * self.target.shape[-1], 0
        flat = self.target.reshape(-1)
        for start, count in zip(self.starts.tolist(), self.counts.tolist(), strict=True):
            run = flat[at : at + count * row]
            if not unshuffle_part(held, width, start * row, run):
                return False
            at += len(run)
        return True


def copy_runs(source: np.ndarray, starts: np.ndarray, counts: np.ndarray, out: np.ndarray) -> None:
    """Copy runs of rows out of bytes of whole rows, into uint8 of the shape (rows, bytes of a row)."""
    width = out.shape[1]
    if len(starts) == 1:
        low = int(starts[0]) * width
        out[...] = source[low : low + out.size].reshape(out.shape)
    elif width:
        gather(source[: len(source) // width * width].reshape(-1, width), starts, counts, out)


@dataclass
class ChunkDecoder:
    """Undoes a chunk's filters once for all that take something of it."""

    layout: Layout
    part: _ChunkPart
    done: Callable[[], object]
    copies: list[_CopyRows] = field(default_factory=list)

    def missing(self) -> None:
        self.done()
        for copy in self.copies:
            copy.fill(self.layout)

    def __call__(self, data: memoryview) -> None:
        self.done()
        try:
            self._decode(data)
        except Exception as exc:
            raise (named(exc, f"{self.part.key}: ") if self.part.key else exc) from None

    def _decode(self, data: memoryview) -> None:
        assert self.layout.chunk is not None
        if self.layout.of_objects:
            values = object_values(data, self.layout)
            for copy in self.copies:
                copy(values)
            return
        nbytes = math.prod(self.layout.chunk) * self.layout.element_bytes
        held, width = before_shuffle(data, self.layout, self.part.mask, nbytes)
        if width > 1 and len(self.copies) == 1 and self.copies[0].from_shuffled(held, width):
            return
        decoded = unshuffle(held, width)
        for copy in self.copies:
            copy(decoded)
