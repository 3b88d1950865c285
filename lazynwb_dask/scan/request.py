"""What is asked of a table, and what of its scan: each made and checked once, and handed down whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from lazynwb_dask.model.series_view import Shown
from lazynwb_dask.predicate.tree import Limit, Predicate

Table = str | Sequence[str] | Callable[[list[str]], str | None]
"""A table's path or alias; several, of which the first that a file has is meant; or a choice of a file's."""

POLICIES = ("skip", "raise")


def check_policy(name: str, value: str) -> None:
    """Raise unless `value` is one that `on_error` and `on_missing` can have."""
    if value not in POLICIES:
        raise ValueError(f"{name}={value!r}: one of {', '.join(map(repr, POLICIES))}")


@dataclass(frozen=True)
class TableRequest:
    """What is asked of a table of many files.

    Parameters
    ----------
    table : str, sequence of str or callable
        As in `read_nwb`.
    columns : tuple of str or None
        The frame's columns, in order. None: all.
    predicate : Predicate or None
        The condition on rows.
    schema : None, int, mapping or pyarrow.Schema
        As in `read_nwb`.
    blocksize : int or None
        Decoded bytes of a partition at most, as far as a row fits. None: one partition for each table.
    on_missing, on_error : {"skip", "raise"}
        What to do with files that lack the table, and with files that can't be read.
    allow_external_links : bool
        Whether data may be read of other files that a file names.
    view : Shown or None
        How the data of a TimeSeries are shown.
    details : bool
        Whether descriptions, units and the targets of regions are wanted too: more bytes to fetch.

    Raises
    ------
    ValueError
        `on_missing` or `on_error` is none of the two.
    """

    table: Table
    columns: tuple[str, ...] | None = None
    predicate: Predicate | None = None
    schema: int | Mapping[str, Any] | pa.Schema | None = None
    blocksize: int | None = 128 << 20
    on_missing: str = "skip"
    on_error: str = "raise"
    allow_external_links: bool = False
    view: Shown | None = None
    details: bool = False

    def __post_init__(self) -> None:
        check_policy("on_missing", self.on_missing)
        check_policy("on_error", self.on_error)

    @property
    def table_names(self) -> list[str]:
        """The paths and aliases that were named; none of a callable."""
        if callable(self.table):
            return []
        return [self.table] if isinstance(self.table, str) else list(self.table)

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The types that were given for some columns."""
        return self.schema if isinstance(self.schema, Mapping) else {}

    @property
    def named_columns(self) -> list[str]:
        """The columns that were named, each once."""
        condition = self.predicate.columns if self.predicate else ()
        return list(dict.fromkeys([*(self.columns or ()), *condition]))

    def for_scan(self, indexed: bool) -> TableRequest:
        """What scans and tasks carry: not what only planning needs, or what the expression holds.

        Parameters
        ----------
        indexed : bool
            Whether the files' metadata are known. If not, workers look the table up.
        """
        table = () if indexed else tuple(self.table_names)
        return replace(self, table=table, columns=None, predicate=None, schema=None, details=False)


@dataclass(frozen=True)
class Selection:
    """Which columns and rows are read of a scan.

    Parameters
    ----------
    columns : tuple of str
        The frame's columns, in order.
    predicate : Predicate or None
        Rows for which it is not true are left out. Its columns need not be among `columns`.
    limit : Limit or None
        How many of the remaining rows of each partition are read.
    """

    columns: tuple[str, ...]
    predicate: Predicate | None = None
    limit: Limit | None = None

    @property
    def deciding(self) -> frozenset[str]:
        """The columns that decide which rows are read."""
        condition = self.predicate.columns if self.predicate is not None else frozenset[str]()
        return condition | (self.limit.columns if self.limit is not None else frozenset[str]())

    @property
    def used(self) -> frozenset[str]:
        """All columns that reading looks at."""
        return self.deciding | frozenset(self.columns)
