"""List and struct columns survive what Dask does with their dtypes' names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from files import nwb, ragged, table
from hypothesis import given
from hypothesis import strategies as st

import lazynwb_dask
from lazynwb_dask import dtypes
from lazynwb_dask.datasets import make_sessions

leaves = st.sampled_from(
    [
        pa.int8(),
        pa.uint64(),
        pa.float32(),
        pa.float64(),
        pa.string(),
        pa.bool_(),
        pa.timestamp("us", "UTC"),
        pa.timestamp("ns"),
    ]
)
names = st.text("abcxyz_0123456789 ()[]", min_size=1, max_size=8) | st.sampled_from(
    ["x (um)", "amp(V)", "x[0]", "a: b", "time: s (UTC)", "x, y"]
)
types = st.recursive(
    leaves,
    lambda inner: (
        inner.map(pa.list_)
        | st.lists(st.tuples(names, inner), min_size=1, max_size=3, unique_by=lambda f: f[0]).map(pa.struct)
    ),
    max_leaves=6,
)


@given(types)
def test_every_nested_type_is_parsed_from_its_own_name(kind: pa.DataType) -> None:
    assert dtypes.parse(str(kind)) == kind
    if pa.types.is_nested(kind):
        assert pd.api.types.pandas_dtype(str(pd.ArrowDtype(kind))) == pd.ArrowDtype(kind)


@pytest.mark.parametrize("name", ["list<", "list<x: y>", "struct<a>", "nothing", "list<item: int8>>", ""])
def test_what_is_no_type_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"type|alias"):
        dtypes.parse(name)
    with pytest.raises(TypeError):
        pd.api.types.pandas_dtype(f"{name}[pyarrow]")


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dd.DataFrame:
    paths = make_sessions(tmp_path_factory.mktemp("s"), n=3, units=20, mean_spikes=50, trial_timeseries=True)
    return lazynwb_dask.read_nwb(paths, "/units", blocksize=None)


@pytest.fixture(scope="module")
def rois(tmp_path_factory: pytest.TempPathFactory) -> dd.DataFrame:
    """Regions with a struct column and one of lists of structs, as in imaging."""
    pixel = np.dtype([("x", "u4"), ("y", "u4"), ("weight", "f4")])
    paths = []
    for number in range(3):
        path = tmp_path_factory.mktemp("imaging") / f"{number}.nwb"
        with nwb(path) as file:
            group = table(file, "/units", 12, ["roi", "centre", "pixel_mask"])
            group.create_dataset("roi", data=np.arange(12) + 100 * number)
            group.create_dataset("centre", data=np.array([(i, 2 * i, 0.5) for i in range(12)], pixel))
            masks = np.array([(i, number, 1 / (i + 1)) for i in range(30)], pixel)
            ragged(group, "pixel_mask", np.linspace(0, 30, 13).astype(int)[1:], masks)
        paths.append(str(path))
    return lazynwb_dask.read_nwb(paths, "/units", blocksize=None)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_struct_columns_are_shuffled_and_merged_over_workers(rois: dd.DataFrame, client: Client) -> None:
    assert str(rois.dtypes["centre"]).startswith("struct<x: uint32, y: uint32")
    assert str(rois.dtypes["pixel_mask"]).startswith("list<item: struct<x: uint32")
    with client.as_current():
        left, right = rois[["roi", "centre", "pixel_mask"]], rois[["roi", "centre"]]
        joined = left.merge(right, on="roi", shuffle_method="p2p")
        assert any("p2p" in str(key) for key in joined.optimize().dask)
        got = joined.compute().sort_values("roi")
        shuffled = left.shuffle("roi", shuffle_method="p2p").compute().sort_index()
    whole = left.compute(scheduler="sync")
    wanted = whole.merge(right.compute(scheduler="sync"), on="roi").sort_values("roi")
    oracle.assert_same(got.reset_index(drop=True), wanted.reset_index(drop=True))
    oracle.assert_same(shuffled, whole)


def test_struct_columns_come_back_from_parquet(rois: dd.DataFrame, tmp_path: Path) -> None:
    frame = rois[["roi", "centre", "pixel_mask", "_nwb_path"]]
    frame.to_parquet(str(tmp_path / "rois"))
    again = dd.read_parquet(str(tmp_path / "rois"))
    assert again.dtypes.to_dict() == frame.dtypes.to_dict()
    oracle.assert_same(again.compute(), frame.compute())


def test_list_columns_are_shuffled_and_merged_over_workers(units: dd.DataFrame, client: Client) -> None:
    with client.as_current():
        left = units[["unit_id", "spike_times", "obs_intervals"]]
        right = units[["unit_id", "location", "electrodes"]]
        got = left.merge(right, on="unit_id").compute().sort_values("unit_id")
        shuffled = left.shuffle("unit_id").compute().sort_index()
    wanted = left.compute().merge(right.compute(), on="unit_id").sort_values("unit_id")
    oracle.assert_same(got.reset_index(drop=True), wanted.reset_index(drop=True))
    oracle.assert_same(shuffled, left.compute())


def test_a_frame_comes_back_from_parquet_with_its_dtypes(units: dd.DataFrame, tmp_path: Path) -> None:
    frame = units[["unit_id", "location", "spike_times", "waveform_mean"]]
    frame.to_parquet(str(tmp_path / "units"))
    again = dd.read_parquet(str(tmp_path / "units"))
    assert again.dtypes.to_dict() == frame.dtypes.to_dict()
    oracle.assert_same(again.compute(), frame.compute())


def test_sessions_and_their_lists_of_times_come_back_from_parquet(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path / "s", n=2, units=2, mean_spikes=5, channels=2, samples=10)
    sessions = lazynwb_dask.read_sessions(paths)
    assert "timestamp[" in str(sessions.dtypes["file_create_date"])
    sessions.to_parquet(tmp_path / "p")
    found = dd.read_parquet(tmp_path / "p")
    pd.testing.assert_frame_equal(found.compute(), sessions.compute())


def test_sessions_are_shuffled_over_workers(client: Client, tmp_path: Path) -> None:
    paths = make_sessions(tmp_path, n=3, units=2, mean_spikes=5, channels=2, samples=10)
    sessions = lazynwb_dask.read_sessions(paths)
    with client.as_current():
        shuffled = sessions.shuffle("identifier", npartitions=2, shuffle_method="p2p")
        assert any("p2p" in str(key) for key in shuffled.optimize().dask)
        found = shuffled.compute()
    expected = sessions.compute()
    found = found.set_index("identifier").loc[expected.identifier].reset_index()
    pd.testing.assert_frame_equal(
        found[list(expected.columns)].reset_index(drop=True), expected.reset_index(drop=True)
    )
