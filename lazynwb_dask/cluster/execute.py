"""Read any kind of scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from lazynwb_dask.cluster.failures import report_failures, report_missing
from lazynwb_dask.errors import Failure
from lazynwb_dask.read.partition import read_parts
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.storage import Settings

if TYPE_CHECKING:
    from lazynwb_dask.predicate.tree import Limit, Predicate


def execute(
    scan: Any,
    columns: Sequence[str],
    predicate: Predicate | None,
    limit: Limit | None,
    settings: Settings,
) -> pd.DataFrame:
    """Read all partitions of a scan into one frame. Files that are left out are reported."""
    if not isinstance(scan, Scan):
        frame: pd.DataFrame = scan.read(columns, predicate, limit, settings)
        return frame
    failed: list[Failure] = []
    missing: list[Failure] = []
    frame = read_parts(scan, columns, predicate, limit, settings, failed, missing)
    if failed:
        report_failures(scan.origin or scan.token, failed)
    if missing:
        report_missing(scan.origin or scan.token, missing)
    return frame
