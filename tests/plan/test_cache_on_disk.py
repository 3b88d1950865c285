"""What is kept on disk of files: nothing is read twice, nothing outdated or damaged is believed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import dask
import h5py
import oracle
import pytest
from files import nwb, table
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.catalog import tables_schema
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBError
from lazynwb_dask.metadata import queries
from lazynwb_dask.model import index
from lazynwb_dask.model.source import Source
from lazynwb_dask.plan import index_cache as store
from lazynwb_dask.plan import index_cache_entry as entry
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.storage.access import FileAccess


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """The cache, switched on and empty."""
    folder = tmp_path / "cache"
    with dask.config.set({"lazynwb-dask.cache": True, "lazynwb-dask.cache-directory": str(folder)}):
        yield folder


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    return Path(make_sessions(folder, n=1, units=30, mean_spikes=3000)[0])


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    return Path(make_sessions(folder, n=1, units=31, mean_spikes=3000, seed=5)[0])


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def units(path: object, **options: object) -> object:
    return lazynwb_dask.read_nwb(path, "/units", **options)  # type: ignore[arg-type]


def test_a_file_that_is_known_costs_one_small_request(
    session: Path, range_server: RangeServer, cache: Path
) -> None:
    url = range_server.put("a.nwb", session.read_bytes())
    cold = units(url).compute()
    range_server.clear_log()
    frame = units(url)
    assert len(range_server.log) == 1
    assert range_server.sent <= 1
    oracle.assert_same(frame.compute(), cold)


def test_a_signature_in_the_url_is_neither_kept_nor_looked_at(
    session: Path, range_server: RangeServer, cache: Path
) -> None:
    url = range_server.put("a.nwb", session.read_bytes())
    units(f"{url}?X-Amz-Signature=hush-hush")
    range_server.clear_log()
    units(f"{url}?X-Amz-Signature=another")
    assert len(range_server.log) == 1
    for path in entries(cache):
        kept = entry.load(path.read_bytes())
        assert kept is not None
        assert "hush" not in kept.name
        assert b"hush" not in path.read_bytes()


def test_a_replaced_file_is_indexed_again(
    session: Path, other: Path, range_server: RangeServer, cache: Path, tmp_path: Path
) -> None:
    size = max(path.stat().st_size for path in (session, other))
    before, after = (path.read_bytes().ljust(size, b"\0") for path in (session, other))  # as long
    url = range_server.put("a.nwb", before)
    assert len(units(url)) == 30
    range_server.put("a.nwb", after)
    assert len(units(url)) == 31
    local = tmp_path / "a.nwb"
    local.write_bytes(before)
    assert len(units(local)) == 30
    local.write_bytes(after)
    assert len(units(local)) == 31


def test_an_entry_without_descriptions_is_not_taken_for_one_with_them(session: Path, cache: Path) -> None:
    units(session)
    told = lazynwb_dask.schema_report(session, "/units").description
    assert told["spike_times"]
    assert lazynwb_dask.schema_report(session, "/units").description.equals(told)


def test_versions_of_the_package_share_a_folder_and_no_entry(
    session: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units(session)
    for count, name in ((2, "__version__"), (3, "FORMAT")):
        monkeypatch.setattr(store, name, "0")
        units(session)
        assert len(entries(cache)) == count


@pytest.mark.parametrize("etag", ["weak", "none"])
def test_what_has_no_reliable_version_is_not_kept(
    session: Path, range_server: RangeServer, cache: Path, etag: str
) -> None:
    range_server.behaviour.etag = etag
    units(range_server.put("a.nwb", session.read_bytes()))
    assert not entries(cache)


def test_many_objects_of_a_bucket_cost_one_listing(session: Path, s3_server: S3Server, cache: Path) -> None:
    data = session.read_bytes()
    urls = [s3_server.put("lab", f"day/{i}.nwb", data) for i in range(12)]
    options = {"storage_options": s3_server.storage_options}
    cold = units(urls, **options)[["unit_id"]].compute()
    s3_server.clear_log()
    frame = units(urls, **options)
    assert len(s3_server.log) == 1
    assert "list-type=2" in s3_server.log[0].path
    oracle.assert_same(frame[["unit_id"]].compute(), cold)
    s3_server.clear_log()
    units("s3://lab/day/", **options)
    assert len(s3_server.log) == 1  # what finds the files


def test_where_listing_is_refused_each_object_is_asked(
    session: Path, s3_server: S3Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lazynwb_dask.sources import stat as versions

    def refused(*_: object) -> None:
        raise NWBError("no")

    data = session.read_bytes()
    urls = [s3_server.put("lab", f"day/{i}.nwb", data) for i in range(9)]
    options = {"storage_options": s3_server.storage_options}
    units(urls, **options)
    monkeypatch.setattr(versions, "retried", refused)
    s3_server.clear_log()
    units(urls, **options)
    assert len(s3_server.log) == 9
    assert s3_server.sent <= 9


def test_a_dandi_blob_is_known_under_each_of_its_urls() -> None:
    blob = "blobs/01a/2b3/01a2b3c4-0000-4000-8000-0123456789ab"
    names = {
        store.identity(f"s3://dandiarchive/{blob}"),
        store.identity(f"https://dandiarchive.s3.amazonaws.com/{blob}"),
        store.identity(f"https://dandiarchive.s3.us-east-2.amazonaws.com/{blob}?versionId=x"),
    }
    assert len(names) == 1
    assert store.identity(f"https://evil.example/{blob}") not in names


def test_damaged_and_foreign_entries_are_rebuilt(session: Path, cache: Path) -> None:
    wanted = units(session).compute()
    (path,) = entries(cache)
    good = path.read_bytes()
    damaged = [b"", b"nwb-index", good[:-1], good[:60], b"nwb-index\x63" + good[10:]]
    damaged += [good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :] for at in (3, 12, 30, 100)]
    for data in damaged:
        path.write_bytes(data)
        oracle.assert_same(units(session).compute(), wanted)
        assert path.read_bytes() == good


def test_an_entry_of_another_file_is_not_taken(session: Path, other: Path, cache: Path) -> None:
    units(session), units(other)
    first, second = entries(cache)
    first.write_bytes(second.read_bytes())
    assert {len(units(session)), len(units(other))} == {30, 31}


def test_the_setting_turns_it_off(session: Path, cache: Path) -> None:
    with dask.config.set({"lazynwb-dask.cache": False}):
        units(session)
    assert not entries(cache)


def test_a_folder_that_cannot_be_written_is_no_error(session: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    with dask.config.set({"lazynwb-dask.cache": True, "lazynwb-dask.cache-directory": str(blocked)}):
        assert len(units(session)) == 30


def test_lists_and_callables_are_looked_up_as_asked(
    session: Path, range_server: RangeServer, cache: Path
) -> None:
    url = range_server.put("a.nwb", session.read_bytes())

    def last(paths: list[str]) -> str | None:
        return sorted(paths)[-1]

    for asked in (last, ["/nowhere", "/units"], ["trials", "/units"]):
        cold = lazynwb_dask.read_nwb(url, asked)
        range_server.clear_log()
        warm = lazynwb_dask.read_nwb(url, asked)
        assert len(range_server.log) == 1
        assert list(warm.columns) == list(cold.columns)
        assert len(warm) == len(cold)
    assert len(units(url)) == 30  # though the tables before it in a list were enough


def test_what_may_lie_in_other_files_is_not_kept(cache: Path, tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        table(file, "/units", 2, ["x"])["x"] = h5py.ExternalLink(str(tmp_path / "b.h5"), "/x")
    for values in ([1, 2], [0.5, 1.5]):
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["x"] = values
        frame = units(tmp_path / "a.nwb", allow_external_links=True)
        assert frame.x.compute().tolist() == values


@pytest.mark.filterwarnings("ignore:1 of 2 files")
def test_that_a_file_lacks_a_table_is_known(
    session: Path, range_server: RangeServer, cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "empty.nwb"
    with nwb(path) as file:
        table(file, "/intervals/trials", 3, [])
    url = range_server.put("empty.nwb", path.read_bytes())
    lazynwb_dask.read_nwb([url, str(session)], "/units")
    range_server.clear_log()
    assert len(lazynwb_dask.read_nwb([url, str(session)], "/units")) == 30
    assert len(range_server.log) == 1


def test_it_stays_within_its_bounds(session: Path, tmp_path: Path) -> None:
    found = queries.index_file(Source(str(session)), TableRequest("/units"), FileAccess())
    size = len(entry.dump(entry.Entry("x", 1, "1-2", found.table)))
    held = store.IndexCache(tmp_path / "cache", 80 * size)
    for i in range(200):
        held.put(Source(f"/data/{i}.nwb", 1, f"{i}-2"), "/units", found)
    held.prune()
    kept = entries(held.folder)
    assert sum(path.stat().st_size for path in kept) <= held.limit
    assert len(kept) > 40
    assert held.get(Source("/data/199.nwb", 1, "199-2"), "/units")


def test_entries_in_use_outlive_the_others(session: Path, tmp_path: Path) -> None:
    found = queries.index_file(Source(str(session)), TableRequest("/units"), FileAccess())
    held = store.IndexCache(tmp_path / "cache", 1 << 30)
    sources = [Source(f"/data/{i}.nwb", 1, f"{i}-2") for i in range(10)]
    for source in sources:
        held.put(source, "/units", found)
    for path in entries(held.folder):
        os.utime(path, (0, 0))
    assert held.get(sources[3], "/units")
    size = entries(held.folder)[0].stat().st_size
    store.IndexCache(held.folder, 4 * size).prune()
    assert held.get(sources[3], "/units")
    assert len(entries(held.folder)) == 3


def test_many_writers_at_once_leave_whole_entries(session: Path, cache: Path) -> None:
    code = (
        "import sys, dask, lazynwb_dask\n"
        "dask.config.set({'lazynwb-dask.cache': True, 'lazynwb-dask.cache-directory': sys.argv[2]})\n"
        "print(len(lazynwb_dask.read_nwb([sys.argv[1]] * 3, '/units')))"
    )
    command = [sys.executable, "-c", code, str(session), str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    done = [process.communicate()[0].strip() for process in running]
    assert done == ["90"] * 3
    held = store.index_cache()
    assert held is not None
    found = queries.index_file(Source(str(session)), TableRequest("/units"), FileAccess())
    wrong = []

    def work() -> None:
        for _ in range(30):
            held.put(found.source, "/units", found)
            if held.get(found.source, "/units") is None:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert [path.suffix for path in entries(cache)] == [".index"]


def test_every_kind_of_column_comes_back_the_same(session: Path) -> None:
    for name in lazynwb_dask.list_tables(session):
        found = queries.index_file(Source(str(session)), TableRequest(name, details=True), FileAccess())
        assert found.table is not None
        back = entry.load(entry.dump(entry.Entry("x", 1, "1-2", found.table)))
        assert back is not None
        assert back.table is not None
        assert (back.table.path, back.table.rows) == (found.table.path, found.table.rows)
        for one, two in zip(found.table.columns.values(), back.table.columns.values(), strict=True):
            assert one.variant == two.variant
            assert one.attributes == two.attributes
            assert (one.name, one.rows, one.region, one.problem, one.notes) == (
                two.name, two.rows, two.region, two.problem, two.notes,
            )  # fmt: skip
            packed = [a.extents.pack() for a in one.arrays]
            assert packed == [a.extents.pack() for a in two.arrays]


def test_what_is_stored_has_the_shape_that_the_format_number_stands_for() -> None:
    # other fields: raise FORMAT in entry.py and in catalog/tables_schema.py, then change this
    # (a catalog has no `Extents.heap`, and where that is empty, the same bytes as before)
    stored = [
        [field.name for field in fields(kind)]
        for kind in (
            index.TableIndex,
            index.ColumnIndex,
            index.Extents,
            index.Layout,
            index.Objects,
            index.Filter,
        )
    ]
    digest = hashlib.sha256(repr(stored).encode()).hexdigest()[:12]
    assert (entry.FORMAT, tables_schema.FORMAT, digest) == (7, 7, "5cd743bcccc9")
