"""A chunk's filters undone: what is known here by codecs, the rest by libhdf5 in a file in memory.

Nothing that a chunk claims is taken at its word: each step is given room for what it must become and no
more, and has to fill it. libhdf5's own filters don't check whether a chunk has as many bytes as they need,
and go on with whatever lies in memory behind it; so that is checked before they see it.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.elements import ElementType, element_bytes
from lazynwb_dask.model.index import Filter, Layout
from lazynwb_dask.util.buffers import blank
from lazynwb_dask.util.locks import Lock

DEFLATE, SHUFFLE, FLETCHER32, SZIP, NBIT, SCALEOFFSET = 1, 2, 3, 4, 5, 6
LZF, BLOSC, ZSTD = 32000, 32001, 32015
_NAMES = {SHUFFLE: "shuffle", SZIP: "szip", NBIT: "n-bit", SCALEOFFSET: "scale-offset", LZF: "lzf"}
_OURS = frozenset({DEFLATE, SHUFFLE, FLETCHER32, ZSTD, BLOSC})
_COMPRESSORS = frozenset({DEFLATE, SZIP, LZF, BLOSC, ZSTD})
_CHECKED = frozenset({SHUFFLE, SZIP, NBIT, SCALEOFFSET})  # libhdf5 finds their parameters itself
_SCALEOFFSET_HEAD = 21  # bytes before the packed values
_SZIP_PIXELS = 32  # of a block, at most
_BLOSC_WIDTH, _BLOSC_BYTES = 255, 1 << 30  # of an element, of a buffer: what Blosc takes
_PLUGINS = 256  # the filters from here on are not libhdf5's own
_PLACEHOLDER = 511  # a number that is kept for tests


class Room(NamedTuple):
    """The bytes that a step must give; up to so many, where that depends on the values."""

    size: int
    exact: bool = True

    def check(self, size: int, what: str) -> None:
        """Raise unless so many bytes fit."""
        if not 0 <= size <= self.size or (self.exact and size < self.size):
            raise NWBReadError(f"{what} {size} bytes where {self.size} are declared: damaged")


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

    Raises
    ------
    NWBReadError
        It doesn't, or is damaged.
    UnsupportedColumnError
        A filter is not available here.
    """
    return unshuffle(*before_shuffle(data, layout, mask, nbytes))


def before_shuffle(
    data: memoryview, layout: Layout, mask: int, nbytes: int
) -> tuple[memoryview, int]:
    """The same, less a shuffle that was applied first: the bytes, and the width that they are shuffled in.

    The width is 1 if they aren't.
    """
    applied = [f for i, f in enumerate(layout.filters) if not (mask >> i & 1 or _idle(f))]
    width = 1
    while applied:
        if len(applied) == 1 and applied[0].id == SHUFFLE:
            width = _width(applied.pop())
            break
        room = _room(applied[:-1], layout, nbytes)
        if applied[-1].id not in _OURS:
            data, applied = _by_hdf5(data, layout, applied, nbytes, room), []
        else:
            data = _undo(applied.pop(), data, room)
    if len(data) != nbytes:
        raise NWBReadError(f"a chunk holds {len(data)} bytes where {nbytes} are declared: damaged")
    return data, width


def _idle(step: Filter) -> bool:
    """Whether a step left every chunk as it was: n-bit, where all bits of the type count, says so."""
    return step.id == NBIT and len(step.values) > 1 and step.values[1] == 1


def _width(step: Filter) -> int:
    if len(step.values) != 1 or not step.values[0]:
        raise NWBReadError(f"shuffled in elements of {step.values} bytes: damaged")
    return step.values[0]


def undone(data: memoryview, steps: Sequence[Filter], limit: int) -> memoryview:
    """Bytes with codecs undone, where nothing but a limit is known of what they must become."""
    for step in reversed(steps):
        data = _undo(step, data, Room(limit, False))
    return data


