"""What a file may declare has limits, each shown by a file that goes beyond it."""

from __future__ import annotations

import gc
import inspect
import os
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from files import nwb, one, table
from h5py import h5d, h5p, h5s, h5t

import lazynwb_dask
from lazynwb_dask.decode import filters, objects
from lazynwb_dask.decode.filters import chunk_bytes
from lazynwb_dask.errors import NWBError, NWBReadError
from lazynwb_dask.hdf5 import chunk_btree, datatypes, global_heap, links, object_header, sparse_file
from lazynwb_dask.metadata import hdf5_file, queries
from lazynwb_dask.model import limits
from lazynwb_dask.model.index import Extents, Filter, Layout
from lazynwb_dask.nwb import columns, tables
from lazynwb_dask.read import block, column, vlen
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage import Settings, counters, zipped
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options
from lazynwb_dask.zarr import array, codecs, contents, documents, fetched, file_image, tree

OPTIONS, SETTINGS = Options(None), Settings()
MB = 1 << 20


def index(path: Path | str, name: str = "/units") -> dict[str, Any]:
    (source,) = expand(str(path), FileAccess(OPTIONS))
    found = queries.index_file(source, TableRequest(name), FileAccess(OPTIONS, SETTINGS))
    assert found.table is not None
    return found.table.columns


def problem(path: Path | str, column: str = "x") -> str:
    reason: str = index(path)[column].problem
    return reason


def read(path: Path | str) -> Any:
    return lazynwb_dask.read_nwb(str(path), "/units").compute(scheduler="sync")


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Modules that the first read imports are no memory of a later one."""
    path = tmp_path_factory.mktemp("first") / "f.nwb"
    one(path, np.arange(3.0), chunks=(3,), compression="gzip")
    read(path)


@contextmanager
def little_memory(limit: int = 24 * MB) -> Iterator[None]:
    """What goes on here takes no more memory than that."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak >> 20} MB"


@contextmanager
def unwritten(path: Path, rows: int = 10) -> Iterator[h5py.Group]:
    with nwb(path) as file:
        yield table(file, "/units", rows, ["x"])


DECLARED: dict[str, tuple[Callable[[h5py.Group], Any], str]] = {
    "an element of 17 MB": (lambda g: g.create_dataset("x", (10,), f"S{17 * MB}", chunks=(1,)), "elements of"),
    "a chunk of 128 MB for 10 numbers": (
        lambda g: g.create_dataset("x", (10,), "f8", chunks=(16 * MB,), maxshape=(None,)),
        "chunks of 134217728 bytes for 80 bytes",
    ),
    "two million chunks": (
        lambda g: g.create_dataset("x", (2 * MB,), "u1", chunks=(1,)),
        "2097152 chunks; the limit is 1048576",
    ),
    "2 GB that nobody wrote, in one piece": (
        lambda g: g.create_dataset("x", (160 * MB,), "f8"),
        "1342177280 bytes that were never written",
    ),
    "2 GB that nobody wrote, in chunks": (
        lambda g: g.create_dataset("x", (160 * MB,), "f8", chunks=(MB,)),
        "1342177280 bytes that were never written",
    ),
    "more than any compression gives": (
        lambda g: g.create_dataset("x", (1 << 40,), "f8", chunks=(1 << 24,)),
        "are declared in a file of",
    ),
    "rows without any values": (lambda g: g.create_dataset("x", (1 << 40, 0), "f8"), "rows without any values"),
    "a compound of too many fields": (
        lambda g: g.create_dataset("x", (10,), [(f"f{i}", "u1") for i in range(60)]),
        "a compound of 60 fields",
    ),
    "datatypes within datatypes": (lambda g: g.create_dataset("x", (10,), _nested(12)), "nested too deeply"),
}


def _nested(depth: int) -> np.dtype:
    made = np.dtype("u1")
    for _ in range(depth):
        made = np.dtype([("f", made)])
    return made


@pytest.mark.parametrize("what", DECLARED)
def test_what_is_declared_has_limits(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datatypes, "MAX_FIELDS", 50)  # 4,096 don't fit into a header
    make, reason = DECLARED[what]
    with unwritten(tmp_path / "f.nwb") as group:
        make(group)
    with little_memory():
        assert reason in problem(tmp_path / "f.nwb")
    with pytest.warns(UserWarning, match="x"):
        assert list(read(tmp_path / "f.nwb").id) == list(range(10))


