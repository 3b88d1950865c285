"""Dandisets: what is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazynwb_dask.api.arguments import file_access
from lazynwb_dask.dandi.assets import find
from lazynwb_dask.plan import assets as assets_plan

if TYPE_CHECKING:
    import pandas as pd


def dandi_assets(name: str) -> pd.DataFrame:
    """The NWB files of a dandiset, with what the archive knows of each. No file is opened.

    Parameters
    ----------
    name : str
        ``"dandi:000409"``, with a version ``"dandi:000409@0.240101.1200"``, with a folder or a glob
        ``"dandi:000409/sub-X/*"``; or an address that the archive shows. Without a version, the one published
        last, or else the draft.

    Returns
    -------
    pandas.DataFrame
        A row for each file (HDF5 or Zarr), sorted by path: ``path``, ``size``, ``modified``, ``subject``,
        ``species``, ``sex``, ``age``, ``session``, ``start_time``, ``variables``, ``asset_id``, ``blob_id`` or
        ``zarr_id``, and ``_nwb_path``. What the archive doesn't say is missing; of several subjects the texts
        are joined by commas. The frame, or some of its rows, goes wherever `paths` goes: its files aren't
        listed again. `with_sessions` has its columns, with ``dandi_`` before their names.

    Raises
    ------
    NWBFileNotFoundError
        There is no such dandiset, version or path.
    NWBPermissionError
        The dandiset is embargoed, and the environment has no token of a member: ``DANDI_API_KEY``, of other
        archives their name in capitals before ``_API_KEY``.

    See Also
    --------
    group_assets_by_session : which files belong together.
    """
    access = file_access(name, None)
    return assets_plan.table(find([name], access, metadata=True)[name])
