"""List and struct columns survive what Dask does with their dtypes' names."""

from __future__ import annotations

from pathlib import Path

import dask.dataframe as dd
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

import lazynwb_dask
from lazynwb_dask import dtypes
from lazynwb_dask.datasets import make_sessions

leaves = st.sampled_from(
    [pa.int8(), pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.bool_()]
)
names = st.text("abcxyz_0123456789", min_size=1, max_size=8)
types = st.recursive(
    leaves,
    lambda inner: (
        inner.map(pa.list_)
        | st.lists(st.tuples(names, inner), min_size=1, max_size=3, unique_by=lambda f: f[0]).map(
            pa.struct
        )
    ),
    max_leaves=6,
)


@given(types)
def test_every_nested_type_is_parsed_from_its_own_name(kind: pa.DataType) -> None:
    assert dtypes.parse(str(kind)) == kind
    if pa.types.is_nested(kind):
        assert pd.api.types.pandas_dtype(str(pd.ArrowDtype(kind))) == pd.ArrowDtype(kind)


@pytest.mark.parametrize(
    "name", ["list<", "list<x: y>", "struct<a>", "nothing", "list<item: int8>>", ""]
)
def test_what_is_no_type_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"type|alias"):
        dtypes.parse(name)
    with pytest.raises(TypeError):
        pd.api.types.pandas_dtype(f"{name}[pyarrow]")


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> dd.DataFrame:
    paths = make_sessions(
        tmp_path_factory.mktemp("s"), n=3, units=20, mean_spikes=50, trial_timeseries=True
    )
    return lazynwb_dask.read_nwb(paths, "/units", blocksize=None)


def test_list_columns_are_shuffled_and_merged_over_workers(units: dd.DataFrame) -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        left = units[["unit_id", "spike_times", "obs_intervals"]]
        right = units[["unit_id", "location", "electrodes"]]
        got = left.merge(right, on="unit_id").compute().sort_values("unit_id")
        shuffled = left.shuffle("unit_id").compute().sort_index()
    wanted = left.compute().merge(right.compute(), on="unit_id").sort_values("unit_id")
    oracle.assert_same(got.reset_index(drop=True), wanted.reset_index(drop=True))
    oracle.assert_same(shuffled, left.compute())


def test_a_frame_comes_back_from_parquet_with_its_dtypes(
    units: dd.DataFrame, tmp_path: Path
) -> None:
    frame = units[["unit_id", "location", "spike_times", "waveform_mean"]]
    frame.to_parquet(str(tmp_path / "units"))
    again = dd.read_parquet(str(tmp_path / "units"))
    assert again.dtypes.to_dict() == frame.dtypes.to_dict()
    oracle.assert_same(again.compute(), frame.compute())