def _room(earlier: Sequence[Filter], layout: Layout, nbytes: int) -> Room:
    """What is left to undo of a chunk after its last steps: what earlier steps make of so many bytes."""
    room = Room(nbytes)
    for step in earlier:
        if step.id == FLETCHER32:
            room = Room(room.size + 4, room.exact)
        elif step.id == NBIT and room == (nbytes, True):
            room = Room(_nbit_size(layout, nbytes))
        elif step.id != SHUFFLE:  # incompressible data grow
            room = Room(room.size + room.size // 8 + 1024, False)
    return room


# ---------------------------------------------------------------------------------------------- codecs
def _undo(step: Filter, data: memoryview, room: Room) -> memoryview:
    if step.id == DEFLATE:
        return inflate(data, room)
    if step.id == SHUFFLE:
        return unshuffle(data, _width(step))
    if step.id == FLETCHER32:
        return _checked(data)
    from numcodecs import blosc, zstd

    # a codec that is given room for more than it has leaves the rest as it is
    size = _zstd_size(data) if step.id == ZSTD else _blosc_size(data)
    room.check(size, "a compressed chunk says that it holds")
    out = bytearray(size)
    try:
        (zstd if step.id == ZSTD else blosc).decompress(data, out)
    except Exception as exc:
        raise NWBReadError(f"a chunk that can't be decompressed ({step.name}): {exc}") from None
    return memoryview(out)


def inflate(data: memoryview, room: Room) -> memoryview:
    """A zlib stream, whole and with the right checksum, never more memory than there is room."""
    from isal import isal_zlib

    stream = isal_zlib.decompressobj()
    try:
        out = stream.decompress(data, room.size) if room.size else b""
        more = b"" if stream.eof else stream.decompress(stream.unconsumed_tail, 1)
    except Exception as exc:  # isal's own error has no importable base
        raise NWBReadError(f"a compressed chunk is damaged: {exc}") from None
    if more:
        raise NWBReadError(
            f"a compressed chunk holds more than the {room.size} bytes that are declared: damaged"
        )
    if not stream.eof:
        raise NWBReadError("a compressed chunk ends too early: damaged")
    room.check(len(out), "a compressed chunk holds")
    return memoryview(out)


def unshuffle_part(data: memoryview, size: int, start: int, out: np.ndarray) -> bool:
    """Only some of the bytes, from `start` on; False if they don't begin and end with an element."""
    count = len(data) // size
    first, n = start // size, len(out) // size
    if start % size or len(out) % size or first + n > count:
        return False
    planes = np.frombuffer(data, np.uint8, count * size).reshape(size, count)
    elements = out.reshape(n, size)
    for i in range(size):
        elements[:, i] = planes[i, first : first + n]
    return True


def unshuffle(data: memoryview, size: int) -> memoryview:
    """Byte planes back to elements of so many bytes; what doesn't fill an element stays as it is."""
    n = len(data)
    if size <= 1 or n < 2 * size:
        return data
    if size <= _BLOSC_WIDTH and n < _BLOSC_BYTES:
        return _unshuffle_by_blosc(data, size)
    raw = np.frombuffer(data, np.uint8)
    out = np.empty_like(raw)
    whole = n // size * size
    out[:whole].reshape(-1, size)[...] = raw[:whole].reshape(size, -1).T
    out[whole:] = raw[whole:]
    return out.data


def _unshuffle_by_blosc(data: memoryview, size: int) -> memoryview:
    """The same with Blosc's vector instructions, and without the interpreter's lock.

    Blosc shuffles as HDF5 does, block by block. So the data are shown to it as a buffer of one block that
    was shuffled and then stored as it is, since it could not be compressed.
    """
    from numcodecs import blosc

    n = len(data)
    version, shuffled, unsplit, lz4 = 2, 0x01, 0x10, 1 << 5
    head = struct.pack("<BBBBIII", version, 1, shuffled | unsplit | lz4, size, n, n, n + 24)
    starts = struct.pack("<II", 20, n)  # of the block, and its length
    out = blank(n)
    blosc.decompress(b"".join((head, starts, data)), out)
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


def _zstd_size(data: memoryview) -> int:
    """The bytes that a Zstandard frame says it holds (RFC 8878, section 3.1.1.1); -1 if it doesn't."""
    if len(data) < 14 or bytes(data[:4]) != b"\x28\xb5\x2f\xfd":
        return -1
    flags = data[4]
    single = flags >> 5 & 1
    width = (single, 2, 4, 8)[flags >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3]
    size = int.from_bytes(data[at : at + width], "little")
    return -1 if not width else size + 256 if width == 2 else size


def _blosc_size(data: memoryview) -> int:
    """The bytes that a Blosc buffer says it holds; -1 if it is none."""
    if len(data) < 16 or int.from_bytes(data[12:16], "little") != len(data):
        return -1
    return int.from_bytes(data[4:8], "little")


# --------------------------------------------------------------------------------------------- libhdf5
_lock = Lock()


def _by_hdf5(
    data: memoryview, layout: Layout, applied: Sequence[Filter], nbytes: int, room: Room
) -> memoryview:
    """One chunk through libhdf5's own filters, in a file in memory that holds nothing else."""
    check_filters(applied)
    last, endings = applied[-1], [b""]
    if last.id == LZF and room.exact:
        room.check(_lzf_size(bytes(data)), "a compressed chunk holds")
    elif last.id == NBIT and len(applied) == 1 and len(data) < _nbit_size(layout, nbytes):
        raise NWBReadError("a compressed chunk ends too early: damaged")
    elif last.id == SCALEOFFSET:
        _check_scaleoffset(data, layout, nbytes)
    elif last.id == SZIP:
        _check_szip(data, last, room)
        # libhdf5 doesn't say when the stream ended too early. What comes behind it tells: then it matters
        endings = [b"\0" * nbytes, b"\xff" * nbytes]
    outs = [_decoded(bytes(data) + end, layout, applied, nbytes) for end in endings]
    if any((out != outs[0]).any() for out in outs[1:]):
        raise NWBReadError("a compressed chunk ends too early: damaged")
    return outs[0].data


def _decoded(data: bytes, layout: Layout, applied: Sequence[Filter], nbytes: int) -> np.ndarray:
    if not data:
        raise NWBReadError("a compressed chunk of no bytes: damaged")
    chunk = layout.chunk
    assert chunk is not None
    with _lock, h5py.File.in_memory() as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk(chunk)
        for step in applied:
            if _of_plugin(step):
                plist.set_filter(_PLACEHOLDER, h5z.FLAG_OPTIONAL, step.values)
            else:
                plist.set_filter(step.id, 0, step.values)
        kind = _hdf5_type(layout.element)
        size = kind.get_size() * math.prod(chunk)
        if size != nbytes:
            raise NWBReadError(f"a chunk decoded as {size} bytes where {nbytes} are declared")
        if layout.fill and layout.element[0] in ("number", "enum"):
            # scale-offset keeps one of its codes for the fill value
            fill = np.frombuffer(layout.fill, np.dtype(layout.element[1]))
            plist.set_fill_value(fill.reshape(()))
        try:
            made = h5d.create(file.id, b"chunk", kind, h5s.create_simple(chunk), plist)
            _check_parameters(made, applied)
            if any(map(_of_plugin, applied)):
                made = _with_plugins(file, applied)
            made.write_direct_chunk((0,) * len(chunk), data)
            out = np.zeros(nbytes, np.uint8)
            made.read(h5s.ALL, h5s.ALL, out, made.get_type())
        except (OSError, ValueError, RuntimeError) as exc:
            raise NWBReadError(f"a chunk that can't be decoded: {exc}") from None
    return out


def _of_plugin(step: Filter) -> bool:
    # LZF comes with h5py, and finds its parameters (a size that it believes) from the dataset
    return step.id >= _PLUGINS and step.id != LZF


def _with_plugins(file: h5py.File, applied: Sequence[Filter]) -> h5d.DatasetID:
    """The empty dataset of `file`, its placeholders replaced by the filters they stand for.

    A plugin takes the parameters of a dataset that is created for a user's wishes, and stores others
    (Bitshuffle puts three before them). Only what is in a file already is taken as it is.
    """
    file.flush()
    image = file.id.get_file_image()
    for step in applied:
        if _of_plugin(step):  # as version 1 of the filter pipeline message has it
            count = len(step.values)
            tail = struct.pack(f"<HHH{count}I", 0, h5z.FLAG_OPTIONAL, count, *step.values)
            before, found, after = image.partition(struct.pack("<H", _PLACEHOLDER) + tail)
            if not found:
                raise NWBReadError(f"parameters {step.values} of the filter {step.id}: damaged")
            image = before + struct.pack("<H", step.id) + tail + after
    opened = h5py.h5f.open_file_image(image, flags=h5py.h5f.FILE_IMAGE_OPEN_RW)
    return h5d.open(opened, b"chunk")


def check_filters(steps: Sequence[Filter]) -> None:
    """Raise if no chunk can be decoded here that these steps were applied to.

    Raises
    ------
    UnsupportedColumnError
    """
    applied = [step for step in steps if not _idle(step)]
    while applied and applied[-1].id in _OURS:
        applied.pop()
    # the rest is left to libhdf5
    _check_available(applied)
    if any(f.id in _COMPRESSORS for f in applied[:-1]):
        raise UnsupportedColumnError("compressed twice over")


def _check_available(applied: Sequence[Filter]) -> None:
    for step in applied:
        if not h5z.filter_avail(step.id):
            _load_plugins()
        if not h5z.filter_avail(step.id):
            name = _NAMES.get(step.id) or step.name or "unknown"
            way_out = "pip install hdf5plugin"
            if "hdf5plugin" in sys.modules:
                way_out = (
                    "hdf5plugin, which is installed, doesn't have it; name the folder of a plugin "
                    "that does in HDF5_PLUGIN_PATH"
                )
            raise UnsupportedColumnError(
                f"compressed with the HDF5 filter {step.id} ({name}), which is not available here: "
                f"{way_out}"
            )


def _load_plugins() -> None:
    if "hdf5plugin" not in sys.modules:
        try:
            import hdf5plugin  # noqa: F401  (registers its filters on import)
        except ImportError:
            return


def _check_parameters(made: h5d.DatasetID, applied: Sequence[Filter]) -> None:
    """Raise unless the parameters stored are those that libhdf5 finds for such a dataset."""
    plist = made.get_create_plist()
    for i, step in enumerate(applied):
        if step.id in _CHECKED and tuple(plist.get_filter(i)[2]) != step.values:
            raise NWBReadError(
                f"the parameters of the filter {_NAMES[step.id]} don't fit the dataset: damaged"
            )


def _check_szip(data: memoryview, step: Filter, room: Room) -> None:
    """Raise for parameters, and a declared length, with which the library would leave its buffers."""
    pixels = step.values[1] if len(step.values) == 4 else 0
    if not 2 <= pixels <= _SZIP_PIXELS or pixels % 2 or len(data) < 4:
        raise NWBReadError("parameters of the filter szip that can't be: damaged")
    room.check(struct.unpack_from("<I", data)[0], "a compressed chunk says that it holds")


def _check_scaleoffset(data: memoryview, layout: Layout, nbytes: int) -> None:
    """Raise if there are fewer bits than the chunk's values take."""
    size = layout.element_bytes
    if len(data) < _SCALEOFFSET_HEAD:
        raise NWBReadError("a compressed chunk ends too early: damaged")
    bits = struct.unpack_from("<I", data)[0]
    if bits > 8 * size:
        raise NWBReadError(f"values packed in {bits} bits: damaged")
    if len(data) < _SCALEOFFSET_HEAD + nbytes // size * bits // 8:
        raise NWBReadError("a compressed chunk ends too early: damaged")


def _nbit_size(layout: Layout, nbytes: int) -> int:
    """The bytes of a chunk once its values are packed bit by bit; the last byte may be left over."""
    bits = _significant_bits(layout.element)
    size = layout.element_bytes
    return nbytes if bits == 8 * size else nbytes // size * bits // 8 + 1


def _significant_bits(element: ElementType) -> int:
    if element[0] == "odd":
        return int(h5t.decode(bytes.fromhex(element[1])).get_precision())
    if element[0] == "array":
        return math.prod(element[1]) * _significant_bits(element[2])
    if element[0] == "compound":
        return sum(_significant_bits(inner) for _, _, inner in element[2])
    return 8 * element_bytes(element)


def _lzf_size(data: bytes) -> int:
    """The bytes that an LZF stream becomes: libhdf5 would leave what it lacks as it is in memory.

    A scan from token to token, as each says where the next begins.
    """
    at = size = 0
    end = len(data)
    while at < end:
        control = data[at]
        if control < 32:  # so many bytes as they are
            at += control + 2
            size += control + 1
        elif control < 224:  # a copy of up to 8 bytes
            at += 2
            size += (control >> 5) + 2
        else:
            size += (data[at + 1] if at + 1 < end else 0) + 9
            at += 3
    if at != end:
        raise NWBReadError("a compressed chunk ends too early: damaged")
    return size


def _hdf5_type(element: ElementType) -> h5t.TypeID:
    """A datatype with which the filters behave as when the chunk was written."""
    kind = element[0]
    if kind == "odd":
        return h5t.decode(bytes.fromhex(element[1]))
    if kind == "number":
        return h5t.py_create(np.dtype(element[1]))
    if kind == "complex":
        return h5t.py_create(np.dtype([("r", element[1]), ("i", element[1])]))
    if kind == "bool":
        return h5t.py_create(np.dtype("?"), logical=True)
    if kind == "enum":
        made = h5t.enum_create(h5t.py_create(np.dtype(element[1])))
        for label, value in zip(element[2], element[3], strict=True):
            made.enum_insert(label.encode(), value)
        return made
    if kind == "array":
        return h5t.array_create(_hdf5_type(element[2]), element[1])
    if kind == "compound":
        made = h5t.create(h5t.COMPOUND, element[1])
        for i, (_, offset, inner) in enumerate(element[2]):
            made.insert(str(i).encode(), offset, _hdf5_type(inner))
        return made
    opaque = h5t.create(h5t.OPAQUE, element_bytes(element))
    opaque.set_tag(b"")
    return opaque


def convert_odd(raw: np.ndarray, element: ElementType) -> np.ndarray:
    """Numbers that NumPy has no name for, converted by libhdf5 in a file in memory."""
    count = len(raw) // element_bytes(element)
    out = np.empty(count, np.dtype(element[2]))
    if count == 0:
        return out
    kind = h5t.decode(bytes.fromhex(element[1]))
    with _lock, h5py.File.in_memory() as file:
        made = h5d.create(file.id, b"values", kind, h5s.create_simple((count,)))
        made.write(h5s.ALL, h5s.ALL, raw, kind)
        made.read(h5s.ALL, h5s.ALL, out, h5t.py_create(out.dtype))
    return out
