"""Reading takes fresh memory for the values that the frame holds, and for no copy of them.

A fresh page can cost more than what is done with its bytes: virtual machines wait for their host.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from files import nwb, table
from servers import RangeServer

ROWS, LENGTH = 12, 1 << 18  # 24 MiB of float64, 2 MiB each

PAGES = """
import resource, sys
import dask
import lazynwb_dask

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if __name__ == "__main__":
    dask.config.set({"lazynwb-dask.cache": False})
    frame = lazynwb_dask.read_nwb(sys.argv[1], "/units")[["spike_times"]]
    for _ in range(2):  # the first time takes the memory that is used again
        before = faults()
        values = frame.compute(scheduler="sync").spike_times.array
        pages = (faults() - before) * resource.getpagesize()
        nbytes = values.nbytes
        del values
    print(pages / nbytes)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fresh") / "session.nwb"
    times = np.sort(np.random.default_rng(0).integers(0, 10**8, ROWS * LENGTH)) / 30_000
    with nwb(path) as file:
        group = table(file, "/units", ROWS, ["spike_times"])
        data = group.create_dataset(
            "spike_times", data=times, chunks=(LENGTH,), compression="gzip", compression_opts=1, shuffle=True
        )
        ends = group.create_dataset("spike_times_index", data=np.arange(1, ROWS + 1) * LENGTH)
        ends.attrs["target"] = data.ref
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count pages differently")
@pytest.mark.parametrize("remote", [False, True])
def test_values_alone_take_fresh_memory(path: Path, remote: bool) -> None:
    # as Dask starts its workers: freed memory goes back at once
    env = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536"}
    with RangeServer({"session.nwb": path.read_bytes()}) as server:
        url = server.url("session.nwb") if remote else str(path)
        run = subprocess.run(
            [sys.executable, "-c", PAGES, url], env=env, capture_output=True, text=True, timeout=60
        )
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 1.5, run.stdout
