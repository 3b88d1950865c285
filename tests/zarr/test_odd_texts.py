"""Texts that HDF5 can't hold, and texts in shards, in frames and session tables."""

from __future__ import annotations

import json
from pathlib import Path

import dask
import h5py
import numcodecs
import numpy as np
import pytest
from files import nwb, table
from servers import RangeServer
from stores import How, serve, store_of, write

import lazynwb_dask

VLEN = {
    b"a\0b": ("a", "a\0b"), b"a\xff": ("a\ufffd", "a\ufffd"), "é😀".encode(): ("é😀", "é😀"), b"": ("", ""),
}  # fmt: skip
JSON = {b"null": ("", None), b"0": ("", ""), b'"a\\u0000b"': ("a", "a\0b")}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.nwb"
    with nwb(path) as file:
        file["identifier"], file["session_description"] = "texts", "as ever"
        group = table(file, "/units", 120, ["label"])
        group.create_dataset("label", data=[f"unit {i} ö" for i in range(120)], dtype=h5py.string_dtype())
    return path


@pytest.mark.parametrize(("codec", "text"), [("vlen-utf8", t) for t in VLEN] + [("json2", t) for t in JSON])
def test_what_hdf5_does_not_hold(texts: Path, tmp_path: Path, codec: str, text: bytes) -> None:
    keys = store_of(texts, How(2, texts=codec, after=[]))
    if codec == "json2":
        (session, label), one, many = JSON[text], b'[%s, "|O", [1]]' % text, [text] * 119 + [b'"z"']
        all_ = b"[" + b",".join(many) + b', "|O", [120]]'
    else:
        session, label = VLEN[text]
        one, all_ = (numcodecs.VLenBytes().encode(np.array([text] * n, object)) for n in (1, 119))
        all_ = (120).to_bytes(4, "little") + bytes(all_[4:]) + b"\1\0\0\0z"
    keys |= {"session_description/0": bytes(one), "units/label/0": all_}
    store = write(keys, tmp_path / "a.nwb.zarr")
    assert lazynwb_dask.read_sessions(store).compute().session_description.fillna("").tolist() == [session]
    found = lazynwb_dask.read_nwb(store, "/units").label.compute().astype(object)
    assert found.where(found.notna(), None).tolist() == [label] * 119 + ["z"]


def test_few_rows_fetch_only_their_texts(texts: Path, range_server: RangeServer) -> None:
    how = How(3, rows={"units/label": 10}, shard=4, after=[])
    keys = store_of(texts, how)
    frame = lazynwb_dask.read_nwb(serve(keys, range_server, "a.nwb.zarr"), "/units")
    range_server.clear_log()
    with dask.config.set({"lazynwb-dask.gap": 0}):
        found = frame[frame.id.isin([13, 47, 48])].label.compute().tolist()
    assert found == ["unit 13 ö", "unit 47 ö", "unit 48 ö"]
    asked = [entry for entry in range_server.requests() if "units/label/c/" in entry.path]
    index = 4 * 16 + 4
    size = (len(keys["units/label/c/0"]) - index) // 4  # of ten texts
    assert sum(entry.sent for entry in asked) <= 3 * index + 2 * size + 20


def test_objects_that_are_no_texts_are_an_error_that_names_them(texts: Path, tmp_path: Path) -> None:
    keys = store_of(texts, How(2, texts="json2", after=[]))
    held = json.loads(keys["units/label/0"])
    keys["units/label/0"] = json.dumps([["nested"], *held[1:]]).encode()
    store = write(keys, tmp_path / "a.nwb.zarr")
    with pytest.raises(lazynwb_dask.NWBError, match="column 'label': units/label/0: objects that are neither"):
        lazynwb_dask.read_nwb(store, "/units").label.compute()
