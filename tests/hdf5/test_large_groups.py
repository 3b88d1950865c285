"""Groups of thousands of members are read in a time that grows with their number, in few round trips."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import pytest
from files import nwb, table
from h5py import h5d, h5p, h5s, h5t

import lazynwb_dask
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5 import links


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
    assert time.process_time() - walked < 10 * (walked - begun) + 1  # what grows with the square takes far more


def test_groups_beyond_the_limit_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        for i in range(9):
            table(file, f"/analysis/t{i}", 1, [])
    assert len(lazynwb_dask.list_tables(tmp_path / "a.nwb")) == 9
    monkeypatch.setattr(links, "MAX_GROUPS", 5)
    for ask in (lazynwb_dask.list_tables, lazynwb_dask.contents):
        with pytest.raises(NWBReadError, match=r"a\.nwb: more than 5 groups"):
            ask(tmp_path / "a.nwb")


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
