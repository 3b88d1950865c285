"""Every chunk that zarr-python writes is decoded to the bytes of zarr-python's values, in either version."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numcodecs.registry
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from lazynwb_dask.decode.codecs import BLOSC, DEFLATE, FLETCHER32, SHUFFLE, ZARR_CODEC, ZSTD
from lazynwb_dask.decode.filters import check_filters, chunk_bytes
from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.index import Layout
from lazynwb_dask.zarr.codecs import chain_of, filters_of

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        zarr.__version__ < "3", reason="written by zarr 3, which hdmf-zarr for Python 3.11 excludes"
    ),
]

BLOSCS = [
    {"id": "blosc", "cname": name, "clevel": 5, "shuffle": shuffle}
    for name in ("lz4", "lz4hc", "blosclz", "zlib", "zstd")
    for shuffle in (0, 1, 2)
]
BYTES = [
    {"id": "gzip", "level": 1},
    {"id": "zlib", "level": 1},
    {"id": "zstd", "level": 1},
    {"id": "bz2", "level": 1},
    {"id": "lz4", "acceleration": 1},
    {"id": "shuffle", "elementsize": 4},
    {"id": "shuffle", "elementsize": 8},
    {"id": "crc32"},
    {"id": "crc32", "location": "end"},
    {"id": "adler32"},
    {"id": "crc32c"},
    {"id": "crc32c", "location": "start"},
    {"id": "fletcher32"},
    *BLOSCS[:3],
]
# CRC-32C is an extra of older ones
BYTES = [codec for codec in BYTES if codec["id"] in numcodecs.registry.codec_registry]
QUANTIZED = {"id": "quantize", "digits": 2, "dtype": "<f8", "astype": "<f4"}
ARRAYS: list[dict[str, Any]] = [
    {"id": "delta", "dtype": "<i4"},
    {"id": "delta", "dtype": "<i4", "astype": "<i8"},
    {"id": "fixedscaleoffset", "offset": 10, "scale": 100.5, "dtype": "<f8", "astype": "<i4"},
    {"id": "fixedscaleoffset", "offset": -1.5, "scale": 10, "dtype": "<f4", "astype": "<i8"},
    {"id": "astype", "encode_dtype": "<i2", "decode_dtype": "<f8"},
    {"id": "astype", "encode_dtype": "<f8", "decode_dtype": "<f4"},
    {"id": "quantize", "digits": 2, "dtype": "<f8"},
    QUANTIZED,
    {"id": "bitround", "keepbits": 8},
    {"id": "packbits"},
]


def stored(array: Any, store: MemoryStore) -> tuple[dict[str, Any], dict[tuple[int, ...], bytes]]:
    """The metadata document of the array at the root, and its chunks by their place."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    held = {key: sync(store.get(key, default_buffer_prototype())).to_bytes() for key in store._store_dict}
    name = ".zarray" if array.metadata.zarr_format == 2 else "zarr.json"
    chunks = {}
    for key, data in held.items():
        if key not in (".zarray", ".zattrs", "zarr.json"):
            numbers = key.removeprefix("c/").replace("/", ".").split(".")
            chunks[tuple(map(int, numbers)) if key != "c" else ()] = data
    return json.loads(held[name]), chunks


def check(array: Any, store: MemoryStore, kind: np.dtype[Any], same: Any = None) -> Layout:
    """Decode all chunks as zarr does; `kind` is the type as stored, in version 3 without byte order.

    `same` is an array with the same values.
    """
    meta, chunks = stored(array, store)
    chunk = array.chunks
    if array.metadata.zarr_format == 2:
        codecs = [*(meta["filters"] or ()), *filter(None, [meta["compressor"]])]
        if meta["order"] == "F":
            codecs = [{"id": "transpose", "order": "F"}, *codecs]
        filters = filters_of(codecs, kind, chunk)
    else:
        found = chain_of(meta["codecs"])
        assert found.to_bytes == "bytes"
        kind = kind.newbyteorder(found.order)
        filters = filters_of(found.codecs, kind, chunk)
    layout = Layout(("number", kind.str), chunk[1:], chunk, filters)
    check_filters(filters)
    assert chunks
    for place, data in chunks.items():
        raw = chunk_bytes(memoryview(data), layout, 0, math.prod(chunk) * kind.itemsize)
        values = np.frombuffer(raw, kind).reshape(chunk)
        begins = [p * c for p, c in zip(place, chunk, strict=True)]
        expected = (same or array)[tuple(slice(b, b + c) for b, c in zip(begins, chunk, strict=True))]
        inside = values[tuple(map(slice, expected.shape))]
        np.testing.assert_array_equal(inside, expected.astype(inside.dtype))
    return layout


