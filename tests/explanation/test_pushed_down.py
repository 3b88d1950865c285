"""Each row of the tables in docs/pushed-down.md is what `explain` says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dask
import pytest

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions

PAGE = (Path(__file__).parents[2] / "docs" / "pushed-down.md").read_text()


def rows() -> list[dict[str, str]]:
    """Of all tables of the page, each row by heading."""
    found = []
    for table in re.findall(r"^\|.*\n\|[-|]+\n(?:\|.*\n)+", PAGE, re.M):
        head, _, *body = [
            [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in table.splitlines()
        ]
        found += [dict(zip(head, cells, strict=True)) for cells in body]
    return found


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pushed")
    names = {"paths": make_sessions(folder, n=3, units=20, mean_spikes=100, trials=30, samples=3_000)}
    exec(re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)[0], names)
    return names


def code(cell: str) -> str:
    (found,) = re.findall(r"^`(.*)`$", cell)
    return found


def frame(cell: str, names: dict[str, Any]) -> Any:
    return eval(code(cell), dict(names))


def listed(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


@pytest.mark.parametrize("row", [row for row in rows() if "instead" not in row], ids=lambda r: r["you write"])
def test_what_is_pushed_down_is_what_the_page_says(row: dict[str, str], names: dict[str, Any]) -> None:
    if row.get("then read") == "nothing":
        with lazynwb_dask.trace() as fetched:
            dask.compute(frame(row["you write"], names))
        assert fetched.total.bytes == 0
        return
    told = lazynwb_dask.explain(frame(row["you write"], names))
    assert told.left == ()
    columns = {*names["units"].columns, *names["electrodes"].columns, *names["speed"].columns} - {"_nwb_path"}
    conditions = " ".join(read.condition for read in told.reads)
    decides = {
        word for word in re.findall(r"[A-Za-z_]\w*", re.sub(r"'[^']*'", "", conditions)) if word in columns
    }
    assert decides == listed(row.get("decides", ""))
    if "then read" in row:
        assert {name for read in told.reads for name in read.columns} == listed(row["then read"])
    if "files" in row:
        assert row["files"] == f"{told.reads[0].files_left} of {told.reads[0].files}"
    if "of each partition" in row:
        assert told.reads[0].limit == row["of each partition"]


@pytest.mark.parametrize("row", [row for row in rows() if "instead" in row], ids=lambda row: row["you write"])
def test_what_is_not_pushed_down_says_so_and_the_other_way_is(
    row: dict[str, str], names: dict[str, Any]
) -> None:
    first, second = frame(row["you write"], names), frame(row["instead"], names)
    assert any(row["not pushed, because"] in why for _, why in lazynwb_dask.explain(first).left)
    told = lazynwb_dask.explain(second)
    assert told.left == ()
    assert told.reads[0].condition
    if "decoder_label" not in code(row["you write"]):
        assert first.compute().tolist() == second.compute().tolist()


def test_the_tables_are_found() -> None:
    assert len(rows()) > 50
