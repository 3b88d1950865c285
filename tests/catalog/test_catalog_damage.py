"""Catalogs that were damaged, and builds that were interrupted: nothing wrong is read, little is lost."""

from __future__ import annotations

import collections
import io
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dask
import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from files import nwb, table
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.catalog import build
from lazynwb_dask.catalog.values import written
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.storage import Settings, parquet, record
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options
from lazynwb_dask.util import lru

KINDS = ("files", "tables", "columns", "variants", "sessions", "values")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sessions")
    rng = np.random.default_rng(0)
    for i in range(2):
        with nwb(folder / f"{i}.nwb") as file:
            group = table(file, "/units", 300, ["snr", "count"])
            group.create_dataset("snr", data=rng.random(300))
            group.create_dataset("count", data=rng.integers(0, 1000, 300))
    return folder


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """As in a process that has read none of it yet. One task after the other: after a failure, others would
    go on, read what a test writes next, and keep it for the next read."""
    with dask.config.set(scheduler="sync"):
        yield
    lru.clear()


def part_of(catalog: Path, kind: str) -> Path:
    (found,) = catalog.glob("values/*" if kind == "values" else f"index/{kind}-*")
    return found


def read_all(catalog: Path) -> object:
    lru.clear()
    opened = lazynwb_dask.open_catalog(catalog)
    assert len(opened.sessions) == len(opened)
    return lazynwb_dask.read_nwb(opened, "/units").compute()


def flipped(good: bytes, at: int) -> bytes:
    return good[:at] + bytes([good[at] ^ 8]) + good[at + 1 :]


