"""What a made-up session depends on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, get_args

import numpy as np

from lazynwb_dask.datasets.writer import Layout, Writer

Libver = Literal["earliest", "latest"]

_FIRST_DAY = date(2023, 1, 9)


@dataclass(frozen=True)
class Recipe:
    """All that the content of a session depends on, its number apart."""

    seed: int
    units: int
    mean_spikes: int
    trials: int
    probes: int
    channels: int
    waveform_shape: tuple[int, ...]
    samples: int
    lfp_shape: tuple[int, ...] | None
    trial_timeseries: bool
    duration: float
    layout: Layout
    chunk_length: int
    series_chunk: int
    libver: Libver
    varied: bool

    def check(self) -> None:
        """Refuse parameters that no session can have."""
        for name, known in (("layout", get_args(Layout)), ("libver", get_args(Libver))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, not one of {known}")
        least = dict.fromkeys(("seed", "units", "mean_spikes", "trials", "samples"), 0)
        least |= dict.fromkeys(("probes", "channels", "chunk_length", "series_chunk"), 1)
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} is {getattr(self, name)}, less than {bound}")
        if self.probes > 26:
            raise ValueError(f"probes is {self.probes}, more than the letters to name them by")
        for name in ("waveform_shape", "lfp_shape"):
            shape = getattr(self, name)
            if shape is not None and (len(shape) != 2 or min(shape) < 1):
                raise ValueError(f"{name} is {shape}, not (samples, channels), each at least 1")
        if not 1 <= self.duration < np.inf:
            raise ValueError(f"duration is {self.duration}, not a time of at least 1 second")


@dataclass(frozen=True)
class Session:
    """One session while it is written."""

    number: int
    script: str
    recipe: Recipe
    rng: np.random.Generator
    out: Writer

    @property
    def subject(self) -> str:
        return subject(self.number)

    @property
    def day(self) -> date:
        return day(self.number)

    @property
    def name(self) -> str:
        return f"{self.subject}_{self.day}"


def subject(number: int) -> str:
    """Return the subject of a session: two in a row share one."""
    return str(600_000 + 7 * (number // 2))


def day(number: int) -> date:
    return _FIRST_DAY + timedelta(days=number)
