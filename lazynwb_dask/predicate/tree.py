"""Which rows to read: conditions and limits, small, picklable, evaluated by pandas.

A `Predicate` is a tree of a few kinds of nodes. It makes the calls that pandas would make for the whole
frame: a row for which it is false or missing is left out. It means the same for any part of a table.
"""

from __future__ import annotations

import hashlib
import keyword
import operator
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from functools import cached_property, reduce
from types import NoneType
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_string_dtype

from lazynwb_dask.errors import ColumnNotFoundError
from lazynwb_dask.util.suggest import near_or_all

BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "//": operator.floordiv, "%": operator.mod, "**": operator.pow, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "&": operator.and_, "|": operator.or_, "^": operator.xor,
}  # fmt: skip
UNARY: Mapping[str, Callable[[Any], Any]] = {
    "~": operator.invert, "-": operator.neg, "+": operator.pos,
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Predicate:
    """A condition on rows, or a value in one. Equal trees have equal hashes and tokens."""

    compound: ClassVar[bool] = False  # whether it is put in parentheses within others

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """The tree as tuples, hashable and the same in every process."""
        return type(self).__name__, *[_fingerprint(value) for value in self._values()]

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        """The columns that it looks at; None stands for the index."""
        parts = [p for v in self._values() for p in (v if isinstance(v, tuple) else (v,))]
        return frozenset().union(*[p.inputs for p in parts if isinstance(p, Predicate)])

    @property
    def columns(self) -> frozenset[str]:
        """The columns that must be in the frame."""
        return frozenset(name for name in self.inputs if name is not None)

    @property
    def terms(self) -> list[Predicate]:
        """The conditions that must all be true."""
        return [self]

    def __call__(self, frame: pd.DataFrame) -> Any:
        """The value for each row, as pandas gives it."""
        raise NotImplementedError

    def rows(self, frame: pd.DataFrame) -> NDArray[np.intp]:
        """The positions of the rows for which it is true, as `frame[mask]` would take them."""
        try:
            mask = self(frame)
        except (TypeError, ValueError, NotImplementedError) as exc:
            lists = [name for name in sorted(self.columns) if str(frame[name].dtype).startswith("list")]
            if not lists:
                raise
            raise TypeError(
                f"the condition {self!r} fails: {exc}. Of a column of lists ({', '.join(lists)}) say what "
                "of each list is compared: .nwb.len(), .nwb[0] or .nwb.count_between(start, stop)"
            ) from exc
        if not isinstance(mask, (pd.Series, pd.Index, np.ndarray)) or not is_bool_dtype(mask.dtype):
            raise TypeError(f"the condition {self!r} is neither true nor false for each row")
        if not isinstance(mask, np.ndarray):
            mask = mask.to_numpy() if isinstance(mask.dtype, np.dtype) else mask.array
        # a Series of positions: pandas itself decides what a missing value in a mask means
        chosen: NDArray[np.intp] = pd.Series(np.arange(len(frame)))[mask].to_numpy()
        return chosen

    def validate(self, meta: pd.DataFrame) -> None:
        """Raise if it can't be evaluated for frames with the columns and dtypes of this empty one.

        Raises ColumnNotFoundError; or TypeError if pandas can't evaluate it or its values are not truth values.
        """
        for name in sorted(self.columns - set(meta.columns)):
            hint = near_or_all(name, meta.columns)
            raise ColumnNotFoundError(f"the filter {self!r}: no column {name!r}{hint}")
        # A row too: pandas compares text with numbers as long as there is none. It says less about types, as
        # the row's values can be wrong where those of the frame are right.
        for frame, wrong in (
            (meta, (ValueError, NotImplementedError)),
            (_example(meta[sorted(self.columns)]), ()),
        ):
            try:
                self.rows(frame)
            except (TypeError, *wrong) as exc:
                types = ", ".join(f"{name} is {meta[name].dtype}" for name in sorted(self.columns))
                raise TypeError(f"the filter {self!r} makes no sense, {types}: {exc}") from exc
            except Exception:
                continue

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Predicate) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.key

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._values()  # without what is cached

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, eq=False, repr=False)
class Column(Predicate):
    name: str

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        return frozenset([self.name])

    def __call__(self, frame: pd.DataFrame) -> Any:
        return frame[self.name]

    def __repr__(self) -> str:
        name, *made = self.name.split("\0")  # see `scan.derived`
        plain = name.isidentifier() and not keyword.iskeyword(name)
        return ".nwb.".join([name if plain else f"`{name}`", *made])


