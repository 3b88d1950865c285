"""TimeSeries in HDF5 files as tables of two columns, `timestamps` and `data`.

Timestamps are stored, often as a link to another series, or computed from `starting_time` and `rate`. How
to convert values to physical units is kept in the table's attributes (`lazynwb_dask.nwb.series_view`).
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
from h5py import h5d, h5g

from lazynwb_dask.hdf5.dataset import Dataset
from lazynwb_dask.hdf5.json_values import json_value
from lazynwb_dask.hdf5.links import Refused, attribute, find, small, text
from lazynwb_dask.hdf5.sparse_file import Miss
from lazynwb_dask.model.index import (
    UNDEFINED,
    ArrayIndex,
    ColumnIndex,
    Extents,
    Layout,
    TableIndex,
    flat_length,
)
from lazynwb_dask.nwb.columns import ColumnIndexer, Members
from lazynwb_dask.nwb.tables import is_table

SERIES = "series"
"""The attribute of a `TableIndex` of a TimeSeries that holds its neurodata_type."""
REGIONS = ("electrodes", "rois")
MAX_REGION = 1 << 16  # rows of a region that are part of the index
_FLOAT64 = (("number", "<f8"), ("number", ">f8"))  # predicates are compared as such
_PARTS = ("timestamps", "starting_time", "data", "external_file")
_OF_GROUP = ("neurodata_type", "description", "comments")
_OF_DATA = ("unit", "conversion", "offset", "resolution")


def is_series(root: h5g.GroupID, group: h5g.GroupID, path: str) -> bool:
    """Whether a group that is no table is a TimeSeries.

    It has times (events of older extensions have no more), or data and a neurodata_type ending in "Series".
    """
    if is_table(group):
        return False
    here = {name for name in _PARTS if group.links.exists(name.encode())}
    if here & {"timestamps", "starting_time"}:
        return any(_is_dataset(root, f"{path}/{name}") for name in here)
    kind = text(attribute(group, "neurodata_type")) if here else ""
    return kind.endswith("Series") and _is_dataset(root, f"{path}/{min(here)}")


def _is_dataset(root: h5g.GroupID, path: str) -> bool:
    try:
        found = find(root, path)
    except Refused as exc:
        return exc.external
    return found is not None and isinstance(found[0], h5d.DatasetID)


def index_series(indexer: ColumnIndexer, group: h5g.GroupID, path: str) -> TableIndex:
    """The index of a TimeSeries."""
    members = indexer.members(group, path)
    data, times = members.datasets.get("data"), members.datasets.get("timestamps")
    in_files = "external_file" in members.datasets and (data is None or data.rows == 0)
    rows = _rows(times, None if in_files else data)
    if times is None and "timestamps" not in members.problems and (data is None or in_files):
        rows = 0  # a rate alone doesn't tell how many samples there are
    attributes = _attributes(indexer, group, members.datasets)
    if in_files:
        attributes |= _values("external_file", members.datasets["external_file"])
    found = (_times(indexer, members, rows, attributes), _data(indexer, members, rows, in_files))
    if indexer.sparse.missing:
        raise Miss(path)
    columns = {column.name: column for column in found if column is not None}
    return TableIndex(path, rows, columns, attributes=attributes)


def _rows(times: Dataset | None, data: Dataset | None) -> int:
    """The number of samples: of timestamps and data the shorter, where both have a length."""
    if times is None or times.problem:
        return 0 if data is None or data.problem else data.rows
    if data is None or data.problem:
        return times.length
    length = flat_length(times.shape)
    if length is None:
        return data.rows
    return length if length in data.shape[1:] else min(length, data.rows)


def _times(
    indexer: ColumnIndexer, members: Members, rows: int, attributes: dict[str, str]
) -> ColumnIndex | None:
    name = "timestamps"
    if name in members.datasets or name in members.problems:
        column = indexer.column(name, name, members, rows, single=True)
        if column.problem:
            return column
        array = column.arrays[0]
        if array.layout.item or array.layout.element not in _FLOAT64:
            return column
        return replace(column, arrays=(replace(array, layout=replace(array.layout, rising=False)),))
    if "starting_time" not in members.datasets:
        return None
    start, rate = _number(attributes.get("starting_time")), _number(attributes.get("rate"))
    if not (math.isfinite(start) and math.isfinite(rate) and rate > 0):
        problem = f"no time without a rate above 0; it is {rate}"
        if not math.isfinite(start):
            problem = f"no time without a starting_time that is a number; it is {start}"
        return ColumnIndex(name, rows=rows, problem=problem)
    return ColumnIndex(name, (ramp(start, rate, rows),), rows, attributes={"unit": "seconds"})


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def ramp(start: float, rate: float, rows: int) -> ArrayIndex:
    """Times in seconds from `start` on at a constant rate in Hz, of which nothing is stored."""
    return ArrayIndex.without_chunks(Layout(("ramp", start, rate), rising=True), rows)


def _data(indexer: ColumnIndexer, members: Members, rows: int, in_files: bool) -> ColumnIndex | None:
    name = "data"
    if name in members.datasets or name in members.problems:
        return indexer.column(name, name, members, rows)
    if not in_files:
        return None
    absent = Extents(0, np.full(1, UNDEFINED, "<u8"), np.zeros(1, "<u8"))
    array = ArrayIndex(Layout(("number", "<f8")), absent)
    return ColumnIndex(name, (array,), rows, notes=("its values are in external files",))


def _attributes(indexer: ColumnIndexer, group: h5g.GroupID, datasets: dict[str, Dataset]) -> dict[str, str]:
    """What is said of a series, as text; of numbers a text from which they can be read again."""
    found = indexer.attributes(group, list(_OF_GROUP))
    found[SERIES] = found.pop("neurodata_type", "")
    data, times = datasets.get("data"), datasets.get("timestamps")
    if data is not None and data.in_file:
        found |= indexer.attributes(data.id, list(_OF_DATA))
    if times is not None:
        found["timestamps"] = times.path
    start = datasets.get("starting_time")
    if start is not None and start.in_file and times is None:
        found |= indexer.attributes(start.id, ["rate"])
        values = json.loads(_values("", start)[""])
        if values:
            found["starting_time"] = str(values[0])
    if "channel_conversion" in datasets:
        factors = datasets["channel_conversion"]
        found |= _values("channel_conversion", factors)
        if factors.in_file:
            axis = indexer.attributes(factors.id, ["axis"])
            found |= {f"channel_{name}": value for name, value in axis.items()}
    for name in REGIONS:
        region = datasets.get(name)
        if region is not None and region.in_file and not region.problem:
            target = indexer.attributes(region.id, ["table"])
            found |= {f"{name}_table": value for value in target.values()}
            found |= _values(name, region)
    return found


def _values(name: str, dataset: Dataset) -> dict[str, str]:
    """The values of a small dataset, as JSON; an empty list where they can't be read."""
    try:
        if dataset.id is None or dataset.problem or not 0 < dataset.rows <= MAX_REGION:
            return {name: "[]"}
        return {name: json.dumps(json_value(small(dataset.id)))}
    except Exception:
        return {name: "[]"}  # if blocks are missing, another pass follows
