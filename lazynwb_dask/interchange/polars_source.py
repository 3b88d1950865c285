"""A frame as a source of Polars, which tells it the columns, rows and conditions that a query needs."""

from __future__ import annotations

import io
import json
import math
import operator
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lazynwb_dask.stream.arrow import arrow_schema, missing_in_files, record_batches
from lazynwb_dask.util.extras import optional

if TYPE_CHECKING:
    import dask.dataframe as dd
    import polars as pl

_AND, _OR = {"And", "LogicalAnd"}, {"Or", "LogicalOr"}
_COMPARED = {"Eq": operator.eq, "NotEq": operator.ne, "Lt": operator.lt, "LtEq": operator.le,
             "Gt": operator.gt, "GtEq": operator.ge}  # fmt: skip
_OPPOSITE = {"Eq": "NotEq", "NotEq": "Eq", "Lt": "GtEq", "LtEq": "Gt", "Gt": "LtEq", "GtEq": "Lt"}
_SWAPPED = {"Lt": "Gt", "LtEq": "GtEq", "Gt": "Lt", "GtEq": "LtEq"}
_EXACT = 1 << 53  # smaller integers are the same as float64
_PYTHON = {"f": (int, float), "i": (int, float), "u": (int, float), "b": (bool,), "O": (str,)}


def lazy_frame(frame: dd.DataFrame, call: str) -> pl.LazyFrame:
    """The frame as a LazyFrame."""
    pl: Any = optional("polars", call)
    from polars.io.plugins import register_io_source

    empty = pl.from_arrow(arrow_schema(frame._meta).empty_table())
    all_names = frame.columns.tolist()
    frame, missing = missing_in_files(frame)

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        kept = frame
        if predicate is not None and rows is None:  # of the first rows those are left that satisfy it
            mask = Condition(frame).of(predicate)
            kept = frame if mask is None else frame[mask]
        names = all_names if columns is None else columns
        used = [] if predicate is None else predicate.meta.root_names()
        used += ["_nwb_path"] if {*names, *used} & {*missing} else []
        needed = [name for name in frame.columns if name in {*names, *used}]
        for batch in record_batches(kept[needed], rows, nan_to_null=False, missing=missing):
            found = pl.from_arrow(batch)
            yield (found if predicate is None else found.filter(predicate)).select(names)

    return register_io_source(read, schema=empty.schema, is_pure=True)


class Condition:
    """Conditions of Polars as conditions on a Dask frame. These may keep more rows, and never keep fewer: what
    has no counterpart keeps all. In Polars, NaN is equal to NaN and greater than all other numbers."""

    def __init__(self, frame: dd.DataFrame) -> None:
        self.frame = frame

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The columns that can be compared, and a letter for what their values are."""
        found = {}
        for name, dtype in self.frame.dtypes.items():
            number = isinstance(dtype, np.dtype) or dtype.kind in "iub"
            if number and dtype.kind in "fiub":
                found[str(name)] = dtype.kind
            elif isinstance(dtype, pd.StringDtype):
                found[str(name)] = "O"
        return found

    def of(self, expression: pl.Expr) -> Any:
        """A mask, or None."""
        try:
            tree = json.loads(expression.meta.serialize(format="json"))
        except Exception:  # an expression that Polars can't write as JSON, as of a Python function
            return None
        return self._mask(tree, False)

    def _mask(self, node: Any, negated: bool) -> Any:
        match node:
            case {"Alias": [inner, _]}:
                return self._mask(inner, negated)
            case {"Column": name} if self.kinds.get(name) == "b":
                return self.frame[name] == (not negated)
            case {"BinaryExpr": {"left": left, "op": op, "right": right}} if str(op) in _AND | _OR:
                one, other = self._mask(left, negated), self._mask(right, negated)
                if (op in _OR) != negated:
                    return None if one is None or other is None else one | other
                if one is None or other is None:
                    return other if one is None else one
                return one & other
            case {"BinaryExpr": {"left": left, "op": op, "right": right}}:
                if "Literal" in left:
                    left, op, right = right, _SWAPPED.get(str(op), op), left
                match left:
                    case {"Column": name}:
                        return self._compared(name, op, right, negated)
                    case {"Cast": {"expr": {"Column": name}, "dtype": {"Literal": "Float64"}}}:
                        if self.kinds.get(name) in ("i", "u"):
                            return self._compared(name, op, right, negated)
            case {"Function": {"input": [inner], "function": {"Boolean": "Not"}}}:
                return self._mask(inner, not negated)
            case {"Function": {"input": [{"Column": name}, *values], "function": {"Boolean": function}}}:
                return self._function(name, function, values, negated)
        return None

    def _compared(self, name: str, op: Any, node: Any, negated: bool) -> Any:
        value = self._value(name, node)
        if str(op) not in _COMPARED or value is None:
            return None
        op = _OPPOSITE[op] if negated else op
        if self.kinds[name] in "iu" and abs(value) >= _EXACT:
            return None
        if isinstance(value, float) and self.kinds[name] in "iu":  # Polars makes floats of the integers
            if op in ("Eq", "NotEq"):
                return None
            value = math.floor(value) if op in ("Gt", "LtEq") else math.ceil(value)
        column = self.frame[name]
        mask = _COMPARED[op](column, value)
        return mask | column.isna() if op in ("Gt", "GtEq") and self.kinds[name] == "f" else mask

    def _function(self, name: str, function: Any, values: list[Any], negated: bool) -> Any:
        kind = self.kinds.get(name)
        if kind is None:
            return None
        column = self.frame[name]
        match function:
            case "IsNull" | "IsNotNull" if kind != "f":
                return ~column.isna() if (function == "IsNotNull") != negated else column.isna()
            case "IsNan" | "IsNotNan" if kind == "f":
                return ~column.isna() if (function == "IsNotNan") != negated else column.isna()
            case {"IsBetween": {"closed": closed}} if closed in ("Both", "Left", "Right", "None"):
                low = {"BinaryExpr": {"left": {"Column": name}, "right": values[0],
                                      "op": "GtEq" if closed in ("Both", "Left") else "Gt"}}  # fmt: skip
                high = {"BinaryExpr": {"left": {"Column": name}, "right": values[1],
                                       "op": "LtEq" if closed in ("Both", "Right") else "Lt"}}  # fmt: skip
                return self._mask({"BinaryExpr": {"left": low, "op": "And", "right": high}}, negated)
            case {"IsIn": {"nulls_equal": False}}:
                some = self._value(name, values[0])
                if not isinstance(some, list) or (kind in "iu" and any(isinstance(v, float) for v in some)):
                    return None
                if column.dtype == np.float16:  # pandas has no isin of these
                    return None
                return ~column.isin(some) if negated else column.isin(some)
        return None

    def _value(self, name: str, node: Any) -> Any:
        """A literal, or a list of them, that the column can be compared with as it is; else None."""
        while isinstance(node, dict) and "Alias" in node:
            node = node["Alias"][0]
        if name not in self.kinds or not (isinstance(node, dict) and "Literal" in node):
            return None
        pl: Any = optional("polars", "to_polars")
        try:
            literal = pl.Expr.deserialize(io.StringIO(json.dumps(node)), format="json")
            value = pl.select(literal).to_series()[0]
        except Exception:  # another version of Polars writes it otherwise
            return None
        several = isinstance(value, pl.Series)
        values = value.drop_nulls().to_list() if several else [value]
        allowed = _PYTHON[self.kinds[name]]
        if any(type(v) not in allowed or v != v for v in values):
            return None
        return values if several else values[0]
