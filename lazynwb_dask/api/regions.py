"""Columns of the rows of another table that a table's column refers to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow as pa

from lazynwb_dask import config, expr
from lazynwb_dask.api.arguments import names_of
from lazynwb_dask.api.joins import plan_of
from lazynwb_dask.by_file.alignment import Plan, file_scans
from lazynwb_dask.by_file.held import Held, held
from lazynwb_dask.by_file.regions import ROW, Reference, follow
from lazynwb_dask.errors import ColumnNotFoundError
from lazynwb_dask.nwb.electrode_groups import PATH
from lazynwb_dask.plan.regions import GROUPS, electrode_groups, sources_of, target_of
from lazynwb_dask.plan.table_scan import table_scan
from lazynwb_dask.scan.request import Policy, TableRequest, check_policy
from lazynwb_dask.util.suggest import near_or_all

if TYPE_CHECKING:
    import dask.dataframe as dd

FORMS = ("list", "first", "explode")


def join_region(
    frame: dd.DataFrame,
    region: str,
    columns: str | Sequence[str],
    how: Literal["list", "first", "explode"] = "list",
    *,
    target: str | dd.DataFrame | None = None,
    key: str | None = None,
    on_missing: Policy = "skip",
    prefix: str = "",
) -> dd.DataFrame:
    """Add columns of the rows of another table that a column refers to, such as the electrodes of units.

    Works file by file, without a shuffle. Only the given columns of the other table are read. Conditions on
    them are applied while reading: ``joined[joined.location == "CA1"]`` reads large columns, such as
    `spike_times`, only for the rows that remain.

    Parameters
    ----------
    frame : dask.dataframe.DataFrame
        A read of a table, as in `merge_by_file`.
    region : str
        The column that refers to the other table, by one value or a list in each row. Values are row numbers (a
        DynamicTableRegion), values of `key`, or references to electrode groups (the column `electrode_group`).
    columns : str or sequence of str
        The columns of the other table to add. For electrode groups: `name`, `path`, `location`, `description`
        and other fields, and `device`.
    how : {"list", "first", "explode"}, default "list"
        If the column has lists: ``"list"`` adds lists of values; ``"first"`` the value for the first element;
        ``"explode"`` makes one row for each element, and one for a row without elements, as
        `pandas.DataFrame.explode`. If it has one value in each row, ``"list"`` is the same as ``"first"``.
    target : str or dask.dataframe.DataFrame, optional
        The other table: its path, or a frame of `read_nwb`. Default: the table to which the files refer. Then
        the metadata of the files are read again, except with a catalog.
    key : str, optional
        The column of the other table whose values are in `region`, such as ``"id"``. Default: `region` has row
        numbers, counted from 0.
    on_missing : {"skip", "raise"}, default "skip"
        What to do with row numbers or keys that the other table doesn't have: give missing values and list them
        in `read_report`, or raise an error. Only rows of `frame` that remain after its conditions are checked.
    prefix : str, default ""
        A prefix for the names of the new columns.

    Returns
    -------
    dask.dataframe.DataFrame
        The columns of the frame and `_nwb_path`, then the new ones. Rows and index are those of the frame. With
        "explode", `region` has one element in each row, and the index (int64) is unique within a file. With
        "first" and "explode", integers and booleans of new columns are ``int64[pyarrow]`` and
        ``bool[pyarrow]``, because they can be missing.

    Raises
    ------
    ColumnNotFoundError, TableNotFoundError
        There is no such column or table.
    TypeError
        `frame` is not a read of a table, or `region` has neither values nor lists of values.
    ValueError
        The frame has a column with the name of a new one, the files refer to different tables or to none, or
        `how` is not valid.
    NWBError
        While computing: with ``on_missing="raise"``, a row is missing; or several rows have the same key.

    See Also
    --------
    merge_by_file : merge two tables on keys.

    Notes
    -----
    DynamicTableRegion is defined in the `HDMF common schema
    <https://hdmf-common-schema.readthedocs.io/en/stable/format.html>`_: row numbers from 0 of the table to
    which its attribute `table` refers.

    Examples
    --------
    >>> from lazynwb_dask import join_region, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2), "/units")[["unit_id", "electrodes"]]
    >>> joined = join_region(units, "electrodes", ["location", "group_name"], how="first")
    >>> joined[joined.location == "CA1"].group_name.unique().compute().tolist()
    ['probeA']
    """
    if how not in FORMS:
        raise ValueError(f"how={how!r}: must be one of {', '.join(map(repr, FORMS))}")
    check_policy("on_missing", on_missing)
    if not (wanted := names_of("columns", columns)):
        raise ValueError("columns=[]: name a column of the table that the rows refer to")
    if not isinstance(prefix, str):
        raise TypeError(f"prefix={prefix!r}: must be text, which is put before the names of the columns")
    left = plan_of(frame, "the frame of join_region")
    if region not in left.columns:
        hint = near_or_all(region, left.columns)
        raise ColumnNotFoundError(f"join_region: no column {region!r} in the frame{hint}")
    form = _form(region, left.scan.meta[region].dtype, how)
    named = {prefix + name: name for name in wanted}
    taken = [name for name in named if name in (*left.columns, "_nwb_path")]
    if taken:
        raise ValueError(f"join_region: the frame has a column {taken[0]!r} already: give a prefix=")
    right, table = _other(left, region, target)
    if key is None:
        key = PATH if isinstance(right.scan, Held) else ROW
    for name in [*wanted, key]:
        if name not in right.scan.meta.columns:
            hint = near_or_all(name, right.scan.meta.columns)
            raise ColumnNotFoundError(f"join_region: {table} has no column {name!r}{hint}")
    reference = Reference(region, key, form, table, on_missing == "raise")
    return expr.from_scan(follow(left, right, reference, [*named.items()]))


def _form(region: str, dtype: Any, how: str) -> str:
    """How the elements of a row are shown."""
    kind = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else None
    if kind is None or not pa.types.is_nested(kind):
        return "first"
    if not pa.types.is_list(kind) or pa.types.is_nested(kind.value_type):
        raise TypeError(f"join_region: {region!r} is {dtype}: neither values nor lists of values")
    return how


def _other(left: Plan, region: str, target: Any) -> tuple[Plan, str]:
    """The table that is referred to, and its name."""
    if target is not None and not isinstance(target, str):
        plan = plan_of(target, "the target of join_region")
        if plan.predicate is not None:
            raise ValueError(
                "join_region: the target has conditions on its rows: filter the result instead, which reads "
                "no more"
            )
        tables = getattr(plan.scan, "files", None)
        plan = plan._replace(columns=[*plan.scan.meta.columns])
        return plan, " or ".join(tables.tables if tables is not None else ()) or "the target"
    scans = [scan for scan in file_scans(left.scan) if target is not None or region in scan.fields]
    if not scans or (target is None and len(scans) > 1):
        raise ValueError(f"join_region: the file doesn't say which table {region!r} refers to: give target=")
    scan = scans[0]
    table = target or target_of(scan, region)
    if target is None and table == GROUPS:
        groups = held(*electrode_groups(scan))
        return Plan(groups, [*groups.meta.columns], None), table
    request = TableRequest(
        table,
        blocksize=scan.request.blocksize,
        on_error=scan.request.on_error,
        allow_external_links=scan.request.allow_external_links,
    )
    found = table_scan(sources_of(scan), request, config.file_access(scan.options))
    return Plan(found, [*found.meta.columns], None), table
