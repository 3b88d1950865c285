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
    """Report what computing a frame would read, without reading it.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame, dask.dataframe.Series or SQLQuery
        Made by `read_nwb` or `sql`, or derived from such a frame.

    Returns
    -------
    Explanation
        Prints as text, and as a table in a notebook: files and partitions to read; columns; the condition that
        is applied while reading, and conditions that are applied after reading, with the reason; requests and
        bytes, exact or an upper bound; memory.

    Raises
    ------
    NWBReadError
        The frame is read from a catalog that can't be read.

    See Also
    --------
    trace : what was read in the end.

    Notes
    -----
    NWB files are not read. Of a catalog, the values of the columns in the condition are read, to find files and
    partitions without matching rows.

    Examples
    --------
    >>> from lazynwb_dask import explain, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2), "/units")
    >>> print(explain(units[["unit_id", "firing_rate"]]))
    Read
      table           /units
      files           2 of 2
      partitions      2 of 2, in ...
      columns         unit_id, firing_rate
      condition       none
      fetches         ...
      rows            240
      memory          ...
    """
    if isinstance(frame, SQLQuery):
        return frame.explain()
    check_frame("explain", frame)
    return explanation.explain(frame)