@dataclass(frozen=True, eq=False, repr=False)
class Index(Predicate):
    """The index, that is the row number over all files."""

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        return frozenset([None])

    def __call__(self, frame: pd.DataFrame) -> Any:
        return frame.index

    def __repr__(self) -> str:
        return "index"


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Predicate):
    """The same value for all rows, or the values that one is compared with."""

    value: Any

    def __call__(self, frame: pd.DataFrame) -> Any:
        return self.value

    def __repr__(self) -> str:
        value = self.value
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.tolist()
        return repr(list(value) if isinstance(value, tuple) else value)


@dataclass(frozen=True, eq=False, repr=False)
class Operation(Predicate):
    """An operator on one or two values."""

    symbol: str
    args: tuple[Predicate, ...]

    def __call__(self, frame: pd.DataFrame) -> Any:
        values = [a(frame) for a in self.args]
        return BINARY[self.symbol](*values) if len(values) == 2 else UNARY[self.symbol](*values)

    @property
    def terms(self) -> list[Predicate]:
        return [t for a in self.args for t in a.terms] if self.symbol == "&" else [self]

    @property
    def compound(self) -> bool:  # type: ignore[override]
        return len(self.args) > 1

    def __repr__(self) -> str:
        if len(self.args) == 1:
            return f"{self.symbol}{_inner(self.args[0])}"
        return f" {self.symbol} ".join(map(_inner, self.args))


