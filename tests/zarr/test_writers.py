"""The stores that these tests write are those that zarr-python reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from stores import How, store_of, write
from test_same_frames import WAYS

ZARR_3 = zarr.__version__ >= "3"
# of these zarr 3 knows no data type
UNKNOWN = ("json2", "vlen-bytes")


def stored(dataset: h5py.Dataset) -> np.ndarray | None:
    """Values to compare; None of references."""
    if h5py.check_string_dtype(dataset.dtype) and dataset.dtype.kind == "O":
        return np.array(dataset.asstr()[()], dtype=object)
    refers = [dataset.dtype, *(dataset.dtype[n] for n in dataset.dtype.names or ())]
    return None if any(map(h5py.check_ref_dtype, refers)) else np.asarray(dataset[()])


def texts(values: Any) -> np.ndarray:
    flat = [v.decode() if isinstance(v, bytes) else str(v) for v in np.asarray(values).reshape(-1)]
    return np.array(flat, dtype=object).reshape(np.shape(values))


@pytest.mark.parametrize("way", [way for way, how in WAYS.items() if ZARR_3 or how.version == 2])
def test_zarr_reads_what_h5py_reads(odd: Path, tmp_path: Path, way: str) -> None:
    how: How = WAYS[way]
    folder = write(store_of(odd, how), tmp_path / "a.zarr")
    with h5py.File(odd) as file:
        wanted: dict[str, Any] = {}
        file.visititems(lambda name, x: wanted.update({name: stored(x)}) if hasattr(x, "dtype") else None)
    compared = 0
    for name, values in wanted.items():
        if values is None or (ZARR_3 and how.texts in UNKNOWN and values.dtype.kind == "O"):
            continue
        if how.version == 3 and values.dtype.names and zarr.__version__ < "3.2":
            continue  # which spells compounds otherwise
        got = np.asarray(zarr.open_array(f"{folder}/{name}", mode="r")[...])
        if values.shape == ():
            got = got.reshape(())
        if values.dtype.kind == "O":
            got = texts(got)
        np.testing.assert_array_equal(got, values, err_msg=name)
        compared += 1
    assert compared > 30
