"""Local files are read straight from the disk, and checked as others are."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reading import DATA, MIB, PLAIN, QUICK, read
from series_files import versioned

import lazynwb_dask
from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBPermissionError, NWBReadError
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import Request, fetch, open_source
from lazynwb_dask.storage.access import FileAccess


def test_local_files_are_read_without_filesystem_or_event_loop(tmp_path: Path) -> None:
    (tmp_path / "a.nwb").write_bytes(DATA)
    code = """
        import sys, threading
        from lazynwb_dask.storage.options import Options
        from lazynwb_dask.model.source import Source
        from lazynwb_dask.sources.expand import expand
        from lazynwb_dask.storage.access import FileAccess
        from lazynwb_dask.storage import Request, Settings, fetch, open_source
        access = FileAccess()
        source, head = open_source(*expand(sys.argv[1], access), 10, access)
        got = []
        fetch(source, [Request(5, 2_000_000, lambda v: got.append(len(v)))], access)
        assert got == [1_999_995]
        assert not any("fsspecIO" in thread.name for thread in threading.enumerate())
        loaded = {"s3fs", "aiohttp", "aiobotocore", "dask", "distributed"} & set(sys.modules)
        assert not loaded, loaded
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a.nwb")]
    subprocess.run(command, check=True, timeout=60)


def test_local_reads_check_that_the_file_is_still_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    path.write_bytes(DATA)
    source, head = open_source(Source(str(path)), 10, FileAccess(PLAIN, QUICK))
    status = path.stat()
    assert source == Source(str(path), len(DATA), f"{status.st_mtime_ns}-{status.st_ino}")
    assert head == DATA[:10]
    other = tmp_path / "b.nwb"
    other.write_bytes(DATA)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    with pytest.raises(NWBFileChangedError):
        read(source, [(0, 10)])
    with pytest.raises(NWBReadError, match="truncated"):
        read(Source(str(path)), [(0, len(DATA) + 1)])


def test_local_faults_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NWBFileNotFoundError):
        open_source(Source(f"file://{tmp_path}/no.nwb"), 10, FileAccess(PLAIN, QUICK))
    with pytest.raises(NWBFileNotFoundError):
        open_source(Source(str(tmp_path / "no.nwb")), 10, FileAccess(PLAIN, QUICK))
    with pytest.raises(NWBReadError, match="folder"):
        read(Source(str(tmp_path)), [(0, 10)])
    if os.geteuid():
        (tmp_path / "a.nwb").write_bytes(DATA)
        (tmp_path / "a.nwb").chmod(0)
        with pytest.raises(NWBPermissionError):
            open_source(Source(str(tmp_path / "a.nwb")), 10, FileAccess(PLAIN, QUICK))


def test_a_failing_sink_ends_a_local_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    path.write_bytes(bytes(40 * MIB))
    calls: list[int] = []

    def sink(view: memoryview) -> None:
        calls.append(len(view))
        time.sleep(0.1)
        raise ZeroDivisionError

    requests = [Request(i * 2 * MIB, (i + 1) * 2 * MIB, sink) for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        fetch(Source(str(path)), requests, FileAccess(PLAIN, QUICK))
    assert len(calls) < 20


# --- files that change under their reader


def touched(path: Path, status: os.stat_result, later: int) -> None:
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + later))


def write_in_place(path: Path) -> None:
    """The same inode and size."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        file.write(b"something else")
    touched(path, status, later=1000)


def replace(path: Path) -> None:
    """The same size and time."""
    status, other = path.stat(), versioned(path.with_name("other"), 500)
    touched(other, status, later=0)
    other.replace(path)
    assert path.stat().st_size == status.st_size


def truncate(path: Path) -> None:
    """The same inode and time."""
    status = path.stat()
    os.truncate(path, status.st_size - 1)
    touched(path, status, later=0)


def append(path: Path) -> None:
    """The same inode and time."""
    status = path.stat()
    with path.open("ab") as file:
        file.write(b"more")
    touched(path, status, later=0)


CHANGES = [write_in_place, replace, truncate, append]
QUERIES: dict[str, Callable[[Path], Any]] = {
    "a column": lambda path: lazynwb_dask.read_nwb(path, "/after").x,
    "a filter": lambda path: (lambda d: d[d.x > 50])(lazynwb_dask.read_nwb(path, "/before")),
    "samples": lambda path: lazynwb_dask.read_nwb(path, "/acquisition/s", channels=[1]),
    "an array": lambda path: lazynwb_dask.open_timeseries(path, "s").data[:, 1].sum(),
    "a catalog": lambda path: lazynwb_dask.read_nwb(
        lazynwb_dask.build_catalog(path, path.with_name("catalog"), values_limit=0), "/after"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", QUERIES)
def test_a_local_file_that_changed_since_it_was_planned_is_an_error(
    tmp_path: Path, change: Callable[[Path], None], name: str
) -> None:
    query = QUERIES[name](versioned(tmp_path / "a.nwb"))
    query.compute()
    change(tmp_path / "a.nwb")
    with pytest.raises(NWBFileChangedError, match=r"a\.nwb: the file changed"):
        query.compute()


@pytest.mark.parametrize("change", CHANGES)
def test_a_local_file_that_changes_between_two_partitions_is_an_error(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = versioned(tmp_path / "a.nwb")
    frame = lazynwb_dask.read_nwb(path, "/acquisition/s", channels=[0], blocksize="500 kB")
    assert frame.npartitions > 2
    seen: list[int] = []

    def first(rows: Any) -> Any:
        seen.append(int(rows.data_0.iloc[0]))
        if len(seen) == 1:
            change(path)
        return rows

    with pytest.raises(NWBFileChangedError, match=r"a\.nwb: the file changed"):
        frame.map_partitions(first, meta=frame._meta).compute(scheduler="sync")
    assert len(seen) == 1


@pytest.mark.parametrize("length", [10, 3 * MIB])
@pytest.mark.parametrize("change", [write_in_place, truncate, append])
def test_a_local_file_that_changes_during_a_read_is_an_error(
    tmp_path: Path, change: Callable[[Path], None], length: int
) -> None:
    path = tmp_path / "a.nwb"
    path.write_bytes(bytes(40 * MIB))
    source, _ = open_source(Source(str(path)), 10, FileAccess(PLAIN, QUICK))
    calls: list[int] = []
    numbers, changed = itertools.count(), threading.Event()

    def sink(view: memoryview) -> None:
        calls.append(len(view))
        if next(numbers) == 0:
            change(path)
            changed.set()
        assert changed.wait(30), "no other is read before"

    requests = [Request(i * 4 * MIB, i * 4 * MIB + length, sink) for i in range(10)]
    with pytest.raises(NWBFileChangedError, match=r"a\.nwb: the file changed"):
        fetch(source, requests, FileAccess(PLAIN, QUICK))
    assert len(calls) < 10
