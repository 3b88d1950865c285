"""The measurements as an SVG: for each question a bar for each reader, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from .measure import Row
from .peers import PEERS
from .report import OURS, groups
from .workloads import WORKLOADS

WIDTH, LABELS, BAR, GAP = 860, 250, 15, 34
LEFT, RIGHT = LABELS + 10, WIDTH - 70
OWN, OTHER, TEXT, LINE = "#d1495b", "#8d99ae", "#2b2d42", "#e5e7eb"


def draw(rows: Sequence[Row]) -> str:
    """The chart of one setting's rows: seconds of the median run."""
    found = [row for row in rows if row.first]
    if not found:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="10"/>'
    seconds = [row.typical["seconds"] for row in found]
    low = math.floor(math.log10(min(seconds)))
    high = max(low + 1, math.ceil(math.log10(max(seconds))))

    def at(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * max(0.0, math.log10(value) - low) / (high - low)

    parts, y = [], 30
    for (workload, _, _), group in groups(found).items():
        title = escape(WORKLOADS[workload].title)
        parts.append(f'<text x="10" y="{y}" class="title">{title}</text>')
        y += 8
        for row in group:
            parts += _bar(row, y, at)
            y += BAR
        y += GAP
    bottom = y - GAP + 8
    lines = []
    for power in range(low, high + 1):
        x = at(10.0**power)
        name = f"{10**power} s" if power >= 0 else f"{10.0**power:g} s"
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="38" y2="{bottom}" stroke="{LINE}"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{name}</text>')
    style = (
        f"text{{font:11px sans-serif;fill:{TEXT}}}.title{{font-weight:bold;font-size:12px}}"
        ".name{text-anchor:end}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 24}" '
        f'width="{WIDTH}" height="{bottom + 24}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(lines)}{"".join(parts)}</svg>\n'
    )


def _bar(row: Row, y: int, at: Callable[[float], float]) -> list[str]:
    seconds = row.typical["seconds"]
    end, middle = at(seconds), y + BAR - 4
    colour = OWN if row.peer in OURS else OTHER
    return [
        f'<text x="{LABELS}" y="{middle}" class="name">{escape(PEERS[row.peer].title)}</text>',
        f'<rect x="{LEFT}" y="{y + 2}" width="{max(1.0, end - LEFT):.1f}" height="{BAR - 4}" fill="{colour}"/>',
        f'<text x="{end + 5:.1f}" y="{middle}">{seconds:.3g} s</text>',
    ]
