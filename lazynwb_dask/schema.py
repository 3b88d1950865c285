"""Many files' columns as one schema: the types that hold every file's values, and what to say of the rest.

Types are resolved the same way whatever the order of the files, and nothing is lost silently. The rules
are those of the documentation's "Schema over files".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pandas.api.extensions import ExtensionDtype

from . import dtypes
from .decode import Values, arrow, listed
from .errors import NWBReadError, SchemaConflictError
from .index import ColumnIndex, TableIndex
from .sources import shown

PROVENANCE = ("_nwb_path", "_table_path", "_table_index")
EXAMPLES = 3  # files named on each side of a conflict


def _numpy_dtype(kind: pa.DataType) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
    return found


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
            return _numpy_dtype(kind)
        if (pa.types.is_integer(kind) or pa.types.is_boolean(kind)) and not self.nullable:
            return _numpy_dtype(kind)
        if pa.types.is_timestamp(kind):
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
    columns = {}
    for name in count:
        by_type: dict[pa.DataType, list[int]] = defaultdict(list)
        for variant, where in found[name].items():
            by_type[types[variant]] += where
        reason = ""
        if problems[name]:
            reason = tables[problems[name][0]][1].columns[name].problem
        columns[name] = Found(count[name], by_type, name in short, problems[name], reason)
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
    """

    count: int
    by_type: Mapping[pa.DataType, Sequence[int]]
    short: bool = False
    problems: Sequence[int] = ()
    reason: str = ""


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
    overrides = {name: parse_type(kind) for name, kind in (overrides or {}).items()}
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
            none = (nulls or {}).get(name, set())
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
        return _plain(kind)
    if isinstance(kind, pd.ArrowDtype):
        return _plain(kind.pyarrow_dtype)
    if kind is str or isinstance(kind, pd.StringDtype):
        return pa.string()
    if isinstance(kind, str):
        name = kind.removesuffix(dtypes.SUFFIX)
        if name in ("str", "string", "object"):
            return pa.string()
        try:
            return _plain(dtypes.parse(name))
        except ValueError:
            pass
    try:
        return pa.from_numpy_dtype(np.dtype(getattr(kind, "numpy_dtype", kind)))
    except (TypeError, pa.ArrowNotImplementedError):
        raise ValueError(
            f"schema: {kind!r} is not a type; give a pyarrow.DataType or a dtype"
        ) from None


def _plain(kind: pa.DataType) -> pa.DataType:
    """The same with 32-bit offsets, as the frames have it."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(f.name, _plain(f.type)) for f in kind])
    return kind


# ------------------------------------------------------------------------------------------ converting
def convert(values: Values, to: pa.DataType) -> Values:
    """Values of one file as the unified type.

    Raises
    ------
    NWBReadError
        When a value would not be the same as the new type.
    """
    if isinstance(values, np.ndarray):
        return _convert_numbers(values, to)
    have = values.type
    if pa.types.is_null(have):
        return pa.nulls(len(values), to)
    if _plain(have) == to:
        return values if have == to else pc.cast(values, to)
    if pa.types.is_list(to):
        if not pa.types.is_list(have):
            return _one_element(values, to)
        inner = convert(values.values, to.value_type)
        offsets = values.offsets
        mask = pc.is_null(values) if values.null_count else None
        return pa.ListArray.from_arrays(offsets, arrow(inner), mask=mask)
    if pa.types.is_struct(to):
        inner = [arrow(convert(values.field(f.name), f.type)) for f in to]
        mask = pc.is_null(values) if values.null_count else None
        return pa.StructArray.from_arrays(inner, names=[f.name for f in to], mask=mask)
    if pa.types.is_string(to) and pa.types.is_boolean(have):
        return pc.if_else(values, "True", "False")
    if pa.types.is_string(to) and pa.types.is_floating(have):
        values = pc.if_else(pc.is_nan(values), None, values)
    return _checked_cast(values, to)


def _convert_numbers(values: np.ndarray, to: pa.DataType) -> Values:
    if pa.types.is_list(to):
        return _one_element(values, to)
    if pa.types.is_string(to):
        return convert(pa.array(values), to)
    if pa.types.is_struct(to):
        if values.dtype.kind == "f" and np.isnan(values).all():
            return pa.nulls(len(values), to)
        raise NWBReadError(f"{values.dtype} can't become {to}")
    want = _numpy_dtype(to)
    if values.dtype == want:
        return values
    with np.errstate(invalid="ignore", over="ignore"):
        converted = values.astype(want)
        wide = values.dtype.kind in "iu" and values.dtype.itemsize == 8 and want.kind == "f"
        if wide or not np.can_cast(values.dtype, want, "safe"):
            lost = _lost(values, converted)
            if lost.any():
                example = values[np.argmax(lost)]
                raise NWBReadError(
                    f"the value {example} is not the same as {to}; give schema= a type that holds it"
                )
    return converted


def _lost(values: np.ndarray, converted: np.ndarray) -> np.ndarray:
    """Where a value is another one after its conversion."""
    lost: np.ndarray = converted.astype(values.dtype) != values
    if values.dtype.kind == "f":
        if converted.dtype.kind == "f":
            lost &= ~np.isnan(values)
    elif converted.dtype.kind == "f":
        # the way back from 2**63 or 2**64 is not defined
        lost |= converted >= 2.0 ** (63 if values.dtype.kind == "i" else 64)
    else:
        lost |= (converted < 0) != (values < 0)
    return lost


def _one_element(values: Values, to: pa.DataType) -> pa.Array:
    inner = arrow(convert(values, to.value_type))
    if pa.types.is_list(to.value_type):
        raise SchemaConflictError(f"a scalar can't become {to}")
    rows = len(inner)
    made = listed(np.arange(rows + 1, dtype=np.int64), inner)
    if inner.null_count:
        return pa.ListArray.from_arrays(made.offsets, inner, mask=pc.is_null(inner))
    return made


def _checked_cast(values: pa.Array, to: pa.DataType) -> pa.Array:
    try:
        return pc.cast(values, to)
    except pa.ArrowInvalid as exc:
        raise NWBReadError(f"a value is not the same as {to}: {exc}") from None


def series(parts: Sequence[Values], to: Field) -> Any:
    """The pieces of one column as the array that pandas shall hold."""
    dtype = to.dtype
    if isinstance(dtype, np.dtype):
        pieces = [p if isinstance(p, np.ndarray) else _numpy(p, dtype) for p in parts]
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


def _numpy(values: pa.Array, dtype: np.dtype) -> np.ndarray:
    """A column of numbers that some rows lack."""
    if values.null_count and dtype.kind != "f":
        raise NWBReadError(f"rows without a value in a column of {dtype}; it needs a nullable type")
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


# ------------------------------------------------------------------------------------------- reporting
def report(tables: Sequence[tuple[str, TableIndex]], schema: Schema) -> pd.DataFrame:
    """What each column is, and in how many files it is what."""
    rows = []
    names = dict.fromkeys(name for _, table in tables for name in table.columns)
    for name in names:
        columns = [t.columns[name] for _, t in tables if name in t.columns]
        found = Counter(_readable(c.type) for c in columns if not c.problem)
        unified = schema.fields.get(name)
        conflict = schema.conflicts.get(name)
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
                "notes": "; ".join(sorted({n for c in columns for n in c.notes})[:EXAMPLES]),
                "problem": conflict.reason if conflict else "",
            }
        )
    return pd.DataFrame(rows).set_index("column") if rows else pd.DataFrame()


def _readable(kind: pa.DataType) -> str:
    """A type as pandas would call it: float64 rather than double."""
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
