"""The demo, as a new user meets it."""

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

import lazynwb_dask

COMMAND = [sys.executable, "-m", "lazynwb_dask.cli.main"]


def run(*arguments: str, timeout: float = 250) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=timeout, check=False)


def test_the_demo_runs_the_main_job_and_says_what_it_read(tmp_path: Path) -> None:
    done = run("demo", "--sessions", "3", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for text in ("/intervals/trials", "presence_ratio >= 0.7", "columns", "bytes", "requests", "seconds"):
        assert text in done.stdout
    assert "lazynwb_dask.read_nwb(" in done.stdout
    assert "Traceback" not in done.stderr
    assert "3/3" in done.stderr, "progress is visible"
    assert len(lazynwb_dask.read_nwb(tmp_path, "/units")) == 3 * 120


@contextmanager
def interrupted(folder: Path, phase: str, after: float) -> Iterator[subprocess.Popen[str]]:
    """The demo, to which a Ctrl-C comes so long after it has said what it is at."""
    with subprocess.Popen(
        [*COMMAND, "demo", "--sessions", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert any(phase in line for line in process.stdout)
            time.sleep(after)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def running(session: int) -> list[psutil.Process]:
    """The processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("phase", "after"), [("made-up sessions", 0.3), ("Starting", 0), ("Good", 0.2)])
def test_ctrl_c_ends_the_demo_and_its_workers_at_once(tmp_path: Path, phase: str, after: float) -> None:
    with interrupted(tmp_path, phase, after) as process:
        begin = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - begin < 20
        assert process.returncode == 130, errors
        psutil.wait_procs(running(process.pid), timeout=30)
        assert not running(process.pid)
    assert "Interrupted" in errors
    assert "Traceback" not in errors, errors
    assert "Warning" not in errors, errors
    assert not list(tmp_path.iterdir()), "the made-up files and the workers' are removed"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_where_ctrl_c_is_ignored_the_demo_runs_to_its_end(
    tmp_path: Path, interruptible: Callable[[bool], None]
) -> None:
    interruptible(False)  # as in the background of a shell script
    with interrupted(tmp_path, "Good", 0.2) as process:
        output, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    assert "Your own files" in output
    assert not list(tmp_path.iterdir())
