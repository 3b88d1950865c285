"""The drawing in docs/architecture.md is the package: its rooms, their order, and the way of a read."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lazynwb_dask"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
FLOORS, ARROWS = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DRAWN = [re.split(r"\s{2,}", line)[0].split(" | ") for line in FLOORS.splitlines()]
APART = {"datasets"}  # made-up sessions: read by none of the others


def imports() -> set[tuple[str, str]]:
    """Which room imports which, type hints and deferred imports included."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module, *[f"{node.module}.{alias.name}" for alias in node.names]]
                rooms = {name.split(".")[1] for name in names if name.startswith("lazynwb_dask.")}
                found |= {(room, other) for other in rooms - {room}}
    return found


def test_every_room_is_drawn_once() -> None:
    rooms = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    drawn = [room for floor in DRAWN for room in floor]
    assert sorted([*drawn, *APART]) == sorted([*rooms, "config"])


def test_the_floors_are_those_that_the_linter_keeps() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert [" | ".join(floor) for floor in DRAWN] == contracts["contracts"][0]["layers"]


def test_no_room_imports_one_above_it_or_beside_it() -> None:
    floor = {room: i for i, rooms in enumerate(DRAWN) for room in rooms}
    wrong = {(a, b) for a, b in imports() if a in floor and b in floor and floor[a] >= floor[b]}
    assert not wrong


def test_each_arrow_of_the_way_of_a_read_is_an_import() -> None:
    arrows = {tuple(line.split()[:3:2]) for line in ARROWS.splitlines()}
    assert len(arrows) == len(ARROWS.splitlines())
    assert arrows <= imports()
