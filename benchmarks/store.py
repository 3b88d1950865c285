"""A simulated object store: byte ranges of local files over HTTP/1.1, slow on purpose, counted.

It answers plain HTTP (``/bucket/key``) and as much of S3's protocol as s3fs, obstore and Arrow need
for anonymous reads: GET with ranges and conditions, HEAD, ListObjectsV2. `Store` runs it in a process
of its own, so that it takes neither the interpreter lock nor the memory of what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import mmap
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from urllib.request import Request, urlopen
from xml.sax.saxutils import escape

from .depth import longest_chain

PIECE = 256 * 1024  # bytes sent at a time, between two looks at the clock
CONTROL = "/_control/"
NOTHING = memoryview(b"")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_REASONS = {
    200: "OK", 206: "Partial Content", 304: "Not Modified", 400: "Bad Request", 404: "Not Found",
    405: "Method Not Allowed", 412: "Precondition Failed", 416: "Range Not Satisfiable",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """One request: when it came, when the last byte of its answer was sent, and which bytes of the object."""

    key: str
    method: str
    begin: float
    end: float
    sent: int
    start: int = 0


def whole(key: str) -> str:
    """The Zarr store that an object belongs to; else itself."""
    head, mark, _ = key.partition(".zarr/")
    return head + mark.rstrip("/")


@dataclass
class State:
    """What is served, how slowly, and what has been asked for."""

    root: Path
    latency: float = 0.0
    bandwidth: float = 0.0  # bytes a second for each connection; 0: as fast as it goes
    log: list[Served] = field(default_factory=list)
    running: int = 0
    most: int = 0
    connections: int = 0
    maps: dict[str, Object] = field(default_factory=dict)

    def reset(self) -> None:
        self.log.clear()
        self.most = self.connections = 0

    def find(self, key: str) -> Object | None:
        """The object of this name, mapped into memory."""
        held = self.maps.get(key)
        if held is None:
            path = (self.root / key).resolve()
            if not path.is_relative_to(self.root) or not path.is_file():
                return None
            held = self.maps[key] = Object.of(path)
        return held

    def stats(self) -> dict[str, Any]:
        """The sums since the last reset."""
        by_file: dict[str, list[Served]] = {}
        for one in self.log:
            by_file.setdefault(whole(one.key), []).append(one)
        methods: dict[str, int] = {}
        for one in self.log:
            methods[one.method] = methods.get(one.method, 0) + 1
        return {
            "requests": len(self.log),
            "methods": methods,
            "bytes": sum(one.sent for one in self.log),
            "concurrency": self.most,
            "connections": self.connections,
            "depth": longest_chain([(one.begin, one.end) for one in self.log]),
            "file_depth": max(
                (longest_chain([(one.begin, one.end) for one in f]) for f in by_file.values()), default=0
            ),
            "file_requests": max(map(len, by_file.values()), default=0),
            "file_bytes": max((sum(one.sent for one in f) for f in by_file.values()), default=0),
        }


@dataclass(frozen=True)
class Object:
    """One stored object."""

    data: memoryview
    etag: str
    modified: str

    @classmethod
    def of(cls, path: Path) -> Object:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = memoryview(b"")
            if status.st_size:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
        return cls(data, etag, formatdate(status.st_mtime, usegmt=True))


@dataclass(frozen=True)
class Reply:
    """An answer: its body is sent with the store's bandwidth."""

    status: int
    body: memoryview = NOTHING
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None  # where it isn't the body's: of an answer to HEAD
    start: int = 0  # of the body in the object

    def head(self) -> bytes:
        length = len(self.body) if self.length is None else self.length
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}",
            f"Content-Length: {length}",
            "Server: simulated",
            "x-amz-bucket-region: us-east-1",
            *[f"{name}: {value}" for name, value in self.headers],
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


