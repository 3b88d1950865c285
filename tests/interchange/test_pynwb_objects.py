"""A file as objects of pynwb, by open_hdf5, wherever it is."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pynwb
import pytest
from pynwb_session import session, write_hdf5
from servers import RangeServer, S3Server

from lazynwb_dask import open_hdf5


@pytest.mark.parametrize("where", ["local", "http", "s3"])
def test_pynwb_reads_a_file_that_open_hdf5_opened(
    tmp_path: Path, range_server: RangeServer, s3_server: S3Server, where: str
) -> None:
    path = write_hdf5(session(), tmp_path / "a.nwb")
    options = None
    url = str(path)
    if where == "http":
        range_server.files["a.nwb"] = path.read_bytes()
        url = range_server.url("a.nwb")
    elif where == "s3":
        url, options = s3_server.put("lab", "a.nwb", path.read_bytes()), s3_server.storage_options
    with open_hdf5(url, storage_options=options) as file, h5py.File(path) as wanted:
        nwb = pynwb.NWBHDF5IO(file=file, mode="r").read()
        assert nwb.identifier == wanted["identifier"].asstr()[()]
        ends = wanted["units/spike_times_index"][:].astype(int)
        for n, spikes in enumerate(np.split(wanted["units/spike_times"][:], ends)[:-1]):
            assert np.array_equal(nwb.units["spike_times"][n], spikes)
        assert nwb.trials["start_time"][:].tolist() == wanted["intervals/trials/start_time"][:].tolist()
