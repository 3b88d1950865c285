"""Every public object: the names of the package, and of its classes the members in docs/reference."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import lazynwb_dask
from lazynwb_dask import datasets, errors

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
INTERNAL = "For internal use."  # ends the first paragraph of the docstring of what is public by name alone
NAMED = {
    name: getattr(home, name)
    for home in (lazynwb_dask, datasets, errors)
    for name in home.__all__
    if not name.startswith("_")
}
FUNCTIONS = {name: value for name, value in NAMED.items() if inspect.isfunction(value)}
ERRORS = {name: value for name, value in NAMED.items() if name.endswith("Error")}


def _classes() -> dict[type, set[str]]:
    """Each class that the reference describes, and its members there."""
    found = {}
    for page in sorted(REFERENCE.glob("*.md")):
        for path, options in re.findall(r"^\.\. autoclass:: (\S+)\n((?:   :.*\n)*)", page.read_text(), re.M):
            home, _, name = path.rpartition(".")
            members = re.findall(r"^   :(?:special-)?members: (.*)$", options, re.M)
            found[getattr(importlib.import_module(home), name)] = set(", ".join(members).split(", ")) - {""}
    return found


CLASSES = _classes()


def members(kind: type) -> dict[str, Any]:
    """Methods and properties of a class that people may use."""
    return {
        name: value
        for name, value in vars(kind).items()
        if (name == "__getitem__" or not name.startswith("_"))
        and hasattr(value, "__get__")
        and not inspect.ismemberdescriptor(value)  # of a class with slots
        and INTERNAL not in (inspect.getdoc(value) or "").partition("\n\n")[0]
    }


def address(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


METHODS = {
    f"{address(kind)}.{name}": value for kind in CLASSES for name, value in members(kind).items()
}  # properties, too


def kinds_within(value: Any, seen: set[int] | None = None) -> set[type]:
    """The package's classes that are reached from an object by its public attributes."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return set()
    seen.add(id(value))
    if isinstance(value, list | tuple | dict):
        inner = value.values() if isinstance(value, dict) else value
        return set().union(*(kinds_within(one, seen) for one in inner))
    kind = type(value)
    if not kind.__module__.startswith("lazynwb_dask."):
        return set()
    shown = {*members(kind), *re.findall(r"^(\w+(?:, \w+)*) : ", inspect.getdoc(kind) or "", re.M)}
    names = {name for several in shown for name in several.split(", ")}
    held = [vars(value)[name] for name in names if name in getattr(value, "__dict__", {})]
    return {kind}.union(*(kinds_within(one, seen) for one in held))
