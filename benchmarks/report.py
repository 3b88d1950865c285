"""The measurements as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .measure import Row
from .peers import PEERS
from .workloads import WORKLOADS

OURS = ("lazynwb_dask", "lazynwb_dask-32", "lazynwb_dask-workers")


def groups(rows: Iterable[Row]) -> dict[tuple[str, str, float], list[Row]]:
    """The rows of each question and setting."""
    found: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        found.setdefault((row.workload, row.layout, row.latency), []).append(row)
    return found


def disagreements(rows: Iterable[Row]) -> list[str]:
    """The questions to which readers gave different answers."""
    found = []
    for (workload, layout, _), group in groups(rows).items():
        answers: dict[tuple[int, str], list[str]] = {}
        for row in group:
            if row.answer:
                answers.setdefault((row.answer["rows"], row.answer["digest"]), []).append(row.peer)
        if len(answers) > 1:
            parties = "; ".join(f"{', '.join(who)}: {what}" for what, who in answers.items())
            found.append(f"{workload} ({layout}): {parties}")
    return found


def table(group: Sequence[Row]) -> list[list[str]]:
    """One question's rows as text, heads first."""
    heads = ["reader", "first s", "ours / it", "s", "worst s", "ours / it", "limit s",
             "ours / limit", "CPU s", "peak MB", "requests", "MB", "depth", "depth a file",
             "at once"]  # fmt: skip
    ours = next((row for row in group if row.peer == "lazynwb_dask" and row.first), None)
    lines = [heads]
    for row in group:
        title = PEERS[row.peer].title
        if not row.first:
            lines.append([title, (row.note or "no answer").splitlines()[0][:40], *[""] * (len(heads) - 2)])
            continue
        run = row.typical
        early = late = limit = over = ""
        if ours is not None and row.peer not in OURS:
            early = f"{ours.first['seconds'] / row.first['seconds']:.2f}"
            late = f"{ours.typical['seconds'] / run['seconds']:.2f}"
        if row.limit is not None:
            limit = f"{row.limit['seconds']:.3f}"
            over = f"{run['seconds'] / row.limit['seconds']:.2f}"
        lines.append(
            [
                title, f"{row.first['seconds']:.2f}", early, f"{run['seconds']:.3f}",
                f"{row.worst:.3f}", late, limit, over,
                f"{run['cpu']:.2f}", f"{run['peak'] / 1e6:.0f}", str(run["requests"]),
                f"{run['bytes'] / 1e6:.1f}", str(run["depth"]), str(run["file_depth"]),
                str(run["concurrency"]),
            ]
        )  # fmt: skip
    return lines


def line(row: Row) -> str:
    """One row while the others are still running."""
    if not row.first:
        return row.note or "no answer"
    run = row.typical
    trouble = f" ({row.note.splitlines()[0]})" if row.note else ""
    bound = f", limit {row.limit['seconds']:.3f} s, depth {row.limit['depth']}" if row.limit else ""
    return (
        f"first {row.first['seconds']:.3f} s, then {run['seconds']:.3f} s, {run['cpu']:.2f} s CPU, "
        f"{run['requests']} requests, {run['bytes'] / 1e6:.1f} MB, depth {run['depth']}{bound}{trouble}"
    )


def heading(key: tuple[str, str, float], files: int) -> str:
    workload, layout, latency = key
    title = WORKLOADS[workload].title
    return f"{title[0].upper()}{title[1:]}: {files} files, {layout}, {1000 * latency:.0f} ms"


def text(lines: Sequence[Sequence[str]]) -> str:
    """A table for the terminal."""
    widths = [max(len(line[i]) for line in lines) for i in range(1, len(lines[0]))]
    first = max(len(line[0]) for line in lines)
    return "\n".join(
        line[0].ljust(first)
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(line[1:], widths, strict=True))
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The same table for the documentation."""
    rule = ["---"] + ["--:"] * (len(lines[0]) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


EXPLAINED = """# Benchmarks

`python -m benchmarks` asks the same questions of the same files through several readers and writes this
page. The files are made-up sessions like those of a Neuropixels pipeline, in a simulated object store in
a process of its own: each request waits for the latency, each connection carries at most so many bytes a
second. Every reader runs in processes of its own, and all must give the same answer.

- **first s**: the first run in a fresh process, imports of what it needs included.
- **s**: the median of the runs after it, each in a new process, which has answered the question for
  another file before. For a *cold* question nothing is known of the files; otherwise their schema is.
  **worst s**: the slowest of these.
- **ours / it**: lazynwb_dask's seconds over the reader's.
- **limit s**: the row's own requests, replayed by plain aiohttp in a process that does nothing else, over as
  many connections, which are open by then. All requests are sent at once, except that those for a file whose
  ranges follow from its other bytes come after these; deflated chunks are inflated in threads as they come.
  **ours / limit**: the row's seconds over that.
- **peak MB**: the most memory that the process held during the run, or the processes of a cluster together.
- **depth**: the longest chain of requests of which each began after the one before it had ended; **a
  file**: the same for the requests of any one file.
- **at once**: the most requests that were under way at a time.

Readers: lazynwb_dask also on a `LocalCluster` of four processes with a thread each, which run before the clock
starts; lazynwb 1.0 with lazy frames; h5py and pynwb over remfile, one file after the other, reading only
the datasets that are needed; Dask's `read_parquet` of the same tables converted to Parquet, by default and
with `filesystem="arrow"` and 32 threads.

With `-l zarr2` or `-l zarr3` the same sessions are Zarr stores of that version, with the same chunks along the
rows, in Zarr's usual compression. They are read by lazynwb_dask, by lazynwb 1.0 (version 2) and by zarr-python
over fsspec, one store after the other. There, a file's requests are those for all objects of its store, and the
limit decodes no chunks.

![seconds by question and reader](benchmarks.svg)
"""


def page(rows: Sequence[Row], bandwidth: float) -> str:
    """The documentation's page: all tables."""
    parts = [EXPLAINED, f"{bandwidth:g} MB/s a connection.\n"]
    for key, group in groups(rows).items():
        parts.append(f"## {heading(key, group[0].files)}\n\n{markdown(table(group))}\n")
    return "\n".join(parts)
