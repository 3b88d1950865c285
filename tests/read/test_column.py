"""Every way of storing a column reads as h5py reads it, whole and any rows of it."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import oracle
import pandas as pd
import pytest
from files import nwb, ragged, table
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import lazynwb_dask
from lazynwb_dask.cluster.execute import execute
from lazynwb_dask.decode import codecs
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.metadata import queries
from lazynwb_dask.plan import partitions as assembly
from lazynwb_dask.plan import schema
from lazynwb_dask.scan.request import Selection, TableRequest
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage import Settings
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

OPTIONS, SETTINGS = Options(None), Settings()


def planned(path: str | Path, name: str = "/units") -> Scan:
    (source,) = expand(str(path), FileAccess(OPTIONS))
    found = queries.index_file(source, TableRequest(name), FileAccess(OPTIONS, SETTINGS))
    assert found.table is not None
    pairs = [(found.source, found.table)]
    unified = schema.unify([(s.url, t) for s, t in pairs])
    return assembly.build(pairs, unified, TableRequest(name), OPTIONS)


def read(path: str | Path, name: str = "/units") -> pd.DataFrame:
    plan = planned(path, name)
    return execute(plan, Selection(tuple(plan.fields)), SETTINGS)


class Rows:
    """A predicate that leaves given rows: what a filter amounts to for the reader."""

    columns = frozenset({"id"})

    def __init__(self, rows: np.ndarray) -> None:
        self.kept = rows

    def rows(self, frame: pd.DataFrame) -> np.ndarray:
        return self.kept


def assert_reads(path: str | Path, name: str = "/units") -> pd.DataFrame:
    """The frame is the oracle's, whole and for rows picked here and there."""
    plan = planned(path, name)
    columns = list(plan.fields)
    got = execute(plan, Selection(tuple(columns), None), SETTINGS)
    oracle.assert_same(got, oracle.frame(path, name))
    generator = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        rows = np.flatnonzero(generator.random(len(got)) < share)
        some = execute(plan, Selection(tuple(columns), Rows(rows)), SETTINGS)  # type: ignore[arg-type]
        oracle.assert_same(some, got.iloc[rows])
    return got


STORAGE = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "small chunks": {"chunks": 3},
    "deflate": {"chunks": 7, "compression": "gzip"},
    "deflate and shuffle": {"chunks": 50, "compression": "gzip", "shuffle": True},
    "fletcher32": {"chunks": 10, "fletcher32": True},
    "all three": {"chunks": 9, "compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"chunks": 20, "compression": "lzf"},
    "szip": {"chunks": 32, "compression": "szip"},
    "scale-offset": {"chunks": 25, "scaleoffset": 4},
}


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("how", STORAGE)
def test_every_layout_and_filter_gives_the_stored_values(tmp_path: Path, how: str, libver: str) -> None:
    generator = np.random.default_rng(1)
    n, total = 40, 300
    ends = np.sort(generator.integers(0, total, n))
    ends[-1] = total
    arguments = dict(STORAGE[how])
    if how == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        pytest.skip("this libhdf5 has no szip")

    def fit(shape: tuple[int, ...]) -> dict[str, object]:
        chunks = arguments.get("chunks")
        if isinstance(chunks, int) and not isinstance(chunks, bool):
            inner = tuple(max(1, m - 1) if how == "small chunks" else m for m in shape[1:])
            return {**arguments, "chunks": (min(chunks, shape[0]), *inner)}
        return arguments

    with nwb(tmp_path / "f.nwb", libver=libver) as file:
        group = table(file, "/units", n, ["x", "k", "spike_times", "waveform_mean", "obs"])
        group.create_dataset("x", data=generator.normal(size=n).round(3), **fit((n,)))
        group.create_dataset("k", data=generator.integers(0, 9, n), **fit((n,)))
        spikes = generator.normal(size=total).round(3)
        ragged(group, "spike_times", ends, spikes, **fit((total,)))
        shape = (n, 4, 3)
        group.create_dataset(
            "waveform_mean", data=generator.normal(size=shape).astype("f4").round(2), **fit(shape)
        )
        ragged(group, "obs", ends, generator.normal(size=(total, 2)).round(3), **fit((total, 2)))
    assert_reads(tmp_path / "f.nwb")


