"""Progress bars are for people."""

from __future__ import annotations

import os
import subprocess
import sys
import termios

PROGRAM = """
from lazynwb_dask.util.concurrently import progress_bar
bar = progress_bar(2, "Reading", delay=0)
bar.update()
bar.close()
"""


def test_a_terminal_sees_a_bar_and_a_script_does_not() -> None:
    command = [sys.executable, "-c", PROGRAM]
    script = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert script.stdout + script.stderr == ""
    ours, terminal = os.openpty()
    os.set_blocking(ours, False)
    termios.tcsetwinsize(terminal, (24, 80))
    try:
        subprocess.run(command, stderr=terminal, check=True, timeout=60)
        assert b"Reading:" in os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(terminal)
