"""The accessor ``nwb`` of Dask Series with lists. It is registered when `expr` is imported: by functions that
read, and by frames of theirs that are unpickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from dask.dataframe.extensions import register_series_accessor

from lazynwb_dask.decode.convert import numpy_dtype
from lazynwb_dask.decode.lists import items_of
from lazynwb_dask.expr.lists import of_lists, out_of_lists
from lazynwb_dask.scan.lists import SeriesLists, check_lists, shown_as

if TYPE_CHECKING:
    import dask.array as da
    import dask.dataframe as dd
    import pandas as pd


@register_series_accessor("nwb")
class ListsAccessor:
    """Methods for ragged columns: `series.nwb` of a Dask or pandas Series with lists.

    Names are those of `pandas.Series.list`. Of a Dask Series, all methods are lazy. Results have the index of
    the rows and Arrow dtypes. A missing list gives a missing value.

    Raises
    ------
    AttributeError
        The Series has no lists.

    See Also
    --------
    lazynwb_dask.read_nwb : its frames have ragged columns, such as `spike_times`.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2, units=3), "/units")
    >>> many = units[units.spike_times.nwb.len() > 400]  # reads where lists end, and no spikes
    >>> many.spike_times.nwb[0].compute().dtype
    double[pyarrow]
    """

    def __init__(self, series: dd.Series) -> None:
        self._series, self._kind = series, check_lists(series.dtype)

    def __repr__(self) -> str:
        return shown_as(self._series)

    def len(self) -> dd.Series:
        """Return the number of elements of each list.

        For a column of a table that is read, also in a condition, this reads only the VectorIndex of the
        column, and no values.

        Returns
        -------
        dask.dataframe.Series or pandas.Series
            ``int32[pyarrow]``.

        See Also
        --------
        count_between : the number of values in a range.

        Examples
        --------
        >>> import pandas as pd, pyarrow as pa
        >>> from lazynwb_dask import read_nwb  # registers the accessor
        >>> lists = pd.Series([[1.5, 2.5, 4.0], []], dtype=pd.ArrowDtype(pa.list_(pa.float64())))
        >>> lists.nwb.len().tolist()
        [3, 0]
        """
        return of_lists(self._series, "len")

    def __getitem__(self, key: int | slice | str) -> dd.Series:
        """Return an element, a slice or a field of each list.

        Parameters
        ----------
        key : int, slice or str
            An int: the element at this position, negative from the end; missing where the list is shorter. A
            slice: the slice of each list. A str, for lists of structs: the lists of this field's values.

        Returns
        -------
        dask.dataframe.Series or pandas.Series
            For an int, the type of the elements; else lists.

        Raises
        ------
        TypeError
            The key is of another type.
        KeyError
            The structs have no such field.
        ValueError
            The step of the slice is 0.

        See Also
        --------
        between : values in a range.

        Examples
        --------
        >>> import pandas as pd, pyarrow as pa
        >>> from lazynwb_dask import read_nwb  # registers the accessor
        >>> lists = pd.Series([[1.5, 2.5, 4.0], [7.0]], dtype=pd.ArrowDtype(pa.list_(pa.float64())))
        >>> lists.nwb[-1].tolist(), lists.nwb[:2].nwb.len().tolist()
        ([4.0, 7.0], [2, 1])
        """
        return of_lists(self._series, "__getitem__", key)

    def __iter__(self) -> Any:
        raise TypeError("the accessor is not iterable")

    def between(self, start: Any = None, stop: Any = None) -> dd.Series:
        """Keep the values of each list in a half-open range, such as the spikes of the first minute.

        Parameters
        ----------
        start : scalar, optional
            The lowest value to keep. Default: no lower bound.
        stop : scalar, optional
            Values must be less than this. Default: no upper bound.

        Returns
        -------
        dask.dataframe.Series or pandas.Series
            Lists of the same type, with ``start <= value < stop``, in their order. NaN is never kept.

        See Also
        --------
        count_between : only the number of these values.

        Notes
        -----
        Lists don't have to be sorted. With the setting ``lazynwb-dask.sorted-timestamps: true`` they are
        assumed to be sorted. Then only the values around the range are read, if the column is not compressed.

        Examples
        --------
        >>> import pandas as pd, pyarrow as pa
        >>> from lazynwb_dask import read_nwb  # registers the accessor
        >>> lists = pd.Series([[1.5, 2.5, 4.0], [7.0]], dtype=pd.ArrowDtype(pa.list_(pa.float64())))
        >>> lists.nwb.between(2.5, 7).nwb.flatten().tolist()
        [2.5, 4.0]
        """
        return of_lists(self._series, "between", start, stop)

    def count_between(self, start: Any = None, stop: Any = None) -> dd.Series:
        """Count the values of each list in a half-open range.

        Parameters
        ----------
        start : scalar, optional
            The lowest value to count. Default: no lower bound.
        stop : scalar, optional
            Values must be less than this. Default: no upper bound.

        Returns
        -------
        dask.dataframe.Series or pandas.Series
            ``int32[pyarrow]``: the number of values with ``start <= value < stop``.

        See Also
        --------
        between : the values.

        Examples
        --------
        >>> import pandas as pd, pyarrow as pa
        >>> from lazynwb_dask import read_nwb  # registers the accessor
        >>> lists = pd.Series([[1.5, 2.5, 4.0], [7.0]], dtype=pd.ArrowDtype(pa.list_(pa.float64())))
        >>> lists.nwb.count_between(2, 7).tolist()
        [2, 0]
        """
        return of_lists(self._series, "count_between", start, stop)

    def flatten(self) -> dd.Series:
        """Return all elements, one in each row. Empty and missing lists have no row.

        Returns
        -------
        dask.dataframe.Series or pandas.Series
            The type of the elements. The index repeats the row of each element's list.

        See Also
        --------
        explode : keeps a row for empty lists.

        Examples
        --------
        >>> import pandas as pd, pyarrow as pa
        >>> from lazynwb_dask import read_nwb  # registers the accessor
        >>> lists = pd.Series([[1.5, 2.5], [], [7.0]], dtype=pd.ArrowDtype(pa.list_(pa.float64())))
        >>> lists.nwb.flatten().to_dict(), lists.nwb.flatten().index.tolist()
        ({0: 2.5, 2: 7.0}, [0, 0, 2])
        """
        return out_of_lists(self._series, "flatten")

    def explode(self) -> dd.Series:
        """Return all elements, one in each row. Empty and missing lists have one row with a missing value.

        Returns
        -------
        dask.dataframe.Series or pandas.Series
            The type of the elements. The index repeats the row of each element's list.

        See Also
        --------
        flatten : without rows for empty lists.

        Examples
        --------
        >>> import pandas as pd, pyarrow as pa
        >>> from lazynwb_dask import read_nwb  # registers the accessor
        >>> lists = pd.Series([[1.5, 2.5], [], [7.0]], dtype=pd.ArrowDtype(pa.list_(pa.float64())))
        >>> lists.nwb.explode().tolist()
        [1.5, 2.5, <NA>, 7.0]
        """
        return out_of_lists(self._series, "explode")

    def to_numpy(self, shape: tuple[int, ...] | None = None) -> da.Array:
        r"""Return the rows as an array.

        Parameters
        ----------
        shape : tuple of int, optional
            The shape that all rows have, such as (samples, channels) of `waveform_mean`. Default: rows may have
            any shape.

        Returns
        -------
        dask.array.Array or numpy.ndarray
            With `shape`: numbers, with the dimensions (rows, \*shape). Otherwise one-dimensional, of dtype
            object: a NumPy array for each row.

        Raises
        ------
        ValueError
            The lists have another number of dimensions; while computing: a row is missing or has another shape.

        See Also
        --------
        lazynwb_dask.to_xarray : a whole table as a Dataset.

        Examples
        --------
        >>> from lazynwb_dask import read_nwb
        >>> from lazynwb_dask.datasets import make_sessions
        >>> units = read_nwb(make_sessions("sessions", n=2, units=3), "/units")
        >>> waveforms = units.waveform_mean.nwb.to_numpy(shape=(60, 8))
        >>> waveforms.mean(axis=0).compute().shape
        (60, 8)
        """
        if shape is None:
            return self._series.map_partitions(_arrays, None, meta=np.zeros(0, object))
        meta = np.zeros((0, *shape), numpy_dtype(items_of(self._kind, tuple(shape))))
        return self._series.map_partitions(_arrays, tuple(shape), meta=meta)


for _name, _method in vars(ListsAccessor).items():
    if _method.__doc__ and _name in vars(SeriesLists) and callable(_method):
        vars(SeriesLists)[_name].__doc__ = _method.__doc__  # help() of pandas' accessor says the same


def _arrays(series: pd.Series[Any], shape: tuple[int, ...] | None) -> np.ndarray:
    found: np.ndarray = series.nwb.to_numpy(shape)
    return found
