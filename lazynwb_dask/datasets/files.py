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
    """Write made-up but realistic NWB files, for examples and tests.

    The same arguments always give the same bytes. An existing file with the same content is kept. A file that
    this function didn't write is never replaced.

    Parameters
    ----------
    folder : str or os.PathLike
        The local folder for the files; it is made if it doesn't exist.
    n : int, default 8
        The number of sessions, one file each. Two consecutive sessions have the same subject.
    units : int, default 120
        The number of rows of ``/units``. Common quality thresholds keep about a tenth of them.
    mean_spikes : int, default 3000
        The mean number of spikes of a unit. A few units have none.
    trials : int, default 200
        The number of rows of ``/intervals/trials``. ``/intervals/stimulus_presentations`` and
        ``/events/events`` have four times as many.
    probes : int, default 2
        The number of probes, at most 26.
    channels : int, default 96
        The number of electrodes of each probe.
    waveform_shape : pair of int, default (60, 8)
        Samples and channels of the mean waveform of a unit.
    samples : int, default 36000
        The number of samples of ``/processing/behavior/running_speed`` and ``/acquisition/lick_sensor``.
    lfp_shape : pair of int, optional
        Samples and channels of ``/acquisition/lfp``. Default: there is none.
    trial_timeseries : bool, default False
        Give the trials a column `timeseries` that refers to parts of the running speed.
    duration : float, default 1800.0
        The length of a session in seconds.
    layout : {"contiguous", "chunked", "gzip"}, default "chunked"
        How columns and series are stored: ``"contiguous"`` as by older versions of pynwb, ``"chunked"`` as by
        pynwb 4, ``"gzip"`` (with shuffle) as by neuroconv and MatNWB.
    chunk_length : int, default 524288
        The number of values in a chunk of `spike_times`, unless contiguous.
    series_chunk : int, default 16384
        The number of samples in a chunk of a series, unless contiguous.
    libver : {"earliest", "latest"}, default "earliest"
        The version of the HDF5 format, as in `h5py.File`. Most NWB files have ``"earliest"``.
    varied : bool, default False
        Let sessions differ, as in real datasets. Of three consecutive sessions, the second one lacks `d_prime`
        and `isolation_distance` of the units, and its trials are ``/intervals/behavior_trials``; the third
        stores `peak_channel` as float, with NaN, and `default_qc` as integer.
    seed : int, default 0
        The seed of the random numbers.
    progress : callable, optional
        Called with the path of each file when it is complete.

    Returns
    -------
    list of str
        Absolute paths, in the order of subject and date.

    Raises
    ------
    ValueError
        An argument has a wrong value.
    FileExistsError
        A file with such a name exists that this function didn't write.
    OSError
        The folder can't be written.

    See Also
    --------
    lazynwb_dask.read_nwb : reads the files.

    Notes
    -----
    The files have the NWB version 2.11.0. They are written with h5py alone, with objects in the order in which
    pynwb writes them.

    Examples
    --------
    >>> import os
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2, units=10, mean_spikes=100)
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
