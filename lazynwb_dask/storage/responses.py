"""A request for one range, and whether a store's response is the one to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from lazynwb_dask.storage.counters import Tally
from lazynwb_dask.storage.faults import Fault, kind_of, retry_after_of
from lazynwb_dask.storage.waits import answered

# How much of a body is taken from the socket at a time.
READ = 1024 * 1024

# Content-Encodings that change the bytes. Others are labels: "aws-chunked" is how a file was sent to S3.
_COMPRESSED = frozenset({
    "br", "bz2", "bzip2", "compress", "dcb", "dcz", "deflate", "exi", "gzip", "lz4", "lzma", "pack200-gzip",
    "snappy", "xz", "zip", "zstd",
})  # fmt: skip
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """One range to read."""

    start: int  # negative: the file's last bytes, however long it is
    stop: int
    into: memoryview  # where the bytes go, at least as long as the range
    exact: bool  # False if the file may end before `stop`, as when its size is unknown
    size: int | None  # size and etag, where known, to notice that the file has changed
    etag: str | None
    timeout: float  # seconds without a single byte after which the attempt has failed
    count: Callable[[Tally], None]  # called for bytes received, and requests beyond the first
    key: str = ""  # of an object of a store
    sized: bool = True  # whether a request more is worth knowing the size

    @property
    def header(self) -> str:
        """The value of the header Range."""
        return f"bytes={self.start}" if self.start < 0 else f"bytes={self.start}-{self.stop - 1}"


class RangeResponse(NamedTuple):
    """What came: the number of bytes, and what the store said of the file."""

    length: int
    size: int | None
    etag: str | None


def checked(status: int, headers: Mapping[str, str], request: RangeRequest) -> tuple[int, int | None]:
    """The length that the body must have, and the file's size, if the response is to this request."""
    answered()
    if status in (200, 206) and not is_plain(headers):
        raise Fault("other", "the server sends the file compressed (Content-Encoding)")
    if status == 206:
        return _checked_part(headers, request)
    if status == 200:
        length = _number(headers.get("content-length"))
        enough = length is not None and (length == request.stop if request.exact else length <= request.stop)
        if length is not None and (enough if request.start == 0 else length <= -request.start):
            _check_same(headers, length, request)
            return length, length
        if length and (request.start, request.stop) == (0, 1):  # which only tells what the headers do, too
            _check_same(headers, length, request)
            return 1, length
        if headers.get("content-type", "").startswith("text/html"):
            raise Fault("missing", "the server sends a web page in its place")
        raise Fault("other", "the server ignores Range requests and sends the whole file instead")
    if status == 412:
        raise Fault("changed", "the store says that it is another version")
    if status == 416:
        if request.size is not None and request.size >= request.stop:
            raise Fault("changed", "it is shorter now")
        if request.start == 0 and headers.get("content-range", "*/0").strip().rpartition("/")[2] != "0":
            raise Fault("other", "the server refuses ranges of the file (HTTP status 416)")
        if request.start == 0 and not request.exact:
            return 0, 0  # an empty file has no ranges
        raise Fault("truncated", "the file ends before the bytes that were requested")
    raise Fault(kind_of(status), f"HTTP status {status}", retry_after_of(headers))


def is_plain(headers: Mapping[str, str]) -> bool:
    """Whether a body is sent as it is stored. Labels that name no compression are common in stores.

    >>> is_plain({"content-encoding": "aws-chunked, 7bit"}), is_plain({"content-encoding": "X-GZip"})
    (True, False)
    """
    encoding = headers.get("content-encoding")
    labels = re.split(r"[\s,;\"]+", encoding.lower()) if encoding else ()
    return _COMPRESSED.isdisjoint(label.removeprefix("x-") for label in labels)


def _checked_part(headers: Mapping[str, str], request: RangeRequest) -> tuple[int, int | None]:
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        raise Fault("other", "the server's response lacks a valid Content-Range")
    first, stop = int(match[1]), int(match[2]) + 1
    size = _number(match[3])
    _check_same(headers, size, request)
    if request.exact and size is not None and size < request.stop:
        raise Fault("truncated", f"the file ends at byte {size}")
    expected = request.stop if request.exact or size is None else min(request.stop, size)
    if size is None and not request.exact:
        raise Fault("other", "the server doesn't give the file's size")
    begin = request.start
    if begin < 0 and size is not None:
        begin, expected = max(size + begin, 0), size
    if (first, stop) != (begin, expected):
        raise Fault("transient", f"the server sent bytes {first}-{stop - 1} instead")
    length = _number(headers.get("content-length"))
    if length is not None and length != stop - first:
        raise Fault("transient", f"the server announced {length} bytes")
    return stop - first, size


def _check_same(headers: Mapping[str, str], size: int | None, request: RangeRequest) -> None:
    """Not every server honours If-Match: compare what it says with what was planned."""
    if request.size is not None and size is not None and size != request.size:
        raise Fault("changed", f"it had {request.size} bytes and has {size} now")
    if request.etag:
        etag = headers.get("etag") if is_etag(request.etag) else headers.get("last-modified")
        if etag and not etag.startswith("W/") and etag.strip('"') != request.etag.strip('"'):
            raise Fault("changed", "its ETag or Last-Modified is another one")


async def receive(
    take: Callable[[], Awaitable[bytes]], length: int, request: RangeRequest, clock: asyncio.Timeout
) -> None:
    """Take a body from its socket into place."""
    loop = asyncio.get_running_loop()
    at = 0
    while at < length:
        clock.reschedule(loop.time() + request.timeout)
        data = await take()
        if not data:
            raise Fault("transient", f"{at} bytes came instead of {length}")
        request.count(Tally(bytes=len(data)))
        if (request.start, request.stop) == (0, 1):
            data = data[:1]
        if at + len(data) > length:
            raise Fault("transient", f"more than {length} bytes came")
        request.into[at : at + len(data)] = data
        at += len(data)


def validator(headers: Mapping[str, str]) -> str | None:
    """What distinguishes this version of a file from any other: a strong ETag, else the time of change."""
    etag = headers.get("etag")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("last-modified")


def is_etag(text: str) -> bool:
    """A Last-Modified date stands in where there is no ETag, and needs the other header."""
    return not text.endswith(" GMT")


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def known(info: Mapping[str, Any], request: RangeRequest) -> tuple[int | None, str | None]:
    """A file's size and validator as the filesystem gives them, if they are the ones expected."""
    if info.get("type") == "directory":
        raise Fault("missing", "it is a folder")
    size, etag = info.get("size"), validator_of(info)
    if request.size is not None and size is not None and size != request.size:
        raise Fault("changed", f"it had {request.size} bytes and has {size} now")
    if request.etag is not None and etag is not None and etag != request.etag:
        raise Fault("changed", "the store says that it is another version")
    if request.exact and size is not None and size < request.stop:
        raise Fault("truncated", f"the file ends at byte {size}")
    return size, etag


def validator_of(info: Mapping[str, Any]) -> str | None:
    """The strongest sign of a file's version in what a listing says of it."""
    for name in ("ETag", "etag", "generation"):
        if value := info.get(name):
            return None if str(value).startswith("W/") else str(value)
    for name in ("mtime", "updated", "LastModified", "last_modified", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return f"{value.timestamp():.6f}"
        if isinstance(value, (int, float)):
            return f"{value:.6f}"
    return None
