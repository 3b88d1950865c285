"""Zarr's chunks and texts are decoded, or are an error that says what is wrong, whatever bytes they hold."""

from __future__ import annotations

import bz2
import concurrent.futures
import contextlib
import gzip
import threading
import tracemalloc
import zlib

import google_crc32c
import numcodecs
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lazynwb_dask.decode.arrays import fixed_text
from lazynwb_dask.decode.filters import chunk_bytes, undone
from lazynwb_dask.decode.zarr_codecs import crc32c, vlen_texts
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import Layout
from lazynwb_dask.zarr.codecs import filters_of

VALUES = np.arange(3000, dtype="<i4").reshape(50, 60)
RAW = VALUES.tobytes()
CODECS: dict[str, tuple[dict, bytes]] = {
    name: (config, bytes(numcodecs.get_codec(dict(config)).encode(VALUES)))
    for name, config in {
        "gzip": {"id": "gzip"},
        "zlib": {"id": "zlib"},
        "bz2": {"id": "bz2"},
        "lz4": {"id": "lz4"},
        "zstd": {"id": "zstd"},
        "blosc": {"id": "blosc", "cname": "lz4"},
        "blosc of zstd": {"id": "blosc", "cname": "zstd", "shuffle": 2},
        "crc32": {"id": "crc32"},
        "adler32": {"id": "adler32"},
        "delta": {"id": "delta", "dtype": "<i4", "astype": "<i8"},
        "fixedscaleoffset": {"id": "fixedscaleoffset", "offset": 3, "scale": 2, "dtype": "<i4"},
    }.items()
}
CODECS["crc32c"] = {"id": "crc32c"}, RAW + google_crc32c.value(RAW).to_bytes(4, "little")
CODECS["transpose"] = {"id": "transpose", "order": [1, 0]}, np.ascontiguousarray(VALUES.T).tobytes()


def decoded(config: dict, data: bytes, kind: str = "<i4") -> bytes:
    filters = filters_of([config], np.dtype(kind), VALUES.shape)
    layout = Layout(("number", kind), VALUES.shape[1:], VALUES.shape, filters)
    return bytes(chunk_bytes(memoryview(data), layout, 0, VALUES.size * np.dtype(kind).itemsize))


@pytest.mark.parametrize("name", CODECS)
def test_sound_chunks(name: str) -> None:
    assert decoded(*CODECS[name]) == RAW


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize(
    "change", ["shorter", "a byte less", "nothing", "other bytes", "longer", "another chunk"]
)
def test_chunks_of_a_wrong_size_are_errors(name: str, change: str) -> None:
    config, data = CODECS[name]
    if change == "another chunk":
        if name == "transpose":
            pytest.skip("there is none")
        if name == "crc32c":  # numcodecs has it with an extra only
            data = RAW[:-4] + google_crc32c.value(RAW[:-4]).to_bytes(4, "little")
        else:
            data = bytes(numcodecs.get_codec(dict(config)).encode(VALUES[:-1]))
    elif change == "longer" and name == "zlib":
        pytest.skip("what follows the stream is left unread")
    else:
        data = {
            "shorter": data[:100],
            "a byte less": data[:-1],
            "nothing": b"",
            "longer": data + b"12345678",
        }.get(change, b"no such header here" * 10)
    with pytest.raises(NWBReadError):
        decoded(config, data)


