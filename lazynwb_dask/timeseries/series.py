"""One TimeSeries as lazy arrays: a part of them reads only the stored chunks that it touches."""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pyarrow as pa
from dask.utils import parse_bytes

from lazynwb_dask.decode.arrays import arrow, nested
from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.model.task_names import task_label, words
from lazynwb_dask.nwb.series import REGIONS, SERIES
from lazynwb_dask.nwb.series_view import check_channels, stored_conversion
from lazynwb_dask.storage.options import Options
from lazynwb_dask.timeseries.stored_array import StoredArray
from lazynwb_dask.util.extras import optional
from lazynwb_dask.util.warn import warn

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, eq=False)
class Region:
    """The rows of a table that describe the channels of a TimeSeries.

    Attributes
    ----------
    table : str
        The path of the table, for `read_nwb`.
    rows : numpy.ndarray of int64
        For each channel, its row in the table, as in `_table_index`.

    See Also
    --------
    lazynwb_dask.join_region : the same for tables.

    Notes
    -----
    This is the DynamicTableRegion `electrodes` of an ElectricalSeries or `rois` of a RoiResponseSeries, defined
    in the `NWB schema <https://nwb-schema.readthedocs.io/en/latest/format.html>`_.

    Examples
    --------
    >>> from lazynwb_dask import open_timeseries, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> (path,) = make_sessions("sessions", n=1, lfp_shape=(2_000, 4))
    >>> region = open_timeseries(path, "lfp").electrodes
    >>> region
    Region(table='/general/extracellular_ephys/electrodes', rows=array([0, 1, 2, 3]))
    >>> electrodes = read_nwb(path, region.table).compute()
    >>> electrodes.iloc[region.rows].group_name.tolist()
    ['probeA', 'probeA', 'probeA', 'probeA']
    """

    table: str
    rows: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class TimeSeries:
    """One TimeSeries of one file, with lazy arrays. Made by `open_timeseries`.

    ``len(series)`` is the number of samples.

    Attributes
    ----------
    file : str
        The path or URL of the file.
    path : str
        The path in the file.
    neurodata_type : str
        Such as ``"ElectricalSeries"``.
    data : dask.array.Array or None
        The values as stored, with the shape (samples, ...) and the stored dtype, in blocks of whole stored
        chunks. None if the values are in other files, such as videos.
    timestamps : dask.array.Array or None
        The time of each sample in seconds, float64: as stored, or computed from `starting_time` and `rate`.
        None if they can't be read.
    rate : float or None
        Samples per second (Hz). None if timestamps are stored.
    starting_time : float or None
        The time of the first sample, in seconds. None if timestamps are stored.
    unit : str
        The unit of the data after conversion, as in `scaled`.
    conversion, offset : float
        ``data * conversion * channel_conversion + offset`` is in `unit`.
    channel_conversion : numpy.ndarray or None
        A further factor for each channel, float64.
    resolution : float or None
        The smallest meaningful difference between values, in `unit`.
    description, comments : str
        As in the file; empty if there are none.
    external_files : tuple of str
        The files with the values, if they are not in this file.
    electrodes : Region or None
        The rows of the electrodes table for the channels of an ElectricalSeries.
    rois : Region or None
        The regions of interest of a RoiResponseSeries.

    See Also
    --------
    lazynwb_dask.open_timeseries : opens one.
    lazynwb_dask.align_timeseries : a series around events.

    Notes
    -----
    The attributes are defined with TimeSeries in the `NWB schema
    <https://nwb-schema.readthedocs.io/en/latest/format.html>`_.

    Examples
    --------
    >>> from lazynwb_dask import open_timeseries
    >>> from lazynwb_dask.datasets import make_sessions
    >>> (path,) = make_sessions("sessions", n=1)
    >>> licks = open_timeseries(path, "lick_sensor")
    >>> licks.unit, licks.rate, len(licks)
    ('volts', 20.0, 36000)
    >>> licks.timestamps[:3].compute().tolist()
    [0.25, 0.3, 0.35]
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
    # what `data` and `timestamps` are taken of; of timestamps by a rate, the first one and the rate
    stored: tuple[StoredArray | None, StoredArray | tuple[float, float] | None] = (None, None)

    def __len__(self) -> int:
        """Return the number of samples.

        Returns
        -------
        int
            0 if neither data nor timestamps can be read.
        """
        arrays = [a for a in (self.timestamps, self.data) if a is not None]
        return len(arrays[0]) if arrays else 0

    @property
    def scaled(self) -> da.Array | None:
        """The data in `unit`: ``data * conversion * channel_conversion + offset``.

        Returns
        -------
        dask.array.Array or None
            float64, of the shape of `data`. None if `data` is None.

        Raises
        ------
        UnsupportedColumnError
            The data are not numbers, or `channel_conversion` doesn't fit their shape.
        """
        if self.data is None:
            return None
        if self.data.dtype.kind not in "buif":
            raise UnsupportedColumnError(f"{self.file}: {self.path}: scaled data are numbers only")
        return self.in_unit(self.data, self.data.shape[1:])

    def in_unit(self, values: da.Array, sample: tuple[int, ...]) -> da.Array:
        """Convert stored values to `unit`; `sample` is the shape of one sample. For internal use."""
        factors: Any = self.conversion
        if self.channel_conversion is not None:
            check_channels(f"{self.file}: {self.path}", len(self.channel_conversion), sample)
            each = self.conversion * self.channel_conversion
            factors = each.reshape(-1, *[1] * (len(sample) - 1))
        return values.astype(np.float64) * factors + self.offset

    def to_dataframe(
        self, start: int | None = None, stop: int | None = None, *, scaled: bool = False
    ) -> pd.DataFrame:
        """Read samples into a pandas DataFrame.

        Parameters
        ----------
        start : int, optional
            The first sample, as in a slice. Default: the first.
        stop : int, optional
            The sample after the last one, as in a slice. Default: to the end.
        scaled : bool, default False
            Convert the data to `unit`, as float64.

        Returns
        -------
        pandas.DataFrame
            `timestamps` (float64, seconds) and `data`. Two-dimensional data are columns `data_0`, `data_1`,
            ..., one for each channel; data with more dimensions are lists. The index is the number of the
            sample.

        Raises
        ------
        NWBReadError
            The file can't be read, or has changed.
        UnsupportedColumnError
            With `scaled`: the data are not numbers.

        See Also
        --------
        lazynwb_dask.read_nwb : a series of many files as a table.

        Examples
        --------
        >>> from lazynwb_dask import open_timeseries
        >>> from lazynwb_dask.datasets import make_sessions
        >>> (path,) = make_sessions("sessions", n=1, lfp_shape=(2_000, 2))
        >>> open_timeseries(path, "lfp").to_dataframe(10, 13, scaled=True).columns.tolist()
        ['timestamps', 'data_0', 'data_1']
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
                columns[name] = values if values.dtype != object else pd.array(values, dtype="string")
            elif values.ndim == 2:
                columns |= {f"{name}_{n}": values[:, n] for n in range(values.shape[1])}
            else:
                kind = pa.string() if values.dtype == object else None
                flat = pa.array(values.reshape(-1), kind)
                lists = arrow(nested(flat, values.shape[1:], len(values)))
                columns[name] = pd.arrays.ArrowExtensionArray(lists)
        return pd.DataFrame(columns, index=index)

    def to_xarray(self, *, scaled: bool = False) -> xarray.DataArray:
        """Return the series as an `xarray.DataArray` of Dask arrays. Nothing is read.

        Parameters
        ----------
        scaled : bool, default False
            Convert the data to `unit`, as float64.

        Returns
        -------
        xarray.DataArray
            With the dimensions `time`, `channel`, `dim_2`, ... The coordinate `time` (seconds) is lazy and has
            no index; ``set_xindex("time")`` reads it, so that ``sel(time=slice(600, 660))`` works. `electrodes`
            and `rois` are coordinates of `channel`: rows of their tables. `attrs` has `description` and `unit`;
            `conversion` and `offset` for data as stored; `units` for data in the unit.

        Raises
        ------
        ImportError
            xarray is not installed: ``pip install 'lazynwb-dask[xarray]'``.
        UnsupportedColumnError
            The values are in other files; with `scaled`: they are not numbers.

        See Also
        --------
        lazynwb_dask.align_timeseries : a series around events, as a DataArray.

        Examples
        --------
        >>> from lazynwb_dask import open_timeseries
        >>> from lazynwb_dask.datasets import make_sessions
        >>> (path,) = make_sessions("sessions", n=1, lfp_shape=(20_000, 16))
        >>> lfp = open_timeseries(path, "lfp").to_xarray(scaled=True)
        >>> minute = lfp.set_xindex("time").sel(time=slice(600, 660))
        >>> minute.dims, minute.shape, minute.units
        (('time', 'channel'), (667, 16), 'volts')
        """
        xr: Any = optional("xarray", "to_xarray")
        data = self.scaled if scaled else self.data
        if data is None:
            raise UnsupportedColumnError(f"{self.file}: {self.path}: its values are in other files")
        dims = ["time", "channel", *[f"dim_{n}" for n in range(2, data.ndim)]][: data.ndim]
        coords: dict[str, Any] = {}
        if self.timestamps is not None:
            coords["time"] = ("time", self.timestamps, {"units": "s"})
        for name in REGIONS:
            region = getattr(self, name)
            if region is not None and data.shape[1:2] == region.rows.shape:
                coords[name] = ("channel", region.rows, {"table": region.table})
        plain = self.conversion == 1 and not self.offset and self.channel_conversion is None
        attrs: dict[str, Any] = {"description": self.description, "unit": self.unit}
        attrs |= {"units": self.unit} if scaled or plain else {}
        attrs |= {} if scaled else {"conversion": self.conversion, "offset": self.offset}
        if self.channel_conversion is not None and not scaled and data.ndim > 1:
            coords["channel_conversion"] = ("channel", self.channel_conversion)
        attrs |= {"neurodata_type": self.neurodata_type, "path": self.path, "_nwb_path": self.file}
        made: xarray.DataArray = xr.DataArray(
            data, xr.Coordinates(coords, indexes={}), dims, self.path.rpartition("/")[2], attrs
        )
        return made

    def _facts(self) -> dict[str, str]:
        facts = {"file": shown(self.file)}
        if self.data is not None:
            size = " x ".join(map(str, self.data.shape))
            facts["data"] = f"{size} {self.data.dtype}" + (f", {self.unit}" if self.unit else "")
        if self.rate is not None and self.starting_time is not None:
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


