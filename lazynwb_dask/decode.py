"""Stored bytes to values: filters, gathers, and NumPy or Arrow arrays. No I/O, no loop over rows.

Sizes that a file declares are checked against what its bytes hold before memory is taken.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .errors import NWBReadError, UnsupportedColumnError
from .index import ElementType, Filter, Layout, element_bytes

Values: TypeAlias = np.ndarray[Any, Any] | pa.Array

DEFLATE, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET = 1, 2, 3, 4, 5, 6
LZF, BLOSC, ZSTD = 32000, 32001, 32015
_NAMES = {SZIP: "szip", NBIT: "n-bit", SCALEOFFSET: "scale-offset", LZF: "lzf"}


# --------------------------------------------------------------------------------------------- filters
def chunk_bytes(data: memoryview, layout: Layout, mask: int, nbytes: int) -> memoryview:
    """A chunk's bytes with its filters undone.

    Parameters
    ----------
    data : memoryview
        As stored.
    layout : Layout
    mask : int
        Bit i set: filter i was not applied to this chunk.
    nbytes : int
        What the chunk must hold once decoded.
    """
    applied = [f for i, f in enumerate(layout.filters) if not mask >> i & 1]
    known = {DEFLATE, SHUFFLE, FLETCHER32, ZSTD, BLOSC}
    if any(f.id not in known for f in applied):
        data = _by_hdf5(data, layout, applied, nbytes)
        applied = []
    for position in reversed(range(len(applied))):
        step = applied[position]
        # a checksum before this step made its input longer
        grown = sum(4 for f in applied[:position] if f.id == FLETCHER32)
        data = _undo(step, data, nbytes + grown)
    if len(data) != nbytes:
        raise NWBReadError(f"a chunk holds {len(data)} bytes where {nbytes} are declared: damaged")
    return data


def _undo(step: Filter, data: memoryview, nbytes: int) -> memoryview:
    if step.id == DEFLATE:
        return inflate(data, nbytes)
    if step.id == SHUFFLE:
        return unshuffle(data, step.values[0] if step.values else 1)
    if step.id == FLETCHER32:
        return _checked(data)
    import numcodecs

    out = bytearray(nbytes)
    try:
        if step.id == ZSTD:
            numcodecs.zstd.decompress(data, out)
        else:
            numcodecs.blosc.decompress(data, out)
    except Exception as exc:
        raise NWBReadError(f"a chunk that can't be decompressed ({step.name}): {exc}") from None
    return memoryview(out)


def inflate(data: memoryview, nbytes: int) -> memoryview:
    """A zlib stream of exactly so many bytes, never more memory than that."""
    from isal import isal_zlib

    stream = isal_zlib.decompressobj()
    try:
        out = stream.decompress(data, nbytes) if nbytes else b""
        if not stream.eof:
            more = stream.decompress(stream.unconsumed_tail, 1)
            if more or not stream.eof:
                raise NWBReadError(
                    f"a compressed chunk holds more than the {nbytes} bytes that are declared: damaged"
                    if more
                    else "a compressed chunk ends too early: damaged"
                )
    except NWBReadError:
        raise
    except Exception as exc:  # isal's own error has no importable base
        raise NWBReadError(f"a compressed chunk is damaged: {exc}") from None
    return memoryview(out)


def unshuffle(data: memoryview, size: int) -> memoryview:
    """Byte planes back to elements of so many bytes; what doesn't fill an element stays as it is."""
    count = len(data) // size if size > 0 else 0
    if size <= 1 or count <= 1:
        return data
    raw = np.frombuffer(data, np.uint8)
    out = np.empty_like(raw)
    whole = count * size
    out[:whole].reshape(count, size)[...] = raw[:whole].reshape(size, count).T
    out[whole:] = raw[whole:]
    return out.data


