"""Of the largest or smallest rows, ragged columns are read once it is known which rows these are. So they are
read of k rows, and not of the k of each partition that come into question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa

from lazynwb_dask.by_file.map import Mapped
from lazynwb_dask.expr import tasks
from lazynwb_dask.expr.internals import Loc, NLargest, ex
from lazynwb_dask.expr.node import Read, View, listed, read_of
from lazynwb_dask.plan.tasks import Scan

# These pass rows of their first operand on with their labels, and columns that they don't assign unchanged.
_PASSING = (
    ex.Projection,
    ex.Filter,
    ex.Assign,
    ex.Query,
    ex.Head,
    ex.Tail,
    ex.Partitions,
    ex.Drop,
    Loc,
    View,
    NLargest,
)


@dataclass(frozen=True, repr=False)
class Rest:
    """Columns of a scan, to be read of rows with labels that are only known when computing; `n` at most."""

    scan: Scan
    columns: tuple[str, ...]
    n: int

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "rest", self.scan.token, self.columns, self.n

    def __repr__(self) -> str:
        return f"{list(self.columns)} of {self.n} rows"


def read_rest_later(top: Any) -> Any:
    """The chosen rows without the ragged columns that can be read afterwards, then with them."""
    if top.ndim != 2 or top.n < 0:
        return None
    by, frame = listed(top.operand("_columns")), top.frame
    ragged = [name for name in top.columns if name not in by and _is_ragged(top._meta.dtypes[name])]
    read = _origin(frame)
    if not ragged or read is None or read.scan.divisions is None or isinstance(read.scan, Mapped):
        return None
    if read.npartitions == 1 and read_of(frame) is not None:
        return None  # the read itself knows which rows these are
    rest = [name for name in ragged if name in read.columns and _is_unchanged(frame, name)]
    if not rest:
        return None
    first = ex.Projection(frame, [name for name in frame.columns if name not in rest])
    later = Rest(read.scan.narrow(rest, range(read.scan.nparts)), tuple(rest), top.n)
    return ReadRest(type(top)(first, *top.operands[1:]), later, top.columns)


def _is_ragged(dtype: Any) -> bool:
    return isinstance(dtype, pd.ArrowDtype) and pa.types.is_nested(dtype.pyarrow_dtype)


def _origin(node: Any) -> Read | None:
    """The read whose rows a frame has, with their labels."""
    while isinstance(node, _PASSING):
        node = node.frame
    return node if isinstance(node, Read) else None


def _is_unchanged(node: Any, name: str) -> bool:
    """Whether a column of a frame is the one that was read."""
    while not isinstance(node, Read):
        if isinstance(node, ex.Assign) and name in node.operands[1::2]:
            return False
        node = node.frame
    return True


class ReadRest(ex.Blockwise):  # type: ignore[misc]
    """Chosen rows with further columns, which are read now."""

    _parameters: ClassVar = ["frame", "rest", "shown"]
    operation = staticmethod(tasks.with_rest)

    @property
    def _meta(self) -> Any:
        rest = self.rest.scan.meta[list(self.rest.columns)]
        return pd.concat([self.frame._meta, rest], axis=1)[self.operand("shown")]

    @property
    def _args(self) -> list[Any]:
        return [self.frame, self.rest.scan, self.rest.columns, self.operand("shown")]

    def _simplify_up(self, parent: Any, dependents: Any) -> Any:
        if not isinstance(parent, ex.Projection):
            return None
        wanted = listed(ex.determine_column_projection(self, parent, dependents))
        shown = [name for name in self.operand("shown") if name in wanted]
        if shown == self.operand("shown"):
            return None
        columns = tuple(name for name in self.rest.columns if name in wanted)
        first = [name for name in self.frame.columns if name in wanted]
        frame: Any = ex.Projection(self.frame, first or self.frame.columns[:1])
        if columns:
            scan = self.rest.scan.narrow(columns, range(self.rest.scan.nparts))
            frame = type(self)(frame, Rest(scan, columns, self.rest.n), shown)
        return ex.Projection(frame, parent.operand("columns"))


if "_simplify_down" not in vars(NLargest):
    NLargest._simplify_down = read_rest_later
