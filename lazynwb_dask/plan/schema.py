"""One schema for the columns of many files. It doesn't depend on the order of the files. The rules are in
the documentation's "Schema over files"."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lazynwb_dask.decode.convert import all_null, exceeds_float
from lazynwb_dask.errors import NWBError
from lazynwb_dask.model.index import ColumnIndex, TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.plan.user_types import given_type
from lazynwb_dask.read.arrays import read_column
from lazynwb_dask.scan.fields import Conflict, Field, Schema, Unread
from lazynwb_dask.storage.access import FileAccess

MAX_LOOKED_AT = 16 << 20  # bytes of a column whose values are read while planning, to see whether it has any
EXAMPLES = 3  # files named on each side of a conflict


def schema_of(
    tables: Sequence[tuple[Source, TableIndex]],
    overrides: Mapping[str, Any],
    access: FileAccess,
    on_error: str = "raise",
) -> Schema:
    """The schema of all tables. Values are read only for columns with conflicting types. With
    ``on_error="skip"`` a column that can't be read in some files is missing in these, else in all."""
    named = [(source.url, table) for source, table in tables]
    unified = unify(named, overrides, on_error=on_error)
    nulls: dict[str, set[int]] = {}
    for name, conflict in unified.conflicts.items():
        if conflict.unreadable:
            continue
        nulls[name] = {
            i
            for i, (source, table) in enumerate(tables)
            if name in table.columns
            and may_be_null(table.columns[name])
            and all_null(read_column(source, table, name, access))
        }
    for name in unified.narrow:
        nulls[name] = _all_nan(tables, name, access)
    if any(nulls.values()):
        unified = unify(named, overrides, nulls, on_error)
    return unified


def _all_nan(tables: Sequence[tuple[Source, TableIndex]], name: str, access: FileAccess) -> set[int]:
    """The tables with floats in a column, if all are NaN and others have integers that float64 doesn't hold."""
    own = [(i, source, table) for i, (source, table) in enumerate(tables) if name in table.columns]
    columns = [table.columns[name] for _, _, table in own]
    floats = [one for one, c in zip(own, columns, strict=True) if pa.types.is_floating(c.type)]
    whole = [one for one, c in zip(own, columns, strict=True) if is_wide(c.type)]
    if max(c.nbytes for c in columns) > MAX_LOOKED_AT:
        return set()
    with suppress(NWBError):  # which is told when they are read
        if all(all_null(read_column(source, table, name, access)) for _, source, table in floats) and any(
            exceeds_float(read_column(source, table, name, access)) for _, source, table in whole
        ):
            return {i for i, *_ in floats}
    return set()


def is_wide(kind: pa.DataType) -> bool:
    """Whether float64 doesn't hold all values of a type of integers."""
    return bool(pa.types.is_integer(kind)) and kind.bit_width == 64


def may_be_null(column: ColumnIndex) -> bool:
    """Whether stored values of the column's type can be null or NaN."""
    if pa.types.is_floating(column.type):
        return True
    labelled = column.labels is not None or column.arrays[0].layout.element[0] == "enum"
    dangling = column.arrays[0].layout.element[0] == "reference"
    return pa.types.is_string(column.type) and (labelled or dangling)


def unify(
    tables: Sequence[tuple[str, TableIndex]],
    overrides: Mapping[str, Any] | None = None,
    nulls: Mapping[str, set[int]] | None = None,
    on_error: str = "raise",
) -> Schema:
    """One schema for tables, given as (url, TableIndex). `overrides` are types by column that replace the
    files' own. `nulls` holds, by column, the positions of the tables whose values were read and are all
    null."""
    found: dict[str, dict[Any, tuple[pa.DataType, list[int]]]] = defaultdict(dict)
    problems: dict[str, dict[int, str]] = defaultdict(dict)
    empty: dict[str, set[int]] = defaultdict(set)
    short: set[str] = set()
    count: Counter[str] = Counter()
    for i, (_, table) in enumerate(tables):
        for name, column in table.columns.items():
            count[name] += 1
            if column.problem:
                problems[name][i] = column.problem
                continue
            variant = (column.variant, column.region)
            known = found[name].get(variant)
            if known is None:
                known = found[name][variant] = column.type, []
            known[1].append(i)
            if column.short:
                short.add(name)
                if not column.arrays[-1].rows:
                    empty[name].add(i)
    columns = {}
    for name in count:
        by_type: dict[pa.DataType, list[int]] = defaultdict(list)
        for kind, where in found[name].values():
            by_type[kind] += where
        columns[name] = Found(count[name], by_type, name in short, problems[name], empty[name])
    rows = [table.rows for _, table in tables]
    return settle(columns, rows, lambda i: tables[i][0], overrides, nulls, on_error)


@dataclass(frozen=True, eq=False)
class Found:
    """One column over all tables. Tables are given by their positions."""

    count: int  # of tables that have it
    by_type: Mapping[pa.DataType, Sequence[int]]  # the tables where it has this type
    short: bool = False  # whether it has fewer rows than its table anywhere
    problems: Mapping[int, str] = field(default_factory=dict)  # the tables where it can't be read, and why
    empty: Collection[int] = ()  # the tables that have rows, but none of it


