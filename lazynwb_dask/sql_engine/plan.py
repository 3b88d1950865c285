"""What DuckDB's plan of a statement needs of each scan: it plans as it will run, and nothing is read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lazynwb_dask.sql_engine.conditions import MOST, masks
from lazynwb_dask.sql_engine.scans import FrameScan
from lazynwb_dask.sql_engine.statement import tree_of, unparse

_SAME_ROWS = {"PROJECTION", "TOP_N", "FILTER"}  # nodes above a scan whose rows are rows of it


@dataclass
class Need:
    """Of one scan: its columns, as DuckDB calls them, the conditions on it, how often it runs, and whether the
    statement's rows are its own, ordered and limited."""

    columns: list[str] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)
    times: int = 0
    is_all: bool = False


def needs(connection: Any, sql: str, scans: Sequence[FrameScan]) -> list[Need]:
    """What a statement needs of each scan."""
    (row,) = connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchall()
    try:
        return _needs(json.loads(row[1]), scans)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # of another version: all is read, DuckDB does the rest
        return [Need([*scan.names], times=1) for scan in scans]


def _needs(plan: Any, scans: Sequence[FrameScan]) -> list[Need]:
    found = [Need() for _ in scans]
    (root,) = plan
    names = set(_names(root))
    for scan_node, conditions, repeated in _scans(root, [], False):
        about = scan_node["extra_info"]
        columns = " ".join(_texts(about.get("Projections")))
        own = [*_whole(about.get("Filters")), *conditions]
        for scan, need in zip(scans, found, strict=True):
            if scan.named(columns):
                need.columns = list(dict.fromkeys([*need.columns, *scan.named(" ".join([columns, *own]))]))
                need.conditions = own
                need.times += 2 if repeated else 1
                need.is_all = len(scans) == 1 and names <= _SAME_ROWS | {scan_node["name"]} and "TOP_N" in names
    return found


def conditions(
    connection: Any, scan: FrameScan, texts: Sequence[str]
) -> tuple[list[Any], list[tuple[str, str]], list[str]]:
    """The masks of conditions, those that have none with the reason, and the texts of all."""
    pushed, left = [], []
    for text in texts:
        tree = tree_of(connection, f"SELECT {text}")
        if tree["error"] or "\n" in text:
            left.append((scan.said(text), "DuckDB says it in a way that isn't understood"))
            continue
        found, rest = masks(tree["statements"][0]["node"]["select_list"][0], scan.column)
        if len(found) > MOST:
            left.append((f"{len(found) - MOST} more conditions", f"only {MOST} go into a read"))
        pushed += found[:MOST]
        for node, why in rest:
            tree["statements"][0]["node"]["select_list"] = [node]
            left.append((scan.said(unparse(connection, tree).removeprefix("SELECT ")), why))
    return pushed, left, [scan.said(text) for text in texts]


def _scans(node: Any, above: list[str], repeated: bool) -> Iterator[tuple[Any, list[str], bool]]:
    """The scans of frames, each with the conditions right above it, and whether it runs again and again."""
    about = node.get("extra_info") or {}
    if "ARROW_SCAN" in node["name"]:
        yield node, above, repeated
    below = [*above, *_whole(about.get("Expression"))] if node["name"] == "FILTER" else []
    repeated = repeated or "REC_CTE" in node["name"]
    for child in node.get("children", []):
        yield from _scans(child, below, repeated)


def _names(node: Any) -> Iterator[str]:
    yield node["name"].strip()
    for child in node.get("children", []):
        yield from _names(child)


def _texts(found: Any) -> list[str]:
    return [found] if isinstance(found, str) else list(found or [])


def _whole(found: Any) -> list[str]:
    """Conditions, of which DuckDB makes a text for each line, and none for empty lines: those with a value of
    more than a line stay recognizable by the end of a line in them."""
    texts: list[str] = []
    for text in _texts(found):
        if texts and texts[-1].count("'") % 2:
            texts[-1] += f"\n{text}"
        else:
            texts.append(text)
    return texts