def written(
    values: np.ndarray, chunk: Sequence[int], version: int, codecs: Sequence[dict[str, Any]], **more: Any
) -> tuple[Any, MemoryStore]:
    store = MemoryStore()
    names = {"delta", "fixedscaleoffset", "astype", "quantize", "bitround", "packbits", "transpose"}
    first = [codec for codec in codecs if codec["id"] in names]
    later = [codec for codec in codecs if codec["id"] not in names]
    given: dict[str, Any] = {"filters": first, "compressors": later}
    if version == 2:
        made = [numcodecs.get_codec(dict(codec)) for codec in codecs]
        given = {"filters": made[:-1] or None, "compressors": made[-1:] or None}
    else:
        given = {key: [_v3(codec) for codec in some] for key, some in given.items()}
    array = zarr.create_array(
        store, shape=values.shape, chunks=tuple(chunk), dtype=values.dtype, zarr_format=version, **given, **more
    )
    array[...] = values
    return array, store


def _v3(codec: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in codec.items() if key != "id"}
    core = codec["id"] == "transpose" or "core" in rest
    rest.pop("core", None)
    return {"name": codec["id"] if core else f"numcodecs.{codec['id']}", "configuration": rest}


def values_for(codec: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    kind = codec.get("dtype", codec.get("decode_dtype", "<i4" if codec["id"] != "bitround" else "<f4"))
    if codec["id"] == "packbits":
        kind = "bool"
    found = np.random.default_rng(1).integers(0, 50, shape)
    return (found > 20) if kind == "bool" else found.astype(kind)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("codec", BYTES + BLOSCS[3:] + ARRAYS, ids=lambda c: "-".join(map(str, c.values())))
def test_each_codec(codec: dict[str, Any], version: int) -> None:
    if codec == QUANTIZED and version == 3:
        pytest.skip("zarr can't read it itself")
    values = values_for(codec, (103, 3))
    layout = check(*written(values, (24, 2), version, [codec]), values.dtype)
    assert len(layout.filters) <= 1


@pytest.mark.parametrize(
    ("codec", "core"),
    [
        ({"id": "gzip", "level": 5}, True),
        ({"id": "zstd", "level": 0, "checksum": True}, True),
        ({"id": "crc32c"}, True),
        ({"id": "blosc", "cname": "zstd", "shuffle": "bitshuffle", "typesize": 8}, True),
    ],
    ids=str,
)
def test_codecs_of_version_3_itself(codec: dict[str, Any], core: bool) -> None:
    values = np.arange(1000.0).reshape(50, 20)
    check(*written(values, (8, 6), 3, [{**codec, "core": core}]), values.dtype)


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("codec", [None, *ARRAYS], ids=str)
def test_byte_orders_of_version_3(codec: dict[str, Any] | None, endian: str) -> None:
    values = np.arange(60.0).reshape(5, 12) if codec is None else values_for(codec, (60,))
    if codec == QUANTIZED:
        pytest.skip("zarr can't read it itself")
    chunk, codecs = (4,) * values.ndim, [codec] if codec else []
    serializer = {"name": "bytes", "configuration": {"endian": endian}}
    # zarr-python before 3.2 writes a codec's numbers in another byte order, but doesn't read them back
    same, _ = written(values, chunk, 3, codecs)
    check(*written(values, chunk, 3, codecs, serializer=serializer), values.dtype, same)


@pytest.mark.parametrize("kind", [">f8", ">i2", "<f2", "<c8", ">c16", "|b1", "|u1", "S5", "<U3", ">U2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_orders_of_version_2(kind: str, order: str) -> None:
    values = np.arange(105).reshape(5, 7, 3).astype(kind)
    layout = check(*written(values, (2, 3, 3), 2, [BLOSCS[0]], order=order), np.dtype(kind))
    assert len(layout.filters) == 1 + (order == "F")


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]], ids=str)
def test_transposed_chunks_of_version_3(order: list[int]) -> None:
    values = np.arange(105.0).reshape(5, 7, 3)
    codecs = [{"id": "transpose", "order": order}, {"id": "zstd", "level": 1}]
    check(*written(values, (2, 3, 3), 3, codecs), values.dtype)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_chains_of_any_codecs(data: st.DataObject) -> None:
    version = data.draw(st.sampled_from([2, 3]))
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple))
    chunk = tuple(data.draw(st.integers(1, n)) for n in shape)
    codecs: list[dict[str, Any]] = []
    first = data.draw(st.none() | st.sampled_from([c for c in ARRAYS if version == 2 or c != QUANTIZED]))
    if version == 3 and data.draw(st.booleans()) and len(shape) > 1:
        codecs.append({"id": "transpose", "order": data.draw(st.permutations(range(len(shape))))})
    codecs += [first] if first else []
    codecs += data.draw(st.lists(st.sampled_from([c for c in BYTES if c["id"] != "shuffle"]), max_size=3))
    values = values_for(first or {"id": "", "dtype": data.draw(st.sampled_from(["<i2", "<f8", "|u1"]))}, shape)
    more = {"order": data.draw(st.sampled_from("CF"))} if version == 2 else {}
    check(*written(values, chunk, version, codecs, **more), values.dtype)


