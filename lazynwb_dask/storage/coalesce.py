"""Which bytes to request so that all wanted ranges arrive in few requests and little waste. Does no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

KIB = 1024
MIB = 1024 * 1024

# Gaps below this are cheaper to fetch than to think about: a response's headers are as long.
FREE_GAP = 4 * KIB
# Gap bytes of one call stay below the larger of this and an eighth of the wanted bytes.
GAP_ALLOWANCE = 256 * KIB


class Request(NamedTuple):
    """A byte range of a file, and what to do with it.

    `sink` is called once with a read-only memoryview of exactly ``stop - start`` bytes. A view that is kept
    keeps alive the buffer that it is a part of, at most about a request's length or a block of `util.buffers`.

    With a `key`, the range is one of an object below the source's URL. Unless it is `exact`, or the object's
    `size` is known, the object ends before `stop`, or there, and the sink gets what there is of it; from a
    negative `start` on, up to 0, its last bytes. Where there is no such object, `missing` is called instead.
    """

    start: int
    stop: int
    sink: Callable[[memoryview], None]
    key: str = ""
    missing: Callable[[], None] | None = None  # None: it is an error
    size: int | None = None  # of the object
    exact: bool = False  # an object may go on after `stop`

    @property
    def is_open(self) -> bool:
        """Whether what comes may be shorter."""
        return bool(self.key) and self.size is None and not self.exact


@dataclass(frozen=True, slots=True)
class Piece:
    """Contiguous bytes that are fetched into one buffer, and the requests they serve."""

    start: int
    stop: int
    requests: Sequence[Request]

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def is_open(self) -> bool:
        """Whether what comes may be shorter."""
        return any(request.is_open for request in self.requests)

    @property
    def key(self) -> str:
        """The key of the object that it is of; empty for the source itself."""
        return self.requests[0].key

    def problem(self, size: int | None) -> str:
        """Why its object can't have so many bytes; empty if it can."""
        declared, longest = self.requests[0].size, self.stop if self.is_open and self.stop else None
        if size is not None and declared not in (None, size):
            return f"{size} bytes are stored where {declared} are declared: damaged"
        if size is not None and longest is not None and size > longest:
            return f"{size} bytes are stored where {longest} would be enough: damaged"
        return ""

    @property
    def may_lack(self) -> bool:
        """Whether it is no error if there is no such object."""
        return all(request.missing is not None for request in self.requests)

    def lack(self) -> None:
        """Tell its requests that there is no such object."""
        for request in self.requests:
            if request.missing is not None:
                request.missing()

    def parts(self, split: int) -> list[tuple[int, int]]:
        """Cut the piece into ranges of about equal length, none longer than ``split``."""
        count = max(1, -(-len(self) // split))
        cuts = [self.start + len(self) * i // count for i in range(count + 1)]
        return list(pairwise(cuts))

    def batches(self, length: int) -> list[Sequence[Request]]:
        """The requests in groups of about ``length`` bytes, to be served by several threads."""
        if len(self) <= length or len(self.requests) == 1:
            return [self.requests]
        lengths = np.cumsum([request.stop - request.start for request in self.requests])
        cuts = np.unique(np.searchsorted(lengths, np.arange(length, lengths[-1], length)) + 1)
        bounds = [0, *cuts[cuts < len(lengths)].tolist(), len(lengths)]
        return [self.requests[a:b] for a, b in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class Plan:
    """The pieces of one call, with the sums that the counters report."""

    pieces: Sequence[Piece]
    wanted: int
    gap: int


def plan(requests: Sequence[Request], gap: int, split: int) -> Plan:
    """Join ranges of the same object that overlap, touch or lie close together into pieces to fetch.

    Requests are non-empty and in any order; repeated bytes are fetched once. Neighbours further apart than
    `gap` are never joined. Closer ones are, smallest gaps first, until the gaps amount to `GAP_ALLOWANCE`
    or an eighth of the wanted bytes. Pieces end between two requests rather than exceed `split`, so that
    the first are decoded while the rest is on its way. Only a longer request, or requests that overlap,
    make a longer piece.
    """
    if any(request.key for request in requests):
        return _plan_objects(requests, gap, split)
    return _plan_one(requests, gap, split)


def _plan_objects(requests: Sequence[Request], gap: int, split: int) -> Plan:
    groups: dict[tuple[str, bool], list[Request]] = {}
    for request in requests:
        groups.setdefault((request.key, request.start < 0), []).append(request)
    pieces: list[Piece] = []
    wanted = skipped = 0
    for some in groups.values():
        found = _plan_one(some, gap, split)
        pieces += found.pieces
        if not found.pieces[0].is_open:  # (of others it is known once they are here)
            wanted, skipped = wanted + found.wanted, skipped + found.gap
    return Plan(pieces, wanted, skipped)


def _plan_one(requests: Sequence[Request], gap: int, split: int) -> Plan:
    if len(requests) < 2:
        pieces = [Piece(int(start), int(stop), requests) for start, stop, *_ in requests]
        return Plan(pieces, sum(map(len, pieces)), 0)
    bounds = np.array([(r.start, r.stop) for r in requests], dtype=np.int64)
    order = np.lexsort((bounds[:, 1], bounds[:, 0]))
    starts = bounds[order, 0]
    ends = np.maximum.accumulate(bounds[order, 1])  # where everything up to here is covered

    gaps = starts[1:] - ends[:-1]
    covered = np.diff(ends, prepend=starts[0])
    covered[1:] -= np.maximum(gaps, 0)
    wanted = int(covered.sum())
    joined = _joined(gaps, gap, max(GAP_ALLOWANCE, wanted // 8))

    pieces = []
    members: list[Request] = []
    begin = int(starts[0])
    end = begin
    for i, (start, stop) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        clean = start >= end  # nothing before reaches into this request
        if members and (not joined[i - 1] or (clean and stop - begin > split)):
            pieces.append(Piece(begin, end, members))
            members, begin = [], start
        members.append(requests[order[i]])
        end = stop
    pieces.append(Piece(begin, end, members))
    return Plan(pieces, wanted, sum(len(piece) for piece in pieces) - wanted)


def _joined(gaps: np.ndarray, limit: int, allowance: int) -> np.ndarray:
    """Which neighbours to join, given the distance from each range to the next."""
    joined = gaps <= min(FREE_GAP, limit)
    positive = np.flatnonzero((gaps > 0) & (gaps <= limit))
    smallest_first = positive[np.argsort(gaps[positive], kind="stable")]
    within = np.cumsum(gaps[smallest_first]) <= allowance
    joined[smallest_first[within]] = True
    return joined


def bytes_bound(calls: int, ranges: int, wanted: int, gap: int) -> int:
    """The bytes that some calls of `plan` lead to at most, with the gaps between so many ranges."""
    most = calls * GAP_ALLOWANCE + wanted // 8 + ranges * min(FREE_GAP, gap)
    return wanted + min(most, ranges * gap)


def serve(view: memoryview, start: int, requests: Sequence[Request]) -> None:
    """Give each request its part of a buffer that begins at byte ``start`` of the file."""
    for request in requests:
        request.sink(view[request.start - start : request.stop - start])
