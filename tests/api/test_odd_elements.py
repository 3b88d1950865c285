"""Elements that are more than a number: their filters, their place in a compound, and where chunks lie."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from files import nwb, one, table
from h5py import h5d, h5p, h5s, h5t, h5z

import lazynwb_dask
from lazynwb_dask.decode.filters import chunk_bytes
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5 import extensible_array
from lazynwb_dask.model.index import Filter, Layout

TEXT = h5py.string_dtype()
ROWS = 40


def plain(value: Any) -> Any:
    """What h5py reads, as it is shown."""
    if isinstance(value, np.void):
        return {name: plain(value[name]) for name in value.dtype.names}
    if isinstance(value, np.ndarray):
        return [plain(part) for part in value]
    if isinstance(value, complex | np.complexfloating):
        return {"r": float(value.real), "i": float(value.imag)}
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def read(path: Path) -> pd.DataFrame:
    return lazynwb_dask.read_nwb(path, "/units").compute(scheduler="sync")


def shown(path: Path) -> tuple[list[Any], list[Any]]:
    """The column `x` as we read it, and as h5py does."""
    with h5py.File(path) as file:
        want = [plain(value) for value in file["units/x"][()]]
    return [plain(value) for value in read(path).x.tolist()], want


def filtered(path: Path, kind: h5t.TypeID, values: np.ndarray, steps: Sequence[str]) -> None:
    """A column in chunks of nine, of a datatype, behind filters."""
    import hdf5plugin

    with nwb(path) as file:
        group = table(file, "/units", len(values), ["x"])
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((9,))
        for step in steps:
            if step == "shuffle":
                plist.set_shuffle()
            elif step == "szip":
                plist.set_szip(h5z.SZIP_NN_OPTION_MASK, 8)
            elif step == "deflate":
                plist.set_deflate(4)
            elif step in ("lzf", "n-bit"):
                number = h5z.FILTER_LZF if step == "lzf" else h5z.FILTER_NBIT
                plist.set_filter(number, h5z.FLAG_OPTIONAL)
            else:
                plugin = getattr(hdf5plugin, step)()
                plist.set_filter(plugin.filter_id, h5z.FLAG_OPTIONAL, plugin.filter_options)
        made = h5d.create(group.id, b"x", kind, h5s.create_simple((len(values),)), plist)
        made.write(h5s.ALL, h5s.ALL, values, kind)
        assert made.get_create_plist().get_nfilters() == len(steps)


# --------------------------------------------------------------------------------------------- filters
@pytest.mark.parametrize("kind", ["<c8", ">c16"])
@pytest.mark.parametrize(
    "steps",
    [
        ("lzf",), ("shuffle", "lzf"), ("Bitshuffle",), ("LZ4",), ("Blosc2",), ("shuffle", "LZ4"),
        ("n-bit",), ("n-bit", "deflate"), ("n-bit", "lzf"),
    ],
    ids="+".join,
)  # fmt: skip
def test_complex_columns_are_right_behind_every_filter(
    tmp_path: Path, kind: str, steps: tuple[str, ...]
) -> None:
    values = np.tile(np.arange(5) + 1j * np.arange(5, 0, -1), 8).astype(kind)
    filtered(tmp_path / "f.nwb", h5t.py_create(values.dtype), values, steps)
    got, want = shown(tmp_path / "f.nwb")
    assert got == want == plain(values)


@pytest.mark.skipif(not hasattr(h5t, "COMPLEX_IEEE_F32LE"), reason="libhdf5 older than 2.0")
@pytest.mark.parametrize("step", ["lzf", "Bitshuffle", "n-bit"])
def test_the_complex_numbers_of_hdf5_itself_are_right_behind_every_filter(tmp_path: Path, step: str) -> None:
    values = (np.arange(ROWS) - 1j * np.arange(ROWS)).astype("<c8")
    filtered(tmp_path / "f.nwb", h5t.COMPLEX_IEEE_F32LE, values.view("V8"), [step])
    assert [plain(v) for v in read(tmp_path / "f.nwb").x.tolist()] == plain(values)


@pytest.mark.parametrize("steps", [("n-bit",), ("n-bit", "deflate"), ("lzf",)], ids="+".join)
def test_compounds_with_complex_fields_are_right_behind_every_filter(
    tmp_path: Path, steps: tuple[str, ...]
) -> None:
    kind = np.dtype([("n", "<i2"), ("z", ">c8"), ("b", "?"), ("a", "<i4", (2,))])
    values = np.zeros(ROWS, kind)
    values["n"], values["z"] = np.arange(ROWS) - 20, np.arange(ROWS) * (1 - 2j)
    values["b"][::3], values["a"] = True, np.arange(2 * ROWS).reshape(-1, 2)
    filtered(tmp_path / "f.nwb", h5t.py_create(kind, logical=True), values, steps)
    got, want = shown(tmp_path / "f.nwb")
    assert got == want == plain(values)


@pytest.mark.skipif(not h5z.filter_avail(h5z.FILTER_SZIP), reason="this libhdf5 has no szip")
def test_truth_values_behind_szip_are_read(tmp_path: Path) -> None:
    values = np.arange(ROWS) % 3 == 0
    filtered(tmp_path / "f.nwb", h5t.py_create(values.dtype, logical=True), values, ["szip"])
    got, want = shown(tmp_path / "f.nwb")
    assert got == want == values.tolist()


def test_a_chunk_is_never_decoded_as_fewer_bytes_than_are_declared() -> None:
    layout = Layout(("number", "<f8"), (), (10,), (Filter(32000),))
    stored = b"".join(b"\x1f" + bytes(32) for _ in range(5))  # literals, 32 at a time
    with pytest.raises(NWBReadError, match="decoded as 80 bytes where 160 are declared"):
        chunk_bytes(memoryview(stored), layout, 0, 160)


def test_a_shuffle_of_another_width_than_the_elements_is_no_silent_garbage() -> None:
    stored = b"".join(b"\x1f" + bytes(range(32)) for _ in range(5))
    layout = Layout(("number", "<f8"), (), (20,), (Filter(2, (4,)), Filter(32000)))
    with pytest.raises(NWBReadError, match="shuffle don't fit"):
        chunk_bytes(memoryview(stored), layout, 0, 160)


# ------------------------------------------------------------------------------------------- compounds
_INNER = np.dtype([("t", TEXT), ("k", "i2")])
COMPOUNDS: dict[str, list[tuple[Any, ...]]] = {
    "text first": [("t", TEXT), ("n", "i4")],
    "text last": [("n", "i4"), ("t", TEXT)],
    "two texts": [("n", "i4"), ("t", TEXT), ("u", TEXT), ("f", "f8")],
    "array of texts": [("n", "i4"), ("a", TEXT, (2, 3)), ("f", "f8")],
    "texts within": [("n", "i4"), ("c", _INNER), ("u", TEXT), ("f", "f8")],
    "arrays of texts within": [("c", _INNER, (2,)), ("u", TEXT)],
    "sequences": [("n", "i4"), ("v", h5py.vlen_dtype("i4")), ("t", TEXT), ("f", "f8")],
    "fixed text": [("s", "S3"), ("t", TEXT), ("b", "?")],
}


def _filled(kind: np.dtype, row: int) -> Any:
    """Some value of a type, another one for each row."""
    if kind.subdtype is not None:
        base, shape = kind.subdtype
        out = np.empty(shape, base)
        for i, at in enumerate(np.ndindex(shape)):
            out[at] = _filled(base, 10 * row + i)
        return out
    if kind.names:
        return tuple(_filled(kind[name], row + i) for i, name in enumerate(kind.names))
    if h5py.check_string_dtype(kind):
        return f"text é {row}" if kind.kind == "O" else b"ab"[: row % 3]
    if h5py.check_vlen_dtype(kind):
        return np.arange(row % 4, dtype="i4")
    return row


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("chunks", [None, (3,)])
@pytest.mark.parametrize("what", COMPOUNDS)
def test_compounds_with_texts_are_structs_of_all_their_fields(
    tmp_path: Path, what: str, chunks: tuple[int] | None, libver: str
) -> None:
    kind = np.dtype(COMPOUNDS[what])
    with nwb(tmp_path / "f.nwb", libver=libver) as file:
        group = table(file, "/units", 7, ["x"])
        made = group.create_dataset("x", (7,), kind, chunks=chunks, shuffle=chunks is not None)
        made[:5] = np.array([_filled(kind, i) for i in range(5)], kind)
    got, want = shown(tmp_path / "f.nwb")
    assert got == want
    assert got[4] != got[5]


def test_fields_out_of_order_and_room_between_them_are_heeded(tmp_path: Path) -> None:
    kind = np.dtype(
        {"names": ["f", "t", "n", "u"], "formats": ["f8", TEXT, "i2", TEXT],
         "offsets": [40, 8, 3, 24], "itemsize": 56}
    )  # fmt: skip
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 4, ["x"])
        made = h5d.create(group.id, b"x", h5t.py_create(kind, logical=True), h5s.create_simple((4,)))
        h5py.Dataset(made)[...] = np.array([(i / 2, f"t{i}", i, f"u{i}") for i in range(4)], kind)
    got, want = shown(tmp_path / "f.nwb")
    assert got == want
    assert got[3] == {"f": 1.5, "t": "t3", "n": 3, "u": "u3"}


def test_texts_and_references_in_a_compound_behind_filters(tmp_path: Path) -> None:
    kind = np.dtype([("t", TEXT), ("r", h5py.ref_dtype), ("n", "<i2")])
    for step in ("lzf", "gzip", "Bitshuffle"):
        with nwb(tmp_path / "f.nwb") as file:
            import hdf5plugin

            group = table(file, "/units", 20, ["x"])
            how = hdf5plugin.Bitshuffle() if step == "Bitshuffle" else step
            made = group.create_dataset("x", (20,), kind, chunks=(9,), compression=how)
            made[...] = np.array([(f"t{i}", group["id"].ref, i) for i in range(20)], kind)
        got = read(tmp_path / "f.nwb").x.tolist()
        assert got == [{"t": f"t{i}", "r": "/units/id", "n": i} for i in range(20)]


# ---------------------------------------------------------------------------------------------- chunks
@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize(
    ("shape", "chunks", "limits"),
    [
        ((4, 10), (4, 1), (8, None)),
        ((4, 10), (1, 1), (8, None)),
        ((5, 7), (2, 3), (5, None)),
        ((3, 4, 5), (2, 1, 2), (7, None, 9)),
        ((3, 4, 5), (1, 3, 2), (4, 9, None)),
        ((3, 4, 5), (2, 2, 2), (None, 9, 9)),
        ((3, 4, 5), (2, 2, 2), (None, 9, None)),
        ((3, 2, 4, 3), (1, 1, 3, 1), (5, 3, None, 4)),
    ],
)
def test_a_dataset_may_grow_in_any_dimension(
    tmp_path: Path,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    limits: tuple[int | None, ...],
    compression: str | None,
    libver: str,
) -> None:
    bounds = (libver, "latest") if libver != "latest" else libver
    with nwb(tmp_path / "f.nwb", libver=bounds) as file:
        group = table(file, "/units", shape[0], ["x"])
        made = group.create_dataset(
            "x", shape, "f8", chunks=chunks, maxshape=limits, compression=compression, fillvalue=-1
        )
        values = np.arange(1.0, 1 + made.size).reshape(shape)
        made[:, : shape[1] // 2 + 1] = values[:, : shape[1] // 2 + 1]
        made[1:] = values[1:]
    got, want = shown(tmp_path / "f.nwb")
    assert got == want
    assert got[1:] == values[1:].tolist()


def test_chunks_that_are_listed_as_they_are_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a libhdf5 lists them that doesn't have the fault."""
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        made = file.create_dataset("x", (4, 6), "f8", chunks=(2, 1), maxshape=(8, None)).id
        start = np.array([[0, 0], [2, 0], [0, 1], [2, 5]], np.uint64)
        monkeypatch.setattr(extensible_array, "lists_wrongly", lambda: False)
        assert extensible_array.corrected(made, start, (2, 1)).tolist() == start.tolist()


