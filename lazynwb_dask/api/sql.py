"""SQL over tables of NWB files."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from lazynwb_dask import expr
from lazynwb_dask.api.arguments import Paths
from lazynwb_dask.api.sessions import read_sessions
from lazynwb_dask.api.tables import read_nwb, read_report
from lazynwb_dask.explanation import explanation
from lazynwb_dask.explanation.explanation import Explanation
from lazynwb_dask.sql_engine import engine
from lazynwb_dask.sql_engine.results import to_pandas

if TYPE_CHECKING:
    import dask.dataframe as dd


def sql(
    statement: str,
    paths: Paths | None = None,
    *,
    tables: Mapping[str, Any] | None = None,
    on_missing: str = "skip",
    on_error: str = "raise",
    storage_options: Mapping[str, Any] | None = None,
) -> SQLQuery:
    """A SELECT over the tables of many NWB files, in the SQL of DuckDB.

    Only metadata are read now. DuckDB plans the statement; of each table that it names Dask reads the columns
    that the plan needs, and of large columns only the rows that the plan's conditions leave. Their record
    batches stream into DuckDB, which does the rest.

    Parameters
    ----------
    statement : str
        One SELECT. Tables are named as in `read_nwb`: ``units``, ``trials``, in double quotes
        ``"processing/behavior/running_speed"``. ``sessions`` is the table of `read_sessions`. Names of the
        statement's own WITH come first. Letters of tables' names count as they are in the files.
    paths : str, os.PathLike or iterable of them, or Catalog
        As in `read_nwb`.
    tables : mapping, optional
        Further tables, by their names: frames of Dask or pandas. These come before those of the files.
    on_missing, on_error, storage_options
        As in `read_nwb`.

    Returns
    -------
    SQLQuery
        Lazy: `compute` gives a frame of pandas, `record_batches` streams. Polars, DuckDB and pyarrow take it
        as it is.

    Raises
    ------
    SQLError
        The statement is no single SELECT, has an error (with the line and the column), or reads something
        else than its tables.
    TableNotFoundError
        No file has a table of that name.
    NWBError
        DuckDB isn't installed.

    See Also
    --------
    explain : what it would read.

    Notes
    -----
    NaN in a column of numbers is NULL; in lists it stays NaN.

    Examples
    --------
    >>> from lazynwb_dask import sql
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=2)
    >>> query = sql("SELECT count(*) AS units, avg(len(spike_times)) > 0 AS fire FROM units", paths)
    >>> query.compute()
       units  fire
    0    240  True
    """
    if paths is not None and not isinstance(paths, (str, os.PathLike)) and isinstance(paths, Iterator):
        paths = list(paths)
    if not isinstance(statement, str):
        raise TypeError(f"statement={statement!r}: must be the text of a SELECT")
    if tables is not None and not (isinstance(tables, Mapping) and all(isinstance(n, str) for n in tables)):
        raise TypeError(f"tables={tables!r}: must be a dict of names to frames of pandas or Dask")
    own = {name: _frame(name, given) for name, given in (tables or {}).items()}
    policies: dict[str, Any] = {"on_error": on_error, "storage_options": storage_options}
    frames = {}
    for name in engine.table_names(statement):
        if name in own:
            frames[name] = own[name]
        elif paths is None:
            raise engine.no_table(name, own)
        elif name == "sessions":
            frames[name] = read_sessions(paths, **policies)
        else:
            frames[name] = read_nwb(paths, name, on_missing=on_missing, **policies)
    return SQLQuery(statement, frames)


class SQLQuery:
    """A statement over tables of NWB files, made by `sql`. Nothing is read before it is computed.

    Parameters
    ----------
    statement : str
    frames : mapping
        The tables that it names, as Dask DataFrames.
    """

    def __init__(self, statement: str, frames: Mapping[str, dd.DataFrame]) -> None:
        self.statement = statement
        self.frames = dict(frames)
        self._schema  # noqa: B018 an error of the statement shows now

    @cached_property
    def _schema(self) -> pa.Schema:
        with engine.connection() as opened:
            return engine.Run(opened, self.statement, self.frames).schema

    @property
    def schema(self) -> pa.Schema:
        """The names and Arrow types of the result's columns."""
        return self._schema

    @property
    def columns(self) -> list[str]:
        """The names of the result's columns."""
        return list(self._schema.names)

    @property
    def dtypes(self) -> pd.Series[Any]:
        """Of `compute`'s result. Whole numbers and bools of which some are missing have Arrow's instead."""
        return to_pandas(pa.Table.from_batches([], self._schema)).dtypes

    def compute(self) -> pd.DataFrame:
        """The result as a frame of pandas, with the dtypes that `read_nwb` gives."""
        return to_pandas(pa.Table.from_batches(self._batches(), self._schema))

    def record_batches(self) -> pa.RecordBatchReader:
        """The result as record batches, one after the other: also larger than memory.

        Nothing is read before the first is asked for, and nothing after the reader is closed.
        """
        return pa.RecordBatchReader.from_batches(self._schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with engine.connection() as opened:
            run = engine.Run(opened, self.statement, self.frames)
            run.plan()
            yield from run.batches()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.record_batches().__arrow_c_stream__(requested_schema)

    def explain(self) -> Explanation:
        """What computing it would read. See `lazynwb_dask.explain`."""
        with engine.connection() as opened:
            run = engine.Run(opened, self.statement, self.frames)
            run.plan(reading=False)
        reads: list[Any] = []
        left = list(run.left)
        for made in run.scans:
            if made.later:
                left.append((", ".join(made.later), "is read once it is known which rows are wanted"))
            if not made.is_free and expr.reads(made.scan.frame):
                told = explanation.explain(made.frame())
                reads += told.reads
                left += told.left
        return Explanation(tuple(reads), tuple(left))

    def report(self) -> pd.DataFrame:
        """The files that were left out, and why. See `lazynwb_dask.read_report`."""
        none = pd.DataFrame(columns=["path", "stage", "error"])
        each = [read_report(frame) for frame in self.frames.values() if not expr.is_computed(frame)]
        return pd.concat([none, *each]).drop_duplicates(ignore_index=True)

    def __repr__(self) -> str:
        return "\n".join([f"SQLQuery: {self.statement.strip()}", *[f"  {k}: {v}" for k, v in self._told()]])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self._told()
        )
        return f"<pre>{html.escape(self.statement.strip())}</pre><table>{rows}</table>"

    def _told(self) -> list[tuple[str, str]]:
        """The result's columns; of each table the columns and conditions of its scan."""
        with engine.connection() as opened:
            run = engine.Run(opened, self.statement, self.frames)
            run.plan(reading=False)
        found = [("columns", ", ".join(f"{f.name} {f.type}" for f in self._schema))]
        for made in run.scans:
            used = ", ".join(made.scan.said(name) for name in made.need.columns if name in made.scan.names)
            where = f" where {' and '.join(made.pushed)}" if made.pushed else ""
            found.append((made.table, (used or "rows are counted") + where))
        return found


def _frame(table: str, given: Any) -> dd.DataFrame:
    import dask.dataframe as dd

    if not isinstance(given, (pd.DataFrame, dd.DataFrame)):
        raise TypeError(
            f"tables={{{table!r}: ...}}: must be a frame of pandas or Dask, not {type(given).__name__}"
        )
    names = list(given.columns)
    if not names or len({*names}) < len(names) or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"tables={{{table!r}: ...}}: each column must have a name of its own, a text: {names}")
    return dd.from_pandas(given, npartitions=1) if isinstance(given, pd.DataFrame) else given
