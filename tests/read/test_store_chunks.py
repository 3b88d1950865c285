"""Chunks that are objects of a store, and chunks in shards: values as zarr-python has them, and no more fetched
than the rows need. What is not there is the fill value; what is damaged is an error that names the object.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from reading import QUICK
from servers import RangeServer, S3Server

from lazynwb_dask.errors import NWBFileChangedError, NWBPermissionError, NWBReadError, UnsupportedColumnError
from lazynwb_dask.model.index import ArrayIndex
from lazynwb_dask.model.packing import layout_json, layout_of
from lazynwb_dask.model.source import Source
from lazynwb_dask.read import block
from lazynwb_dask.read.arrays import read_block
from lazynwb_dask.read.block import Block
from lazynwb_dask.storage import record
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options
from lazynwb_dask.util import lru
from lazynwb_dask.zarr.store import Store

pytestmark = pytest.mark.skipif(
    zarr.__version__ < "3", reason="written by zarr 3, which hdmf-zarr for Python 3.11 excludes"
)

PLAIN: dict[str, Any] = {"compressors": None}
WAYS: dict[str, dict[str, Any]] = {
    "v2": {"zarr_format": 2, "chunks": (30, 2), **PLAIN},
    "v2 slashes": {"zarr_format": 2, "chunks": (30, 2), "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2 zlib": {"zarr_format": 2, "chunks": (30, 3), "compressors": numcodecs.Zlib(1)},
    "v3": {"zarr_format": 3, "chunks": (30, 2), **PLAIN},
    "v3 zstd": {"zarr_format": 3, "chunks": (30, 3)},
    "sharded": {"zarr_format": 3, "chunks": (10, 2), "shards": (40, 4)},
    "sharded plain": {"zarr_format": 3, "chunks": (10, 2), "shards": (40, 4), **PLAIN},
}
ROWS = 173


def values(rows: int = ROWS, across: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1 << 40, (rows, across))


def made(folder: Path, how: dict[str, Any], data: np.ndarray, **more: Any) -> Path:
    """A store of one array."""
    how = {**how, **more}
    root = zarr.open_group(folder, mode="w", zarr_format=how.pop("zarr_format"))
    array = root.create_array("x", shape=data.shape, dtype=data.dtype, **how)
    array[...] = data
    consolidate(folder)
    return folder


def consolidate(folder: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # (the format 3 hasn't it yet, zarr-python says)
        zarr.consolidate_metadata(folder)


def opened(url: str, access: FileAccess | None = None) -> tuple[Source, ArrayIndex]:
    """The store, and where the array lies, which comes back from a catalog as it went in."""
    store = Store(Source(url), access or FileAccess(settings=QUICK))
    array = store.array("/x")
    assert array is not None
    assert layout_of(layout_json(array.layout)) == array.layout
    return store.source, array


def get(
    source: Source,
    array: ArrayIndex,
    rows: list[tuple[int, int]] | None = None,
    box: tuple[tuple[int, int], ...] | None = None,
    access: FileAccess | None = None,
) -> np.ndarray:
    a, b = np.array(rows if rows is not None else [(0, array.rows)], np.int64).reshape(-1, 2).T
    wanted = Block(a, b, box or tuple((0, n) for n in array.layout.item))
    return read_block(source, "/x", array, wanted, access or FileAccess(settings=QUICK))


@pytest.fixture
def serve(range_server: RangeServer, tmp_path: Path) -> Callable[[Path], str]:
    def put(folder: Path) -> str:
        for path in folder.rglob("*"):
            if path.is_file():
                range_server.put(f"a.zarr/{path.relative_to(folder).as_posix()}", path.read_bytes())
        lru.clear()
        return range_server.url("a.zarr")

    return put


def asked(server: RangeServer) -> list[tuple[str, tuple[int, int] | None]]:
    return sorted((entry.path.partition("/x/")[2], entry.range) for entry in server.log if "/x/" in entry.path)


@pytest.mark.parametrize("how", WAYS)
def test_any_rows_and_columns_are_those_of_zarr_python(tmp_path: Path, how: str) -> None:
    data = values()
    source, array = opened(str(made(tmp_path / "a.zarr", WAYS[how], data)))
    rng = np.random.default_rng(2)
    for _ in range(20):
        cuts = np.sort(rng.choice(ROWS + 1, 2 * rng.integers(1, 6), replace=False)).reshape(-1, 2).tolist()
        low, high = sorted(rng.choice(6, 2, replace=False).tolist())
        expected = np.concatenate([data[a:b, low:high] for a, b in cuts])
        np.testing.assert_array_equal(get(source, array, cuts, ((low, high),)), expected)
    np.testing.assert_array_equal(get(source, array), data)


@pytest.mark.parametrize("how", ["v2", "v3 zstd", "sharded"])
@pytest.mark.parametrize("shape", [(), (7,), (7, 1), (1, 7), (1, 1, 7), (1, 1)])
def test_arrays_of_any_shape_are_read_also_flattened(tmp_path: Path, how: str, shape: tuple[int, ...]) -> None:
    data = np.arange(int(np.prod(shape)) or 1, dtype="i8").reshape(shape)
    chunks = tuple(min(n, 2) for n in shape)
    more: dict[str, Any] = {"chunks": chunks or "auto"}
    if how == "sharded":
        more["shards"] = tuple(2 * c if n > 1 else c for c, n in zip(chunks, shape, strict=True)) or None
    source, array = opened(str(made(tmp_path / "a.zarr", WAYS[how], data, **more)))
    np.testing.assert_array_equal(get(source, array), data.reshape(shape or (1,)))
    flat = array.flattened()
    assert flat is not None
    assert flat.shape == (data.size,)
    np.testing.assert_array_equal(get(source, flat), data.reshape(-1))


@pytest.mark.parametrize("how", WAYS)
def test_chunks_and_shards_that_are_not_there_hold_the_fill_value(tmp_path: Path, how: str) -> None:
    folder, data = tmp_path / "a.zarr", np.full((ROWS, 5), 7)
    made(folder, WAYS[how], data, fill_value=7)
    root = zarr.open_group(folder)
    root["x"][60:70, :] = 1
    source, array = opened(str(folder))
    with record() as seen:
        np.testing.assert_array_equal(get(source, array), root["x"][...])
    assert seen.total.bytes < data.nbytes


def test_only_the_chunks_that_rows_touch_are_fetched_all_at_once(
    tmp_path: Path, serve: Callable[[Path], str], range_server: RangeServer
) -> None:
    data = values()
    source, array = opened(serve(made(tmp_path / "a.zarr", WAYS["v3 zstd"], data)))
    range_server.clear_log()
    range_server.behaviour.latency = 0.1
    rows = [(3, 5), (95, 130)]
    np.testing.assert_array_equal(
        get(source, array, rows, ((0, 2),)), np.concatenate([data[a:b, :2] for a, b in rows])
    )
    assert [key for key, _ in asked(range_server)] == ["c/0/0", "c/3/0", "c/4/0"]
    assert len(range_server.log) == range_server.max_running == 4  # and the document, to see if it changed


def test_of_chunks_without_codecs_only_the_rows_are_fetched(
    tmp_path: Path, serve: Callable[[Path], str], range_server: RangeServer
) -> None:
    data = values(40_000, 2)
    source, array = opened(serve(made(tmp_path / "a.zarr", WAYS["v2"], data, chunks=(30_000, 2))))
    range_server.clear_log()
    rows = [(10, 20), (25_000, 25_010), (29_990, 30_010)]
    np.testing.assert_array_equal(get(source, array, rows), np.concatenate([data[a:b] for a, b in rows]))
    assert asked(range_server) == [
        ("0.0", (160, 320)), ("0.0", (400_000, 400_160)), ("0.0", (479_840, 480_000)), ("1.0", (0, 160)),
    ]  # fmt: skip


LARGE: dict[str, Any] = {"zarr_format": 3, "chunks": (1000,), "shards": (20_000,)}


@pytest.mark.parametrize("place", ["http", "s3"])
def test_of_shards_come_their_indexes_at_once_and_then_the_chunks_that_are_needed(
    tmp_path: Path, serve: Callable[[Path], str], range_server: RangeServer, s3_server: S3Server, place: str
) -> None:
    data = np.random.default_rng(1).random(60_000)
    folder = made(tmp_path / "a.zarr", LARGE, data)
    server: Any = range_server
    if place == "http":
        url, access = serve(folder), FileAccess(settings=QUICK)
    else:
        server, access = s3_server, FileAccess(Options(s3_server.storage_options), QUICK)
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            s3_server.put("lab", f"a.zarr/{path.relative_to(folder).as_posix()}", path.read_bytes())
        url = "s3://lab/a.zarr"
    source, array = opened(url, access)
    for again in (False, True):
        server.clear_log()
        rows = [(1500, 1510), (2100, 2200), (45_000, 45_001)]
        expected = np.concatenate([data[a:b] for a, b in rows])
        with record() as seen:
            np.testing.assert_array_equal(get(source, array, rows, access=access), expected)
        indexes = 0 if again else 2
        assert seen.total.requests == len(server.log) == indexes + 2 + 1  # the document, too
        assert seen.total.bytes < 3 * 8000 + indexes * 324 + 1
        if place == "http" and not again:
            ends = [entry.path[-3:] for entry in server.log if entry.headers["Range"] == "bytes=-324"]
            assert sorted(ends) == ["c/0", "c/2"]


def test_of_small_shards_that_are_wanted_whole_all_comes_in_one_wave(
    tmp_path: Path, serve: Callable[[Path], str], range_server: RangeServer
) -> None:
    data = values()
    source, array = opened(serve(made(tmp_path / "a.zarr", WAYS["sharded"], data)))
    range_server.clear_log()
    np.testing.assert_array_equal(get(source, array), data)
    assert [key for key, _ in asked(range_server)] == [f"c/{i}/{j}" for i in range(5) for j in range(2)]
    assert len(range_server.log) == 11


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("checked", [True, False])
def test_the_index_stands_at_either_end_with_or_without_a_checksum(
    tmp_path: Path, location: str, checked: bool
) -> None:
    from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

    data = np.arange(40_000.0)
    data[5000:6000] = 0  # not stored
    codecs = [BytesCodec(), Crc32cCodec()] if checked else [BytesCodec()]
    sharding = ShardingCodec(chunk_shape=(1000,), index_codecs=codecs, index_location=location)
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    array = root.create_array("x", shape=data.shape, dtype="f8", chunks=(20_000,), serializer=sharding, **PLAIN)
    array[:] = data
    consolidate(tmp_path / "a.zarr")
    source, index = opened(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(get(source, index), data)
    if checked:
        shard = tmp_path / "a.zarr" / "x" / "c" / "0"
        held = bytearray(shard.read_bytes())
        held[5 if location == "start" else -10] ^= 1
        shard.write_bytes(held)
        lru.clear()
        with pytest.raises(NWBReadError, match=r"x/c/0"):
            get(source, index)


def test_a_shards_index_that_leads_anywhere_is_refused(tmp_path: Path) -> None:
    from zarr.codecs import BytesCodec, ShardingCodec

    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    sharding = ShardingCodec(chunk_shape=(1000,), index_codecs=[BytesCodec()])
    array = root.create_array("x", shape=(20_000,), dtype="f8", chunks=(20_000,), serializer=sharding, **PLAIN)
    array[:] = np.arange(20_000.0)
    consolidate(tmp_path / "a.zarr")
    source, index = opened(str(tmp_path / "a.zarr"))
    shard = tmp_path / "a.zarr" / "x" / "c" / "0"
    held = shard.read_bytes()
    for offset, size in [
        (0, 1 << 40), (1 << 63, 8000), (len(held), 8000), ((1 << 64) - 1, 8000), (0, (1 << 64) - 1), (0, 7999),
        (len(held) - 10, 8000),
    ]:  # fmt: skip
        shard.write_bytes(held[:-320] + struct.pack("<2Q", offset, size) + held[-304:])
        lru.clear()
        with pytest.raises(NWBReadError, match=r"x/c/0"):
            get(source, index)
    for short in (b"", held[-100:]):
        shard.write_bytes(short)
        lru.clear()
        with pytest.raises(NWBReadError, match=r"x/c/0.*damaged"):
            get(source, index)


@pytest.mark.parametrize("how", ["v2", "v2 zlib", "v3 zstd"])
def test_a_chunk_that_is_truncated_or_too_long_is_an_error_that_names_it(tmp_path: Path, how: str) -> None:
    source, array = opened(str(made(tmp_path / "a.zarr", WAYS[how], values())))
    chunk = next(path for path in [tmp_path / "a.zarr/x/2.0", tmp_path / "a.zarr/x/c/2/0"] if path.exists())
    held = chunk.read_bytes()
    for wrong in (held[:-1], held[: len(held) // 2], b"", bytes(100), held + bytes(20_000)):
        chunk.write_bytes(wrong)
        name = chunk.relative_to(tmp_path / "a.zarr").as_posix()
        with pytest.raises(NWBReadError, match=rf"{name}.*(damaged|truncated|can't be decompressed)"):
            get(source, array)
    chunk.write_bytes(held)
    np.testing.assert_array_equal(get(source, array), values())


def test_a_chunk_that_is_forbidden_is_an_error_that_names_it(
    tmp_path: Path, serve: Callable[[Path], str], range_server: RangeServer
) -> None:
    source, array = opened(serve(made(tmp_path / "a.zarr", WAYS["v2"], values())))
    range_server.behaviour.forbidden = {"a.zarr/x/1.0"}
    with pytest.raises(NWBPermissionError, match=r"a\.zarr/x/1\.0"):
        get(source, array)


def test_a_store_that_was_written_anew_is_noticed(
    tmp_path: Path, serve: Callable[[Path], str], range_server: RangeServer
) -> None:
    data = values()
    folder = made(tmp_path / "a.zarr", WAYS["v2"], data)
    for url in (str(folder), serve(folder)):
        source, array = opened(url)
        np.testing.assert_array_equal(get(source, array), data)
        made(folder, WAYS["v2"], data, chunks=(40, 3))
        if url != str(folder):
            serve(folder)
        with pytest.raises(NWBFileChangedError, match=r"a\.zarr/\.zmetadata"):
            get(source, array)
        made(folder, WAYS["v2"], data)


def test_a_store_that_is_gone_is_not_one_of_fill_values(tmp_path: Path) -> None:
    source, array = opened(str(made(tmp_path / "a.zarr", WAYS["v2"], values())))
    (tmp_path / "a.zarr").rename(tmp_path / "b.zarr")
    with pytest.raises(NWBReadError, match=r"a\.zarr/\.zmetadata"):
        get(source, array)


def test_a_shard_of_too_many_chunks_is_refused_before_its_index_is_asked_for(tmp_path: Path) -> None:
    source, array = opened(str(made(tmp_path / "a.zarr", LARGE, np.zeros(60_000))))
    layout = array.layout
    assert layout.objects is not None
    for shard, error in [
        ((1000 << 30,), UnsupportedColumnError),
        ((1500,), NWBReadError),
        ((1, 1), NWBReadError),
    ]:
        hostile = replace(array, layout=replace(layout, objects=replace(layout.objects, shard=shard)))
        with record() as seen, pytest.raises(error, match=r"shard"):
            get(source, hostile)
        assert not seen.total.requests


def test_bytes_that_numbers_are_stored_in_may_be_more_than_they_have(tmp_path: Path) -> None:
    from numcodecs import Delta

    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    data = np.arange(50_000, dtype="i2")
    wider = Delta(dtype="<i2", astype="<i8")
    root.create_array("x", shape=data.shape, dtype="i2", chunks=(25_000,), filters=[wider], **PLAIN)[:] = data
    consolidate(tmp_path / "a.zarr")
    source, array = opened(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(get(source, array), data)


def test_each_array_that_is_read_at_the_same_time_waits_for_the_same_objects(
    tmp_path: Path, serve: Callable[[Path], str], range_server: RangeServer
) -> None:
    """As where two columns of a table are one dataset."""
    from lazynwb_dask.read.column import Reader
    from lazynwb_dask.read.executor import ChunkMaps, run_steps
    from lazynwb_dask.read.steps import together

    for how in ("v3 zstd", "sharded"):
        data = values()
        source, array = opened(serve(made(tmp_path / "a.zarr", WAYS[how], data)))
        range_server.clear_log()
        reader = Reader(source.reach, ChunkMaps(source))
        rows = [np.arange(10, 50), np.arange(20, 60)]
        found: Any = run_steps(
            together([reader.column([array], None, some) for some in rows]), source, FileAccess(settings=QUICK)
        )
        for some, one in zip(rows, found, strict=True):
            np.testing.assert_array_equal(np.array(one.to_pylist()), data[some])
        objects = [key for key, _ in asked(range_server)]
        assert len(objects) == (8 if how == "sharded" else 4)  # the shards' indexes, and what is wanted of each


def test_very_many_chunks_are_fetched_in_turns(
    tmp_path: Path, serve: Callable[[Path], str], range_server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes some memory besides its bytes, and a store may have a million of a few bytes."""
    monkeypatch.setattr(block, "AT_ONCE", 5)
    for how in ("v2", "v3 zstd", "sharded"):
        range_server.reset()
        data = values()
        source, array = opened(serve(made(tmp_path / "a.zarr", WAYS[how], data)))
        range_server.clear_log()
        range_server.behaviour.latency = 0.02
        np.testing.assert_array_equal(get(source, array), data)
        assert range_server.max_running <= (6 if how != "sharded" else 11)  # with the document; 10 small shards
        assert len(asked(range_server)) == {"v2": 18, "v3 zstd": 12, "sharded": 10}[how]