def footer_of(data: bytes) -> int:
    """Where the checksum and the footer begin."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little") - parquet.CHECKSUM


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_an_error_that_names_the_file_and_the_way_out(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    where = tmp_path / "catalog"
    lazynwb_dask.build_catalog(folder, where)
    damaged = part_of(where, kind)
    good = damaged.read_bytes()
    meta = pq.read_metadata(damaged)
    column = meta.row_group(0).column(meta.num_columns - 1)
    last = (column.dictionary_page_offset or column.data_page_offset) + (column.total_compressed_size - 3)
    wanted = read_all(where)
    # a value, the footer, its checksum, the end; half of it, and none of it
    flips = [flipped(good, at) for at in (last, footer_of(good) + 40, footer_of(good) + 3, -2)]
    for how in (*flips, good[: len(good) // 2], b"", None):
        damaged.unlink()
        if how is not None:
            damaged.write_bytes(how)
        if kind in ("tables", "columns") and how is flips[0]:
            continue  # reading that table has no need of its last column
        with pytest.raises(NWBReadError, match=r"refresh\(anew=True\)") as caught:
            read_all(where)
        assert damaged.name in str(caught.value)
        damaged.write_bytes(good)
    damaged.write_bytes(flips[1])
    lazynwb_dask.open_catalog(where).refresh(anew=True)
    oracle.assert_same(read_all(where), wanted)


def test_no_flipped_bit_is_taken_for_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held = pa.table(
        {
            "number": rng.random(2000),
            "text": [f"u{i % 40}" for i in range(2000)],
            "odd": pa.array([None if i % 7 == 0 else i for i in range(2000)]),
        }
    )
    good = written(held, 1000)

    def read(data: bytes, name: str) -> pa.Table:
        (tmp_path / name).write_bytes(data)
        file = parquet.ParquetFile(str(tmp_path / name), len(data))
        return parquet.table(file, held.column_names, [0, 1], FileAccess(Options(), Settings()))

    assert read(good, "good").equals(held)
    # the headers of pages and the whole footer, which Parquet has no checksums for; some of the values
    meta = pq.read_metadata(io.BytesIO(good))
    heads = [
        (chunk.dictionary_page_offset or chunk.data_page_offset) + i
        for group in range(2)
        for chunk in (meta.row_group(group).column(c) for c in range(3))
        for i in range(20)
    ]
    footer = range(footer_of(good), len(good), 5)
    harmless = 0
    for at in (*heads, *footer, *rng.integers(4, footer_of(good), 60).tolist()):
        with suppress(NWBReadError):
            assert read(flipped(good, at), f"{at}").equals(held)  # nobody looks at that bit
            harmless += 1
    assert harmless < len(heads) / 5


def changed(good: bytes) -> Iterator[bytes]:
    """Each digit and letter of a text replaced by the next, one at a time; and bits of it flipped."""
    for at, byte in enumerate(good):
        for new in ({byte + 1} if chr(byte).isalnum() else set()) | {byte ^ 1, byte ^ 16}:
            yield good[:at] + bytes([new]) + good[at + 1 :]


def test_no_changed_byte_of_the_manifest_is_taken_for_what_was_written(folder: Path, tmp_path: Path) -> None:
    made = lazynwb_dask.build_catalog(folder, tmp_path / "catalog")
    path = tmp_path / "catalog" / "_manifest.json"
    good = path.read_bytes()
    for data in changed(good):
        path.write_bytes(data)
        try:
            means = json.loads(data)
        except ValueError:
            means = None
        if means == json.loads(good):  # white space
            assert lazynwb_dask.open_catalog(tmp_path / "catalog").manifest == made.manifest
            continue
        with pytest.raises(NWBReadError, match="build it again with build_catalog"):
            lazynwb_dask.open_catalog(tmp_path / "catalog")


def test_other_readers_of_parquet_read_a_catalog(folder: Path, tmp_path: Path) -> None:
    made = lazynwb_dask.build_catalog(folder, tmp_path / "catalog")
    for kind in KINDS:
        path = part_of(tmp_path / "catalog", kind)
        read = pq.read_table(path, page_checksum_verification=True)
        assert read.num_rows == pq.read_metadata(path).num_rows > 0
    assert set(pq.read_table(part_of(tmp_path / "catalog", "files"))["url"].to_pylist()) == set(made.paths)


def test_damage_in_a_store_is_told_in_the_same_way(folder: Path, tmp_path: Path, s3_server: S3Server) -> None:
    lazynwb_dask.build_catalog(folder, tmp_path / "catalog")
    options = {"storage_options": s3_server.storage_options}
    for how in ("truncated", "gone"):
        for path in (tmp_path / "catalog").rglob("*"):
            data = path.read_bytes() if path.is_file() else None
            if data is not None and path.parent.name == "values":
                data = data[: len(data) // 2] if how == "truncated" else None
            if data is not None:
                s3_server.put("lab", f"{how}/{path.relative_to(tmp_path / 'catalog')}", data)
        catalog = lazynwb_dask.open_catalog(f"s3://lab/{how}", **options)
        units = lazynwb_dask.read_nwb(catalog, "/units")
        lru.clear()
        with pytest.raises(NWBReadError, match=r"values/.*\.parquet.*refresh\(anew=True\)"):
            units.compute()


@pytest.mark.usefixtures("interruptible")
def test_what_is_indexed_is_kept_whenever_a_build_is_interrupted(
    range_server: RangeServer, tmp_path: Path
) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        table(file, "/units", 5, []).create_dataset("x", data=np.arange(5.0))
    data = (tmp_path / "a.nwb").read_bytes()
    lazynwb_dask.build_catalog(range_server.put("alone.nwb", data), tmp_path / "alone")
    each = range_server.count  # requests that a file takes
    good, many, where = 20, 200, tmp_path / "catalog"
    names = [f"{i:03d}.nwb" for i in range(many)]
    urls = [range_server.put(name, data) for name in names]
    seen: collections.Counter[str] = collections.Counter()
    ended, over, kept = threading.Event(), threading.Event(), list[int]()

    def before(name: str, _: int) -> None:
        seen[name] += 1
        if seen[name] > 1 and name in names[good:]:
            ended.wait(30)  # it takes long

    def interrupt() -> None:
        while not over.is_set() and (
            any(seen[name] < each for name in names[:good]) or not list(where.glob("batches/*"))
        ):
            time.sleep(0.05)
        if over.is_set():
            return  # it failed in another way
        time.sleep(0.5)
        kept.append(len(list(where.glob("batches/*"))))
        signal.pthread_kill(main, signal.SIGINT)
        kept.append(sum(seen.values()))

    main = threading.main_thread().ident
    assert main is not None
    range_server.behaviour.before = before
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            lazynwb_dask.build_catalog(urls, where)
        assert not ended.is_set()
        asked = sum(seen.values())
    finally:
        over.set()
        ended.set()
        thread.join()
    assert kept[0] == 1  # if the process had been killed, there would be the first sixteen
    assert asked - kept[1] < 10
    range_server.behaviour.before = None
    with record() as counted:
        made = lazynwb_dask.build_catalog(urls, where)
    assert made.paths == urls
    read_again = {name[-7:] for name, tally in counted.files.items() if tally.requests > 1}
    assert read_again & set(names) == set(names[good:])


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_catalog_is_built_again_whatever_is_damaged(folder: Path, tmp_path: Path, kind: str) -> None:
    paths = [tmp_path / path.name for path in sorted(folder.iterdir())]
    for path in paths:
        path.write_bytes((folder / path.name).read_bytes())
    expected = lazynwb_dask.read_nwb(paths, "/units").compute()
    for way in ("build", "anew", "anew, with a file gone"):
        place = tmp_path / f"catalog {way}"
        lazynwb_dask.build_catalog(paths, place)
        damaged = part_of(place, kind)
        damaged.write_bytes(flipped(damaged.read_bytes(), len(damaged.read_bytes()) // 2))
        lru.clear()
        if way == "build":
            found = lazynwb_dask.build_catalog(paths, place)
        else:
            if way != "anew":
                paths[0].unlink()
                expected = lazynwb_dask.read_nwb(paths[1:], "/units").compute()
            found = lazynwb_dask.open_catalog(place).refresh(anew=True)
        if kind in ("sessions", "values") and way == "build":
            continue  # not looked at, as nothing is new: `refresh` says so
        oracle.assert_same(lazynwb_dask.read_nwb(found, "/units").compute(), expected)


@pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "values gone", "other tables"])
def test_what_an_interrupted_build_has_left_counts_only_if_it_is_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    where = tmp_path / "catalog"

    def interrupted(*args: object) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "assembled", interrupted)
        with pytest.raises(KeyboardInterrupt):
            lazynwb_dask.build_catalog(folder, where)
    (left,) = (where / "batches").iterdir()
    data = left.read_bytes()
    if how == "flipped":
        left.write_bytes(flipped(data, len(data) // 2))
    elif how in ("truncated", "empty"):
        left.write_bytes(data[: len(data) // 2] if how == "truncated" else b"")
    elif how == "values gone":
        part_of(where, "values").unlink()
    tables = ["/units"] if how == "other tables" else None
    with record() as counted:
        made = lazynwb_dask.build_catalog(folder, where, tables=tables)
    assert {Path(name).name for name in counted.files} >= {"0.nwb", "1.nwb"}
    oracle.assert_same(read_all(where), lazynwb_dask.read_nwb(folder, "/units").compute())
    there = {str(p.relative_to(where)) for p in where.rglob("*") if p.is_file()}
    assert there == made.manifest.names | {"_manifest.json"}
