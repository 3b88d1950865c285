"""The main job on made-up sessions, for `lazynwb-dask demo`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from lazynwb_dask.cli.options import Call
from lazynwb_dask.cli.running import Command, local_cluster, scratch_folder

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


@click.command(cls=Command, files=False, formats=(), example="lazynwb-dask demo --sessions 16 --workers 4")
@click.option("--sessions", type=click.IntRange(1), default=8, show_default=True, help="Files to make up.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Local worker processes.")
@click.option("--keep", type=click.Path(file_okay=False), help="Keep the files in this folder.")
def demo(sessions: int, workers: int, keep: str | None, call: Call) -> None:
    """Run the main job on made-up sessions: quality control, then spike times."""
    with scratch_folder() as scratch:
        _run(sessions, workers, keep or scratch, scratch)


def _run(sessions: int, workers: int, folder: str, scratch: str) -> None:
    _title(f"{sessions} made-up sessions in {folder}")
    from tqdm import tqdm

    from lazynwb_dask.datasets import make_sessions

    with tqdm(total=sessions, unit="file") as bar:
        paths = make_sessions(folder, n=sessions, progress=lambda _: bar.update())

    _title(f"Starting {workers} worker processes")
    with local_cluster(workers, scratch) as client:
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
