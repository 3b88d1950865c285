"""The query that `lazynwb-dask demo` runs on synthetic sessions."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from distributed import Client

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
    logging.disable()  # for good: connections that end at a Ctrl-C are spoken of after this
    with contextlib.ExitStack() as stack:
        stack.enter_context(_heeded())
        try:
            _run(stack, sessions, workers, keep)
        except KeyboardInterrupt:
            click.echo("\nInterrupted; stopping the workers and removing the files.", err=True)
            raise


def _run(stack: contextlib.ExitStack, sessions: int, workers: int, keep: str | None) -> None:
    folder = keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="lazynwb-demo-"))
    _title(f"{sessions} made-up sessions in {folder}")
    from lazynwb_dask.datasets import make_sessions

    with tqdm(total=sessions, unit="file") as bar:
        paths = make_sessions(folder, n=sessions, progress=lambda _: bar.update())
    held = sum(os.path.getsize(path) for path in paths)

    _title(f"Starting {workers} worker processes")
    client = stack.enter_context(_cluster(workers))
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
        spikes=spikes.spike_times.list.len(),
        _nwb_path=[os.path.basename(p) for p in spikes._nwb_path],
    )
    click.echo(_indent(shown.drop(columns="spike_times").head(8).to_string()))
    click.echo(f"  ... {len(spikes)} of {len(units)} units, {int(shown.spikes.sum()):,} spikes")

    _title("What that read")
    totals = list(client.run(_totals).values())
    requests, nbytes = sum(t[0] for t in totals), sum(t[1] for t in totals)
    used = 4 + 4  # the filter's columns and the result's
    click.echo(f"  columns   {used} of {len(units.columns)}")
    click.echo(f"  bytes     {nbytes / 1e6:.1f} MB of the {held / 1e6:.1f} MB that the files hold")
    click.echo(f"  requests  {requests}, to {len(paths)} files")
    click.echo(f"  seconds   {planned:.2f} to plan, {computed:.2f} to compute")

    _title("Your own files")
    click.echo(_indent(OWN))


@contextlib.contextmanager
def _cluster(workers: int) -> Iterator[Client]:
    """A local cluster without log messages."""
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        with _starting():
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,  # the workers'
                )
            )
        yield stack.enter_context(Client(cluster))


@contextlib.contextmanager
def _heeded() -> Iterator[None]:
    """Repeat a Ctrl-C that Python drops because it came in a weak reference's callback or a `__del__`."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, _thread.interrupt_main).start()
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextlib.contextmanager
def _starting() -> Iterator[None]:
    """While processes start, hide their messages about a Ctrl-C, and handle it here once they have
    started."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    sys.stderr.flush()
    shown = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    except Exception:
        if not pressed:
            raise
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)
        signal.signal(signal.SIGINT, before)
        if pressed:
            raise KeyboardInterrupt


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
