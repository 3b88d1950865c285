"""Range reads of any file, concurrent, checked, retried after faults, and counted. All reads are here."""

from lazynwb_dask.storage.coalesce import Request
from lazynwb_dask.storage.counters import counters, record
from lazynwb_dask.storage.fetch import Ends, fetch, open_ends, open_source, retried, zip_members
from lazynwb_dask.storage.settings import Settings

__all__ = [
    "Ends",
    "Request",
    "Settings",
    "counters",
    "fetch",
    "open_ends",
    "open_source",
    "record",
    "retried",
    "zip_members",
]
