"""Damaged files by the thousand: what becomes of them, how long it takes, and how much memory.

``python -m benchmarks.hostile --mutants 20000``. Each mutant is made from a good file with its number as the
seed, so that any of them can be looked at again (``--first 4711 --mutants 1``). Needs the tests' folder; with
the corpus of real files (`LAZYNWB_DASK_CORPUS`) these are damaged too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
WORST = 5  # shown of the slowest and of the largest


def main() -> None:
    """Judge mutants and print the counts; ends with 1 if any of them got away with something."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mutants", type=int, default=20_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--deadline", type=float, default=10.0, help="seconds for one job")
    parser.add_argument("--workers", type=int, default=2, help="mutants that are read at a time")
    parser.add_argument("--no-isolation", action="store_true", help="let libhdf5 hang and crash the reader")
    chosen = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    import judge

    begun = time.monotonic()
    found: list[judge.Verdict] = []
    last = chosen.first + chosen.mutants
    verdicts = judge.judged(
        chosen.first, last, deadline=chosen.deadline, isolate=not chosen.no_isolation, workers=chosen.workers
    )
    for verdict in verdicts:
        found.append(verdict)
        if verdict.outcome in (*judge.FORBIDDEN, "unsettled"):
            print(f"{verdict.outcome}: {verdict}", flush=True)
        if len(found) % 1000 == 0:
            print(f"{len(found)} in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    report(found, judge.OUTCOMES, judge.FORBIDDEN)
    print(f"{len(found)} mutants in {time.monotonic() - begun:.0f} s")
    sys.exit(any(v.outcome in judge.FORBIDDEN for v in found))


def report(found: list, outcomes: dict[str, str], forbidden: tuple[str, ...]) -> None:  # type: ignore[type-arg]
    """Print how many ended how, and the worst."""
    counts = Counter(v.outcome for v in found)
    for name, meaning in outcomes.items():
        mark = "!" if name in forbidden and counts[name] else " "
        print(f"{mark} {name:10} {counts[name]:7}  {meaning}")
    for title, key in (("slowest", "seconds"), ("most memory", "grown")):
        print(f"{title}:")
        for v in sorted(found, key=lambda v: getattr(v, key), reverse=True)[:WORST]:
            print(f"  {v.seconds:6.2f} s {v.grown >> 20:5} MB  {v.number} {v.file}: {v.how}")


if __name__ == "__main__":
    main()
