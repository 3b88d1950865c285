"""Functions of a column's lists as Dask expressions. How long lists are is read without their values."""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd

from lazynwb_dask import config
from lazynwb_dask.expr.internals import ex, new_collection
from lazynwb_dask.expr.node import Read, read_of
from lazynwb_dask.scan.scan import Scan


def of_lists(column: Any, function: str, *args: Any) -> Any:
    """A method of the accessor of a pandas Series, for each row of a Dask Series."""
    return new_collection(OfLists(column.expr, function, args))


def out_of_lists(column: Any, function: str) -> Any:
    """The same of a method that gives a row for each element."""
    return new_collection(OutOfLists(column.expr, function, ()))


def called(column: pd.Series[Any], function: str, args: tuple[Any, ...]) -> Any:
    return getattr(column.nwb, function)(*args)


def derived(read: Read, column: Any, node: OfLists) -> str | None:
    """The name of what a read can make of a column's lists; of `count_between`, of the values to be counted."""
    if not isinstance(read.scan, Scan):
        return None
    return read.scan.derived(column, node.function, node.args, bool(config.get("sorted-timestamps")))


class _RowByRow(ex.Elemwise):  # type: ignore[misc]
    """A value for each row. Rows are left out before it is made."""

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        # Dask's own rule would compare the lists themselves, where a condition is on what is made of them
        if (
            isinstance(parent, ex.Filter)
            and parent.frame._name == self._name
            and read_of(self.frame) is not None
            and ex.are_co_aligned(self.frame, parent.predicate)
        ):
            return type(self)(ex.Filter(self.frame, parent.predicate), *self.operands[1:])
        return super()._simplify_up(parent, dependents)


class OfLists(_RowByRow):
    """What a function makes of each row of a column of lists."""

    _parameters: ClassVar = ["frame", "function", "args"]
    operation = staticmethod(called)

    def _simplify_down(self) -> Any:
        """Read what it is about rather than the lists."""
        if isinstance(self.frame, ex.Filter):
            before = OfLists(self.frame.frame, *self.operands[1:])._simplify_down()
            return None if before is None else ex.Filter(before, self.frame.predicate)
        read, column = read_of(self.frame), self.frame._meta.name
        if read is None or read.limit is not None:
            return None
        name = derived(read, column, self)
        if name is None:
            return None
        made = ReadDerived(ex.Projection(read._with(columns=[name]), name), column)
        return OfLists(made, "len", ()) if self.function == "count_between" else made


class ReadDerived(_RowByRow):
    """What was read about a column's lists, under the name of that column."""

    _parameters: ClassVar = ["frame", "column"]

    @staticmethod
    def operation(column: pd.Series[Any], name: str) -> Any:
        return column.rename(name)


class OutOfLists(ex.Blockwise):  # type: ignore[misc]
    """A row for each element of a column of lists."""

    _parameters: ClassVar = ["frame", "function", "args"]
    operation = staticmethod(called)
