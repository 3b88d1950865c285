"""The measurements as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .measure import Row
from .peers import PEERS
from .workloads import WORKLOADS

OURS = ("lazynwb_dask", "lazynwb_dask-32")


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
        answers = {}
        for row in group:
            if row.answer:
                answers.setdefault((row.answer["rows"], row.answer["digest"]), []).append(row.peer)
        if len(answers) > 1:
            parties = "; ".join(f"{', '.join(who)}: {what}" for what, who in answers.items())
            found.append(f"{workload} ({layout}): {parties}")
    return found


def table(group: Sequence[Row]) -> list[list[str]]:
    """One question's rows as text, heads first."""
    heads = ["reader", "first s", "s", "ours / it", "CPU s", "peak MB", "requests", "MB", "depth",
             "depth a file", "at once"]  # fmt: skip
    ours = next((row for row in group if row.peer == "lazynwb_dask" and row.first), None)
    lines = [heads]
    for row in group:
        title = PEERS[row.peer].title
        if not row.first:
            lines.append([title, row.note or "no answer", *[""] * (len(heads) - 2)])
            continue
        run = row.typical
        ratio = ""
        if ours is not None and row.peer not in OURS:
            ratio = f"{ours.typical['seconds'] / run['seconds']:.2f}"
        lines.append(
            [
                title, f"{row.first['seconds']:.2f}", f"{run['seconds']:.3f}", ratio,
                f"{run['cpu']:.2f}", f"{run['peak'] / 1e6:.0f}", str(run["requests"]),
                f"{run['bytes'] / 1e6:.1f}", str(run["depth"]), str(run["file_depth"]),
                str(run["concurrency"]),
            ]
        )  # fmt: skip
    return lines


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
