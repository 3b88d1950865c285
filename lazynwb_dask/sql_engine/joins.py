"""Which tables of a statement are joined by `_nwb_path`, so that the files of one limit those of another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

PATH = "_nwb_path"
_RIGHT_FROM_LEFT = {"INNER", "LEFT", "SEMI", "ANTI"}
_LEFT_FROM_RIGHT = {"INNER", "RIGHT", "SEMI"}


def limits(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs of tables, by the names that `rename` gave them: of the first only rows matter whose file is that
    of a row of the second.

    A row of a side of a join that the other side may leave out without a trace, or fill up with NULL, need not
    be there if no row of the other side is of its file.
    """
    found: list[tuple[str, str]] = []
    stack: list[Any] = [tree]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            if part.get("type") == "SELECT_NODE":
                found += _of_select(part)
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)
    return list(dict.fromkeys(found))


def _of_select(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    source = node.get("from_table") or {}
    yield from _of_joins(source)
    shown = all(join["join_type"] not in ("SEMI", "ANTI") for join in _joins(source))
    if shown and all(join["ref_type"] in ("REGULAR", "CROSS") for join in _joins(source)):
        for one, other in _equal(node.get("where_clause"), _tables(source)):
            yield from ((one, other), (other, one))


def _of_joins(source: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for join in _joins(source):
        if any(part["ref_type"] not in ("REGULAR", "CROSS") for part in _joins(join)):
            continue
        left, right = _tables(join["left"]), _tables(join["right"])
        pairs = list(_equal(join.get("condition"), left | right))
        if _uses_path(join):
            pairs += product(_merged(join["left"]), _merged(join["right"]))
        for one, other in pairs:
            if one in right.values():
                one, other = other, one
            if one not in left.values() or other not in right.values():
                continue
            if join["join_type"] in _RIGHT_FROM_LEFT:
                yield other, one
            if join["join_type"] in _LEFT_FROM_RIGHT:
                yield one, other


def _uses_path(join: dict[str, Any]) -> bool:
    return PATH in [name.lower() for name in join.get("using_columns") or []]


def _merged(source: dict[str, Any]) -> list[str]:
    """The tables whose `_nwb_path` all equal that of a side of a join; none where that isn't sure."""
    if source.get("type") == "JOIN" and source["join_type"] == "INNER" and _uses_path(source):
        left, right = _merged(source["left"]), _merged(source["right"])
        return left + right if left and right else []
    return list(_tables(source).values()) if source.get("type") == "BASE_TABLE" else []


def _joins(source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if source.get("type") == "JOIN":
        yield source
        yield from _joins(source["left"])
        yield from _joins(source["right"])


def _tables(source: dict[str, Any]) -> dict[str, str]:
    """The tables of a FROM by their aliases, in lower case."""
    if source.get("type") == "JOIN":
        return _tables(source["left"]) | _tables(source["right"])
    if source.get("type") == "BASE_TABLE" and not source.get("column_name_alias") and not source.get("sample"):
        return {source["alias"].lower(): source["table_name"]}
    return {}


def _equal(condition: Any, tables: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The pairs of tables whose `_nwb_path` must be equal for a condition to be true."""
    if not isinstance(condition, dict):
        return
    if condition.get("type") == "CONJUNCTION_AND":
        for child in condition["children"]:
            yield from _equal(child, tables)
    if condition.get("type") == "COMPARE_EQUAL":
        sides = [condition["left"].get("column_names") or [], condition["right"].get("column_names") or []]
        if all(len(side) == 2 and side[1].lower() == PATH and side[0].lower() in tables for side in sides):
            one, other = (tables[side[0].lower()] for side in sides)
            if one != other:
                yield one, other
