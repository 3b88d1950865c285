"""With `isolate`, what libhdf5 does to a helper process is no trouble of ours."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import fsspec
import h5py
import mutants
import numpy as np
import oracle
import pytest
from files import nwb, table
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask import hdf5
from lazynwb_dask import nwb as nwb_package
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBError, NWBReadError
from lazynwb_dask.isolation import helpers, wire
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.source import Source
from lazynwb_dask.nwb import jobs
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage import Settings
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options
from lazynwb_dask.storage.settings import IsolatedSettings

OPTIONS = Options(None)
posix = pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX systems")


@pytest.fixture
def isolated() -> Any:
    with dask.config.set({"lazynwb-dask.isolate": True, "lazynwb-dask.isolate-deadline": "20 s"}):
        yield


def pids() -> list[int]:
    return [helper._process.pid for helper in helpers._pool._all]


def source(path: Path | str) -> Source:
    (found,) = expand(str(path), FileAccess(OPTIONS))
    return found


def looping_heap(path: Path) -> Path:
    """A file on whose `colnames` libhdf5 2.0 goes round in a circle: free space of no bytes in the heap."""
    with nwb(path) as file:
        table(file, "/units", 3, ["a name to be found"])
    data = bytearray(path.read_bytes())
    at = data.index(b"a name to be found") - 16
    data[at : at + 16] = bytes(16)
    path.write_bytes(data)
    return path


# ------------------------------------------------------------------------------------ the same answers
def test_isolated_or_not_the_index_is_the_same(tmp_path: Path) -> None:
    secret = mutants.secret_file(tmp_path)
    paths = [mutants.zoo(tmp_path / f"{v}.nwb", v, secret) for v in ("earliest", "latest")]
    paths += map(Path, make_sessions(tmp_path / "made", n=1, units=10))
    for path in paths:
        tables = queries.list_tables(source(path), FileAccess(OPTIONS, IsolatedSettings()))
        assert tables == queries.list_tables(source(path), FileAccess(OPTIONS, Settings()))
        for name in tables:
            one, other = (
                queries.index_file(
                    source(path), TableRequest(name, details=True), FileAccess(OPTIONS, settings)
                )
                for settings in (Settings(), IsolatedSettings())
            )
            assert one.source == other.source
            assert one.table is not None
            assert other.table is not None
            assert described(one.table) == described(other.table)


def described(table: TableIndex) -> Any:
    """All that a table's index says, comparable."""
    return table.path, table.rows, table.notes, table.attributes, {
        name: (
            c.name, c.rows, c.labels, c.region, c.problem, c.notes, c.attributes,
            [(a.layout, a.extents.pack()) for a in c.arrays],
        )
        for name, c in table.columns.items()
    }  # fmt: skip


@pytest.mark.usefixtures("isolated")
def test_frames_of_every_kind_of_store_are_the_same(
    tmp_path: Path, range_server: RangeServer, s3_server: S3Server
) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=30)
    data = Path(path).read_bytes()
    fsspec.filesystem("memory").pipe("/isolated/a.nwb", data)
    places: list[tuple[str, dict[str, Any] | None]] = [
        (path, None),
        (range_server.put("a.nwb", data), None),
        (s3_server.put("private", "a.nwb", data, public=False), s3_server.storage_options),
        ("memory://isolated/a.nwb", None),
    ]
    with dask.config.set({"lazynwb-dask.isolate": False}):
        wanted = lazynwb_dask.read_nwb(path, "/units").compute(scheduler="sync")
    for url, options in places:
        assert lazynwb_dask.list_tables(url, storage_options=options)[0] == "/units"
        frame = lazynwb_dask.read_nwb(url, lambda names: names[0], storage_options=options)
        got = frame.compute(scheduler="sync")
        oracle.assert_same(got.drop(columns="_nwb_path"), wanted.drop(columns="_nwb_path"))


@pytest.mark.usefixtures("isolated")
def test_errors_are_the_same(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "text.nwb").write_text("no HDF5")
    (tmp_path / "empty.nwb").write_bytes(b"")
    for name in ("plain.h5", "text.nwb", "empty.nwb"):
        said = []
        for isolate in (False, True):
            with dask.config.set({"lazynwb-dask.isolate": isolate}), pytest.raises(NWBReadError) as caught:
                lazynwb_dask.read_nwb(tmp_path / name, "/units")
            said.append(str(caught.value))
        assert said[0] == said[1]
        assert name in said[0]


