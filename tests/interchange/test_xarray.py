"""Tables and series in xarray: every value, arrays with dimensions, ragged columns by the CF conventions."""

from __future__ import annotations

import sys
from pathlib import Path

import dask
import h5py
import numpy as np
import pytest
import xarray as xr
from files import nwb, ragged, table

from lazynwb_dask import (
    build_catalog,
    open_timeseries,
    read_nwb,
    read_sessions,
    to_awkward,
    to_polars,
    to_pynapple,
    to_xarray,
    trace,
)
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import UnsupportedColumnError


def units_file(path: Path, rows: int, *, whole: bool = True) -> str:
    rng = np.random.default_rng(rows)
    with nwb(path) as file:
        units = table(file, "units", rows, ["spike_times", "obs_intervals", "xyz", "count", "label"])
        ends = np.arange(1, rows + 1) * 3  # as if they were of a fixed shape
        ragged(units, "spike_times", ends, rng.random(3 * rows))
        units["spike_times"].attrs.update(description="when", unit="seconds")
        ragged(
            units, "obs_intervals", np.cumsum(np.arange(rows) % 3), rng.random((sum(np.arange(rows) % 3), 2))
        )
        units["label"] = np.array(["a"] * rows, h5py.string_dtype())
        units["label"].attrs["description"] = "a name"
        if whole:
            units["xyz"] = rng.random((rows, 2, 3))
            units["count"] = rng.integers(0, 9, rows)
    return str(path)


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
def test_a_table_has_every_value_of_the_file(tmp_path: Path, scheduler: str) -> None:
    paths = [units_file(tmp_path / f"{n}.nwb", n) for n in (4, 1)]
    with dask.config.set(scheduler=scheduler):
        found = to_xarray(read_nwb(paths, "/units"), dim="unit")
    with h5py.File(paths[0]) as one, h5py.File(paths[1]) as other:

        def both(name: str) -> np.ndarray:
            return np.concatenate([file[f"units/{name}"][:] for file in (one, other)])

        assert found.xyz.dims == ("unit", "xyz_dim_1", "xyz_dim_2")
        assert found.spike_times.dims == ("spike_times_sample",)
        assert found.obs_intervals.dims == ("obs_intervals_sample", "obs_intervals_dim_1")
        for name in ("xyz", "spike_times", "obs_intervals", "count"):
            assert np.array_equal(found[name].values, both(name)), name
    assert found.spike_times_row_size.values.tolist() == [3] * 5  # though all are as long
    assert found.spike_times_row_size.attrs["sample_dimension"] == "spike_times_sample"
    assert found.obs_intervals_row_size.values.tolist() == [0, 1, 2, 0, 0]
    assert found.spike_times.attrs == {"description": "when", "unit": "seconds", "units": "seconds"}
    assert found.label.attrs == {"description": "a name"}
    assert found.label.values.tolist() == ["a"] * 5
    assert found.unit.values.tolist() == list(range(5))


def test_what_a_file_lacks_is_missing_in_its_rows(tmp_path: Path) -> None:
    paths = [units_file(tmp_path / "a.nwb", 3, whole=False), units_file(tmp_path / "b.nwb", 2)]
    found = to_xarray(read_nwb(paths, "/units"))
    assert found.xyz.dims == ("row", "xyz_dim_1", "xyz_dim_2")
    with h5py.File(paths[1]) as file:
        assert np.array_equal(found.xyz.values[3:], file["units/xyz"][:])
        assert np.array_equal(found["count"].values[3:], file["units/count"][:])
    assert np.isnan(found.xyz.values[:3]).all()
    assert np.isnan(found["count"].values[:3]).all()


def test_times_with_a_zone_are_in_utc_and_a_dataset_can_be_written(tmp_path: Path) -> None:
    sessions = read_sessions(make_sessions(tmp_path, n=2, units=3, trials=5))
    found = to_xarray(sessions[["session_start_time", "file_create_date", "keywords", "identifier"]])
    expected = sessions.compute()
    for name, times in (("session_start_time", expected.session_start_time),
                        ("file_create_date", expected.file_create_date.explode())):  # fmt: skip
        stamps = [stamp.tz_convert(None).to_datetime64() for stamp in times]
        assert found[name].dtype.kind == "M"
        assert found[name].values.ravel().tolist() == np.array(stamps, found[name].dtype).tolist()
    pytest.importorskip("zarr", minversion="3.0")
    found.to_zarr(tmp_path / "sessions.zarr")
    assert xr.open_zarr(tmp_path / "sessions.zarr").load().equals(found)


def test_frames_of_any_making_give_the_same_values(tmp_path: Path) -> None:
    frame = read_nwb([units_file(tmp_path / f"{n}.nwb", n) for n in (4, 5)], "/units")
    some = frame[frame["count"] > 2]
    expected = to_xarray(some)
    catalog = build_catalog(sorted({*frame._nwb_path.compute()}), str(tmp_path / "catalog"))
    of_catalog = read_nwb(catalog, "/units")
    of_catalog = of_catalog[of_catalog["count"] > 2]
    assert to_xarray(of_catalog).equals(expected)
    for made in (some.persist(), some.compute(), some.assign(id=some.id + 0)):
        found = to_xarray(made)
        assert np.array_equal(found.xyz.values, expected.xyz.values)
        assert np.array_equal(found.obs_intervals.values, expected.obs_intervals.values)
        assert found.row.values.tolist() == expected.row.values.tolist()
    assert to_xarray(frame[frame["count"] > 99]).sizes["row"] == 0


