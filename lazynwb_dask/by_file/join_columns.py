"""The columns of a join: named and ordered as by pandas, with the side that each comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from lazynwb_dask.by_file.alignment import Plan

KEY, PATH = -1, -2  # where a column comes from, if not from one side


class Output(NamedTuple):
    """A column of the result: its side, or `KEY` or `PATH`, and its name there."""

    name: str
    side: int
    source: str


def outputs_of(
    left: Plan, right: Plan, keys: Sequence[tuple[str, str]], suffixes: Sequence[Any], by: str
) -> list[Output]:
    shared = [a for a, b in keys if a == b]
    ours = [*left.columns] if by in left.columns else [*left.columns, by]
    theirs = [name for name in right.columns if name not in shared and name != by]
    once = [*shared, by]
    mine, other = (
        pd.DataFrame({name: [0] for name in [*once, *rest]})
        for rest in ([n for n in ours if n not in once], theirs)
    )
    named = mine.merge(other, on=once, suffixes=tuple(suffixes)).columns[len(once) :]
    renamed = dict(zip([n for n in ours if n not in once], named, strict=False))
    found = []
    for name in ours:
        side = PATH if name == by else KEY if name in shared else 0
        found.append(Output(renamed.get(name, name), side, name))
    found += [Output(n, 1, s) for n, s in zip(named[len(renamed) :], theirs, strict=True)]
    return found
