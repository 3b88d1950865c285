"""LINDI files of HDF5 files, written as the format describes them: Zarr metadata, ranges, values in JSON."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numcodecs import Blosc

URL = "{{u1}}"
INLINED = 1000  # numbers of a dataset that are written into the JSON
JSON2 = {"id": "json2", "encoding": "utf-8"}
BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}


def lindi_of(
    path: str | Path, url: str, *, left: int = 100, split: int = 20_000_000, name: str | Path | None = None
) -> dict[str, Any]:
    """The content of a LINDI file.

    Parameters
    ----------
    path : path
        The HDF5 file.
    url : str
        What it is called in the LINDI file.
    left : int
        Datasets of more chunks are left in the HDF5 file.
    split : int
        Contiguous data of more bytes are cut into chunks.
    name : path, optional
        Where to write it.
    """
    refs: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        _group(file, "", file, refs, left, split)
    held = {"version": 1, "templates": {"u1": url}, "refs": refs}
    if name is not None:
        Path(name).write_text(json.dumps(held))
    return held


def _group(file: h5py.File, path: str, group: h5py.Group, refs: dict[str, Any], left: int, split: int) -> None:
    _put(refs, path, ".zgroup", {"zarr_format": 2})
    _put(refs, path, ".zattrs", _attributes(file, group))
    for name in group:
        link, where = group.get(name, getlink=True), f"{path}/{name}".lstrip("/")
        if isinstance(link, h5py.SoftLink):
            _put(refs, where, ".zgroup", {"zarr_format": 2})
            _put(refs, where, ".zattrs", {"_SOFT_LINK": {"path": link.path}})
        elif isinstance(group[name], h5py.Group):
            _group(file, where, group[name], refs, left, split)
        else:
            _dataset(file, where, group[name], refs, left, split)


def _put(refs: dict[str, Any], path: str, name: str, value: Any) -> None:
    if value:
        refs[f"{path}/{name}".lstrip("/")] = value


def _attributes(file: h5py.File, thing: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    return {name: _plain(file, value) for name, value in thing.attrs.items()}


def _plain(file: h5py.File, value: Any) -> Any:
    if isinstance(value, h5py.Reference):
        return {"_REFERENCE": {"path": file[value].name, "source": "."}}
    if isinstance(value, np.ndarray):
        return [_plain(file, one) for one in value.tolist()]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.generic):
        value = value.item()
    return "NaN" if value != value else value


def _dataset(
    file: h5py.File, path: str, data: h5py.Dataset, refs: dict[str, Any], left: int, split: int
) -> None:
    attributes = _attributes(file, data)
    shape = data.shape or (1,)
    chunks = data.chunks or tuple(max(n, 1) for n in shape)
    meta: dict[str, Any] = {"zarr_format": 2, "shape": shape, "order": "C", "fill_value": 0}
    many = data.chunks is not None and data.id.get_num_chunks() > left
    number = data.dtype.kind in "iuf"
    if data.shape == ():
        attributes["_SCALAR"] = True
    if data.dtype.names:
        kinds = [data.dtype[n] for n in data.dtype.names]
        spelled = ["<REFERENCE>" if h5py.check_ref_dtype(k) else str(k) for k in kinds]
        attributes["_COMPOUND_DTYPE"] = list(zip(data.dtype.names, spelled, strict=True))
    if many:
        left_there = {"link_type": "hdf5_dataset", "url": URL, "name": path}
        attributes["_EXTERNAL_ARRAY_LINK"] = left_there
    if number and data.shape != () and (many or data.size >= INLINED or not data.size):
        codecs = []
        if data.shuffle:
            codecs.append({"id": "shuffle", "elementsize": data.dtype.itemsize})
        if data.compression == "gzip":
            codecs.append({"id": "zlib", "level": data.compression_opts})
        fill = data.fillvalue.item() if data.fillvalue is not None else 0
        fill = "NaN" if fill != fill else fill
        row = data.dtype.itemsize * int(np.prod(shape[1:]))
        if data.chunks is None and data.nbytes > split:
            chunks = (split // row, *shape[1:])
        meta |= {"chunks": chunks, "dtype": data.dtype.str, "compressor": None}
        meta |= {"filters": codecs or None, "fill_value": fill}
        if not many and data.size:
            _ranges(path, data, refs, chunks, row)
    else:
        _inlined(file, path, data, refs, meta)
    _put(refs, path, ".zarray", json.loads(json.dumps(meta)))
    _put(refs, path, ".zattrs", attributes)


def _ranges(path: str, data: h5py.Dataset, refs: dict[str, Any], chunks: tuple[int, ...], row: int) -> None:
    zeros = ".0" * (data.ndim - 1)
    if data.chunks is None:
        begin, end = data.id.get_offset(), data.id.get_storage_size()
        step = chunks[0] * row
        for i, at in enumerate(range(0, end, step)):
            refs[f"{path}/{i}{zeros}"] = [URL, begin + at, min(step, end - at)]
        return
    for i in range(data.id.get_num_chunks()):
        info = data.id.get_chunk_info(i)
        place = ".".join(str(a // c) for a, c in zip(info.chunk_offset, chunks, strict=True))
        refs[f"{path}/{place}"] = [URL, info.byte_offset, info.size]


def _inlined(
    file: h5py.File, path: str, data: h5py.Dataset, refs: dict[str, Any], meta: dict[str, Any]
) -> None:
    shape = data.shape or (1,)
    meta |= {"chunks": [max(n, 1) for n in shape], "compressor": BLOSC, "filters": None}
    if data.dtype.kind in "iufbS":
        values = np.atleast_1d(data[()])
        meta["dtype"] = values.dtype.str
        raw = np.ascontiguousarray(values).tobytes()
    else:
        meta |= {"dtype": "|O", "filters": [JSON2]}
        fields = data.dtype.names
        flat = np.atleast_1d(data[()]).reshape(-1)
        values_ = [[_plain(file, v[n]) for n in fields] if fields else _plain(file, v) for v in flat]
        for n in shape[:0:-1]:
            values_ = [values_[i : i + n] for i in range(0, len(values_), n)]
        raw = json.dumps([*values_, "|O", list(shape)]).encode()
    if data.size:
        key = path + "/" + ".".join("0" * len(shape))
        refs[key] = encoded(raw)


def encoded(raw: bytes) -> str:
    """Bytes as they stand in the JSON."""
    return "base64:" + base64.b64encode(Blosc("lz4").encode(raw)).decode()