@pytest.mark.parametrize("name", ["crc32", "crc32c", "adler32"])
def test_a_wrong_checksum_is_named(name: str) -> None:
    config, data = CODECS[name]
    for at in (0, 5000, len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(NWBReadError, match=rf"checksum \({name}\) is wrong"):
            decoded(config, bytes(damaged))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_garbage_is_an_error_or_values(data: st.DataObject) -> None:
    config, sound = CODECS[data.draw(st.sampled_from(sorted(CODECS)))]
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        near = data.draw(st.booleans())
        damaged[data.draw(st.integers(0, min(len(damaged), 40 if near else 1 << 20) - 1))] = data.draw(
            st.integers(0, 255)
        )
    with contextlib.suppress(NWBReadError):
        assert len(decoded(config, bytes(damaged))) == len(RAW)


BIG = bytes(64 << 20)
BOMBS = {
    "gzip": gzip.compress(BIG, 1),
    "zlib": zlib.compress(BIG, 1),
    "bz2": bz2.compress(BIG, 1),
    "lz4": bytes(numcodecs.LZ4().encode(BIG)),
    "zstd": bytes(numcodecs.Zstd().encode(BIG)),
    "blosc": bytes(numcodecs.Blosc().encode(BIG)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_more_memory_than_the_chunk(name: str) -> None:
    sizes = len(RAW), 1000  # where the size is exact, and where it is a limit
    tracemalloc.start()
    try:
        with pytest.raises(NWBReadError):
            decoded({"id": name}, BOMBS[name])
        with pytest.raises(NWBReadError):
            undone(memoryview(BOMBS[name]), filters_of([{"id": name}], np.dtype("O"), (10,)), sizes[1])
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_streams_of_several_parts() -> None:
    half = len(RAW) // 2
    for name, compress in (("gzip", gzip.compress), ("zstd", numcodecs.Zstd().encode), ("bz2", bz2.compress)):
        assert decoded({"id": name}, bytes(compress(RAW[:half])) + bytes(compress(RAW[half:]))) == RAW


def test_a_zstandard_frame_without_its_size() -> None:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        for at in range(0, len(RAW), 1000):
            stream.write(RAW[at : at + 1000])
    assert decoded({"id": "zstd"}, sink.getvalue().to_pybytes()) == RAW


def test_many_threads_decode_at_once() -> None:
    """Also while others use Blosc by themselves, with threads of its own."""
    stop = threading.Event()

    def other() -> None:
        codec = numcodecs.Blosc()
        data = codec.encode(np.arange(1 << 16))
        while not stop.is_set():
            codec.decode(data)

    beside = threading.Thread(target=other)
    beside.start()
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jobs = [CODECS[name] for name in CODECS] * 20
            assert all(found == RAW for found in pool.map(lambda job: decoded(*job), jobs))
    finally:
        stop.set()
        beside.join()


@given(st.binary(max_size=70))
@example(bytes(3 << 14))
@example(bytes(range(256)) * 150 + b"123")
def test_crc32c(data: bytes) -> None:
    assert crc32c(memoryview(data)) == google_crc32c.value(data)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@given(st.lists(TEXTS, max_size=20), st.sampled_from("<>"))
@example(["", "a", "", "é€😀", "tail"], "<")
def test_code_points_as_texts(texts: list[str], order: str) -> None:
    size = max(map(len, texts), default=0) or 1
    raw = np.array(texts, f"{order}U{size}").view(np.uint8)
    found = fixed_text(raw, 4 * size, "utf-32-le" if order == "<" else "utf-32-be")
    found.validate(full=True)
    assert found.to_pylist() == texts


def test_code_points_that_there_are_not() -> None:
    raw = np.array([0x61, 0xD800, 0x110000, 0, 0xFFFFFFFF, 0, 0x20AC, 0], "<u4").view(np.uint8)
    found = fixed_text(raw, 16, "utf-32-le")
    found.validate(full=True)
    assert found.to_pylist() == ["a\ufffd\ufffd", "\ufffd\0€"]


@given(st.lists(TEXTS))
def test_texts_of_any_length(texts: list[str]) -> None:
    for codec, values in ((numcodecs.VLenUTF8(), texts), (numcodecs.VLenBytes(), [t.encode() for t in texts])):
        data = memoryview(bytes(codec.encode(np.array([*values, None], object)[:-1])))
        assert vlen_texts(data, len(texts)).tolist() == texts


def test_texts_that_are_not_utf8() -> None:
    data = numcodecs.VLenBytes().encode(np.array([b"a\xff", b"", b"\xc3\xa9"], object))
    assert vlen_texts(memoryview(data), 3).tolist() == ["a\ufffd", "", "é"]


@given(st.binary(max_size=40), st.integers(0, 5))
@settings(max_examples=200)
def test_garbage_is_no_text(data: bytes, count: int) -> None:
    with contextlib.suppress(NWBReadError):
        assert len(vlen_texts(memoryview(data), count)) == count


def test_more_texts_than_there_can_be_take_no_memory() -> None:
    data = memoryview((2**32 - 1).to_bytes(4, "little") + bytes(100))
    for count in (10, 2**32 - 1):
        with pytest.raises(NWBReadError, match="as are declared"):
            vlen_texts(data, count)


def test_no_hdf5_file_can_name_such_a_filter() -> None:
    assert filters_of([{"id": "lz4"}], np.dtype("f8"), (1,))[0].id > 0xFFFF
