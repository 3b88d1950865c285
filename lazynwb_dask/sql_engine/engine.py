"""Runs a statement: DuckDB over scans of frames, in a connection that reaches nothing else."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import dask.config
import pandas as pd
import pyarrow as pa

from lazynwb_dask import config, expr
from lazynwb_dask.errors import NWBError, SQLError, TableNotFoundError
from lazynwb_dask.sql_engine import plan, statement
from lazynwb_dask.sql_engine.joins import PATH, limits
from lazynwb_dask.sql_engine.plan import Need
from lazynwb_dask.sql_engine.scans import FrameScan, is_counted
from lazynwb_dask.util.extras import optional
from lazynwb_dask.util.suggest import did_you_mean

if TYPE_CHECKING:
    import dask.dataframe as dd

SMALL = 64 << 20  # decoded bytes of a table that is read first, for its files
LATE = 10_000  # rows whose large columns are read once it is known which rows these are
_ROWS = 1 << 16  # of a record batch


@contextmanager
def connection() -> Iterator[Any]:
    """A connection to a DuckDB of its own, which may write to a temporary folder alone."""
    duckdb = optional("duckdb", "sql()", "sql")
    limit, near = str(config.get("sql-memory-limit")), dask.config.get("temporary-directory", None)
    with tempfile.TemporaryDirectory(
        prefix="lazynwb-dask-sql-", dir=near, ignore_cleanup_errors=True
    ) as folder:
        try:
            opened = duckdb.connect(
                config={
                    "memory_limit": f"{limit}B" if limit.isdigit() else limit,
                    "python_enable_replacements": False,
                    "autoload_known_extensions": False,
                    "autoinstall_known_extensions": False,
                }
            )
        except duckdb.ParserException as exc:
            raise NWBError(f"the setting lazynwb-dask.sql-memory-limit, {limit!r}: {exc}") from None
        try:
            opened.execute("SET TimeZone = 'UTC'")
            opened.execute("SET errors_as_json = true")
            opened.execute("SET temp_directory = ?", [folder])
            opened.execute("SET enable_external_access = false")
            opened.execute("SET lock_configuration = true")
            yield opened
        finally:
            opened.close()


def table_names(text: str) -> list[str]:
    """The tables that a statement names. Raises SQLError if it is none."""
    with connection() as opened:
        found = statement.tables(statement.parse(opened, text))
    names = list(dict.fromkeys(table["table_name"] for table in found))
    for at, name in enumerate(names):
        if name.lower() in (before := [other.lower() for other in names[:at]]):
            other = names[before.index(name.lower())]
            raise SQLError(f"the tables {other} and {name} differ only in case, which SQL ignores")
    return names


def no_table(name: str, there: Iterable[str]) -> TableNotFoundError:
    return TableNotFoundError(f"no table {name}, and no paths are given{did_you_mean(name, there)}")


class Run:
    """A statement in a connection, with a scan for each place that names a table.

    Attributes
    ----------
    schema : pyarrow.Schema
        Of the result.
    scans : list of Scanned
    left : list of (str, str)
        Conditions that no scan takes, and why.
    """

    def __init__(self, opened: Any, text: str, frames: Mapping[str, dd.DataFrame]) -> None:
        self._opened, self._text, self._frames = opened, text, frames
        self._token = uuid.uuid4().hex[:12]
        self.scans: list[Scanned] = []
        self.left: list[tuple[str, str]] = []
        self._sql = text
        for number, (name, frame) in enumerate(frames.items()):
            self._show(name, FrameScan(frame, f"o{self._token}_{number}", {}))
        with self._readable(len("EXPLAIN ")):  # errors are of the statement as it was written
            opened.execute(f"EXPLAIN {text}").fetchall()
        with self._readable():
            whole = statement.unparse(opened, statement.parse(opened, text))
            empty = opened.sql(whole).limit(0).to_arrow_table().schema
        self.schema = pa.schema([pa.field(field.name, plain(field.type)) for field in empty])

    def plan(self, reading: bool = True) -> None:
        """Find what each scan needs. With `reading`, what decides on the files and rows of others is read."""
        import duckdb

        try:
            tree, needs = self._placed("c", statement.lengths_alone)
        except duckdb.Error:  # what looked like the length of a column was something else
            with self._readable():
                tree, needs = self._placed("d", lambda _: {})
        for made, need in zip(self.scans, needs, strict=True):
            made.need = need
            masks, left, made.pushed = plan.conditions(self._opened, made.scan, need.conditions)
            if need.times > 1:
                left = [(text, "the table is scanned more than once") for text in made.pushed]
                masks, made.pushed = [], []
            self.left += left
            if masks:
                made.keep(reduce(and_, masks))
        self._limit_files(limits(tree), reading)
        if len(self.scans) == 1 and needs[0].is_all and statement.ordered_rows(tree, self.scans[0].view):
            self._read_rows_first(self.scans[0], tree, reading)
        if reading:
            for made in self.scans:
                if made.need.times > 1:
                    self._keep(made)

    def _placed(
        self, letter: str, find: Callable[[statement.Tree], dict[str, str]]
    ) -> tuple[statement.Tree, list[Need]]:
        """The statement's tree with a scan in each place that names a table, and what each needs. `letter`
        begins the names of their columns, `find` gives the columns of which lengths are enough."""
        tree = statement.parse(self._opened, self._text)
        named = statement.tables(tree)
        frames = [self._frames[table["table_name"]] for table in named]
        lengths = {name: made for name, made in find(tree).items() if _are_lists(frames, name, made)}
        statement.use_lengths(tree, lengths)
        self.scans = []
        for number, (table, frame) in enumerate(zip(named, frames, strict=True)):
            scan = FrameScan(frame, f"{letter}{self._token}_{number}", lengths)
            made = Scanned(table["table_name"], f"scan_{letter}{self._token}_{number}", scan)
            statement.rename(table, made.view)
            self._show(made.view, scan)
            self.scans.append(made)
        self._sql = statement.unparse(self._opened, tree)
        return tree, plan.needs(self._opened, self._sql, [made.scan for made in self.scans])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The result, from a plan that was made for reading."""
        with self._readable():
            reader = self._opened.sql(self._sql).to_arrow_reader(_ROWS)
            for batch in reader:
                yield batch.rename_columns(self.schema.names).cast(self.schema)

    def _show(self, view: str, scan: FrameScan) -> None:
        """Make a scan a table with the names of a frame's columns."""
        self._opened.register(f"frame_{scan.prefix}", scan)
        columns = ", ".join(f"{name} AS {_quoted(shown)}" for name, shown in scan.shown())
        self._opened.execute(f"CREATE VIEW {_quoted(view)} AS SELECT {columns} FROM frame_{scan.prefix}")

    def _limit_files(self, pairs: list[tuple[str, str]], reading: bool) -> None:
        """Read the files of small tables on which there are conditions first, and only these of others."""
        by_view = {made.view: made for made in self.scans if made.scan.is_called(PATH)}
        for other in sorted(by_view.values(), key=lambda made: made.bytes([PATH])):
            limited = [by_view[one] for one, by in pairs if by == other.view and one in by_view]
            in_memory = not expr.reads(other.scan.frame)
            cost = other.bytes([PATH])
            limited = [made for made in limited if expr.reads(made.scan.frame) and made.bytes() > cost]
            if not limited or not other.is_limited or cost > SMALL:
                continue
            if not in_memory and not reading:
                names = ", ".join(made.table for made in limited)
                self.left.append(
                    (f"{names}: files of {other.table}", "which these are shows when that is read")
                )
                continue
            files = other.scan.frame[[PATH]].compute()[PATH].dropna().unique().tolist()
            for made in limited:
                made.keep(made.scan.frame[PATH].isin(files))
                made.pushed.append(f"{PATH} is one of {len(files)}, as in {other.table}")

    def _read_rows_first(self, made: Scanned, tree: statement.Tree, reading: bool) -> None:
        """Find which rows are wanted without their lists, so that only these rows' lists are read."""
        if not (made.scan.is_called(PATH) and made.scan.is_called("_table_index")):
            return
        first = deepcopy(tree)
        names = [f"path_{self._token}", f"row_{self._token}"]
        for column, alias in zip([PATH, "_table_index"], names, strict=True):
            about = {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": [column], "alias": alias}
            first["statements"][0]["node"]["select_list"].append(about)
        with self._readable():
            sql = f"SELECT {', '.join(names)} FROM ({statement.unparse(self._opened, first)})"
            (need,) = plan.needs(self._opened, sql, [made.scan])
        later = [name for name in made.scan.lists(made.need.columns) if name not in need.columns]
        if not later:
            return
        if not reading:
            made.later = [made.scan.names[name] for name in later]
            made.need.columns = [name for name in made.need.columns if name not in later]
            return
        with self._readable():
            rows = self._opened.sql(f"{sql} LIMIT {LATE + 1}").fetchall()
        if len(rows) <= LATE:
            frame, (paths, indexes) = made.scan.frame, zip(*rows, strict=True) if rows else ((), ())
            made.keep(frame[PATH].isin(list(set(paths))) & frame["_table_index"].isin(list(set(indexes))))

    def _keep(self, made: Scanned) -> None:
        """Read what is scanned more than once into a table of DuckDB's, which goes to the disk if it must."""
        scan, table = made.scan, f"kept_{made.view}"
        columns = ", ".join(made.need.columns)
        with self._readable():
            self._opened.execute(f"CREATE TEMP TABLE {table} AS SELECT * FROM frame_{scan.prefix} LIMIT 0")
            self._opened.execute(f"INSERT INTO {table} BY NAME SELECT {columns} FROM frame_{scan.prefix}")
            shown = ", ".join(f"{name} AS {_quoted(shown)}" for name, shown in scan.shown())
            self._opened.execute(f"CREATE OR REPLACE VIEW {made.view} AS SELECT {shown} FROM {table}")

    @contextmanager
    def _readable(self, before: int | None = None) -> Iterator[None]:
        """Errors of a read as they are; DuckDB's with the place in the statement, if that is what DuckDB was
        given, after so many letters."""
        import duckdb

        try:
            yield
        except duckdb.Error as exc:
            for made in self.scans:
                if made.scan.failed is not None:
                    raise made.scan.failed from None
            text = str(exc)
            for made in self.scans:
                text = made.scan.said(text).replace(made.view, made.table)
            raise _error(self._text, text, before) from None


@dataclass
class Scanned:
    """A place in a statement that names a table, and its scan."""

    table: str
    view: str
    scan: FrameScan
    need: Need = field(default_factory=Need)
    pushed: list[str] = field(default_factory=list)
    later: list[str] = field(default_factory=list)  # columns that are read once the rows are known
    is_limited: bool = False

    def keep(self, mask: Any) -> None:
        self.scan.frame = self.scan.frame[mask]
        self.is_limited = True

    def frame(self) -> dd.DataFrame:
        """What is read: columns and rows."""
        return self.scan.narrowed([name for name in self.need.columns if name in self.scan.names])

    @property
    def is_free(self) -> bool:
        """Whether nothing is read: it isn't scanned, or its rows are only counted."""
        stored = any(name in self.scan.names for name in self.need.columns)
        return not self.need.times or (not stored and is_counted(self.scan.frame))

    def bytes(self, columns: list[str] | None = None) -> int:
        """Decoded bytes of the needed columns, or of these and those of the condition."""
        if columns is None:
            columns = [of for name, of in self.scan.names.items() if name in self.need.columns]
        return sum(expr.partition_bytes(self.scan.frame[columns]))


def plain(kind: pa.DataType) -> pa.DataType:
    """A type with items of lists called as everywhere in this package."""
    if pa.types.is_list(kind):
        return pa.list_(plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, plain(field.type)) for field in kind])
    return kind