def test_a_table_that_declares_rows_beyond_all_others_is_not_filled_up(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = file.create_group("units")
        group.attrs["colnames"] = ["x"]
        group.create_dataset("id", (5 * MB,), "u1", chunks=(MB,))
        group.create_dataset("x", data=np.arange(3))
    assert "it has 3 rows and its table 5242880" in problem(tmp_path / "f.nwb")


def test_rows_that_only_an_unreadable_id_declares_are_refused(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = file.create_group("units")
        group.attrs["colnames"] = ["x"]
        group.create_dataset("id", (1 << 60,), "f8", chunks=(1 << 20,))
        group.create_dataset("x", data=np.arange(3))
    with little_memory(), pytest.raises(NWBReadError, match=r"f\.nwb: /units: an id column of"):
        index(tmp_path / "f.nwb")


def _set(path: Path, at: int, value: int, width: int = 8) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(value.to_bytes(width, "little"))


def _tree_of(path: Path, column: str = "units/x") -> int:
    """Where the B-tree lies that lists a dataset's chunks."""
    with h5py.File(path, "r") as file:
        held = sparse_file.SparseFile(path.stat().st_size)
        held.put(0, path.read_bytes())
        address = int(h5py.h5o.get_info(file[column].id).addr)
        return object_header.data_layout(held, address, 0).address


def _chunked(path: Path, chunks: int = 4, **kwargs: Any) -> int:
    """A column of some chunks of eight numbers; the place of its B-tree."""
    one(path, np.arange(8.0 * chunks), chunks=(8,), **kwargs)
    return _tree_of(path)


KEY, ENTRY = 24, 32  # bytes of a node's head, and of an entry of one dimension: key and address
TREES: dict[str, tuple[Callable[[Path, int], None], str]] = {
    "a chunk outside the file": (
        lambda p, at: _set(p, at + KEY + ENTRY - 8, p.stat().st_size - 8),
        "reaches to byte",
    ),
    "a chunk at no address at all": (
        lambda p, at: _set(p, at + KEY + ENTRY - 8, 2**64 - 16),
        "points outside the file",
    ),
    "two chunks in one place": (
        lambda p, at: _set(
            p, at + KEY + ENTRY - 8,
            struct.unpack_from("<Q", p.read_bytes(), at + KEY + 2 * ENTRY - 8)[0],
        ),
        "overlap",
    ),
    "a chunk shorter than its shape": (
        lambda p, at: _set(p, at + KEY, 63, 4),
        "fewer bytes of /units/x are stored",
    ),
    "a chunk that begins within another": (
        lambda p, at: _set(p, at + KEY + ENTRY + 8, 9),
        "begins where none does",
    ),
    "chunks that are not in order": (
        lambda p, at: _set(p, at + KEY + ENTRY + 8, 16),
        "keys don't rise",
    ),
    "a chunk outside, and one missing": (
        lambda p, at: _set(p, at + KEY + 3 * ENTRY + 8, 8_000),
        "outside their dataset",
    ),
    "a root whose children are chunks": (
        lambda p, at: _set(p, at + 5, 1, 1),
        "not a node of a chunk B-tree",
    ),
    "a node of 65,535 entries": (
        lambda p, at: _set(p, at + 6, 65_535, 2),
        "",
    ),
    "no node": (
        lambda p, at: _set(p, at, 0, 4),
        "not a node of a chunk B-tree",
    ),
}  # fmt: skip


ONE = {"a chunk outside the file", "a chunk at no address at all", "a chunk shorter than its shape", "no node",
       "a root whose children are chunks", "a node of 65,535 entries"}  # fmt: skip


@pytest.mark.parametrize(
    ("what", "chunks"), [*[(what, 4) for what in TREES], *[(what, 1) for what in sorted(ONE)]]
)
def test_a_damaged_chunk_tree_is_found_out(tmp_path: Path, what: str, chunks: int) -> None:
    damage, reason = TREES[what]
    at = _chunked(tmp_path / "f.nwb", chunks)
    for _ in range(2):  # also where datasets with the same header were valid before
        assert not problem(tmp_path / "f.nwb")
    damage(tmp_path / "f.nwb", at)
    with little_memory():
        found = problem(tmp_path / "f.nwb")
    assert found
    assert reason in found


def _node(level: int, children: list[int]) -> bytes:
    entries = b"".join(struct.pack("<IIQQQ", 8, 0, i, 0, c) for i, c in enumerate(children))
    head = struct.pack("<4sBBHQQ", b"TREE", 1, level, len(children), 0, 0)
    return (head + entries).ljust(4096, b"\0")


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([_node(9, [1]), _node(9, [2])], "don't descend"),
        ([_node(8, [1]), _node(7, [2])], "don't descend"),
        ([_node(8, [7000]), _node(8, [7000])], "in two places"),
        ([_node(8, [7000]), _node(8, [1 << 40])], "outside the file"),
        ([_node(8, [7000]), b"SNOD".ljust(4096, b"\0")], "not a node"),
        ([_node(8, [1, 2]), _node(8, [3, 4]), _node(8, [5])], "too many nodes"),
    ],
)
def test_a_chunk_tree_that_never_ends_is_given_up(
    nodes: list[bytes], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_btree, "MAX_NODES", 3)
    walk = chunk_btree.ChunkBTree(0, (800,), (1,), 0, 1 << 30)
    walk.feed([_node(9, [5000, 6000])])
    with pytest.raises(object_header.FormatError, match=reason):
        walk.feed(nodes)