def open_series(source: Source, table: TableIndex, options: Options) -> TimeSeries:
    """A series whose index is known. Reads nothing. UnsupportedColumnError if its data can't be read."""
    attributes = table.attributes
    factor, offset, each = stored_conversion(table)
    data = None if "external_file" in attributes else _array(source, table, "data", options)
    timestamps = _times(source, table, options)
    return TimeSeries(
        source.url,
        table.path,
        attributes[SERIES],
        None if data is None else _lazy(data, table),
        None if timestamps is None else _lazy(timestamps, table),
        _float(attributes.get("rate")),
        _float(attributes.get("starting_time")),
        attributes.get("unit", ""),
        factor,
        offset,
        None if each is None else np.asarray(each),
        _float(attributes.get("resolution")),
        attributes.get("description", ""),
        attributes.get("comments", ""),
        tuple(map(str, json.loads(attributes.get("external_file", "[]")))),
        _region(attributes, "electrodes"),
        _region(attributes, "rois"),
        (data if isinstance(data, StoredArray) else None, timestamps),
    )


_Stored = StoredArray | tuple[float, float]


def _times(source: Source, table: TableIndex, options: Options) -> _Stored | None:
    """The timestamps. If they can't be read, None and a warning: the data may be readable."""
    try:
        return _array(source, table, "timestamps", options)
    except UnsupportedColumnError as exc:
        warn(f"a TimeSeries is opened without timestamps: {exc}")
        return None


