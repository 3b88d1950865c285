"""Blocks of n-dimensional datasets: some rows, and of these only some of the other dimensions.

Of a chunked dataset only the chunks that a block touches are fetched. Columns that show one channel each
of the same dataset share what is fetched and decoded for them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lazynwb_dask.decode.arrays import Values, numbers
from lazynwb_dask.decode.filters import chunk_bytes
from lazynwb_dask.decode.runs import merged, spread
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, Extents, Layout, View
from lazynwb_dask.storage import Request

if TYPE_CHECKING:
    from lazynwb_dask.read.column import Reader
    from lazynwb_dask.read.steps import Steps

Box = tuple[tuple[int, int], ...]
"""A range of each dimension but the first."""

NEAR = 4096  # rows closer than this many bytes are fetched as one range


def whole(item: Sequence[int]) -> Box:
    """The box that is all of a row."""
    return tuple((0, n) for n in item)


def shown(
    reader: Reader, array: ArrayIndex, starts: np.ndarray, stops: np.ndarray
) -> Steps[tuple[Values, tuple[int, ...]]]:
    """The flat values of row ranges as the layout's view has them, and the shape of a row."""
    layout, rows = array.layout, int((stops - starts).sum())
    view = layout.view or View()
    if layout.computed:
        _, start, rate = layout.element
        return start + spread(starts, stops - starts) / rate, ()
    box = whole(layout.item)
    if view.channel is not None:
        box = ((view.channel, view.channel + 1), *box[1:])
    raw = yield from block(reader, array, starts, stops, box)
    count = rows * math.prod(b - a for a, b in box)
    flat = yield from reader.elements(raw.reshape(-1), layout.element, count, layout.user_block)
    if view.factors:
        flat = scaled(flat, view, rows)
    return flat, layout.item if view.channel is None else ()


def scaled(flat: Values, view: View, rows: int) -> np.ndarray:
    """Stored values, flat or not, in units."""
    if not isinstance(flat, np.ndarray):
        raise UnsupportedColumnError("scaled=True is for numbers only")
    factors = np.asarray(view.factors)
    if len(factors) == 1:
        found: np.ndarray = flat * factors[0]
    elif view.channel is not None:
        found = flat * factors[view.channel]
    else:
        found = (flat.reshape(rows, len(factors), -1) * factors[:, None]).reshape(flat.shape)
    return found + view.offset


def block(
    reader: Reader, array: ArrayIndex, starts: np.ndarray, stops: np.ndarray, box: Box
) -> Steps[np.ndarray]:
    """The stored bytes of row ranges within a box, filters undone.

    Parameters
    ----------
    reader : Reader
    array : ArrayIndex
    starts, stops : numpy.ndarray of int64
        Row ranges, sorted and disjoint.
    box : tuple of (int, int)

    Returns
    -------
    numpy.ndarray of uint8
        Of the shape (rows, lengths of the box, bytes of an element).
    """
    from lazynwb_dask.read.steps import Wave

    layout, rows = array.layout, int((stops - starts).sum())
    if stops.size and int(stops[-1]) > array.rows:
        raise NWBReadError(f"row {int(stops[-1])} of a dataset of {array.rows} rows")
    inside = tuple(slice(a, b) for a, b in box)
    if layout.external or box == whole(layout.item):
        raw = yield from reader.raw(array, starts, stops)
        if raw.dtype == object:  # texts already
            return raw.reshape(rows, *layout.item)[(slice(None), *inside)]
        return raw.reshape(rows, *layout.item, layout.element_bytes)[(slice(None), *inside)]
    extents = (yield from reader.extents(array)) if rows else array.extents
    out = np.empty((rows, *[b - a for a, b in box], layout.element_bytes), np.uint8)
    if not out.size:
        return out
    requests: list[Request] = []
    waiting = False
    for piece in _pieces(layout, extents, starts, stops, box):
        take = _Take(out, piece)
        if piece.offset == UNDEFINED:
            out[piece.target] = np.frombuffer(layout.fill, np.uint8) if layout.fill else 0
        elif piece.bare:
            requests += _plain(layout, piece, take)
        else:
            waiting = True
            key = piece.offset, piece.size
            decoder = reader.decoders.get(key)
            if decoder is None:
                decoder = Decoder(layout, piece.mask, lambda key=key: reader.decoders.pop(key))  # type: ignore[misc]
                reader.decoders[key] = decoder
                requests.append(Request(piece.offset, piece.offset + piece.size, decoder))
            decoder.takers.append(take)
    if requests or waiting:
        yield Wave(requests)
    return out


