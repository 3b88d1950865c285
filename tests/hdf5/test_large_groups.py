"""Groups of thousands of members are read in a time that grows with their number, in few round trips."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import pytest
from files import nwb
from h5py import h5d, h5p, h5s, h5t

import lazynwb_dask


@pytest.mark.parametrize("libver", ["latest", "earliest"])
def test_a_group_of_thousands_is_walked_about_as_fast_as_by_h5py(tmp_path: Path, libver: str) -> None:
    path = tmp_path / "a.nwb"
    with nwb(path, libver=libver) as file:
        for i in range(3000):
            file.create_group(f"acquisition/sweep_{i:05d}")
    lazynwb_dask.list_tables(path)
    begun = time.process_time()
    with h5py.File(path) as file:
        file.visititems(lambda name, thing: (thing.attrs.get("neurodata_type"), None)[1])
    walked = time.process_time()
    assert lazynwb_dask.list_tables(path) == []
    assert time.process_time() - walked < 3 * (walked - begun) + 0.2


def test_a_group_of_thousands_between_data_takes_few_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    plist = h5p.create(h5p.DATASET_CREATE)  # space is taken, nothing is written
    plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5d.FILL_TIME_NEVER)
    with nwb(path) as file:
        for i in range(2500):
            group = file.create_group(f"acquisition/sweep_{i:05d}")
            h5d.create(group.id, b"data", h5t.NATIVE_UINT8, h5s.create_simple((30_000,)), plist)
        file["acquisition/sweep_00004"].attrs["colnames"] = ["x"]
        file["acquisition/sweep_00004"]["id"] = [0]
    assert lazynwb_dask.list_tables(path) == ["/acquisition/sweep_00004"]
