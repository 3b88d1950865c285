"""Steps: generators that yield a `Wave`, what they need next, and go on once all of it has come."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa

from lazynwb_dask.errors import NWBError, NWBReadError
from lazynwb_dask.model.index import Extents, Layout
from lazynwb_dask.storage import Request
from lazynwb_dask.storage.parquet import ParquetFile

T = TypeVar("T")


@dataclass
class Elsewhere:
    """Rows of a dataset whose data are in another file, which libhdf5 is to read."""

    layout: Layout
    starts: np.ndarray
    stops: np.ndarray
    found: np.ndarray | None = None  # filled in by whoever runs the step


@dataclass
class Listing:
    """A dataset whose chunks libhdf5 is to list."""

    path: str
    found: Extents | None = None  # filled in by whoever runs the step


@dataclass
class Stored:
    """Rows of a column whose values a catalog holds."""

    parquet: ParquetFile
    name: str
    start: int
    stop: int
    found: pa.ChunkedArray | None = None  # filled in by whoever runs the step


@dataclass
class Wave:
    """What a step needs before it can go on."""

    requests: list[Request] = field(default_factory=list)
    addresses: set[int] = field(default_factory=set)  # of objects whose paths are wanted
    paths: dict[int, str] = field(default_factory=dict)  # filled in by whoever runs the step
    elsewhere: list[Elsewhere] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    shared: bool = False  # what it needs is among the requests of others
    ahead: list[tuple[int, int]] = field(default_factory=list)  # come along where a request is made
    objects: list[Request] = field(default_factory=list)  # of a store, that come along in the same way
    peeks: list[Request] = field(default_factory=list)  # served where the bytes are here, else dropped

    def add(self, other: Wave) -> None:
        """Need what another needs, too."""
        self.addresses |= other.addresses
        self.shared |= other.shared
        for name in ("requests", "elsewhere", "stored", "listings", "ahead", "objects", "peeks"):
            getattr(self, name).extend(getattr(other, name))

    @property
    def here(self) -> bool:
        """Whether it needs values of a catalog, or nothing but bytes that are here already."""
        return bool(self.stored or (self.peeks and not self.requests))


Steps = Generator[Wave, None, T]


def together(steps: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Several steps side by side: one wave for all of them, until all have ended.

    Steps that want values of a catalog, or look at bytes that are here, go first. The others wait until these
    know what they want of the file, so that it is one round trip rather than two.
    """
    results: dict[int, T] = {}
    waves: dict[int, Wave] = {}
    ahead = Wave()

    def advance(i: int) -> None:
        try:
            waves[i] = next(steps[i])
            while waves[i] == Wave(ahead=waves[i].ahead, objects=waves[i].objects):  # nothing to wait for
                ahead.add(waves[i])
                waves[i] = next(steps[i])
        except StopIteration as stop:
            results[i] = stop.value
            waves.pop(i, None)

    for i in range(len(steps)):
        advance(i)
    while waves:
        turn = {i: wave for i, wave in waves.items() if wave.here}
        joint = Wave()
        if not turn:
            turn = dict(waves)
            joint.add(ahead)
            ahead = Wave()
        for wave in turn.values():
            joint.add(wave)
        yield joint
        for i, wave in turn.items():
            wave.paths = joint.paths
            advance(i)
    if ahead != Wave():
        yield ahead
    return [results[i] for i in range(len(steps))]


class ChunkMaps(Protocol):
    """Keeps chunk maps that were read late, by the address of their B-tree, or the key of their shard."""

    def get(self, root: int | str) -> Extents | None: ...

    def put(self, root: int | str, extents: Extents) -> None: ...


def named(exc: Exception, where: str) -> Exception:
    """An error that says where it comes from."""
    text = str(exc)
    if text.startswith(where) or isinstance(exc, MemoryError):
        return exc
    if isinstance(exc, NWBError):
        return type(exc)(where + text)
    return NWBReadError(f"{where}damaged or not understood: {type(exc).__name__}: {text}")