def test_a_level_of_a_chunk_tree_has_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_btree, "MAX_LEVEL", 5000)
    walk = chunk_btree.ChunkBTree(0, (800,), (1,), 0, 1 << 30)
    assert walk.wanted
    walk.feed([_node(9, [5000, 6000, 7000])])
    with pytest.raises(object_header.FormatError, match="too many bytes"):
        _ = walk.wanted


def test_an_object_header_that_goes_round_in_a_circle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def header(*blocks: tuple[int, int]) -> sparse_file.SparseFile:
        first = b"".join(struct.pack("<HHIQQ", 0x10, 16, 0, at, size) for at, size in blocks)
        data = struct.pack("<BBHIII", 1, 0, len(blocks), 1, len(first), 0) + first
        held = sparse_file.SparseFile(1 << 20)
        held.put(0, data.ljust(1 << 20, b"\0"))
        return held

    with pytest.raises(object_header.FormatError, match="round in a circle"):
        list(object_header.messages(header((16, 24)), 0, 0))
    with pytest.raises(object_header.FormatError, match="too many blocks or bytes"):
        list(object_header.messages(header((4096, 2**63)), 0, 0))
    monkeypatch.setattr(object_header, "MAX_BLOCKS", 3)
    with pytest.raises(object_header.FormatError, match="too many blocks or bytes"):
        list(object_header.messages(header(*[(4096 * i, 8) for i in range(1, 9)]), 0, 0))


def test_a_deflate_bomb_is_cut_off(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(256 * MB), 9)
    with unwritten(tmp_path / "f.nwb", 1000) as group:
        made = group.create_dataset("x", (1000,), "f8", chunks=(1000,), compression="gzip")
        made.id.write_direct_chunk((0,), bomb)
    with little_memory(), pytest.raises(NWBReadError, match=r"column 'x'.*more than the 8000 bytes"):
        read(tmp_path / "f.nwb")


def test_a_chunk_that_deflate_cannot_make_is_found_out_while_planning(tmp_path: Path) -> None:
    with unwritten(tmp_path / "f.nwb", MB) as group:
        made = group.create_dataset("x", (MB,), "f8", chunks=(MB,), compression="gzip")
        made.id.write_direct_chunk((0,), b"x" * 8000)  # a thousandth
    assert "fewer bytes of /units/x are stored" in problem(tmp_path / "f.nwb")


def test_rows_that_repeat_the_same_values_are_refused_at_every_depth(tmp_path: Path) -> None:
    again = np.tile([0, 1], 300)
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", len(again) + 1, ["x"])
        group.create_dataset("x", data=np.zeros(50_000))
        first = group.create_dataset("x_index", data=np.array([50_000, 50_000], "u4"))
        first.attrs["target"] = group["x"].ref
        # 300 rows that each hold the one row of 50,000 numbers: 120 MB
        second = group.create_dataset("x_index_index", data=np.append(again, 2).astype("u1"))
        second.attrs["target"] = first.ref
    with little_memory(64 * MB), pytest.raises(NWBReadError, match="the index is damaged"):
        read(tmp_path / "f.nwb")


