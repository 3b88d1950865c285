"""TimeSeries in HDF5 files as tables of two columns, `timestamps` and `data`.

Timestamps are stored, often by way of a link to another series', or follow from a start and a rate. What
turns stored values into physical ones is kept as attributes of the table: see `lazynwb_dask.nwb.series_view`.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from h5py import h5d, h5g

from lazynwb_dask.hdf5.json_values import plain
from lazynwb_dask.hdf5.links import Refused, attribute, find, is_table, small, text
from lazynwb_dask.hdf5.sparse_file import Miss
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, ColumnIndex, Extents, Layout, TableIndex

if TYPE_CHECKING:
    from lazynwb_dask.hdf5.dataset import Dataset
    from lazynwb_dask.nwb.tables import Indexer

SERIES = "series"
"""The attribute of a `TableIndex` that says it is of a TimeSeries: its neurodata_type."""
REGIONS = ("electrodes", "rois")
MAX_REGION = 1 << 16  # rows of a region that are part of the index
_EXACT = (("number", "<f8"), ("number", ">f8"))  # what conditions are compared as
_PARTS = ("timestamps", "starting_time", "data", "external_file")
_OF_GROUP = ("neurodata_type", "description", "comments")
_OF_DATA = ("unit", "conversion", "offset", "resolution")


def is_series(root: h5g.GroupID, group: h5g.GroupID, path: str) -> bool:
    """Whether a group that is no table is a TimeSeries.

    It has times, or data under a type whose name says so. (Events of older extensions have times only.)
    """
    if is_table(group):
        return False
    here = {name for name in _PARTS if group.links.exists(name.encode())}
    if here & {"timestamps", "starting_time"}:
        return any(_is_dataset(root, f"{path}/{name}") for name in here)
    named = text(attribute(group, "neurodata_type")) if here else ""
    return named.endswith("Series") and _is_dataset(root, f"{path}/{min(here)}")


def _is_dataset(root: h5g.GroupID, path: str) -> bool:
    try:
        found = find(root, path)
    except Refused as exc:
        return exc.foreign
    return found is not None and isinstance(found[0], h5d.DatasetID)


def index_series(indexer: Indexer, group: h5g.GroupID, path: str) -> TableIndex:
    """The index of a TimeSeries."""
    datasets, problems = indexer.datasets(group, path)
    data, times = datasets.get("data"), datasets.get("timestamps")
    external = "external_file" in datasets and (data is None or data.rows == 0)
    lengths = [
        d.rows for d in (times, None if external else data) if d is not None and not d.problem
    ]
    rows = min(lengths) if lengths else 0
    if times is None and "timestamps" not in problems and (data is None or external):
        rows = 0  # a rate alone doesn't tell how many samples there are
    attributes = _attributes(indexer, group, datasets)
    if external:
        attributes |= _values("external_file", datasets["external_file"])
    columns = {}
    for column in (
        _times(indexer, datasets, problems, rows, attributes),
        _data(indexer, datasets, problems, rows, external),
    ):
        if column is not None:
            columns[column.name] = column
    if indexer.sparse.missing:
        raise Miss(path)
    return TableIndex(path, rows, columns, attributes=attributes)


def _times(
    indexer: Indexer,
    datasets: dict[str, Dataset],
    problems: dict[str, str],
    rows: int,
    attributes: dict[str, str],
) -> ColumnIndex | None:
    name = "timestamps"
    if name in datasets or name in problems:
        column = _column(indexer, name, datasets, problems, rows)
        if column.problem:
            return column
        array = column.arrays[0]
        if array.layout.item or array.layout.element not in _EXACT:
            return column
        return replace(column, arrays=(replace(array, layout=replace(array.layout, rising=True)),))
    if "starting_time" not in datasets:
        return None
    start, rate = _number(attributes.get("starting_time")), _number(attributes.get("rate"))
    if not (math.isfinite(start) and math.isfinite(rate) and rate > 0):
        return ColumnIndex(name, rows=rows, problem=f"no time without a rate above 0; it is {rate}")
    return ColumnIndex(name, (ramp(start, rate, rows),), rows, attributes={"unit": "seconds"})


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def ramp(start: float, rate: float, rows: int) -> ArrayIndex:
    """Times by a regular clock: nothing of them is stored."""
    nothing = np.zeros(0, "<u8")
    layout = Layout(("ramp", start, rate), rising=True)
    return ArrayIndex(layout, Extents(rows, nothing, nothing))


def _data(
    indexer: Indexer,
    datasets: dict[str, Dataset],
    problems: dict[str, str],
    rows: int,
    external: bool,
) -> ColumnIndex | None:
    if "data" in datasets or "data" in problems:
        return _column(indexer, "data", datasets, problems, rows)
    if not external:
        return None
    absent = Extents(0, np.full(1, UNDEFINED, "<u8"), np.zeros(1, "<u8"))
    note = "its values are in external files"
    return ColumnIndex(
        "data", (ArrayIndex(Layout(("number", "<f8")), absent),), rows, notes=(note,)
    )


def _column(
    indexer: Indexer,
    name: str,
    datasets: dict[str, Dataset],
    problems: dict[str, str],
    rows: int,
) -> ColumnIndex:
    if name in problems:
        return ColumnIndex(name, rows=rows, problem=problems[name])
    return indexer.column(name, name, datasets, {}, rows)


def _attributes(
    indexer: Indexer, group: h5g.GroupID, datasets: dict[str, Dataset]
) -> dict[str, str]:
    """What is said of a series, as text; numbers so that they can be read again."""
    found = indexer.attributes(group, list(_OF_GROUP))
    found[SERIES] = found.pop("neurodata_type", "")
    data, times = datasets.get("data"), datasets.get("timestamps")
    if data is not None and data.here:
        found |= indexer.attributes(data.id, list(_OF_DATA))
    if times is not None:
        found["timestamps"] = times.path
    start = datasets.get("starting_time")
    if start is not None and start.here and times is None:
        found |= indexer.attributes(start.id, ["rate"])
        values = json.loads(_values("", start)[""])
        if values:
            found["starting_time"] = str(values[0])
    if "channel_conversion" in datasets:
        held = datasets["channel_conversion"]
        found |= _values("channel_conversion", held)
        if held.here:
            found |= {
                f"channel_{name}": value
                for name, value in indexer.attributes(held.id, ["axis"]).items()
            }
    for name in REGIONS:
        region = datasets.get(name)
        if region is not None and region.here and not region.problem:
            found |= {
                f"{name}_table": value
                for value in indexer.attributes(region.id, ["table"]).values()
            }
            found |= _values(name, region)
    return found


def _values(name: str, dataset: Dataset) -> dict[str, str]:
    """The values of a small dataset, as JSON; an empty list where they can't be read."""
    try:
        if dataset.id is None or dataset.problem or not 0 < dataset.rows <= MAX_REGION:
            return {name: "[]"}
        return {name: json.dumps(plain(small(dataset.id)))}
    except Exception:
        return {name: "[]"}  # or not here yet: then another pass follows
