"""The accessor ``nwb`` of Dask DataFrames. It is registered by functions that read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dask.dataframe.extensions import register_dataframe_accessor

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

    from lazynwb_dask.explanation.explanation import Explanation


@register_dataframe_accessor("nwb")
class FrameAccessor:
    """Methods of Dask DataFrames that were made by `read_nwb`, or derived from such: `frame.nwb`.

    See Also
    --------
    lazynwb_dask.read_nwb : makes such frames.

    Examples
    --------
    >>> from lazynwb_dask import read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2, units=3), "/units")
    >>> len(units.nwb.sessions()), len(units.nwb.report())
    (2, 0)
    """

    def __init__(self, frame: dd.DataFrame) -> None:
        self._frame = frame

    def __repr__(self) -> str:
        return f"<nwb of a DataFrame with {len(self._frame.columns)} columns: sessions(), report(), explain()>"

    def sessions(self) -> dd.DataFrame:
        """Return session and subject metadata of the files of the frame, one row for each file.

        Returns
        -------
        dask.dataframe.DataFrame
            As of `read_sessions`.

        Raises
        ------
        ValueError
            The frame was not made by `read_nwb`, or has been persisted.
        NWBReadError
            A file can't be read.

        See Also
        --------
        lazynwb_dask.read_sessions : the same for paths.
        lazynwb_dask.with_sessions : these values on each row.

        Examples
        --------
        >>> from lazynwb_dask import read_nwb
        >>> from lazynwb_dask.datasets import make_sessions
        >>> units = read_nwb(make_sessions("sessions", n=2, units=3), "/units")
        >>> units.nwb.sessions().subject_id.compute().tolist()
        ['600000', '600000']
        """
        from lazynwb_dask.api.sessions import read_sessions_of

        return read_sessions_of(self._frame)

    def report(self) -> pd.DataFrame:
        """List the files that were left out of the frame, and why.

        Returns
        -------
        pandas.DataFrame
            As of `read_report`: `path`, `stage`, `error`.

        Raises
        ------
        ValueError
            The frame has been persisted.

        See Also
        --------
        lazynwb_dask.read_report : the same as a function.

        Examples
        --------
        >>> from lazynwb_dask import read_nwb
        >>> from lazynwb_dask.datasets import make_sessions
        >>> units = read_nwb(make_sessions("sessions", n=2, units=3), "/units", on_error="skip")
        >>> len(units.nwb.report())
        0
        """
        from lazynwb_dask.api.tables import read_report

        return read_report(self._frame)

    def explain(self) -> Explanation:
        """Report what computing the frame would read, without reading it.

        Returns
        -------
        Explanation
            As of `lazynwb_dask.explain`.

        Raises
        ------
        NWBReadError
            The frame is read from a catalog that can't be read.

        See Also
        --------
        lazynwb_dask.explain : the same as a function.

        Examples
        --------
        >>> from lazynwb_dask import read_nwb
        >>> from lazynwb_dask.datasets import make_sessions
        >>> units = read_nwb(make_sessions("sessions", n=2, units=3), "/units")
        >>> units[["id"]].nwb.explain().reads[0].columns
        ('id',)
        """
        from lazynwb_dask.api.explain import explain

        return explain(self._frame)
