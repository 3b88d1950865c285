"""Which rows to read: conditions and limits, small, picklable, evaluated by pandas. Knows no Dask.

A `Predicate` is a tree of a few kinds of nodes. Evaluating it makes the very calls that pandas
would have been asked to make on the whole frame, so it means what it means there: whatever is not
true, missing values included, is left out. Only what looks at one row at a time can be said, so a
predicate means the same for any part of a table.
"""

from __future__ import annotations

import hashlib
import keyword
import operator
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from difflib import get_close_matches
from functools import cached_property
from types import NoneType
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_bool_dtype, is_string_dtype

from lazynwb_dask.errors import ColumnNotFoundError
from lazynwb_dask.predicate.query_text import look_ups, terms_of

BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
}
UNARY: Mapping[str, Callable[[Any], Any]] = {
    "~": operator.invert,
    "-": operator.neg,
    "+": operator.pos,
}


# ---------------------------------------------------------------------------------------- the tree
@dataclass(frozen=True, eq=False, repr=False)
class Predicate:
    """A condition on the rows of a frame, or a value that one is made of.

    Equal, and of equal hash and token, if it says the same.
    """

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """The content, hashable and the same in every process."""
        return type(self).__name__, *[_fingerprint(value) for value in self._values()]

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        """The columns that are looked at; None stands for the index."""
        parts = [p for v in self._values() for p in (v if isinstance(v, tuple) else (v,))]
        return frozenset().union(*[p.inputs for p in parts if isinstance(p, Predicate)])

    @property
    def columns(self) -> frozenset[str]:
        """The columns that must be in the frame."""
        return frozenset(name for name in self.inputs if name is not None)

    def __call__(self, frame: pd.DataFrame) -> Any:
        """The value for each row, as pandas gives it."""
        raise NotImplementedError

    def rows(self, frame: pd.DataFrame) -> NDArray[np.intp]:
        """The positions of the rows for which it is true, as `frame[mask]` would take them."""
        mask = self(frame)
        if not isinstance(mask, (pd.Series, pd.Index, np.ndarray)) or not is_bool_dtype(mask.dtype):
            raise TypeError(f"the condition {self!r} is neither true nor false for each row")
        if not isinstance(mask, np.ndarray):
            mask = mask.to_numpy() if isinstance(mask.dtype, np.dtype) else mask.array
        # a Series of positions: pandas itself decides what a missing value in a mask means
        chosen: NDArray[np.intp] = pd.Series(np.arange(len(frame)))[mask].to_numpy()
        return chosen

    def validate(self, meta: pd.DataFrame) -> None:
        """Raise what is wrong with it for frames like this empty one."""
        for name in sorted(self.columns - set(meta.columns)):
            near = get_close_matches(name, [str(c) for c in meta.columns], n=5)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ColumnNotFoundError(f"no column {name!r}, in the filter {self!r}{hint}")
        # Values can be wrong where types are right, and text compares with numbers while there is none.
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
        return type(self), self._values()  # what is cached doesn't travel

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, eq=False, repr=False)
class Column(Predicate):
    """A column's values."""

    name: str

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        return frozenset([self.name])

    def __call__(self, frame: pd.DataFrame) -> Any:
        return frame[self.name]

    def __repr__(self) -> str:
        plain = self.name.isidentifier() and not keyword.iskeyword(self.name)
        return self.name if plain else f"`{self.name}`"


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
    """An operator between one or two values."""

    symbol: str
    args: tuple[Predicate, ...]

    def __call__(self, frame: pd.DataFrame) -> Any:
        values = [a(frame) for a in self.args]
        return BINARY[self.symbol](*values) if len(values) == 2 else UNARY[self.symbol](*values)

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
class Query(Predicate):
    """The text of a `DataFrame.query`, which pandas evaluates. Made by `parse_query`."""

    text: str
    names: tuple[str | None, ...]
    options: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def inputs(self) -> frozenset[str | None]:
        return frozenset(self.names)

    def __call__(self, frame: pd.DataFrame) -> Any:
        # names are looked up here and nowhere else: else pandas takes them from whoever calls it
        return frame.eval(self.text, **({"local_dict": {}, "global_dict": {}} | dict(self.options)))

    def __repr__(self) -> str:
        return self.text

    def terms(self) -> list[Predicate]:
        """What must all be true, each as a query."""
        texts, options = terms_of(self.text), dict(self.options)
        try:
            return [parse_query(text, self.columns, **options) for text in texts]
        except ValueError:  # one looks at no column
            return [self]


