"""The files of made-up sessions: their names, and writing each whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from lazynwb_dask.datasets.recipe import Libver, Recipe, Session, day, subject
from lazynwb_dask.datasets.session import write_session
from lazynwb_dask.datasets.writer import Layout, Writer

_MAKER = "lazynwb_dask.datasets"
_RECIPE = 1  # goes up when the same parameters give other content: older files are then replaced


def make_sessions(
    folder: str | os.PathLike[str],
    n: int = 8,
    *,
    units: int = 120,
    mean_spikes: int = 3_000,
    trials: int = 200,
    probes: int = 2,
    channels: int = 96,
    waveform_shape: tuple[int, int] = (60, 8),
    samples: int = 36_000,
    lfp_shape: tuple[int, int] | None = None,
    trial_timeseries: bool = False,
    duration: float = 1_800.0,
    layout: Layout = "chunked",
    chunk_length: int = 524_288,
    series_chunk: int = 16_384,
    libver: Libver = "earliest",
    varied: bool = False,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> list[str]:
    """Write made-up but realistic NWB files.

    The same arguments give the same bytes, whatever `n` is and however often it is called. A file
    that is there already with the same content is kept; a file appears under its name only when it
    is complete. Files of another origin are never replaced.

    Parameters
    ----------
    folder
        Where the files go; made if need be.
    n
        Number of sessions, one file each. Two in a row share a subject.
    units
        Rows of `/units`. The usual quality thresholds keep about a tenth of them.
    mean_spikes
        Mean number of spikes of a unit; a few units have none.
    trials
        Rows of `/intervals/trials`. `/intervals/stimulus_presentations` and `/events/events` have
        four times as many.
    probes, channels
        Number of probes, and of electrodes on each.
    waveform_shape
        Samples and channels of a unit's mean waveform.
    samples
        Length of `/processing/behavior/running_speed` and of `/acquisition/lick_sensor`.
    lfp_shape
        Samples and channels of `/acquisition/lfp`; None leaves it out.
    trial_timeseries
        Give the trials a `timeseries` column, which refers to stretches of the running speed.
    duration
        Length of a session in seconds.
    layout
        How columns and series are stored: "contiguous" as by older pynwb, "chunked" as by pynwb 4,
        "gzip" (deflate and shuffle) as by neuroconv and MatNWB.
    chunk_length
        Values in a chunk of `spike_times`, unless contiguous.
    series_chunk
        Samples in a chunk of a time series, unless contiguous.
    libver
        HDF5 format: "earliest" as nearly all files have it, or "latest".
    varied
        Let sessions differ as they do in the wild. Of three in a row, the second lacks the units'
        `d_prime` and `isolation_distance` and calls its trials `/intervals/behavior_trials`; the
        third stores `peak_channel` as floats, some NaN, and `default_qc` as integers.
    seed
        Another seed, other sessions.
    progress
        Called with the path of each file when it is done.

    Returns
    -------
    list of str
        Absolute paths, in order of subject and date, which is also their order by name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     paths = make_sessions(folder, n=2, units=10, mean_spikes=100)
    >>> [os.path.basename(path) for path in paths]
    ['sub-600000_ses-20230109_ecephys.nwb', 'sub-600000_ses-20230110_ecephys.nwb']
    """
    if n < 0:
        raise ValueError(f"n is {n}, less than 0")
    recipe = Recipe(
        seed=seed,
        units=units,
        mean_spikes=mean_spikes,
        trials=trials,
        probes=probes,
        channels=channels,
        waveform_shape=tuple(waveform_shape),
        samples=samples,
        lfp_shape=None if lfp_shape is None else tuple(lfp_shape),
        trial_timeseries=trial_timeseries,
        duration=float(duration),
        layout=layout,
        chunk_length=chunk_length,
        series_chunk=series_chunk,
        libver=libver,
        varied=varied,
    )
    recipe.check()
    home = Path(folder).absolute()
    home.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(n):
        path = home / f"sub-{subject(number)}_ses-{day(number):%Y%m%d}_ecephys.nwb"
        script = f"{_MAKER}, recipe {_RECIPE}, session {number}: {recipe}"
        if _script(path) != script:
            _write_whole(path, recipe, number, script)
        paths.append(str(path))
        if progress is not None:
            progress(str(path))
    return paths


def _script(path: Path) -> str:
    """What made a file, by the standard's own field for that; '' where there is none yet."""
    try:
        with h5py.File(path, "r") as file:
            script = file["general/source_script"].asstr()[()]
    except FileNotFoundError:
        return ""
    except (OSError, KeyError, AttributeError):
        script = ""
    if not str(script).startswith(_MAKER):
        raise FileExistsError(f"{path} is there and {_MAKER} did not make it: give another folder")
    return str(script)


def _write_whole(path: Path, recipe: Recipe, number: int, script: str) -> None:
    """Write under another name first: whatever interrupts, no half file bears the final name."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with h5py.File(part, "w", libver=recipe.libver) as file:
            rng = np.random.default_rng([recipe.seed, number])
            out = Writer(file, rng, recipe.layout, recipe.series_chunk)
            write_session(Session(number, script, recipe, rng, out))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
