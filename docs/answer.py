"""An answer as a picture, for the README: ``python docs/answer.py`` writes docs/answer.svg."""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions

SESSIONS, UNITS = 20, 40
SHAPE = {"mean_spikes": 1_000, "trials": 100, "duration": 400, "samples": 8_000}

matplotlib.use("agg")
matplotlib.rcParams.update({"svg.hashsalt": "lazynwb_dask", "svg.fonttype": "none", "font.size": 9})

with tempfile.TemporaryDirectory() as folder:
    paths = make_sessions(folder, n=SESSIONS, units=UNITS, **SHAPE)
    units = lazynwb_dask.read_nwb(paths, "/units")
    trials = lazynwb_dask.read_nwb(paths, "trials")
    good = units[(units.structure == "VISp") & (units.presence_ratio >= 0.7)]
    rates = lazynwb_dask.psth(
        good[["unit_id", "spike_times"]], trials, (-0.5, 1.0), "stim_start_time", bins=60
    ).compute()

seconds = np.linspace(-0.5, 1.0, 61)[:-1] + 0.0125
each = np.stack(rates.rate.to_numpy())
mean, error = each.mean(axis=0), each.std(axis=0, ddof=1) / np.sqrt(len(each))
fig, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
ax.plot(seconds, mean)
ax.fill_between(seconds, mean - error, mean + error, alpha=0.25, linewidth=0)
ax.axvline(0, color="black", linestyle=":")
ax.spines[["top", "right"]].set_visible(False)
title = f"{len(rates)} units of VISp, {SESSIONS} made-up sessions: mean and standard error"
ax.set_title(title, loc="left", fontsize=9)
ax.set(xlabel="time from the stimulus (s)", ylabel="rate (spikes/s)", ylim=(0, None))
fig.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None, "Creator": None})
