"""The only door to bytes: concurrent, checked, repeated and counted range reads of any file.

Nothing here knows what the bytes mean.
"""

from lazynwb_dask.storage.coalesce import Request
from lazynwb_dask.storage.counters import counters, record
from lazynwb_dask.storage.fetch import Settings, fetch, listed, open_source

__all__ = ["Request", "Settings", "counters", "fetch", "listed", "open_source", "record"]
