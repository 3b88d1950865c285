"""Arrays of all types, with and without fill values, are read as zarr-python reads them, in either version."""

from __future__ import annotations

import base64
import contextlib
import copy
import dataclasses
import functools
import itertools
import json
import warnings
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from lazynwb_dask.decode.filters import stored_bound
from lazynwb_dask.errors import NWBError, NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.limits import check_shape
from lazynwb_dask.zarr import zarr2, zarr3
from lazynwb_dask.zarr.array import fill_bytes, stored_layout
from lazynwb_dask.zarr.fetched import _values  # what is done with the chunks once they are here

if zarr.__version__ < "3":
    pytest.skip("written by zarr 3, which hdmf-zarr for Python 3.11 excludes", allow_module_level=True)

from zarr.codecs import BytesCodec, ShardingCodec, VLenUTF8Codec, ZstdCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

pytestmark = pytest.mark.filterwarnings("ignore")

NUMBERS = ["<i1", ">i2", "<u4", ">u8", "<f2", ">f4", "<f8", "<c8", ">c16", "|b1", "S4", "<U3", ">U2"]
STRUCT = np.dtype([("a", "<i4"), ("b", ">f8"), ("t", "S3"), ("ok", "?")])
FILLS: dict[str, list[Any]] = {
    "f": [None, 0, 1.5, np.nan, np.inf, -np.inf], "i": [None, 0, -7], "u": [None, 0, 7], "b": [None, True],
    "c": [None, 0, complex(np.nan, -np.inf), 1 - 2j], "S": [None, b"", b"ab"], "U": [None, "", "é"],
}  # fmt: skip


def values_of(store: MemoryStore) -> Any:
    """All values of the array at the root, as this package reads them."""
    held = {key: sync(store.get(key, default_buffer_prototype())).to_bytes() for key in store._store_dict}
    three = "zarr.json" in held
    meta = json.loads(held["zarr.json" if three else ".zarray"])
    array = zarr3.array_of(meta) if three else zarr2.array_of(meta)
    found = _values(
        array, stored_layout(array, "x"), {f"x/{key}": memoryview(data) for key, data in held.items()}
    )
    if isinstance(found, NWBError):
        raise found
    return found


def created(shape: tuple[int, ...], chunk: tuple[int, ...], dtype: Any, version: int, **more: Any) -> Any:
    store = MemoryStore()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(store, shape=shape, chunks=chunk, dtype=dtype, zarr_format=version, **more)
    return array, store


def check(array: Any, store: MemoryStore) -> None:
    found, expected = values_of(store), np.asarray(array[...])
    if expected.dtype.kind in "OT":
        expected = expected.astype(object)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == array.shape


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", NUMBERS)
def test_types(kind: str, version: int) -> None:
    dtype = np.dtype(kind)
    values = np.arange(35).reshape(7, 5) % (2 if dtype.kind == "b" else 100)
    more: dict[str, Any] = {}
    if version == 3 and dtype.str[0] == ">":
        more["serializer"] = {"name": "bytes", "configuration": {"endian": "big"}}
    for order in "CF" if version == 2 else "C":
        array, store = created(
            (7, 5), (3, 2), dtype, version, **more, **({"order": order} if version == 2 else {})
        )
        array[...] = values.astype(dtype)
        check(array, store)
    array, store = created((), (), dtype, version, **more)
    array[...] = values.astype(dtype)[1, 1]
    check(array, store)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("kind", "fill"), [(k, f) for k in NUMBERS for f in FILLS[np.dtype(k).kind]], ids=lambda v: str(v)
)
def test_fill_values(kind: str, fill: Any, version: int) -> None:
    array, store = created((6,), (4,), np.dtype(kind), version, fill_value=fill)
    check(array, store)
    array[1] = np.ones(1, kind)[0] if kind[1] not in "SU" else fill or b"x" if kind[0] == "S" else "y"
    check(array, store)


