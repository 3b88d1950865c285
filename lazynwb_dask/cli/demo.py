"""The main job on made-up sessions, for `lazynwb-dask demo`."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from distributed import Client

STARTING = 300  # seconds that the worker processes may take to start

QUERY = """\
units = lazynwb_dask.read_nwb(paths, "/units")
good = units[
    (units.presence_ratio >= 0.7)
    & (units.isi_violations_ratio <= 0.5)
    & (units.amplitude_cutoff <= 0.1)
    & (units.decoder_label != "noise")
]
spikes = good[["unit_id", "location", "spike_times", "_nwb_path"]].compute()"""

OWN = """\
import lazynwb_dask
units = lazynwb_dask.read_nwb("/data/**/*.nwb", "/units")           # local files
units = lazynwb_dask.read_nwb("s3://bucket/prefix/", "/units")      # or in S3, or https://...
units.columns
units[units.firing_rate > 5][["unit_id", "spike_times"]].compute()"""


def run(sessions: int, workers: int, keep: str | None) -> None:
    """Make files, start workers, query, and print what was read."""
    with tempfile.TemporaryDirectory(prefix="lazynwb-demo-") as scratch:
        _end_at_interrupt(scratch)
        _run(sessions, workers, keep or scratch, scratch)


def _run(sessions: int, workers: int, folder: str, scratch: str) -> None:
    _title(f"{sessions} made-up sessions in {folder}")
    from lazynwb_dask.datasets import make_sessions

    with tqdm(total=sessions, unit="file") as bar:
        paths = make_sessions(folder, n=sessions, progress=lambda _: bar.update())

    _title(f"Starting {workers} worker processes")
    with _cluster(workers, scratch) as client:
        _query(client, paths)
    _title("Your own files")
    click.echo(_indent(OWN))


def _query(client: Client, paths: list[str]) -> None:
    from distributed import progress

    import lazynwb_dask

    _title(f"The tables of {os.path.basename(paths[0])}")
    for name in lazynwb_dask.list_tables(paths[0]):
        click.echo(f"  {name}")

    _title("Good units and their spikes, over all sessions")
    click.echo(_indent(QUERY))
    client.run(_reset)
    begin = time.perf_counter()
    units = lazynwb_dask.read_nwb(paths, "/units")
    planned = time.perf_counter() - begin
    good = units[
        (units.presence_ratio >= 0.7)
        & (units.isi_violations_ratio <= 0.5)
        & (units.amplitude_cutoff <= 0.1)
        & (units.decoder_label != "noise")
    ]
    begin = time.perf_counter()
    future = client.compute(good[["unit_id", "location", "spike_times", "_nwb_path"]])
    if os.isatty(2):
        progress(future, notebook=False)
        click.echo()
    spikes = future.result()
    computed = time.perf_counter() - begin
    shown = spikes.assign(
        spikes=spikes.spike_times.list.len(), _nwb_path=[os.path.basename(p) for p in spikes._nwb_path]
    )
    click.echo(_indent(shown.drop(columns="spike_times").head(8).to_string()))
    click.echo(f"  ... {len(spikes)} of {len(units)} units, {int(shown.spikes.sum()):,} spikes")

    _title("What that read")
    totals = list(client.run(_totals).values())
    requests, nbytes = sum(t[0] for t in totals), sum(t[1] for t in totals)
    held = sum(os.path.getsize(path) for path in paths)
    used = 4 + 4  # the filter's columns and the result's
    click.echo(f"  columns   {used} of {len(units.columns)}")
    click.echo(f"  bytes     {nbytes / 1e6:.1f} MB of the {held / 1e6:.1f} MB that the files hold")
    click.echo(f"  requests  {requests}, to {len(paths)} files")
    click.echo(f"  seconds   {planned:.2f} to plan, {computed:.2f} to compute")


@contextlib.contextmanager
def _cluster(workers: int, scratch: str) -> Iterator[Client]:
    """Local worker processes, which a Ctrl-C does not reach."""
    import dask
    from distributed import Client, LocalCluster

    # multiprocessing's helper would warn of what is left to it after a Ctrl-C
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    with dask.config.set({"temporary-directory": scratch}):
        with _blocked():
            cluster = LocalCluster(
                n_workers=0,
                threads_per_worker=1,
                dashboard_address=":0",
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
            )
        with cluster, Client(cluster) as client:
            cluster.scale(workers)
            client.wait_for_workers(workers, timeout=STARTING)
            yield client


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """Threads that start within get no SIGINT, nor do the processes that these threads start."""
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which unblocks SIGINT in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_at_interrupt(scratch: str) -> None:
    """Have a Ctrl-C end this process at once, with its workers and files.

    KeyboardInterrupt would not do: Python drops it where it is raised in a `__del__`. Where SIGINT is
    ignored, as in the background of a shell script, it stays so.
    """

    def stop(number: int, frame: object) -> None:
        try:
            os.write(2, b"\nInterrupted; stopping the workers and removing the files.\n")
            shutil.rmtree(scratch, ignore_errors=True)
            for worker in multiprocessing.active_children():
                worker.kill()
            shutil.rmtree(scratch, ignore_errors=True)  # what workers wrote meanwhile
        finally:
            os._exit(128 + number)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, stop)


def _reset() -> None:
    from lazynwb_dask.storage import counters

    counters.reset()


def _totals() -> tuple[int, int]:
    from lazynwb_dask.storage import counters

    total = counters.snapshot().total
    return total.requests, total.bytes


def _title(text: str) -> None:
    click.echo()
    click.secho(text, bold=True)


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