@pytest.mark.parametrize("maxshape", [(None,), (1000,)])
@pytest.mark.parametrize("filtered", [False, True])
def test_every_chunk_index_of_new_files_is_read(
    tmp_path: Path, maxshape: tuple[int | None], filtered: bool
) -> None:
    arguments = {"compression": "gzip"} if filtered else {}
    with nwb(tmp_path / "f.nwb", libver="latest") as file:
        group = table(file, "/units", 500, ["one", "many", "grown", "wide"])
        values = np.arange(500) * 0.5
        group.create_dataset("one", data=values, chunks=(500,), **arguments)
        group.create_dataset("many", data=values, chunks=(7,), maxshape=maxshape, **arguments)
        group.create_dataset("grown", data=values, chunks=(500,), maxshape=maxshape, **arguments)
        group.create_dataset(
            "wide", data=np.arange(5000.0).reshape(500, 10), chunks=(9, 4), maxshape=(None, None),
            **arguments,
        )  # fmt: skip
    assert_reads(tmp_path / "f.nwb")


def test_a_column_of_many_chunks_is_located_when_it_is_read(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 200, ["x"])
        made = group.create_dataset("x", shape=(60_000,), chunks=(10,), dtype="f8")
        noise = group.create_dataset("noise", shape=(60_000,), chunks=(10,), dtype="f8")
        for i in range(0, 60_000, 10):  # interleaved, as writers that append leave them
            made[i : i + 10] = np.arange(i, i + 10)
            noise[i : i + 10] = 0
        index = group.create_dataset("x_index", data=np.arange(1, 201) * 300)
        index.attrs["target"] = made.ref
    plan = planned(tmp_path / "f.nwb")
    values = plan.part(0).columns["x"][0][0]
    assert not values.extents.offsets.size, "6,000 chunks are not listed while planning"
    assert_reads(tmp_path / "f.nwb")


NUMBERS = ["i1", "u1", "<i2", ">i2", "<u4", ">u8", "<f2", ">f4", "<f8", ">f8", "<c8", "<c16", "?"]


@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_of_every_width_and_order_keep_dtype_and_value(tmp_path: Path, dtype: str) -> None:
    kind = np.dtype(dtype)
    values = np.arange(20).astype(kind)
    if kind.kind in "ui":
        values[:2] = np.iinfo(kind).max, np.iinfo(kind).min
    if kind.kind in "fc":
        values[:3] = np.nan, np.inf, -0.0
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 20, ["x", "r"])
        group.create_dataset("x", data=values)
        ragged(group, "r", np.arange(1, 21, dtype="u1"), values)
    got = assert_reads(tmp_path / "f.nwb")
    if kind.kind != "c":
        assert got.x.dtype == kind.newbyteorder("=")


def test_strings_of_every_kind_are_stripped_by_their_own_rules(tmp_path: Path) -> None:
    texts = ["", "a", "grün ", "x" * 40, "日本", " lead", "trail  "]
    with nwb(tmp_path / "f.nwb") as file:
        n = len(texts)
        group = table(file, "/units", n, ["v", "a", "s", "t", "p", "r"])
        group.create_dataset("v", data=texts, dtype=h5py.string_dtype())
        group.create_dataset("a", data=["ab", *[""] * (n - 1)], dtype=h5py.string_dtype("ascii"))
        encoded = np.array([t.encode() for t in texts])
        group.create_dataset("s", data=encoded)  # padded with NUL
        for name, padding, fill in (("t", 0, b"\0"), ("p", 2, b" ")):
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(50)
            kind.set_strpad(padding)
            space = h5py.h5s.create_simple((n,))
            made = h5py.h5d.create(group.id, name.encode(), kind, space)
            raw = b"".join(t.encode().ljust(50, fill) for t in texts)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.frombuffer(raw, "S50"), kind)
        ragged(group, "r", np.cumsum([2, 0, 3, 0, 1, 1, 0]), np.array(texts, object),
               dtype=h5py.string_dtype())  # fmt: skip
    got = assert_reads(tmp_path / "f.nwb")
    assert got.v.tolist() == texts
    assert got.p.tolist() == [t.rstrip(" ") for t in texts]


