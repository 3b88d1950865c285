"""``python -m benchmarks.planning``: what ten thousand files cost before the first byte is read.

One made-up session is indexed; the frame is then given ten thousand files, each with a name and a
version of its own, so that nothing is saved by repetition.
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np

import lazynwb_dask
from lazynwb_dask import expr
from lazynwb_dask.datasets import make_sessions

COLUMNS = ["presence_ratio", "firing_rate", "unit_id"]


@click.command(context_settings={"show_default": True})
@click.option("--partitions", default=10_000)
@click.option("--repeats", default=5)
def main(partitions: int, repeats: int) -> None:
    """Print bytes for each partition and seconds, three number columns of many files projected."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = make_sessions(folder, n=1, units=30, mean_spikes=300, channels=8, samples=100)
        frame = lazynwb_dask.read_nwb([path] * partitions, "/units", blocksize=None)
        tables = renamed_scan(frame)
    query = expr.from_scan(tables)[COLUMNS].optimize()
    tasks = [len(pickle.dumps(task)) for task in list(query.dask.values())[:200]]
    held = len(pickle.dumps(query.expr))
    click.echo(f"{partitions} partitions, {len(COLUMNS)} number columns projected")
    click.echo(f"{held / partitions:8.1f} bytes of the pickled expression for each partition")
    click.echo(f"{statistics.mean(tasks):8.1f} bytes of a task (largest {max(tasks)})")
    plan = _seconds(lambda: _planned(tables, fused=False), repeats)
    fused = _seconds(lambda: _planned(tables, fused=True), repeats)
    click.echo(f"{plan:8.3f} s to plan: query, optimization and graph, the index given")
    click.echo(f"{fused:8.3f} s to plan when partitions are read together in fewer tasks")
    click.echo(f"{_seconds(lambda: pickle.dumps(query.expr), repeats):8.3f} s to pickle the expression")


def renamed_scan(frame: Any) -> Any:
    """The scan of a frame, over as many files with names and versions of their own."""
    (node,) = expr.reads(frame)
    files = node.scan.files
    digests = [hashlib.md5(str(i).encode()).hexdigest() for i in range(len(files.urls))]
    return dataclasses.replace(
        node.scan,
        files=dataclasses.replace(
            files,
            urls=tuple(f"s3://a-bucket-of-a-lab/sets/000409/{d[:8]}-{d[8:20]}.nwb" for d in digests),
            etags=tuple(f'"{d[::-1]}"' for d in digests),
            sizes=np.random.default_rng(0).integers(10**6, 10**9, len(digests)),
        ),
    )


def _planned(scan: Any, fused: bool) -> None:
    # another object each time: nothing that was cached for the last one helps
    scan = dataclasses.replace(scan, blocksize=128 << 20, fusable=True) if fused else dataclasses.replace(scan)
    query = expr.from_scan(scan)
    dict(query[COLUMNS].optimize().__dask_graph__())


def _seconds(work: Callable[[], Any], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        gc.collect()
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