# ------------------------------------------------------------------------------------------- overruns
def test_a_helper_that_never_ends_is_killed_and_replaced(tmp_path: Path) -> None:
    settings = IsolatedSettings(isolate_deadline=1.0)
    good = source(make_sessions(tmp_path, n=1, units=5)[0])
    queries.list_tables(good, FileAccess(OPTIONS, settings))
    before = pids()
    begun = time.monotonic()
    with pytest.raises(NWBReadError, match=r"bad\.nwb: libhdf5 needs more than 1 s.*isolate-deadline"):
        queries.index_file(
            source(looping_heap(tmp_path / "bad.nwb")), TableRequest("/units"), FileAccess(OPTIONS, settings)
        )
    assert 0.9 < time.monotonic() - begun < 30
    assert len(set(pids()) & set(before)) < len(before)
    assert queries.list_tables(good, FileAccess(OPTIONS, settings))[0] == "/units"


def test_files_that_hang_leave_the_others_alone(tmp_path: Path) -> None:
    settings = IsolatedSettings(isolate_deadline=4.0)
    bad = source(looping_heap(tmp_path / "bad.nwb"))
    good = [source(p) for p in make_sessions(tmp_path / "good", n=6, units=5)]
    ended: dict[str, float] = {}
    with ThreadPoolExecutor(2) as pool:  # so that helpers are there
        list(pool.map(lambda one: queries.list_tables(one, FileAccess(OPTIONS, settings)), good))

    def run(one: Source) -> None:
        try:
            queries.index_file(one, TableRequest("/units"), FileAccess(OPTIONS, settings))
        except NWBReadError:
            assert one is bad
        ended[one.url] = time.monotonic()

    threads = [threading.Thread(target=run, args=(one,)) for one in [bad, *good]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(ended) == {one.url for one in [bad, *good]}
    assert max(ended[one.url] for one in good) < ended[bad.url]


@posix
def test_a_helper_that_crashes_is_an_error_and_no_more(tmp_path: Path) -> None:
    settings = IsolatedSettings(isolate_deadline=20)
    bad = source(looping_heap(tmp_path / "bad.nwb"))
    caught: list[BaseException] = []

    def run() -> None:
        try:
            queries.index_file(bad, TableRequest("/units"), FileAccess(OPTIONS, settings))
        except NWBReadError as exc:
            caught.append(exc)

    helpers._pool.end()
    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 20
    killed: set[int] = set()
    while thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.2)
        for pid in set(pids()) - killed:
            os.kill(pid, signal.SIGSEGV)
            killed.add(pid)
    thread.join(20)
    assert len(killed) >= 2, "it was tried once more"
    assert "ended unexpectedly" in str(caught[0])
    assert "bad.nwb" in str(caught[0])


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="no limit on address space there")
def test_a_helper_takes_no_more_memory_than_it_may(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path, n=1)
    one = source(path)
    with pytest.raises(NWBReadError, match=r"\.nwb: .*isolate-memory \(1 MiB\)"):
        queries.index_file(
            one, TableRequest("/units"), FileAccess(OPTIONS, IsolatedSettings(isolate_memory=1 << 20))
        )
    enough = IsolatedSettings(isolate_memory=64 << 20)
    assert queries.index_file(one, TableRequest("/units"), FileAccess(OPTIONS, enough)).table is not None


# --------------------------------------------------------------------------------------- the processes
_LISTING = """
import sys, time
from lazynwb_dask.isolation import helpers
from lazynwb_dask.metadata import queries
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options
from lazynwb_dask.storage.settings import IsolatedSettings

(source,) = expand(sys.argv[1], FileAccess(Options(None)))
queries.list_tables(source, FileAccess(Options(None), IsolatedSettings()))
print(*[helper._process.pid for helper in helpers._pool._all], flush=True)
if sys.argv[2] == "stay":
    time.sleep(60)
"""


