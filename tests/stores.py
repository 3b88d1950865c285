"""NWB-Zarr stores of HDF5 files after hdmf-zarr's conventions for Zarr v2 and v3: by JSON and numcodecs alone.

A store is made as a mapping of keys to bytes: for a folder, a server, a zip, or to be damaged first.
"""

from __future__ import annotations

import base64
import itertools
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np

Keys = dict[str, bytes]
BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
ZSTD = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}
NAMES = {"u": "uint", "i": "int", "f": "float", "c": "complex"}
NONE = 2**64 - 1  # offset and length of an inner chunk that isn't there


@dataclass(frozen=True)
class How:
    """How a store is written.

    Attributes
    ----------
    version : {2, 3}
    consolidated : bool
    rows : int or dict
        Rows of a chunk of all arrays, or of those named; the others are one chunk.
    shard : int, optional
        Chunks along the rows that one object holds. v3 alone.
    index_location : {"end", "start"}
    texts : {"vlen-utf8", "vlen-bytes", "json2", "fixed"}
        "fixed": as UTF-32 of the longest text. v3 knows "vlen-utf8" and "fixed".
    references : {"json2", "pickle"}
        v2 alone: in v3 they are texts.
    before, after : sequence of dict
        Codecs as each version spells them: of whole numbers, of bytes. Of v2 `after` is the compressor. What is
        None in them is said by each array's values: dtype, elementsize.
    order : {"C", "F"}
        "F" in v3: by the codec transpose.
    separator : {".", "/"}
    sparse : bool
        Chunks of nothing but the fill value are left out.
    """

    version: int = 2
    consolidated: bool = True
    rows: int | Mapping[str, int] | None = None
    shard: int | None = None
    index_location: str = "end"
    texts: str = "vlen-utf8"
    references: str = "json2"
    before: Sequence[Mapping[str, Any]] = ()
    after: Sequence[Mapping[str, Any]] | None = None
    order: str = "C"
    separator: str = ""
    sparse: bool = True
    links: Mapping[str, str] = field(default_factory=dict)  # more links: their paths to those of their targets


def store_of(path: str | Path, how: How | None = None, **options: Any) -> Keys:
    """The keys of a store with the content of an HDF5 file."""
    made = _Store(how or How(**options))
    with h5py.File(path, "r") as file:
        made.file = file
        made.group("", file)
    return made.finished()


def write(keys: Mapping[str, bytes], folder: str | Path) -> str:
    """The store as a folder."""
    for key, value in keys.items():
        place = Path(folder) / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(value)
    return str(folder)


def write_zip(keys: Mapping[str, bytes], path: str | Path, how: int = zipfile.ZIP_STORED) -> str:
    """The store as a zip, as zarr's ZipStore writes it."""
    with zipfile.ZipFile(path, "w", how) as file:
        for key, value in keys.items():
            file.writestr(key, value)
    return str(path)


def serve(keys: Mapping[str, bytes], server: Any, name: str) -> str:
    """The store on a `RangeServer`, below a name."""
    for key, value in keys.items():
        server.put(f"{name}/{key}", value)
    return str(server.url(name))


