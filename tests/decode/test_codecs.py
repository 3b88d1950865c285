"""Deflate is undone alike whichever library does it, and with no more memory than the output takes."""

from __future__ import annotations

import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from numcodecs.fletcher32 import Fletcher32

from lazynwb_dask.decode import codecs
from lazynwb_dask.decode.codecs import OutputSize, inflate
from lazynwb_dask.decode.filters import chunk_bytes
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import Filter, Layout

TIMES = np.sort(np.random.default_rng(0).integers(0, 10**7, 20_000) / 30_000).tobytes()
STREAM = zlib.compress(TIMES, 4)
DAMAGED: dict[str, tuple[bytes, int, str]] = {
    "more than declared": (STREAM, len(TIMES) - 1, "more than the 159999 bytes"),
    "less than declared": (STREAM, len(TIMES) + 1, "160000 bytes where 160001 are declared"),
    "much less than declared": (zlib.compress(b"ab"), 1 << 28, "2 bytes where 268435456"),
    "a bomb": (zlib.compress(bytes(64 << 20)), 1000, "more than the 1000 bytes"),
    "cut short": (STREAM[: len(STREAM) // 2], len(TIMES), "ends too early"),
    "without its checksum": (STREAM[:-4], len(TIMES), "ends too early"),
    "a wrong checksum": (STREAM[:-1] + b"?", len(TIMES), "is damaged"),
    "another header": (b"?" + STREAM[1:], len(TIMES), "is damaged"),
    "nothing": (b"", len(TIMES), "ends too early"),
}


@pytest.fixture(params=["isal", "deflate", "libdeflate"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    found = None
    if request.param == "deflate":  # as where its functions can't be reached
        monkeypatch.setattr(codecs, "_in_place", lambda library, kind: library.no_such_function)
        found = codecs.libdeflate.__wrapped__()
    elif request.param == "libdeflate":
        found = codecs.libdeflate.__wrapped__()
        assert "_in_place" in found.__qualname__ or sys.platform == "win32"
    monkeypatch.setattr(codecs, "libdeflate", lambda kind="zlib": found)


@pytest.mark.parametrize("tail", [b"", b"what follows the stream"])
@pytest.mark.parametrize("exact", [True, False])
def test_a_whole_stream_is_decoded(tail: bytes, exact: bool) -> None:
    output = OutputSize(len(TIMES) if exact else 2 * len(TIMES), exact)
    assert bytes(inflate(memoryview(STREAM + tail), output)) == TIMES
    assert bytes(inflate(memoryview(zlib.compress(b"") + tail), OutputSize(0, exact))) == b""


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_stream_is_an_error_and_takes_no_memory(what: str) -> None:
    data, size, reason = DAMAGED[what]
    tracemalloc.start()
    try:
        with pytest.raises(NWBReadError, match=reason):
            inflate(memoryview(data), OutputSize(size))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16, 200, 255, 256, 1000])
def test_any_elements_of_a_shuffled_chunk_are_put_into_place(size: int) -> None:
    count = 300_000 // size
    raw = np.random.default_rng(1).integers(0, 256, count * size, np.uint8)
    shuffled = memoryview(np.ascontiguousarray(raw.reshape(-1, size).T).data).cast("B")
    assert bytes(codecs.unshuffle(shuffled, size)) == raw.tobytes()
    for first, n in ((0, count), (0, 1), (count // 3, count // 2), (count - 2, 2), (5, 0)):
        out = np.full(n * size + 2, 7, np.uint8)
        assert codecs.unshuffle_part(shuffled, size, first * size, out[1:-1])
        assert out[1:-1].tobytes() == raw[first * size : (first + n) * size].tobytes()
        assert out[0] == out[-1] == 7
    assert not codecs.unshuffle_part(shuffled, size, 0, np.zeros((count + 1) * size, np.uint8))


@pytest.mark.parametrize(
    "steps", [(), (codecs.SHUFFLE,), (codecs.FLETCHER32,), (codecs.SHUFFLE, codecs.FLETCHER32)]
)
def test_a_chunk_of_another_size_is_an_error_where_no_codec_tells(steps: tuple[int, ...]) -> None:
    filters = tuple(Filter(step, (8,) if step == codecs.SHUFFLE else ()) for step in steps)
    data = bytes(792)
    stored = Fletcher32().encode(data) if codecs.FLETCHER32 in steps else data
    with pytest.raises(NWBReadError, match="792 bytes where 800 are declared"):
        chunk_bytes(memoryview(stored), Layout(("number", "<f8"), chunk=(100,), filters=filters), 0, 800)
