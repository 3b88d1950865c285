"""Many files' columns as one schema: the types that hold every file's values, and what to say of the rest.

Types are resolved the same way whatever the order of the files, and nothing is lost silently. The rules
are those of the documentation's "Schema over files".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.api.extensions import ExtensionDtype

from lazynwb_dask import dtypes
from lazynwb_dask.decode.arrays import Values, arrow
from lazynwb_dask.decode.convert import frame_type, is_number, numpy_dtype
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.source import shown

PROVENANCE = ("_nwb_path", "_table_path", "_table_index")
EXAMPLES = 3  # files named on each side of a conflict


@dataclass(frozen=True)
class Field:
    """One column of the frame."""

    name: str
    type: pa.DataType
    nullable: bool = False

    @property
    def dtype(self) -> np.dtype[Any] | ExtensionDtype:
        """The pandas dtype."""
        kind = self.type
        if pa.types.is_string(kind):
            return pd.StringDtype("pyarrow")
        if pa.types.is_floating(kind):
            return numpy_dtype(kind)
        if (pa.types.is_integer(kind) or pa.types.is_boolean(kind)) and not self.nullable:
            return numpy_dtype(kind)
        if pa.types.is_timestamp(kind) and kind.tz:
            return pd.DatetimeTZDtype(kind.unit, kind.tz)
        return pd.ArrowDtype(kind)


@dataclass(frozen=True)
class Conflict:
    """Why a column is not in the frame."""

    name: str
    reason: str
    unreadable: bool = False


@dataclass(frozen=True)
class Schema:
    """The columns of the frame, in order, and those that are not in it."""

    fields: dict[str, Field]
    conflicts: dict[str, Conflict] = field(default_factory=dict)

    def meta(self, columns: Iterable[str]) -> pd.DataFrame:
        """An empty frame of some columns."""
        data = {name: pd.Series([], dtype=self.fields[name].dtype).array for name in columns}
        return pd.DataFrame(data, index=pd.Index([], dtype="int64"))


PROVENANCE_FIELDS = {
    "_nwb_path": Field("_nwb_path", pa.string()),
    "_table_path": Field("_table_path", pa.string()),
    "_table_index": Field("_table_index", pa.int64()),
}


# -------------------------------------------------------------------------------------------- unifying
def unify(
    tables: Sequence[tuple[str, TableIndex]],
    overrides: Mapping[str, Any] | None = None,
    nulls: Mapping[str, set[int]] | None = None,
) -> Schema:
    """One schema for many tables.

    Parameters
    ----------
    tables : sequence of (url, TableIndex)
    overrides : mapping, optional
        Types by column name, that win over what the files say.
    nulls : mapping, optional
        By column, the positions of the tables whose values were looked at and are all null.
    """
    found: dict[str, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(list))
    problems: dict[str, list[int]] = defaultdict(list)
    empty: dict[str, set[int]] = defaultdict(set)
    short: set[str] = set()
    count: Counter[str] = Counter()
    types: dict[Any, pa.DataType] = {}
    for i, (_, table) in enumerate(tables):
        for name, column in table.columns.items():
            count[name] += 1
            if column.problem:
                problems[name].append(i)
                continue
            variant = (column.variant, column.region)
            found[name][variant].append(i)
            if variant not in types:
                types[variant] = column.type
            if column.short:
                short.add(name)
                if not column.arrays[-1].rows:
                    empty[name].add(i)
    columns = {}
    for name in count:
        by_type: dict[pa.DataType, list[int]] = defaultdict(list)
        for variant, where in found[name].items():
            by_type[types[variant]] += where
        reason = ""
        if problems[name]:
            reason = tables[problems[name][0]][1].columns[name].problem
        columns[name] = Found(
            count[name], by_type, name in short, problems[name], reason, empty[name]
        )
    rows = [table.rows for _, table in tables]
    return settle(columns, rows, lambda i: tables[i][0], overrides, nulls)


@dataclass(frozen=True, eq=False)
class Found:
    """One column over all tables.

    Parameters
    ----------
    count : int
        The tables that have it.
    by_type : dict
        The positions of the tables where it is of a type.
    short : bool
        Whether it lacks rows anywhere.
    problems : sequence of int
        The positions of the tables where it can't be read.
    reason : str
        Why it can't be read in the first of them.
    empty : collection of int
        The positions of the tables that have rows, but none of it.
    """

    count: int
    by_type: Mapping[pa.DataType, Sequence[int]]
    short: bool = False
    problems: Sequence[int] = ()
    reason: str = ""
    empty: Collection[int] = ()


def settle(
    columns: Mapping[str, Found],
    rows: Sequence[int],
    url: Callable[[int], str],
    overrides: Mapping[str, Any] | None = None,
    nulls: Mapping[str, set[int]] | None = None,
) -> Schema:
    """One schema of what was found.

    Parameters
    ----------
    columns : dict of str to Found
        In the frame's order.
    rows : sequence of int
        The rows of each table.
    url : callable
        The file of a table by its position.
    overrides, nulls
        As in `unify`.
    """
    overrides = {name: given_type(name, kind) for name, kind in (overrides or {}).items()}
    fields: dict[str, Field] = {}
    conflicts: dict[str, Conflict] = {}
    for name, found in columns.items():
        if len(found.problems):
            where = _named(url, found.problems)
            conflicts[name] = Conflict(name, f"{found.reason} ({where})", unreadable=True)
            continue
        nullable = found.count < len(rows) or found.short
        if name in overrides:
            fields[name] = Field(name, overrides[name], nullable)
            continue
        telling: Iterable[pa.DataType] = found.by_type
        if len(found.by_type) > 1:
            none = (nulls or {}).get(name, set()) | set(found.empty)
            telling = _telling(rows, found.by_type, none)
            nullable = nullable or len(none) > 0
        chosen = common(telling)
        if chosen is None:
            sides = "; ".join(
                f"{kind} in {_named(url, at)}"
                for kind, at in sorted(found.by_type.items(), key=lambda kv: str(kv[0]))
            )
            conflicts[name] = Conflict(name, sides)
        else:
            fields[name] = Field(name, chosen, nullable)
    return Schema(fields, conflicts)


def _telling(
    rows: Sequence[int], by_type: Mapping[pa.DataType, Sequence[int]], nulls: set[int]
) -> list[pa.DataType]:
    """The types of the files that hold values; all types if none does."""
    kept = [
        kind for kind, where in by_type.items() if any(rows[i] and i not in nulls for i in where)
    ]
    return kept or list(by_type)


def _named(url: Callable[[int], str], where: Sequence[int]) -> str:
    names = ", ".join(shown(url(i)) for i in sorted(where)[:EXAMPLES])
    more = len(where) - EXAMPLES
    return names + (f" and {more} more" if more > 0 else "")


def common(types: Iterable[pa.DataType]) -> pa.DataType | None:
    """The type that holds the values of all, whatever their order; None if there is none.

    >>> common([pa.int32(), pa.uint8()])
    DataType(int32)
    >>> common([pa.int64(), pa.float32()])
    DataType(double)
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


