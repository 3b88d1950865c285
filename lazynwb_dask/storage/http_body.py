"""The body of an HTTP response, received straight into its place.

aiohttp hands on each piece of a body as bytes of its own, and wakes its reader for each: for large
bodies that is more work than all the rest. So once the headers have been read, the connection's
transport gets another protocol, which receives into the place where the bytes are wanted, and
aiohttp gets its connection back at the body's end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lazynwb_dask.storage.counters import Tally
from lazynwb_dask.storage.faults import Fault
from lazynwb_dask.storage.responses import RangeRequest, receive

# Bodies that are shorter come as aiohttp hands them on.
SHORT = 64 * 1024


async def receive_body(
    response: Any, length: int, request: RangeRequest, clock: asyncio.Timeout
) -> None:
    """Receive the body of an aiohttp.ClientResponse into place."""
    body = _taken_over(response, length, request)
    if body is None:
        await receive(response.content.readany, length, request, clock)
        return
    clock.reschedule(None)  # the body's own clock counts from the last byte
    try:
        await body.done
    finally:
        body.leave()
        request.count(Tally(bytes=body.at))


def _taken_over(response: Any, length: int, request: RangeRequest) -> _Body | None:
    """None if the body is short, has come, or isn't sent as it is."""
    headers = response.headers
    plain = (
        headers.get("Content-Length") == str(length)
        and "Transfer-Encoding" not in headers
        and headers.get("Content-Encoding", "identity") in ("identity", "")
    )
    if not plain or length < SHORT:
        return None
    content, connection = response.content, response.connection
    if connection is None or connection.transport is None or content.exception() is not None:
        return None
    protocol = connection.protocol
    if content.is_eof() or length - content.total_bytes < SHORT or protocol is None:
        return None
    if content.total_bytes > content.get_read_buffer_limits()[0]:
        return None  # more may wait within aiohttp's parser
    begun: bytes = content.read_nowait(-1)
    request.into[: len(begun)] = begun
    return _Body(connection.transport, protocol, content, request, len(begun), length)


class _Body(asyncio.BufferedProtocol):
    """Receives the rest of a body, in aiohttp's place."""

    def __init__(
        self,
        transport: Any,
        protocol: Any,
        content: Any,
        request: RangeRequest,
        at: int,
        length: int,
    ) -> None:
        self.at = at
        self._transport, self._protocol, self._content = transport, protocol, content
        self._into, self._timeout = request.into[:length], request.timeout
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._last = self._loop.time()
        self._clock = self._loop.call_at(self._last + self._timeout, self._look)
        transport.set_protocol(self)

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
