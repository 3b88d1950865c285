"""Writes NWB objects with h5py as pynwb does: the same attributes, layouts and order."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

Layout = Literal["contiguous", "chunked", "gzip"]
Array = npt.NDArray[Any]

_CHUNK_BYTES = 4 << 20  # as hdmf chooses


@dataclass
class Column:
    """A column of a table, as it is stored."""

    values: Array
    description: str
    ends: Array | None = None  # the VectorIndex, if there is one
    type: str = "VectorData"
    namespace: str = "hdmf-common"
    dtype: Any = None  # of the dataset, if not that of the values
    chunk: int | None = None  # values in a chunk
    attributes: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values if self.ends is None else self.ends)


class Writer:
    """Groups, datasets, tables and time series of one file that is being written."""

    def __init__(self, file: h5py.File, rng: np.random.Generator, layout: Layout, series_chunk: int) -> None:
        self.file = file
        self._rng = rng
        self._layout = layout
        self._series_chunk = series_chunk

    def uuid(self) -> str:
        """A random identifier that depends on the seed."""
        return str(uuid.UUID(bytes=self._rng.bytes(16), version=4))

    def typed(self, obj: Any, neurodata_type: str, namespace: str, **attributes: Any) -> Any:
        """Give an object a neurodata_type."""
        for name, value in attributes.items():
            obj.attrs[name] = value
        obj.attrs["namespace"] = namespace
        obj.attrs["neurodata_type"] = neurodata_type
        obj.attrs["object_id"] = self.uuid()
        return obj

    def group(self, path: str, neurodata_type: str, **attributes: Any) -> h5py.Group:
        """Create a group with one of the core types."""
        return self.typed(self.file.create_group(path), neurodata_type, "core", **attributes)

    def texts(self, path: str, **texts: str | Iterable[str]) -> None:
        """Write text fields of a session or a subject, one dataset for each."""
        for name, text in texts.items():
            data = text if isinstance(text, str) else list(text)
            self.file.create_dataset(f"{path}/{name}", data=data, dtype=h5py.string_dtype())

    def data(self, path: str, values: Array, dtype: Any = None, chunk: int | None = None) -> h5py.Dataset:
        """Write an array in the layout of this file."""
        if values.dtype.kind in "OU" and dtype is None:
            dtype, values = h5py.string_dtype(), values.astype(object)
        options: dict[str, Any] = {}
        if self._layout != "contiguous":
            row_bytes = max(1, values.dtype.itemsize * int(np.prod(values.shape[1:])))
            rows = chunk or max(1, _CHUNK_BYTES // row_bytes)
            options["chunks"] = (min(rows, max(1, len(values))), *values.shape[1:])
            options["maxshape"] = (None, *values.shape[1:])
        if self._layout == "gzip":
            options |= {"compression": "gzip", "compression_opts": 4, "shuffle": True}
        return self.file.create_dataset(path, data=values, dtype=dtype, **options)

    def table(
        self,
        path: str,
        neurodata_type: str,
        description: str,
        columns: Mapping[str, Column],
        early: Iterable[str] = (),
    ) -> None:
        """Write a DynamicTable. The columns in `early`, as those that the schema names, precede `id`."""
        table = self.group(path, neurodata_type, description=description)
        table.attrs.create("colnames", list(columns), dtype=h5py.string_dtype())
        first = list(early)
        for name in first:
            self._column(path, name, columns[name])
        ids = np.arange(len(next(iter(columns.values()))))
        self.typed(self.data(f"{path}/id", ids), "ElementIdentifiers", "hdmf-common")
        for name, column in columns.items():
            if name not in first:
                self._column(path, name, column)

    def _column(self, table: str, name: str, column: Column) -> None:
        path, index = f"{table}/{name}", None
        if column.ends is not None:
            last = int(column.ends[-1]) if len(column.ends) else 0
            index = self.data(f"{path}_index", column.ends.astype(np.min_scalar_type(last)))
            about = f"Index for VectorData '{name}'"
            self.typed(index, "VectorIndex", "hdmf-common", description=about)
        data = self.data(path, column.values, column.dtype, column.chunk)
        about = column.description
        self.typed(data, column.type, column.namespace, description=about, **column.attributes)
        if index is not None:
            index.attrs["target"] = data.ref

    def series(
        self,
        path: str,
        neurodata_type: str,
        description: str,
        data: Array,
        times: Array | tuple[float, float],
        **attributes: Any,
    ) -> h5py.Group:
        """Write a TimeSeries; `times` are timestamps, or the first and the rate.

        The attributes are those of `data`: its unit, and a conversion other than 1.
        """
        series = self.group(path, neurodata_type, comments="no comments", description=description)
        values = self.data(f"{path}/data", data, chunk=self._series_chunk)
        defaults = {"conversion": 1.0, "offset": 0.0, "resolution": -1.0}
        for name, value in (defaults | attributes).items():
            values.attrs[name] = value
        if isinstance(times, tuple):
            clock = self.file.create_dataset(f"{path}/starting_time", data=times[0])
            clock.attrs["rate"] = times[1]
        else:
            clock = self.data(f"{path}/timestamps", times, chunk=self._series_chunk)
            clock.attrs["interval"] = np.int32(1)
        clock.attrs["unit"] = "seconds"
        return series