def parse_type(kind: Any) -> pa.DataType:
    """A type that a user gave: an Arrow type, a pandas or NumPy dtype, or the name of one.

    >>> parse_type("float64"), parse_type(int), parse_type("list<double>[pyarrow]")
    (DataType(double), DataType(int64), ListType(list<item: double>))
    """
    if isinstance(kind, pa.DataType):
        return frame_type(kind)
    if isinstance(kind, pd.ArrowDtype):
        return frame_type(kind.pyarrow_dtype)
    if kind is str or isinstance(kind, pd.StringDtype):
        return pa.string()
    if isinstance(kind, str):
        name = kind.removesuffix(dtypes.SUFFIX)
        if name in ("str", "string", "object"):
            return pa.string()
        try:
            return frame_type(dtypes.parse(name))
        except ValueError:
            pass
    try:
        if kind is None:  # which NumPy takes for float64
            raise TypeError
        return pa.from_numpy_dtype(np.dtype(getattr(kind, "numpy_dtype", kind)))
    except (TypeError, pa.ArrowNotImplementedError):
        raise ValueError(
            f"schema: {kind!r} is not a type; give a pyarrow.DataType or a dtype"
        ) from None


def given_type(name: str, kind: Any) -> pa.DataType:
    """The type that a user gave a column.

    Raises
    ------
    ValueError
        If it is none, or none that a column can have.
    """
    found = parse_type(kind)
    if not _has_place(found):
        raise ValueError(
            f"schema: the column {name!r} can't be {found}; give a type of numbers, booleans, texts or "
            "timestamps, or of lists or structs of these"
        )
    return found


def _has_place(kind: pa.DataType) -> bool:
    """Whether frames have columns of a type."""
    if pa.types.is_list(kind):
        return _has_place(kind.value_type)
    if pa.types.is_struct(kind):
        return all(_has_place(f.type) for f in kind)
    return is_number(kind) or bool(pa.types.is_string(kind) or pa.types.is_timestamp(kind))


# ------------------------------------------------------------------------------------------ one column
def series(parts: Sequence[Values], to: Field) -> Any:
    """The pieces of one column as the array that pandas shall hold."""
    dtype = to.dtype
    if isinstance(dtype, np.dtype):
        pieces = [p if isinstance(p, np.ndarray) else _numpy(p, to, dtype) for p in parts]
        joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return joined if joined.flags.writeable else joined.copy()
    chunks = [arrow(p) for p in parts]
    if isinstance(dtype, pd.StringDtype):
        kind = pa.large_string()
    else:
        kind = to.type
    chunks = [c if c.type == kind else pc.cast(c, kind) for c in chunks]
    joined = chunks[0] if len(chunks) == 1 else pa.chunked_array(chunks, kind)
    if isinstance(joined, pa.Array):
        joined = pa.chunked_array([joined])
    return dtype.__from_arrow__(joined)  # type: ignore[attr-defined]


def check_nulls(values: Values, to: Field) -> Values:
    """The same values, if their nulls have a place in the frame."""
    dtype = to.dtype
    if isinstance(values, np.ndarray) or not values.null_count:
        return values
    if isinstance(dtype, np.dtype) and dtype.kind != "f":
        raise NWBReadError(
            f"there are rows without a value, and {dtype} has no null; give schema= a type that has"
        )
    return values


def _numpy(values: pa.Array, to: Field, dtype: np.dtype) -> np.ndarray:
    """A column of numbers that some rows lack."""
    check_nulls(values, to)
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    return numbers


def nothing(rows: int, to: Field) -> Values:
    """A column that the file doesn't have."""
    dtype = to.dtype
    if isinstance(dtype, np.dtype):
        if dtype.kind != "f":
            raise NWBReadError(f"the file has no column {to.name!r}, and {dtype} has no null")
        return np.full(rows, np.nan, dtype)
    return pa.nulls(rows, to.type)
