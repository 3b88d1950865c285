"""The accessor ``nwb`` of pandas Series: what `Series.list` of pandas lacks for ragged columns."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import register_series_accessor

from lazynwb_dask.decode import lists


def check_lists(dtype: Any) -> pa.DataType:
    """The Arrow type of a dtype of lists. Raises AttributeError for others, as pandas' accessors do."""
    if not isinstance(dtype, pd.ArrowDtype) or not lists.is_list(dtype.pyarrow_dtype):
        raise AttributeError(f"Can only use the '.nwb' accessor of a Series with lists, not {dtype}")
    return dtype.pyarrow_dtype


def shown_as(series: Any) -> str:
    """The repr of the accessor of a Series, of pandas or Dask."""
    methods = "len(), [], between(), count_between(), flatten(), explode(), to_numpy()"
    return f"<nwb of {series.name!r}, {series.dtype}: {methods}>"


def check_key(key: Any) -> None:
    """Whether lists can be taken apart by it. A bool, which is an integer too, isn't."""
    if isinstance(key, slice):
        if key.step is not None and operator.index(key.step) == 0:
            raise ValueError("slice step cannot be zero")
    elif isinstance(key, bool) or not isinstance(key, (int, np.integer, str)):
        raise TypeError(f"{key!r}: an integer, a slice, or the name of a field")


@register_series_accessor("nwb")
class SeriesLists:
    """Of a pandas Series of lists; see `lazynwb_dask.expr.accessor.ListsAccessor`, whose methods these are."""

    def __init__(self, series: pd.Series[Any]) -> None:
        self._series, self._kind = series, check_lists(series.dtype)

    def __repr__(self) -> str:
        return shown_as(self._series)

    def len(self) -> pd.Series[Any]:
        return self._mapped(lists.lengths)

    def __getitem__(self, key: int | slice | str) -> pd.Series[Any]:
        check_key(key)
        if isinstance(key, slice):
            return self._mapped(lists.sliced, key)
        if isinstance(key, str):
            return self._mapped(lists.field, key)
        return self._mapped(lists.element, int(key))

    def __iter__(self) -> Any:
        raise TypeError("the accessor is not iterable")

    def between(self, start: Any = None, stop: Any = None) -> pd.Series[Any]:
        return self._mapped(lists.between, start, stop)

    def count_between(self, start: Any = None, stop: Any = None) -> pd.Series[Any]:
        return self._mapped(lists.count_between, start, stop)

    def flatten(self) -> pd.Series[Any]:
        flat = self._mapped(lambda one: one.flatten(), index=None)
        counts = self.len().fillna(0).to_numpy(np.int64)
        return flat.set_axis(self._series.index.repeat(counts))

    def explode(self) -> pd.Series[Any]:
        return self._series.explode()

    def to_numpy(self, shape: tuple[int, ...] | None = None) -> np.ndarray:
        if shape is None:
            return self._series.to_numpy()
        held = self._values()
        blocks = [lists.block(chunk, tuple(shape)) for chunk in held.chunks or [pa.array([], held.type)]]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _values(self) -> pa.ChunkedArray:
        held = pa.chunked_array(self._series.array.__arrow_array__())
        return held

    def _mapped(self, function: Callable[..., pa.Array], *args: Any, index: Any = True) -> pd.Series[Any]:
        """A function of each chunk of the column, as a Series."""
        chunks = self._values().chunks or [pa.array([], self._kind)]
        found = pa.chunked_array([function(chunk, *args) for chunk in chunks])
        dtype = pd.ArrowDtype(found.type)
        return pd.Series(
            dtype.__from_arrow__(found),  # type: ignore[attr-defined]
            index=self._series.index if index else None,
            name=self._series.name,
        )
