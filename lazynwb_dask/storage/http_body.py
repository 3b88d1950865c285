"""The body of an HTTP response, received straight into its place.

aiohttp makes bytes of each piece of a body, and wakes its reader for each, which for large bodies is most
of the work. So once the headers have been read, the connection's transport gets another protocol, which
receives into the buffer where the bytes are wanted. At the body's end, aiohttp gets its connection back.

That relies on undocumented parts of aiohttp, listed in `USED`. They are checked once, at a process's first
long body. If any is missing or has changed, aiohttp reads the bodies, which is slower.
"""

from __future__ import annotations

import asyncio
import logging
from operator import attrgetter
from typing import Any

from lazynwb_dask.storage.counters import Tally
from lazynwb_dask.storage.faults import Fault
from lazynwb_dask.storage.responses import RangeRequest, is_plain, receive

# Bodies that are shorter come as aiohttp hands them on.
SHORT = 64 * 1024

# What is used of an aiohttp.ClientResponse and of what belongs to it.
USED = (
    ("connection.protocol", ("connection_lost", "data_received", "eof_received")),
    ("connection.transport", ("abort", "get_protocol", "is_reading", "set_protocol")),
    ("content", ("exception", "feed_eof", "get_read_buffer_limits", "is_eof", "read_nowait", "total_bytes")),
)

logger = logging.getLogger(__name__)


class Usage:
    """How many bodies of this process were received in place, and how many by aiohttp.

    `problem` is why none is received in place; empty if there is no reason; None if that isn't known yet.
    """

    def __init__(self) -> None:
        self.in_place = self.by_aiohttp = 0
        self.problem: str | None = None

    def give_up(self, problem: str) -> None:
        self.problem = problem
        logger.info("long bodies are read as aiohttp hands them on: %s", problem)


usage = Usage()


async def receive_body(response: Any, length: int, request: RangeRequest, clock: asyncio.Timeout) -> None:
    """Receive the body of an aiohttp.ClientResponse into place."""
    try:
        body = _taken_over(response, length, request)
    except (AttributeError, TypeError, ValueError) as error:
        usage.give_up(f"{type(error).__name__} where its connection is taken")
        raise Fault("transient", "the body can't be received in place") from None
    if body is None:
        usage.by_aiohttp += 1
        await receive(response.content.readany, length, request, clock)
        return
    usage.in_place += 1
    clock.reschedule(None)  # the body's own clock counts from the last byte
    try:
        await body.done
    finally:
        body.leave()
        request.count(Tally(bytes=body.at))
    if response.connection is not None and response.content.exception() is None:
        usage.give_up("it doesn't take back its connection")


def problem_with(response: Any) -> str:
    """What isn't as it is used here; empty if nothing."""
    for path, names in USED:
        try:
            owner = attrgetter(path)(response)
        except AttributeError:
            return f"there is no {path}"
        if missing := [name for name in names if not hasattr(owner, name)]:
            return f"there is no {path}.{missing[0]}"
    protocol = response.connection.protocol
    if not isinstance(protocol, asyncio.Protocol):
        return f"{type(protocol).__name__} is no asyncio.Protocol"
    if response.connection.transport.get_protocol() is not protocol:
        return "another protocol receives its bytes"
    return ""


def _taken_over(response: Any, length: int, request: RangeRequest) -> _Body | None:
    """None if the body is short, has come, or isn't sent as it is, or if aiohttp has changed."""
    headers = response.headers
    plain = (
        headers.get("Content-Length") == str(length)
        and "Transfer-Encoding" not in headers
        and is_plain(headers)
    )
    if not plain or length < SHORT or usage.problem:
        return None
    connection: Any = getattr(response, "connection", False)
    if connection is None or getattr(connection, "transport", False) is None:
        return None  # all has come, or the connection is lost
    if usage.problem is None:
        usage.problem = problem_with(response)
        if usage.problem:
            usage.give_up(usage.problem)
            return None
    content = response.content
    if content.exception() is not None or content.is_eof():
        return None
    if not connection.transport.is_reading():
        return None
    arrived = content.total_bytes
    if length - arrived < SHORT or arrived > content.get_read_buffer_limits()[0]:
        return None  # little is left; or more may wait within aiohttp's parser
    begun: bytes = content.read_nowait(-1)
    if len(begun) != arrived:
        usage.give_up("its count of bytes isn't that of the bytes it has")
        raise Fault("transient", f"{len(begun)} bytes came instead of {arrived}")
    request.into[:arrived] = begun
    return _Body(response, request, arrived, length)


class _Body(asyncio.BufferedProtocol):
    """Receives the rest of a body, in aiohttp's place."""

    def __init__(self, response: Any, request: RangeRequest, at: int, length: int) -> None:
        self.at = at
        self._transport, self._content = response.connection.transport, response.content
        self._protocol = response.connection.protocol
        self._into, self._timeout = request.into[:length], request.timeout
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._last = self._loop.time()
        self._clock = self._loop.call_at(self._last + self._timeout, self._look)
        self._transport.set_protocol(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._into[self.at :]

    def buffer_updated(self, nbytes: int) -> None:
        self.at += nbytes
        self._last = self._loop.time()
        if self.at == len(self._into):
            self._transport.set_protocol(self._protocol)
            self._content.feed_eof()  # gives the connection back
            self._end(None)

    def eof_received(self) -> None:
        self._end(Fault("transient", f"{self.at} bytes came instead of {len(self._into)}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof_received()
        self._protocol.connection_lost(exc)

    def leave(self) -> None:
        """Never write again: another attempt may use the place."""
        self._clock.cancel()
        if self.at < len(self._into):
            self._transport.set_protocol(self._protocol)
            self._transport.abort()

    def _look(self) -> None:
        if self._loop.time() >= self._last + self._timeout:
            self._end(TimeoutError())
        else:
            self._clock = self._loop.call_at(self._last + self._timeout, self._look)

    def _end(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
