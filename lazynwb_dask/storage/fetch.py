"""Range reads of any file, concurrent, checked, retried after faults, and counted. All reads are here.

`fetch` reads byte ranges; `open_source` the beginning of a file, with its size and version; `open_ends` its
end, too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBPermissionError, NWBReadError
from lazynwb_dask.model.other_files import ZIPPED
from lazynwb_dask.model.source import Source, inside, is_local, object_path, shown
from lazynwb_dask.storage import local
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.backends import gives_end, read, was_redirected
from lazynwb_dask.storage.coalesce import KIB, Piece, Request, plan, serve
from lazynwb_dask.storage.counters import Tally, counters, record
from lazynwb_dask.storage.faults import Fault, fault_of
from lazynwb_dask.storage.multi_file import by_part
from lazynwb_dask.storage.options import Options
from lazynwb_dask.storage.responses import RangeRequest, RangeResponse
from lazynwb_dask.storage.runtime import Started, process
from lazynwb_dask.storage.settings import Settings
from lazynwb_dask.storage.waits import waiting
from lazynwb_dask.storage.zipped import Members
from lazynwb_dask.util.buffers import passing
from lazynwb_dask.util.lru import Cache
from lazynwb_dask.util.threads import is_interrupted

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

__all__ = [
    "Ends",
    "Request",
    "Settings",
    "counters",
    "fetch",
    "open_ends",
    "open_source",
    "record",
    "zip_members",
]

T = TypeVar("T")

_zips = Cache[Members]("directories of zip files")

# Sinks of one buffer are spread over the decoders in batches of about this many bytes.
BATCH = 256 * KIB
# A connection slower than this many bytes a second is given up once the deadline has passed.
SLOWEST = 16 * KIB


def fetch(source: Source, requests: Sequence[Request], access: FileAccess, quick: bool = False) -> None:
    """Read byte ranges of a file, or of a store's objects, all at once. From any thread, but not from a sink.

    A size or version of the source that is known is checked against the store's. Ranges may touch, overlap,
    repeat or be empty, in any order. Each sink is called exactly once, in a thread of a small pool, as soon as
    its bytes have arrived; sinks that are `quick`, since they only keep the bytes, in any thread.
    NWBReadError if a range can't be read; subclasses are for missing files, refused access and files that
    changed. The other ranges are given up then, as they are when a sink raises.
    """
    if source.parts:
        for part, some in by_part(source, requests):
            fetch(part, some, access, quick)
        return
    source, requests = _unzipped(source, requests, access)
    pieces = _pieces(source, requests, access.settings)
    if is_local(source.url) and pieces:
        local.fetch(source, pieces, access.settings)
    elif pieces:
        _Reader(source, access, quick).fetch(pieces)


def start_fetch(
    source: Source, requests: Sequence[Request], access: FileAccess, quick: bool = False
) -> Started[None]:
    """Begin to read byte ranges of one file in a store, as `fetch` does, without waiting for them."""
    source, requests = _unzipped(source, requests, access)
    pieces = _pieces(source, requests, access.settings)
    return _Reader(source, access, quick).start(pieces)


def zip_members(source: Source, access: FileAccess) -> Members:
    """The objects of the Zarr store in a zip file. `source` has the size of the file."""
    plain = replace(source, document="")
    found = _zips.get(plain.key) if plain.etag is not None else None
    if found is None:
        assert plain.size is not None
        found = Members(shown(plain.url), plain.size, partial(_read, plain, access))
        if plain.etag is not None:
            _zips.put(plain.key, found, 300 * len(found.keys))
    return found


def _unzipped(
    source: Source, requests: Sequence[Request], access: FileAccess
) -> tuple[Source, Sequence[Request]]:
    """Requests of a store in a zip file as requests of that file."""
    if source.document != ZIPPED:
        return source, requests
    wanted = [request._replace(key="") if request.key == ZIPPED else request for request in requests]
    if any(request.key for request in wanted):
        wanted = zip_members(source, access).requests(wanted)
    return replace(source, document=""), wanted


def _read(source: Source, access: FileAccess, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes of some ranges."""
    found = [b""] * len(ranges)

    def keep(number: int, data: memoryview) -> None:
        found[number] = bytes(data)

    requests = [Request(start, stop, partial(keep, i)) for i, (start, stop) in enumerate(ranges)]
    fetch(source, requests, access, quick=True)
    return found


