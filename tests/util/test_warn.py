"""Warnings name a line of the user's own code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """\
import dask, lazynwb_dask
from files import nwb
from lazynwb_dask.datasets import make_sessions

if __name__ == "__main__":
    paths = make_sessions("sessions", n=4, units=3, mean_spikes=3, channels=1, samples=3)
    with nwb("bare.nwb"):
        pass
    open("text.nwb", "w").write("no file")
    more = [*paths, "bare.nwb", "text.nwb"]
    dask.config.set({"lazynwb-dask.retires": 3})
    known = lazynwb_dask.read_nwb(  # user's line
        more, "units", on_error="skip")
    lazynwb_dask.read_sessions(more, on_error="skip")  # user's line
    asked = lazynwb_dask.read_nwb(paths, "units", on_error="skip", blocksize=None)
    for path in paths[1:]:
        open(path, "w").write("gone")
    asked.unit_id.compute(scheduler="threads")  # user's line
    asked.unit_id.compute(scheduler="threads")  # the same is not repeated
"""


def test_each_warning_is_at_the_users_line_and_there_is_one_for_each_call(tmp_path: Path) -> None:
    script = tmp_path / "analysis.py"
    script.write_text(PROGRAM)
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=100,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = script.read_text().splitlines()
    told = [line for line in done.stderr.splitlines() if "UserWarning" in line]
    for line in told:
        assert line.startswith(f"{script}:"), line
        assert "user's line" in lines[int(line.removeprefix(f"{script}:").partition(":")[0]) - 1], line
    for text in ("retires is not a setting", "1 of 6 files can't be read", "1 of 5 files have no table"):
        assert sum(text in line for line in told) == 1 + (text.startswith("1 of 6")), told
    assert sum("can't be read and is left out" in line for line in told) == 1
    assert len(told) == 5, told