def test_bytes_that_are_not_utf8_become_replacement_characters(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 3, ["v", "s"])
        kind = h5py.string_dtype()
        group.create_dataset("v", data=np.array([b"ok", b"caf\xe9", b""], object), dtype=kind)
        group.create_dataset("s", data=np.array([b"ok", b"caf\xe9", b""]))
    got = read(tmp_path / "f.nwb")
    assert got.v.tolist() == got.s.tolist() == ["ok", "caf\ufffd", ""]


def test_many_strings_come_out_of_many_heap_collections(tmp_path: Path) -> None:
    texts = [f"cell {i:05d} " + "x" * (i % 50) for i in range(5000)]
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 5000, ["v"])
        group.create_dataset("v", data=texts, dtype=h5py.string_dtype())
    assert read(tmp_path / "f.nwb").v.tolist() == texts
    assert_reads(tmp_path / "f.nwb")


def test_doubly_ragged_columns_are_lists_of_lists(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    outer = np.sort(generator.integers(0, 50, 20))
    inner = np.sort(generator.integers(0, 400, 50)).astype("u2")
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 20, ["w"])
        group.create_dataset("w", data=generator.normal(size=(400, 3)), chunks=(30, 3))
        first = group.create_dataset("w_index", data=inner)
        first.attrs["target"] = group["w"].ref
        second = group.create_dataset("w_index_index", data=outer)
        second.attrs["target"] = first.ref
    got = assert_reads(tmp_path / "f.nwb")
    assert str(got.w.dtype) == "list<item: list<item: list<item: double>>>[pyarrow]"


