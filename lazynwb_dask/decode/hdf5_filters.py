"""Filters undone by libhdf5, one chunk at a time, in a file in memory that holds nothing else.

libhdf5's own filters read beyond a chunk with fewer bytes than they need. So that is checked first.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

from lazynwb_dask.decode.codecs import BLOSC, DEFLATE, LZF, NBIT, SCALEOFFSET, SHUFFLE, SZIP, ZSTD, OutputSize
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.elements import ElementType, element_bytes
from lazynwb_dask.model.index import Filter, Layout
from lazynwb_dask.util.locks import Lock

_NAMES = {SHUFFLE: "shuffle", SZIP: "szip", NBIT: "n-bit", SCALEOFFSET: "scale-offset", LZF: "lzf"}
_COMPRESSORS = frozenset({DEFLATE, SZIP, LZF, BLOSC, ZSTD})
_CHECKED = frozenset({SHUFFLE, SZIP, NBIT, SCALEOFFSET})  # libhdf5 derives their parameters itself
_SCALEOFFSET_HEAD = 21  # bytes before the packed values
_SZIP_PIXELS = 32  # of a block, at most
_PLUGINS = 256  # filters with identifiers from here on are not libhdf5's own
TRIES = 3
_PLACEHOLDER = 511  # an identifier that is reserved for testing

_lock = Lock()


def decode_chunk(
    data: memoryview, layout: Layout, applied: Sequence[Filter], nbytes: int, output: OutputSize
) -> memoryview:
    """A chunk's bytes with all its filters undone; `applied` has them in the order of writing.

    `nbytes` is the decoded size, `output` the size before the last filter was applied. Raises NWBReadError
    if the chunk is damaged or has another size, UnsupportedColumnError if a filter is not available here.
    """
    check_available(applied)
    last, endings = applied[-1], [b""]
    if last.id == LZF and output.exact:
        output.check(_lzf_size(bytes(data)), "a compressed chunk holds")
    elif last.id == NBIT and len(applied) == 1 and len(data) < nbit_size(layout, nbytes):
        raise NWBReadError("a compressed chunk ends too early: damaged")
    elif last.id == SCALEOFFSET:
        _check_scaleoffset(data, layout, nbytes)
    elif last.id == SZIP:
        _check_szip(data, last, output)
        # libhdf5 doesn't report a stream that ends too early: then the bytes after it change the output
        endings = [b"\0" * nbytes, b"\xff" * nbytes]
    outs = [_decoded(bytes(data) + end, layout, applied, nbytes) for end in endings]
    if any((out != outs[0]).any() for out in outs[1:]):
        raise NWBReadError("a compressed chunk ends too early: damaged")
    return outs[0].data


def _decoded(data: bytes, layout: Layout, applied: Sequence[Filter], nbytes: int) -> np.ndarray:
    """As `_decode`, tried again: HDF5 1.14 may fail on a sound chunk. A damaged one fails each time."""
    for _ in range(TRIES - 1):
        with suppress(NWBReadError):
            return _decode(data, layout, applied, nbytes)
    return _decode(data, layout, applied, nbytes)


def _decode(data: bytes, layout: Layout, applied: Sequence[Filter], nbytes: int) -> np.ndarray:
    if not data:
        raise NWBReadError("a compressed chunk of no bytes: damaged")
    chunk = layout.chunk
    assert chunk is not None
    with _lock, h5py.File.in_memory() as file:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk(chunk)
        for step in applied:
            if _is_plugin(step):
                plist.set_filter(_PLACEHOLDER, h5z.FLAG_OPTIONAL, step.values)
            else:
                plist.set_filter(step.id, 0, step.values)
        kind = _hdf5_type(layout.element)
        size = kind.get_size() * math.prod(chunk)
        if size != nbytes:
            raise NWBReadError(f"a chunk decoded as {size} bytes where {nbytes} are declared")
        if layout.fill and layout.element[0] in ("number", "enum"):
            # scale-offset reserves one of its codes for the fill value
            fill = np.frombuffer(layout.fill, np.dtype(layout.element[1]))
            plist.set_fill_value(fill.reshape(()))
        try:
            dataset = h5d.create(file.id, b"chunk", kind, h5s.create_simple(chunk), plist)
            _check_parameters(dataset, applied)
            if any(map(_is_plugin, applied)):
                dataset = _with_plugins(file, applied)
            dataset.write_direct_chunk((0,) * len(chunk), data)
            out = np.zeros(nbytes, np.uint8)
            dataset.read(h5s.ALL, h5s.ALL, out, dataset.get_type())
        except (OSError, ValueError, RuntimeError) as exc:
            raise NWBReadError(f"a chunk that can't be decoded: {exc}") from None
    return out


def _is_plugin(step: Filter) -> bool:
    # LZF comes with h5py, and derives its parameters (a size that it trusts) from the dataset
    return step.id >= _PLUGINS and step.id != LZF


def _with_plugins(file: h5py.File, applied: Sequence[Filter]) -> h5d.DatasetID:
    """The empty dataset of `file` with the placeholders replaced by the plugins that they stand for.

    A plugin changes its parameters when a dataset is created (Bitshuffle puts three before them), but takes
    those that are in a file already as they are.
    """
    file.flush()
    image = file.id.get_file_image()
    for step in applied:
        if _is_plugin(step):  # a filter description in version 1 of the filter pipeline message
            count = len(step.values)
            tail = struct.pack(f"<HHH{count}I", 0, h5z.FLAG_OPTIONAL, count, *step.values)
            before, found, after = image.partition(struct.pack("<H", _PLACEHOLDER) + tail)
            if not found:
                raise NWBReadError(f"parameters {step.values} of the filter {step.id}: damaged")
            image = before + struct.pack("<H", step.id) + tail + after
    opened = h5py.h5f.open_file_image(image, flags=h5py.h5f.FILE_IMAGE_OPEN_RW)
    return h5d.open(opened, b"chunk")


def check_available(applied: Sequence[Filter]) -> None:
    """Raise UnsupportedColumnError if libhdf5 can't decode chunks with these filters here."""
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
                f"compressed with the HDF5 filter {step.id} ({name}), which is not available here: {way_out}"
            )
    # a size that a compressor's output declares is checked for the last one only
    if any(f.id in _COMPRESSORS for f in applied[:-1]):
        raise UnsupportedColumnError("compressed twice over")


