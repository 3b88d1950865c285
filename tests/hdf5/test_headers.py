"""What is read of object headers without libhdf5 is what libhdf5 says."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import h5py
import numpy as np
import oracle
import pytest
from files import nwb, ragged, table
from judge import _corpus
from mutants import good_files

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5 import dataset
from lazynwb_dask.hdf5.dataset_header import DatasetHeader, parse_header
from lazynwb_dask.hdf5.object_header import DataLayout
from lazynwb_dask.hdf5.sparse_file import SparseFile, attempt
from lazynwb_dask.metadata.hdf5_file import HDF5File
from lazynwb_dask.model.source import Source
from lazynwb_dask.model.table_json import pack_table
from lazynwb_dask.nwb import columns
from lazynwb_dask.nwb.jobs import IndexTable, ListTables
from lazynwb_dask.storage.access import FileAccess


def held(data: bytes) -> SparseFile:
    made = SparseFile(len(data))
    made.put(0, data)
    return made


def indexed(file: SparseFile, path: str) -> tuple[dict, list[bytes]]:
    found = attempt(file, "it", IndexTable((path,)))
    assert found is not None
    parts: list[bytes] = []
    return pack_table(found, parts), parts


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return good_files(tmp_path_factory.mktemp("good"), _corpus(oracle))


def test_tables_are_indexed_the_same_with_and_without(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = count = 0
    for name, data in files.items():
        file = held(data)
        for path in attempt(file, name, ListTables()) or []:
            with monkeypatch.context() as patch:
                patch.setattr(columns, "parse_header", lambda *_: None)
                slow = indexed(held(data), path)
            dataset._infos.clear()
            file = held(data)
            cold = indexed(file, path)
            known = len(dataset._infos)
            warm = indexed(held(data), path)
            assert indexed(file, path) == slow, "a second pass over the same file"
            assert cold == slow, (name, path)
            assert warm == slow, (name, path)
            plain += known
            count += 1
    assert count > 5
    assert plain > 5 * count / 2, "most datasets have plain headers"


def test_of_known_headers_no_dataset_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        with nwb(tmp_path / f"{number}.nwb") as file:
            group = table(file, "/units", 5, ["x", "name", "spike_times"])
            group.create_dataset("x", data=np.arange(5.0) + number, chunks=(3,), compression="gzip")
            group.create_dataset("name", data=list("abcde"), dtype=h5py.string_dtype())
            ragged(group, "spike_times", np.arange(1, 6) * 2, np.arange(10.0) * number)
    opened = []
    original = dataset.Dataset.id.fget
    assert original is not None
    monkeypatch.setattr(
        dataset.Dataset, "id", property(lambda self: opened.append(self.name) or original(self))
    )
    indexed(held((tmp_path / "0.nwb").read_bytes()), "/units")
    assert opened
    opened.clear()
    indexed(held((tmp_path / "1.nwb").read_bytes()), "/units")
    assert not opened


def test_a_damaged_header_is_left_to_libhdf5(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 5, ["x"])
        group.create_dataset("x", data=np.arange(5.0))
        address = h5py.h5o.get_info(group["x"].id).addr
    data = (tmp_path / "f.nwb").read_bytes()
    good = parse_header(held(data), address, 0)
    assert good is not None
    size = struct.unpack_from("<I", data, address + 8)[0]
    chance = random.Random(0)
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            damaged[address + chance.randrange(16 + size)] = chance.randrange(256)
        found = parse_header(held(bytes(damaged)), address, 0)  # and no error
        if found is not None:
            assert isinstance(found.layout, DataLayout)
    counted = bytearray(data)
    counted[address + 2] += 1
    assert parse_header(held(bytes(counted)), address, 0) is None, "a message is missing"
    long = bytearray(data)
    struct.pack_into("<I", long, address + 8, 2**31)
    assert parse_header(held(bytes(long)), address, 0) is None


def test_what_is_remembered_of_headers_is_bounded() -> None:
    dataset._infos.clear()
    info = dataset.DatasetInfo((1,), 0, ("number", "<f8"), None, (), b"", 0)
    for number in range(dataset.MAX_INFOS + 10):
        header = DatasetHeader((str(number).encode(),), DataLayout("contiguous"), {})
        dataset._remember(header, info)
    assert len(dataset._infos) <= dataset.MAX_INFOS
    dataset._infos.clear()


def test_a_file_stays_open_while_other_bytes_than_those_for_libhdf5_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        group = table(file, "/units", 5, ["x", "far"])
        group.create_dataset("x", data=np.arange(5.0))
        file["a"] = np.zeros(200_000)
        for number in range(20):  # no room near the other headers
            file.create_group(f"groups/{number}")
        group.create_dataset("far", data=np.arange(5.0))
        file["b"] = np.zeros(200_000)
    job, source = IndexTable(("/units",)), Source(str(path))
    HDF5File(source, FileAccess()).run(job)  # now its headers are known
    passes: list[bool] = []
    original = SparseFile.leave
    monkeypatch.setattr(SparseFile, "leave", lambda self: passes.append(self.file is None) or original(self))
    known = HDF5File(source, FileAccess()).run(job)
    assert known is not None
    assert known.columns["far"].arrays[0].rows == 5
    assert passes == [False, True], "closed once, when nothing was missing"
    reread = HDF5File(source, FileAccess())
    os.truncate(path, 600_000)
    with pytest.raises(NWBReadError):
        reread.run(job)
    assert not h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE), "nothing stays open"
