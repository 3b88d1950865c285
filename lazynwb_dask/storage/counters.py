"""What was read, counted as it happens: requests, bytes, and why.

One set of counters per process, shared by all threads. Files are named as messages name them, so no
query string of a signed URL is kept here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field

from lazynwb_dask.util.locks import Lock


@dataclass(slots=True)
class Tally:
    """Numbers of one file, or of all of them.

    Attributes
    ----------
    requests : int
        Attempts that were sent, repeated ones included.
    bytes : int
        Bytes of bodies that arrived, those of failed attempts included.
    wanted : int
        Bytes that callers asked for, each counted once per call.
    gap : int
        Bytes between the wanted ones that were fetched to save requests.
    retries : int
        Attempts that were made because an earlier one failed.
    """

    requests: int = 0
    bytes: int = 0
    wanted: int = 0
    gap: int = 0
    retries: int = 0

    def add(self, other: Tally) -> None:
        """Add another tally to this one, in place."""
        self.requests += other.requests
        self.bytes += other.bytes
        self.wanted += other.wanted
        self.gap += other.gap
        self.retries += other.retries

    def copy(self) -> Tally:
        return Tally(*astuple(self))

    def __sub__(self, other: Tally) -> Tally:
        return Tally(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(slots=True)
class Snapshot:
    """The counters at one moment, or what happened between two.

    Attributes
    ----------
    total : Tally
        All files together.
    files : dict
        One `Tally` per file that was touched, by the name that messages show.
    """

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
        """Begin again at nothing."""
        with self._lock:
            self._total = Tally()
            self._files = {}


counters = Counters()


@contextmanager
def record() -> Iterator[Snapshot]:
    """Count what the whole process reads within a ``with`` block.

    Yields
    ------
    Snapshot
        Empty at first; holds the difference once the block has ended.
    """
    before = counters.snapshot()
    result = Snapshot()
    try:
        yield result
    finally:
        difference = counters.snapshot() - before
        result.total, result.files = difference.total, difference.files
