"""What is promised of lazynwb_dask's speed, and whether a run of the benchmarks keeps it.

All but a few are ratios of what was measured in one run, on one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .measure import Row
from .report import groups
from .workloads import WORKLOADS

Rows = Mapping[str, Row]  # of one question and setting, by reader
OURS, CATALOG, WORKERS, LAZYNWB = "lazynwb_dask", "lazynwb_dask-catalog", "lazynwb_dask-workers", "lazynwb"


@dataclass(frozen=True)
class Target:
    """One promise: a number that is at most so large.

    Attributes
    ----------
    title : str
    most : float
    measured : callable
        The number, of a question's rows.
    questions : sequence of str
    peers : sequence of str
        The readers whose rows it needs.
    """

    title: str
    most: float
    measured: Callable[[Rows], float]
    questions: Sequence[str]
    peers: Sequence[str] = (OURS,)


def _seconds(rows: Rows, peer: str = OURS) -> float:
    return float(rows[peer].typical["seconds"])


def _against(other: str) -> Callable[[Rows], float]:
    return lambda rows: _seconds(rows) / _seconds(rows, other)


def _over(seconds: Callable[[Rows], float]) -> Callable[[Rows], float]:
    def measured(rows: Rows) -> float:
        limit = rows[OURS].limit
        return seconds(rows) / limit["seconds"] if limit else float("nan")

    return measured


def _a_file(what: str, unit: float) -> Callable[[Rows], float]:
    return lambda rows: rows[OURS].typical[what] / unit / rows[OURS].files


def _waves(rows: Rows) -> float:
    """Requests one after another, less those that only have to wait for a connection, as the replay's do."""
    limit = rows[OURS].limit
    depth: float = rows[OURS].typical["depth"]
    return depth - limit["depth"] + limit["waves"] if limit else depth


SCALARS, QUALITY = ("scalars", "texts"), ("quality", "strict")
WITH_WORKERS = ("schema", *SCALARS, *QUALITY, "spikes", "one_of_small_known")
TARGETS = (
    Target("seconds / lazynwb's", 0.5, _against(LAZYNWB), SCALARS, (OURS, LAZYNWB)),
    Target("seconds / lazynwb's", 0.1, _against(LAZYNWB), ["psth"], (OURS, LAZYNWB)),
    Target("seconds / lazynwb's", 0.6, _against(LAZYNWB), ["schema"], (OURS, LAZYNWB)),
    Target("requests a file", 5, _a_file("requests", 1), ["schema"]),
    Target("MB a file", 1, _a_file("bytes", 1e6), ["schema"]),
    Target("ms of CPU a file", 8, _a_file("cpu", 1e-3), ["schema"]),
    Target("seconds / limit", 2, _over(_seconds), SCALARS),
    Target("seconds / limit", 1.3, _over(_seconds), ["strict"]),
    Target("seconds / limit", 1.4, _over(_seconds), ["spikes"]),
    Target("worst seconds / limit", 2, _over(lambda rows: rows[OURS].worst), ["spikes"]),
    Target("from a catalog / without", 1, lambda r: 1 / _against(CATALOG)(r), QUALITY, (OURS, CATALOG)),
    Target("waves", 3, _waves, ["one_of_small_known"]),
    Target("seconds on 4 workers, less those on threads", 0.2,
           lambda r: _seconds(r, WORKERS) - _seconds(r), WITH_WORKERS, (OURS, WORKERS)),
)  # fmt: skip


def questions() -> list[str]:
    """What has to be asked to know about all targets."""
    return [name for name in WORKLOADS if any(name in target.questions for target in TARGETS)]


def peers(question: str) -> list[str]:
    """Who has to be asked it."""
    return list(dict.fromkeys(p for target in TARGETS if question in target.questions for p in target.peers))


def table(rows: Iterable[Row]) -> list[list[str]]:
    """Each target that these rows can tell of, heads first."""
    lines = [["question", "ms", "target", "at most", "measured", "kept"]]
    depths: dict[tuple[str, str], dict[float, int]] = {}
    for (workload, layout, latency), group in groups(rows).items():
        held = {row.peer: row for row in group if row.first}
        title, ms = WORKLOADS[workload].title, f"{1000 * latency:.0f}"
        lines += [
            [title, ms, target.title, *_verdict(target.measured(held), target.most)]
            for target in TARGETS
            if workload in target.questions and all(peer in held for peer in target.peers)
        ]
        if OURS in held:
            known = depths.setdefault((workload, layout), {})
            known[latency] = min(run["depth"] for run in [held[OURS].first, *held[OURS].runs])
            least = min(known)
            if least < latency:
                of = f"depth, against {1000 * least:.0f} ms"
                lines.append([title, ms, of, *_verdict(known[latency], known[least])])
    return lines


def _verdict(measured: float, most: float) -> tuple[str, str, str]:
    return f"{most:g}", f"{measured:.2f}", "yes" if measured <= most else "NO"