def _array(source: Source, table: TableIndex, name: str, options: Options) -> _Stored | None:
    """A dataset of the series; of times by a rate the first one and the rate."""
    column = table.columns.get(name)
    if column is None:
        return None
    if column.problem:
        raise UnsupportedColumnError(f"{shown(source.url)}: {table.path}/{name}: {column.problem}")
    array = column.arrays[0]
    if array.layout.computed:
        _, start, rate = array.layout.element
        return start, rate
    return StoredArray(source, f"{table.path}/{name}", array, table.rows, options)


def _lazy(stored: _Stored, table: TableIndex) -> da.Array:
    if isinstance(stored, tuple):
        start, rate = stored
        return start + da.arange(table.rows, dtype=np.int64, chunks=_rows(1, 8)) / rate
    name = stored.path.rpartition("/")[2]
    label = task_label("read", [*words(table.path), name], [stored.source.url])
    blocks = _blocks(stored)
    return da.from_array(
        stored,
        chunks=blocks,
        name=f"{label}-{dask.base.tokenize(stored, blocks)}",
        meta=np.empty((0,) * stored.ndim, stored.dtype),
    )


def _blocks(stored: StoredArray) -> tuple[int, ...]:
    """The shape of Dask's blocks: whole stored chunks, of about Dask's setting ``array.chunk-size``."""
    size = 64 if stored.dtype == object else stored.dtype.itemsize
    rows, *inner = stored.chunks
    item = stored.shape[1:]
    if rows * math.prod(item) * size > 2 * _limit():
        item = tuple(min(a, b) for a, b in zip(inner, item, strict=True))
    return (_rows(rows, math.prod(item) * size), *item)


def _rows(step: int, row_bytes: int) -> int:
    """As many rows as Dask's chunk size holds, a multiple of `step`."""
    return max(1, _limit() // max(step * row_bytes, 1)) * step


def _limit() -> int:
    return int(parse_bytes(dask.config.get("array.chunk-size")))


def _float(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _region(attributes: dict[str, str], name: str) -> Region | None:
    rows = np.array(json.loads(attributes.get(name, "null")))
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        return None  # not given, or malformed
    return Region(attributes.get(f"{name}_table", ""), rows.astype(np.int64))