@posix
@pytest.mark.parametrize("how", ["leave", "stay"])
def test_helpers_end_with_their_parent_however_it_ends(tmp_path: Path, how: str) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=5)
    parent = subprocess.Popen([sys.executable, "-c", _LISTING, path, how], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    (pid,) = map(int, parent.stdout.readline().split())
    if how == "stay":
        os.kill(pid, 0)  # it is there
        parent.kill()
    parent.wait(20)
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return sys.platform != "linux"


def test_there_are_never_more_helpers_than_places(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path, n=30, units=5)
    with dask.config.set({"lazynwb-dask.isolate": True}):
        frame = lazynwb_dask.read_nwb(paths, "/units")
    assert len(frame) == 150
    assert 1 <= len(pids()) <= helpers.HELPERS


@posix
def test_a_forked_process_has_helpers_of_its_own(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=5)
    queries.list_tables(source(path), FileAccess(OPTIONS, IsolatedSettings()))
    before = set(pids())
    read, write = os.pipe()
    child = os.fork()
    if not child:  # no test goes on here
        queries.list_tables(source(path), FileAccess(OPTIONS, IsolatedSettings()))
        os.write(write, json.dumps(pids()).encode())
        helpers._pool.end()
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as answer:
        assert not before & set(json.load(answer))
    queries.list_tables(source(path), FileAccess(OPTIONS, IsolatedSettings()))
    assert before & set(pids()), "the parent's are as they were"


def test_a_distributed_worker_isolates_too(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    bad = looping_heap(tmp_path / "bad.nwb")
    (path,) = make_sessions(tmp_path, n=1, units=5)

    def run(name: str) -> str:
        settings = {"lazynwb-dask.isolate": True, "lazynwb-dask.isolate-deadline": "3 s"}
        with dask.config.set(settings):
            try:
                return str(len(lazynwb_dask.read_nwb(name, "/units")))
            except NWBReadError as exc:
                return str(exc)

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        assert client.submit(run, path).result(timeout=120) == "5"
        assert "needs more than 3 s" in client.submit(run, str(bad)).result(timeout=120)


# ------------------------------------------------------------------------------------ what passes between
def test_no_secret_and_no_query_reach_a_helper(
    tmp_path: Path, s3_server: S3Server, range_server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=5)
    data = Path(path).read_bytes()
    sent: list[str] = []
    send = wire.send

    def recorded(pipe: Any, message: dict[str, Any], parts: Any) -> None:
        sent.append(json.dumps(message))
        send(pipe, message, parts)

    monkeypatch.setattr(wire, "send", recorded)
    options = {**s3_server.storage_options, "key": "a-key-id", "secret": "hush-hush"}
    url = s3_server.put("bucket", "a.nwb", data)
    with dask.config.set({"lazynwb-dask.isolate": True}):
        lazynwb_dask.list_tables(url, storage_options=options)
        lazynwb_dask.list_tables(range_server.put("a.nwb", data) + "?signature=hush-hush")
    assert len(sent) >= 2
    assert "hush-hush" not in "".join(sent)
    assert "a-key-id" not in "".join(sent)


@pytest.mark.skipif(sys.platform != "linux", reason="another process's environment, on Linux")
def test_no_credentials_of_the_environment_reach_a_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("DANDI_API_KEY", "hush-hush")
    (path,) = make_sessions(tmp_path, n=1, units=5)
    helpers._pool.end()
    queries.list_tables(source(path), FileAccess(OPTIONS, IsolatedSettings()))
    (pid,) = pids()
    environment = Path(f"/proc/{pid}/environ").read_text()
    assert "PATH=" in environment
    assert "hush-hush" not in environment


def test_every_job_can_be_sent_to_a_helper() -> None:
    for package in (hdf5, nwb_package):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for name, kind in vars(importlib.import_module(found.name)).items():
                if isinstance(kind, type) and hasattr(kind, "visit") and dataclasses.is_dataclass(kind):
                    assert wire.JOBS[name] is kind
    job = jobs.IndexTable(("/units", "/trials"), details=True)
    assert wire.unpack_job(json.loads(json.dumps(wire.pack_job(job)))) == job


def test_what_a_helper_says_is_not_believed(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=5)
    found = queries.index_file(source(path), TableRequest("/units"), FileAccess(OPTIONS, Settings())).table
    size = Path(path).stat().st_size
    packed, parts = wire.pack_result(found)
    text, payload = json.dumps(packed), b"".join(parts)
    again = wire.unpack_result(json.loads(text), memoryview(payload), size)
    assert described(again) == described(found)  # type: ignore[arg-type]
    with pytest.raises(NWBReadError, match=r"truncated or damaged|lies outside|are declared"):
        wire.unpack_result(json.loads(text), memoryview(payload), 1000)
    generator = np.random.default_rng(0)
    allowed = (
        wire.WireError, LookupError, TypeError, ValueError, OverflowError, AttributeError,
        NotImplementedError, NWBError, SyntaxError,  # the last is NumPy's, of the dtype ","
    )  # fmt: skip
    for _ in range(300):
        damaged, raw = bytearray(text.encode()), bytearray(payload)
        if generator.random() < 0.5:
            damaged[generator.integers(len(damaged))] = generator.integers(32, 127)
        else:
            raw[generator.integers(len(raw))] = generator.integers(256)
        try:
            got = wire.unpack_result(json.loads(damaged), memoryview(raw), size)
        except allowed:
            continue
        if not isinstance(got, TableIndex):
            continue
        for column in got.columns.values():
            for array in column.arrays:
                there = array.extents.offsets != 2**64 - 1
                ends = array.extents.offsets[there] + array.extents.sizes[there]
                assert not (ends > size).any()