HEAPS: dict[str, tuple[int, int, int, str]] = {
    # where in the collection, or before the text; value, width, message
    "a collection as large as it likes": (8, 1 << 40, 8, "collection of 1099511627776 bytes"),
    "a collection beyond the file": (8, 1 << 29, 8, "beyond the file or into another"),
    "an object beyond its collection": (-8, 1 << 20, 8, "reaches beyond its global heap"),
    "an object shorter than its string": (-8, 9, 8, "another length than the global heap holds"),
    "two objects of one number": (-16, 0, 2, "two objects of one number"),
    "no collection": (0, 0, 4, "no collection"),
}


@pytest.mark.parametrize("what", HEAPS)
def test_a_damaged_heap_is_found_out(tmp_path: Path, what: str) -> None:
    path, (offset, value, width, message) = tmp_path / "f.nwb", HEAPS[what]
    one(path, ["first text", "second text"], dtype=h5py.string_dtype())
    data = path.read_bytes()
    text = data.index(b"first text")
    assert read(path).x.tolist() == ["first text", "second text"]
    if width == 2:
        value = struct.unpack_from("<H", data, data.index(b"second text") - 16)[0]
    _set(path, (text if offset < 0 else data.rindex(b"GCOL", 0, text)) + offset, value, width)
    with little_memory(), pytest.raises(NWBReadError, match=rf"column 'x'.*{message}"):
        read(path)


def test_a_heap_of_more_objects_than_have_numbers_is_given_up() -> None:
    data = struct.pack("<4sB3xQ", b"GCOL", 1, 16 + 16 * 100_000)
    data += b"".join(struct.pack("<HHIQ", i % 65_535 + 1, 1, 0, 0) for i in range(100_000))
    with pytest.raises(NWBReadError, match="two objects of one number"):
        global_heap.objects(memoryview(data))


# ----------------------------------------------------------------------------------- links and groups
def test_links_one_after_another_have_an_end(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 3, ["near", "far", "loop"])
        file["l0"] = np.arange(3)
        for i in range(40):
            file[f"l{i + 1}"] = h5py.SoftLink(f"/l{i}")
        group["near"], group["far"] = h5py.SoftLink("/l20"), h5py.SoftLink("/l40")
        group["loop"] = h5py.SoftLink("/units/loop")
    found = index(tmp_path / "f.nwb")
    assert not found["near"].problem
    assert "soft links one after another" in found["far"].problem
    assert "soft links one after another" in found["loop"].problem


def test_groups_in_groups_and_their_links_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        table(file, "/units", 3, [])
        deep = "/".join("abcdefghijklmnopqrst")
        table(file, deep, 3, [])
        file["a/again"] = file["/"]  # hard links may go round in circles
        file["a/b/again"] = file["/a"]
        for i in range(30):
            file.create_group(f"many/g{i}")
    assert lazynwb_dask.list_tables(path) == ["/units"]
    monkeypatch.setattr(links, "MAX_CHILDREN", 29)
    with pytest.raises(NWBReadError, match=r"f\.nwb: damaged: a group of 30 links; the limit is 29"):
        lazynwb_dask.list_tables(path)
    monkeypatch.setattr(columns, "MAX_COLUMNS", 0)
    with pytest.raises(NWBReadError, match="1 objects; the limit is 0"):
        index(path)


def test_references_are_looked_for_in_so_many_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 1, ["ref"])
        for i in range(30):
            made = file.create_group(f"a/b/c/g{i}")
        group.create_dataset("ref", data=[made.ref], dtype=h5py.ref_dtype)
    assert read(tmp_path / "f.nwb").ref[0] == "/a/b/c/g29"
    monkeypatch.setattr(links, "MAX_NAMED", 3)
    os.utime(tmp_path / "f.nwb", ns=(1, 1))  # another version: nothing is remembered
    with pytest.raises(NWBReadError, match=r"'ref'.*names can't be found"):
        read(tmp_path / "f.nwb")


