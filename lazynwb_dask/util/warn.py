"""Warnings at the line of the user's own code that led to them."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import warnings
from types import FrameType

_LIBRARIES = frozenset({
    "lazynwb_dask", "dask", "distributed", "pandas", "polars", "xarray", "pyarrow", "duckdb", "toolz", "tlz",
    "concurrent", "threading", "queue", "asyncio", "multiprocessing", "contextlib", "functools",
})  # fmt: skip


def warn(message: str) -> None:
    """Warn at the innermost line outside of the libraries, as Python does: once for each line and message.

    In a thread of a computation, that is the line on which the main thread waits for it.
    """
    frame = _users(sys._getframe(1))
    if frame is None and multiprocessing.parent_process() is None:
        frame = _users(sys._current_frames().get(threading.main_thread().ident or 0))
    if frame is None:  # in a process of workers
        warnings.warn(message, stacklevel=2)
        return
    about = frame.f_globals
    warnings.warn_explicit(
        message,
        UserWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        about.get("__name__"),
        about.setdefault("__warningregistry__", {}),
    )


def _users(frame: FrameType | None) -> FrameType | None:
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _LIBRARIES:
        frame = frame.f_back
    return frame
