"""The documentation's page: what it measures, and how it is written from the rows."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from . import chart
from .measure import SLOW, Row
from .peers import PEERS
from .report import OURS, groups, heading, markdown, table
from .sessions import Size
from .workloads import WORKLOADS

DOCS = Path(__file__).parents[1] / "docs"

QUESTIONS = ("schema", "scalars", "quality", "spikes")  # in every setting
MORE = ("strict", "psth", "one")  # in the main one
LAYOUTS = ("gzip", "chunked", "contiguous")
LATENCIES = (30.0, 0.0, 100.0)  # milliseconds
MAIN = ("gzip", 30.0)  # the layout and latency of the chart and of the detailed tables
SIZE = Size(sessions=4, megabytes=20)
EVERYWHERE = ("lazynwb_dask", "lazynwb", "h5py", "pynwb")
PARQUET = ("parquet", "parquet-32")
CLOSE = 1.3  # times the limit: a row that takes more is listed


def peers(question: str, layout: str, latency: float) -> tuple[str, ...]:
    """The readers that are asked in one setting; Parquet files are the same for each layout."""
    if (layout, latency) != MAIN and question in MORE:
        return ()
    if (layout, latency) == MAIN:
        return ("lazynwb_dask", "lazynwb_dask-catalog", "lazynwb_dask-workers", *EVERYWHERE[1:], *PARQUET)
    return (*EVERYWHERE, *PARQUET[1:]) if layout == MAIN[0] else EVERYWHERE


EXPLAINED = """# Benchmarks

`python -m benchmarks --docs --repeats {repeats} --patience {patience:g}` asks the same questions of the same
files through several readers and writes this page. The files are generated sessions like those of a
Neuropixels pipeline: {files} files of about {megabytes} MB before compression, with 400 units each. A simulated
object store in a process of its own serves them: each request waits for the latency, and each connection
transfers at most {bandwidth:g} MB/s. Every reader runs in processes of its own, and all readers must give the
same answer.

The layouts are those of HDF5: `contiguous` datasets, `chunked` ones, and chunks compressed with `gzip`.

Readers:

- **lazynwb_dask** on threads; from a catalog that was built before; on a `LocalCluster` of four processes
  with one thread each, which run before the clock starts.
- **lazynwb 1.0** with lazy Polars frames.
- **h5py** and **pynwb** over remfile, one file after the other, reading only the datasets that are needed.
- **read_parquet**: Dask's, of the same tables converted to Parquet, by default and with
  `filesystem="arrow"` and 32 threads.

For the question *cold schema*, nothing is known of the files when the clock starts. For all others, each
reader has already read the schema of the files.

Measured with Python {python}, Dask {dask}, lazynwb_dask {own}.

![Seconds by question and reader](benchmarks.svg)

"""

SECONDS = """## Seconds

Each number is the median of the runs after the first one, each in a new process. Other readers were asked
once where the first run took more than {slow:g} s. `-` means that the reader was not measured or can't
answer, and `> {patience:g}` that it was stopped after so many seconds.

"""

DETAILS = """## Details: {layout}, {latency:g} ms

- **first s**: the first run in a fresh process, imports included. **s**: the median of the others. **worst
  s**: the slowest of the others.
- **ours / it**: the seconds of lazynwb_dask, divided by those of the reader.
- **limit s**: the requests of the row, replayed by plain aiohttp in a process that does nothing else. All
  requests are sent at once, except where the ranges of a request follow from bytes that come first.
  Compressed chunks are decompressed in threads as they arrive. **ours / limit**: the seconds of the row,
  divided by the limit.
- **peak MB**: the most memory that the process held during the run, or all processes of the cluster
  together.
- **depth**: the longest chain of requests of which each began after the one before had ended. **depth a
  file**: the same for the requests to any one file. **at once**: the most requests under way at a time.

"""

NOT_WON = """## What is not won

Every case of this run where another reader was faster than lazynwb_dask on threads:

"""

OVER = """
Every case where lazynwb_dask took more than {close:g} times the time that its requests alone take (the limit):

"""


def write(rows: Sequence[Row], size: Size, bandwidth: float, repeats: int, patience: float) -> None:
    """Write the page, and its chart."""
    main = [row for row in rows if (row.layout, 1000 * row.latency) == MAIN] or rows
    (DOCS / "benchmarks.svg").write_text(chart.draw(main))
    text = _first(size, bandwidth, repeats, patience) + "".join(_page(rows, main, patience))
    (DOCS / "benchmarks.md").write_text(text)


def _first(size: Size, bandwidth: float, repeats: int, patience: float) -> str:
    return EXPLAINED.format(
        files=size.sessions, megabytes=size.megabytes, bandwidth=bandwidth, repeats=repeats, patience=patience,
        python=platform.python_version(), dask=version("dask"), own=version("lazynwb_dask"),
    )  # fmt: skip


def _page(rows: Sequence[Row], main: Sequence[Row], patience: float) -> Iterator[str]:
    yield NOT_WON + (_bullets(_faster(rows)) or "None.\n")
    yield OVER.format(close=CLOSE) + (_bullets(_over(rows)) or "None.\n")
    yield "\n" + SECONDS.format(slow=SLOW, patience=patience)
    for name in dict.fromkeys(row.workload for row in rows):
        yield f"### {_title(name)}\n\n"
        yield markdown(_seconds([row for row in rows if row.workload == name], patience)) + "\n\n"
    yield DETAILS.format(layout=main[0].layout, latency=1000 * main[0].latency)
    for key, group in groups(main).items():
        yield f"### {heading(key, group[0].files)}\n\n{markdown(table(group))}\n\n"


def _title(workload: str) -> str:
    title = WORKLOADS[workload].title
    return title[0].upper() + title[1:]


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _faster(rows: Sequence[Row]) -> list[str]:
    """Where another reader took less time."""
    found = []
    for key, group in groups(rows).items():
        held = {row.peer: float(row.typical["seconds"]) for row in group if row.first}
        ours = held.get("lazynwb_dask")
        found += [
            f"{heading(key, group[0].files)}: {PEERS[peer].title} {seconds:.3f} s, lazynwb_dask {ours:.3f} s"
            for peer, seconds in held.items()
            if ours is not None and not PEERS[peer].is_ours and seconds < ours
        ]
    return found


def _over(rows: Sequence[Row]) -> list[str]:
    """Where ours took much more than its requests need."""
    found = []
    for key, group in groups(rows).items():
        for row in group:
            if row.peer in OURS and row.limit:
                times = row.typical["seconds"] / row.limit["seconds"]
                if times > CLOSE:
                    title = PEERS[row.peer].title
                    found.append(f"{heading(key, row.files)}: {title}, {times:.2f} times")
    return found


def _seconds(rows: Sequence[Row], patience: float) -> list[list[str]]:
    """One question's seconds: a line for each reader, a column for each layout and latency."""
    settings = sorted({(row.layout, row.latency) for row in rows})
    cells = {(row.peer, row.layout, row.latency): _cell(row, patience) for row in rows}
    heads = [f"{layout}, {1000 * latency:g} ms" for layout, latency in settings]
    lines = [["reader", *heads]]
    for peer in PEERS:
        line = [cells.get((peer, *setting), "-") for setting in settings]
        if any(cell != "-" for cell in line):
            lines.append([PEERS[peer].title, *line])
    return lines


def _cell(row: Row, patience: float) -> str:
    if row.first:
        return f"{row.typical['seconds']:.3g}"
    return f"> {patience:g}" if "no answer within" in row.note else "-"