@dataclass(frozen=True)
class _Piece:
    """What a block takes of one chunk, or of contiguous data."""

    offset: int
    size: int
    mask: int
    bare: bool
    shape: tuple[int, ...]  # of the chunk
    starts: np.ndarray  # rows within the chunk
    counts: np.ndarray
    source: tuple[slice, ...]  # within the chunk, without its rows
    target: tuple[slice, ...]  # within the block


def _pieces(
    layout: Layout, extents: Extents, starts: np.ndarray, stops: np.ndarray, box: Box
) -> Iterator[_Piece]:
    chunk = layout.chunk or (max(extents.rows, 1), *layout.item)
    step = chunk[0]
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
            inside = [
                (max(a, o), min(b, o + c))
                for (a, b), o, c in zip(box, corner, chunk[1:], strict=True)
            ]
            edge = high - low < step or any(
                o + c > m for o, c, m in zip(corner, chunk[1:], layout.item, strict=True)
            )
            mask = 0 if extents.masks is None else int(extents.masks[n])
            bare = not layout.filters or (layout.raw_edges and edge)
            bare = bare or all(mask >> f & 1 for f in range(len(layout.filters)))
            yield _Piece(
                int(extents.offsets[n]), int(extents.sizes[n]), mask, bare, chunk,
                begin - low, end - begin,
                tuple(slice(a - o, b - o) for (a, b), o in zip(inside, corner, strict=True)),
                (rows, *[slice(a - o, b - o) for (a, b), (o, _) in zip(inside, box, strict=True)]),
            )  # fmt: skip


def _plain(layout: Layout, piece: _Piece, take: _Take) -> Iterator[Request]:
    """Requests for the rows of a piece whose bytes lie as they are."""
    width = math.prod(piece.shape[1:]) * layout.element_bytes
    stops = piece.starts + piece.counts
    if int(stops[-1]) * width > piece.size:
        raise NWBReadError("damaged: fewer bytes are stored than its shape declares")
    a, b = merged(piece.starts, stops, NEAR // max(width, 1))
    group = np.append(np.searchsorted(piece.starts, a), len(piece.starts)).tolist()
    for n, (begin, end) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        part = take.part(group[n], group[n + 1], begin)
        yield Request(piece.offset + begin * width, piece.offset + end * width, part)


class _Take:
    """Takes rows of a chunk, decoded, and puts what a block wants of them in its place."""

    def __init__(self, out: np.ndarray, piece: _Piece) -> None:
        self.out, self.piece = out, piece

    def part(self, first: int, last: int, begin: int) -> Callable[[memoryview], None]:
        """The same for some of the row ranges, of bytes that begin at a row."""
        piece = self.piece
        skipped = int(piece.counts[:first].sum())
        counts = piece.counts[first:last]
        rows = slice(skipped, skipped + int(counts.sum()))
        target = self.out[piece.target][rows]
        starts = piece.starts[first:last] - begin
        return lambda data: self._copy(data, starts, counts, target)

    def __call__(self, data: memoryview) -> None:
        piece = self.piece
        self._copy(data, piece.starts, piece.counts, self.out[piece.target])

    def _copy(
        self, data: memoryview, starts: np.ndarray, counts: np.ndarray, target: np.ndarray
    ) -> None:
        row = (*self.piece.shape[1:], self.out.shape[-1])
        source = np.frombuffer(data, np.uint8)
        size = math.prod(row)
        rows = source[: len(source) // size * size].reshape(-1, *row)
        inside = (*self.piece.source, slice(None))
        if len(starts) == 1:
            target[...] = rows[(slice(int(starts[0]), int(starts[0] + counts[0])), *inside)]
        else:
            target[...] = rows[(slice(None), *inside)][spread(starts, counts)]


@dataclass
class Decoder:
    """Decodes a chunk once for all blocks that take something of it."""

    layout: Layout
    mask: int
    done: Callable[[], object]
    takers: list[_Take] = field(default_factory=list)

    def __call__(self, data: memoryview) -> None:
        self.done()
        assert self.layout.chunk is not None
        nbytes = math.prod(self.layout.chunk) * self.layout.element_bytes
        decoded = chunk_bytes(data, self.layout, self.mask, nbytes)
        for take in self.takers:
            take(decoded)


def numbers_of(raw: np.ndarray, layout: Layout) -> np.ndarray:
    """A block's bytes as numbers of the block's shape."""
    flat = numbers(np.ascontiguousarray(raw).reshape(-1), layout.element)
    return flat.reshape(raw.shape[:-1])
