"""A column that some files can't give is missing in their rows, with ``on_error="skip"``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from files import nwb, ragged, table
from test_odd_tables import UNKNOWN, filtered

import lazynwb_dask
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError


def external(group: h5py.Group, name: str) -> None:
    group[name] = h5py.ExternalLink("other.nwb", f"/units/{name}")


def lost(group: h5py.Group, name: str) -> None:
    group[name] = h5py.SoftLink("/nowhere")


def coded(group: h5py.Group, name: str) -> None:
    filtered(group, name, (UNKNOWN,))


Sources = Callable[[list[str], Path], Any]
KINDS = {"external": external, "lost": lost, "coded": coded}


def files(folder: Path, kind: str) -> list[str]:
    """Three files: of the second, the spike times and the flags can't be read."""
    for i in range(3):
        with nwb(folder / f"{i}.nwb") as file:
            group = table(file, "/units", 4, ["n", "flag", "spike_times", "y"])
            group.create_dataset("y", data=np.arange(4.0) + 10 * i)
            group.create_dataset("n", data=np.arange(4) + 10 * i)
            if i == 1:
                for name in ("flag", "spike_times"):
                    KINDS[kind](group, name)
                index = group.create_dataset("spike_times_index", data=[1, 2, 3, 4])
                index.attrs["neurodata_type"] = "VectorIndex"
            else:
                group.create_dataset("flag", data=np.arange(4) + 10 * i)
                ragged(group, "spike_times", [1, 3, 3, 4], np.arange(4.0))
    return [str(folder / f"{i}.nwb") for i in range(3)]


def as_they_are(paths: list[str], folder: Path) -> Any:
    return paths


def as_catalog(paths: list[str], folder: Path) -> Any:
    return lazynwb_dask.build_catalog(paths, folder / "catalog", on_error="skip")


@pytest.mark.parametrize("sources", [as_they_are, as_catalog])
@pytest.mark.parametrize("kind", list(KINDS))
def test_what_one_file_cannot_give_is_missing_in_its_rows(tmp_path: Path, kind: str, sources: Sources) -> None:
    paths = files(tmp_path, kind)
    held = sources(paths, tmp_path)
    with pytest.warns(UserWarning, match=r"missing in their rows \(2 in all, the first: .*1\.nwb: .*'flag'"):
        frame = lazynwb_dask.read_nwb(held, "/units", on_error="skip")
    got = frame.compute()
    assert got._nwb_path.tolist() == [path for path in paths for _ in range(4)]
    assert got.flag.dtype == pd.ArrowDtype(pa.int64())
    assert got.flag.isna().tolist() == got.spike_times.isna().tolist() == [False] * 4 + [True] * 4 + [False] * 4
    assert got.flag.dropna().tolist() == [0, 1, 2, 3, 20, 21, 22, 23]
    assert got.spike_times.iloc[0] == [0.0]
    assert got.n.dtype == "int64"
    report = lazynwb_dask.read_report(frame)
    assert report.path.tolist() == [paths[1]] * 2
    assert all("missing in its rows" in error for error in report.error)
    chosen = frame[frame.flag > 2][["spike_times", "n"]].compute()
    assert chosen.n.tolist() == got[got.flag > 2].n.tolist()
    assert frame[frame.spike_times.isna()].y.compute().tolist() == [10.0, 11.0, 12.0, 13.0]
    with pytest.warns(UserWarning, match="missing in their rows"):
        named = lazynwb_dask.read_nwb(held, "/units", columns=["flag"], filters="flag >= 20", on_error="skip")
    assert named.compute().flag.tolist() == [20, 21, 22, 23]
    told = lazynwb_dask.schema_report(held, "/units", on_error="skip")
    assert told.problem["flag"] == ""
    assert "missing in its rows" in told.notes["flag"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_otherwise_the_column_is_left_out_and_an_error_if_it_was_named(tmp_path: Path, kind: str) -> None:
    paths = files(tmp_path, kind)
    with pytest.warns(UserWarning, match=r"left out.*1\.nwb"):
        frame = lazynwb_dask.read_nwb(paths, "/units")
    assert list(frame.columns[:-3]) == ["id", "n", "y"]
    with pytest.raises(UnsupportedColumnError, match=r"flag.*1\.nwb"):
        lazynwb_dask.read_nwb(paths, "/units", columns=["flag"])
    with pytest.raises(UnsupportedColumnError, match="flag"):
        lazynwb_dask.read_nwb(paths[1], "/units", columns=["flag"], on_error="skip")  # no file can


def test_under_a_given_schema_it_shows_while_reading(tmp_path: Path) -> None:
    paths = files(tmp_path, "external")
    schema = pa.schema([("flag", pa.int64()), ("n", pa.int64())])
    frame = lazynwb_dask.read_nwb(paths, "/units", schema=schema, on_error="skip")
    with pytest.warns(UserWarning, match="no column 'flag' in /units that can be read"):
        got = frame.compute()
    assert got.flag.isna().sum() == 4
    assert got.n.tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert lazynwb_dask.read_report(frame).path.tolist() == [paths[1]]
    with pytest.raises(NWBReadError, match=r"1\.nwb: /units: column 'flag'"):
        lazynwb_dask.read_nwb(paths, "/units", schema=schema).compute()
