"""What a task takes of memory depends on the block size, and not on the file."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from files import nwb, table
from servers import RangeServer

UNITS, SPIKES = 2048, 131_072  # 2 GiB of float64 in one column of one file
MIB = 1 << 20

MEASURED = """
import json, sys
import dask
import lazynwb_dask

def memory(what):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))

if __name__ == "__main__":
    url, blocksize, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    dask.config.set({"lazynwb-dask.cache": False})
    small = lazynwb_dask.read_nwb(url, "/units")
    small.unit_id.sum().compute(scheduler="sync")  # what is loaded once is loaded
    frame = lazynwb_dask.read_nwb(url, "/units", blocksize=blocksize)
    before = memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    rows = frame.spike_times.map_partitions(len, meta=("n", "i8"))
    count = int(rows.sum().compute(scheduler="threads", num_workers=workers))
    print(json.dumps([frame.npartitions, count, memory("VmHWM") - before]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.nwb"
    times = np.cumsum(np.repeat(np.random.default_rng(0).integers(1, 9, SPIKES // 64), 64))
    chunk = zlib.compress(times.astype("<f8").tobytes(), 1)
    with nwb(path) as file:
        group = table(file, "/units", UNITS, ["unit_id", "spike_times"])
        group.create_dataset("unit_id", data=np.arange(UNITS))
        data = group.create_dataset(
            "spike_times", (UNITS * SPIKES,), "<f8", chunks=(SPIKES,), compression="gzip"
        )
        for unit in range(UNITS):
            data.id.write_direct_chunk((unit * SPIKES,), chunk)
        ends = group.create_dataset("spike_times_index", data=np.arange(1, UNITS + 1) * SPIKES)
        ends.attrs["target"] = data.ref
    with h5py.File(path) as file:
        assert file["units/spike_times"].nbytes == 2 << 30
    return path


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of memory")
@pytest.mark.parametrize(
    ("where", "blocksize", "workers"), [("http", 128 * MIB, 1), ("http", 32 * MIB, 2), ("disk", 32 * MIB, 2)]
)
def test_two_gigabytes_in_one_column_take_less_than_three_blocks_a_task(
    large: Path, where: str, blocksize: int, workers: int
) -> None:
    with RangeServer() as server:
        url = str(large) if where == "disk" else server.put("large.nwb", large.read_bytes())
        ran = subprocess.run(
            [sys.executable, "-c", MEASURED, url, str(blocksize), str(workers)],
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
    assert not ran.returncode, ran.stderr
    partitions, rows, grown = json.loads(ran.stdout)
    assert partitions >= (2 << 30) // blocksize
    assert rows == UNITS
    assert grown < 3 * blocksize * workers, f"{grown >> 20} MiB"
