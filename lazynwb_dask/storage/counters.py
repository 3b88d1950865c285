"""What was read: requests, bytes, and why. One set of counters per process, shared by all threads.

Files have the names that messages show, so no query string of a signed URL is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field

from lazynwb_dask.util.locks import Lock


@dataclass(slots=True)
class Tally:
    """Counts of what was read of one file, or of all files together. Part of a `Trace`.

    Attributes
    ----------
    requests : int
        Requests that were sent, repeated ones included.
    bytes : int
        Bytes that arrived, those of failed requests included.
    wanted : int
        Bytes that were needed.
    gap : int
        Bytes between needed ones, which were read to save requests.
    retries : int
        Requests that were repeated because an earlier one failed.

    See Also
    --------
    lazynwb_dask.trace : counts what is read.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = lazynwb_dask.read_nwb(make_sessions("sessions", n=2), "/units")
    >>> with lazynwb_dask.trace() as fetched:
    ...     rates = units.firing_rate.compute()
    >>> fetched.total
    Tally(requests=2, bytes=1920, wanted=1920, gap=0, retries=0)
    """

    requests: int = 0  # attempts that were sent, repeated ones included
    bytes: int = 0  # of bodies that arrived, those of failed attempts included
    wanted: int = 0  # bytes that callers requested, each counted once per call
    gap: int = 0  # bytes between the wanted ones that were fetched to save requests
    retries: int = 0  # attempts that were made because an earlier one failed

    def add(self, other: Tally) -> None:
        """Add other counts to these. For internal use."""
        self.requests += other.requests
        self.bytes += other.bytes
        self.wanted += other.wanted
        self.gap += other.gap
        self.retries += other.retries

    def copy(self) -> Tally:
        """Return a copy. For internal use."""
        return Tally(*astuple(self))

    def __sub__(self, other: Tally) -> Tally:
        return Tally(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(slots=True)
class Snapshot:
    """The counters at one moment, or what happened between two. Files have the names that messages show."""

    total: Tally = field(default_factory=Tally)
    files: Mapping[str, Tally] = field(default_factory=dict)

    def __sub__(self, other: Snapshot) -> Snapshot:
        none = Tally()
        files = {name: tally - other.files.get(name, none) for name, tally in self.files.items()}
        touched = {name: tally for name, tally in files.items() if tally != none}
        return Snapshot(self.total - other.total, touched)


class Counters:
    """Thread-safe sums, in total and per file."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._total = Tally()
        self._files: dict[str, Tally] = {}

    def add(self, name: str, tally: Tally) -> None:
        """Count something that happened to the file of this name."""
        with self._lock:
            self._total.add(tally)
            self._files.setdefault(name, Tally()).add(tally)

    def snapshot(self) -> Snapshot:
        """The numbers so far, as a copy."""
        with self._lock:
            files = {name: tally.copy() for name, tally in self._files.items()}
            return Snapshot(self._total.copy(), files)

    def reset(self) -> None:
        with self._lock:
            self._total = Tally()
            self._files = {}


counters = Counters()


@contextmanager
def record() -> Iterator[Snapshot]:
    """Count what the process reads within a ``with`` block; the snapshot is empty until its end."""
    before = counters.snapshot()
    result = Snapshot()
    try:
        yield result
    finally:
        difference = counters.snapshot() - before
        result.total, result.files = difference.total, difference.files
