"""The rows of a table as an `xarray.Dataset`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask import config, expr
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.plan.index_files import index_file
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.stream.values import arrow_of, lengths_of, values_of
from lazynwb_dask.util.extras import optional


@dataclass(frozen=True)
class Known:
    """What the files say of columns, if the frame is a read of one table."""

    attributes: Mapping[str, Mapping[str, str]]
    ragged: Mapping[str, int]  # how many levels of its lists have an index (VectorIndex)


def known_of(frame: Any) -> Known:
    """Reads the metadata of one file."""
    found = None if isinstance(frame, pd.DataFrame) else expr.taken_apart(frame)
    scan = found[0] if found else None
    if not (isinstance(scan, Scan) and scan.nparts and scan.files.tables):
        return Known({}, {})
    files = scan.files
    ragged = dict.fromkeys(files.inlined.indexes if files.inlined else (), 1)  # values that a catalog holds
    for name, records in files.records.items():
        layouts = [some for some, _ in records.variants]
        if layouts and not any(one.element[0] == "sequence" for some in layouts for one in some):
            ragged[name] = max(len(some) - 1 for some in layouts)
    first = int(scan.file[0])
    request = replace(scan.request, table=files.tables[int(files.table[first])], details=True)
    attributes = {}
    with suppress(NWBReadError):  # descriptions are not worth an error
        table = index_file(files.source(first), request, config.file_access(scan.options)).table
        for name, column in table.columns.items() if table else ():
            known = {k: column.attributes.get(k, "") for k in ("description", "unit")}
            attributes[name] = {k: text for k, text in {**known, "units": known["unit"]}.items() if text}
    return Known(attributes, ragged)


def dataset(rows: pd.DataFrame, known: Known, dim: str) -> Any:
    """The rows along a dimension."""
    xr: Any = optional("xarray", "to_xarray")
    made: dict[str, Any] = {}
    for name in map(str, rows.columns):
        attributes = known.attributes.get(name, {})
        for key, (dims, values, more) in _variables(rows[name], name, dim, known.ragged.get(name)).items():
            same = dim in (key, *dims[1:]) or dims[0] == f"{name}_sample" == dim
            if same or key in made or (key != name and key in rows.columns):
                way = "another dim=" if same else "another name to the column (frame.rename)"
                raise ValueError(f"to_xarray: column {name!r} becomes {key!r}, which is taken: give {way}")
            made[key] = (dims, values, {**(attributes if key.startswith(name) and not more else {}), **more})
    for key, (dims, *_) in made.items():
        for taken in {*made} & {*dims}:
            raise ValueError(
                f"to_xarray: column {key!r} has a dimension {taken!r}, which is taken: rename one of the two"
            )
    return xr.Dataset(made, {dim: (dim, rows.index.to_numpy())})


Variables = dict[str, tuple[tuple[str, ...], Any, dict[str, str]]]


def _variables(column: pd.Series[Any], name: str, dim: str, ragged: int | None) -> Variables:
    """A column's variables: dimensions, values, attributes. `ragged` levels of lists are so in the file."""
    if not isinstance(column.dtype, pd.ArrowDtype) or not pa.types.is_nested(column.dtype.pyarrow_dtype):
        return {name: ((dim,), values_of(column), {})}
    array, dims, shape = arrow_of(column), [dim], [len(column)]
    found: Variables = {}
    there = None
    level = 0
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        if level == 0 and ragged == 0 and array.null_count:  # of a fixed shape, which some files lack
            there = np.asarray(array.is_valid())
            array = array.drop_null()
            shape = [len(array)]
        lengths = lengths_of(array)
        array = array.flatten()
        if level >= (ragged or 0) and len(np.unique(lengths)) < 2:
            dims.append(f"{name}_dim_{level + 1 - (len(found) > 0)}")
            shape.append(int(lengths[0]) if len(lengths) else 0)
        elif level == 0 and there is None:
            dims, shape = [f"{name}_sample"], [len(array)]
            about = {"sample_dimension": dims[0], "description": f"how many {name} each {dim} has"}
            found[f"{name}_row_size"] = ((dim,), lengths, about)
        else:
            raise UnsupportedColumnError(
                f"to_xarray: column {name!r} has lists of lists of different lengths, which xarray can't hold: "
                f"leave it out, frame.drop(columns={name!r}), or use to_awkward"
            )
        level += 1
    leaves = {name: array}
    if pa.types.is_struct(array.type):
        leaves = {f"{name}_{f.name}": part for f, part in zip(array.type, array.flatten(), strict=True)}
    for key, leaf in leaves.items():
        if pa.types.is_nested(leaf.type):
            raise UnsupportedColumnError(
                f"to_xarray: column {name!r} is of {column.dtype.pyarrow_dtype}, which xarray can't hold: "
                f"leave it out, frame.drop(columns={name!r}), or use to_awkward"
            )
        values = values_of(pd.Series(leaf, dtype=pd.ArrowDtype(leaf.type))).reshape(shape)
        found[key] = (tuple(dims), values if there is None else _spread(values, there), {})
    return found


def _spread(values: Any, there: Any) -> Any:
    """Rows where they belong; the others are NaN, or None for what isn't numbers."""
    number = values.dtype.kind in "iufb"
    full = np.full((len(there), *values.shape[1:]), np.nan if number else None, None if number else object)
    full[there] = values
    return full if values.dtype.kind != "f" else full.astype(values.dtype, copy=False)
