"""One session by pynwb, to be written to HDF5 and, by hdmf-zarr, to Zarr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import Position, SpatialSeries
from pynwb.core import DynamicTable
from pynwb.ecephys import LFP, ElectricalSeries
from pynwb.file import Subject
from pynwb.ophys import ImageSegmentation, OpticalChannel


def session(rows: int = 12) -> NWBFile:
    """A session with the tables and series of most labs, and all that pynwb can say of columns."""
    rng = np.random.default_rng(rows)
    file = NWBFile(
        "a made-up session", "session 1", datetime(2024, 1, 2, 3, tzinfo=UTC), session_id="s1", lab="Lab ö",
        institution="Institute", experimenter=["Doe, Jane", "Roe, R."], keywords=["a", "ö"], notes="",
        related_publications=["doi:1"], file_create_date=[datetime(2024, 2, 1, tzinfo=UTC)],
    )  # fmt: skip
    file.subject = Subject(
        subject_id="m1",
        age="P3D",
        species="Mus musculus",
        sex="M",
        date_of_birth=datetime(2023, 1, 1, tzinfo=UTC),
    )
    device = file.create_device("probe")
    shanks = [file.create_electrode_group(f"shank{i}", "a shank", "CA1", device) for i in range(2)]
    file.add_electrode_column("label", "its label")
    for i in range(8):
        place = {"location": ["CA1", "V1", "é"][i % 3], "x": float(i), "y": 0.5, "z": -1.0}
        file.add_electrode(group=shanks[i % 2], label=f"e{i}", **place)
    _units(file, rng, rows, shanks)
    speed = TimeSeries("speed", data=rng.random(300), unit="m/s", timestamps=np.arange(300) / 7)
    turns = TimeSeries("turns", data=rng.random((300, 2)), unit="m", timestamps=speed, description="by link")
    steady = TimeSeries("steady", data=np.arange(20, dtype="i2"), unit="V", rate=10.0, conversion=0.5)
    for series in (speed, turns, steady):
        file.add_acquisition(series)
    file.add_acquisition(TimeSeries("same data", data=speed, unit="m/s", rate=1.0))
    region = file.create_electrode_table_region([0, 1, 2], "some")
    lfp = ElectricalSeries(
        "lfp",
        rng.integers(-99, 99, (100, 3)).astype("i2"),
        region,
        rate=1000.0,
        channel_conversion=[1.0, 2.0, 3.0],
    )
    module = file.create_processing_module("behavior", "what it did")
    module.add(LFP(electrical_series=lfp))
    spatial = SpatialSeries("xy", rng.random((50, 2)), reference_frame="zero", timestamps=np.arange(50.0))
    module.add(Position(spatial_series=spatial))
    file.add_trial_column("hit", "whether it was one")
    for i in range(6):
        file.add_trial(
            start_time=float(i),
            stop_time=i + 0.5,
            hit=i % 3 == 0,
            tags=["x", "yy"][: i % 3],
            timeseries=[speed, turns],
        )
    epochs = ["early", "late"]
    for i, tag in enumerate(epochs):
        file.add_epoch(float(i), i + 1.0, [tag])
    _rois(file, device, rng)
    table = DynamicTable("results", "a table of a module", id=[7, 5, 3, 1, 9])
    table.add_column("n", "numbers", data=np.arange(5, dtype="u1"))
    table.add_column("text", "texts", data=["a", "", "ö", "d", "e"])
    table.add_column("scores", "ragged", data=[1.0, 2.0, 3.0], index=np.array([0, 2, 2, 3, 3]))
    module.add(table)
    return file


def _units(file: NWBFile, rng: np.random.Generator, rows: int, shanks: list[Any]) -> None:
    file.add_unit_column("good", "whether it is")
    file.add_unit_column("label", "its label")
    file.add_unit_column("snr", "signal to noise")
    file.add_unit_column("depths", "of each of its sites", index=True)
    for i in range(rows):
        file.add_unit(
            spike_times=np.sort(rng.random(i * 3)), electrodes=[i % 8, (i + 1) % 8],
            obs_intervals=[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]][: i % 3 + 1], waveform_mean=rng.random((4, 2)),
            waveforms=[[list(rng.random(3)) for _ in range(2)] for _ in range(i % 2 + 1)],
            electrode_group=shanks[i % 2], good=bool(i % 2), label=f"u{i}" if i % 3 else "",
            snr=np.nan if i == 4 else float(rng.random()), depths=list(rng.random(i % 4)),
        )  # fmt: skip


def _rois(file: NWBFile, device: Any, rng: np.random.Generator) -> None:
    channel = OpticalChannel("green", "a channel", 500.0)
    plane = file.create_imaging_plane(
        name="plane", optical_channel=channel, description="a plane", device=device, excitation_lambda=1.0,
        indicator="GCaMP", location="V1",
    )  # fmt: skip
    segmentation = ImageSegmentation()
    file.create_processing_module("ophys", "what it saw").add(segmentation)
    rois = segmentation.create_plane_segmentation("cells", plane, "rois")
    for i in range(4):
        rois.add_roi(pixel_mask=[(j, j + 1, float(rng.random())) for j in range(i + 1)])


def write_hdf5(file: NWBFile, path: Path) -> Path:
    with NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


def write_zarr(file: NWBFile, path: Path, **options: Any) -> str:
    """The session as hdmf-zarr writes it: version 2 before its release 0.14, which writes version 3."""
    from hdmf_zarr.nwb import NWBZarrIO

    with _unpickling(), NWBZarrIO(str(path), "w") as io:
        io.write(file, **options)
    return str(path)


@contextmanager
def _unpickling() -> Iterator[None]:
    """hdmf-zarr 0.13 reads what it has just pickled, which releases of numcodecs must be told to allow."""
    from numcodecs import pickles

    before = getattr(pickles, "ALLOW_UNSAFE_PICKLE_DECODE", None)
    pickles.ALLOW_UNSAFE_PICKLE_DECODE = True
    try:
        yield
    finally:
        pickles.ALLOW_UNSAFE_PICKLE_DECODE = before
