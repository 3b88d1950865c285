"""A Ctrl-C ends a command within two seconds, whatever it is at, with its workers, files and locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from cli.commands import COMMAND
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals"),
    pytest.mark.usefixtures("interruptible"),
]
SOON = 2.0  # seconds of a process that has the machine to itself
SLOW = 60.0  # seconds that the server takes for an answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sessions")
    make_sessions(made, n=2, units=5, mean_spikes=10, trials=5, samples=20)
    return made


@contextmanager
def started(folder: Path, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A command in a session of its own, with a folder for its temporary files."""
    folder.mkdir(exist_ok=True)
    with subprocess.Popen(
        [COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def of_session(session: int) -> list[psutil.Process]:
    """The processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> str:
    """Interrupt a command as a terminal does, its workers too; returns what it says."""
    begin = time.monotonic()
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=60)
    took = time.monotonic() - begin
    assert process.returncode == 128 + number, errors
    assert "Interrupted." in errors
    assert "Traceback" not in errors
    assert "Exception" not in errors
    assert not output
    assert took < SOON + os.getloadavg()[0] / (os.cpu_count() or 1), "soon, on a machine with other work"
    psutil.wait_procs(of_session(process.pid), timeout=10)
    assert not of_session(process.pid)
    return errors


def test_while_planning_against_a_slow_server(tmp_path: Path, folder: Path, range_server: RangeServer) -> None:
    range_server.folder = str(folder)
    range_server.behaviour.latency = SLOW
    urls = [range_server.url(path.name) for path in folder.iterdir()]
    with started(tmp_path / "t", "export", "units", "--to", tmp_path / "a.csv", *urls) as process:
        wait_for(lambda: range_server.running, process)
        interrupt(process)
    assert not [path for path in tmp_path.iterdir() if path.name != "t"]


@pytest.mark.parametrize(("name", "workers"), [("a.csv", []), ("a.parquet", ["--workers", "2"])], ids=str)
def test_while_rows_are_read(tmp_path: Path, range_server: RangeServer, name: str, workers: list[str]) -> None:
    made = make_sessions(tmp_path / "in", n=2, units=50, mean_spikes=5000, trials=5, samples=20)
    range_server.folder = str(tmp_path / "in")
    urls = [range_server.url(Path(path).name) for path in made]
    lazynwb_dask.read_nwb(urls, "/units")
    planning = len(range_server.log)
    range_server.clear_log()
    out = tmp_path / "out"
    out.mkdir()

    def delay(_: str, number: int) -> None:
        if len(range_server.log) > planning:
            range_server.behaviour.latency = SLOW

    range_server.behaviour.before = delay
    words = ["export", "units", "--to", out / name, *workers, *urls]
    with started(tmp_path / "t", *words) as process:
        wait_for(lambda: range_server.behaviour.latency and range_server.running, process)
        interrupt(process)
    assert not list(out.iterdir())
    assert not list((tmp_path / "t").iterdir())


@pytest.mark.parametrize("after", [0.0, 0.7, 2.0])
def test_while_workers_start(tmp_path: Path, folder: Path, after: float) -> None:
    with started(tmp_path / "t", "query", "units", "--workers", "2", *[folder] * 200) as process:
        wait_for(lambda: list((tmp_path / "t").glob("lazynwb-dask-*")), process)
        time.sleep(after)
        if process.poll() is None:
            interrupt(process)
    assert not list((tmp_path / "t").glob("lazynwb-dask-*"))


def test_a_catalog_is_unlocked_and_goes_on_from_there(
    tmp_path: Path, folder: Path, range_server: RangeServer
) -> None:
    range_server.folder = str(folder)
    where = tmp_path / "catalog"
    urls = [range_server.url(path.name) for path in sorted(folder.iterdir())]
    range_server.behaviour.latency = SLOW
    with started(tmp_path / "t", "catalog", "build", where, *urls) as process:
        wait_for(lambda: range_server.running and (where / "_lock").exists(), process)
        assert "goes on from there" in interrupt(process)
    assert not (where / "_lock").exists()
    range_server.behaviour.latency = 0
    with started(tmp_path / "t", "catalog", "build", where, *urls) as process:
        output, errors = process.communicate(timeout=100)
    assert '"files": 2' in output, errors
    assert "waiting" not in errors


def test_a_termination_ends_it_as_well(tmp_path: Path, folder: Path, range_server: RangeServer) -> None:
    range_server.folder = str(folder)
    range_server.behaviour.latency = SLOW
    urls = [range_server.url(path.name) for path in folder.iterdir()]
    with started(tmp_path / "t", "tables", *urls) as process:
        wait_for(lambda: range_server.running, process)
        interrupt(process, signal.SIGTERM)