def test_a_float_by_its_bits() -> None:
    array, store = created((4,), (2,), "float32", 3)
    meta = json.loads(sync(store.get("zarr.json", default_buffer_prototype())).to_bytes())
    made = zarr3.array_of({**meta, "fill_value": "0x7fc00001"})
    assert fill_bytes(made) == bytes.fromhex("0100c07f")
    made = zarr3.array_of({**meta, "fill_value": "0x3fc00000"})
    assert np.frombuffer(fill_bytes(made), "<f4") == 1.5
    del array


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("fill", [None, np.array((7, 1.5, b"ab", True), STRUCT)[()]], ids=["none", "some"])
def test_compounds(version: int, fill: Any) -> None:
    if version == 3 and tuple(map(int, zarr.__version__.split(".")[:2])) < (3, 2):
        pytest.skip("this zarr-python has no compounds in version 3 that others read")
    array, store = created((6,), (4,), STRUCT, version, fill_value=fill)
    nothing = np.zeros((), STRUCT)[()] if fill is None else fill
    assert values_of(store).tolist() == [nothing.item()] * 6
    array[...] = values = np.array([(i, i / 2, b"xyz"[:i], i % 2) for i in range(6)], STRUCT)
    assert values_of(store).tolist() == values.tolist() == array[...].tolist()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("shape", [(), (7,), (5, 3)], ids=str)
def test_texts(shape: tuple[int, ...], version: int) -> None:
    texts = itertools.islice(itertools.cycle(["a", "", "é€😀", "long " * 100]), int(np.prod(shape)))
    values = np.array([*texts], object).reshape(shape)
    for order in "CF" if version == 2 else "C":
        chunk = tuple(min(n, 2) for n in shape)
        array, store = created(shape, chunk, str, version, **({"order": order} if version == 2 else {}))
        array[...] = values if shape else values[()]
        check(array, store)
    if shape:
        array, store = created(shape, chunk, str, version)
        check(array, store)  # nothing was written


def test_texts_with_their_axes_in_another_order() -> None:
    values = np.array([f"{i}" for i in range(15)], object).reshape(5, 3)
    filters = [{"name": "transpose", "configuration": {"order": [1, 0]}}]
    array, store = created((5, 3), (2, 2), str, 3, filters=filters)
    array[...] = values
    check(array, store)


@pytest.mark.parametrize("kind", ["float64", str, "int16"])
@pytest.mark.parametrize("where", ["start", "end"])
def test_shards(kind: Any, where: str) -> None:
    inner = [VLenUTF8Codec() if kind is str else BytesCodec(), ZstdCodec()]
    shards = ShardingCodec(chunk_shape=(2, 2), codecs=inner, index_location=where)
    array, store = created((23, 4), (8, 4), kind, 3, serializer=shards, compressors=None)
    array[:13] = np.arange(52).reshape(13, 4).astype(object if kind is str else kind).astype(array.dtype)
    check(array, store)


@pytest.mark.parametrize("codec", ["json2", "vlen-utf8"])
def test_json_with_more_values_than_the_elements_need_is_not_parsed(codec: str) -> None:
    many = '{"path": [' + "[]," * (1 << 22) + "[]]}"
    as_json = codec == "json2"
    raw = f'[{many}, "|O", [1]]'.encode() if as_json else numcodecs.VLenUTF8().encode(np.array([many], object))
    meta = {
        "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C",
        "filters": [{"id": codec}], "compressor": {"id": "zstd"},
    }  # fmt: skip
    array = dataclasses.replace(zarr2.array_of(meta), references=True)
    found = _values(array, stored_layout(array, "x"), {"x/0": memoryview(numcodecs.Zstd().encode(raw))})
    assert "values; the limit is" in str(found)