# ----------------------------------------------------------------------------------------- fill values
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ([("a", ">i4"), ("b", "f8"), ("c", "c8"), ("s", "S3")], (7, 1.5, 2 - 1j, b"ab")),
        ([("c", [("a", "i2"), ("b", "?")]), ("v", "i1", (2,))], ((300, True), (5, 6))),
        (">c16", 1 + 2j),
        ("?", True),
        ("S5", b"abc"),
        (">u2", 65000),
        (h5py.enum_dtype({"low": -1, "none": 0}, "<i2"), -1),
    ],
)
@pytest.mark.parametrize("compression", [None, "lzf"])
def test_what_was_never_written_has_the_fill_value(
    tmp_path: Path, kind: Any, value: Any, compression: str | None
) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 20, ["x"])
        fill = np.array(value, kind)[()]
        made = group.create_dataset("x", (20,), kind, chunks=(6,), fillvalue=fill, compression=compression)
        made[:7] = np.zeros(7, kind)
    got, want = shown(tmp_path / "f.nwb")
    if h5py.check_enum_dtype(np.dtype(kind)):
        want = [{0: "none", -1: "low"}[code] for code in want]
    assert got == want
    assert got[0] != got[19]


@pytest.mark.parametrize("padding", [h5py.h5t.STR_NULLTERM, h5py.h5t.STR_NULLPAD, h5py.h5t.STR_SPACEPAD])
def test_fixed_text_that_is_null_in_part_is_as_h5py_reads_it(tmp_path: Path, padding: int) -> None:
    values = [b"", b"a \0\0", b" b  ", b"c\0d\0", b"e\0  ", b"\0   ", b"full"]
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(4)
    kind.set_strpad(padding)
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", len(values), ["x"])
        made = h5py.h5d.create(group.id, b"x", kind, h5py.h5s.create_simple((len(values),)))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(values, "S4"), mtype=kind)
        want = [value.decode() for value in group["x"][()].tolist()]
    assert lazynwb_dask.read_nwb(tmp_path / "f.nwb", "/units").x.compute().tolist() == want