# ---------------------------------------------------------------------------------------- answering
def answer(state: State, method: str, target: str, headers: dict[str, str]) -> Reply:
    """What the store says to a request."""
    url = urlsplit(target)
    path, query = unquote(url.path).lstrip("/"), parse_qs(url.query, keep_blank_values=True)
    if method not in ("GET", "HEAD"):
        return Reply(405)
    if "list-type" in query or "prefix" in query:
        return _listing(state, path.split("/", 1)[0], query)
    if "location" in query:
        return _xml('<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>')
    found = state.find(path)
    if found is None:
        bucket = "/" not in path.strip("/") and (state.root / path).is_dir()
        return Reply(200) if bucket and method == "HEAD" else _error(method)
    if headers.get("if-match", found.etag) not in ("*", found.etag):
        return Reply(412)
    if headers.get("if-none-match") == found.etag:
        return Reply(304)
    about: tuple[tuple[str, str], ...] = (
        ("ETag", found.etag),
        ("Last-Modified", found.modified),
        ("Accept-Ranges", "bytes"),
        ("Content-Type", "application/octet-stream"),
    )
    size = len(found.data)
    wanted = _RANGE.fullmatch(headers.get("range", ""))
    if wanted is None:
        return _body(method, 200, found.data, about)
    first, last = wanted.groups()
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
    if start >= stop:
        return Reply(416, headers=(("Content-Range", f"bytes */{size}"),))
    about += (("Content-Range", f"bytes {start}-{stop - 1}/{size}"),)
    return replace(_body(method, 206, found.data[start:stop], about), start=start)


def _body(method: str, status: int, data: memoryview, headers: tuple[tuple[str, str], ...]) -> Reply:
    if method == "HEAD":
        return Reply(status, headers=headers, length=len(data))
    return Reply(status, data, headers)


def _error(method: str) -> Reply:
    if method == "HEAD":
        return Reply(404)
    text = "<Error><Code>NoSuchKey</Code><Message>No such key.</Message></Error>"
    return Reply(404, memoryview(text.encode()), (("Content-Type", "application/xml"),))


def _xml(text: str) -> Reply:
    data = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    return Reply(200, memoryview(data), (("Content-Type", "application/xml"),))