def test_references_enumerations_and_compounds_are_resolved(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        colour = h5py.enum_dtype({"red": 1, "green": 7}, basetype="i2")
        names = ["group", "colour", "pixel_mask", "target", "stage", "seq"]
        group = table(file, "/units", 4, names)
        shanks = [file.create_group(f"general/extracellular_ephys/shank{i}") for i in range(2)]
        refs = np.array([shanks[i].ref for i in (1, 0, 1, 1)], dtype=h5py.ref_dtype)
        group.create_dataset("group", data=refs, dtype=h5py.ref_dtype)
        ragged(group, "target", [2, 2, 3, 4], refs, dtype=h5py.ref_dtype)
        group.create_dataset("colour", data=np.array([1, 7, 3, 1], "i2"), dtype=colour)
        pixel = np.dtype([("x", "u4"), ("y", ">u2"), ("weight", "f4"), ("name", "S3")])
        pixels = np.array([(1, 2, 0.5, b"a"), (3, 4, 1, b"bc"), (5, 6, 2, b""), (7, 8, 3, b"def")], pixel)
        ragged(group, "pixel_mask", [1, 3, 3, 4], pixels)
        stage = group.create_dataset("stage", data=np.array([0, 2, 1, 9], "u1"))
        elements = group.create_dataset("stage_elements", data=["NREM", "REM", "wake"],
                                        dtype=h5py.string_dtype())  # fmt: skip
        stage.attrs["elements"] = elements.ref
        seq = group.create_dataset("seq", (4,), dtype=h5py.vlen_dtype("f4"))
        for i in range(4):
            seq[i] = np.arange(i, dtype="f4")
    got = read(tmp_path / "f.nwb")
    where = "/general/extracellular_ephys/shank"
    assert got.group.tolist() == [f"{where}{i}" for i in (1, 0, 1, 1)]
    assert got.target[0] == [f"{where}1", f"{where}0"]
    assert got.colour.tolist()[:2] == ["red", "green"]
    assert got.colour.isna().tolist() == [False, False, True, False]
    assert got.stage.tolist()[:3] == ["NREM", "wake", "REM"]
    assert got.stage.isna().tolist() == [False, False, False, True]
    assert got.seq[3] == [0, 1, 2]
    assert got.pixel_mask[1] == [
        {"x": 3, "y": 4, "weight": 1.0, "name": "bc"},
        {"x": 5, "y": 6, "weight": 2.0, "name": ""},
    ]


def test_odd_numbers_are_converted_by_hdf5_itself(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 5, ["short", "brain"])
        odd = h5py.h5t.STD_I16LE.copy()
        odd.set_precision(12)
        odd.set_offset(2)
        brain = h5py.h5t.IEEE_F32LE.copy()
        brain.set_fields(15, 7, 8, 0, 7)
        brain.set_size(2)
        brain.set_ebias(127)
        space = h5py.h5s.create_simple((5,))
        for name, kind, values in (
            (b"short", odd, np.array([-2048, -1, 0, 1, 2047], "i2")),
            (b"brain", brain, np.array([0.5, -2, 0, 128, 3.140625], "f4")),
        ):
            made = h5py.h5d.create(group.id, name, kind, space)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
    got = read(tmp_path / "f.nwb")
    assert got.short.tolist() == [-2048, -1, 0, 1, 2047]
    assert got.brain.tolist() == [0.5, -2, 0, 128, 3.140625]
    assert (got.short.dtype, got.brain.dtype) == (np.dtype("i2"), np.dtype("f4"))


def test_what_was_never_written_is_the_fill_value(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 30, ["a", "b", "c", "d"])
        group.create_dataset("a", (30,), "f8", fillvalue=-1.5)
        group.create_dataset("b", (30,), "i4", chunks=(10,), fillvalue=7)
        half = group.create_dataset("c", (30, 2), ">i2", chunks=(10, 1), fillvalue=3)
        half[12:15, 1] = 9
        group.create_dataset("d", (30,), h5py.string_dtype())
    assert_reads(tmp_path / "f.nwb")


def test_compact_scalar_and_user_block_are_found(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb", userblock_size=1024) as file:
        group = table(file, "/units", 6, ["x", "s", "g"])
        for name, values in (("x", np.arange(6.0)), ("k", np.arange(6))):
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_layout(h5py.h5d.COMPACT)
            kind = h5py.h5t.py_create(values.dtype)
            space = h5py.h5s.create_simple((6,))
            made = h5py.h5d.create(group.id, name.encode(), kind, space, plist)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        group.create_dataset("s", data=list("abcdef"), dtype=h5py.string_dtype(), chunks=(4,))
        group.create_dataset("g", data=np.arange(6), chunks=(1,), compression="gzip")
    got = assert_reads(tmp_path / "f.nwb")
    assert got.s.tolist() == list("abcdef")


def test_malformed_tables_are_put_right_as_documented(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        names = ["back", "past", "short", "long", "local_index", "shorttext"]
        group = table(file, "/units", 5, names)
        ragged(group, "back", np.array([3, 1, 4, 2, 6], "i8"), np.arange(6.0))
        ragged(group, "past", np.array([1, 2, 2**63 + 5, 2**64 - 1, 7], "u8"), np.arange(4))
        group.create_dataset("short", data=np.arange(3))
        group.create_dataset("long", data=np.arange(9))
        group.create_dataset("local_index", data=np.arange(5))
        group.create_dataset("shorttext", data=["a"], dtype=h5py.string_dtype())
    got = assert_reads(tmp_path / "f.nwb")
    assert got.back.tolist() == [[0, 1, 2], [], [1, 2, 3], [], [2, 3, 4, 5]]
    assert got.past.tolist() == [[0], [1], [2, 3], [], []]
    assert str(got.short.dtype) == "int64[pyarrow]"
    assert got.short.isna().tolist() == [False, False, False, True, True]
    assert got.long.tolist() == [0, 1, 2, 3, 4]
    assert got.local_index.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", ["i1", ">i2", "<i4", "<i8", ">i8", "f4", ">f8"])
def test_index_values_below_zero_and_beyond_the_data_are_clipped(tmp_path: Path, dtype: str) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 6, ["x", "deep"])
        ends = np.array([-3, 2, -1, 5, 100, -128], dtype)
        ragged(group, "x", ends, np.arange(6))
        ragged(group, "deep", ends, np.arange(12).reshape(6, 2))
    frame = lazynwb_dask.read_nwb(tmp_path / "f.nwb", "/units")
    got = frame.compute()
    assert got.x.tolist() == [[], [0, 1], [], [0, 1, 2, 3, 4], [5], []]
    assert got.deep[4] == [[10, 11]]
    for rows in ([3], [0, 4], [2, 3, 5]):  # an end below zero begins the row after it
        oracle.assert_same(frame[frame.id.isin(rows)].compute(), got.iloc[rows])
    catalog = lazynwb_dask.build_catalog(tmp_path / "f.nwb", tmp_path / "catalog")
    oracle.assert_same(lazynwb_dask.read_nwb(catalog, "/units").compute(), got)


@pytest.mark.parametrize("end", [-(2**63), -1, 7, 2**62])
def test_a_doubly_ragged_columns_indexes_are_clipped_on_each_level(tmp_path: Path, end: int) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 3, ["x"])
        ragged(group, "x", np.array([2, end, 4]), np.arange(6))
        outer = group.create_dataset("x_index_index", data=np.array([2, end, 3]))
        outer.attrs["target"] = group["x_index"].ref
    got = lazynwb_dask.read_nwb(tmp_path / "f.nwb", "/units").x.compute().tolist()
    if end < 0:  # rows of 0..2, 2..0, 0..3 inner rows, which are of 0..2, 2..0, 0..4 values
        inner: list[list[int]] = [[0, 1], [], [0, 1, 2, 3]]
        assert got == [inner[:2], [], inner]
    else:
        inner = [[0, 1], [2, 3, 4, 5], []]
        assert got == [inner[:2], inner[2:], []]


def test_an_index_that_repeats_values_without_end_is_refused(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 4001, ["x"])
        ends = np.tile([0, 1000], 2000)
        ragged(group, "x", np.append(ends, 1000), np.zeros(1000))
    with pytest.raises(NWBReadError, match="only 1000 are stored"):
        read(tmp_path / "f.nwb")


def test_what_cannot_be_shown_is_left_out_with_its_reason(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 3, ["ok", "region", "opaque", "outside", "virtual", "gone"])
        group.create_dataset("ok", data=np.arange(3))
        regions = np.array([group["ok"].regionref[0:1]] * 3, dtype=h5py.regionref_dtype)
        group.create_dataset("region", data=regions, dtype=h5py.regionref_dtype)
        group.create_dataset("opaque", data=np.zeros(3, "V5"))
        (tmp_path / "raw").write_bytes(b"secret data that nobody asked for")
        group.create_dataset("outside", (3,), "u1", external=[(str(tmp_path / "raw"), 0, 3)])
        layout = h5py.VirtualLayout((3,), "i8")
        layout[:] = h5py.VirtualSource("other.nwb", "x", (3,))
        group.create_virtual_dataset("virtual", layout)
        group["gone"] = h5py.ExternalLink("other.nwb", "/units/x")
    plan = planned(tmp_path / "f.nwb")
    assert [c for c in plan.fields if not c.startswith("_")] == ["id", "ok"]
    (source,) = expand(str(tmp_path / "f.nwb"), FileAccess(OPTIONS))
    found = queries.index_file(source, TableRequest("/units"), FileAccess(OPTIONS, SETTINGS)).table
    assert found is not None
    reasons = {name: c.problem for name, c in found.columns.items() if c.problem}
    assert set(reasons) == {"region", "opaque", "outside", "virtual", "gone"}
    assert "region references" in reasons["region"]
    assert "external storage" in reasons["outside"]
    assert "not followed" in reasons["gone"]


def test_soft_links_are_followed_within_the_file(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        file.create_dataset("/analysis/x", data=np.arange(4.0))
        group = table(file, "/units", 4, ["x", "y", "loop"])
        group["x"] = h5py.SoftLink("/analysis/x")
        group["y"] = h5py.SoftLink("x")
        group["loop"] = h5py.SoftLink("/units/loop")
    got = read(tmp_path / "f.nwb")
    assert got.x.tolist() == got.y.tolist() == [0, 1, 2, 3]
    assert "loop" not in got


def test_a_wrong_checksum_and_a_damaged_chunk_are_errors_that_name_the_column(tmp_path: Path) -> None:
    for how, message in (({"fletcher32": True}, "checksum"), ({"compression": "gzip"}, "damaged")):
        path = tmp_path / "f.nwb"
        with nwb(path) as file:
            group = table(file, "/units", 100, ["x"])
            made = group.create_dataset("x", data=np.arange(100.0), chunks=(100,), **how)
            offset = made.id.get_chunk_info(0).byte_offset
        data = bytearray(path.read_bytes())
        data[offset + 40] ^= 0xFF
        path.write_bytes(bytes(data))
        with pytest.raises(NWBReadError, match=f"f.nwb: /units: column 'x'.*{message}"):
            read(path)


def test_a_filter_that_is_not_installed_is_named(tmp_path: Path) -> None:
    made = io.BytesIO()
    with nwb(made) as file:  # type: ignore[arg-type]
        group = table(file, "/units", 4, ["x"])
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((4,))
        plist.set_filter(32023, h5py.h5z.FLAG_OPTIONAL)
        space, kind = h5py.h5s.create_simple((4,)), h5py.h5t.IEEE_F64LE
        dataset = h5py.h5d.create(group.id, b"x", kind, space, plist)
        dataset.write_direct_chunk((0,), b"compressed by something else")
    (tmp_path / "f.nwb").write_bytes(made.getvalue())
    with pytest.raises(UnsupportedColumnError, match=r"32023.*hdf5plugin"):
        read(tmp_path / "f.nwb")


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_rows_of_any_ragged_column_are_the_same_rows(tmp_path: Path, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    total = data.draw(st.integers(0, 40))
    ends = data.draw(st.lists(st.integers(0, total + 2), min_size=n, max_size=n))
    assume(total != 1 or 2 not in ends)  # values of the shape (1, 2) would be a row vector
    if data.draw(st.booleans()):
        ends = sorted(ends)
    chunk = data.draw(st.sampled_from([None, 1, 4, 50]))
    storage = {} if chunk is None or not total else {"chunks": (min(chunk, total), 2)}
    if storage and data.draw(st.booleans()):
        storage["compression"] = "gzip"  # type: ignore[assignment]
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        group = table(file, "/units", n, ["x"])
        ragged(group, "x", np.array(ends), np.arange(2.0 * total).reshape(total, 2), **storage)
    plan = planned(path)
    whole = execute(plan, Selection(("id", "x")), SETTINGS)
    oracle.assert_same(whole, oracle.frame(path, "/units")[["id", "x"]])
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1)))), np.int64)
    some = execute(plan, Selection(("id", "x"), Rows(rows)), SETTINGS)  # type: ignore[arg-type]
    oracle.assert_same(some, whole.iloc[rows])