def test_what_is_read_while_indexing_is_small(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb", libver="latest") as file:
        group = table(file, "/units", 3, ["x", "y"])
        for name, count in (("x", 70_000), ("y", 30 * MB)):
            values = group.create_dataset(name, data=np.zeros(3, "u1"))
            labels = file.create_dataset(f"{name}_labels", (count,), "S1", chunks=(1000,))
            values.attrs["elements"] = labels.ref
        group.attrs.create("categories", np.zeros(20_000_000, "S1"))
    # (libhdf5 fetches an attribute's bytes to open it)
    with little_memory(64 * MB), pytest.raises(NWBReadError, match=r"f\.nwb.*attribute categories"):
        index(tmp_path / "f.nwb")
    with h5py.File(tmp_path / "f.nwb", "r+") as file:
        del file["units"].attrs["categories"]
    with little_memory():
        found = index(tmp_path / "f.nwb")
    assert "an enumeration of 70000 labels" in found["x"].problem
    assert "a dataset of the shape" in found["y"].problem


def test_headers_all_over_a_file_bring_little_else_along(tmp_path: Path) -> None:
    """As of recordings that were written one after the other, each with its data."""
    early = h5p.create(h5p.DATASET_CREATE)
    early.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5d.FILL_TIME_NEVER)  # so that no megabyte is written
    space = h5s.create_simple((MB,))
    with nwb(tmp_path / "f.nwb") as file:
        for i in range(300):
            group = table(file, f"/acquisition/sweep{i}", 1, [])
            h5d.create(group.id, b"data", h5t.NATIVE_UINT8, space, early)
    before = counters.snapshot().total.bytes
    assert len(lazynwb_dask.list_tables(tmp_path / "f.nwb")) == 300
    assert counters.snapshot().total.bytes - before < 300 * MB // 5


def test_metadata_without_end_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        for i in range(40):
            file.create_dataset(f"data{i}", data=np.zeros(10_000))
            table(file, f"/t{i}", 1, [])
    monkeypatch.setattr(hdf5_file, "MAX_METADATA", 2 * MB)
    with pytest.raises(NWBReadError, match=r"f\.nwb: the metadata are spread over more than 2 MiB"):
        lazynwb_dask.list_tables(path)
    monkeypatch.setattr(hdf5_file, "MAX_METADATA", 128 * MB)
    monkeypatch.setattr(hdf5_file, "MAX_WAVES", 1)
    with pytest.raises(NWBReadError, match="or 1 round trips"):
        lazynwb_dask.list_tables(path)


# ------------------------------------------------------------------------------------------- filters
def _filtered(path: Path, how: str) -> bytes:
    """A column with one filter of libhdf5's own; its only chunk as stored."""
    values = np.random.default_rng(0).integers(0, 300, 1000).astype("i4")
    with unwritten(path, 1000) as group:
        if how == "n-bit":
            kind = h5t.STD_I16LE.copy()
            kind.set_precision(12)
            kind.set_offset(2)
            plist = h5p.create(h5p.DATASET_CREATE)
            plist.set_chunk((1000,))
            plist.set_filter(5, 0, ())
            made = h5d.create(group.id, b"x", kind, h5s.create_simple((1000,)), plist)
            made.write(h5s.ALL, h5s.ALL, values.astype("i2"))
        else:
            kwargs = {"scaleoffset": 0} if how == "scale-offset" else {"compression": how}
            made = group.create_dataset("x", data=values, chunks=(1000,), **kwargs).id
        stored: bytes = made.read_direct_chunk((0,))[1]
    assert read(path).x.tolist() == values.tolist()
    return stored


@pytest.mark.parametrize("how", ["lzf", "szip", "n-bit", "scale-offset", "gzip"])
@pytest.mark.parametrize("kept", [0.99, 0.5, 0.02])
def test_a_chunk_that_is_cut_short_never_shows_what_else_is_in_memory(
    tmp_path: Path, how: str, kept: float
) -> None:
    path = tmp_path / "f.nwb"
    stored = _filtered(path, how)
    with h5py.File(path, "r+") as file:
        file["units/x"].id.write_direct_chunk((0,), stored[: int(len(stored) * kept)])
    with pytest.raises(NWBReadError, match=r"column 'x'.*damaged"):
        read(path)


