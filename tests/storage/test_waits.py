"""A host that doesn't answer is named in the log while a read waits for it, and a Ctrl-C ends the wait."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from fsspec.implementations.http import HTTPFileSystem
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.storage import waits


@pytest.fixture
def refusing() -> Iterator[str]:
    """An address where no server runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def asks(url: str) -> dict[str, Callable[[], Any]]:
    s3 = {"key": "a", "secret": "b", "client_kwargs": {"endpoint_url": url}}
    return {
        "file": lambda: lazynwb_dask.read_nwb(f"{url}/a.nwb", "units"),
        "folder": lambda: lazynwb_dask.list_tables(f"{url}/folder/"),
        "catalog": lambda: lazynwb_dask.open_catalog(f"{url}/catalog/"),
        "s3": lambda: lazynwb_dask.read_nwb("s3://lab/a/", "units", storage_options=s3),
        "dandi": lambda: lazynwb_dask.dandi_assets("dandi://silent/000409"),
    }


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(waits, "SILENT", 0.5)
    monkeypatch.setattr(waits, "FAILING", 0.3)
    waits._said.clear()
    with dask.config.set({"lazynwb-dask.timeout": "1500 ms", "lazynwb-dask.retries": 1}):
        yield


@pytest.mark.parametrize("what", ["file", "folder", "catalog", "dandi"])
@pytest.mark.usefixtures("_quick")
def test_a_server_that_says_nothing_is_named_while_it_is_waited_for(
    what: str, range_server: RangeServer, caplog: pytest.LogCaptureFixture
) -> None:
    range_server.behaviour.latency = 60
    api = {"silent": {"api": range_server.url("api")}}
    limits = {"lazynwb-dask.deadline": "2 s", "lazynwb-dask.dandi-instances": api}
    with dask.config.set(limits), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lazynwb_dask.storage.options.READ_TIMEOUT", 1.5)
        HTTPFileSystem.clear_instance_cache()  # its sessions would have the timeout of before
        with pytest.raises(lazynwb_dask.NWBReadError, match=r"no response in time.*Check the address"):
            asks(range_server.url("").rstrip("/"))[what]()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "no answer for" in lines[0]
    assert "attempt 1 of 2, gives up in" in lines[0]
    assert len(lines) == 1, "not again for ten seconds"


@pytest.mark.parametrize("what", ["file", "folder", "s3"])
@pytest.mark.usefixtures("_quick")
def test_a_connection_that_is_refused_is_named(
    what: str, refusing: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "SILENT", 60)
    refused = pytest.raises(lazynwb_dask.NWBReadError, match=r"the connection was refused.*Check the address")
    with dask.config.set({"lazynwb-dask.retries": 3}), refused:
        asks(refusing)[what]()
    assert "the connection was refused: no server runs at this address; attempt" in caplog.text


def test_a_host_that_does_not_exist_is_said_to_be_unknown() -> None:
    unknown = pytest.raises(lazynwb_dask.NWBReadError, match="the name of the host is not known")
    with dask.config.set({"lazynwb-dask.retries": 0}), unknown:
        lazynwb_dask.list_tables("http://no-such-host.invalid/a.nwb")


def test_nothing_is_logged_where_a_second_attempt_succeeds(
    tmp_path: Path, range_server: RangeServer, caplog: pytest.LogCaptureFixture
) -> None:
    [path] = make_sessions(tmp_path, n=1, units=3, mean_spikes=3, channels=1, samples=3)
    range_server.folder = str(tmp_path)
    range_server.behaviour.faults = ["503"]
    assert len(lazynwb_dask.read_nwb(range_server.url(Path(path).name), "units").compute()) == 3
    assert not caplog.records


PROGRAM = """\
import logging, sys, lazynwb_dask
logging.basicConfig(level="ERROR")
url, compute = sys.argv[1], sys.argv[2] == "compute"
urls = sys.argv[3:]
if compute:
    import pyarrow as pa
    frame = lazynwb_dask.read_nwb(urls, "units", schema=pa.schema([("id", pa.int64())]), blocksize=None)
    frame.compute()
elif sys.argv[2] == "folder":
    lazynwb_dask.read_nwb([f"{url}/a/", f"{url}/b/"], "units")
else:
    lazynwb_dask.read_nwb(urls, "units")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("what", ["plan", "folder", "compute"])
@pytest.mark.usefixtures("interruptible")
def test_a_ctrl_c_ends_a_script_that_waits_for_a_silent_server(what: str, range_server: RangeServer) -> None:
    range_server.behaviour.latency = 60
    urls = [range_server.url(f"{n}.nwb") for n in range(8)]
    words = [range_server.url("").rstrip("/"), what, *urls]
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stderr=subprocess.PIPE, text=True) as script:
        while not range_server.running:
            assert script.poll() is None
            time.sleep(0.02)
        time.sleep(0.3)
        begin = time.monotonic()
        script.send_signal(signal.SIGINT)
        _, errors = script.communicate(timeout=50)
        took = time.monotonic() - begin
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert "Exception ignored" not in errors
    assert took < 2 + os.getloadavg()[0] / (os.cpu_count() or 1), "soon, on a machine with other work"
