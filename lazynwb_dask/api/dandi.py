"""Dandisets: what is in them."""

from __future__ import annotations

import re

import pandas as pd

from lazynwb_dask.api.arguments import file_access
from lazynwb_dask.dandi.assets import find
from lazynwb_dask.plan import assets as assets_plan

_ENTITIES = re.compile(r"(?:.*/)?sub-([^/_]+)_ses-([^/_.]+)(?:[_.][^/]*)?")  # in names as DANDI wants them


def dandi_assets(name: str) -> pd.DataFrame:
    """List the NWB files of a dandiset with the metadata that the DANDI archive has. No file is opened.

    Parameters
    ----------
    name : str
        ``"dandi:000409"``; with a version ``"dandi:000409@0.240101.1200"``; with a folder or glob
        ``"dandi:000409/sub-X/*"``; or the URL of the dandiset's web page. Default version: the latest published
        one, or else the draft.

    Returns
    -------
    pandas.DataFrame
        One row for each file (HDF5 or Zarr), sorted by path: `path`, `size` (bytes), `modified`, `subject`,
        `species`, `sex`, `age`, `session`, `start_time`, `variables`, `asset_id`, `blob_id` or `zarr_id`, and
        `_nwb_path`. Values that the archive doesn't have are missing. Values of several subjects are joined by
        commas. The table, or some of its rows, can be the argument `paths` of other functions. Then the files
        are not listed again, and `with_sessions` can add its columns, with the prefix ``dandi_``.

    Raises
    ------
    NWBFileNotFoundError
        There is no such dandiset, version or path.
    NWBPermissionError
        The dandiset is embargoed, and the environment variable ``DANDI_API_KEY`` has no token of a member. For
        other archives, the variable is their name in capitals and ``_API_KEY``.
    NWBReadError
        The archive can't be reached.
    ValueError
        `name` is not the name of a dandiset.
    TypeError
        `name` is not a str.

    See Also
    --------
    group_assets_by_session : which files belong to the same session.

    Notes
    -----
    The metadata are those of the `DANDI API <https://api.dandiarchive.org/swagger/>`_.

    Examples
    --------
    >>> from lazynwb_dask import dandi_assets, read_nwb
    >>> assets = dandi_assets("dandi:000409")  # doctest: +SKIP
    >>> units = read_nwb(assets[assets.sex == "Female"], "/units")  # doctest: +SKIP
    """
    if not isinstance(name, str):
        raise TypeError(f"dandi_assets: name={name!r}: the name of a dandiset, such as 'dandi:000409'")
    access = file_access(name, None)
    return assets_plan.table(find([name], access, metadata=True)[name])


def group_assets_by_session(assets: str | pd.DataFrame) -> pd.Series[str]:
    """Find which files of a dandiset belong to the same session.

    The result is for the argument `by` of `merge_by_file`, `map_files` and `with_sessions`, and `sessions` of
    `align_events` and `psth`.

    Parameters
    ----------
    assets : str or pandas.DataFrame
        The name of a dandiset as in `dandi_assets`, its result, or some rows of it.

    Returns
    -------
    pandas.Series
        Texts ``"subject/session"``, named `session_id`; the index is `_nwb_path`. They are the archive's
        subject and session, or else those in the file's name (``sub-X_ses-Y_ecephys.nwb``). A file with neither
        is a session of its own, with its path as text.

    Raises
    ------
    ValueError
        The table lacks a column of `dandi_assets`, or the name is not that of a dandiset.
    NWBReadError
        For a name, as `dandi_assets`.

    See Also
    --------
    dandi_assets : the table of files.
    merge_by_file : has the argument `by`.

    Notes
    -----
    Names of files are as the `DANDI archive <https://docs.dandiarchive.org>`_ makes them.

    Examples
    --------
    >>> import pandas as pd
    >>> from lazynwb_dask import group_assets_by_session
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
