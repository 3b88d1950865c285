"""The only door to bytes: concurrent, checked, repeated and counted range reads of any file.

Nothing here knows what the bytes mean.
"""

from .counters import counters, record
from .ranges import Request
from .reading import Settings, fetch, listed, open_source

__all__ = ["Request", "Settings", "counters", "fetch", "listed", "open_source", "record"]
