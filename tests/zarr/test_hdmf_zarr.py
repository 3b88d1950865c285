"""One session, written by pynwb to HDF5 and by hdmf-zarr to Zarr, reads the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from pynwb_session import session, write_hdf5, write_zarr
from servers import RangeServer
from stores import serve
from test_same_frames import assert_equal, same

import lazynwb_dask
from lazynwb_dask.errors import UnsupportedColumnError

hdmf_zarr = pytest.importorskip("hdmf_zarr", reason="hdmf-zarr isn't installed")
VERSION = 3 if Path(hdmf_zarr.__file__).with_name("backend_zarrv2.py").exists() else 2
# hdmf-zarr pickles references in version 2
PICKLED = {"electrode_group", "group", "timeseries"} if VERSION == 2 else set()
DOCUMENT = {2: ".zmetadata", 3: "zarr.json"}[VERSION]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The store, and the file."""
    folder = tmp_path_factory.mktemp("pair")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = write_hdf5(session(), folder / "a.nwb")
        yield write_zarr(session(), folder / "a.nwb.zarr"), file


@pytest.mark.filterwarnings("ignore:.*left out of the frame")
def test_all_that_is_told_of_the_file_is_told_of_the_store(pair: tuple[str, Path]) -> None:
    store, file = pair
    assert (Path(store) / DOCUMENT).exists()
    assert_equal(store, file, but=PICKLED)


@pytest.mark.skipif(VERSION == 3, reason="references are texts in version 3")
def test_pickled_columns_are_refused_with_the_reason(pair: tuple[str, Path]) -> None:
    store, _ = pair
    with pytest.warns(UserWarning, match=r"electrode_group.*pickle"):
        frame = lazynwb_dask.read_nwb(store, "/units")
    assert "electrode_group" not in frame.columns
    with pytest.raises(UnsupportedColumnError, match=r"timeseries.*pickle"):
        lazynwb_dask.read_nwb(store, "trials", columns=["timeseries"])


@pytest.mark.filterwarnings("ignore:.*left out of the frame")
def test_a_store_without_consolidated_metadata(tmp_path: Path, pair: tuple[str, Path]) -> None:
    file = session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = write_zarr(file, tmp_path / "plain.nwb", consolidate_metadata=False)
    if VERSION == 2:
        assert not (Path(store) / DOCUMENT).exists()
    assert_equal(store, pair[1], but=PICKLED)


@pytest.mark.filterwarnings("ignore:.*left out of the frame")
def test_over_http_and_with_the_file_in_one_frame(pair: tuple[str, Path], range_server: RangeServer) -> None:
    store, file = pair
    keys = {str(p.relative_to(store)): p.read_bytes() for p in Path(store).rglob("*") if p.is_file()}
    url = serve(keys, range_server, "lab/a.nwb.zarr")
    theirs = lazynwb_dask.read_nwb(file, "/units").compute()
    kept = [name for name in theirs.columns if name not in PICKLED]
    frame = lazynwb_dask.read_nwb([url, file], "/units")[kept].compute()
    same(frame, pd.concat([theirs[kept]] * 2, ignore_index=True))


def test_catalogs(pair: tuple[str, Path], tmp_path: Path) -> None:
    store, file = pair
    lazynwb_dask.build_catalog([store, str(file)], tmp_path / "catalog")
    frame = lazynwb_dask.read_nwb(lazynwb_dask.open_catalog(tmp_path / "catalog"), "/units")
    some = frame[(frame.snr > 0.3) & frame.good][["label", "spike_times", "depths", "_nwb_path"]].compute()
    halves = [some[some._nwb_path == str(x)].reset_index(drop=True) for x in (store, file)]
    assert len(halves[0]) > 2
    same(*halves)
