"""Dandisets: what is in them."""

from __future__ import annotations

import re

import pandas as pd

from lazynwb_dask.api.arguments import file_access
from lazynwb_dask.dandi.assets import find
from lazynwb_dask.plan import assets as assets_plan

_ENTITIES = re.compile(r"(?:.*/)?sub-([^/_]+)_ses-([^/_.]+)(?:[_.][^/]*)?")  # in names as DANDI wants them


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

    Examples
    --------
    >>> from lazynwb_dask import dandi_assets, read_nwb
    >>> assets = dandi_assets("dandi:000409")  # doctest: +SKIP
    >>> units = read_nwb(assets[assets.sex == "Female"], "/units")  # doctest: +SKIP
    """
    access = file_access(name, None)
    return assets_plan.table(find([name], access, metadata=True)[name])


def group_assets_by_session(assets: str | pd.DataFrame) -> pd.Series[str]:
    """Which session each file of a dandiset is of: the `by=` of `merge_by_file`, `map_files`, `with_sessions`.

    Parameters
    ----------
    assets : str or pandas.DataFrame
        What `dandi_assets` takes, or what it has given, or some of its rows.

    Returns
    -------
    pandas.Series
        ``subject/session`` for each ``_nwb_path``: as the archive has them; where it has no session, as the
        file's name has them (``sub-X_ses-Y_ecephys.nwb``); else the file is alone, under its own path.

    Raises
    ------
    ValueError
        The table lacks a column of `dandi_assets`.
    NWBReadError
        As `dandi_assets`, where it is called.

    See Also
    --------
    merge_by_file : takes what is returned as `by`.

    Examples
    --------
    >>> import pandas as pd
    >>> assets = pd.DataFrame({"path": ["sub-a/sub-a_ses-1_ecephys.nwb", "sub-a/sub-a_ses-1_behavior.nwb"]})
    >>> assets = assets.assign(subject="a", session=None, _nwb_path=["dandi:1", "dandi:2"])
    >>> group_assets_by_session(assets).to_dict()
    {'dandi:1': 'a/1', 'dandi:2': 'a/1'}
    """
    table = dandi_assets(assets) if isinstance(assets, str) else assets
    if not hasattr(table, "columns"):
        raise TypeError(f"assets={assets!r}: must be a table of dandi_assets, or the name of a dandiset")
    if missing := {"path", "subject", "session", "_nwb_path"} - {*table.columns}:
        raise ValueError(
            f"group_assets_by_session: not a table of dandi_assets: it lacks {', '.join(sorted(missing))}"
        )
    found = {}
    columns = (table[name] for name in ("path", "subject", "session", "_nwb_path"))
    for path, subject, session, url in zip(*columns, strict=True):
        match = _ENTITIES.fullmatch(path)
        of, named = match.groups() if match else ("", "")
        session = named if pd.isna(session) else session
        found[url] = f"{of if pd.isna(subject) else subject}/{session}" if session else url
    return pd.Series(found, dtype="str", name="session_id")