def _pieces(source: Source, requests: Sequence[Request], settings: Settings) -> Sequence[Piece]:
    """What is to be fetched for requests. The empty ones are served."""
    for start, stop, sink, key, *_ in requests:
        if not key:
            _check_bounds(source, start, stop)
        if start == stop:
            sink(memoryview(b""))
    wanted = [request for request in requests if request.start < request.stop]
    if not wanted:
        return ()
    todo = plan(wanted, *gap_and_split(source, settings))
    settings.count(shown(source.url), Tally(wanted=todo.wanted, gap=todo.gap))
    return todo.pieces


def gap_and_split(source: Source, settings: Settings) -> tuple[int, int]:
    """The gap that is fetched rather than pay for a request, and the longest range, of one file."""
    if is_local(source.url):
        return min(settings.gap, local.GAP), min(settings.split, local.SPLIT)
    return settings.gap, settings.split


def open_source(source: Source, nbytes: int, access: FileAccess) -> tuple[Source, bytes]:
    """The first `nbytes` of a file, and the source with its size and version, in one request.

    A shorter file is returned whole. What is known of the source is checked. The version is set if the
    store gives one that can be checked.
    """
    if nbytes < 1:
        raise ValueError("nbytes must be at least 1")
    if is_local(source.url):
        return local.open_ends(source, nbytes, 0)[:2]
    if source.size is not None:
        if source.size == 0:
            return source, b""
        nbytes = min(nbytes, source.size)
    return _Reader(source, access).open(nbytes, 0)[:2]


class Ends(NamedTuple):
    """How many bytes of a file are read at first."""

    whole: int  # files of up to so many are read whole, if their size is known
    head: int  # of a larger file
    tail: int  # and of its end, in the same round of requests
    unknown: int  # of a file that may be small


def open_ends(source: Source, ends: Ends, access: FileAccess) -> tuple[Source, bytes, bytes]:
    """What `open_source` returns, and the last bytes of the file, which may be empty.

    A file of unknown size is taken to be large if the last one of its store was, and wasn't elsewhere.
    """
    if is_local(source.url):
        return local.open_ends(source, ends.unknown, ends.tail)
    return (source, b"", b"") if source.size == 0 else _Reader(source, access).open_ends(ends)


def retried(url: str, access: FileAccess, operation: Callable[[AbstractFileSystem, str], T]) -> T:
    """Run an operation of a filesystem, such as listing, with the retries and errors of reads."""
    settings = access.settings
    _reach(url, access.options)  # which may import a client library
    with waiting(url, settings, settings.deadline) as wait:
        while True:
            try:
                return operation(*_reach(url, access.options))
            except NWBReadError:
                raise
            except Exception as error:
                fault = fault_of(error)
            spent = time.monotonic() - wait.begun
            if fault.kind == "credentials" and access.options.anonymous(url):
                continue
            pause = _pause(wait.attempt, fault, settings)
            late = wait.attempt > settings.retries or spent + pause > settings.deadline or is_interrupted()
            if fault.kind != "transient" or late:
                raise _error(url, "listing", fault, wait.attempt, spent)
            wait.failed(fault, pause)
            time.sleep(pause)


def _reach(url: str, options: Options) -> tuple[AbstractFileSystem, str]:
    try:
        return options.filesystem(url)
    except NWBReadError:
        raise
    except Exception as error:
        why = _unreachable(shown(url), error)
    raise why


class _NoObject(NWBFileNotFoundError):
    """A store has no object with some key."""


