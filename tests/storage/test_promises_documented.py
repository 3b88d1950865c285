"""The numbers that docs/promises.md tells of requests that fail are those that hold."""

from __future__ import annotations

import re
from pathlib import Path

from lazynwb_dask.config import defaults
from lazynwb_dask.storage.faults import kind_of

PAGE = (Path(__file__).parents[2] / "docs" / "promises.md").read_text()
ROWS = {
    row.split("|")[1].strip(): row.split("|")[2].strip() for row in PAGE.splitlines() if row.startswith("|")
}


def told(beginning: str) -> tuple[str, str]:
    (found,) = [(what, done) for what, done in ROWS.items() if what.startswith(beginning)]
    return found


def statuses(text: str) -> set[int]:
    return set(map(int, re.findall(r"\b[45]\d\d\b", text)))


def test_the_settings_are_as_they_are_told() -> None:
    what, done = told("the connection breaks")
    settings = defaults()
    assert f"no byte comes for {settings['timeout']};" in what
    assert f"at most {settings['retries']} times and for at most {settings['deadline']}," in done


def test_the_statuses_are_as_they_are_told() -> None:
    every = range(400, 600)
    assert statuses(told("the connection breaks")[0]) == {s for s in every if kind_of(s) == "transient"}
    assert statuses(told("status 404")[0]) == {s for s in every if kind_of(s) == "missing"}
    assert statuses(told("status 401")[0]) == {s for s in every if kind_of(s) == "forbidden"}