def _listing(state: State, bucket: str, query: dict[str, list[str]]) -> Reply:
    """One page of ListObjectsV2."""

    def given(name: str, default: str = "") -> str:
        return query.get(name, [default])[0]

    prefix, delimiter = given("prefix"), given("delimiter")
    after = given("continuation-token") or given("start-after")
    most = int(given("max-keys", "1000"))
    encode = quote if given("encoding-type") == "url" else escape
    keys, folders = [], []
    for path in sorted(p for p in (state.root / bucket).rglob("*") if p.is_file()):
        key = path.relative_to(state.root / bucket).as_posix()
        if not key.startswith(prefix) or key <= after:
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            if key[: cut + 1] not in folders:
                folders.append(key[: cut + 1])
            continue
        keys.append((key, path))
    page = keys[:most]
    entries = []
    for key, path in page:
        held = state.find(f"{bucket}/{key}")
        assert held is not None
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(path.stat().st_mtime))
        entries.append(
            f"<Contents><Key>{encode(key)}</Key><LastModified>{stamp}</LastModified>"
            f"<ETag>{escape(held.etag)}</ETag><Size>{len(held.data)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )
    cut_off = len(keys) > most
    last = escape(page[-1][0]) if page else ""
    token = f"<NextContinuationToken>{last}</NextContinuationToken>"
    coding = "<EncodingType>url</EncodingType>" if given("encoding-type") == "url" else ""
    return _xml(
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{escape(bucket)}</Name><Prefix>{encode(prefix)}</Prefix>{coding}"
        f"<KeyCount>{len(page) + len(folders)}</KeyCount><MaxKeys>{most}</MaxKeys>"
        f"<IsTruncated>{str(cut_off).lower()}</IsTruncated>{token if cut_off else ''}"
        + "".join(entries)
        + "".join(f"<CommonPrefixes><Prefix>{encode(f)}</Prefix></CommonPrefixes>" for f in folders)
        + "</ListBucketResult>"
    )


def _control(state: State, target: str) -> Reply:
    """Settings and counters, for who runs the store; neither slow nor counted."""
    url = urlsplit(target)
    query = {name: float(values[0]) for name, values in parse_qs(url.query).items()}
    match url.path.removeprefix(CONTROL):
        case "reset":
            state.reset()
            state.latency = query.get("latency", state.latency)
            state.bandwidth = query.get("bandwidth", state.bandwidth)
            data = {}
        case "stats":
            data = state.stats()
        case "log":
            data = {"log": [astuple(one) for one in state.log]}
        case _:
            return Reply(404)
    return Reply(200, memoryview(json.dumps(data).encode()))


# ------------------------------------------------------------------------------------------ serving
async def serve(state: State, listener: socket.socket) -> None:
    """Accept connections for ever."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(_connection(state, connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _connection(state: State, connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    held, counted = b"", False
    with connection, contextlib.suppress(OSError):
        while True:
            while (end := held.find(b"\r\n\r\n")) < 0:
                data = await loop.sock_recv(connection, 65536)
                if not data:
                    return
                held += data
            lines = held[:end].decode("latin-1").split("\r\n")
            held = held[end + 4 :]
            method, target, _ = lines[0].split(" ", 2)
            headers = dict(_header(line) for line in lines[1:])
            if target.startswith(CONTROL):
                reply = _control(state, target)
                await loop.sock_sendall(connection, reply.head() + bytes(reply.body))
                continue
            if not counted:
                state.connections += 1
                counted = True
            await _answered(state, connection, method, target, headers)


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


async def _answered(
    state: State, connection: socket.socket, method: str, target: str, headers: dict[str, str]
) -> None:
    begin = time.monotonic()
    state.running += 1
    state.most = max(state.most, state.running)
    sent = start = 0
    try:
        reply = answer(state, method, target, headers)
        start = reply.start
        if state.latency:
            await asyncio.sleep(state.latency)
        sent = await _sent(state, connection, reply)
    finally:
        state.running -= 1
        key = unquote(urlsplit(target).path).lstrip("/")
        state.log.append(Served(key, method, begin, time.monotonic(), sent, start))


async def _sent(state: State, connection: socket.socket, reply: Reply) -> int:
    """Send an answer, no faster than one connection carries it."""
    loop = asyncio.get_running_loop()
    head, body, bandwidth = reply.head(), reply.body, state.bandwidth
    if len(body) <= PIECE:
        await loop.sock_sendall(connection, b"".join((head, body)))
    else:
        await loop.sock_sendall(connection, head)
    begun, at = time.monotonic(), len(body) if len(body) <= PIECE else 0
    while at < len(body):
        if bandwidth and (wait := begun + at / bandwidth - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        await loop.sock_sendall(connection, body[at : at + PIECE])
        at += PIECE
    return len(body)


def main() -> None:
    """Serve a folder until killed; the first line of output is the port."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", type=Path)
    state = State(parser.parse_args().root.resolve())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(state, listener))


# ---------------------------------------------------------------------------------- for who uses it
class Store:
    """A store that runs in another process.

    Parameters
    ----------
    root : Path
        Each folder in it is a bucket.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        command = [sys.executable, "-m", "benchmarks.store", str(root)]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def url(self, protocol: str, bucket: str, key: str) -> str:
        """The URL of an object, or of a prefix."""
        if protocol == "s3":
            return f"s3://{bucket}/{key}"
        return f"{self.endpoint}/{bucket}/{key}"

    def reset(self, **settings: float) -> None:
        """Forget what was counted; `latency` and `bandwidth` may be set at the same time."""
        query = "&".join(f"{name}={value}" for name, value in settings.items())
        self._ask(f"reset?{query}")

    def stats(self) -> dict[str, Any]:
        """What was asked for since the last reset."""
        stats: dict[str, Any] = self._ask("stats")
        return stats

    def log(self) -> list[Served]:
        """The requests since the last reset, in the order in which they ended."""
        return [Served(*entry) for entry in self._ask("log")["log"]]

    def _ask(self, what: str) -> Any:
        with urlopen(Request(f"{self.endpoint}{CONTROL}{what}"), timeout=60) as response:
            return json.load(response)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def running(root: Path) -> Iterator[Store]:
    """A store for as long as a block runs."""
    store = Store(root)
    try:
        yield store
    finally:
        store.close()


if __name__ == "__main__":
    main()