def linked(folder: Path) -> Path:
    """A file some of whose columns are in other files."""
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = np.arange(5.0)
        file["s"] = np.array(["a", "", "ccc", "d", "e"], object)
        file["r"] = np.arange(10, 18)
        file["r_index"] = np.array([2, 2, 5, 6, 8], "u1")
    (folder / "raw").write_bytes(np.arange(100, 110, dtype="<i4").tobytes())
    with nwb(folder / "f.nwb") as file:
        group = table(file, "/units", 5, ["x", "s", "r", "raw", "virtual"])
        for name in ("x", "s", "r", "r_index"):
            group[name] = h5py.ExternalLink("other.h5", f"/{name}")
        group.create_dataset("raw", (5,), "<i4", external=[(str(folder / "raw"), 8, 20)])
        layout = h5py.VirtualLayout((5,), "f8")
        layout[1:] = h5py.VirtualSource("other.h5", "x", (5,))[:4]
        group.create_virtual_dataset("virtual", layout, fillvalue=-1)
    return folder / "f.nwb"


def test_other_files_are_read_only_when_that_is_allowed(tmp_path: Path) -> None:
    path = linked(tmp_path)
    with pytest.warns(UserWarning, match="5 columns are left out.*allow_external_links=True"):
        frame = lazynwb_dask.read_nwb(path, "/units")
    assert list(frame.columns[:-3]) == ["id"]
    frame = lazynwb_dask.read_nwb(path, "/units", allow_external_links=True)
    got = frame.compute()
    assert got.x.tolist() == [0, 1, 2, 3, 4]
    assert got.s.tolist() == ["a", "", "ccc", "d", "e"]
    assert got.r.tolist() == [[10, 11], [], [12, 13, 14], [15], [16, 17]]
    assert got.raw.tolist() == [102, 103, 104, 105, 106]
    assert got.virtual.tolist() == [-1, 0, 1, 2, 3]
    some = frame[frame.x.isin([0, 2, 3])].compute()
    oracle.assert_same(some, got.iloc[[0, 2, 3]])


