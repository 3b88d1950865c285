"""``python -m benchmarks.counts``: the counts of one session's units in its trials, beside plain NumPy.

`spike_counts` reads a local file each time. NumPy has the spikes of all units and the trials in memory, and
looks up the edges of all bins at once for each unit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import h5py
import numpy as np

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions

from .workloads import BINS, WINDOW

MOST = 1.5  # times NumPy's seconds


def plainly(spikes: Sequence[np.ndarray], edges: np.ndarray) -> np.ndarray:
    """Units x trials x bins, with the edges of each trial's bins."""
    return np.stack([np.diff(np.searchsorted(held, edges), axis=1) for held in spikes])


@click.command(context_settings={"show_default": True})
@click.option("--units", type=int, default=400)
@click.option("--mean-spikes", type=int, default=12_000)
@click.option("--repeats", type=int, default=15)
def main(units: int, mean_spikes: int, repeats: int) -> None:
    """Measure the count matrix of one session, beside plain NumPy on arrays in memory."""
    with TemporaryDirectory() as folder:
        (path,) = make_sessions(folder, n=1, units=units, mean_spikes=mean_spikes)
        table = lazynwb_dask.read_nwb(path, "/units")[["unit_id", "spike_times"]]
        trials = lazynwb_dask.read_nwb(path, "trials")[["start_time"]]
        spikes, starts = _in_memory(path)

        def numpy() -> np.ndarray:
            return plainly(spikes, starts[:, None] + np.linspace(*WINDOW, BINS + 1))

        def ours() -> np.ndarray:
            found = lazynwb_dask.spike_counts(table, trials, bins=BINS, window=WINDOW)
            counts: np.ndarray = found.counts.to_numpy()
            return counts

        if not np.array_equal(ours(), numpy()):
            raise click.ClickException("different counts")
        (wall, cpu), (least, plain) = (_least(work, repeats) for work in (ours, numpy))
        nbytes = sum(held.nbytes for held in spikes)
        click.echo(f"{units} units, {nbytes / 1e6:.0f} MB of spikes, {len(starts)} trials, {BINS} bins")
        click.echo(f"spike_counts, file included  {1000 * wall:6.0f} ms, {1000 * cpu:4.0f} ms of CPU")
        click.echo(f"NumPy, arrays in memory      {1000 * least:6.0f} ms, {1000 * plain:4.0f} ms of CPU")
        ratio = wall / least
        click.echo(f"ratio {ratio:.2f}, at most {MOST}: {'yes' if ratio <= MOST else 'NO'}")


def _in_memory(path: str | Path) -> tuple[list[np.ndarray], np.ndarray]:
    with h5py.File(path) as file:
        ends = file["units/spike_times_index"][()].astype(np.int64)
        return np.split(file["units/spike_times"][()], ends[:-1]), file["intervals/trials/start_time"][()]


def _least(work: Callable[[], object], repeats: int) -> tuple[float, float]:
    """The least seconds that it takes, and of CPU."""
    wall, cpu = [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    return min(wall), min(cpu)


if __name__ == "__main__":
    main()
