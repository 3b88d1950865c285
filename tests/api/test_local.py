"""Local files are read straight from the disk, and checked as others are."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from reading import DATA, MIB, PLAIN, QUICK, read

from lazynwb_dask.errors import (
    NWBFileChangedError,
    NWBFileNotFoundError,
    NWBPermissionError,
    NWBReadError,
)
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
        time.sleep(0.02)
        raise ZeroDivisionError

    requests = [Request(i * 2 * MIB, (i + 1) * 2 * MIB, sink) for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        fetch(Source(str(path)), requests, FileAccess(PLAIN, QUICK))
    assert len(calls) < 20
