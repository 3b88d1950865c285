"""Further columns for a frame that reads made: values that are the same for all rows of a file.

They are made part of the read itself, below all that the frame does with it. So nothing is joined, and a
condition on them leaves files out, as one on `_nwb_path` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from lazynwb_dask.by_file.alignment import ByFile, file_scans
from lazynwb_dask.expr import Loc, ReadNWB, ex, new_collection
from lazynwb_dask.scan.fields import Field

# What passes further columns of its frame, its first operand, on as they are.
_PASSING = (ex.Filter, ex.Assign, ex.Query, ex.Head, ex.Tail, ex.Partitions, ex.Drop)


class CantPass(Exception):
    """Something in the frame would not pass further columns on."""


def scans(frame: Any) -> list[Any]:
    """The scans of files that a frame reads."""
    read = [scan for node in frame.expr.find_operations(ReadNWB) for scan in file_scans(node.scan)]
    return list({scan.token: scan for scan in read}.values())


def widened(frame: Any, names: Sequence[str], extend: Callable[[Any], Any]) -> Any:
    """A frame with further columns of its read, at the end.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
    names : sequence of str
    extend : callable
        From a scan, the scan with these columns.

    Raises
    ------
    CantPass
        The frame has more than one table, or is made by something that could do anything.
    """
    if len(scans(frame)) != 1:
        raise CantPass
    return new_collection(_wide(frame.expr, list(names), extend))


def _wide(node: Any, names: list[str], extend: Callable[[Any], Any]) -> Any:
    if isinstance(node, ReadNWB):
        if isinstance(node.scan, ByFile):
            raise CantPass
        return _extended(node, names, extend)
    if not isinstance(node, (*_PASSING, ex.Projection, Loc)) or node.ndim != 2:
        raise CantPass
    frame, *rest = node.operands
    wide = _wide(frame, names, extend)
    if isinstance(node, ex.Projection):
        return ex.Projection(wide, [*node.operand("columns"), *names])
    if isinstance(node, Loc) and node.cindexer is not None:
        raise CantPass
    # conditions and assigned values are of the frame as it was
    kept = [_narrow(operand, names, extend) for operand in rest]
    return type(node)(wide, *kept)


def _narrow(operand: Any, names: list[str], extend: Callable[[Any], Any]) -> Any:
    """An operand over the extended read, of which it sees the columns that it saw before."""
    if not isinstance(operand, ex.Expr):
        return operand
    for read in list(operand.find_operations(ReadNWB)):
        same = ex.Projection(_extended(read, names, extend), read.columns)
        operand = operand.substitute(read, same)
    return operand


def _extended(read: ReadNWB, names: list[str], extend: Callable[[Any], Any]) -> Any:
    columns = read.operand("columns")
    wider = None if columns is None else [*columns, *names]
    return read.substitute_parameters({"scan": extend(read.scan), "columns": wider})


def mapped(frame: Any, table: pd.DataFrame, fields: Sequence[Field]) -> Any:
    """A frame with the rows of a table by `_nwb_path`, looked up partition by partition."""
    empty = {f.name: pd.Series([], dtype=f.dtype) for f in fields}
    return frame.map_partitions(
        looked_up, table, meta=frame._meta.assign(**empty), enforce_metadata=False
    )


def looked_up(frame: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """A frame with the columns of a table that has one row for a path; missing values where it has none."""
    found = table.reindex(pd.Index(frame["_nwb_path"])).set_axis(frame.index)
    return frame.assign(**{name: found[name] for name in table.columns})
