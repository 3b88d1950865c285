"""The filter pipeline of a chunk, undone in the order opposite to that of writing.

Common filters are undone by `codecs`, others by libhdf5 (`hdf5_filters`). The size of each step's output
follows from the chunk's shape and from the filters that were applied before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from lazynwb_dask.decode import codecs, zarr_codecs
from lazynwb_dask.decode.hdf5_filters import check_available, decode_chunk, nbit_size
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import Filter, Layout
from lazynwb_dask.model.limits import MAX_CHUNK

MAX_TEXTS, EACH_TEXT = 8 << 20, 256  # stored bytes of a chunk of texts, and more for each of them


def chunk_bytes(data: memoryview, layout: Layout, mask: int, nbytes: int) -> memoryview:
    """A chunk's bytes with its filters undone. Bit i of the filter `mask`: filter i was not applied to it.

    `nbytes` is the decoded size. Raises NWBReadError if the chunk is damaged or has another decoded size,
    and UnsupportedColumnError if a filter is not available here.
    """
    return codecs.unshuffle(*before_shuffle(data, layout, mask, nbytes))


def before_shuffle(data: memoryview, layout: Layout, mask: int, nbytes: int) -> tuple[memoryview, int]:
    """As `chunk_bytes`, except that a shuffle that was applied first is not undone.

    Returns also the element size in bytes of that shuffle; 1 if there was none.
    """
    applied = [f for i, f in enumerate(layout.filters) if not (mask >> i & 1 or _is_idle(f))]
    width = 1
    while applied:
        if len(applied) == 1 and applied[0].id == codecs.SHUFFLE:
            width = codecs.shuffle_width(applied.pop())
            break
        output = _output_size(applied[:-1], layout, nbytes)
        if _is_native(applied[-1]):
            data = _undo(applied.pop(), data, output)
        else:
            data, applied = decode_chunk(data, layout, applied, nbytes, output), []
    if len(data) != nbytes:
        raise NWBReadError(f"a chunk holds {len(data)} bytes where {nbytes} are declared: damaged")
    return data, width


def undone(data: memoryview, steps: Sequence[Filter], limit: int) -> memoryview:
    """Bytes with filters undone, where of the size of each output only a limit is known."""
    for step in reversed(steps):
        data = _undo(step, data, codecs.OutputSize(limit, False))
    return data


@lru_cache(maxsize=256)
def stored_bound(layout: Layout) -> int:
    """The most bytes that are stored of a chunk that is an object of its own: codecs may make it larger."""
    assert layout.chunk is not None
    count = math.prod(layout.chunk)
    if layout.of_objects:
        return min(MAX_TEXTS + EACH_TEXT * count, MAX_CHUNK)
    return _output_size(layout.filters, layout, count * layout.element_bytes).size


def check_filters(steps: Sequence[Filter]) -> None:
    """Raise UnsupportedColumnError if chunks with these filters can't be decoded in this process."""
    applied = [step for step in steps if not _is_idle(step)]
    while applied and _is_native(applied[-1]):
        applied.pop()
    check_available(applied)


def _is_native(step: Filter) -> bool:
    return step.id in codecs.NATIVE or step.id == codecs.ZARR_CODEC


def _undo(step: Filter, data: memoryview, output: codecs.OutputSize) -> memoryview:
    undo = zarr_codecs.undo if step.id == codecs.ZARR_CODEC else codecs.undo
    return undo(step, data, output)


def _is_idle(step: Filter) -> bool:
    """Whether a filter never changes a chunk: n-bit declares so where all bits are significant."""
    return step.id == codecs.NBIT and len(step.values) > 1 and step.values[1] == 1


def _output_size(earlier: Sequence[Filter], layout: Layout, nbytes: int) -> codecs.OutputSize:
    """The size of a chunk of `nbytes` decoded bytes after some filters were applied."""
    output = codecs.OutputSize(nbytes)
    for step in earlier:
        if step.id == codecs.FLETCHER32:
            output = codecs.OutputSize(output.size + 4, output.exact)
        elif step.id == codecs.ZARR_CODEC:
            output = zarr_codecs.encoded_size(step, output)
        elif step.id == codecs.NBIT and output == (nbytes, True):
            output = codecs.OutputSize(nbit_size(layout, nbytes))
        elif step.id != codecs.SHUFFLE:  # incompressible data grow
            output = codecs.OutputSize(output.size + output.size // 8 + 1024, False)
    return output
