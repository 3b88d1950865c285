"""A store in a zip file is the store, wherever the file is: its objects are byte ranges of the file."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import oracle
import pytest
from servers import RangeServer, S3Server
from stores import Keys, store_of, write, write_zip

import lazynwb_dask
from lazynwb_dask.errors import NWBError, NWBFileChangedError, NWBFileNotFoundError, NWBReadError
from lazynwb_dask.util import lru

KINDS: dict[str, dict[str, Any]] = {
    "v2": {"rows": 7},
    "v2 plain": {"consolidated": False},
    "v3": {"version": 3},
    "v3 shards": {"version": 3, "rows": 5, "shard": 3},
    "v3 plain": {"version": 3, "consolidated": False},
}
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def same(got: Any, wanted: Any) -> None:
    oracle.assert_same(got.drop(columns="_nwb_path"), wanted.drop(columns="_nwb_path"))


@pytest.mark.parametrize("kind", KINDS)
def test_zipped_stores_give_the_frames_of_the_file(odd: Path, tmp_path: Path, kind: str) -> None:
    store = store_of(odd, **KINDS[kind])
    wanted = lazynwb_dask.read_nwb(write(store, tmp_path / "store"), "/units").compute(scheduler="sync")
    for how in (STORED, DEFLATED):
        path = write_zip(store, tmp_path / f"a{how}.nwb.zarr.zip", how)
        frame = lazynwb_dask.read_nwb(path, "/units")
        got = frame.compute(scheduler="sync")
        same(got, wanted)
        assert set(got._nwb_path) == {path}
        assert lazynwb_dask.list_tables(path) == lazynwb_dask.list_tables(str(odd))
        few = [3, 40, 41]
        same(frame[frame.id.isin(few)].compute(scheduler="sync"), wanted[wanted.id.isin(few)])
    chained = lazynwb_dask.read_nwb(f"zip://::{path}", "/units").compute(scheduler="sync")
    same(chained, wanted)


def test_zips_by_other_programs(session: Path, tmp_path: Path) -> None:
    """They have the store in a folder, entries for folders, more in headers than the directory says."""
    folder = Path(write(store_of(session), tmp_path / "in" / "lab" / "x.nwb.zarr"))
    wanted = lazynwb_dask.read_nwb(str(folder), "/units").compute(scheduler="sync")
    made = [shutil.make_archive(f"{tmp_path}/archive", "zip", tmp_path / "in")]
    made.append(f"{tmp_path}/headers.zip")
    with zipfile.ZipFile(made[-1], "w") as file:
        for path in sorted(folder.rglob("*")):
            one = zipfile.ZipInfo.from_file(path, path.relative_to(folder.parent))
            one.extra = b"\x55\x54\x05\x00\x03" + bytes(4)  # a time, as Info-ZIP writes it
            file.writestr(one, b"" if path.is_dir() else path.read_bytes())
            one.extra = b""  # not in the directory
    if shutil.which("zip"):
        for options in ("-qr0", "-qr"):
            made.append(f"{tmp_path}/zip{options}.zip")
            assert os.spawnlp(os.P_WAIT, "zip", "zip", options, made[-1], "-r", str(folder.parent)) == 0
    for name in made:
        same(lazynwb_dask.read_nwb(name, "/units").compute(scheduler="sync"), wanted)


@pytest.mark.parametrize("where", ["http", "s3", "memory"])
def test_remote_zips_are_read_by_ranges(
    session: Path, tmp_path: Path, s3_server: S3Server, range_server: RangeServer, where: str
) -> None:
    data = Path(write_zip(store_of(session, rows=5), tmp_path / "a.nwb.zarr.zip")).read_bytes()
    padded = tmp_path / "b.zip"
    with zipfile.ZipFile(padded, "w") as file:  # more than is read of the end
        file.writestr("padding", os.urandom(1 << 20))
        for key, value in store_of(session, rows=5).items():
            file.writestr(f"x.nwb.zarr/{key}", value)
    wanted = lazynwb_dask.read_nwb(str(session), "/units").compute(scheduler="sync")
    for name, content in (("a.nwb.zarr.zip", data), ("b.zip", padded.read_bytes())):
        if where == "http":
            url, log = range_server.put(name, content), range_server
        elif where == "s3":
            url, log = s3_server.put("lab", name, content), s3_server
        else:
            fsspec.filesystem("memory").pipe_file(f"/{name}", content)
            url, log = f"memory://{name}", range_server
        lru.clear()
        log.clear_log()
        options = {"s3": s3_server.storage_options}
        frame = lazynwb_dask.read_nwb(url, "/units", storage_options=options)
        assert len(log.log) <= 4  # its size and version, its end, the document
        log.clear_log()
        same(frame.compute(scheduler="sync"), wanted)
        assert len(log.log) <= 6  # its chunks lie side by side
        assert sum(entry.sent for entry in log.log) < len(data) + 4096


def test_a_zip_file_that_changed_is_an_error(session: Path, tmp_path: Path) -> None:
    store = store_of(session)
    path = write_zip(store, tmp_path / "a.zip")
    frame = lazynwb_dask.read_nwb(path, "/units")
    write_zip({"more": b"1", **store}, path)
    with pytest.raises(NWBFileChangedError, match=r"a\.zip: the file changed between planning and reading"):
        frame.compute(scheduler="sync")


def test_folders_hold_zipped_stores(session: Path, tmp_path: Path) -> None:
    shutil.copy(session, tmp_path / "a.nwb")
    write(store_of(session, version=3), tmp_path / "b.nwb")
    write_zip(store_of(session), tmp_path / "c.nwb.zarr.zip")
    frame = lazynwb_dask.read_nwb(tmp_path, "/units").compute(scheduler="sync")
    assert frame._nwb_path.unique().tolist() == [
        f"{tmp_path}/{n}" for n in ("a.nwb", "b.nwb", "c.nwb.zarr.zip")
    ]
    parts = [part.reset_index(drop=True) for _, part in frame.groupby("_nwb_path")]
    same(parts[1], parts[0])
    same(parts[2], parts[0])


def _twice(store: Keys, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for folder in ("a.zarr", "b.zarr"):
            for key, value in store.items():
                file.writestr(f"{folder}/{key}", value)


def _cut(store: Keys, path: Path) -> None:
    data = Path(write_zip(store, path)).read_bytes()
    path.write_bytes(data[: len(data) - 100])


def _begun(store: Keys, path: Path) -> None:
    data = Path(write_zip(store, path)).read_bytes()
    path.write_bytes(data[2000:])


def _encrypted(store: Keys, path: Path) -> None:
    data = bytearray(Path(write_zip(store, path)).read_bytes())
    at = -1
    while (at := data.find(b"PK\1\2", at + 1)) >= 0:
        data[at + 8] |= 1
    path.write_bytes(data)


def _garbled(store: Keys, path: Path) -> None:
    data = bytearray(Path(write_zip(store, path, DEFLATED)).read_bytes())
    with zipfile.ZipFile(path) as file:
        for info in file.infolist():
            if info.filename.startswith(("units/", ".zmeta")):
                begin = info.header_offset + 30 + len(info.filename)
                data[begin : begin + info.compress_size] = bytes(info.compress_size)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (_twice, r"a zip file with 2 Zarr stores\. Name what is in it as zip://PATH::"),
        (lambda store, path: write_zip({"a.nwb": b"1"}, path), "a zip file with no Zarr store"),
        (lambda store, path: path.write_bytes(b"no zip" * 100), "no zip file that can be read"),
        (lambda store, path: path.write_bytes(b""), "no zip file that can be read"),
        (_cut, "no zip file that can be read"),
        (_begun, "no zip file that can be read: damaged: its beginning is missing"),
        (_encrypted, r"\.zmetadata: it is encrypted"),
        (_garbled, r"\.zmetadata: damaged: it can't be decompressed"),
        (lambda store, path: write_zip({**store, ".zmetadata": b"{}"}, path), "zmetadata without metadata"),
    ],
)
def test_what_is_wrong_with_a_zip_file_is_said(
    session: Path, tmp_path: Path, made: Callable[[Keys, Path], object], why: str
) -> None:
    path = tmp_path / "a.zip"
    made(store_of(session), path)
    with pytest.raises(NWBReadError, match=rf"a\.zip.*({why})"):
        lazynwb_dask.read_nwb(path, "/units").compute(scheduler="sync")
    with pytest.raises(NWBFileNotFoundError, match=r"b\.zip: no such file"):
        lazynwb_dask.list_tables(tmp_path / "b.zip")


def test_damaged_zips_raise_only_this_packages_errors(session: Path, tmp_path: Path) -> None:
    store = {
        key: value for key, value in store_of(session).items() if key.startswith((".z", "units/.z", "units/id"))
    }
    data = Path(write_zip(store, tmp_path / "a.zip")).read_bytes()
    begin = data.index(b"PK\1\2")
    for at in range(begin, len(data), 31):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        (tmp_path / "a.zip").write_bytes(changed)
        with suppress(NWBError):
            lazynwb_dask.list_tables(tmp_path / "a.zip")
