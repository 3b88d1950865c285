"""The fields, the behaviour and the intervals of a made-up session."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any

import h5py
import numpy as np

from lazynwb_dask.datasets.ephys import write_electrodes, write_lfp, write_units
from lazynwb_dask.datasets.recipe import Session
from lazynwb_dask.datasets.writer import Array, Column

_ZONE = timezone(timedelta(hours=-8))
_GENOTYPES = ("Sst-IRES-Cre;Ai32", "VGAT-ChR2-YFP", "wt/wt", "Pvalb-IRES-Cre;Ai32")
_STRAINS = ("C57BL6J(NP)", "Sst-IRES-Cre;Ai32", "VGAT-ChR2-YFP")
_EXPERIMENTERS = ("Müller, Anna", "Okafor, Chidi", "Tanaka, Yui")
_IMAGES = ("im000", "im013", "im026", "im047", "im061", "im078", "im083", "im111", "omitted")


def write_session(session: Session) -> None:
    """Write one session, in pynwb's order: its own fields last, the units before them."""
    recipe, out, number = session.recipe, session.out, session.number
    out.typed(out.file, "NWBFile", "core", nwb_version="2.11.0")
    names = np.array([f"probe{chr(ord('A') + probe)}" for probe in range(recipe.probes)])
    for name in names:
        out.group(f"general/devices/{name}", "Device", description="Neuropixels 1.0")
    step = recipe.duration / (recipe.trials + 1)
    onsets = np.arange(recipe.trials) + 0.5 + session.rng.uniform(0, 0.2, recipe.trials)
    onsets *= step
    running = _write_series(session)
    for empty in ("analysis", "stimulus/presentation", "stimulus/templates"):
        out.file.create_group(empty)
    _write_events(session, onsets)
    _write_subject(session)
    probes = write_electrodes(session, names)
    if recipe.lfp_shape is not None:
        write_lfp(session, recipe.lfp_shape)
    out.texts(
        "general",
        experiment_description="Visual change detection with Neuropixels recordings",
        experimenter=_EXPERIMENTERS[: 1 + number % 3],
        institution="Institute of Made-up Neuroscience",
        keywords=("ecephys", "behavior", "mouse", "Neuropixels"),
        lab="Cortex & Co.",
        protocol="2104",
        session_id=session.name,
        source_script=session.script,
    )
    out.file["general/source_script"].attrs["file_name"] = "lazynwb_dask/datasets"
    _write_intervals(session)
    _write_trials(session, onsets, step, running)
    write_units(session, onsets, probes)
    start = datetime.combine(session.day, time(9, 30 + number % 30, 12, 345_000), tzinfo=_ZONE)
    out.texts(
        "",
        file_create_date=[(start + timedelta(days=30)).astimezone(UTC).isoformat()],
        identifier=out.uuid(),
        session_description=f"ecephys session (day {1 + number % 2}) with behavioral task",
        session_start_time=start.isoformat(),
        timestamps_reference_time=start.isoformat(),
    )


def _write_series(session: Session) -> h5py.Group:
    """Write licks by a regular clock, and running speed by a camera's timestamps."""
    out, rng, samples = session.out, session.rng, session.recipe.samples
    rate = max(1, samples) / session.recipe.duration
    licks = rng.normal(0, 20, samples) + 900 * (rng.random(samples) < 0.02)
    path, volts, clock = "acquisition/lick_sensor", licks.astype(np.int16), (0.25, rate)
    out.series(path, "TimeSeries", "lick spout", volts, clock, unit="volts", conversion=0.001)
    noise = rng.normal(0, 1, samples + 63)
    speed = np.abs(30 * np.convolve(noise, np.hanning(64) / 8, mode="valid"))[:samples]
    frames = (np.arange(samples) + rng.uniform(0, 0.2, samples)) / rate
    out.group("processing/behavior", "ProcessingModule", description="behavior of the subject")
    path = "processing/behavior/running_speed"
    return out.series(path, "TimeSeries", "speed on the wheel", speed, frames, unit="cm/s")


def _write_events(session: Session, onsets: Array) -> None:
    """Write licks and rewards: most soon after a trial's stimulus, some at any time."""
    rng, count = session.rng, 4 * len(onsets)
    near = np.repeat(onsets, 4) + rng.gamma(2.0, 0.4, count)
    anywhere = rng.uniform(0, session.recipe.duration, count)
    times = np.sort(np.where(rng.random(count) < 0.75, near, anywhere))
    kinds = rng.choice(["lick", "reward"], count, p=[0.9, 0.1])
    core: dict[str, Any] = {"namespace": "core", "attributes": {"unit": "seconds"}}
    lasted = rng.gamma(4.0, 0.01, count)
    columns = {
        "timestamp": Column(times, "time of the event", type="TimestampVectorData", **core),
        "duration": Column(lasted, "length of the event", type="DurationVectorData", **core),
        "annotation": Column(kinds, "what happened"),
    }
    about = "licks and rewards at the spout"
    session.out.table("events/events", "EventsTable", about, columns, early=columns)