@dataclass(frozen=True, eq=False, repr=False)
class Method(Predicate):
    """A method of the first value, or of one of its accessors, called with the other values."""

    name: str
    args: tuple[Predicate, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()
    accessor: str | None = None

    def __call__(self, frame: pd.DataFrame) -> Any:
        target, *args = [a(frame) for a in self.args]
        owner = target if self.accessor is None else getattr(target, self.accessor)
        return getattr(owner, self.name)(*args, **dict(self.kwargs))

    def __repr__(self) -> str:
        given = [repr(a) for a in self.args[1:]] + [f"{k}={v!r}" for k, v in self.kwargs]
        accessor = "" if self.accessor is None else f".{self.accessor}"
        return f"{_inner(self.args[0])}{accessor}.{self.name}({', '.join(given)})"


@dataclass(frozen=True, eq=False, repr=False)
class Attribute(Predicate):
    """An attribute of an accessor, such as the hour of a time."""

    name: str
    of: Predicate
    accessor: str

    def __call__(self, frame: pd.DataFrame) -> Any:
        return getattr(getattr(self.of(frame), self.accessor), self.name)

    def __repr__(self) -> str:
        return f"{_inner(self.of)}.{self.accessor}.{self.name}"


@dataclass(frozen=True, eq=False, repr=False)
class Then(Predicate):
    """Conditions that are each evaluated on the rows that those before it left.

    Not the same as ``&``: a later one may fail on rows that an earlier one has left out.
    """

    steps: tuple[Predicate, ...]
    compound = True

    @property
    def terms(self) -> list[Predicate]:
        return [term for step in self.steps for term in step.terms]

    def rows(self, frame: pd.DataFrame) -> NDArray[np.intp]:
        kept = np.arange(len(frame))
        for step in self.steps:
            left = frame[sorted(step.columns)]
            kept = kept[step.rows(left if len(kept) == len(frame) else left.iloc[kept])]
        return kept

    def __repr__(self) -> str:
        return " & ".join(map(_inner, self.steps))


@dataclass(frozen=True, eq=False, repr=False)
class Renamed(Predicate):
    """A condition on columns with other names in this frame; `names` are pairs (there, here)."""

    of: Predicate
    names: tuple[tuple[str, str], ...]

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        return frozenset(here for _, here in self.names)

    def __call__(self, frame: pd.DataFrame) -> Any:
        return self.of(self._renamed(frame))

    def rows(self, frame: pd.DataFrame) -> NDArray[np.intp]:
        return self.of.rows(self._renamed(frame))

    def _renamed(self, frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({there: frame[here] for there, here in self.names}, index=frame.index)

    def __repr__(self) -> str:
        return repr(self.of)


@dataclass(frozen=True, eq=False, repr=False)
class Labelled(Predicate):
    """The rows whose label in the index is one of these, a sorted array."""

    labels: Any
    inputs = frozenset([None])

    def __call__(self, frame: pd.DataFrame) -> Any:
        if not len(self.labels):
            return np.zeros(len(frame), bool)
        there = frame.index.to_numpy()
        at = np.searchsorted(self.labels, there)
        return self.labels[np.minimum(at, len(self.labels) - 1)] == there

    def __repr__(self) -> str:
        return f"one of {len(self.labels)} rows"


def _example(meta: pd.DataFrame) -> pd.DataFrame:
    """A row for an empty frame."""
    row = {}
    for name, dtype in meta.dtypes.items():
        value = "" if is_string_dtype(dtype) else 0 if isinstance(dtype, np.dtype) else None
        row[name] = pd.Series([value]).astype(dtype) if value == 0 else pd.Series([value], dtype=dtype)
    return pd.DataFrame(row)


def _inner(predicate: Predicate) -> str:
    return f"({predicate!r})" if predicate.compound else repr(predicate)


_PLAIN = (str, bytes, bool, int, float, complex, date, timedelta, np.generic, NoneType)


def _fingerprint(value: Any) -> tuple[Any, ...]:
    """A constant, hashable and the same in every process; 1, 1.0 and True differ."""
    kind = type(value).__qualname__
    if isinstance(value, Predicate):
        return value.key
    if isinstance(value, np.ndarray) and value.dtype != object:
        return kind, value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, (tuple, list, np.ndarray)):
        return kind, *[_fingerprint(v) for v in value]
    if isinstance(value, Mapping):
        return kind, *[(_fingerprint(k), _fingerprint(v)) for k, v in value.items()]
    if isinstance(value, _PLAIN) or value is pd.NA or value is pd.NaT:
        return kind, repr(value)
    return kind, hashlib.sha256(pickle.dumps(value, protocol=5)).hexdigest()


def values_of(values: Any) -> Any:
    """The values of an `isin`, sorted: the order of a set of strings differs by process."""
    if isinstance(values, (set, frozenset, list, tuple)):
        return tuple(sorted(dict.fromkeys(values), key=lambda v: (type(v).__qualname__, repr(v))))
    if isinstance(values, np.ndarray) and values.ndim == 1:
        if values.dtype == object:
            return values_of(values.tolist())
        return np.unique(values)
    return values


def steps(predicate: Predicate | None) -> tuple[Predicate, ...]:
    """The conditions that are evaluated one after the other."""
    if predicate is None:
        return ()
    return predicate.steps if isinstance(predicate, Then) else (predicate,)


def then(first: Predicate | None, second: Predicate) -> Predicate:
    """The second condition on the rows that the first one leaves."""
    both = steps(first) + steps(second)
    return both[0] if len(both) == 1 else Then(both)


def joined(symbol: str, parts: Iterable[Predicate]) -> Predicate:
    """Conditions with ``&`` or ``|`` between them."""
    return reduce(lambda left, right: Operation(symbol, (left, right)), parts)


def conjuncts(predicate: Predicate | None) -> list[Predicate]:
    """The conditions that must all be true: ``a``, ``b`` and ``c`` of ``a & (b & c)``."""
    return [] if predicate is None else predicate.terms


@dataclass(frozen=True)
class Limit:
    """How many rows of each partition are wanted, of those that a predicate leaves."""

    # "any" is no choice of its own: so many rows, whichever they turn out to be
    kind: Literal["first", "last", "largest", "smallest", "any"]
    n: int
    by: tuple[str, ...] = ()  # for the largest and smallest: the columns that decide

    @property
    def columns(self) -> frozenset[str]:
        """The columns that must be in the frame."""
        return frozenset(self.by)

    def rows(self, frame: pd.DataFrame) -> NDArray[np.intp]:
        """The positions of the rows, in the order of the frame."""
        if self.kind == "first":
            return np.arange(min(self.n, len(frame)))
        if self.kind == "last":
            return np.arange(max(len(frame) - self.n, 0), len(frame))
        # as pandas' nlargest, which also prefers the first of equals, but with n or fewer rows too
        numbered = frame[list(self.by)].reset_index(drop=True)
        ranked = numbered.sort_values(
            list(self.by), ascending=self.kind == "smallest", kind="stable", na_position="last"
        )
        return np.sort(ranked.index.to_numpy()[: self.n])

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "limit", self.kind, self.n, self.by

    def __repr__(self) -> str:
        return f"{self.kind} {self.n}" + (f" by {', '.join(self.by)}" if self.by else "")
