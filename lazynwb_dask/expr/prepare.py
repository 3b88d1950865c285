"""What the client's process does before a graph is made."""

from __future__ import annotations

from typing import Any

from lazynwb_dask.by_file.alignment import file_scans
from lazynwb_dask.cluster.client import compare_versions
from lazynwb_dask.cluster.secrets_plugin import share
from lazynwb_dask.scan.scan import Scan


def prepare(scan: Any) -> None:
    """Send secrets to the workers, and compare versions."""
    for one in file_scans(scan):
        if isinstance(one, Scan):
            share(one.options)
            compare_versions()
        elif hasattr(one, "before_compute"):
            one.before_compute()
