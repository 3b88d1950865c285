"""Several processes that build the same catalog at once take turns, and end in one right catalog."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import oracle

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions

BUILDERS = 3

BUILD = """
import json, sys, time, warnings
from pathlib import Path

import lazynwb_dask
from lazynwb_dask.storage import record

if __name__ == "__main__":
    sessions, where, ready, go = map(Path, sys.argv[1:])
    ready.touch()
    while not go.exists():
        time.sleep(0.005)
    with record() as counted, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = lazynwb_dask.build_catalog(sessions, where)
    read = sorted(name for name in counted.files if name.endswith(".nwb"))
    print(json.dumps([len(made), read, [str(w.message) for w in caught]]))
"""


def test_processes_that_build_one_catalog_at_once_take_turns(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path / "sessions", n=12, units=5, mean_spikes=10)
    where, go = tmp_path / "catalog", tmp_path / "go"
    ready = [tmp_path / f"ready{i}" for i in range(BUILDERS)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, tmp_path / "sessions", where, mine, go],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for mine in ready
    ]  # fmt: skip
    while not all(mine.exists() for mine in ready):
        assert all(one.poll() is None for one in running)
    go.touch()
    ended = [one.communicate(timeout=120) for one in running]
    assert [one.returncode for one in running] == [0] * BUILDERS, ended
    files, read, told = zip(*[json.loads(out) for out, _ in ended], strict=True)
    assert files == (12,) * BUILDERS
    # whoever waited found all indexed by the first
    assert sorted(name for names in read for name in names) == sorted(map(str, paths))
    waited = [texts for texts in told if any("is building this catalog" in t for t in texts)]
    assert len(waited) == BUILDERS - 1
    assert not (where / "_lock").exists()
    got = lazynwb_dask.read_nwb(lazynwb_dask.open_catalog(where), "/units").compute()
    oracle.assert_same(got, lazynwb_dask.read_nwb(paths, "/units").compute())