def test_an_empty_text_that_lies_outside_the_file_is_an_error_as_in_h5py(tmp_path: Path) -> None:
    path = one(tmp_path / "a.nwb", ["a", "b"], dtype=h5py.string_dtype())
    with h5py.File(path) as file:
        place = file["/units/x"].id.get_offset()
    with open(path, "r+b") as raw:
        raw.seek(place)
        raw.write(struct.pack("<IQI", 0, 1 << 50, 0) * 2)
    with h5py.File(path) as file, pytest.raises(OSError, match="heap"):
        file["/units/x"][()]
    with pytest.raises(NWBReadError, match="outside the file"):
        lazynwb_dask.read_nwb(path, "/units").compute()


@pytest.mark.parametrize("compression", [(), ("deflate",), ("n-bit",)])
def test_numbers_of_odd_precision_have_their_fill_value(tmp_path: Path, compression: tuple[str, ...]) -> None:
    twelve = h5t.STD_I16BE.copy()
    twelve.set_precision(12)
    twelve.set_offset(2)
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 20, ["x"])
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((6,))
        plist.set_fill_value(np.array(-1000, "i8"))
        for step in compression:
            number = h5z.FILTER_NBIT if step == "n-bit" else h5z.FILTER_DEFLATE
            plist.set_filter(number, h5z.FLAG_OPTIONAL, () if step == "n-bit" else (4,))
        space = h5s.create_simple((20,))
        made = h5d.create(group.id, b"x", twelve, space, plist)
        some = h5s.create_simple((20,))
        some.select_hyperslab((0,), (7,))
        made.write(h5s.create_simple((7,)), some, np.arange(7))
    got, want = shown(tmp_path / "f.nwb")
    assert got == want == [*range(7), *[-1000] * 13]


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("how", [{}, {"chunks": (6,)}, {"chunks": (6,), "compression": "gzip"}])
@pytest.mark.parametrize("written", [0, 7])
@pytest.mark.parametrize("kind", [TEXT, h5py.string_dtype("ascii", 9)])
def test_texts_that_were_never_written_are_the_fill_value(
    tmp_path: Path, kind: Any, written: int, how: dict[str, Any], libver: str
) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path, libver=libver) as file:
        group = table(file, "/units", 20, ["x", "ragged"])
        made = group.create_dataset("x", (20,), kind, fillvalue=b"unknown", **how)
        if written:
            made[:written] = ["", *"bcdefg"]
        group.create_dataset("ragged", (25,), kind, fillvalue=b"unknown", **how)
        index = group.create_dataset("ragged_index", data=np.arange(1, 21))
        index.attrs["target"] = group["ragged"].ref
    want = ["", *"bcdefg"][:written] + ["unknown"] * (20 - written)
    frame = lazynwb_dask.read_nwb(path, "/units")
    got = frame.compute()
    assert got.x.tolist() == want
    assert [list(v) for v in got.ragged] == [["unknown"]] * 20
    assert len(frame[frame.x == "unknown"].compute()) == 20 - written


def test_a_text_of_variable_length_ends_before_a_nul_as_in_h5py(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    one(path, ["abXcd", "whole", "Xe"], dtype=h5py.string_dtype())
    path.write_bytes(path.read_bytes().replace(b"abXcd", b"ab\0cd").replace(b"Xe", b"\0e"))
    with h5py.File(path) as file:
        wanted = file["units/x"].asstr()[:].tolist()
    assert wanted == ["ab", "whole", ""]
    assert lazynwb_dask.read_nwb(path, "/units").x.compute().tolist() == wanted