def test_references_to_series_are_one_variable_for_each_field(tmp_path: Path) -> None:
    kind = np.dtype([("idx_start", "<i4"), ("count", "<i4"), ("timeseries", h5py.ref_dtype)])
    with nwb(tmp_path / "a.nwb") as file:
        series = file.create_group("acquisition/s")
        trials = table(file, "intervals/trials", 2, ["start_time", "timeseries"])
        trials["start_time"] = np.array([0.0, 1.0])
        ragged(
            trials,
            "timeseries",
            [2, 3],
            np.array([(0, 1, series.ref), (1, 2, series.ref), (3, 3, series.ref)], kind),
        )
    found = to_xarray(read_nwb(tmp_path / "a.nwb", "trials"))
    assert found.timeseries_row_size.values.tolist() == [2, 1]
    assert found.timeseries_idx_start.values.tolist() == [0, 1, 3]
    assert found.timeseries_count.values.tolist() == [1, 2, 3]
    assert found.timeseries_timeseries.values.tolist() == ["/acquisition/s"] * 3


def test_what_xarray_cant_hold_is_named_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        units = table(file, "units", 2, ["deep", "x", "x_sample"])
        ragged(units, "deep", [2, 4], np.zeros(0))
        del units["deep"]
        units["deep"] = np.arange(6.0)
        first = units.create_dataset("deep_index_index", data=np.array([1, 3]))
        units["deep_index"][:] = [1, 3]
        del units["deep_index"]
        second = units.create_dataset("deep_index", data=np.array([1, 3, 6]))
        for index, target in ((first, second), (second, units["deep"])):
            index.attrs.update(neurodata_type="VectorIndex", namespace="hdmf-common", target=target.ref)
        units["x"] = np.arange(2)
    frame = read_nwb(tmp_path / "a.nwb", "/units")
    with pytest.raises(UnsupportedColumnError, match=r"column 'deep'.*frame.drop\(columns='deep'\)"):
        to_xarray(frame)
    assert to_xarray(frame.drop(columns="deep")).x.values.tolist() == [0, 1]
    with pytest.raises(ValueError, match="column 'x' becomes 'x', which is taken: give another dim="):
        to_xarray(frame[["x"]], dim="x")
    with pytest.raises(TypeError, match="Series: give a frame"):
        to_xarray(frame.x)
    for package, call in (
        ("polars", to_polars),
        ("xarray", to_xarray),
        ("awkward", to_awkward),
        ("pynapple", to_pynapple),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"{call.__name__} needs {package}.*lazynwb-dask\[{package}\]"):
            call(frame)


def test_columns_with_the_name_of_a_dimension_are_named(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        units = table(file, "units", 2, ["w", "w_dim_1", "st", "st_sample"])
        units["w"] = np.ones((2, 3))
        ragged(units, "st", [1, 3], np.arange(3.0))
        for name in ("w_dim_1", "st_sample"):
            units[name] = np.arange(2)
    frame = read_nwb(tmp_path / "a.nwb", "/units")
    for column, dimension in (("w", "w_dim_1"), ("st", "st_sample")):
        with pytest.raises(ValueError, match=f"column '{column}' has a dimension '{dimension}', which"):
            to_xarray(frame[[column, dimension]])
        with pytest.raises(ValueError, match=f"column '{column}' .*taken: give another dim="):
            to_xarray(frame[[column]], dim=dimension)
        assert column in to_xarray(frame[[column]])


def test_a_series_is_lazy_and_has_the_values_units_and_times_of_the_file(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=5, trials=5, lfp_shape=(3000, 8))
    with h5py.File(path, "r+") as file:
        file[f"{open_timeseries(path, 'lfp').path}/starting_time"][()] = 7.5
    lfp = open_timeseries(path, "lfp")
    with trace() as seen:
        stored, scaled = lfp.to_xarray(), lfp.to_xarray(scaled=True)
        assert stored.chunks is not None
        assert dask.is_dask_collection(stored.time.data)
    assert seen.total.requests == 0
    with h5py.File(path) as file:
        series = file["acquisition/lfp"] if "acquisition/lfp" in file else file[lfp.path]
        data, factor = series["data"][:], series["data"].attrs["conversion"]
        assert np.array_equal(stored.values, data)
        assert np.allclose(scaled.values, data * factor, rtol=1e-12)
        assert stored.electrodes.values.tolist() == series["electrodes"][:].tolist()
        start = series["starting_time"]
        assert np.allclose(stored.time.values, start[()] + np.arange(3000) / start.attrs["rate"])
    assert (stored.dims, stored.name) == (("time", "channel"), "lfp")
    assert (stored.unit, scaled.units, stored.conversion) == (lfp.unit, lfp.unit, factor)
    assert "units" not in stored.attrs
    with trace() as part:
        assert np.array_equal(stored[5:9, 1].values, data[5:9, 1])
    assert part.total.requests
    some = scaled.set_xindex("time").sel(time=slice(100, 200))
    assert some.sizes["time"] == ((stored.time >= 100) & (stored.time <= 200)).sum()
    assert isinstance(some, xr.DataArray)