def _are_lists(frames: Iterable[dd.DataFrame], name: str, length: str) -> bool:
    """Whether the columns of a name, in lower case, have lists, and none has the name of their length."""
    columns = [(str(column).lower(), dtype) for frame in frames for column, dtype in frame.dtypes.items()]
    dtypes = [dtype for column, dtype in columns if column == name]
    are = all(isinstance(d, pd.ArrowDtype) and pa.types.is_list(d.pyarrow_dtype) for d in dtypes)
    return bool(dtypes) and are and length not in [column for column, _ in columns]


def _error(text: str, said: str, before: int | None) -> SQLError:
    """DuckDB's message, which is JSON after the kind of the error."""
    try:
        about = json.loads(said[said.index("{") :])
        position = about.get("position") if before is not None else None
        message = about["exception_message"]
    except (ValueError, KeyError):
        return SQLError(statement.placed(text, said, None))
    if statement.too_deep(message):
        return SQLError(statement.TOO_DEEP)
    if about.get("exception_type") == "Out of Memory":
        message = message.split("Possible solutions")[0].strip()  # these are settings of DuckDB's
        message += ". The setting lazynwb-dask.sql-memory-limit is what DuckDB may take"
    return SQLError(
        statement.placed(text, message, None if position is None else int(position) - (before or 0))
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
