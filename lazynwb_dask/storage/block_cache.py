"""Blocks of files that were fetched while planning, for the reads that follow in the same process.

The blocks with a file's metadata often have its small columns too, which filters need first. They are kept
by the store's validator, which changes with the file; without one nothing is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lazynwb_dask.model.source import Source, is_local
from lazynwb_dask.storage import Request
from lazynwb_dask.util.lru import Cache


@dataclass(frozen=True, slots=True)
class Blocks:
    """Some blocks of a file, by their number."""

    block: int
    blocks: Mapping[int, bytes]

    def get(self, start: int, stop: int) -> memoryview | None:
        """A byte range, if all of it is here."""
        first, last = start // self.block, (stop - 1) // self.block
        found = [self.blocks.get(i) for i in range(first, last + 1)]
        parts = [one for one in found if one is not None]
        if len(parts) < len(found):
            return None
        whole = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        return whole[start - first * self.block : stop - first * self.block]


_blocks = Cache[Blocks]("blocks")


def keep(source: Source, block: int, blocks: Mapping[int, bytes]) -> None:
    """Keep blocks of a file that has a validator, for as long as the process's caches have room."""
    if source.etag is None or is_local(source.url):
        return
    _blocks.put(source.key, Blocks(block, dict(blocks)), len(blocks) * block)


def kept(source: Source) -> Blocks | None:
    """What is kept of a file."""
    return _blocks.get(source.key) if source.etag is not None else None


def has(source: Source, start: int, stop: int) -> bool:
    """Whether a byte range is kept."""
    blocks = kept(source)
    return blocks is not None and blocks.get(start, stop) is not None


def serve(blocks: Blocks | None, requests: Sequence[Request]) -> list[Request]:
    """Give requests the bytes that are kept; the others are returned."""
    if blocks is None:
        return list(requests)
    left = []
    for request in requests:
        here = request.stop > request.start and not request.key
        data = blocks.get(request.start, request.stop) if here else None
        if data is None:
            left.append(request)
        else:
            request.sink(data)
    return left
