"""Made-up sessions are sound NWB, the same each time, and as large as asked."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import oracle
import pandas as pd
import pynwb
import pytest

from lazynwb_dask.datasets import files, make_sessions

SMALL: dict[str, Any] = {
    "units": 30,
    "mean_spikes": 100,
    "trials": 20,
    "channels": 24,
    "samples": 500,
    "waveform_shape": (20, 4),
}
QUALITY = (
    "presence_ratio >= 0.7 and isi_violations_ratio <= 0.5 "
    "and amplitude_cutoff <= 0.1 and decoder_label != 'noise'"
)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_sessions(tmp_path_factory.mktemp("sessions"), n=8)


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "contiguous"},
        {"layout": "chunked", "varied": True},
        {"layout": "gzip", "lfp_shape": (300, 6), "trial_timeseries": True},
        {"libver": "latest"},
        {"trials": 0, "samples": 0, "probes": 1, "channels": 1},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_pynwb_opens_and_validates_what_is_made(tmp_path: Path, options: dict[str, Any]) -> None:
    for path in make_sessions(tmp_path, n=3 if "varied" in options else 1, **(SMALL | options)):
        assert pynwb.validate(path=path) == []
        with pynwb.NWBHDF5IO(path, "r") as io:
            session = io.read()
            assert session.subject.species == "Mus musculus"
            assert session.session_start_time.utcoffset() is not None
            units = session.units.to_dataframe()
            assert len(units) == SMALL["units"]
            assert units.electrode_group.iloc[0] is session.electrode_groups[units.device_name[0]]
            assert units.electrodes.iloc[0].group_name.iloc[0] == units.device_name[0]
            speed = session.processing["behavior"]["running_speed"]
            assert len(speed.timestamps) == len(speed.data)
            if "lfp_shape" in options:
                assert session.acquisition["lfp"].electrodes.data.shape == (6,)
            if "trial_timeseries" in options:
                assert session.trials["timeseries"][0][0].timeseries is speed


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for layout in ("contiguous", "chunked", "gzip"):
        few = make_sessions(tmp_path / f"{layout} few", n=2, layout=layout, **SMALL)
        many = make_sessions(tmp_path / f"{layout} many", n=3, layout=layout, **SMALL)
        assert [Path(path).read_bytes() for path in few] == [Path(path).read_bytes() for path in many[:2]]
    other = make_sessions(tmp_path / "other", n=1, seed=1, **SMALL)[0]
    assert not np.array_equal(
        oracle.read_table(other, "units")[0]["firing_rate"],
        oracle.read_table(few[0], "units")[0]["firing_rate"],
    )


def test_content_does_not_depend_on_the_layout(tmp_path: Path) -> None:
    one, *others = (
        make_sessions(tmp_path / str(number), n=1, **SMALL, **options)[0]
        for number, options in enumerate(
            [
                {"layout": "contiguous"},
                {"layout": "gzip", "chunk_length": 64, "series_chunk": 100},
                {"libver": "latest"},
            ]
        )
    )
    tables = oracle.tables(one)
    assert tables == [
        "/events/events",
        "/general/extracellular_ephys/electrodes",
        "/intervals/epochs",
        "/intervals/stimulus_presentations",
        "/intervals/trials",
        "/units",
    ]
    for other in others:
        for table in tables:
            frames = (oracle.frame(path, table).drop(columns="_nwb_path") for path in (one, other))
            oracle.assert_same(*frames)


@pytest.mark.parametrize("layout", ["contiguous", "chunked", "gzip"])
def test_datasets_have_the_layout_asked_for(tmp_path: Path, layout: Any) -> None:
    options = {"layout": layout, "chunk_length": 256, "series_chunk": 100}
    path = make_sessions(tmp_path, n=1, **SMALL, **options)[0]
    with h5py.File(path) as file:
        spikes, snr = file["units/spike_times"], file["units/snr"]
        speed = file["processing/behavior/running_speed/data"]
        if layout == "contiguous":
            assert spikes.chunks is snr.chunks is speed.chunks is None
        else:
            assert (spikes.chunks, snr.chunks, speed.chunks) == ((256,), (30,), (100,))
        assert spikes.compression == snr.compression == ("gzip" if layout == "gzip" else None)
        assert spikes.shuffle == snr.shuffle == (layout == "gzip")


def test_libver_gives_the_file_format(tmp_path: Path) -> None:
    for libver, superblock in (("earliest", 0), ("latest", 3)):
        path = make_sessions(tmp_path / libver, n=1, libver=libver, **SMALL)[0]
        assert Path(path).read_bytes()[8] == superblock


def test_sizes_are_honoured(tmp_path: Path) -> None:
    options = {"units": 50, "mean_spikes": 300, "trials": 12, "probes": 3, "channels": 20}
    options |= {"waveform_shape": (10, 5), "samples": 70, "lfp_shape": (30, 4), "duration": 100}
    path = make_sessions(tmp_path, n=1, **options)[0]
    with h5py.File(path) as file:
        assert len(file["units/id"]) == 50
        assert abs(len(file["units/spike_times"]) - 50 * 300) <= 50
        assert file["units/waveform_mean"].shape == (50, 10, 5)
        assert len(file["intervals/trials/id"]) == 12
        assert len(file["intervals/stimulus_presentations/id"]) == 4 * 12
        assert len(file["general/extracellular_ephys/electrodes/id"]) == 3 * 20
        assert len(file["processing/behavior/running_speed/timestamps"]) == 70
        assert file["acquisition/lfp/data"].shape == (30, 4)
        assert file["units/spike_times"][()].max() <= 100


def test_an_empty_units_table_keeps_its_types(tmp_path: Path) -> None:
    path = make_sessions(tmp_path, n=1, **(SMALL | {"units": 0}))[0]
    frame = oracle.frame(path, "units")
    full = oracle.frame(make_sessions(tmp_path / "full", n=1, **SMALL)[0], "units")
    assert len(frame) == 0
    assert frame.dtypes.to_dict() == full.dtypes.to_dict()


def test_a_demo_file_is_of_a_few_megabytes(sessions: list[str]) -> None:
    assert all(3e6 < os.path.getsize(path) < 5e6 for path in sessions)


def test_quality_control_keeps_a_handful_of_each_session(sessions: list[str]) -> None:
    units = pd.concat([oracle.frame(path, "units") for path in sessions])
    good = units.query(QUALITY)
    assert 0.05 < len(good) / len(units) < 0.15
    assert good.groupby("_nwb_path").size().min() >= 3
    assert good._nwb_path.nunique() == len(sessions)
    assert 0.02 < units.amplitude_cutoff.isna().mean() < 0.15
    assert units.default_qc.dtype == np.bool_
    assert units.unit_id.is_unique
    assert units.unit_name.is_unique


def test_spikes_look_like_spikes(sessions: list[str]) -> None:
    units = oracle.frame(sessions[0], "units")
    counts = units.spike_times.map(len)
    assert (counts == units.num_spikes).all()
    assert np.allclose(units.firing_rate, counts / 1800)
    assert counts.std() > 0.5 * counts.mean()
    for spikes in units.spike_times:
        assert (np.diff(spikes) >= 0).all()
        assert all(0 <= time <= 1800 for time in spikes[:1] + spikes[-1:])
    gaps = np.diff(units.spike_times[counts.idxmax()])
    assert 0.5 < gaps.std() / gaps.mean() < 2
    onsets = oracle.frame(sessions[0], "intervals/trials").stim_start_time.to_numpy()
    spikes = np.sort(np.concatenate([*units.spike_times]))

    def count(start: float, stop: float) -> int:
        return int(np.diff(np.searchsorted(spikes, [onsets + start, onsets + stop]), axis=0).sum())

    assert count(0.04, 0.14) > 1.3 * count(-0.1, 0.0)


def test_references_and_ragged_columns_hold_together(sessions: list[str]) -> None:
    units = oracle.frame(sessions[0], "units")
    electrodes = oracle.frame(sessions[0], "general/extracellular_ephys/electrodes")
    peak = electrodes.iloc[units.peak_electrode].reset_index(drop=True)
    assert (units.location == peak.location).all()
    assert (units.device_name == peak.group_name).all()
    assert (units.electrode_group == peak.group).all()
    assert set(units.electrode_group) == {
        f"/general/extracellular_ephys/{name}" for name in ("probeA", "probeB")
    }
    for near, row in zip(units.electrodes, units.peak_electrode, strict=True):
        assert row in near
        assert electrodes.group_name.iloc[near].nunique() == 1
    assert units.obs_intervals.map(len).isin([1, 2]).all()
    assert all(start < stop for unit in units.obs_intervals for start, stop in unit)


def test_every_object_id_is_its_own(sessions: list[str]) -> None:
    found = []
    for path in sessions[:2]:
        with h5py.File(path) as file:
            found.append(file.attrs["object_id"])
            file.visititems(lambda _, item: found.append(item.attrs.get("object_id")))
    identities = [item for item in found if item is not None]
    assert len(identities) == len(set(identities)) > 150
    assert all(uuid.UUID(item).version == 4 for item in identities)


def test_paths_are_absolute_and_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done: list[str] = []
    paths = make_sessions("here", n=5, progress=done.append, **SMALL)
    assert paths == sorted(paths) == done
    assert all(os.path.isabs(path) for path in paths)
    assert sorted(os.listdir("here")) == [os.path.basename(path) for path in paths]


def test_two_sessions_in_a_row_share_a_subject(sessions: list[str]) -> None:
    def read(path: str, name: str) -> str:
        with h5py.File(path) as file:
            return str(file[f"general/subject/{name}"].asstr()[()])

    for name in ("subject_id", "sex", "genotype", "strain", "date_of_birth"):
        assert read(sessions[0], name) == read(sessions[1], name)
    assert read(sessions[1], "subject_id") != read(sessions[2], "subject_id")


def test_varied_sessions_differ_as_promised(tmp_path: Path) -> None:
    first, second, third = make_sessions(tmp_path, n=3, varied=True, **SMALL)
    units = [oracle.frame(path, "units") for path in (first, second, third)]
    assert set(units[0]) - set(units[1]) == {"d_prime", "isolation_distance"}
    assert "/intervals/behavior_trials" in oracle.tables(second)
    assert "/intervals/trials" not in oracle.tables(second)
    assert units[0].peak_channel.dtype == np.int32
    assert units[2].peak_channel.dtype == np.float64
    assert units[2].peak_channel.isna().any()
    assert units[2].default_qc.dtype == np.int8


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = files.write_session

    def interrupted(session: Any) -> None:
        write(session)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_session", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_sessions(tmp_path, n=1, **SMALL)
    assert os.listdir(tmp_path) == []


def test_a_file_with_the_same_content_is_kept_and_another_replaced(tmp_path: Path) -> None:
    path = Path(make_sessions(tmp_path, n=1, **SMALL)[0])
    before = path.stat()
    make_sessions(tmp_path, n=1, **SMALL)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino
    make_sessions(tmp_path, n=1, **(SMALL | {"units": 7}))
    assert len(oracle.frame(path, "units")) == 7


@pytest.mark.parametrize("content", [b"my own notes", None])
def test_a_file_of_another_origin_is_never_replaced(tmp_path: Path, content: bytes | None) -> None:
    path = Path(make_sessions(tmp_path, n=1, **SMALL)[0])
    path.unlink()
    if content is None:
        with h5py.File(path, "w") as file:
            file["general/source_script"] = "my own pipeline"
    else:
        path.write_bytes(content)
    kept = path.read_bytes()
    with pytest.raises(FileExistsError, match="give another folder"):
        make_sessions(tmp_path, n=1, **SMALL)
    assert path.read_bytes() == kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "zip"}, "layout is 'zip'"),
        ({"libver": "v9"}, "libver is 'v9'"),
        ({"units": -1}, "units is -1"),
        ({"n": -1}, "n is -1"),
        ({"probes": 27}, "probes is 27"),
        ({"waveform_shape": (3,)}, "waveform_shape"),
        ({"lfp_shape": (0, 3)}, "lfp_shape"),
        ({"duration": float("nan")}, "duration is nan"),
    ],
)
def test_impossible_parameters_are_refused_by_name(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_sessions(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()