def test_filters_with_parameters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    stored = _filtered(path, "szip")
    layout = index(path)["x"].arrays[0].layout
    assert len(chunk_bytes(memoryview(stored), layout, 0, 4000)) == 4000
    for values in ((169, 0, 32, 1000), (169, 8, 32, 7), (169, 31, 32, 1000), (), (0, 8, 0, 0)):
        damaged = Layout(layout.element, (), layout.chunk, (Filter(4, values, "szip"),))
        with pytest.raises(NWBReadError, match="damaged"):
            chunk_bytes(memoryview(stored), damaged, 0, 4000)
    for number in (1, 2):  # as a shuffle of no bytes
        damaged = Layout(("number", "<i4"), (), (1000,), (Filter(2, (0,) * number),))
        with pytest.raises(NWBReadError, match="damaged"):
            chunk_bytes(memoryview(bytes(4000)), damaged, 0, 4000)


@pytest.mark.parametrize(("mask", "reason"), [(2, "more than the 8000 bytes"), (0, "compressed twice over")])
def test_compressed_twice_over_is_no_way_around_the_room_there_is(
    tmp_path: Path, mask: int, reason: str
) -> None:
    bomb = zlib.compress(bytes(64 * MB), 9)
    with unwritten(tmp_path / "f.nwb", 1000) as group:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((1000,))
        plist.set_deflate(4)
        plist.set_filter(32000, h5py.h5z.FLAG_OPTIONAL, ())
        made = h5d.create(group.id, b"x", h5t.IEEE_F64LE, h5s.create_simple((1000,)), plist)
        made.write_direct_chunk((0,), bomb, filter_mask=mask)
    given = pa.schema([("x", pa.float64())])  # so that nothing is found out while planning
    frame = lazynwb_dask.read_nwb(str(tmp_path / "f.nwb"), "/units", schema=given)
    with little_memory(), pytest.raises(NWBError, match=reason):
        frame.compute(scheduler="sync")


def test_a_fill_value_survives_scale_offset(tmp_path: Path) -> None:
    values = np.array([-1, 5, 7, -1, 9] * 20)
    one(tmp_path / "f.nwb", values, chunks=(100,), scaleoffset=0, fillvalue=-1)
    assert read(tmp_path / "f.nwb").x.tolist() == values.tolist()


# ----------------------------------------------------------------------------- what a limit is good for
def test_extents_that_no_file_can_have_are_refused_wherever_they_come_from() -> None:
    layout = Layout(("number", "<f8"), (), (10,))
    good = Extents(20, np.array([100, 300], "<u8"), np.array([80, 80], "<u8"))
    limits.check_extents(layout, good, 1000)
    limits.check_extents(layout, replace(good, heap=(40, 1000)), 1000)
    for heap in ((40,), (40, 1001), (2**63, 2**63 + 8)):  # as a helper process may say
        with pytest.raises(NWBReadError, match="texts of it lie outside the file"):
            limits.check_extents(layout, replace(good, heap=heap), 1000)
    for offsets, sizes in (
        ([100, 950], [80, 80]),
        ([100, 150], [80, 80]),
        ([100, 300], [80, 79]),
        ([100], [80]),
        ([100, 2**64 - 40], [80, 80]),
    ):
        with pytest.raises(NWBReadError):
            limits.check_extents(layout, Extents(20, np.array(offsets, "<u8"), np.array(sizes, "<u8")), 1000)


def test_the_documentation_lists_every_limit_as_it_is() -> None:
    modules = {m.__name__.rpartition(".")[2]: m for m in
               (limits, datatypes, columns, tables, links, object_header, chunk_btree, global_heap,
                column, vlen, sparse_file, array, codecs, contents, documents, fetched, file_image, tree,
                filters, objects, zipped, block)}  # fmt: skip
    text = (Path(__file__).parents[2] / "docs" / "hostile-files.md").read_text()
    listed = set()
    for amount, unit, names in re.findall(r"^\| ([\d,]+)( [MGT]iB)? \|.*\| (`.*`) \|$", text, re.M):
        value = int(amount.replace(",", "")) << {"": 0, " MiB": 20, " GiB": 30, " TiB": 40}[unit]
        for module, name in re.findall(r"`(\w+)\.(\w+)`", names):
            assert getattr(modules[module], name) == value, name
            listed.add((module, name))
    there = {(m, n) for m, module in modules.items() for n in vars(module) if n.startswith("MAX_")}
    own = {(m, n) for m, n in there if f"{n} =" in inspect.getsource(modules[m])}
    assert own <= listed, own - listed
