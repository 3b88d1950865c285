"""``python -m benchmarks.scaling``: what more workers bring, and what many tasks cost.

Small sessions in the simulated store are asked for their good units' spikes, by clusters of more and more
single-threaded workers: latency is what there is to hide.
Once with one task a file and four connections a worker, where only workers can help; once with the defaults,
where each task has many files in flight. Then the cost of tasks for who plans and schedules them, and what
follows from all that for a cluster that doesn't fit here.

Next to the seconds stands the CPU that a file takes in the workers and in client and scheduler, and how busy
the machine's cores are with these and the store: near 100 % they are what bounds, otherwise it is latency.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import dask
import platformdirs
import psutil
from distributed import Client, LocalCluster, wait

import lazynwb_dask

from .sessions import Size, prepare
from .store import Store, running

FUSED, ALONE = "defaults", "a task a file, 4 connections"
HEAD = (
    "workers  seconds  speed-up  of ideal  requests  ms a file: workers, scheduler  "
    "cores busy (workers, client and scheduler, store)"
)
FILES, WORKERS = 50_000, 500  # of the cluster that doesn't fit here


@dataclass(frozen=True)
class Run:
    """One query on one cluster: the median of several.

    Attributes
    ----------
    reading, scheduling, serving : float
        Seconds of CPU of the workers, of client and scheduler, which are one process, and of the store.
    """

    how: str
    files: int
    workers: int
    seconds: float
    requests: int
    reading: float
    scheduling: float
    serving: float


@contextmanager
def cluster(workers: int, how: str) -> Iterator[Client]:
    """Single-threaded processes that have the settings of `how`."""
    settings: dict[str, Any] = {"lazynwb-dask.cache": False, "lazynwb-dask.progress": False}
    if how == ALONE:
        settings |= {"lazynwb-dask.connections": 4, "lazynwb-dask.fuse": False}
    with dask.config.set(settings):
        held = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )
        with held, Client(held) as client:
            yield client


def ask(store: Store, urls: Sequence[str]) -> Any:
    """The query: units that pass quality control, and their spikes."""
    options = {"anon": True, "endpoint_url": store.endpoint}
    units = lazynwb_dask.read_nwb(list(urls), "/units", storage_options=options)
    good = (units.presence_ratio >= 0.9) & (units.decoder_label != "noise")
    return units[good][["unit_id", "spike_times", "_nwb_path"]]


def measure(
    store: Store, urls: Sequence[str], warm: Sequence[str], workers: int, how: str, repeats: int
) -> Run:
    """Seconds and requests of the query, whose files' schema is known."""

    def cpu() -> tuple[float, float, float]:
        served = psutil.Process(store.pid).cpu_times()
        reading = sum(client.run(time.process_time).values())
        return reading, time.process_time(), served.user + served.system

    with cluster(workers, how) as client:
        query, other = ask(store, urls), ask(store, warm)
        for worker in client.scheduler_info(n_workers=-1)["workers"]:
            client.submit(warm_up, other, pure=False, workers=[worker]).result()
        other.compute()
        runs = []
        for _ in range(repeats):
            store.reset()
            before, begun = cpu(), time.perf_counter()
            query.compute()
            seconds = time.perf_counter() - begun
            took = [after - at for after, at in zip(cpu(), before, strict=True)]
            runs.append(Run(how, len(urls), workers, seconds, store.stats()["requests"], *took))
    return sorted(runs, key=lambda run: run.seconds)[(repeats - 1) // 2]


def warm_up(query: Any) -> None:
    """Answer a question in a worker: a few small files are tasks for some of them alone."""
    query.compute(scheduler="sync")


def line(run: Run, one: Run) -> str:
    """A run in the table, compared with that of the fewest workers."""
    gain = one.seconds * one.workers / run.seconds
    cores = len(os.sched_getaffinity(0))
    shares = [cpu / run.seconds / cores for cpu in (run.reading, run.scheduling, run.serving)]
    return (
        f"{run.workers:7} {run.seconds:8.2f} {gain:9.2f} {gain / run.workers:9.2f} {run.requests:9}"
        f" {1000 * run.reading / run.files:10.1f} {1000 * run.scheduling / run.files:13.1f}"
        f" {sum(shares):6.0%} ({', '.join(f'{share:.0%}' for share in shares)})"
    )


@dataclass(frozen=True)
class Cost:
    """Seconds for each 1,000 partitions, a task each.

    Parameters
    ----------
    client : float
        Of the client: from the query to a graph that is on its way.
    scheduler : float
        Of scheduler and client together, less that: while the tasks run.
    """

    client: float
    scheduler: float


def cost_of_tasks(path: str, count: int) -> Cost:
    """What planning and scheduling cost, with files that are read from disk in no time."""
    with cluster(1, ALONE) as client:
        frame = lazynwb_dask.read_nwb([path] * count, "/units", blocksize=None)
        client.compute(frame.get_partition(0)[["unit_id"]]).result()
        begun = time.process_time()
        dict(frame[["unit_id"]].optimize().dask)
        planned = time.process_time() - begun
        begun = time.process_time()  # the scheduler is in this process, the worker is not
        held = frame[["unit_id"]].persist()
        wait(held)
        total = time.process_time() - begun
    scale = 1000 / count
    return Cost(planned * scale, max(total - planned, 0.0) * scale)


def on_paper(cost: Cost, alone: Run, defaults: Run) -> list[str]:
    """What these figures say of a cluster that was not measured."""
    thousands = FILES / 1000
    each = alone.seconds * alone.workers / alone.files
    fused = defaults.seconds * defaults.workers / defaults.files
    parts = {
        "the client, planning": cost.client * thousands,
        "the scheduler": cost.scheduler * thousands,
        "each worker, reading": each * FILES / WORKERS,
    }
    first = max(parts, key=lambda name: parts[name])
    lines = [
        f"On paper: {FILES:,} files on {WORKERS} workers, a task a file, from the figures above "
        "(an extrapolation; not measured)"
    ]
    lines += [f"  {name}: {seconds:.1f} s" for name, seconds in parts.items()]
    lines += [
        f"  what gives out first: {first}",
        f"  with the defaults, {fused * 1000:.0f} ms a file instead of {each * 1000:.0f}: "
        f"{fused * FILES / WORKERS:.1f} s of reading, and so many fewer tasks as files are read together",
    ]
    return lines


@click.command(context_settings={"show_default": True})
@click.option("--files", default=100)
@click.option("--many", default=2000, help="Of the run with many small files; 0: none.")
@click.option("--workers", multiple=True, type=int, default=(1, 2, 4, 8))
@click.option("--latency", default=100.0, help="Milliseconds before each answer.")
@click.option("--repeats", default=3)
@click.option("--partitions", default=2000, help="For the cost of tasks.")
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Where files are kept.")
def main(
    files: int, many: int, workers: tuple[int, ...], latency: float, repeats: int, partitions: int,
    folder: Path | None,
) -> None:  # fmt: skip
    """Print seconds, requests and speed-ups; save them."""
    folder = folder or Path(platformdirs.user_cache_dir("lazynwb-dask-benchmarks"))
    root = (folder / "store").resolve()
    dataset = prepare(root, "small", "gzip", Size(small=max(files + 16, many)), click.echo)
    runs: list[Run] = []
    with running(root) as store:
        store.reset(latency=latency / 1000, bandwidth=50e6)
        urls = [store.url("s3", *key.split("/", 1)) for key in dataset.keys]
        for how in (ALONE, FUSED):
            click.echo(f"\n{files} files, {latency:.0f} ms, {how}")
            click.echo(HEAD)
            for n in workers:
                runs.append(measure(store, urls[:files], urls[-16:], n, how, repeats))
                click.echo(line(runs[-1], next(run for run in runs if run.how == how)))
        if many:
            run = measure(store, urls[:many], urls[-16:], 2, FUSED, 1)
            runs.append(run)
            click.echo(f"\n{many} small files, 2 workers, defaults: {run.seconds:.2f} s, "
                       f"{run.requests} requests")  # fmt: skip
    cost = cost_of_tasks(str(root / dataset.keys[0]), partitions)
    click.echo(
        f"\nFor each 1,000 partitions: {cost.client:.2f} s of the client, {cost.scheduler:.2f} s of the "
        "scheduler (CPU)\n"
    )
    alone = [run for run in runs if run.how == ALONE]
    fused = [run for run in runs if run.how == FUSED and run.files == files]
    click.echo("\n".join(on_paper(cost, alone[0], fused[0])))
    path = folder / "results" / f"scaling-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*map(asdict, runs), asdict(cost)], indent=1))
    click.echo(f"saved: {path}")


if __name__ == "__main__":
    main()