def test_paged_files_dense_groups_and_committed_types_are_read(tmp_path: Path) -> None:
    names = [f"c{i:03d}" for i in range(120)]
    with nwb(tmp_path / "f.nwb", libver="latest", fs_strategy="page", fs_page_size=4096) as file:
        file["kind"] = np.dtype([(f"f{i}", "i2") for i in range(300)])
        group = table(file, "/units", 7, [*names, "wide"])
        for i, name in enumerate(names):
            made = group.create_dataset(name, data=np.arange(7) * i)
            for k in range(12):
                made.attrs[f"note{k}"] = k
        values = np.zeros(7, file["kind"].dtype)
        values["f299"] = np.arange(7)
        group.create_dataset("wide", data=values, dtype=file["kind"])
    got = assert_reads(tmp_path / "f.nwb")
    assert got.c119.tolist() == [i * 119 for i in range(7)]
    assert got.wide[6]["f299"] == 6


@pytest.mark.parametrize("how", ["Bitshuffle", "LZ4", "BZip2", "Blosc2", "Zstd", "Blosc"])
def test_filters_of_the_plugin_are_read_where_it_is_installed(tmp_path: Path, how: str) -> None:
    import hdf5plugin

    values = np.random.default_rng(0).integers(0, 50, 3000).astype("<i4")
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 10, ["x"])
        ragged(
            group, "x", np.arange(300, 3001, 300), values, chunks=(700,),
            compression=getattr(hdf5plugin, how)(),
        )  # fmt: skip
    assert_reads(tmp_path / "f.nwb")


