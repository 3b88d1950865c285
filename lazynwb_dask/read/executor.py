"""Runs steps: gets what each wave asks for, and remembers what was read late of files' indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

from lazynwb_dask.decode.arrays import Values
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.index import Extents
from lazynwb_dask.model.other_files import ZIPPED
from lazynwb_dask.model.source import Source, is_local
from lazynwb_dask.read.nearby import SMALL
from lazynwb_dask.read.side_by_side import Await, Begin, Blocking, Fetch, Read, alone
from lazynwb_dask.read.steps import Elsewhere, Steps, Stored, Wave, named
from lazynwb_dask.storage import Request, block_cache, parquet
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.runtime import Started
from lazynwb_dask.util.locks import Lock
from lazynwb_dask.util.lru import Cache

FEW = 1 << 20  # bytes that are looked at in a moment
AHEAD = 256 * 1024  # bytes of a partition that come along with what is needed first, rather than later
# Of one dataset in all partitions of a task, where it isn't known of which of them any rows are left.
AHEAD_OF_ALL = 2 << 20

_chunks = Cache[Extents]("chunk maps")
_paths = Cache[str]("paths of objects")
_turn = Lock()


def guarded(steps: Steps[Values], where: str) -> Steps[Values]:
    """The same steps, whose errors say where they come from."""

    def guard(request: Request) -> Request:
        def sink(data: memoryview) -> None:
            try:
                request.sink(data)
            except Exception as exc:
                raise named(exc, where) from None

        return request._replace(sink=sink)

    try:
        wave = next(steps)
        while True:
            asked = replace(wave, requests=[guard(r) for r in wave.requests])
            yield asked
            wave.paths = asked.paths
            wave = next(steps)
    except StopIteration as stop:
        return stop.value
    except Exception as exc:
        raise named(exc, where) from None


class Executor:
    """One file, for as long as a partition of it is read. `blocks` were fetched of it just now."""

    def __init__(self, source: Source, access: FileAccess, blocks: block_cache.Blocks | None = None) -> None:
        self.source, self.access, self._blocks = source, access, blocks
        self._used, self._asked = False, blocks is not None
        self._wanted = 0
        self._check: Started[None] | None = None  # a request that tells whether what was kept is current
        self.ahead = AHEAD  # bytes that may still come along
        self._came: list[tuple[int, bytes]] = []  # what came along, and where it begins

    def turn(self) -> AbstractContextManager[object]:
        """Held while few bytes are decoded: one file after the other.

        That takes milliseconds of Python for each. Threads that compete for the interpreter take longer in all.
        """
        return _turn if self._wanted <= FEW else nullcontext()

    def through(self, steps: Steps[Values], deciding: bool = False) -> Read[Values]:
        """Go through steps to their end, with what each wave needs.

        What planning kept of the file serves waves of which it has all, so that these need no round trip; steps
        that are `deciding` on rows also others. `settle` checks that it is current.
        """
        try:
            with self.turn():
                wave = next(steps)
            while True:
                if wave.addresses or wave.elsewhere or wave.listings or wave.stored:
                    yield Blocking(partial(self._fill, wave))
                self._serve(wave.peeks)
                if wave.requests:
                    yield from self._fetch(wave, deciding)
                with self.turn():
                    wave = next(steps)
        except StopIteration as stop:
            return stop.value

    def settle(self) -> Read[None]:
        """Make one request for the file, even if all bytes came from what was kept.

        NWBFileChangedError if there is another file in its place.
        """
        if self._check is not None:
            yield Await(self._check, self.access)
        elif self._used and not self._asked:
            self._asked = True
            yield self._one_byte()

    def close(self) -> None:
        """End what still runs after an error."""
        if self._check is not None and not self._check.result.done():
            self._check.stop()

    def _one_byte(self) -> Fetch:
        return Fetch(self.source, [_one_byte(self.source)], self.access, quick=True)

    def _fill(self, wave: Wave) -> None:
        """What a wave needs but byte ranges."""
        source, access = self.source, self.access
        if wave.addresses:
            paths, asked = _names(source, wave.addresses, access)
            wave.paths.update(paths)
            self._used, self._asked = True, self._asked or asked
        if wave.elsewhere:
            look_elsewhere(source, wave.elsewhere, access)
        for listing in wave.listings:
            listing.found = _listed(source, listing.path, access)
        if wave.stored:
            fill_stored(wave.stored, access)

    def _fetch(self, wave: Wave, some: bool) -> Read[None]:
        self._wanted += sum(request.stop - request.start for request in wave.requests)
        left: Sequence[Request] = wave.requests
        whole = not self.source.document and all(self._has(start, stop) for start, stop, *_ in left)
        if whole and not some and not self._asked:  # what is to be read comes last: check meanwhile
            self._check = yield Begin(self._one_byte())
            self._asked = self._check is not None
        if some or self._blocks is not None or whole:
            left = self._serve(left)
        else:
            left = self._serve(left, kept=False)
        if left:
            wanted = [*left, *self.along(left, wave.ahead), *self._objects_along(wave.objects)]
            if (
                self.source.document not in ("", ZIPPED) and not self._asked
            ):  # its objects don't tell its version
                wanted.append(_one_byte(self.source))
            self._asked = True
            try:
                yield Fetch(self.source, wanted, self.access, heavy=self._wanted > FEW)
            except NWBReadError:
                if self.source.document:  # of a store that was written anew, no object is damaged
                    yield self._one_byte()
                raise

    def _serve(self, requests: Sequence[Request], kept: bool = True) -> Sequence[Request]:
        """Give requests the bytes that came along, or that planning has `kept`; the others are returned."""
        if self.source.document:
            return requests
        if self._came:
            here = [_within(self._came, start, stop) for start, stop, *_ in requests]
            for request, data in zip(requests, here, strict=True):
                if data is not None:
                    request.sink(data)
            requests = [request for request, data in zip(requests, here, strict=True) if data is None]
        blocks = self._blocks or block_cache.kept(self.source)
        left = block_cache.serve(blocks, requests) if kept else requests
        self._used |= len(left) < len(requests)
        return left

    def along(self, requests: Sequence[Request], ahead: Iterable[tuple[int, int]]) -> list[Request]:
        """The requests for bytes that come along, as long as they are few in all."""
        found: list[Request] = []
        asked = [(start, stop) for start, stop, *_ in requests]
        none = (
            self.source.parts or self.source.document or is_local(self.source.url)
        )  # (a disk answers at once)
        for start, stop in () if none else dict.fromkeys(ahead):
            more = _union([*asked, (start, stop)]) - _union(asked)
            if not 0 < more <= self.ahead or stop > self.source.reach or self._has(start, stop):
                continue
            self.ahead -= more
            asked.append((start, stop))
            found.append(Request(start, stop, partial(self._keep, start)))
        return found

    def _objects_along(self, requests: Sequence[Request]) -> list[Request]:
        """Of requests for a store's objects those that come along, as long as they are few bytes in all."""
        found: list[Request] = []
        for request in () if is_local(self.source.url) else requests:
            cost = min(request.stop - request.start, SMALL)  # texts may be long, but are few
            if cost <= self.ahead:
                self.ahead -= cost
                found.append(request)
        return found

    def _has(self, start: int, stop: int) -> bool:
        if _within(self._came, start, stop) is not None:
            return True
        if self._blocks is not None:
            return self._blocks.get(start, stop) is not None
        return block_cache.has(self.source, start, stop)

    def _keep(self, start: int, data: memoryview) -> None:
        self._came.append((start, bytes(data)))  # not a view, which would keep all that came with it


