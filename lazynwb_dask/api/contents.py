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
from lazynwb_dask.scan.request import Policy, check_policy

if TYPE_CHECKING:
    import pandas as pd


def contents(
    paths: Paths,
    *,
    per_file: bool = False,
    on_error: Policy = "raise",
    storage_options: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """List what files contain: tables, TimeSeries and all other objects with a type. No data are read.

    Parameters
    ----------
    paths : str, os.PathLike, iterable of these, Catalog, or DataFrame
        The NWB files, as in `read_nwb`. For the path of one file: its objects. For several files, or a list: in
        how many files each object is.
    per_file : bool, default False
        For several files: list the objects of each file instead of counting files.
    on_error : {"raise", "skip"}, default "raise"
        What to do with files that can't be read: raise an error, or leave them out with a warning.
    storage_options : mapping, optional
        Options for fsspec, as in `read_nwb`.

    Returns
    -------
    pandas.DataFrame
        For one file, one row for each object. A notebook shows it as a tree.

        - `path`; `kind`: ``"table"``, ``"time series"`` or ``"other"``; `neurodata_type`.
        - `rows` (Int64); `shape` (tuple): of the data, or rows and columns of a table; `dtype`: of the data.
        - `columns` (list of str): of a table.
        - `stored_bytes` (Int64): missing if the object has too many compressed chunks to look up their sizes.
          `decoded_bytes` (Int64): without the texts of strings.
        - `rate` (float64, Hz), or `timestamps`: how they are stored; `unit`; `description`.
        - `problem`: why the object can't be read.

        With `per_file`, the same for each file, and `_nwb_path`. Otherwise, for several files, one row for each
        path and kind: `files` and `missing` (int64), the number of files with and without it; `rows` and bytes
        of all files; `example`, one file that has it.

    Raises
    ------
    NWBReadError
        A file can't be read; with ``on_error="skip"``: none can.
    TypeError, ValueError
        An argument has a wrong type or value.

    Warns
    -----
    UserWarning
        Files were left out, or have links to other files, which are not followed.

    See Also
    --------
    list_tables : only the tables of one file.
    schema_report : the columns of one table.

    Examples
    --------
    >>> from lazynwb_dask import contents
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
