"""Fixtures that many tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import dask.config
import pytest
from reading import DATA, KIB, PLAIN, QUICK
from servers import RangeServer, S3Server

from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import open_source
from lazynwb_dask.storage.access import FileAccess

# Set before anything starts, so that worker processes inherit it. Where Python may keep no bytecode beside
# its sources, each of the hundreds of processes would compile all again, which takes longer than most tests.
if sys.dont_write_bytecode:
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = tempfile.mkdtemp(prefix="bytecode-")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)
# No test may meet real
# credentials, or wait for the metadata service of a cloud.
for _name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[_name]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
os.environ["AWS_CONFIG_FILE"] = os.devnull
# Nor the user's cache; and what a read costs is counted cold. Tests of the cache switch it on.
os.environ["DASK_LAZYNWB_DASK__CACHE"] = "false"
# There, Dask's profiler can stop a process in which threads start (docs/cluster.md).
if sys.version_info < (3, 11, 12):
    os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "false"
    dask.config.refresh()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With workers in parallel, one that has nothing left to do takes over tests of another."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the cache of files' metadata would be, for tests that switch it on."""
    folder = tmp_path_factory.getbasetemp() / "cache-of-no-test"
    with dask.config.set({"lazynwb-dask.cache": False, "lazynwb-dask.cache-directory": str(folder)}):
        yield folder


@pytest.fixture
def interruptible() -> Iterator[Callable[[bool], None]]:
    """A Ctrl-C (SIGINT) reaches this process and those that it starts, also where the tests run in the
    background of a shell script, which ignores it. Called with False: it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def choose(heeded: bool) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler if heeded else signal.SIG_IGN)

    yield choose
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def range_server() -> Iterator[RangeServer]:
    """An empty `RangeServer` that behaves. A new one, since requests that a test gave up may still
    be on their way to it when the next test begins."""
    with RangeServer() as server:
        yield server


@pytest.fixture
def s3_server() -> Iterator[S3Server]:
    """An S3 without any buckets."""
    with S3Server() as server:
        server.reset()
        yield server
        server.reset()


@pytest.fixture
def web(range_server: RangeServer) -> tuple[RangeServer, Source]:
    """A server with one file, ``a.nwb``, already opened, and an empty log."""
    source, _ = open_source(Source(range_server.put("a.nwb", DATA)), KIB, FileAccess(PLAIN, QUICK))
    range_server.clear_log()
    return range_server, source
