"""The electrodes, the field potential and the sorted units of a made-up session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from lazynwb_dask.datasets.recipe import Recipe, Session
from lazynwb_dask.datasets.writer import Array, Column

_SPIKE_CLOCK = 30_000.0  # Hz; spike times are whole ticks of it
_ELECTRODES = "general/extracellular_ephys/electrodes"
_AREAS = ("VISp", "VISl", "VISam", "ACAd", "MOs", "RSPd", "CA1", "CA3", "DG", "LGd", "LP", "CP")
_LAYERS = ("1", "2/3", "5", "6a")  # of the first six, which are cortical


@dataclass(frozen=True)
class Probes:
    """The probes of a session, and where each of their electrodes is."""

    names: Array
    references: Array
    location: Array
    structure: Array


def write_electrodes(session: Session, names: Array) -> Probes:
    """Write the probes' groups and the electrodes; each probe passes through four areas."""
    out, rng, recipe = session.out, session.rng, session.recipe
    references, location, structure = [], [], []
    for name in names:
        areas = [int(area) for area in rng.choice(len(_AREAS), size=4, replace=False)]
        fields: dict[str, Any] = {"description": f"electrodes of {name}", "location": _AREAS[areas[0]]}
        group = out.group(f"general/extracellular_ephys/{name}", "ElectrodeGroup", **fields)
        group["device"] = h5py.SoftLink(f"/general/devices/{name}")
        references.append(group.ref)
        layers = [(_AREAS[area], layer) for area in areas for layer in (_LAYERS if area < 6 else "-")]
        layers.append(("", "-"))  # above the brain
        depth = np.linspace(0, len(layers) - 0.5, recipe.channels, endpoint=False).astype(int)
        where = [area + layer.strip("-") for area, layer in layers]
        location.append(np.array(where, dtype=object)[depth])
        structure.append(np.array([area for area, _ in layers], dtype=object)[depth])
    rows = recipe.probes * recipe.channels
    probe, channel = np.divmod(np.arange(rows), recipe.channels)
    probes = Probes(names, np.array(references, object), np.concatenate(location), np.concatenate(structure))
    groups, tip = probes.references[probe], rng.uniform(2_000, 8_000, (3, recipe.probes))[:, probe]
    columns = {
        "location": Column(probes.location, "Location of the electrode (channel)."),
        "group": Column(groups, "Reference to the ElectrodeGroup.", dtype=h5py.ref_dtype),
        "group_name": Column(names[probe], "Name of the ElectrodeGroup."),
        "x": Column(tip[0], "x coordinate of the channel location in the brain."),
        "y": Column(tip[1] - 10.0 * channel, "y coordinate of the channel location in the brain."),
        "z": Column(tip[2], "z coordinate of the channel location in the brain."),
        "imp": Column(np.full(rows, 150_000.0), "Impedance of the channel, in ohms."),
        "filtering": Column(np.full(rows, "300 Hz high-pass"), "Hardware filtering."),
        "channel": Column(channel, "number of the channel on its probe"),
        "rel_x": Column(np.array([43.0, 11.0, 59.0, 27.0])[channel % 4], "across the shank"),
        "rel_y": Column(20.0 * (channel // 2), "along the shank, from the tip"),
        "is_reference": Column(channel == recipe.channels // 2, "is the channel a reference"),
    }
    about = "metadata about extracellular electrodes"
    out.table(_ELECTRODES, "ElectrodesTable", about, columns, early=list(columns)[:8])
    return probes


def write_lfp(session: Session, shape: tuple[int, ...]) -> None:
    """Write the field potential of some electrodes."""
    out, recipe = session.out, session.recipe
    volts = session.rng.normal(0, 300, shape).astype(np.int16)
    path, clock = "acquisition/lfp", (0.0, shape[0] / recipe.duration)
    scale: dict[str, Any] = {"unit": "volts", "conversion": 1.95e-7}
    out.series(path, "ElectricalSeries", "local field potential", volts, clock, **scale)
    rows = np.arange(shape[1]) % (recipe.probes * recipe.channels)
    region = out.file.create_dataset(f"{path}/electrodes", data=rows)
    target = out.file[_ELECTRODES].ref
    fields = {"description": "recorded electrodes", "table": target}
    out.typed(region, "DynamicTableRegion", "hdmf-common", **fields)


def write_units(session: Session, onsets: Array, probes: Probes) -> None:
    """Write the units, with labels, quality metrics, spike times and waveforms."""
    rng, recipe, count = session.rng, session.recipe, session.recipe.units
    probe = np.sort(rng.integers(0, recipe.probes, count))
    peak = rng.integers(0, recipe.channels, count)
    row = probe * recipe.channels + peak
    presence = np.minimum(1.0, 1.25 * rng.beta(4, 2, count))
    weights = rng.lognormal(0, 1.1, count) * (rng.random(count) > 0.01)
    share = weights / max(weights.sum(), 1e-9)
    spikes = np.rint(share * count * recipe.mean_spikes).astype(np.int64)
    amplitude = rng.lognormal(4.5, 0.5, count)
    number = np.arange(count)
    name = np.char.add(np.char.add(f"{session.name}_", probes.names[probe]), np.char.mod("-%d", number))
    columns = {
        "unit_id": Column(100_000 * (session.number + 1) + number, "unique number"),
        "unit_name": Column(name, "unique name"),
        "device_name": Column(probes.names[probe], "probe of the unit"),
        "location": Column(probes.location[row], "structure and layer at the peak channel"),
        "structure": Column(probes.structure[row], "structure at the peak channel"),
        "peak_channel": Column(peak.astype(np.int32), "channel with the largest amplitude"),
        "peak_electrode": Column(row, "row of the peak channel in the electrodes table"),
        "presence_ratio": Column(presence, "fraction of the session in which the unit fired"),
        "num_spikes": Column(spikes, "number of spikes"),
        "firing_rate": Column(spikes / recipe.duration, "mean rate, in Hz"),
        "amplitude": Column(amplitude, "median amplitude of the spikes, in uV"),
    }
    columns |= _quality_columns(rng, count, amplitude, presence)
    if recipe.varied and session.number % 3 == 1:
        del columns["d_prime"], columns["isolation_distance"]
    if recipe.varied and session.number % 3 == 2:
        columns["peak_channel"].values = np.where(rng.random(count) < 0.1, np.nan, peak)
        columns["default_qc"].values = columns["default_qc"].values.astype(np.int8)
    width = np.minimum(rng.integers(3, 8, count), recipe.channels)
    first = np.clip(peak - width // 2, 0, recipe.channels - width) + probe * recipe.channels
    ends = np.cumsum(width)
    near = np.arange(width.sum()) + np.repeat(first - ends + width, width)
    # the second probe of each two was off for a while
    observed = np.tile(recipe.duration * np.array([[0.0, 1.0], [0.55, 1.0]]), (count, 1, 1))
    observed[probe % 2 == 1, 0, 1] = 0.45 * recipe.duration
    some = np.stack([np.ones(count, bool), probe % 2 == 1], axis=1)
    columns |= {
        "spike_times": Column(
            _spike_times(rng, recipe, spikes, presence, onsets),
            "the spike times for each unit in seconds",
            ends=np.cumsum(spikes),
            chunk=recipe.chunk_length,
            attributes={"resolution": 1 / _SPIKE_CLOCK},
        ),
        "obs_intervals": Column(
            observed[some], "the observation intervals for each unit", ends=np.cumsum(some.sum(axis=1))
        ),
        "electrodes": Column(
            near,
            "the electrodes that each spike unit came from",
            ends=ends,
            type="DynamicTableRegion",
            attributes={"table": session.out.file[_ELECTRODES].ref},
        ),
        "electrode_group": Column(
            probes.references[probe], "the electrode group that each spike unit came from", dtype=h5py.ref_dtype
        ),
        "waveform_mean": Column(
            _waveforms(rng, recipe, amplitude),
            "the spike waveform mean for each spike unit",
            attributes={"sampling_rate": np.float32(_SPIKE_CLOCK), "unit": "volts"},
        ),
    }
    early = ("spike_times", "obs_intervals", "electrode_group", "waveform_mean")
    session.out.table("units", "Units", "sorted units", columns, early=early)


def _quality_columns(
    rng: np.random.Generator, count: int, amplitude: Array, presence: Array
) -> dict[str, Column]:
    """Metrics as quality-control pipelines name them; some can't be computed for every unit."""

    def gaps(values: Array, share: float) -> Array:
        return np.where(rng.random(count) < share, np.nan, values)

    violations = rng.lognormal(-0.7, 1.5, count)
    cutoff = gaps(0.5 * rng.beta(0.7, 1.5, count), 0.06)
    label = rng.choice(["sua", "mua", "noise"], count, p=[0.45, 0.27, 0.28])
    peaks = rng.poisson(1.2, count).astype(np.uint8)
    spread = rng.gamma(4, 20, count).astype(np.float32)
    good = (presence >= 0.7) & (violations <= 0.5) & (cutoff <= 0.1)
    return {
        "isi_violations_ratio": Column(violations, "rate of violations, relative to contamination"),
        "amplitude_cutoff": Column(cutoff, "estimated fraction of missed spikes"),
        "activity_drift": Column(gaps(rng.beta(1.1, 8, count), 0.03), "drift over the session"),
        "decoder_label": Column(label, "class that the classifier gave"),
        "decoder_probability": Column(rng.beta(6, 2, count), "its probability"),
        "default_qc": Column(good, "does the unit pass the default thresholds"),
        "snr": Column(amplitude / rng.gamma(9, 2, count), "signal to noise"),
        "d_prime": Column(gaps(rng.gamma(6, 0.8, count), 0.08), "separation from neighbours"),
        "isolation_distance": Column(gaps(rng.gamma(4, 18, count), 0.08), "Mahalanobis distance"),
        "l_ratio": Column(gaps(rng.lognormal(-4, 2, count), 0.08), "L-ratio"),
        "nn_hit_rate": Column(gaps(rng.beta(8, 2, count), 0.08), "nearest-neighbour hits"),
        "nn_miss_rate": Column(gaps(rng.beta(1, 30, count), 0.08), "nearest-neighbour misses"),
        "silhouette": Column(gaps(rng.beta(3, 20, count), 0.08), "silhouette score"),
        "rp_contamination": Column(gaps(rng.beta(1, 3, count), 0.02), "refractory contamination"),
        "drift_ptp": Column(gaps(rng.gamma(3, 12, count), 0.15), "peak-to-peak drift, in um"),
        "half_width": Column(rng.gamma(9, 1.9e-5, count), "half width of the spike, in seconds"),
        "peak_to_valley": Column(rng.gamma(9, 5e-5, count), "trough to peak, in seconds"),
        "repolarization_slope": Column(rng.gamma(4, 1e5, count), "slope after the trough"),
        "num_negative_peaks": Column(peaks, "number of troughs"),
        "spread": Column(spread, "extent along the probe, in um"),
    }


def _spike_times(
    rng: np.random.Generator, recipe: Recipe, spikes: Array, presence: Array, onsets: Array
) -> Array:
    """Poisson-like spikes of all units, one after the other; most units answer the stimulus."""
    gaps = np.concatenate([[0.0], np.cumsum(rng.standard_exponential(int(spikes.sum()) + len(spikes)))])
    ends = np.cumsum(spikes + 1)
    begins = gaps[ends - spikes - 1]
    scale = presence / (gaps[ends] - begins)
    late = rng.uniform(0, 1, len(spikes)) * (1 - presence)
    times = np.delete(gaps[1:], ends - 1)
    times *= np.repeat(scale, spikes)
    times += np.repeat(late - begins * scale, spikes)
    # the rate is four times higher from 40 to 140 ms after each onset: warp time accordingly
    knots = np.sort(np.concatenate([[0.0], onsets + 0.04, onsets + 0.14, [recipe.duration]]))
    knots = np.minimum(knots, recipe.duration)
    steps = np.diff(knots) * np.resize([1.0, 4.0], len(knots) - 1)
    warp = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    gain = np.repeat(np.maximum(0.0, rng.uniform(-0.3, 1.0, len(spikes))), spikes)
    warped = np.interp(times, warp, knots)
    times *= recipe.duration
    times += gain * (warped - times)
    times *= _SPIKE_CLOCK
    np.rint(times, out=times)
    times /= _SPIKE_CLOCK
    return times


def _waveforms(rng: np.random.Generator, recipe: Recipe, amplitude: Array) -> Array:
    """A trough and a slower peak, strongest in the middle channel."""
    samples, channels = recipe.waveform_shape
    ticks = np.arange(samples) - samples / 3
    trough, peak = np.exp(-((ticks / 4) ** 2)), np.exp(-(((ticks - 12) / 9) ** 2))
    ratio = rng.uniform(0.2, 0.7, len(amplitude))[:, None]
    shape = (ratio * peak - trough) * (1e-6 * amplitude)[:, None]
    fall = np.exp(-np.abs(np.arange(channels) - channels // 2) / 2)
    noise = rng.normal(0, 5e-7, (len(amplitude), samples, channels))
    return (shape[:, :, None] * fall + noise).astype(np.float32)