def _checked(data: memoryview) -> memoryview:
    """Bytes whose Fletcher-32 checksum, the last four, is right."""
    from numcodecs.fletcher32 import Fletcher32

    if len(data) < 4:
        raise NWBReadError("a chunk is too short for its checksum: damaged")
    try:
        Fletcher32().decode(np.frombuffer(data, np.uint8))
    except Exception:
        raise NWBReadError("a chunk's Fletcher-32 checksum is wrong: damaged") from None
    return data[:-4]


_hdf5_lock = threading.Lock()


def _by_hdf5(
    data: memoryview, layout: Layout, applied: Sequence[Filter], nbytes: int
) -> memoryview:
    """One chunk through libhdf5's own filters, in a file in memory that holds nothing else."""
    import h5py
    from h5py import h5d, h5p, h5s, h5z

    for step in applied:
        if not h5z.filter_avail(step.id):
            _load_plugins()
        if not h5z.filter_avail(step.id):
            name = _NAMES.get(step.id) or step.name or "unknown"
            raise UnsupportedColumnError(
                f"compressed with the HDF5 filter {step.id} ({name}), which is not available here: "
                "pip install hdf5plugin"
            )
    size = layout.element_bytes
    assert layout.chunk is not None
    with _hdf5_lock, h5py.File.in_memory() as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk(layout.chunk)
        for step in applied:
            plist.set_filter(step.id, 0, step.values)
        space = h5s.create_simple(layout.chunk)
        made = h5d.create(file.id, b"chunk", _hdf5_type(layout.element, size), space, plist)
        made.write_direct_chunk((0,) * len(layout.chunk), bytes(data))
        out = np.empty(nbytes, np.uint8)
        try:
            made.read(h5s.ALL, h5s.ALL, out, made.get_type())
        except OSError as exc:
            raise NWBReadError(f"a chunk that can't be decoded: {exc}") from None
    return out.data


def _hdf5_type(element: ElementType, size: int):  # type: ignore[no-untyped-def]
    """A datatype with which the filters behave as when the chunk was written."""
    from h5py import h5t

    if element[0] == "odd":
        return h5t.decode(bytes.fromhex(element[1]))
    if element[0] in ("number", "enum"):
        return h5t.py_create(np.dtype(element[1]))
    if element[0] == "complex":
        return h5t.py_create(np.dtype(element[1]))
    opaque = h5t.create(h5t.OPAQUE, size)
    opaque.set_tag(b"")
    return opaque


def _load_plugins() -> None:
    if "hdf5plugin" not in sys.modules:
        try:
            import hdf5plugin  # noqa: F401  (registers its filters on import)
        except ImportError:
            return


def convert_odd(raw: np.ndarray, element: ElementType) -> np.ndarray:
    """Numbers that NumPy has no name for, converted by libhdf5 in a file in memory."""
    import h5py
    from h5py import h5d, h5s, h5t

    count = len(raw) // element_bytes(element)
    out = np.empty(count, np.dtype(element[2]))
    if count == 0:
        return out
    kind = h5t.decode(bytes.fromhex(element[1]))
    with _hdf5_lock, h5py.File.in_memory() as file:
        made = h5d.create(file.id, b"values", kind, h5s.create_simple((count,)))
        made.write(h5s.ALL, h5s.ALL, raw, kind)
        made.read(h5s.ALL, h5s.ALL, out, h5t.py_create(out.dtype))
    return out


# --------------------------------------------------------------------------------------------- gathers
def spread(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The positions of many runs, one after the other: ``[2, 7], [3, 1] -> [2, 3, 4, 7]``.

    >>> spread(np.array([2, 7]), np.array([3, 1])).tolist()
    [2, 3, 4, 7]
    """
    ends = np.cumsum(counts)
    positions: np.ndarray = np.repeat(starts - (ends - counts), counts)
    positions += np.arange(positions.size, dtype=positions.dtype)
    return positions


def merged(starts: np.ndarray, stops: np.ndarray, gap: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The union of intervals as sorted, disjoint ones; those less than `gap` apart are joined.

    >>> merged(np.array([5, 0, 9]), np.array([7, 6, 10]))
    (array([0, 9]), array([ 7, 10]))
    """
    keep = stops > starts
    starts, stops = starts[keep], stops[keep]
    if not starts.size:
        return starts.astype(np.int64), stops.astype(np.int64)
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], stops[order]
    reach = np.maximum.accumulate(stops)
    first = np.flatnonzero(np.concatenate([[True], starts[1:] > reach[:-1] + gap]))
    last = np.concatenate([first[1:] - 1, [starts.size - 1]])
    return starts[first].astype(np.int64), reach[last].astype(np.int64)


