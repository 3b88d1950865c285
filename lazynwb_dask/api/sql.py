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
from lazynwb_dask.scan.request import Policy
from lazynwb_dask.sql_engine import engine
from lazynwb_dask.sql_engine.results import to_pandas

if TYPE_CHECKING:
    import dask.dataframe as dd


def sql(
    statement: str,
    paths: Paths | None = None,
    *,
    tables: Mapping[str, Any] | None = None,
    on_missing: Policy = "skip",
    on_error: Policy = "raise",
    storage_options: Mapping[str, Any] | None = None,
) -> SQLQuery:
    """Query the tables of many NWB files with a SELECT statement, in the SQL of DuckDB.

    This call reads only metadata. When the query is computed, Dask reads the columns that it needs, and large
    columns only for the rows that pass its conditions. DuckDB does the rest.

    Parameters
    ----------
    statement : str
        One SELECT. Tables are named as in `read_nwb`: ``units``, ``trials``, or a path in double quotes, such
        as ``"processing/behavior/running_speed"``. ``sessions`` is the table of `read_sessions`. Tables that
        the statement defines by WITH come first. Names of tables are case-sensitive.
    paths : str, os.PathLike, iterable of these, Catalog, or DataFrame, optional
        The NWB files, as in `read_nwb`. Not needed if `tables` has all tables.
    tables : mapping of str to DataFrame, optional
        Further tables by name: Dask or pandas DataFrames. They come before tables of the files.
    on_missing : {"skip", "raise"}, default "skip"
        What to do with files that lack a table: leave them out with a warning, or raise an error.
    on_error : {"raise", "skip"}, default "raise"
        What to do with files that can't be read: raise an error, or leave them out with a warning.
        `read_report` lists those that were left out.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`.

    Returns
    -------
    SQLQuery
        Lazy: `compute` returns a pandas DataFrame, `record_batches` a stream. Polars, DuckDB and pyarrow accept
        it as a table.

    Raises
    ------
    SQLError
        The statement is not valid, is not a single SELECT, or reads something else than its tables. The message
        has the line and the column of an error.
    TableNotFoundError
        No file has a table of that name.
    NWBReadError
        A file can't be read.
    ImportError
        DuckDB is not installed: ``pip install 'lazynwb-dask[sql]'``.
    TypeError, ValueError
        An argument has a wrong type or value.

    See Also
    --------
    read_nwb : one table as a Dask DataFrame.
    explain : what a query would read.

    Notes
    -----
    NaN in columns of numbers is NULL. NaN in lists is kept. Times are UTC. The dialect is described in the
    `DuckDB documentation <https://duckdb.org/docs/stable/sql/introduction>`_.

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
    """A lazy SQL query over tables of NWB files. Made by `sql`.

    Polars (``polars.DataFrame(query)``), DuckDB and pyarrow (``pyarrow.table(query)``) accept it as a table.

    Parameters
    ----------
    statement : str
        The text of the SELECT.
    frames : mapping of str to dask.dataframe.DataFrame
        The tables that it names.

    See Also
    --------
    sql : makes a query.

    Examples
    --------
    >>> from lazynwb_dask import sql
    >>> from lazynwb_dask.datasets import make_sessions
    >>> query = sql("SELECT structure, count(*) AS n FROM units GROUP BY ALL", make_sessions("sessions", n=2))
    >>> query.columns
    ['structure', 'n']
    >>> int(query.compute().n.sum())
    240
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
        """The names and Arrow types of the columns of the result.

        Returns
        -------
        pyarrow.Schema
            As of `record_batches`.
        """
        return self._schema

    @property
    def columns(self) -> list[str]:
        """The names of the columns of the result.

        Returns
        -------
        list of str
            In order.
        """
        return list(self._schema.names)

    @property
    def dtypes(self) -> pd.Series[Any]:
        """The dtypes of the columns of the result of `compute`.

        Returns
        -------
        pandas.Series
            Dtypes by name. Integer and bool columns with NULL have ``int64[pyarrow]``, ``bool[pyarrow]``, ...
            instead.
        """
        return to_pandas(pa.Table.from_batches([], self._schema)).dtypes

    def compute(self) -> pd.DataFrame:
        """Run the query.

        Returns
        -------
        pandas.DataFrame
            The result, with the dtypes that `read_nwb` gives. The index is 0, 1, ...

        Raises
        ------
        SQLError
            DuckDB can't run the statement, for example because a text is not a number.
        NWBReadError
            A file can't be read.

        See Also
        --------
        SQLQuery.record_batches : for results that are larger than memory.

        Examples
        --------
        >>> from lazynwb_dask import sql
        >>> from lazynwb_dask.datasets import make_sessions
        >>> sql("SELECT max(id) AS last FROM units", make_sessions("sessions", n=1)).compute()
           last
        0   119
        """
        return to_pandas(pa.Table.from_batches(self._batches(), self._schema))

    def record_batches(self) -> pa.RecordBatchReader:
        """Run the query and return the result as a stream of Arrow record batches.

        Returns
        -------
        pyarrow.RecordBatchReader
            Nothing is read before the first batch is requested, or after the reader is closed.

        Raises
        ------
        SQLError
            While reading: DuckDB can't run the statement.
        NWBReadError
            While reading: a file can't be read.

        See Also
        --------
        SQLQuery.compute : the result as a pandas DataFrame.

        Examples
        --------
        >>> from lazynwb_dask import sql
        >>> from lazynwb_dask.datasets import make_sessions
        >>> query = sql("SELECT id, spike_times FROM units", make_sessions("sessions", n=1))
        >>> sum(batch.num_rows for batch in query.record_batches())
        120
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
        """Report what computing the query would read, without reading it.

        Returns
        -------
        Explanation
            As of `lazynwb_dask.explain`.

        See Also
        --------
        lazynwb_dask.explain : the same as a function.

        Examples
        --------
        >>> from lazynwb_dask import sql
        >>> from lazynwb_dask.datasets import make_sessions
        >>> query = sql("SELECT snr FROM units WHERE snr > 3", make_sessions("sessions", n=1))
        >>> query.explain().reads[0].columns
        ('snr',)
        """
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
        """List the files that were left out of the query's tables, and why.

        Returns
        -------
        pandas.DataFrame
            As of `read_report`: `path`, `stage`, `error`.

        See Also
        --------
        read_report : the same as a function.

        Examples
        --------
        >>> from lazynwb_dask import sql
        >>> from lazynwb_dask.datasets import make_sessions
        >>> len(sql("SELECT snr FROM units", make_sessions("sessions", n=1), on_error="skip").report())
        0
        """
        none = pd.DataFrame(columns=["path", "stage", "error"], dtype="str")
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
