"""What files hold, from their metadata alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lazynwb_dask.api.arguments import Paths, check_bools, file_access, sources_of
from lazynwb_dask.nwb.contents import LINK
from lazynwb_dask.plan import contents as contents_plan
from lazynwb_dask.plan.checks import warn_of_links
from lazynwb_dask.plan.each_file import none_readable
from lazynwb_dask.plan.table_scan import warn_skipped
from lazynwb_dask.scan.request import check_policy

if TYPE_CHECKING:
    import pandas as pd


def contents(
    paths: Paths,
    *,
    per_file: bool = False,
    on_error: str = "raise",
    storage_options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """What a file holds: tables, TimeSeries and all other typed objects. No data are read, and links to other
    files aren't followed, but warned of.

    Parameters
    ----------
    paths
        As in `read_nwb`. One path of one file: its contents. Several files: which object is in how many
        of them.
    per_file : bool
        Of several files: the objects of each, with `_nwb_path`, rather than how many files have them.
    on_error : {"raise", "skip"}
        What to do with files that can't be read.
    storage_options : mapping, optional
        As in `read_nwb`.

    Returns
    -------
    pandas.DataFrame
        Of one file, a row for each object, which a notebook shows as a tree: ``path``, ``kind`` (table,
        time series, other), ``neurodata_type``, ``rows``, ``shape`` (of the data, of a table rows and
        columns), ``dtype``, ``columns``, ``stored_bytes`` (missing where there are so many compressed
        chunks that their sizes were not looked up), ``decoded_bytes`` (without the text of strings),
        ``rate`` or ``timestamps`` (where these are stored), ``unit``, ``description``, ``problem`` (why it
        can't be read).

        Of several, a row for each path and kind: the number of ``files`` that have it and of those that
        don't, their ``rows`` and bytes together, one file as ``example``.

    Raises
    ------
    NWBReadError
        A file can't be read; with ``on_error="skip"``, none can.

    See Also
    --------
    list_tables : the tables of one file alone.
    schema_report : the columns of one table.

    Examples
    --------
    >>> from lazynwb_dask.datasets import make_sessions
    >>> paths = make_sessions("sessions", n=3)
    >>> found = contents(paths[0]).set_index("path")
    >>> found.loc["/acquisition/lick_sensor", ["neurodata_type", "shape", "unit"]].tolist()
    ['TimeSeries', (36000,), 'volts']
    >>> contents(paths).query("path == '/units'")[["files", "rows"]].values.tolist()
    [[3, 360]]
    """
    check_policy("on_error", on_error)
    check_bools(per_file=per_file)
    access = file_access(paths, storage_options)
    sources = sources_of(paths, access)
    found, failed = contents_plan.list_objects(sources, access, on_error)
    warn_skipped(failed, len(sources))
    linked = [
        (source, [(o["path"], o["problem"]) for o in held if o["kind"] == LINK]) for source, held in found
    ]
    warn_of_links(linked, "objects")
    found = [(source, [o for o in held if o["kind"] != LINK]) for source, held in found]
    if not found:
        raise none_readable(failed)
    if len(sources) == 1 and isinstance(paths, (str, os.PathLike)):
        return contents_plan.of_one(*found[0])
    return contents_plan.of_each(found) if per_file else contents_plan.of_many(found)
