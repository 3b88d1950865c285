"""Row and column vectors where NWB has lists, and other shapes: the values, or a warning or an error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from files import nwb, table

import lazynwb_dask
from lazynwb_dask.errors import NWBReadError

SPIKES = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
ROWS = [[0.1, 0.2], [0.3, 0.4, 0.5]]
CHUNKED = {"chunks": True, "compression": "gzip"}


def units(path: Path, ids: Any, index: Any, spikes: Any, target: str = "spike_times", **kwargs: Any) -> str:
    with nwb(path) as file:
        group = table(file, "/units", 1, ["spike_times"])
        del group["id"]
        group["id"] = ids
        group["spike_times"] = spikes
        made = group.create_dataset("spike_times_index", data=index, **kwargs)
        made.attrs["neurodata_type"] = "VectorIndex"
        if target:
            made.attrs["target"] = group[target].ref
    return str(path)


def lists(frame: pd.DataFrame, name: str = "spike_times") -> list[list[Any]]:
    return [list(value) for value in frame[name]]


@pytest.mark.parametrize(
    ("shape", "target", "kwargs"),
    [
        ((2, 1), "spike_times", {}),
        ((1, 2), "spike_times", CHUNKED),
        ((1, 2), "", {}),
        ((2,), "spike_times_index", {}),
        ((2, 1), "spike_times_index", CHUNKED),
        ((2,), "id", CHUNKED),
    ],
)
def test_a_vector_index_may_be_a_row_or_a_column_vector_whatever_its_target(
    tmp_path: Path, shape: tuple[int, ...], target: str, kwargs: dict[str, Any]
) -> None:
    path = units(tmp_path / "a.nwb", [3, 4], np.uint8([2, 5]).reshape(shape), SPIKES, target, **kwargs)
    frame = lazynwb_dask.read_nwb(path, "/units")
    assert list(frame.columns[:-3]) == ["id", "spike_times"]
    assert lists(frame.compute()) == ROWS
    assert lists(frame[frame.id == 4].compute()) == ROWS[1:]
    catalog = lazynwb_dask.build_catalog([path], tmp_path / "catalog")
    assert lists(lazynwb_dask.read_nwb(catalog, "/units").compute()) == ROWS


@pytest.mark.parametrize("ids", [7, [7], [[7]]])
@pytest.mark.parametrize("target", ["spike_times", "", "spike_times_index"])
def test_a_vector_index_may_be_a_scalar(tmp_path: Path, ids: Any, target: str) -> None:
    good = units(tmp_path / "good.nwb", [0, 1], [2, 5], SPIKES)
    path = units(tmp_path / "a.nwb", ids, np.uint8(5), SPIKES, target)
    frame = lazynwb_dask.read_nwb([good, path], "/units").compute()
    assert lists(frame) == [*ROWS, SPIKES.tolist()]
    assert frame.id.tolist() == [0, 1, 7]


def test_a_scalar_without_a_type_is_the_index_of_a_table_of_one_row(tmp_path: Path) -> None:
    for name, rows in (("one", 1), ("three", 3)):
        with nwb(tmp_path / f"{name}.nwb") as file:
            group = table(file, "/units", rows, ["x"])
            group["x"] = SPIKES[:3]
            group["x_index"] = np.uint8(3)
    one = lazynwb_dask.read_nwb(tmp_path / "one.nwb", "/units").compute()
    assert list(one.columns[:-3]) == ["id", "x"]
    assert lists(one, "x") == [SPIKES[:3].tolist()]
    assert lazynwb_dask.read_nwb(tmp_path / "three.nwb", "/units").compute().x.tolist() == SPIKES[:3].tolist()


def test_of_two_indexes_of_one_column_that_by_name_is_taken(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 2, ["x"])
        group["x"] = SPIKES
        for name, ends in (("a_index", [1, 5]), ("x_index", [2, 5]), ("z_index", [3, 5])):
            group[name] = ends
            group[name].attrs["target"] = group["x"].ref
    assert lists(lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units").compute(), "x") == ROWS


@pytest.mark.parametrize("alias", ["a", "y", "y_index"])
@pytest.mark.parametrize("soft", [True, False])
def test_a_second_link_to_a_ragged_column_or_its_index_changes_nothing(
    tmp_path: Path, alias: str, soft: bool
) -> None:
    path = units(tmp_path / "a.nwb", [3, 4], [2, 5], SPIKES)
    original = "/units/spike_times" + ("_index" if "_index" in alias else "")
    with h5py.File(path, "a") as file:
        file[f"/units/{alias}"] = h5py.SoftLink(original) if soft else file[original]
    frame = lazynwb_dask.read_nwb(path, "/units").compute()
    names = ["spike_times"] if "_index" in alias else ["spike_times", alias]
    assert list(frame.columns[:-3]) == ["id", *names]
    assert [lists(frame, name) for name in names] == [ROWS] * len(names)


def test_columns_that_are_each_others_index_are_told_of(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 2, ["x", "y"])
        group["x"], group["y"] = [1, 2], [1, 2]
        group["x"].attrs["target"], group["y"].attrs["target"] = group["y"].ref, group["x"].ref
    with pytest.warns(UserWarning, match="circle"):
        assert list(lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units").columns[:-3]) == ["id"]


@pytest.mark.parametrize("chunks", [None, (1, 1), (1, 2)])
def test_a_vector_index_of_a_vector_index_may_be_a_row_vector(tmp_path: Path, chunks: Any) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 2, ["w"])
        group["w"] = np.arange(6)
        for name, target, ends in (("w_index", "w", [[2], [3], [6]]), ("w_index_index", "w_index", [[1, 3]])):
            made = group.create_dataset(name, data=ends, chunks=chunks if len(ends) == 1 else None)
            made.attrs["neurodata_type"] = "VectorIndex"
            made.attrs["target"] = group[target].ref
    frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units")
    assert list(frame.columns[:-3]) == ["id", "w"]
    assert [[list(x) for x in row] for row in frame.compute().w] == [[[0, 1]], [[2], [3, 4, 5]]]


def test_a_row_vector_in_many_chunks_is_all_of_its_values(tmp_path: Path) -> None:
    n = 9000
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 1, ["x"])
        del group["id"]
        group.create_dataset("id", data=np.arange(n)[None], chunks=(1, 2), compression="gzip")
        group.create_dataset("x", data=np.arange(n)[None] * 2.0, chunks=(1, 500))
    frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units", blocksize="64 kiB").compute()
    assert frame.id.tolist() == list(range(n))
    assert (frame.x == frame.id * 2).all()


def test_values_of_a_ragged_column_may_be_a_row_vector(tmp_path: Path) -> None:
    path = units(tmp_path / "a.nwb", [3, 4], [2, 5], SPIKES[None])
    assert lists(lazynwb_dask.read_nwb(path, "/units").compute()) == ROWS
    path = units(tmp_path / "b.nwb", [3, 4], [0, 1], SPIKES[None])  # one item of five values
    assert [[list(x) for x in v] for v in lists(lazynwb_dask.read_nwb(path, "/units").compute())] == [
        [],
        [SPIKES.tolist()],
    ]


@pytest.mark.parametrize("shape", [(2, 2), (2, 1, 2)])
def test_a_vector_index_of_another_shape_is_told_of(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = units(tmp_path / "a.nwb", [0, 1], np.arange(4).reshape(shape), SPIKES)
    with pytest.warns(UserWarning, match=r"1 columns are left out.*spike_times: the shape \(2, .*_index"):
        frame = lazynwb_dask.read_nwb(path, "/units")
    assert list(frame.columns[:-3]) == ["id"]
    assert len(frame.compute()) == 2


def test_a_vector_index_of_more_rows_than_the_table_is_told_of(tmp_path: Path) -> None:
    path = units(tmp_path / "a.nwb", [0, 1], [0, 2, 5], SPIKES)
    with pytest.warns(UserWarning, match=r"a\.nwb: /units: the VectorIndex of column 'spike_times' has 3 rows"):
        lazynwb_dask.read_nwb(path, "/units")


def test_ragged_values_in_matlabs_order_of_dimensions_are_an_error(tmp_path: Path) -> None:
    path = units(tmp_path / "a.nwb", [0, 1], [2, 5], np.zeros((3, 5)))
    with pytest.raises(NWBReadError, match=r"'spike_times'.*points to row 5 of values of the shape \(3, 5\)"):
        lazynwb_dask.read_nwb(path, "/units").compute()


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
@pytest.mark.parametrize("kwargs", [{}, CHUNKED, {"chunks": (1, 1)}])
def test_ids_and_columns_may_be_row_vectors(
    tmp_path: Path, shape: tuple[int, int], kwargs: dict[str, Any]
) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/intervals/trials", 4, ["start_time", "name"])
        del group["id"]
        group.create_dataset("id", data=np.arange(4).reshape(shape), **kwargs)
        group.create_dataset("start_time", data=np.arange(4.0)[None], **kwargs)
        group.create_dataset("name", data=np.array([[b"a", b"b", b"c", b"d"]]), **kwargs)
        group.create_dataset("more", data=np.arange(4)[None], **kwargs)  # in no colnames
    frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "trials").compute()
    assert frame.id.tolist() == frame.more.tolist() == list(range(4))
    assert frame.start_time.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert frame.name.tolist() == ["a", "b", "c", "d"]
    assert lazynwb_dask.contents(tmp_path / "a.nwb").rows.tolist() == [4]


@pytest.mark.parametrize("chunks", [None, (2, 2)])
def test_shapes_that_are_no_lists_cost_no_rows_and_are_told_of(tmp_path: Path, chunks: Any) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 1, ["x", "waveform_mean"])
        del group["id"]
        group.create_dataset("id", data=np.zeros((2, 3)), chunks=chunks)
        group["x"] = np.arange(3)
        group["waveform_mean"] = np.zeros((5, 3))  # of MATLAB: the units come last
    with pytest.warns(UserWarning, match=r"2 columns are left out.*id: .*\(2, 3\).*waveform_mean: .*\(5, 3\)"):
        frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units")
    assert frame.compute().x.tolist() == [0, 1, 2]


def series(path: Path, data: Any, times: Any, **kwargs: Any) -> str:
    with nwb(path) as file:
        group = file.create_group("acquisition/s")
        group.attrs["neurodata_type"] = "TimeSeries"
        group.create_dataset("timestamps", data=times, **kwargs)
        if data is not None:
            group.create_dataset("data", data=data, **kwargs)
    return str(path)


@pytest.mark.parametrize("kwargs", [{}, CHUNKED])
@pytest.mark.parametrize("shape", [(1, 50), (50, 1)])
def test_timestamps_and_data_may_be_row_vectors(
    tmp_path: Path, shape: tuple[int, int], kwargs: dict[str, Any]
) -> None:
    path = series(tmp_path / "a.nwb", np.arange(50)[None], np.arange(50.0).reshape(shape), **kwargs)
    frame = lazynwb_dask.read_nwb(path, "/acquisition/s")
    got = frame.compute()
    assert got.timestamps.tolist() == got.data.tolist() == list(range(50))
    assert len(frame[frame.timestamps >= 40].compute()) == 10
    opened = lazynwb_dask.open_timeseries(path, "s")
    assert opened.data.compute().tolist() == opened.timestamps.compute().tolist() == list(range(50))
    assert lazynwb_dask.contents(path).rows.tolist() == [50]


@pytest.mark.parametrize("data", [np.arange(50.0), np.zeros((50, 3))])
def test_timestamps_of_another_shape_cost_no_rows_and_are_told_of(tmp_path: Path, data: np.ndarray) -> None:
    path = series(tmp_path / "a.nwb", data, np.zeros((2, 50)))
    with pytest.warns(UserWarning, match=r"timestamps: its shape \(2, 50\)"):
        frame = lazynwb_dask.read_nwb(path, "/acquisition/s")
    assert len(frame.compute()) == 50
    with pytest.warns(UserWarning, match=r"opened without timestamps: .*\(2, 50\)"):
        assert lazynwb_dask.open_timeseries(path, "s").data.shape == data.shape


def test_data_whose_channels_come_first_cost_no_rows_and_are_told_of(tmp_path: Path) -> None:
    path = series(tmp_path / "a.nwb", np.zeros((2, 50)), np.arange(50.0))
    with pytest.warns(UserWarning, match=r"data: its shape \(2, 50\)"):
        frame = lazynwb_dask.read_nwb(path, "/acquisition/s")
    assert frame.compute().timestamps.tolist() == list(range(50))


def test_ordinary_shapes_are_read_without_a_word(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 3, ["waveform_mean", "one", "peak_index"])
        group["waveform_mean"] = np.arange(6.0).reshape(3, 2)
        group["one"] = np.arange(3.0).reshape(3, 1)
        group["peak"] = np.arange(3)
        group["peak_index"] = np.arange(6).reshape(3, 2)  # a column, though its name ends so
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units").compute()
    with h5py.File(tmp_path / "a.nwb") as file:
        for name in ("waveform_mean", "one", "peak", "peak_index"):
            assert [list(v) if name != "peak" else v for v in frame[name]] == file["units"][name][:].tolist()
