"""Record batches of a frame: NaN of numbers are null or stay, as is asked; what is missing is null always."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from files import nwb, ragged, table

from lazynwb_dask import read_nwb
from lazynwb_dask.stream.arrow import record_batches
from lazynwb_dask.stream.values import values_of


@pytest.mark.parametrize("nan_to_null", [True, False])
def test_nan_of_numbers_become_null_or_stay_and_what_is_missing_is_null(
    tmp_path: Path, nan_to_null: bool
) -> None:
    paths = [tmp_path / "a.nwb", tmp_path / "b.nwb"]
    for path in paths:
        with nwb(path) as file:
            units = table(file, "units", 2, ["snr", "half", "spike_times"])
            units["snr"] = np.array([np.nan, 1.5])
            units["half"] = np.array([2.5, np.nan], "<f4")
            ragged(units, "spike_times", [1, 3], [1.0, np.nan, 2.0])
            if path.name.startswith("a"):
                units["quality"] = np.array(["good", "noise"], h5py.string_dtype())
                units["count"] = np.array([3, 4], "<i4")
    frame = read_nwb(paths, "/units")
    found = record_batches(frame, nan_to_null=nan_to_null).read_all()
    assert found.schema == record_batches(frame).schema
    assert found["half"].type == pa.float32()
    nulls = 2 if nan_to_null else 0
    assert [found[n].null_count for n in ("snr", "half")] == [nulls, nulls]
    expected = frame.compute()
    for name in ("snr", "half"):
        assert np.array_equal(found[name].to_numpy(), expected[name].to_numpy(), equal_nan=True)
    assert found["count"].to_pylist() == [3, 4, None, None]
    assert found["quality"].to_pylist() == ["good", "noise", None, None]
    assert np.isnan(found["spike_times"].to_pylist()[1][0])


def test_times_of_any_zone_are_numpys_in_utc() -> None:
    times = pd.Series(pd.to_datetime(["2023-01-09T09:30"])).dt.tz_localize("America/New_York")
    assert values_of(times).tolist() == np.array(["2023-01-09T14:30"], values_of(times).dtype).tolist()