def _one_byte(source: Source) -> Request:
    return Request(0, 1, lambda _: None, source.document, exact=True)


def _within(spans: Sequence[tuple[int, bytes]], start: int, stop: int) -> memoryview | None:
    """A byte range, if one of some spans has all of it."""
    for begin, data in spans:
        if begin <= start and stop <= begin + len(data):
            return memoryview(data)[start - begin : stop - begin]
    return None


def _union(ranges: Sequence[tuple[int, int]]) -> int:
    """The bytes that some ranges cover."""
    total = reach = 0
    for start, stop in sorted(ranges):
        total += max(stop - max(start, reach), 0)
        reach = max(reach, stop)
    return total


def run_steps(steps: Steps[Values], source: Source, access: FileAccess) -> Values:
    """Run steps to their end, of one file."""
    return alone(_settled(Executor(source, access), steps))


def _settled(executor: Executor, steps: Steps[Values]) -> Read[Values]:
    values = yield from executor.through(steps)
    yield from executor.settle()
    return values


def look_elsewhere(source: Source, wanted: Sequence[Elsewhere], access: FileAccess) -> None:
    """Read values that are neither byte ranges of the file nor in a catalog."""
    found = queries.read_rows(source, [(w.layout, w.starts, w.stops) for w in wanted], access)
    for one, held in zip(wanted, found, strict=True):
        one.found = held


def _listed(source: Source, path: str, access: FileAccess) -> Extents:
    key = (source.key, path)
    found = _chunks.get(key) if source.etag is not None else None
    if found is None:
        found = queries.list_chunks(source, path, access)
        if source.etag is not None:
            _chunks.put(key, found, 24 * found.offsets.size + 100)
    return found


def fill_stored(stored: Sequence[Stored], access: FileAccess) -> None:
    """Read what is asked for of catalogs' values, columns of the same rows together."""
    groups: dict[tuple[parquet.ParquetFile, int, int], list[Stored]] = {}
    for asked in stored:
        groups.setdefault((asked.parquet, asked.start, asked.stop), []).append(asked)
    for (file, start, stop), together_asked in groups.items():
        names = list(dict.fromkeys(asked.name for asked in together_asked))
        found = parquet.rows(file, names, start, stop, access)
        for asked in together_asked:
            asked.found = found[asked.name]


class OwnMaps:
    """Chunk maps that were just read."""

    def __init__(self) -> None:
        self.held: dict[int | str, Extents] = {}

    def get(self, root: int | str) -> Extents | None:
        return self.held.get(root)

    def put(self, root: int | str, extents: Extents) -> None:
        self.held[root] = extents


class ChunkMaps:
    """The process's chunk maps of one file; not kept for a file that nothing identifies."""

    def __init__(self, source: Source) -> None:
        self._source = source.key
        self._own: dict[int | str, Extents] = {}

    def get(self, root: int | str) -> Extents | None:
        if self._source[2] is None:
            return self._own.get(root)
        return _chunks.get((self._source, root))

    def put(self, root: int | str, extents: Extents) -> None:
        if self._source[2] is None:
            self._own[root] = extents
        else:
            _chunks.put((self._source, root), extents, 24 * extents.offsets.size + 100)


def _names(source: Source, addresses: set[int], access: FileAccess) -> tuple[Mapping[int, str], bool]:
    """The paths of objects by the addresses of their headers, and whether the file was asked for them."""
    key = source.key
    known = {a: p for a in addresses if (p := _paths.get((key, a))) is not None}
    if len(known) == len(addresses):
        return {a: p for a, p in known.items() if p}, False
    found, asked = queries.names_of(source, addresses, access)
    if source.etag is not None:
        for address in addresses:
            path = found.get(address, "")
            _paths.put((key, address), path, len(path) + 100)
    return found, asked
