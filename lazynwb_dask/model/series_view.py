"""How a TimeSeries is to be shown: which channels, and whether in its unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shown:
    """How `data` is to be shown."""

    channels: tuple[int, ...] | None = None  # a column each; None: one column of lists; empty: all
    scaled: bool = False  # as float64, in the series' unit

    @staticmethod
    def of(channels: object, scaled: bool) -> Shown | None:
        """From the arguments of `read_nwb`; None: data as stored. TypeError or ValueError for others."""
        if channels is None:
            return Shown(scaled=True) if scaled else None
        if isinstance(channels, str):
            if channels != "all":
                raise ValueError(f"channels={channels!r}: numbers of channels, or 'all'")
            return Shown((), scaled)
        if isinstance(channels, (int, np.integer)) and not isinstance(channels, bool):
            channels = [channels]
        if not isinstance(channels, Iterable):
            raise TypeError(f"channels={channels!r}: numbers of channels, or 'all'")
        numbers = list(channels)
        if not numbers or not all(
            isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in numbers
        ):
            raise TypeError(f"channels={numbers!r}: numbers of channels, or 'all'")
        if min(numbers) < 0 or len(set(numbers)) < len(numbers):
            raise ValueError(f"channels={numbers!r}: each once, counted from 0")
        return Shown(tuple(map(int, numbers)), scaled)