class _Reader:
    """Reads of one file in a store, by one call."""

    def __init__(self, source: Source, access: FileAccess, quick: bool = False) -> None:
        self.source, self.quick = source, quick
        self.refuses_end = False  # the store doesn't send the end of a file whose size isn't known
        self.name = shown(source.url)
        self.options = access.options
        self.settings = access.settings
        self.process = process()
        self.filesystem, self.path = _reach(source.url, self.options)
        self.process.filesystems[id(self.filesystem)] = self.filesystem

    def fetch(self, pieces: Sequence[Piece]) -> None:
        self.process.run(lambda: self._pieces(pieces), self.settings.is_cancelled)

    def start(self, pieces: Sequence[Piece]) -> Started[None]:
        return self.process.start(lambda: self._pieces(pieces))

    def open_ends(self, ends: Ends) -> tuple[Source, bytes, bytes]:
        large, size = self.process.large, self.source.size
        store = id(self.filesystem), "/".join(self.source.url.split("/", 3)[:3])
        first, last = ends.unknown, 0
        if size is not None:
            first, last = (size, 0) if size <= ends.whole else (ends.head, ends.tail)
        elif large.get(store) and gives_end(self.filesystem):
            first, last = ends.head, ends.tail
        known, head, tail = self.open(first, last)
        if size is None and large.get(store, False) is not None:
            is_large = (known.size or 0) > ends.whole and not was_redirected(self.filesystem, self.path)
            large[store] = None if self.refuses_end and known.size else is_large
        return known, head, tail

    def open(self, first: int, last: int) -> tuple[Source, bytes, bytes]:
        return self.process.run(lambda: self._open(first, last), self.settings.is_cancelled)

    async def _open(self, first: int, last: int) -> tuple[Source, bytes, bytes]:
        buffer, end = memoryview(bytearray(first)), memoryview(bytearray(last))
        found: dict[str, RangeResponse | None] = {"end": None}

        async def read_beginning() -> None:
            found["beginning"] = await self._range(self._request((0, first), buffer, exact=False))

        async def read_end() -> None:
            found["end"] = await self._end(end)

        await _all([read_beginning(), read_end()] if last else [read_beginning()])
        response, after = found["beginning"], found["end"]
        assert response is not None
        self.settings.count(self.name, Tally(wanted=response.length))
        known = replace(
            self.source,
            size=self.source.size if response.size is None else response.size,
            etag=self.source.etag or response.etag,
        )
        if after is None or after.size != known.size or after.etag != response.etag:
            return known, bytes(buffer[: response.length]), b""
        self.settings.count(self.name, Tally(wanted=after.length))
        return known, bytes(buffer[: response.length]), bytes(end[: after.length])

    async def _end(self, into: memoryview) -> RangeResponse | None:
        """The last bytes of the file; None if they don't come at the first attempt."""
        size = self.source.size
        start, stop = (-len(into), 0) if size is None else (size - len(into), size)
        request = self._request((start, stop), into, exact=size is not None)
        async with self.process.connections.hold(1, self.settings.connections):
            end = asyncio.get_running_loop().time() + self.settings.deadline
            outcome = await self._attempt(request, end)
        if not isinstance(outcome, Fault):
            return outcome
        self.refuses_end = outcome.kind not in ("transient", "changed", "credentials")  # for no passing reason
        return None

    def _request(
        self, bounds: tuple[int, int], into: memoryview, exact: bool, key: str = "", etag: str | None = None
    ) -> RangeRequest:
        size, sized = None, not key
        if key == self.source.document:
            size, etag = self.source.size, self.source.etag
        count = partial(self.settings.count, self.name)
        return RangeRequest(*bounds, into, exact, size, etag, self.settings.timeout, count, key, sized)

    async def _pieces(self, pieces: Sequence[Piece]) -> None:
        """Fetch all, so many at a time that tasks of a million chunks don't fill the memory."""
        todo = iter(pieces)

        async def work() -> None:
            for piece in todo:
                await self._piece(piece)

        await _all([work() for _ in range(min(len(pieces), 4 * self.settings.connections))])

    async def _piece(self, piece: Piece) -> None:
        """Fetch one buffer and serve it. Its memory counts until its last sink has returned."""
        length, split = len(piece), self.settings.split
        if piece.is_open and not piece.start and gives_end(self.filesystem):
            length = min(length, split)  # what is longer follows, once it is known how long it is
        try:
            async with self.process.memory.hold(length, self.settings.in_flight):
                buffer, size, etag = passing(length).data, None, None
                if piece.is_open:
                    came, size, etag = await self._open_object(piece, buffer)
                    buffer = buffer[:came]
                else:
                    await _all([self._part(piece, bounds, buffer) for bounds in piece.parts(split)])
                if size is None or size <= len(buffer) or piece.start < 0:
                    return await self._serve(piece, buffer)
            async with self.process.memory.hold(size, self.settings.in_flight):
                whole = passing(size).data
                whole[:length] = buffer
                rest = Piece(length, size, piece.requests).parts(split)
                await _all([self._part(piece, bounds, whole, etag) for bounds in rest])
                return await self._serve(piece, whole)
        except _NoObject as exc:
            if not piece.may_lack:
                raise NWBFileNotFoundError(str(exc)) from None
        await self._call([piece.lack])

    async def _serve(self, piece: Piece, buffer: memoryview) -> None:
        if piece.is_open:
            self.settings.count(self.name, Tally(wanted=len(buffer)))
        batches = [piece.requests] if self.quick else piece.batches(BATCH)
        await self._call([partial(serve, buffer.toreadonly(), piece.start, batch) for batch in batches])

    async def _call(self, calls: Sequence[Callable[[], None]]) -> None:
        """Call sinks, which are quick, or take a decoder."""
        if self.quick:
            for call in calls:
                call()
            return
        await _all([self.process.decode(call) for call in calls])

    async def _part(
        self, piece: Piece, bounds: tuple[int, int], buffer: memoryview, etag: str | None = None
    ) -> None:
        start, stop = bounds
        into = buffer[start - piece.start : stop - piece.start]
        response = await self._range(self._request(bounds, into, True, piece.key, etag))
        self._check_length(piece, response.size)

    def _shown(self, key: str) -> str:
        return shown(inside(self.source.url, key)) if key else self.name

    def _check_length(self, piece: Piece, size: int | None) -> None:
        if problem := piece.problem(size):
            raise NWBReadError(f"{self._shown(piece.key)}: {problem}")

    async def _open_object(self, piece: Piece, buffer: memoryview) -> RangeResponse:
        """The beginning of an object whose length isn't known, or its end, as far as the buffer goes."""
        bounds = (piece.start, piece.start + len(buffer))
        try:
            response = await self._range(self._request(bounds, buffer, False, piece.key))
        except (NWBPermissionError, _NoObject):
            raise
        except NWBReadError:  # not every server gives the end of a file
            if piece.start >= 0:
                raise
            some = await self._range(self._request((0, 1), buffer, False, piece.key))
            if not some.size:
                raise
            bounds = max(some.size + piece.start, 0), some.size
            response = await self._range(self._request(bounds, buffer, True, piece.key, some.etag))
        self._check_length(piece, response.size or response.length)
        return response

    async def _range(self, request: RangeRequest) -> RangeResponse:
        """One range, requested until it arrives, or until retries or deadline of the settings are used up.

        It counts as a connection between attempts too, so that a store that wants a pause gets fewer requests.
        """
        settings, loop = self.settings, asyncio.get_running_loop()
        longest = settings.deadline + (request.stop - request.start) / SLOWEST
        async with self.process.connections.hold(1, settings.connections):
            with waiting(self.source.url, settings, longest) as wait:
                begun = loop.time()
                while True:
                    used = self.filesystem
                    outcome = await self._attempt(request, begun + longest)
                    if not isinstance(outcome, Fault):
                        return outcome
                    if outcome.kind == "credentials" and self._without_credentials(used):
                        continue
                    pause = _pause(wait.attempt, outcome, settings)
                    late = wait.attempt > settings.retries or loop.time() + pause > begun + longest
                    if outcome.kind != "transient" or late:
                        break
                    wait.failed(outcome, pause)
                    await asyncio.sleep(pause)
                    settings.count(self.name, Tally(retries=1))
            spent = loop.time() - begun
        if request.key and outcome.kind == "missing":
            raise _NoObject(f"{self._shown(request.key)}: no such object ({outcome.cause}).")
        what = f"bytes {request.start}-{request.stop - 1}" if request.start >= 0 else "its end"
        raise _error(self._shown(request.key), what, outcome, wait.attempt, spent)

    async def _attempt(self, request: RangeRequest, end: float) -> RangeResponse | Fault:
        sent = 1
        try:
            path = object_path(self.path, request.key) if request.key else self.path
            async with asyncio.timeout_at(end):
                return await read(self.filesystem, path, request, self.process.threads)
        except TimeoutError:
            return Fault("transient", "no end in time")
        except Fault as fault:
            sent = int(fault.kind != "credentials")
            return fault
        finally:
            self.settings.count(self.name, Tally(requests=sent))

    def _without_credentials(self, used: AbstractFileSystem) -> bool:
        """Go on anonymously where no credentials were found and none were given."""
        if self.filesystem is used:
            if not self.options.anonymous(self.source.url):
                return False
            self.filesystem, self.path = self.options.filesystem(self.source.url)
            self.process.filesystems[id(self.filesystem)] = self.filesystem
        return self.filesystem is not used


