"""The accessor ``nwb`` of Dask frames and series. It is registered when `expr` is imported: by functions that
read, and by frames of theirs that are unpickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from dask.dataframe.extensions import register_dataframe_accessor, register_series_accessor

from lazynwb_dask.decode.convert import numpy_dtype
from lazynwb_dask.decode.lists import items_of
from lazynwb_dask.expr.lists import of_lists, out_of_lists
from lazynwb_dask.scan.lists import check_lists

if TYPE_CHECKING:
    import dask.array as da
    import dask.dataframe as dd
    import pandas as pd

    from lazynwb_dask.explanation.explanation import Explanation


@register_series_accessor("nwb")
class ListsAccessor:
    """Ragged columns of a Dask Series, without a loop over rows. pandas Series have the same accessor.

    Names are those of pandas' `Series.list`. Nothing is computed when a method is called. Results have
    Arrow dtypes, as those of pandas have, and the index of the rows. A missing list gives a missing value.

    Raises
    ------
    AttributeError
        The Series has no lists.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2, units=3), "/units")
    >>> many = units[units.spike_times.nwb.len() > 400]  # reads where lists end, and no spikes
    >>> first = many.spike_times.nwb[0].compute()
    >>> first_minute = many.spike_times.nwb.count_between(0, 60).compute()
    >>> first.dtype, first_minute.dtype
    (double[pyarrow], int32[pyarrow])
    """

    def __init__(self, series: dd.Series) -> None:
        self._series, self._kind = series, check_lists(series.dtype)

    def len(self) -> dd.Series:
        """How many elements each list has, as int32.

        Of a column that is read, and in conditions on it, where its lists end is read (the VectorIndex), or
        nothing where all rows have one shape; never the values.
        """
        return of_lists(self._series, "len")

    def __getitem__(self, key: int | slice | str) -> dd.Series:
        """An element of each list, missing where a list is shorter; a slice of each list; of lists of structs,
        the lists of a field. Positions may be negative."""
        return of_lists(self._series, "__getitem__", key)

    def __iter__(self) -> Any:
        raise TypeError("the accessor is not iterable")

    def between(self, start: Any = None, stop: Any = None) -> dd.Series:
        """The values of each list from `start` up to, but not including, `stop`, in their order. Lists may be
        in any order. Without one of the two, there is no such border; NaN is never between.

        With the setting ``sorted-timestamps: true``, values of each list are taken to rise, and where they lie
        in the file uncompressed, only those around the range are read.
        """
        return of_lists(self._series, "between", start, stop)

    def count_between(self, start: Any = None, stop: Any = None) -> dd.Series:
        """How many values of each list `between` leaves, as int32."""
        return of_lists(self._series, "count_between", start, stop)

    def flatten(self) -> dd.Series:
        """All elements, each with the index of its row; empty and missing lists give none."""
        return out_of_lists(self._series, "flatten")

    def explode(self) -> dd.Series:
        """All elements, each with the index of its row; empty and missing lists give one missing value."""
        return out_of_lists(self._series, "explode")

    def to_numpy(self, shape: tuple[int, ...] | None = None) -> da.Array:
        """The rows as a Dask array: of objects, one NumPy array for each row.

        Parameters
        ----------
        shape : tuple of int, optional
            The shape of all rows, such as (samples, channels): the result then has numbers, and these
            dimensions. ValueError for another number of dimensions, and while computing, where a row has
            another shape.
        """
        if shape is None:
            return self._series.map_partitions(_arrays, None, meta=np.zeros(0, object))
        meta = np.zeros((0, *shape), numpy_dtype(items_of(self._kind, tuple(shape))))
        return self._series.map_partitions(_arrays, tuple(shape), meta=meta)


def _arrays(series: pd.Series[Any], shape: tuple[int, ...] | None) -> np.ndarray:
    found: np.ndarray = series.nwb.to_numpy(shape)
    return found


@register_dataframe_accessor("nwb")
class FrameAccessor:
    """What is known of a Dask DataFrame that `read_nwb` made, or that was made from one.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2, units=3), "/units")
    >>> units.nwb.sessions().subject_id.compute().tolist()
    ['600000', '600000']
    >>> len(units.nwb.report())
    0
    >>> units[["id"]].nwb.explain().reads[0].columns
    ('id',)
    """

    def __init__(self, frame: dd.DataFrame) -> None:
        self._frame = frame

    def sessions(self) -> dd.DataFrame:
        """One row for each file that the frame reads. See `lazynwb_dask.read_sessions`."""
        from lazynwb_dask.api.sessions import read_sessions_of

        return read_sessions_of(self._frame)

    def report(self) -> pd.DataFrame:
        """The files that were left out, and why. See `lazynwb_dask.read_report`."""
        from lazynwb_dask.api.tables import read_report

        return read_report(self._frame)

    def explain(self) -> Explanation:
        """What computing the frame would read. See `lazynwb_dask.explain`."""
        from lazynwb_dask.api.explain import explain

        return explain(self._frame)
