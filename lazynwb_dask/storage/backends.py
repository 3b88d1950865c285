"""One attempt to read one byte range, for each kind of filesystem.

A range either arrives whole and from the right file, or the attempt raises a `Fault`.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from lazynwb_dask.storage.counters import Tally
from lazynwb_dask.storage.dandi import read_asset
from lazynwb_dask.storage.faults import Fault, fault_of
from lazynwb_dask.storage.http_body import receive_body
from lazynwb_dask.storage.responses import READ, RangeRequest, RangeResponse, checked, is_etag, known, validator
from lazynwb_dask.storage.s3 import read_s3
from lazynwb_dask.util.locks import Lock

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem


async def read(
    filesystem: AbstractFileSystem, path: str, request: RangeRequest, threads: Executor
) -> RangeResponse:
    """Read one range, once, on fsspec's event loop; filesystems that block are read in `threads`.

    Whatever goes wrong is raised as a Fault.
    """
    try:
        protocols, inner = _protocols(filesystem), filesystem.__dict__.get("fs")
        if "http" in protocols:
            return await _http(filesystem, path, request)
        if "s3" in protocols:
            return await read_s3(filesystem, path, request)
        if "dandi" in protocols:
            return await read_asset(filesystem, path, request)
        if protocols and (inner is None or inner.async_impl):
            return await _asynchronous(filesystem, path, request)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, _blocking, filesystem, path, request)
    except Exception as error:
        fault = fault_of(error)
    raise fault  # outside the handler: the original must not hang on to it


def _protocols(filesystem: AbstractFileSystem) -> set[str]:
    """The names of an asynchronous filesystem; empty for one that blocks."""
    cls = type(filesystem)
    names = {cls.protocol} if isinstance(cls.protocol, str) else set(cls.protocol)
    return names if cls.async_impl else set()


def gives_end(filesystem: AbstractFileSystem) -> bool:
    """Whether a file's last bytes can be read in one request without its size."""
    return not _protocols(filesystem).isdisjoint(("http", "s3"))


def was_redirected(filesystem: AbstractFileSystem, path: str) -> bool:
    """Whether an address led to another one when it was last read."""
    return path in _redirects.get(filesystem, {})


# Where addresses of each filesystem redirected to, and when.
_redirects: WeakKeyDictionary[Any, dict[str, tuple[Any, float]]] = WeakKeyDictionary()
FRESH = 300  # seconds for which that is used
KEPT = 10_000  # of each filesystem
# Statuses that may mean that it has expired.
_EXPIRED = frozenset({400, 401, 403, 404, 410})
# What is sent to the address that was named, and not to those that it redirects to.
_NAMED_ONLY = frozenset({"authorization", "cookie", "proxy-authorization"})


async def _http(filesystem: Any, path: str, request: RangeRequest) -> RangeResponse:
    """Read one range, once. Ranges of a file that was opened go where its address redirected to, which may
    be a signed URL."""
    from aiohttp import ClientTimeout
    from yarl import URL

    keywords = dict(filesystem.kwargs)
    keywords.setdefault("timeout", ClientTimeout(total=None))  # the clock below is ours
    headers = {**keywords.pop("headers", {}), "Range": request.header, "Accept-Encoding": "identity"}
    if request.etag:
        headers["If-Match" if is_etag(request.etag) else "If-Unmodified-Since"] = request.etag
    keywords |= {"auto_decompress": False, "read_bufsize": READ, "raise_for_status": False}
    asked = URL(filesystem.encode_url(path), encoded=True)
    redirects = _redirects.setdefault(filesystem, {})
    async with asyncio.timeout(request.timeout) as clock:
        session = await filesystem.set_session()
        target, made = redirects.get(path, (None, 0.0))
        if target is not None and (request.exact or request.etag) and time.monotonic() - made < FRESH:
            kept = headers
            if target.origin() != asked.origin():
                kept = {name: value for name, value in headers.items() if name.lower() not in _NAMED_ONLY}
            async with session.get(target, headers=kept, **keywords) as response:
                if response.status not in _EXPIRED:
                    return await _received(response, request, clock)
            request.count(Tally(requests=1, retries=1))
        redirects.pop(path, None)
        async with session.get(asked, headers=headers, **keywords) as response:
            # what a session sends by itself would go to the other host too
            if response.history and not filesystem.client_kwargs.keys() - _HARMLESS and len(redirects) < KEPT:
                redirects[path] = response.url, time.monotonic()
            return await _received(response, request, clock)


_HARMLESS = frozenset({"timeout", "trust_env", "read_bufsize", "connector"})


async def _received(response: Any, request: RangeRequest, clock: asyncio.Timeout) -> RangeResponse:
    length, size = checked(response.status, response.headers, request)
    await receive_body(response, length, request, clock)
    return RangeResponse(length, size, validator(response.headers))


async def _asynchronous(filesystem: Any, path: str, request: RangeRequest) -> RangeResponse:
    async with asyncio.timeout(request.timeout + len(request.into) / (16 * 1024)):  # no progress is seen
        size, etag = request.size, request.etag
        if request.start >= 0 and not (request.exact or request.sized):
            data = await filesystem._cat_file(path, start=request.start, end=request.stop + 1)
            request.count(Tally(bytes=len(data)))
            return _placed(data, (request.start, request.start + len(data)), None, etag, request)
        if not request.exact:
            size, etag = known(await filesystem._info(path), request)
        start, stop = _bounds(request, size)
        data = b""
        if stop > start:
            data = await filesystem._cat_file(path, start=start, end=stop)
        request.count(Tally(bytes=len(data)))
        if len(data) < stop - start:
            known(await filesystem._info(path), request)
    return _placed(data, (start, stop), size, etag, request)


def _bounds(request: RangeRequest, size: int | None) -> tuple[int, int]:
    """A range's bounds in a file of some size, if that is known."""
    if request.exact or size is None:
        return request.start, request.stop
    if request.start < 0:
        return max(size + request.start, 0), size
    return request.start, min(request.stop, size)


_locks: WeakKeyDictionary[Any, Lock] = WeakKeyDictionary()
_locks_lock = Lock()


def _blocking(filesystem: Any, path: str, request: RangeRequest) -> RangeResponse:
    if "memory" in type(filesystem).protocol:
        return _one_at_a_time(filesystem, path, request, info=True)
    # Archives share one file handle, caches download on the first read: neither likes threads.
    with _locks_lock:
        lock = _locks.setdefault(filesystem, Lock())
    with lock:
        return _one_at_a_time(filesystem, path, request, info=bool(request.key) or not request.exact)


def _one_at_a_time(filesystem: Any, path: str, request: RangeRequest, info: bool) -> RangeResponse:
    size, etag = known(filesystem.info(path), request) if info else (request.size, request.etag)
    start, stop = _bounds(request, size)
    data = filesystem.cat_file(path, start=start, end=stop) if stop > start else b""
    request.count(Tally(bytes=len(data)))
    if len(data) < stop - start and not info:
        known(filesystem.info(path), request)
    return _placed(data, (start, stop), size, etag, request)


def _placed(
    data: bytes, bounds: tuple[int, int], size: int | None, etag: str | None, request: RangeRequest
) -> RangeResponse:
    start, stop = bounds
    if len(data) != stop - start:
        raise Fault("transient", f"{len(data)} bytes came instead of {stop - start}")
    if len(data) > len(request.into):
        raise Fault("truncated", f"it has more than {len(request.into)} bytes")
    request.into[: len(data)] = data
    return RangeResponse(len(data), size, etag)
