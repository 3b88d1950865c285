"""A table in Awkward Array: every value, no Python objects, lazily by partitions."""

from __future__ import annotations

from pathlib import Path

import dask
import h5py
import numpy as np
import pytest
from files import nwb, ragged, table

from lazynwb_dask import read_nwb, to_awkward
from lazynwb_dask.datasets import make_sessions

ak = pytest.importorskip("awkward")


def test_records_have_every_value_and_options_only_where_something_is_missing(tmp_path: Path) -> None:
    for n in range(2):
        with nwb(tmp_path / f"{n}.nwb") as file:
            units = table(file, "units", 3, ["real", "spike_times", "grid"])
            units["real"] = np.array([np.nan, 1.0, 2.0])
            ragged(units, "spike_times", [2, 2, 3], np.array([0.1, np.nan, 0.3]))
            units["grid"] = np.arange(12, dtype="<i2").reshape(3, 2, 2)
            if n:
                units["count"] = np.arange(3)
                units["depth"] = np.array([np.nan, 1.0, 2.0])
                units["label"] = np.array(["x", "", "z"], h5py.string_dtype())
    frame = read_nwb(str(tmp_path), "/units")[["real", "spike_times", "grid", "count", "label", "depth"]]
    found = to_awkward(frame)
    assert str(found.type) == (
        "6 * {real: float64, spike_times: var * float64, grid: var * var * int16, "
        "count: ?int64, label: ?string, depth: ?float64}"
    )
    assert np.array_equal(found.real.to_numpy(), [np.nan, 1, 2] * 2, equal_nan=True)
    assert ak.num(found.spike_times).tolist() == [2, 0, 1] * 2
    assert ak.to_numpy(found.grid).tolist() == np.tile(np.arange(12).reshape(3, 2, 2), (2, 1, 1)).tolist()
    assert found.depth.tolist()[:3] + found.depth.tolist()[4:] == [None] * 3 + [1.0, 2.0]
    assert np.isnan(found.depth[3])
    assert found["count"].tolist() == [None] * 3 + [0, 1, 2]
    assert found.label.tolist() == [None] * 3 + ["x", "", "z"]
    assert to_awkward(frame[frame.real > 9]).tolist() == []


def test_spikes_are_those_of_h5py_over_arrows_buffers(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=20, trials=5)
    rows = read_nwb(path, "/units")[["unit_id", "spike_times"]].compute()
    found = to_awkward(rows)
    with h5py.File(path) as file:
        stored = file["units/spike_times"][:]
        ends = file["units/spike_times_index"][:]
    assert np.array_equal(ak.flatten(found.spike_times).to_numpy(), stored)
    assert ak.num(found.spike_times).to_list() == np.diff(ends.astype(int), prepend=0).tolist()
    (chunk,) = rows.spike_times.array.__arrow_array__().chunks
    assert np.shares_memory(found.spike_times.layout.content.data, chunk.values.to_numpy())


def test_partitions_are_arrays_of_their_own_lazily(tmp_path: Path) -> None:
    units = read_nwb(make_sessions(tmp_path, n=3, units=5, trials=5), "/units", blocksize=None)
    parts = [dask.delayed(to_awkward)(part) for part in units[["unit_id", "spike_times"]].to_delayed()]
    first = [dask.delayed(lambda a: ak.firsts(a.spike_times))(part) for part in parts]
    found = ak.concatenate(dask.compute(*first))
    assert found.tolist() == ak.firsts(to_awkward(units).spike_times).tolist()
    assert len(found) == 15


def test_categories_are_their_values(tmp_path: Path) -> None:
    units = read_nwb(make_sessions(tmp_path, n=2, units=5), "/units")
    found = to_awkward(units.assign(kind=units.structure.astype("category"))[["kind"]])
    assert found.kind.tolist() == units.structure.compute().tolist()


def test_what_a_join_lacks_of_integers_and_booleans_is_missing(tmp_path: Path) -> None:
    units = read_nwb(make_sessions(tmp_path, n=2, units=4), "/units")[["id"]]
    some = units[units.id < 2].head(2, npartitions=-1).assign(n=7, yes=True)
    found = to_awkward(units.merge(some, on="id", how="left"))
    assert found.n.tolist() == [7, 7, None, None] * 2
    assert found.yes.tolist() == [True, True, None, None] * 2