@pytest.mark.parametrize("codec", ["json2", "vlen-utf8", "vlen-bytes"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_objects_of_version_2(codec: str, order: str) -> None:
    texts = np.array([f"é{i}" * (i % 4) for i in range(12)], object).reshape(4, 3)
    held = (
        texts if codec != "vlen-bytes" else np.array([t.encode() for t in texts.ravel()], object).reshape(4, 3)
    )
    data = numcodecs.get_codec({"id": codec}).encode(held.ravel(order="F") if order == "F" else held)
    if codec == "json2" and order == "F":
        pytest.skip("numcodecs writes JSON in the order of the array")
    found = objects([codec], bytes(data), (4, 3), order=order)
    assert found.tolist() == texts.tolist()


def objects(codecs: list[str], data: bytes, shape: tuple[int, ...], fields: Any = None, **more: Any) -> Any:
    meta = {"shape": shape, "chunks": shape, "dtype": "|O", "fill_value": 0, "compressor": None, **more}
    array = zarr2.array_of({**meta, "filters": [{"id": name} for name in codecs]}, fields)
    key = ".".join("0" * len(shape))
    found = _values(array, stored_layout(array, "x"), {f"x/{key}": memoryview(data)})
    if isinstance(found, NWBError):
        raise found
    return found


FIELDS = [("start", "int32"), ("label", "str"), ("target", "object")]


def test_texts_that_are_none() -> None:
    data = rb'["\ud83d\ude00", null, "", 0, "|O", [4]]'
    assert objects(["json2"], data, (4,)).tolist() == ["😀", None, "", ""]


def test_compounds_of_references() -> None:
    rows = [[1, "a", {"path": "/x", "source": "."}], [2, "b", {"_REFERENCE": {"path": "/y"}}], 0]
    found = objects(["json2"], json.dumps([*rows, "|O", [3]]).encode(), (3,), FIELDS)
    assert found.tolist() == [(1, "a", "/x"), (2, "b", "/y"), (0, "", "")]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"[1]", b"{}", b"\xff", b'["a", "|O", [2]]', b'["a", "b", "|O", [3]]', b'["a", "|O", [-1]]',
        b'["a", "b", "|O", "2"]', b'["a", "b", "|O", [2.0]]', b"[" * 100_000, b'[[], [], "|O", [2]]',
        b'["a", ["b"], "|O", [2]]', b'[{"path": 7}, {}, "|O", [2]]', b'[1e999, 2, "|O", [2]]',
        b"[" + b"9" * 9999,
        b'[["a"], ["b", "c"], "|O", [2, 1]]', b'["a", "b", "|O", [2, []]]', b'["a", 7, "|O", [2]]',
        b"null",
    ],
)  # fmt: skip
def test_other_json_is_an_error(data: bytes) -> None:
    with pytest.raises(NWBError):
        objects(["json2"], data, (2,))
    with pytest.raises(NWBError):
        objects(["json2"], data, (2,), FIELDS)


@pytest.mark.parametrize("codec", ["pickle", "msgpack2", "categorize", "vlen-array"])
def test_other_objects_are_refused_with_the_reason(codec: str) -> None:
    with pytest.raises(UnsupportedColumnError, match="pickled" if codec == "pickle" else codec):
        objects([codec], b"", (2,))


@pytest.mark.parametrize("kind", ["<M8[ns]", "<m8[s]", "|V8", "<f16", "|O4", "<i16", "x", 7, None, [], [["a"]]])
def test_other_types_are_refused(kind: Any) -> None:
    meta = {"shape": [2], "chunks": [2], "dtype": kind, "fill_value": 0, "compressor": None, "filters": None}
    with pytest.raises(UnsupportedColumnError):
        stored_layout(zarr2.array_of(meta), "x")


@pytest.mark.parametrize(
    ("kind", "fill"),
    [
        ("<i4", "a"), ("<i4", 1 << 40), ("<i4", 1.5), ("<f8", "Inf"), ("<f8", []), ("|S3", "no base64!"),
        ("<c8", [1]), ("<c8", ["x", 0]), ("|u1", -1), ("|S3", 5),
        ([["a", "<i4"]], base64.b64encode(b"much too long").decode()),
    ],
    ids=str,
)  # fmt: skip
def test_impossible_fill_values_are_errors(kind: Any, fill: Any) -> None:
    meta = {"shape": [2], "chunks": [2], "dtype": kind, "fill_value": fill, "compressor": None, "filters": None}
    with pytest.raises(UnsupportedColumnError, match="fill value"):
        stored_layout(zarr2.array_of(meta), "x")