def _write_subject(session: Session) -> None:
    out, number = session.out, session.number
    rng = np.random.default_rng([session.recipe.seed, number // 2, 1])  # one for both its sessions
    age = int(rng.integers(90, 240)) + number % 2
    out.group("general/subject", "Subject")
    out.texts(
        "general/subject",
        age=f"P{age}D",
        date_of_birth=f"{session.day - timedelta(days=age)}T00:00:00-08:00",
        description="made-up mouse",
        genotype=str(rng.choice(_GENOTYPES)),
        sex=str(rng.choice(["M", "F"])),
        species="Mus musculus",
        strain=str(rng.choice(_STRAINS)),
        subject_id=session.subject,
        weight=f"{rng.uniform(0.018, 0.032):.4f} kg",
    )
    out.file["general/subject/age"].attrs["reference"] = "birth"


def _interval_columns(starts: Array, stops: Array) -> dict[str, Column]:
    return {
        "start_time": Column(starts, "Start time of epoch, in seconds"),
        "stop_time": Column(stops, "Stop time of epoch, in seconds"),
    }


def _write_intervals(session: Session) -> None:
    """Write epochs and stimulus presentations."""
    out, rng, duration = session.out, session.rng, session.recipe.duration
    borders = duration * np.array([0.0, 0.1, 0.6, 1.0])
    tags = np.array(["baseline", "task", "day 1", "task", "laser ≥ 1 mW"])
    columns = _interval_columns(borders[:-1], borders[1:])
    columns["tags"] = Column(tags, "user-defined tags", ends=np.array([1, 3, 5]))
    out.table("intervals/epochs", "TimeIntervals", "experimental epochs", columns, early=columns)
    count = 4 * session.recipe.trials
    starts = duration / max(1, count) * (np.arange(count) + 0.25)
    images = rng.choice(_IMAGES, count)
    changes = np.append(False, images[1:] != images[:-1])[:count]
    columns = _interval_columns(starts, starts + 0.25) | {
        "image_name": Column(images, "image shown"),
        "is_change": Column(changes, "is the image another than before"),
        "contrast": Column(rng.choice(np.array([0.25, 0.5, 1], np.float32), count), "contrast"),
        "trial_index": Column(np.arange(count, dtype=np.int32) // 4, "row of the trial"),
    }
    path, about = "intervals/stimulus_presentations", "images on the screen"
    out.table(path, "TimeIntervals", about, columns, early=["start_time", "stop_time"])


def _write_trials(session: Session, onsets: Array, step: float, running: h5py.Group) -> None:
    """Write trials of two alternating blocks, with the subject's answers."""
    rng, recipe, count = session.rng, session.recipe, len(onsets)
    block = np.arange(count) // 50
    side = np.array(["left", "right"])[block % 2]
    target, answer = rng.random(count) < 0.6, rng.random(count) < 0.7
    response = np.where(answer, onsets + rng.gamma(3.0, 0.12, count), np.nan)
    rewarded = target & answer & (rng.random(count) < 0.95)
    stimulus = rng.choice(["vis1", "vis2", "sound1", "catch"], count)
    columns = _interval_columns(onsets - 0.25 * step, onsets + 0.5 * step) | {
        "stim_start_time": Column(onsets, "onset of the stimulus, in seconds"),
        "stim_name": Column(stimulus, "stimulus"),
        "trial_index": Column(np.arange(count), "number of the trial"),
        "block_index": Column(block, "number of the block"),
        "rewarded_side": Column(side, "side of the spout that gives water"),
        "is_response": Column(answer, "the subject licked in the response window"),
        "is_hit": Column(target & answer, "it licked to the target"),
        "is_false_alarm": Column(~target & answer, "it licked to another stimulus"),
        "is_rewarded": Column(rewarded, "water was given"),
        "response_time": Column(response, "first lick, in seconds; NaN without one"),
    }
    early = ["start_time", "stop_time"]
    if recipe.trial_timeseries:
        fields = [("idx_start", "<i4"), ("count", "<i4"), ("timeseries", h5py.ref_dtype)]
        stretches, length = np.empty(count, fields), recipe.samples // max(1, count)
        stretches["idx_start"], stretches["count"] = length * np.arange(count), length
        stretches["timeseries"] = running.ref
        columns["timeseries"] = Column(
            stretches,
            "index into a TimeSeries object",
            ends=np.arange(1, count + 1),
            type="TimeSeriesReferenceVectorData",
            namespace="core",
            dtype=stretches.dtype,
        )
        early.append("timeseries")
    name = "behavior_trials" if recipe.varied and session.number % 3 == 1 else "trials"
    about = "experimental trials"
    session.out.table(f"intervals/{name}", "TimeIntervals", about, columns, early=early)
