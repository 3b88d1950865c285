"""The columns of many files' tables, as a report for people."""

from __future__ import annotations

import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.model.index import ColumnIndex, TableIndex
from lazynwb_dask.plan.schema import EXAMPLES
from lazynwb_dask.scan.fields import Schema

WIDTH = 40  # characters of a cell, in a terminal
HTML_WIDTH = 100  # in a notebook


class Shown(pd.DataFrame):
    """A DataFrame with a repr of its own. What pandas makes of it is a plain DataFrame."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __copy__(self, deep: bool = True) -> Self:
        again = type(self)(self.copy(deep))
        again.attrs = deepcopy(self.attrs)
        return again

    def __deepcopy__(self, memo: object = None) -> Self:
        return self.__copy__()


class Report(Shown):
    """Shown whole, without text columns that are empty."""

    def __repr__(self) -> str:
        width = shutil.get_terminal_size().columns
        shown = self._telling()
        told = shown.pop("problem") if "problem" in shown else pd.Series(dtype=str)
        text = shown.to_string(line_width=width, max_colwidth=min(WIDTH, width // 2))
        for name, problem in told[told != ""].items():
            text += "\n\n" + textwrap.fill(
                f"{name} is left out: {problem}", width, break_long_words=False, break_on_hyphens=False
            )
        return text

    def _repr_html_(self) -> str | None:
        whole = ("display.max_rows", None, "display.max_columns", None)
        with pd.option_context(*whole, "display.max_colwidth", HTML_WIDTH):
            html: str | None = self._telling()._repr_html_()  # type: ignore[operator]
        return html

    def _telling(self) -> pd.DataFrame:
        empty = [name for name in self.columns if (self[name] == "").all()]
        return pd.DataFrame(self).drop(columns=empty)


def report(tables: Sequence[tuple[str, TableIndex]], schema: Schema) -> pd.DataFrame:
    """The types of each column, with the number of files for each."""
    rows: list[dict[str, object]] = []
    names = dict.fromkeys(name for _, table in tables for name in table.columns)
    of_tables = {f"of the table: {note}" for _, table in tables for note in table.notes}
    for name in names:
        columns = [t.columns[name] for _, t in tables if name in t.columns]
        found = Counter(_readable(c.type) for c in columns if not c.problem)
        unified = schema.fields.get(name)
        conflict = schema.conflicts.get(name)
        notes = {n for c in columns for n in c.notes} | (of_tables if not rows else set())
        notes |= {failure.error for failure in schema.unread if failure.column == name}
        rows.append(
            {
                "column": name,
                "dtype": str(unified.dtype) if unified else "",
                "found": ", ".join(f"{kind} ({n})" for kind, n in found.most_common()),
                "files": len(columns),
                "missing": len(tables) - len(columns),
                "shape": _shapes(columns),
                "description": _first(columns, "description"),
                "unit": _first(columns, "unit"),
                "refers_to": _first(columns, "table"),
                "notes": "; ".join(sorted(notes)[:EXAMPLES]),
                "problem": conflict.reason if conflict else "",
            }
        )
    return Report(pd.DataFrame(rows).set_index("column")) if rows else pd.DataFrame()


def _readable(kind: pa.DataType) -> str:
    """A type in pandas' words: float64 rather than double."""
    number = pa.types.is_floating(kind)
    return str(np.dtype(kind.to_pandas_dtype())) if number else str(kind).removeprefix("large_")


def _shapes(columns: Sequence[ColumnIndex]) -> str:
    shapes = Counter(
        " x ".join(["rows", *(["*"] * (len(c.arrays) - 1)), *map(str, c.arrays[0].layout.item)])
        for c in columns
        if c.arrays
    )
    return ", ".join(shape for shape, _ in shapes.most_common(EXAMPLES))


def _first(columns: Sequence[ColumnIndex], key: str) -> str:
    return next((c.attributes[key] for c in columns if c.attributes.get(key)), "")
