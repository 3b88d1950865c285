"""How reads behave, and what they report to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lazynwb_dask.model.source import Source
from lazynwb_dask.storage.coalesce import KIB, MIB
from lazynwb_dask.storage.counters import Tally, counters


class Memory(Protocol):
    """A task's part of its process's memory. See `lazynwb_dask.storage.memory_budget.Reservation`."""

    def take(self, nbytes: int, what: Callable[[], str], /) -> None: ...
    def give_back(self) -> None: ...


Run = tuple[int, int, float, float]
"""Rows whose timestamps rise: the first, the one after the last, and the times of the ends; NaN: they don't."""


class Orders(Protocol):
    """Keeps what was found out of the order of timestamps, for other processes. See `IndexCache`."""

    def runs(self, source: Source, name: str, /) -> list[Run]: ...
    def put_runs(self, source: Source, name: str, runs: list[Run], /) -> None: ...


@dataclass(frozen=True)
class Settings:
    """How reads behave. The defaults need no tuning."""

    connections: int = 256  # requests under way at once, in the whole process
    gap: int = 64 * KIB  # bytes between wanted ranges that may be fetched to save a request
    split: int = 4 * MIB  # longer ranges are read over several connections, in parts
    in_flight: int = 256 * MIB  # bytes on their way or not yet decoded, in the process
    timeout: float = 60.0  # seconds without a single byte after which an attempt has failed
    retries: int = 5  # requests of a range again, after transient faults
    deadline: float = 300.0  # seconds for a range with retries and pauses; 1 more per 16 KiB
    pause: float = 0.2  # seconds before the first retry; doubled each time
    longest_pause: float = 20.0  # unless the store wants a longer one (Retry-After)
    sorted_timestamps: bool = False  # all are taken to rise; else where that is known
    follow_links: bool = False  # symbolic links out of local stores
    orders: Orders | None = None  # where it is kept that they rise
    memory: Memory | None = None  # what memory is taken from, where it is limited
    report: Callable[[str, Tally], None] | None = None  # with a file's name and counts
    is_cancelled: Callable[[], bool] | None = None  # for the task; polled during waits

    def count(self, name: str, tally: Tally) -> None:
        counters.add(name, tally)
        if self.report is not None:
            self.report(name, tally)


@dataclass(frozen=True)
class IsolatedSettings(Settings):
    """Settings for reading whose metadata passes are made in helper processes."""

    isolate_memory: int = 2 << 30  # bytes that a helper may take for a file
    isolate_deadline: float = 30.0  # seconds of work per job and file, waits for bytes not counted