def test_codecs_that_hdf5_has_keep_its_numbers() -> None:
    codecs = [{"id": name} for name in ("shuffle", "zlib", "fletcher32", "zstd", "blosc", "gzip")]
    found = filters_of(codecs, np.dtype("<f8"), (10,))
    assert [step.id for step in found] == [SHUFFLE, DEFLATE, FLETCHER32, ZSTD, BLOSC, ZARR_CODEC]
    assert found[-1].name == '{"id": "gzip"}'


@pytest.mark.parametrize(
    "name", ["pickle", "categorize", "zfpy", "msgpack2", "no such codec", "lzma", "packbits"]
)
def test_other_codecs_are_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedColumnError, match=name):
        filters_of([{"id": f"x{name}"}], np.dtype("<f8"), (10,))
    with pytest.raises(UnsupportedColumnError, match=name):
        chain_of([{"name": "bytes"}, {"name": name, "configuration": {}}])


@pytest.mark.parametrize(
    "codec",
    [
        {"id": "transpose", "order": [0]},
        {"id": "transpose", "order": [0, 0]},
        {"id": "transpose", "order": 7},
        {"id": "transpose", "order": [True, 0]},
        {"id": "transpose"},
        {"id": "shuffle", "elementsize": -1},
        {"id": "shuffle", "elementsize": 1 << 40},
        {"id": "delta", "dtype": "|O"},
        {"id": "delta", "dtype": "i3"},
        {"id": "delta", "dtype": [["a", "<i4"]]},
        {"id": "astype", "encode_dtype": "M8[ns]"},
        {"id": "fixedscaleoffset", "offset": "1", "scale": 1},
        {"id": "fixedscaleoffset", "offset": 1},
        {"id": "crc32", "location": "middle"},
        {"id": "quantize", "astype": {"a": 1}},
    ],
    ids=str,
)
def test_damaged_configurations_are_refused(codec: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedColumnError):
        filters_of([codec], np.dtype("<f8"), (10, 4))


@pytest.mark.parametrize(
    "codecs",
    [
        None,
        {},
        "bytes",
        [],
        [1],
        [{"name": 1}],
        [{}],
        [{"name": "bytes", "configuration": []}],
        [{"name": "bytes", "configuration": {"endian": "middle"}}],
        ["gzip"],
        ["bytes", "bytes"],
        ["bytes", {"name": "transpose", "configuration": {"order": [0]}}],
        ["gzip", "bytes"],
        ["bytes", *["gzip"] * 40],
        ["bytes", "zlib"],
    ],
    ids=str,
)
def test_damaged_chains_are_refused(codecs: Any) -> None:
    with pytest.raises(UnsupportedColumnError):
        chain_of(codecs)