@dataclass(frozen=True, eq=False, repr=False)
class Then(Predicate):
    """One condition after the other, each on the rows that those before it left.

    Not the same as ``&``: the later one may fail on rows that the earlier one has left out.
    """

    steps: tuple[Predicate, ...]

    def rows(self, frame: pd.DataFrame) -> NDArray[np.intp]:
        kept = np.arange(len(frame))
        for step in self.steps:
            left = frame[sorted(step.columns)]
            kept = kept[step.rows(left if len(kept) == len(frame) else left.iloc[kept])]
        return kept

    def __repr__(self) -> str:
        return " & ".join(map(_inner, self.steps))


def _example(meta: pd.DataFrame) -> pd.DataFrame:
    """A row for an empty frame."""
    row = {}
    for name, dtype in meta.dtypes.items():
        value = "" if is_string_dtype(dtype) else 0 if isinstance(dtype, np.dtype) else None
        row[name] = (
            pd.Series([value]).astype(dtype) if value == 0 else pd.Series([value], dtype=dtype)
        )
    return pd.DataFrame(row)


def _inner(predicate: Predicate) -> str:
    compound = isinstance(predicate, (Query, Then)) or (
        isinstance(predicate, Operation) and len(predicate.args) > 1
    )
    return f"({predicate!r})" if compound else repr(predicate)


_PLAIN = (str, bytes, bool, int, float, complex, date, timedelta, np.generic, NoneType)


def _fingerprint(value: Any) -> tuple[Any, ...]:
    """What a constant is, hashable, the same in every process, not the same for 1, 1.0 and True."""
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
    """The values of an `isin` in an order of their own: strings' hashes differ by process."""
    if isinstance(values, (set, frozenset, list, tuple)):
        return tuple(sorted(dict.fromkeys(values), key=lambda v: (type(v).__qualname__, repr(v))))
    if isinstance(values, np.ndarray) and values.ndim == 1:
        if values.dtype == object:
            return values_of(values.tolist())
        return np.unique(values)
    return values


# ---------------------------------------------------------------------------------- taking it apart
def steps(predicate: Predicate | None) -> tuple[Predicate, ...]:
    """The conditions that are evaluated one after the other."""
    if predicate is None:
        return ()
    return predicate.steps if isinstance(predicate, Then) else (predicate,)


def then(first: Predicate | None, second: Predicate) -> Predicate:
    """The second condition on the rows that the first one leaves."""
    both = steps(first) + steps(second)
    return both[0] if len(both) == 1 else Then(both)


def conjuncts(predicate: Predicate | None) -> list[Predicate]:
    """The conditions that must all be true: ``a``, ``b`` and ``c`` of ``a & (b & c)``."""
    found = []
    for step in steps(predicate):
        if isinstance(step, Operation) and step.symbol == "&":
            found += [term for arg in step.args for term in conjuncts(arg)]
        elif isinstance(step, Query):
            found += step.terms()
        else:
            found.append(step)
    return found


@dataclass(frozen=True)
class Limit:
    """How many rows of each partition are wanted, of those that a predicate leaves.

    Parameters
    ----------
    kind : {"first", "last", "largest", "smallest"}
    n : int
    by : tuple of str
        The columns that decide, for the largest and smallest.
    """

    kind: Literal["first", "last", "largest", "smallest"]
    n: int
    by: tuple[str, ...] = ()

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


# ------------------------------------------------------------------------------ queries and filters
def parse_query(text: str, columns: Iterable[str] | None = None, **options: Any) -> Query:
    """The text of a `DataFrame.query` as a predicate.

    Parameters
    ----------
    text : str
        With ``@name`` for values of `local_dict`.
    columns : iterable of str, optional
        The columns there are. If not given, every name is taken for one, except ``index``.
    **options
        `local_dict` and `engine`, as `DataFrame.query` takes them.

    Raises
    ------
    ValueError
        It can't be parsed, or doesn't look at each row by itself, or at none of the columns.
    """
    local = options.get("local_dict") or {}
    if not set(options) <= {"local_dict", "global_dict", "engine"} or options.get("global_dict"):
        raise ValueError(f"options of a query that only a whole frame can serve: {sorted(options)}")
    names = look_ups(text, columns, local)
    return Query(text, tuple(sorted(names, key=str)), tuple(sorted(options.items())))
