"""Files with TimeSeries of every kind, and what h5py says is in them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pynwb
from files import nwb, table


def series(file: h5py.File, path: str, data: Any = None, times: Any = None, **storage: Any) -> h5py.Group:
    """A TimeSeries; `times` are stored, or a start and a rate."""
    group = file.create_group(path)
    group.attrs["neurodata_type"] = "TimeSeries"
    if data is not None:
        group.create_dataset("data", data=data, **storage)
    if isinstance(times, tuple):
        group.create_dataset("starting_time", data=times[0]).attrs["rate"] = times[1]
    elif times is not None:
        if "chunks" in storage:
            chunk = storage["chunks"]
            storage |= {"chunks": (chunk[0] if isinstance(chunk, tuple) else chunk,)}
        group.create_dataset("timestamps", data=times, **storage)
    return group


def versioned(path: Path, first: int = 0) -> Path:
    """One of several versions of a file, all of one size, of which planning reads only a part."""
    with nwb(path) as file:
        for name in ("before", "after"):
            table(file, f"/{name}", 100, ["x"]).create_dataset("x", data=np.arange(100) + first)
            file.create_dataset(f"{name}/noise", data=np.zeros(1_000_000, "u1"))
        data = np.arange(200_000).reshape(100_000, 2) + first
        series(file, "/acquisition/s", data, (0.0, 1.0), chunks=(10_000, 1))
    return path


def make_kinds(path: Path) -> Path:
    """One series of each kind; those that scale and link are pynwb's own."""
    rng = np.random.default_rng(0)
    file = pynwb.NWBFile(
        session_description="kinds", identifier="id", session_start_time=datetime(2024, 1, 1, tzinfo=UTC)
    )
    device = file.create_device(name="d")
    group = file.create_electrode_group(name="g", description="", location="", device=device)
    for _ in range(6):
        file.add_electrode(x=0.0, group=group, location="VISp")
    file.add_acquisition(
        pynwb.ecephys.ElectricalSeries(
            name="electrical", data=rng.integers(-9, 9, (50, 3)).astype("i2"), rate=30.0,
            starting_time=2.5, conversion=0.5, offset=1.0, channel_conversion=[1.0, 2.0, 0.25],
            electrodes=file.create_electrode_table_region(region=[4, 0, 5], description="three"),
        )
    )  # fmt: skip
    behavior = file.create_processing_module(name="behavior", description="moves")
    speed = pynwb.TimeSeries(
        name="speed", data=rng.normal(size=40), unit="cm/s", timestamps=np.sort(rng.uniform(0, 9, 40))
    )
    behavior.add(speed)
    position = pynwb.behavior.SpatialSeries(
        name="position", data=rng.normal(size=(40, 2)).astype("f4"), reference_frame="corner",
        timestamps=speed,
    )  # fmt: skip
    behavior.add(pynwb.behavior.Position(spatial_series=position, name="places"))
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    with h5py.File(path, "a") as file:
        events = file.create_group("/processing/behavior/events")
        events.attrs["neurodata_type"] = "BehavioralEvents"
        series(file, "/processing/behavior/events/licks", np.ones(7, "u1"), np.arange(7.0))
        words = series(file, "/acquisition/words", times=[0.1, 0.5, 0.4])
        words.create_dataset("data", data=["go", "", "grün"], dtype=h5py.string_dtype())
        features = series(file, "/stimulus/presentation/features", rng.normal(size=(5, 2)), np.arange(5.0))
        features.create_dataset("features", data=["V", "Hz"], dtype=h5py.string_dtype())
        series(file, "/acquisition/epochs", np.array([1, -1, 2, -2], "i1"), np.arange(4.0))
        series(file, "/acquisition/video", rng.integers(0, 255, (6, 4, 5), "u1"), (0.0, 2.0))
        series(file, "/stimulus/templates/frames", np.zeros((3, 2, 2), "u1"), (0.0, 1.0))
        index = series(file, "/stimulus/presentation/index", np.array([0, 2, 1], "u4"), np.arange(3.0))
        index["indexed_timeseries"] = h5py.SoftLink("/stimulus/templates/frames")
        movie = series(file, "/acquisition/movie", np.zeros((0, 0, 0), "u1"), np.arange(8.0))
        movie.create_dataset("external_file", data=["movie.avi"], dtype=h5py.string_dtype())
        roi = series(file, "/processing/behavior/roi", rng.normal(size=(9, 2)), (0.0, 30.0))
        roi.attrs["neurodata_type"] = "RoiResponseSeries"
        cells = table(file, "/processing/behavior/cells", 4, [])
        roi.create_dataset("rois", data=[3, 1]).attrs["table"] = cells.ref
        for name, kind in (
            ("/acquisition/words", "AnnotationSeries"),
            ("/stimulus/presentation/features", "AbstractFeatureSeries"),
            ("/stimulus/presentation/index", "IndexSeries"),
            ("/acquisition/epochs", "IntervalSeries"),
            ("/acquisition/video", "ImageSeries"),
            ("/acquisition/movie", "ImageSeries"),
        ):
            file[name].attrs["neurodata_type"] = kind
    return path


KINDS = {
    "/acquisition/electrical": "list<item: int16>[pyarrow]",
    "/processing/behavior/speed": "float64",
    "/processing/behavior/places/position": "list<item: float>[pyarrow]",
    "/processing/behavior/events/licks": "uint8",
    "/acquisition/words": "string",
    "/stimulus/presentation/features": "list<item: double>[pyarrow]",
    "/stimulus/presentation/index": "uint32",
    "/acquisition/epochs": "int8",
    "/processing/behavior/roi": "list<item: double>[pyarrow]",
    "/acquisition/video": "list<item: list<item: uint8>>[pyarrow]",
}


def expected(path: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(path) as file:
        group = file[name]
        data = group["data"]
        values = data.asstr()[()] if data.dtype.kind == "O" else data[()]
        if "timestamps" in group:
            return group["timestamps"][()], values
        start = group["starting_time"]
        return start[()] + np.arange(len(data)) / start.attrs["rate"], values
