"""Where stored bytes go: sinks that undo a chunk's filters and put its rows in their place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lazynwb_dask.decode.codecs import unshuffle, unshuffle_part
from lazynwb_dask.decode.filters import before_shuffle, chunk_bytes
from lazynwb_dask.decode.runs import gather, spread
from lazynwb_dask.model.index import Layout

FEW = 16  # runs of rows that are taken one by one


class Chunk:
    """Takes one chunk's stored bytes: decodes them and puts the wanted rows in their place."""

    def __init__(
        self,
        layout: Layout,
        mask: int,
        nbytes: int,
        rows: np.ndarray,
        count: int,
        part: tuple[slice, ...],
        starts: np.ndarray,
        counts: np.ndarray,
    ) -> None:
        self.layout, self.mask, self.nbytes = layout, mask, nbytes
        self.rows, self.count, self.part = rows, count, part
        self.starts, self.counts = starts, counts

    def __call__(self, data: memoryview) -> None:
        layout = self.layout
        assert layout.chunk is not None
        if layout.chunk[1:] == layout.item:
            held, width = before_shuffle(data, layout, self.mask, self.nbytes)
            if width > 1 and self._few(held, width):
                return
            whole = unshuffle(held, width)
            copy_rows(self.rows, self.starts, self.counts, layout.row_bytes)(whole)
            return
        decoded = np.frombuffer(chunk_bytes(data, layout, self.mask, self.nbytes), np.uint8)
        shape = (*layout.chunk, layout.element_bytes)
        inside = tuple(slice(0, s.stop - s.start) for s in self.part)
        target = self.rows.reshape(self.count, *layout.item, layout.element_bytes)
        picked = decoded.reshape(shape)[spread(self.starts, self.counts)]
        target[(slice(None), *self.part)] = picked[(slice(None), *inside)]

    def _few(self, held: memoryview, width: int) -> bool:
        """Take a few runs of rows out of a chunk that is still shuffled, if they are a small part of it."""
        if len(self.starts) > FEW or len(self.rows) > len(held) // 2:
            return False
        row, at = self.layout.row_bytes, 0
        for start, count in zip(self.starts.tolist(), self.counts.tolist(), strict=True):
            part = self.rows[at : at + count * row]
            if not unshuffle_part(held, width, start * row, part):
                return False
            at += len(part)
        return True


def copy_rows(
    out: np.ndarray, starts: np.ndarray, counts: np.ndarray, width: int
) -> Callable[[memoryview], None]:
    """A sink that copies runs of rows out of the bytes that come."""

    def sink(data: memoryview) -> None:
        source = np.frombuffer(data, np.uint8)
        if len(starts) == 1:
            low = int(starts[0]) * width
            out[...] = source[low : low + len(out)]
        elif width:
            rows = source[: len(source) // width * width].reshape(-1, width)
            gather(rows, starts, counts, out.reshape(-1, width))

    return sink


def keep_node(nodes: dict[int, bytes], i: int) -> Callable[[memoryview], None]:
    def sink(data: memoryview) -> None:
        nodes[i] = bytes(data)

    return sink


def fill(out: np.ndarray, layout: Layout) -> None:
    """Values that were never written."""
    if layout.fill:
        out.reshape(-1, len(layout.fill))[...] = np.frombuffer(layout.fill, np.uint8)
    else:
        out[...] = 0


def fill_part(rows: np.ndarray, layout: Layout, count: int, part: tuple[slice, ...]) -> None:
    target = rows.reshape(count, *layout.item, layout.element_bytes)[(slice(None), *part)]
    target[...] = np.frombuffer(layout.fill, np.uint8) if layout.fill else 0
