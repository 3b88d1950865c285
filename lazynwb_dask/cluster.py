"""The active Dask cluster, if there is one."""

from __future__ import annotations

import sys
from typing import Any


def active_client() -> Any:
    """The client of this thread or process; None without a cluster, or within a coroutine."""
    if "distributed.client" not in sys.modules:
        return None
    from distributed.client import default_client

    try:
        client = default_client()
    except ValueError:
        return None
    return None if client.asynchronous else client


def this_worker() -> Any:
    """The worker that runs the current task; None elsewhere."""
    if "distributed.worker" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None
