"""What a user requests of a table, and what is selected of its scan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import pyarrow as pa

from lazynwb_dask.model.series_view import Shown
from lazynwb_dask.predicate.tree import Limit, Predicate

Table = str | Sequence[str] | Callable[[list[str]], str | None]
"""A table's path or alias; several, of which the first that a file has is meant; or a choice of a file's."""

Policy = Literal["skip", "raise"]
POLICIES = get_args(Policy)


def check_policy(name: str, value: str) -> None:
    """Raise ValueError unless `value` is allowed for `on_error` and `on_missing`."""
    if value not in POLICIES:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(map(repr, POLICIES))}")


@dataclass(frozen=True)
class TableRequest:
    """A table in many files, with the options of `read_nwb`. Raises ValueError for an unknown policy."""

    table: Table
    columns: tuple[str, ...] | None = None  # the frame's columns, in order; None: all
    predicate: Predicate | None = None  # the condition on rows
    schema: int | Mapping[str, Any] | pa.Schema | None = None
    blocksize: int | None = 128 << 20  # most decoded bytes of a partition; None: don't split tables
    on_missing: str = "skip"
    on_error: str = "raise"
    allow_external_links: bool = False
    view: Shown | None = None  # how to show the data of a TimeSeries
    details: bool = False  # whether to fetch descriptions, units and region targets

    def __post_init__(self) -> None:
        readable = isinstance(self.table, Iterable) and all(isinstance(name, str) for name in self.table)
        if not (callable(self.table) or readable):
            raise TypeError(
                f"table={self.table!r}: must be the path of a table, a list of paths, or a "
                "function that chooses one"
            )
        check_policy("on_missing", self.on_missing)
        check_policy("on_error", self.on_error)

    @property
    def table_names(self) -> list[str]:
        """The paths and aliases that were given; none for a callable."""
        if callable(self.table):
            return []
        return [self.table] if isinstance(self.table, str) else list(self.table)

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The types that were given for some columns."""
        return self.schema if isinstance(self.schema, Mapping) else {}

    @property
    def named_columns(self) -> list[str]:
        """The columns that the request names, each once."""
        condition = self.predicate.columns if self.predicate else ()
        return list(dict.fromkeys([*(self.columns or ()), *condition]))

    def for_scan(self, indexed: bool) -> TableRequest:
        """The request as scans and tasks carry it. The table is kept only if files aren't indexed yet, so
        that workers look it up."""
        table = () if indexed else tuple(self.table_names)
        return replace(self, table=table, columns=None, predicate=None, schema=None, details=False)


@dataclass(frozen=True)
class Selection:
    """Which columns and rows of a scan are read. The columns are in the frame's order. Rows for which the
    predicate, which may use other columns, isn't true are left out; the limit applies to the rest of each
    partition."""

    columns: tuple[str, ...]
    predicate: Predicate | None = None
    limit: Limit | None = None

    @property
    def deciding(self) -> frozenset[str]:
        """The columns that the predicate and the limit use."""
        condition = self.predicate.columns if self.predicate is not None else frozenset[str]()
        return condition | (self.limit.columns if self.limit is not None else frozenset[str]())

    @property
    def used(self) -> frozenset[str]:
        return self.deciding | frozenset(self.columns)
