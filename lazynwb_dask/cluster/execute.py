"""Reads any scan, and reports the files that were left out."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lazynwb_dask.cluster.failures import report_failures, report_missing
from lazynwb_dask.read.partition import LeftOut, read_parts
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.storage import Settings


def execute(scan: Any, selection: Selection, settings: Settings) -> pd.DataFrame:
    """All partitions of a scan, one after the other, as a frame."""
    if not isinstance(scan, Scan):
        frame: pd.DataFrame = scan.read(selection, settings)
        return frame
    left_out = LeftOut()
    frame = read_parts(scan, selection, settings, left_out)
    if left_out.failed:
        report_failures(scan.origin or scan.token, left_out.failed)
    if left_out.lacking:
        report_missing(scan.origin or scan.token, left_out.lacking)
    return frame