def settle(
    columns: Mapping[str, Found],
    rows: Sequence[int],
    url: Callable[[int], str],
    overrides: Mapping[str, Any] | None = None,
    nulls: Mapping[str, set[int]] | None = None,
    on_error: str = "raise",
) -> Schema:
    """The schema of `columns`, in the frame's order. `rows` is the number of rows of each table, `url`
    returns the file of a table by its position; `overrides` and `nulls` are as in `unify`, `on_error` as in
    `schema_of`."""
    overrides = {name: given_type(name, kind) for name, kind in (overrides or {}).items()}
    fields: dict[str, Field] = {}
    conflicts: dict[str, Conflict] = {}
    unread: list[Unread] = []
    narrow: set[str] = set()
    for name, found in columns.items():
        if found.problems and (on_error == "raise" or not found.by_type):
            where = _named(url, list(found.problems))
            reason = next(iter(found.problems.values()))
            conflicts[name] = Conflict(name, f"{reason} ({where})", unreadable=True)
            continue
        for i, reason in found.problems.items():
            told = f"the column {name!r} is missing in its rows: {reason}"
            unread.append(Unread(shown(url(i)), "plan", told, name))
        nullable = found.count - len(found.problems) < len(rows) or found.short
        if name in overrides:
            fields[name] = Field(name, overrides[name], nullable)
            continue
        telling: Iterable[pa.DataType] = found.by_type
        if len(found.by_type) > 1:
            none = (nulls or {}).get(name, set()) | set(found.empty)
            telling = _telling(rows, found.by_type, none)
            nullable = nullable or len(none) > 0
        chosen = common(telling)
        if chosen == pa.float64() and any(map(is_wide, telling)):
            narrow.add(name)
        if chosen is None:
            sides = "; ".join(
                f"{kind} in {_named(url, at)}"
                for kind, at in sorted(found.by_type.items(), key=lambda kv: str(kv[0]))
            )
            conflicts[name] = Conflict(name, sides)
        else:
            fields[name] = Field(name, chosen, nullable)
    return Schema(fields, conflicts, tuple(unread), frozenset(narrow))


def _telling(
    rows: Sequence[int], by_type: Mapping[pa.DataType, Sequence[int]], nulls: set[int]
) -> list[pa.DataType]:
    """The types in files that hold values; all types if no file does."""
    kept = [kind for kind, where in by_type.items() if any(rows[i] and i not in nulls for i in where)]
    return kept or list(by_type)


def _named(url: Callable[[int], str], where: Sequence[int]) -> str:
    names = ", ".join(shown(url(i)) for i in sorted(where)[:EXAMPLES])
    more = len(where) - EXAMPLES
    return names + (f" and {more} more" if more > 0 else "")


def common(types: Iterable[pa.DataType]) -> pa.DataType | None:
    """The type that holds the values of all types, in any order; None if there is none.

    >>> common([pa.int32(), pa.uint8()]), common([pa.int64(), pa.float32()])
    (DataType(int32), DataType(double))
    >>> common([pa.list_(pa.int32()), pa.float64()])
    ListType(list<item: double>)
    >>> common([pa.list_(pa.int32()), pa.list_(pa.list_(pa.int32()))]) is None
    True
    """
    kinds = set(types)
    if len(kinds) == 1:
        return kinds.pop()
    lists = {k for k in kinds if pa.types.is_list(k)}
    if lists:
        inner = {k.value_type for k in lists}
        deep = any(pa.types.is_list(k) for k in inner)
        if deep and len(lists) < len(kinds):
            return None
        if deep and not all(pa.types.is_list(k) for k in inner):
            return None
        chosen = common(inner | (kinds - lists))
        return None if chosen is None else pa.list_(chosen)
    structs = {k for k in kinds if pa.types.is_struct(k)}
    if structs:
        return _common_struct(kinds) if structs == kinds else None
    if any(pa.types.is_string(k) for k in kinds):
        return pa.string()
    if any(pa.types.is_floating(k) for k in kinds):
        if all(pa.types.is_floating(k) for k in kinds):
            return max(kinds, key=lambda k: k.bit_width)
        return pa.float64()
    return _common_integer(kinds - {pa.bool_()})


def _common_struct(kinds: set[pa.StructType]) -> pa.DataType | None:
    names = {tuple(sorted(f.name for f in k)) for k in kinds}
    first = min(kinds, key=str)
    if len(names) > 1 or len(set(next(iter(names)))) < len(first):
        return None
    fields = []
    for name in [f.name for f in first]:
        chosen = common({k.field(name).type for k in kinds})
        if chosen is None:
            return None
        fields.append((name, chosen))
    return pa.struct(fields)


def _common_integer(kinds: set[pa.DataType]) -> pa.DataType:
    signed = [k.bit_width for k in kinds if pa.types.is_signed_integer(k)]
    unsigned = [k.bit_width for k in kinds if pa.types.is_unsigned_integer(k)]
    if not signed:
        return _integer("uint", max(unsigned))
    # an unsigned integer needs one bit more; past 64 bits, values are checked when they are read
    return _integer("int", min(max(signed + [2 * n for n in unsigned]), 64))


def _integer(kind: str, bits: int) -> pa.DataType:
    return pa.from_numpy_dtype(np.dtype(f"{kind}{bits}"))