def _load_plugins() -> None:
    if "hdf5plugin" not in sys.modules:
        try:
            import hdf5plugin  # noqa: F401  (registers its filters on import)
        except ImportError:
            return


def _check_parameters(dataset: h5d.DatasetID, applied: Sequence[Filter]) -> None:
    """Raise unless the parameters are those that libhdf5 derives for such a dataset."""
    plist = dataset.get_create_plist()
    for i, step in enumerate(applied):
        if step.id in _CHECKED and tuple(plist.get_filter(i)[2]) != step.values:
            raise NWBReadError(f"the parameters of the filter {_NAMES[step.id]} don't fit the dataset: damaged")


def _check_szip(data: memoryview, step: Filter, output: OutputSize) -> None:
    """Raise for parameters or a declared length with which the library would exceed its buffers."""
    pixels = step.values[1] if len(step.values) == 4 else 0
    if not 2 <= pixels <= _SZIP_PIXELS or pixels % 2 or len(data) < 4:
        raise NWBReadError("parameters of the filter szip that can't be: damaged")
    output.check(struct.unpack_from("<I", data)[0], "a compressed chunk says that it holds")


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


def nbit_size(layout: Layout, nbytes: int) -> int:
    """The size of a chunk of `nbytes` bytes after n-bit, which packs the significant bits of each value."""
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
    """The decoded size of an LZF stream. Where it is too short, libhdf5 would return uninitialised memory.

    This is a scan from token to token, as each tells where the next begins.
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
    """An HDF5 datatype for which the filters do the same as when the chunk was written."""
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
    """The stored bytes (uint8) of ``("odd", ...)`` elements, converted by libhdf5 to the type they name."""
    count = len(raw) // element_bytes(element)
    out = np.empty(count, np.dtype(element[2]))
    if count == 0:
        return out
    kind = h5t.decode(bytes.fromhex(element[1]))
    with _lock, h5py.File.in_memory() as file:
        dataset = h5d.create(file.id, b"values", kind, h5s.create_simple((count,)))
        dataset.write(h5s.ALL, h5s.ALL, raw, kind)
        dataset.read(h5s.ALL, h5s.ALL, out, h5t.py_create(out.dtype))
    return out