def slices(buffer: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> pa.Array:
    """Byte strings out of one buffer, as an Arrow array of large binaries."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    data = buffer[spread(starts, counts)] if offsets[-1] else np.zeros(0, np.uint8)
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(counts), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def utf8(binary: pa.Array) -> pa.Array:
    """Byte strings as text; bytes that are not UTF-8 become replacement characters."""
    try:
        return pc.cast(binary, pa.large_string())
    except pa.ArrowInvalid:
        fixed = [
            None if value is None else value.decode("utf-8", "replace")
            for value in binary.to_pylist()
        ]
        return pa.array(fixed, pa.large_string())


def fixed_text(raw: np.ndarray, size: int, padding: str) -> pa.Array:
    """Strings of fixed size, stripped by their padding type."""
    if size == 0:
        return pa.array([""] * len(raw), pa.large_string())
    table = raw.reshape(-1, size)
    if padding == "term":
        ends = table == 0
        counts = np.where(ends.any(axis=1), ends.argmax(axis=1), size)
    else:
        filled = table != (0x20 if padding == "space" else 0)
        counts = np.where(filled.any(axis=1), size - filled[:, ::-1].argmax(axis=1), 0)
    starts = np.arange(len(table), dtype=np.int64) * size
    return utf8(slices(table.reshape(-1), starts, counts.astype(np.int64)))


def labelled(values: np.ndarray, labels: Sequence[str], codes: Sequence[int] | None) -> pa.Array:
    """Labels for numbers; a number without one is null."""
    if codes is None:
        missing = (values < 0) | (values >= len(labels))
        positions = np.where(missing, 0, values).astype(np.int64)
    else:
        known = np.array(codes, values.dtype)
        order = np.argsort(known, kind="stable")
        found = np.searchsorted(known[order], values)
        found = np.minimum(found, len(known) - 1)
        missing = known[order][found] != values
        positions = order[found]
    if not len(labels):
        return pa.nulls(len(values), pa.large_string())
    return pa.array(list(labels), pa.large_string()).take(pa.array(positions, mask=missing))


# ---------------------------------------------------------------------------------------------- values
def numbers(raw: np.ndarray, element: ElementType) -> np.ndarray:
    """Plain elements as a NumPy array in native byte order."""
    kind = element[0]
    if kind == "bool":
        return raw.view(np.uint8) != 0
    if kind == "odd":
        return convert_odd(raw, element)
    stored = np.dtype(element[1])
    values: np.ndarray = raw.view(stored).astype(stored.newbyteorder("="), copy=False)
    return values


def arrow(values: Values) -> pa.Array:
    """As an Arrow array, without a copy where that is possible."""
    return values if isinstance(values, pa.Array) else pa.array(values)


def nested(values: Values, item: Sequence[int], rows: int) -> Values:
    """Flat values as lists of lists, one for each row; the values themselves for an empty `item`."""
    for level in range(len(item) - 1, -1, -1):
        count = rows * math.prod(item[:level])
        values = listed(np.arange(count + 1, dtype=np.int64) * item[level], values)
    return values


def listed(offsets: np.ndarray, values: Values) -> pa.Array:
    """A list array by offsets."""
    if offsets[-1] > np.iinfo(np.int32).max:
        raise NWBReadError(
            f"{int(offsets[-1])} values of a list column in one partition; the limit is 2**31 - 1: "
            "use a smaller blocksize"
        )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), arrow(values))


def empty(kind: pa.DataType) -> pa.Array:
    """No rows of a type."""
    return pa.array([], kind)
