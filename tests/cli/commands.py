"""The installed command, for tests that run it as a user does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lazynwb_dask.cli.main import main

COMMAND = str(Path(sys.executable).with_name("lazynwb-dask"))


def run(*arguments: object, before: Sequence[str] = (), **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own."""
    kwargs = {"capture_output": True, "text": True, "timeout": 250, **kwargs}
    return subprocess.run([*before, COMMAND, *map(str, arguments)], check=False, **kwargs)


def here(*arguments: object, code: int = 0) -> Result:
    """Run a command in this process, which is quicker."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), "no traceback"
    return done


def printed(*arguments: object) -> dict[str, Any]:
    """The JSON that a command prints."""
    found: dict[str, Any] = json.loads(here(*arguments).stdout)
    return found


def told(*arguments: object, code: int = 1) -> str:
    """The error of a command, which is one line."""
    line = here(*arguments, code=code).stderr
    assert line.startswith("Error: ")
    assert line.count("\n") == 1, line
    return line


@contextmanager
def home_of_nobody() -> Iterator[tuple[Path, dict[str, Any]]]:
    """A home that can't be written once `chmod` says so, and keywords of `run` for a command there. Root could
    write it all the same, but for a capability that it gives up."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        left = {k: v for k, v in os.environ.items() if not k.startswith(("DASK_", "XDG_"))}
        kwargs: dict[str, Any] = {"env": {**left, "HOME": str(home)}, "cwd": home}
        if os.geteuid() == 0:
            if shutil.which("setpriv") is None:
                pytest.skip("root may write everywhere")
            kwargs["before"] = ["setpriv", "--inh-caps=-dac_override", "--bounding-set=-dac_override"]
        try:
            yield home, kwargs
        finally:
            home.chmod(0o755)
