"""Several row numbers as one label. A label must be the same whatever else is read, so it can't depend on
the largest number. Each number but the last is preceded by its length: small ones take few bits, and labels
sort by the first number, then the second, and so on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
BITS = 63  # of a label, which is not negative
GROUP = 5  # numbers are this many bits long, or a multiple of it
# The first numbers with one group more; a number of n groups is preceded by n ones and a zero.
_LONGER = np.array([1 << GROUP * n for n in range(BITS // GROUP + 1)])
_ONES = np.array([(1 << BITS) - (1 << BITS - n) for n in range(1, BITS // (GROUP + 1) + 1)])
_ALL = np.iinfo(np.int64).max


def packed(numbers: Sequence[Ints]) -> Ints | None:
    """One label for each row, made of several non-negative numbers; None if that takes more than 63 bits.

    >>> packed([np.array([0, 0, 7]), np.array([1, 2, 0])]).argsort().tolist()
    [0, 1, 2]
    """
    *heads, last = numbers
    label, room = np.zeros(len(last), np.int64), np.full(len(last), BITS)
    for number in heads:
        groups = np.searchsorted(_LONGER, number, side="right")
        room = room - _length(groups)
        if (room < 0).any():
            return None
        ones = (2 << groups) - 2
        label |= (ones << GROUP * groups | number) << room
    return None if (last >> room).any() else label | last


def unpacked(labels: Ints, count: int) -> list[Ints]:
    """The `count` numbers that each label is made of.

    >>> [number.tolist() for number in unpacked(packed([np.array([5, 99]), np.array([0, 3])]), 2)]
    [[5, 99], [0, 3]]
    """
    found, rest, used = [], labels, np.zeros(len(labels), np.int64)
    for _ in range(count - 1):
        groups = np.searchsorted(_ONES, rest, side="right")
        length = _length(groups)
        found.append(rest >> BITS - length & (1 << GROUP * groups) - 1)
        rest = rest << length & _ALL
        used = used + length
    return [*found, rest >> used]


def _length(groups: Ints) -> Ints:
    """The bits of a number of so many groups, with its prefix."""
    return 1 + (GROUP + 1) * groups