def test_a_damaged_shard_is_an_error() -> None:
    array, store = created((8,), (8,), "i4", 3, serializer=ShardingCodec(chunk_shape=(2,)), compressors=None)
    array[...] = np.arange(8)
    sound = store._store_dict["c/0"].to_bytes()
    for damaged in (sound[:-1], sound[1:], sound[:20], b"", sound[:-10] + b"?" + sound[-9:]):
        store._store_dict["c/0"] = default_buffer_prototype().buffer.from_bytes(damaged)
        with pytest.raises(NWBReadError, match="x/c/0"):
            values_of(store)


V2 = {
    "zarr_format": 2, "shape": [4, 3], "chunks": [2, 3], "dtype": "<f8", "order": "F", "fill_value": "NaN",
    "filters": [{"id": "fixedscaleoffset", "offset": 1, "scale": 2, "dtype": "<f8", "astype": "<i4"},
                {"id": "crc32"}],
    "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}, "dimension_separator": "/",
}  # fmt: skip
V2_TEXTS = {**V2, "dtype": "|O", "filters": [{"id": "json2"}], "fill_value": 0}
V3 = {
    "zarr_format": 3, "node_type": "array", "shape": [4, 3], "data_type": "float64",
    "fill_value": "0x7ff8000000000000",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "codecs": [{"name": "sharding_indexed", "configuration": {
        "chunk_shape": [2, 2], "index_location": "end",
        "codecs": [{"name": "transpose", "configuration": {"order": [1, 0]}},
                   {"name": "numcodecs.delta", "configuration": {"dtype": "<f8"}},
                   {"name": "bytes", "configuration": {"endian": "big"}}, {"name": "gzip"}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]}}],
    "attributes": {},
}  # fmt: skip
V3_STRUCT = {
    **V3, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}],
    "data_type": {"name": "struct", "configuration": {
        "fields": [{"name": "a", "data_type": "int8"}, ["b", "float16"]]}},
    "fill_value": {"a": 1},
}  # fmt: skip
ODD = [
    None,
    True,
    -1,
    0,
    1,
    2,
    1 << 62,
    1.5,
    "",
    "x",
    "|O",
    "<f8",
    "<U3",
    "|V3",
    [],
    [0],
    [2, 2],
    ["a"],
    {},
    {"id": "lz4"},
]
ODD += [
    "bytes",
    "vlen-utf8",
    "string",
    [["a", "|O"]],
    {"name": "bytes"},
    [{"id": "pickle"}],
    {"name": []},
    "big",
    float("nan"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values within JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in places(part, (*path, key)))]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_other_metadata_and_chunks_are_values_or_errors(data: st.DataObject) -> None:
    meta = copy.deepcopy(data.draw(st.sampled_from([V2, V2_TEXTS, V3, V3_STRUCT])))
    array_of = zarr3.array_of if meta["zarr_format"] == 3 else zarr2.array_of
    for _ in range(data.draw(st.integers(0, 2))):
        *path, last = data.draw(st.sampled_from(places(meta)[1:]))
        inside = functools.reduce(lambda part, key: part[key], path, meta)
        inside[last] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    chunk = data.draw(st.binary(max_size=80))
    with contextlib.suppress(NWBError):
        array = array_of(meta)
        layout = stored_layout(array, "x")
        check_shape(layout, (array.shape or (1,))[0], 1 << 40)
        stored_bound(layout)
        if layout.row_bytes * (array.shape or (1,))[0] < 1 << 20:
            keys = [f"x/{array.name(place)}" for place in itertools.islice(np.ndindex(*array.grid), 5)]
            _values(array, layout, dict.fromkeys(keys, memoryview(chunk)))
