"""``python -m benchmarks``: measure, print, save."""

from __future__ import annotations

import json
import sys
import time
from itertools import product
from pathlib import Path

import click
import platformdirs

from . import page, report, targets
from .environment import lazynwb_python
from .measure import Row, Setting, measure
from .peers import PEERS
from .sessions import LAYOUTS, STORES, Size, convert, prepare
from .store import running
from .workloads import WORKLOADS


@click.command(context_settings={"show_default": True})
@click.option("-w", "--workload", "workloads", multiple=True, type=click.Choice(list(WORKLOADS)),
              help="What to ask. Repeatable.", show_default="all")  # fmt: skip
@click.option("-p", "--peer", "peers", multiple=True, type=click.Choice(list(PEERS)),
              help="Whom. Repeatable.", show_default="all")  # fmt: skip
@click.option("-l", "--layout", "layouts", multiple=True, help="How data are stored. Repeatable.",
              type=click.Choice(LAYOUTS), show_default="gzip")  # fmt: skip
@click.option("--latency", "latencies", multiple=True, type=float,
              help="Milliseconds before each answer. Repeatable.", show_default="30")  # fmt: skip
@click.option("--bandwidth", type=float, default=50.0, help="MB/s of a connection; 0: unlimited.")
@click.option("--protocol", type=click.Choice(["s3", "http"]), default="s3")
@click.option("--sessions", type=int, default=None, help="Large files.", show_default="16")
@click.option("--megabytes", type=int, default=None, help="Of a large file, uncompressed.", show_default="40")
@click.option("--small", type=int, default=459, help="Small files.")
@click.option("--repeats", type=int, default=5, help="Runs after the first.")
@click.option("--patience", type=float, default=600.0, help="Seconds until a run is given up.")
@click.option("--quick", is_flag=True, help="A few small files, one repetition: does it all work?")
@click.option("--folder", type=click.Path(path_type=Path), default=None,
              help="Where files are kept.", show_default="the user's cache folder")  # fmt: skip
@click.option("--targets", "promised", is_flag=True,
              help="Ask what tells whether the speed is as promised, and say so.")  # fmt: skip
@click.option("--docs", is_flag=True,
              help="Write docs/benchmarks.md and .svg; what isn't given is as they show it.")  # fmt: skip
def main(
    workloads: tuple[str, ...],
    peers: tuple[str, ...],
    layouts: tuple[str, ...],
    latencies: tuple[float, ...],
    bandwidth: float,
    protocol: str,
    sessions: int | None,
    megabytes: int | None,
    small: int,
    repeats: int,
    patience: float,
    quick: bool,
    folder: Path | None,
    promised: bool,
    docs: bool,
) -> None:
    """Measure lazynwb_dask and its peers on a simulated object store."""
    folder = folder or Path(platformdirs.user_cache_dir("lazynwb-dask-benchmarks"))
    root = (folder / "store").resolve()
    usual = page.SIZE if docs else Size()
    size = Size(sessions or usual.sessions, megabytes or usual.megabytes, small)
    if quick:
        size, repeats = Size(2, 2, 10), 1
    layouts = layouts or (page.LAYOUTS if docs else ("gzip",))
    latencies = latencies or (page.LATENCIES if docs else (30.0,))
    if not workloads and docs:
        workloads = (*page.QUESTIONS, *page.MORE)
    elif not workloads:
        workloads = tuple(targets.questions() if promised else WORKLOADS)

    def asked(name: str, layout: str, latency: float) -> tuple[str, ...]:
        if docs:
            return peers or page.peers(name, layout, latency)
        return peers or tuple(targets.peers(name) if promised else PEERS)

    python: dict[bool, str] = {
        about.own_environment: lazynwb_python(folder, _tell)
        for about in (PEERS[peer] for each in product(workloads, layouts, latencies) for peer in asked(*each))
        if about.own_environment
    }
    python[False] = sys.executable
    rows: list[Row] = []
    results = folder / "results" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    with running(root) as store:
        for layout in layouts:
            for name in workloads:
                workload = WORKLOADS[name]
                dataset = prepare(root, workload.dataset, layout, size, _tell)
                for latency in latencies:
                    if not (readers := asked(name, layout, latency)):
                        continue
                    if any(PEERS[peer].files == "parquet" for peer in readers) and workload.is_table:
                        convert(root, dataset, workload.table, _tell)
                    setting = Setting(
                        dataset, layout, latency / 1000, bandwidth * 1e6, protocol, repeats, patience
                    )
                    group = []
                    for peer in readers:
                        about = PEERS[peer]
                        if about.builds_catalog if workload.cold else about.keeps_catalog:
                            continue
                        if (layout if layout in STORES else "hdf5") not in about.reads:
                            continue
                        _tell(f"{workload.title}: {PEERS[peer].title}")
                        row = measure(store, workload, peer, setting, python[PEERS[peer].own_environment])
                        _tell(report.line(row))
                        group.append(row)
                        rows.append(row)
                        _save(rows, results)  # now, since there may be no end
                    ((key, _),) = report.groups(group).items()
                    click.secho(f"\n{report.heading(key, len(dataset.keys))}", bold=True)
                    click.echo(report.text(report.table(group)) + "\n")
                    if docs:
                        page.write(rows, size, bandwidth, repeats, patience)
    click.echo(f"saved: {results}")
    if promised:
        click.echo(f"\n{report.text(targets.table(rows))}\n")
    problems = report.disagreements(rows)
    for problem in problems:
        click.secho(f"different answers: {problem}", fg="red", err=True)
    if problems:
        raise SystemExit(1)


def _tell(text: str) -> None:
    click.secho(f"... {text}", dim=True, err=True)


def _save(rows: list[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.to_json() for row in rows], indent=1))


if __name__ == "__main__":
    main()
