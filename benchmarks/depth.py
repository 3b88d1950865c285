"""How many round trips had to be made one after the other."""

from __future__ import annotations

import heapq
from collections.abc import Iterable


def longest_chain(spans: Iterable[tuple[float, float]]) -> int:
    """The most requests of which each began after the one before it had ended.

    >>> longest_chain([(0, 2), (1, 3), (2, 4), (3.5, 5), (4, 6)])
    3
    """
    longest = 0
    ended: list[tuple[float, int]] = []  # a heap: when a chain's last request ended, and its length
    for begin, end in sorted(spans):
        while ended and ended[0][0] <= begin:
            longest = max(longest, heapq.heappop(ended)[1])
        heapq.heappush(ended, (end, longest + 1))
    return max([longest, *[length for _, length in ended]])
