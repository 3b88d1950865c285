"""How reads behave, and what they report to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lazynwb_dask.storage.coalesce import KIB, MIB
from lazynwb_dask.storage.counters import Tally, counters


class Memory(Protocol):
    """A task's part of its process's memory. See `lazynwb_dask.storage.memory_budget.Reservation`."""

    def take(self, nbytes: int, what: Callable[[], str], /) -> None: ...
    def give_back(self) -> None: ...


@dataclass(frozen=True)
class Settings:
    """How reads behave. The defaults need no tuning.

    Attributes
    ----------
    connections : int
        Requests under way at once, in the whole process.
    gap : int
        Bytes between two wanted ranges that may be fetched rather than pay for a request.
    split : int
        Longer ranges are read over several connections, in parts of at most this many bytes.
    in_flight : int
        Bytes that may be on their way or waiting to be decoded, in the whole process.
    timeout : float
        Seconds without a single byte after which an attempt has failed.
    retries : int
        How often a range is requested again after transient faults.
    deadline : float
        Seconds that one range may take, all attempts and pauses included; one more for each 16 KiB.
    pause : float
        Seconds before the first repetition; doubled each time, up to ``longest_pause``.
    longest_pause : float
        Upper end of the pauses, unless the store asks for a longer one (Retry-After).
    sorted_timestamps : bool
        Whether to take the timestamps of TimeSeries to rise, as NWB asks, as long as none that are
        looked at fall.
    memory : Memory, optional
        From which memory is taken before it is used, where that is limited.
    report : callable, optional
        Called with a file's name and what happened to it, as the counters of the process are.
    is_cancelled : callable, optional
        Called a few times a second while a read waits: whether its task was cancelled.
    """

    connections: int = 64
    gap: int = 64 * KIB
    split: int = 4 * MIB
    in_flight: int = 256 * MIB
    timeout: float = 60.0
    retries: int = 5
    deadline: float = 300.0
    pause: float = 0.2
    longest_pause: float = 20.0
    sorted_timestamps: bool = True
    memory: Memory | None = None
    report: Callable[[str, Tally], None] | None = None
    is_cancelled: Callable[[], bool] | None = None

    def count(self, name: str, tally: Tally) -> None:
        """Count what happened to a file."""
        counters.add(name, tally)
        if self.report is not None:
            self.report(name, tally)


@dataclass(frozen=True)
class IsolatedSettings(Settings):
    """Settings for reading whose metadata passes are made in helper processes.

    Attributes
    ----------
    isolate_memory : int
        Bytes that a helper may take for a file.
    isolate_deadline : float
        Seconds that helpers may work on one job on one file, waiting for bytes not counted.
    """

    isolate_memory: int = 2 << 30
    isolate_deadline: float = 30.0
