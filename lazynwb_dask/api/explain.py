"""What computing a frame would read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb_dask.api.arguments import check_frame
from lazynwb_dask.api.sql import SQLQuery
from lazynwb_dask.explanation import explanation
from lazynwb_dask.explanation.explanation import Explanation

if TYPE_CHECKING:
    import dask.dataframe as dd


def explain(frame: dd.DataFrame | SQLQuery) -> Explanation:
    """Say what computing a frame would read, without reading it.

    Prints as text, and as a table in a notebook. Of the files themselves nothing is read; of a catalog,
    the values of the condition's columns are.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame or Series, or SQLQuery
        Made by `read_nwb` or `sql`, or from what was.

    Returns
    -------
    Explanation
        Files and partitions left and pruned; columns and condition that the read takes in, and conditions
        that it doesn't, with the reason; requests and bytes, an upper bound where that can't be known
        before, or "not known beforehand" where there is none; memory.

    Raises
    ------
    NWBReadError
        A catalog that the frame is read from can't be read.

    See Also
    --------
    trace : what was fetched in the end.

    Examples
    --------
    >>> from lazynwb_dask import explain, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2), "/units")
    >>> told = explain(units[["unit_id", "firing_rate"]])
    >>> told.requests <= 4, told.reads[0].columns
    (True, ('unit_id', 'firing_rate'))
    """
    if isinstance(frame, SQLQuery):
        return frame.explain()
    check_frame("explain", frame)
    return explanation.explain(frame)