async def _all(work: Sequence[Coroutine[Any, Any, object]]) -> None:
    """Await all. The first that fails ends the others and is raised, once they have ended."""
    if len(work) < 2:
        for one in work:
            await one
        return
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in tasks if task in done and (task.cancelled() or task.exception())]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if failed:
        failed[0].result()


def _pause(attempt: int, fault: Fault, settings: Settings) -> float:
    """Seconds before the next attempt: more each time, and never the same for two readers."""
    longest: float = min(settings.longest_pause, settings.pause * 2.0 ** (attempt - 1))
    return max(fault.retry_after or 0.0, longest * random.uniform(0.5, 1.0))


def _check_bounds(source: Source, start: int, stop: int) -> None:
    if not 0 <= start <= stop:
        raise ValueError(f"{start} to {stop} is not a byte range")
    if source.size is not None and stop > source.size:
        raise NWBReadError(
            f"{shown(source.url)}: bytes {start}-{stop - 1} are needed, but the file has only "
            f"{source.size}. It is truncated or damaged."
        )


def _error(name: str, what: str, fault: Fault, attempts: int, spent: float) -> NWBReadError:
    """The one error that a caller sees."""
    cause = fault.cause
    match fault.kind:
        case "missing" | "forbidden" if fault.advice:
            kind = NWBFileNotFoundError if fault.kind == "missing" else NWBPermissionError
            return kind(f"{name}: {cause}. {fault.advice}")
        case "missing":
            hint = "Check the path." if name.endswith("/") else "A folder or prefix must end with '/'."
            return NWBFileNotFoundError(f"{name}: no such file ({cause}), and no Zarr store. {hint}")
        case "forbidden" if "407" in cause:
            return NWBPermissionError(
                f"{name}: the proxy refused access ({cause}). Check the user and password in the environment's "
                "HTTP_PROXY or HTTPS_PROXY."
            )
        case "forbidden":
            return NWBPermissionError(
                f"{name}: access refused ({cause}). Check the credentials, in storage_options or "
                "in the environment of the process that reads; signed URLs expire. Where listing "
                "isn't allowed, S3 gives the same response for files that don't exist."
            )
        case "credentials":
            return NWBPermissionError(
                f"{name}: {cause}. Give them in storage_options or in the environment; "
                "{'anon': True} reads public data without."
            )
        case "changed":
            return NWBFileChangedError(
                f"{name}: the file changed between planning and reading: {cause}. Plan again: call "
                "read_nwb again, or refresh the catalog."
            )
        case "truncated":
            return NWBReadError(f"{name}: {what} can't be read: {cause}. The file is truncated or damaged.")
        case "transient":
            return NWBReadError(
                f"{name}: {what} can't be read: {attempts} attempts in {spent:.1f} s failed, the "
                f"last one because of: {cause}. Check the address and the network; try again later, or with "
                "larger settings (timeout, retries, deadline)."
            )
    return NWBReadError(f"{name}: {what} can't be read: {cause}.")


def _unreachable(name: str, error: Exception) -> NWBReadError:
    """No filesystem: the text of the error is shown only where it can't hold an option's value."""
    text, package = str(error), getattr(error.__cause__, "name", None)
    if extra := {"gcsfs": "gcs", "adlfs": "azure"}.get(str(package)):
        return NWBReadError(
            f"{name}: needs {package}, which isn't installed: pip install 'lazynwb-dask[{extra}]'"
        )
    harmless = isinstance(error, ImportError) or text.startswith("Protocol not known")
    why = text if harmless else f"storage_options don't fit ({type(error).__name__})"
    return NWBReadError(f"{name}: can't be reached: {why}.")