class _Store:
    """A store in the making: documents of groups and arrays, and chunks."""

    file: h5py.File

    def __init__(self, how: How) -> None:
        self.how, self.chunks, self.seen = how, Keys(), {}
        self.documents: dict[str, dict[str, Any]] = {}  # of each path: attributes, and of arrays the rest

    def group(self, path: str, group: h5py.Group) -> None:
        self.seen[h5py.h5o.get_info(group.id).addr] = f"/{path}"
        document = self.documents[path] = {"attributes": self.attributes(group)}
        links = {}
        for name in group:
            link, where = group.get(name, getlink=True), f"{path}/{name}".lstrip("/")
            if isinstance(link, h5py.SoftLink):
                links[name] = link.path
                continue
            item = group[name]
            if (before := self.seen.get(h5py.h5o.get_info(item.id).addr)) is not None:
                links[name] = before
            elif isinstance(item, h5py.Group):
                self.group(where, item)
            else:
                self.seen[h5py.h5o.get_info(item.id).addr] = f"/{where}"
                self.array(where, item)
        links |= {
            link.rpartition("/")[2]: target
            for link, target in self.how.links.items()
            if link.rpartition("/")[0].strip("/") == path
        }
        if links:
            named = [{"name": n, "path": target, "source": "."} for n, target in links.items()]
            document["attributes"]["_LINKS" if self.how.version == 3 else "zarr_link"] = named

    def attributes(self, thing: Any) -> dict[str, Any]:
        return {name: self.plain(value) for name, value in thing.attrs.items()}

    def plain(self, value: Any) -> Any:
        if isinstance(value, h5py.Reference):
            target = {"source": ".", "path": self.file[value].name}
            if self.how.version == 3:
                return {"_REFERENCE": target}
            return {"value": target, "zarr_dtype": "object"}
        if isinstance(value, np.ndarray):
            return [self.plain(one) for one in value.tolist()]
        if isinstance(value, bytes):
            return value.decode()
        return value.item() if isinstance(value, np.generic) else value

    def array(self, path: str, data: h5py.Dataset) -> None:
        kind, values, fill = self.values(data)
        attributes = self.attributes(data)
        three, scalar = self.how.version == 3, data.shape == ()
        if scalar and not three:
            values = values.reshape(1)
        rows = self.how.rows.get(path) if isinstance(self.how.rows, Mapping) else self.how.rows
        chunk = tuple(max(n, 1) for n in values.shape)
        if rows is not None and chunk:
            chunk = (min(rows, chunk[0]), *chunk[1:])
        fields = data.dtype.names
        if fields:
            refers = [h5py.check_ref_dtype(data.dtype[n]) is not None for n in fields]
            if not three:
                dtypes = ["object" if r else data.dtype[n].name for n, r in zip(fields, refers, strict=True)]
                said: Any = [{"name": n, "dtype": d} for n, d in zip(fields, dtypes, strict=True)]
                attributes["zarr_dtype"] = said
            elif any(refers):
                attributes["_REFERENCE_FIELDS"] = [n for n, r in zip(fields, refers, strict=True) if r]
        else:
            said = {"text": "str", "reference": "object"}.get(kind, values.dtype.name)
            if three:
                attributes["_DTYPE"] = "object_reference" if kind == "reference" else said
            else:
                attributes["zarr_dtype"] = "scalar" if scalar else said
        document = {"attributes": attributes, "shape": list(values.shape), "fill": fill}
        self.documents[path] = document
        (self.array3 if three else self.array2)(path, kind, values, chunk)

    def values(self, data: h5py.Dataset) -> tuple[str, np.ndarray, Any]:
        """What kind of values a dataset has, they, and its fill value."""
        dtype = data.dtype
        if h5py.check_string_dtype(dtype) is not None and dtype.kind == "O":
            texts = np.array(data.asstr()[()], dtype=object)
            return "text", texts, ""
        if h5py.check_ref_dtype(dtype) is not None:
            flat = [self.file[r].name if r else "" for r in np.atleast_1d(data[()]).reshape(-1)]
            return "reference", _objects(flat, data.shape), ""
        if dtype.names and any(h5py.check_ref_dtype(dtype[n]) for n in dtype.names):
            flat = [tuple(v[n] for n in dtype.names) for v in np.atleast_1d(data[()]).reshape(-1)]
            named = [
                [self.file[x].name if isinstance(x, h5py.Reference) else x.item() for x in v] for v in flat
            ]
            return "rows", _objects(named, data.shape), dtype
        fill = data.fillvalue if data.fillvalue is not None and not dtype.names else np.zeros((), dtype)[()]
        return "numbers", np.asarray(data[()]), fill

    def array2(self, path: str, kind: str, values: np.ndarray, chunk: tuple[int, ...]) -> None:
        how, document = self.how, self.documents[path]
        fill = document["fill"]
        codecs: list[Any] = []
        if kind == "numbers":
            dtype: Any = [[n, values.dtype[n].str] for n in values.dtype.names or ()] or values.dtype.str
            codecs = [_said(c, values.dtype) for c in how.before] if values.dtype.kind in "iu" else []
            fill = _fill(fill)
        elif kind == "text" and how.texts == "fixed":
            values = values.astype("U") if values.size else np.zeros(values.shape, "U1")
            dtype, fill = values.dtype.str, ""
        else:
            dtype, fill = "|O", 0
            codecs = [{"id": how.texts if kind == "text" else how.references}]
            if kind == "reference":
                values = _objects([{"source": ".", "path": p} for p in values.reshape(-1)], values.shape)
            if kind == "rows":  # what refers to other objects is the last field
                rows = [[*v[:-1], {"source": ".", "path": v[-1]}] for v in values.reshape(-1)]
                values = _objects(rows, values.shape)
            if codecs[0]["id"] == "vlen-bytes":
                values = _objects([text.encode() for text in values.reshape(-1)], values.shape)
        compressor = [BLOSC] if how.after is None else how.after
        document |= {
            "chunks": list(chunk), "compressor": dict(compressor[0]) if compressor else None, "dtype": dtype,
            "fill_value": fill, "filters": [dict(c) for c in codecs] or None, "order": how.order,
        }  # fmt: skip
        if how.separator:
            document["dimension_separator"] = how.separator
        separator = how.separator or "."
        for place, block in self.blocks(path, values, chunk, 0 if dtype == "|O" else document["fill"]):
            raw: Any = block
            if dtype != "|O" and how.order == "F":
                raw = np.frombuffer(block.tobytes(order="F"), block.dtype)
            for config in [*codecs, *compressor]:
                raw = numcodecs.get_codec(dict(config)).encode(raw)
            self.chunks[f"{path}/{separator.join(map(str, place))}"] = _bytes(raw)

    def array3(self, path: str, kind: str, values: np.ndarray, chunk: tuple[int, ...]) -> None:
        how, document = self.how, self.documents[path]
        fill = document["fill"]
        if kind == "rows":
            names = fill.names
            dtype = np.dtype([(n, "U512" if h5py.check_ref_dtype(fill[n]) else fill[n]) for n in names])
            values = np.array([tuple(v) for v in values.reshape(-1)], dtype).reshape(values.shape)
            fill = document["fill"] = np.zeros((), dtype)[()]
        if kind == "text" and how.texts == "fixed":
            values = values.astype("U") if values.size else np.zeros(values.shape, "U1")
            fill = document["fill"] = ""
        texts = values.dtype == object
        if how.before:
            values = values.astype(values.dtype.newbyteorder("<"))
        endian = {"configuration": {"endian": "big" if values.dtype.byteorder == ">" else "little"}}
        codecs: list[Any] = [{"name": "vlen-utf8"} if texts else {"name": "bytes", **endian}]
        if not texts and values.ndim > 1 and how.order == "F":
            reverse = list(range(values.ndim))[::-1]
            codecs.insert(0, {"name": "transpose", "configuration": {"order": reverse}})
        if values.dtype.kind in "iu":
            codecs = [*(_said(c, values.dtype.newbyteorder("=")) for c in how.before), *codecs]
        codecs += [ZSTD] if how.after is None else [_said(c, values.dtype) for c in how.after]
        outer, told = chunk, codecs
        if how.shard and chunk:
            outer = (chunk[0] * how.shard, *chunk[1:])
            index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
            told = [{"name": "sharding_indexed", "configuration": {
                "chunk_shape": list(chunk), "codecs": codecs, "index_codecs": index,
                "index_location": how.index_location}}]  # fmt: skip
        separator = how.separator or "/"
        encoding = {"name": "default", "configuration": {"separator": separator}}
        document |= {
            "zarr_format": 3, "node_type": "array",
            "data_type": "string" if texts else _data_type(values.dtype),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(outer)}},
            "chunk_key_encoding": encoding, "fill_value": "" if texts else _fill3(fill), "codecs": told,
            "storage_transformers": [],
        }  # fmt: skip
        shards: dict[tuple[int, ...], dict[tuple[int, ...], bytes]] = {}
        for place, block in self.blocks(path, values, chunk, document["fill"]):
            raw = _encoded(block, codecs)
            if how.shard and chunk:
                n, within = divmod(place[0], how.shard)
                shards.setdefault((n, *place[1:]), {})[(within, *([0] * (len(place) - 1)))] = raw
            else:
                self.chunks[separator.join([f"{path}/c", *map(str, place)])] = raw
        for place, held in shards.items():
            self.chunks[separator.join([f"{path}/c", *map(str, place)])] = self.shard(held)

    def shard(self, held: Mapping[tuple[int, ...], bytes]) -> bytes:
        """Inner chunks, each behind the other, and the index of where they are."""
        first = self.how.index_location == "start"
        count = self.how.shard or 0
        index = np.full((count, 2), NONE, "<u8")
        at = (16 * count + 4) * first
        for (within, *_), raw in held.items():
            index[within] = at, len(raw)
            at += len(raw)
        told = _with_crc32c(index.tobytes())
        body = b"".join(held.values())
        return told + body if first else body + told

    def blocks(
        self, path: str, values: np.ndarray, chunk: tuple[int, ...], fill: Any
    ) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        grid = [range(-(-n // c)) for n, c in zip(values.shape, chunk, strict=True)]
        for place in itertools.product(*grid):
            box = tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunk, strict=True))
            part = values[(*box, ...)]
            if values.dtype != object and self.how.sparse and _is_all(part, fill):
                continue
            block = np.full(chunk, fill, values.dtype)
            block[(*(slice(n) for n in part.shape), ...)] = part
            yield place, block

    def finished(self) -> Keys:
        keys = Keys()
        metadata: dict[str, Any] = {}
        for path, document in self.documents.items():
            document.pop("fill", None)
            below = f"{path}/" if path else ""
            if self.how.version == 3:
                metadata[path] = {"zarr_format": 3, "node_type": "group", **document}
                keys[f"{below}zarr.json"] = _json(metadata[path])
                continue
            attributes = document.pop("attributes")
            held = {".zarray" if "shape" in document else ".zgroup": {"zarr_format": 2, **document}}
            if attributes:
                held[".zattrs"] = attributes
            metadata |= {f"{below}{name}": value for name, value in held.items()}
            keys |= {f"{below}{name}": _json(value) for name, value in held.items()}
        if self.how.consolidated and self.how.version == 3:
            root = metadata.pop("")
            inline = {"kind": "inline", "must_understand": False, "metadata": metadata}
            keys["zarr.json"] = _json({**root, "consolidated_metadata": inline})
        elif self.how.consolidated:
            keys[".zmetadata"] = _json({"metadata": metadata, "zarr_consolidated_format": 1})
        return keys | self.chunks


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _objects(values: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    made = np.empty(len(values), object)
    made[:] = [None] * len(values)
    for i, value in enumerate(values):
        made[i] = value
    return made.reshape(shape)


def _said(codec: Mapping[str, Any], dtype: np.dtype) -> dict[str, Any]:
    """A codec's configuration with what depends on the values."""
    by = {"elementsize": dtype.itemsize, "typesize": dtype.itemsize, "dtype": dtype.str, "astype": dtype.str}
    filled = {name: by[name] if value is None else value for name, value in codec.items()}
    if "configuration" in filled:
        filled["configuration"] = _said(filled["configuration"], dtype)
    return filled


def _bytes(raw: Any) -> bytes:
    return raw.tobytes() if isinstance(raw, np.ndarray) else bytes(raw)


def _is_all(part: np.ndarray, fill: Any) -> bool:
    whole = np.full(part.shape, fill, part.dtype)
    return part.tobytes() == whole.tobytes()


def _fill(value: Any) -> Any:
    if isinstance(value, (np.void, bytes)):
        return base64.b64encode(bytes(value)).decode()
    return _number(value)


def _fill3(value: Any) -> Any:
    if isinstance(value, np.void):
        return {name: _fill3(value[name]) for name in value.dtype.names}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return _number(value)


def _number(value: Any) -> Any:
    if isinstance(value, (complex, np.complexfloating)):
        return [_number(value.real), _number(value.imag)]
    if isinstance(value, (float, np.floating)) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value.item() if isinstance(value, np.generic) else value


def _data_type(dtype: np.dtype) -> Any:
    if dtype.names:
        fields = [{"name": n, "data_type": _data_type(dtype[n])} for n in dtype.names]
        return {"name": "struct", "configuration": {"fields": fields}}
    if dtype.kind in "US":
        name = "fixed_length_utf32" if dtype.kind == "U" else "null_terminated_bytes"
        return {"name": name, "configuration": {"length_bytes": dtype.itemsize}}
    return "bool" if dtype.kind == "b" else f"{NAMES[dtype.kind]}{8 * dtype.itemsize}"


def _encoded(block: np.ndarray, codecs: Sequence[Any]) -> bytes:
    raw: Any = block
    for codec in codecs:
        name, said = codec["name"], codec.get("configuration", {})
        if name == "transpose":
            raw = raw.transpose(said["order"])
        elif name == "bytes":
            order = {"big": ">", "little": "<"}[said["endian"]]
            raw = np.ascontiguousarray(raw).astype(raw.dtype.newbyteorder(order)).tobytes()
        elif name == "vlen-utf8":
            raw = bytes(numcodecs.VLenUTF8().encode(raw.reshape(-1)))
        elif name == "crc32c":
            raw = _with_crc32c(raw)
        elif name == "blosc":
            shuffle = ["noshuffle", "shuffle", "bitshuffle"].index(said["shuffle"])
            size = said["typesize"]
            values = raw if len(raw) % size else np.frombuffer(raw, f"V{size}")
            raw = numcodecs.Blosc(said["cname"], said["clevel"], shuffle, said["blocksize"]).encode(values)
        else:
            said = {k: v for k, v in said.items() if k != "checksum"}
            raw = numcodecs.get_codec({"id": name.removeprefix("numcodecs."), **said}).encode(raw)
    return _bytes(raw)


def _with_crc32c(raw: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in raw:
        crc = _CRC32C[(crc ^ byte) & 255] ^ (crc >> 8)
    return raw + (crc ^ 0xFFFFFFFF).to_bytes(4, "little")


def _table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


_CRC32C = _table()
