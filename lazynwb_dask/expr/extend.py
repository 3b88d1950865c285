"""Adds columns with one value for each file to a frame. They become part of the read itself: nothing is
joined, and conditions on them leave out whole files, as conditions on `_nwb_path` do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from lazynwb_dask.by_file.alignment import ByFile, file_scans
from lazynwb_dask.expr import Loc, ReadNWB, ex, new_collection
from lazynwb_dask.scan.fields import Field

# These pass additional columns of their first operand on unchanged.
_PASSING = (ex.Filter, ex.Assign, ex.Query, ex.Head, ex.Tail, ex.Partitions, ex.Drop)


class CantPass(Exception):
    """An operation in the frame doesn't pass additional columns on."""


def scans(frame: Any) -> list[Any]:
    """The distinct scans of files that a frame reads."""
    read = [scan for node in frame.expr.find_operations(ReadNWB) for scan in file_scans(node.scan)]
    return list({scan.token: scan for scan in read}.values())


def widened(frame: Any, names: Sequence[str], extend: Callable[[Any], Any]) -> Any:
    """The frame with additional columns at the end, which `extend` adds to a scan. Raises CantPass if the
    frame reads several tables, or has an operation that may not pass columns on."""
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
    # conditions and assigned values use the columns from before
    kept = [_narrow(operand, names, extend) for operand in rest]
    return type(node)(wide, *kept)


def _narrow(operand: Any, names: list[str], extend: Callable[[Any], Any]) -> Any:
    """An operand on top of the extended read, projected to the columns that it had before."""
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
    """The frame with the columns of a table indexed by `_nwb_path`, looked up in each partition."""
    empty = {f.name: pd.Series([], dtype=f.dtype) for f in fields}
    return frame.map_partitions(looked_up, table, meta=frame._meta.assign(**empty), enforce_metadata=False)


def looked_up(frame: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The frame with the columns of a table that has one row for each path; values are missing for other
    paths."""
    found = table.reindex(pd.Index(frame["_nwb_path"])).set_axis(frame.index)
    return frame.assign(**{name: found[name] for name in table.columns})
