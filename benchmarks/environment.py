"""The environment of lazynwb 1.0, whose pins differ from ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

REQUIREMENT = "lazynwb==1.0.*"


def lazynwb_python(folder: Path, progress: Callable[[str], object]) -> str:
    """The interpreter of an environment that has lazynwb; made at the first call."""
    home = folder / "lazynwb-environment"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    done = home / "complete"
    if not done.exists():
        progress(f"installing {REQUIREMENT} into an environment of its own")
        venv.create(home, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", REQUIREMENT], check=True, stdout=subprocess.DEVNULL
        )
        done.touch()
    return str(python)