def test_the_nbit_filter_is_undone(tmp_path: Path) -> None:
    values = np.array([-2048, -1, 0, 1, 2047, 5], "<i2")
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 6, ["short", "whole", "single"])
        twelve = h5py.h5t.STD_I16LE.copy()
        twelve.set_precision(12)
        for name, kind, data in (
            (b"short", twelve, values),
            (b"whole", h5py.h5t.STD_I16LE, values),
            (b"single", h5py.h5t.IEEE_F32LE, values.astype("<f4")),
        ):
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((4,))
            plist.set_filter(h5py.h5z.FILTER_NBIT, h5py.h5z.FLAG_OPTIONAL)
            made = h5py.h5d.create(group.id, name, kind, h5py.h5s.create_simple((6,)), plist)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, data)
            assert made.get_create_plist().get_nfilters() == 1
    got = assert_reads(tmp_path / "f.nwb")
    for name in ("short", "whole", "single"):
        assert got[name].tolist() == values.tolist()


@pytest.mark.parametrize(("number", "name"), [(32015, "zstd"), (32001, "blosc")])
def test_zstd_and_blosc_need_no_plugin(tmp_path: Path, number: int, name: str) -> None:
    import numcodecs

    codec = numcodecs.Zstd() if name == "zstd" else numcodecs.Blosc()
    values = np.arange(1000.0)
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 1000, ["x"])
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((600,))
        plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
        space, kind = h5py.h5s.create_simple((1000,)), h5py.h5t.IEEE_F64LE
        made = h5py.h5d.create(group.id, b"x", kind, space, plist)
        for start in (0, 600):
            chunk = np.zeros(600)
            part = values[start : start + 600]
            chunk[: len(part)] = part
            made.write_direct_chunk((start,), bytes(codec.encode(chunk)))
    assert read(tmp_path / "f.nwb").x.tolist() == values.tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 24, 255, 300])
def test_shuffled_bytes_of_any_width_and_length_come_back(size: int) -> None:
    generator = np.random.default_rng(size)
    for n in (0, 1, size - 1, size, size + 1, 2 * size, 5 * size + size // 2, 100_003):
        raw = generator.integers(0, 256, n, "u1")
        whole = n // size * size
        shuffled = raw[:whole].reshape(-1, size).T.reshape(-1).tobytes() + raw[whole:].tobytes()
        assert bytes(codecs.unshuffle(memoryview(shuffled), size)) == raw.tobytes()
        for start, stop in ((0, n), (size, n - n % size), (n // 3 // size * size, n // 2), (1, n)):
            if stop < start:
                continue
            part = np.zeros(stop - start, np.uint8)
            if codecs.unshuffle_part(memoryview(shuffled), size, start, part):
                assert part.tobytes() == raw[start:stop].tobytes()
            else:
                assert start % size or (stop - start) % size
