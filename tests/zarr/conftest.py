"""Files of which the stores in these tests are made."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from files import nwb, ragged, table

from lazynwb_dask.datasets import make_sessions


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of all usual tables."""
    folder = tmp_path_factory.mktemp("session")
    return Path(make_sessions(folder, n=1, units=40, mean_spikes=100, trials=20, samples=300)[0])


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of columns of every kind, series with links, references, fill values."""
    path = tmp_path_factory.mktemp("odd") / "odd.nwb"
    rng = np.random.default_rng(1)
    rows = 90
    with nwb(path) as file:
        file["session_start_time"] = "2024-03-01T12:00:00+01:00"
        file["identifier"] = "odd"
        names = ["big", "flag", "code", "name", "blocks", "gaps", "texts", "mask", "twice", "region"]
        names += ["group", "groups", "complex", "half", "empty", "words", *(f"i{n}" for n in range(8))]
        group = table(file, "/units", rows, names)
        group.create_dataset("big", data=rng.normal(size=rows).astype(">f4"))
        for n, kind in enumerate(("i1", "u1", "i2", ">u2", "i4", "u4", "i8", ">u8")):
            values = rng.integers(0, 100, rows).astype(kind)
            group.create_dataset(f"i{n}", data=values, chunks=(20,), compression=1)
        group.create_dataset("flag", data=rng.integers(0, 2, rows).astype(bool))
        group.create_dataset("code", data=rng.integers(0, 3, rows).astype("u1"))
        group.create_dataset("labels", data=["low", "middle", "high"], dtype=h5py.string_dtype())
        group["code"].attrs["elements"] = group["labels"].ref
        group.create_dataset("name", data=np.array([b"x", b"yy"] * (rows // 2), "S5"))
        group.create_dataset("blocks", data=rng.normal(size=(rows, 7, 3)), chunks=(32, 4, 2))
        gaps = group.create_dataset("gaps", (rows, 2), "f8", chunks=(10, 2), fillvalue=np.nan)
        gaps[30:42] = 1.5
        texts = [f"unit {i} ö" if i % 7 else "" for i in range(rows)]
        group.create_dataset("texts", data=texts, dtype=h5py.string_dtype())
        mask = np.zeros(400, [("x", "<u4"), ("y", "<u4"), ("weight", "<f4")])
        mask["x"], mask["weight"] = np.arange(400), rng.normal(size=400)
        ragged(group, "mask", np.sort(rng.integers(0, 400, rows)), mask)
        ragged(group, "twice", np.sort(rng.integers(0, 401, 200)), np.arange(400) / 7)
        outer = group.create_dataset("twice_index_index", data=np.sort(rng.integers(0, 201, rows)))
        outer.attrs["neurodata_type"] = "VectorIndex"
        outer.attrs["target"] = group["twice_index"].ref
        words = [f"w{i}" for i in range(50)]
        ends = np.sort(rng.integers(0, 51, rows)).astype("u1")
        ragged(group, "words", ends, words, dtype=h5py.string_dtype())
        electrodes = table(file, "/general/electrodes", 4, ["location"])
        electrodes.create_dataset("location", data=["CA1", "CA3", "", "DG"])
        group.create_dataset("region", data=rng.integers(0, 4, rows)).attrs["table"] = electrodes.ref
        group.create_dataset("group", data=[electrodes.ref] * rows, dtype=h5py.ref_dtype)
        ragged(group, "groups", np.arange(rows) // 2, [group.ref, electrodes.ref] * 22, dtype=h5py.ref_dtype)
        group.create_dataset("complex", data=(rng.normal(size=rows) + 1j).astype("c8"))
        group.create_dataset("half", data=rng.normal(size=rows).astype("f2"))
        group.create_dataset("empty", data=np.zeros((rows, 0)))
        group.attrs["description"] = "all sorts"
        wave = file.create_group("/acquisition/wave")
        wave.attrs["neurodata_type"] = "TimeSeries"
        wave.create_dataset("data", data=rng.integers(-9, 9, (500, 4)).astype("i2"), chunks=(64, 2))
        wave["data"].attrs["conversion"], wave["data"].attrs["unit"] = 0.5, "V"
        wave.create_dataset("timestamps", data=np.arange(500) / 30)
        again = file.create_group("/processing/again")
        again.attrs["neurodata_type"] = "TimeSeries"
        again["timestamps"] = h5py.SoftLink("/acquisition/wave/timestamps")
        again.create_dataset("data", data=np.arange(500))
        steady = file.create_group("/processing/steady")
        steady.attrs["neurodata_type"] = "TimeSeries"
        steady.create_dataset("data", data=np.arange(30.0))
        steady["starting_time"] = 2.5
        steady["starting_time"].attrs["rate"] = 100.0
        file["/alias"] = h5py.SoftLink("/units")
        trials = table(file, "/intervals/trials", 3, ["when"])
        kind = [("idx_start", "<i4"), ("count", "<i4"), ("timeseries", h5py.ref_dtype)]
        said = np.array([(i, 5 * i, wave.ref) for i in range(3)], kind)
        trials.create_dataset("when", data=said)
        none = table(file, "/intervals/none", 0, ["x", "text"])
        none.create_dataset("x", data=np.zeros(0))
        none.create_dataset("text", data=[], dtype=h5py.string_dtype())
        aligned = table(file, "/aligned", 3, ["plain"])
        aligned.create_dataset("plain", data=[1, 2, 3])
        aligned.attrs["categories"] = np.array(["more"], h5py.string_dtype())
        more = table(file, "/aligned/more", 3, ["value"])
        more.create_dataset("value", data=[0.5, np.nan, -1])
    return path
