"""One TimeSeries as lazy arrays: a window of it reads only the chunks that it touches."""

from __future__ import annotations

import html
import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
from dask.utils import parse_bytes

from lazynwb_dask.decode.arrays import arrow, nested
from lazynwb_dask.errors import TableNotFoundError, UnsupportedColumnError
from lazynwb_dask.metadata.open import MetadataReader
from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.model.task_names import task_label, words
from lazynwb_dask.nwb.contents import ListSeries
from lazynwb_dask.nwb.series import REGIONS, SERIES
from lazynwb_dask.nwb.series_view import check_channels, stored_conversion
from lazynwb_dask.nwb.tables import IndexTable, table_path
from lazynwb_dask.storage import Settings
from lazynwb_dask.storage.options import Options
from lazynwb_dask.timeseries.stored_array import StoredArray

MANY = 20  # matches that an error names
_LINKS = ("acquisition", "stimulus/presentation", "stimulus/templates")


@dataclass(frozen=True, eq=False)
class Region:
    """The rows of a table that the channels of a series are about.

    Attributes
    ----------
    table : str
        The table's path, for `read_nwb`.
    rows : numpy.ndarray of int64
        For each channel its row there, as `_table_index` counts them.
    """

    table: str
    rows: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class TimeSeries:
    """One TimeSeries of one file. Made by `open_timeseries`.

    Attributes
    ----------
    file : str
        The file's path or URL.
    path : str
        Where it is in the file.
    neurodata_type : str
    data : dask.array.Array or None
        As stored, time first; in blocks of whole stored chunks. None where the values are in other
        files (such as videos).
    timestamps : dask.array.Array or None
        In seconds: as stored, or by `starting_time` and `rate`.
    rate : float or None
        Samples a second; None where timestamps are stored.
    starting_time : float or None
    unit : str
        Of the data after conversion.
    conversion, offset : float
    channel_conversion : numpy.ndarray or None
        A factor for each channel, besides `conversion`.
    resolution : float or None
    description, comments : str
    external_files : tuple of str
        The files that hold the values, if this one doesn't.
    electrodes : Region or None
        The rows of the electrodes table that the channels of an ElectricalSeries are.
    rois : Region or None
        The regions of interest of a RoiResponseSeries.
    """

    file: str
    path: str
    neurodata_type: str
    data: da.Array | None
    timestamps: da.Array | None
    rate: float | None = None
    starting_time: float | None = None
    unit: str = ""
    conversion: float = 1.0
    offset: float = 0.0
    channel_conversion: np.ndarray | None = None
    resolution: float | None = None
    description: str = ""
    comments: str = ""
    external_files: tuple[str, ...] = ()
    electrodes: Region | None = None
    rois: Region | None = None

    def __len__(self) -> int:
        """The number of samples."""
        arrays = [a for a in (self.timestamps, self.data) if a is not None]
        return len(arrays[0]) if arrays else 0

    @property
    def scaled(self) -> da.Array | None:
        """The data in their unit, as float64: ``data * conversion * channel_conversion + offset``."""
        if self.data is None:
            return None
        if self.data.dtype.kind not in "buif":
            raise UnsupportedColumnError(f"{self.file}: {self.path}: scaled data are numbers only")
        factors: Any = self.conversion
        if self.channel_conversion is not None:
            check_channels(
                f"{self.file}: {self.path}", len(self.channel_conversion), self.data.shape[1:]
            )
            each = self.conversion * self.channel_conversion
            factors = each.reshape(-1, *[1] * (self.data.ndim - 2))
        return self.data.astype(np.float64) * factors + self.offset

    def to_dataframe(
        self, start: int | None = None, stop: int | None = None, *, scaled: bool = False
    ) -> pd.DataFrame:
        """Samples as a pandas DataFrame.

        Parameters
        ----------
        start, stop : int, optional
            The first sample and the one after the last, as in a slice.
        scaled : bool
            The data in their unit rather than as stored.

        Returns
        -------
        pandas.DataFrame
            `timestamps` and `data`; of data with several channels `data_0`, `data_1`, ...; with more
            dimensions, lists. The index is the number of the sample.
        """
        window = slice(start, stop)
        arrays = {"timestamps": self.timestamps, "data": self.scaled if scaled else self.data}
        lazy = {name: array[window] for name, array in arrays.items() if array is not None}
        (found,) = dask.compute(lazy)
        index = pd.RangeIndex(len(self))[window]
        columns: dict[str, Any] = {}
        for name in arrays:
            values = found.get(name)
            if values is None:
                columns[name] = np.full(len(index), np.nan)
            elif values.ndim == 1:
                columns[name] = (
                    values if values.dtype != object else pd.array(values, dtype="string")
                )
            elif values.ndim == 2:
                columns |= {f"{name}_{n}": values[:, n] for n in range(values.shape[1])}
            else:
                kind = pa.string() if values.dtype == object else None
                flat = pa.array(values.reshape(-1), kind)
                lists = arrow(nested(flat, values.shape[1:], len(values)))
                columns[name] = pd.arrays.ArrowExtensionArray(lists)
        return pd.DataFrame(columns, index=index)

    # --- how it is shown
    def _facts(self) -> dict[str, str]:
        facts = {"file": shown(self.file)}
        if self.data is not None:
            size = " x ".join(map(str, self.data.shape))
            facts["data"] = f"{size} {self.data.dtype}" + (f", {self.unit}" if self.unit else "")
        if self.rate is not None:
            facts["time"] = f"{self.rate:g} Hz from {self.starting_time:g} s"
        elif self.timestamps is not None:
            facts["time"] = f"{len(self.timestamps)} timestamps"
        if self.conversion != 1 or self.offset or self.channel_conversion is not None:
            each = "" if self.channel_conversion is None else " x channel_conversion"
            facts["conversion"] = f"{self.conversion:g}{each}, offset {self.offset:g}"
        for name in REGIONS:
            region = getattr(self, name)
            if region is not None:
                facts[name] = f"{len(region.rows)} rows of {region.table}"
        if self.description:
            facts["description"] = self.description
        return facts

    def __repr__(self) -> str:
        lines = [f"{name}: {text}" for name, text in self._facts().items()]
        return "\n  ".join([f"<{self.neurodata_type} {self.path}>", *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._facts().items()
        )
        title = html.escape(f"{self.neurodata_type} {self.path}")
        return f"<strong>{title}</strong><table>{rows}</table>"


# --------------------------------------------------------------------------------------------- finding
def find(
    source: Source, name: str | None, match_all: bool, options: Options, settings: Settings
) -> tuple[Source, list[TableIndex]]:
    """The indexes of the series of a file that a name means.

    Raises
    ------
    TableNotFoundError
        There is none, or more than one where one is wanted.
    """
    passes = MetadataReader(source, options, settings)
    where = shown(source.url)
    if name is not None and not match_all:
        table = passes.run(IndexTable((table_path(name),)))
        if table is not None:
            if SERIES not in table.attributes:
                raise TableNotFoundError(f"{where}: {table.path} is a table; read_nwb reads it")
            return passes.source, [table]
    paths = passes.run(ListSeries())
    chosen = matching(paths, name)
    if name is not None and not chosen:
        # links to series are not listed
        linked = passes.run(IndexTable(tuple(f"/{at}/{name.strip('/')}" for at in _LINKS)))
        if linked is not None and SERIES in linked.attributes:
            return passes.source, [linked]
    if (name is not None and not chosen) or (len(chosen) != 1 and not match_all):
        raise TableNotFoundError(_none(where, name, paths, chosen))
    found = [passes.run(IndexTable((path,))) for path in chosen]
    return passes.source, [table for table in found if table is not None]


def matching(paths: Sequence[str], name: str | None) -> list[str]:
    """The paths that a name means: it, else those that end in it, else those that contain it.

    >>> matching(["/acquisition/lfp", "/processing/ecephys/lfp", "/acquisition/lfp_raw"], "lfp")
    ['/acquisition/lfp', '/processing/ecephys/lfp']
    """
    if name is None:
        return list(paths)
    bare = name.strip("/")
    tests = (
        lambda path: path == f"/{bare}",
        lambda path: path.endswith(f"/{bare}"),
        lambda path: bare.lower() in path.lower(),
    )
    return next((found for test in tests if (found := [p for p in paths if test(p)])), [])


def _none(where: str, name: str | None, paths: Sequence[str], chosen: Sequence[str]) -> str:
    some = ", ".join((chosen or paths)[:MANY]) or "none"
    more = "" if len(chosen or paths) <= MANY else ", ..."
    if chosen:
        what = "each of them" if name is None else repr(name)
        return (
            f"{where}: {what} means {len(chosen)} TimeSeries: {some}{more}. Give a path, or "
            "match_all=True"
        )
    near = get_close_matches(f"/{(name or '').strip('/')}", paths, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{where}: no TimeSeries {name or ''}{hint} Its TimeSeries: {some}{more}"


# --------------------------------------------------------------------------------------------- opening
def opened(source: Source, table: TableIndex, options: Options) -> TimeSeries:
    """A series of which the index is known. Reads nothing."""
    said = table.attributes
    factor, offset, each = stored_conversion(table)
    return TimeSeries(
        source.url,
        table.path,
        said[SERIES],
        None if "external_file" in said else _array(source, table, "data", options),
        _times(source, table, options),
        _float(said.get("rate")),
        _float(said.get("starting_time")),
        said.get("unit", ""),
        factor,
        offset,
        None if each is None else np.asarray(each),
        _float(said.get("resolution")),
        said.get("description", ""),
        said.get("comments", ""),
        tuple(map(str, json.loads(said.get("external_file", "[]")))),
        _region(said, "electrodes"),
        _region(said, "rois"),
    )


def _times(source: Source, table: TableIndex, options: Options) -> da.Array | None:
    """The timestamps; None, with a warning, where they can't be told: the data may be fine."""
    try:
        return _array(source, table, "timestamps", options)
    except UnsupportedColumnError as exc:
        warnings.warn(f"a TimeSeries is opened without timestamps: {exc}", stacklevel=4)
        return None


def _array(source: Source, table: TableIndex, name: str, options: Options) -> da.Array | None:
    column = table.columns.get(name)
    if column is None:
        return None
    if column.problem:
        raise UnsupportedColumnError(f"{shown(source.url)}: {table.path}/{name}: {column.problem}")
    array = column.arrays[0]
    if array.layout.computed:
        _, start, rate = array.layout.element
        numbers = da.arange(table.rows, dtype=np.int64, chunks=_rows(1, 8))
        return start + numbers / rate
    stored = StoredArray(source, f"{table.path}/{name}", array, table.rows, options)
    label = task_label("read", [*words(table.path), name], [source.url])
    return da.from_array(
        stored,
        chunks=_blocks(stored),
        name=f"{label}-{dask.base.tokenize(stored)}",
        meta=np.empty((0,) * stored.ndim, stored.dtype),
    )


def _blocks(stored: StoredArray) -> tuple[int, ...]:
    """The shape of Dask's blocks: as many whole stored chunks as make about as much as Dask likes."""
    size = 64 if stored.dtype == object else stored.dtype.itemsize
    rows, *inner = stored.chunks
    item = stored.shape[1:]
    if rows * math.prod(item) * size > 2 * _limit():
        item = tuple(min(a, b) for a, b in zip(inner, item, strict=True))
    return (_rows(rows, math.prod(item) * size), *item)


def _rows(step: int, row_bytes: int) -> int:
    return max(1, _limit() // max(step * row_bytes, 1)) * step


def _limit() -> int:
    return int(parse_bytes(dask.config.get("array.chunk-size")))


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _region(said: dict[str, str], name: str) -> Region | None:
    rows = np.array(json.loads(said.get(name, "null")))
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        return None  # there is none, or it can't be read
    return Region(said.get(f"{name}_table", ""), rows.astype(np.int64))
