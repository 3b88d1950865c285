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
