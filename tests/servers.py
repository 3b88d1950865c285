"""Servers for the tests: real sockets, everything counted, faults on demand.

`RangeServer` is an HTTP server of byte ranges with all the manners and all the bad habits that
stores have. `S3Server` is moto's S3 behind a counting door.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

REGION = "us-east-1"


@dataclass
class Logged:
    """One request, as the server saw it. ``sent`` counts bytes of the body."""

    method: str
    path: str
    range: tuple[int, int] | None
    status: int
    sent: int
    headers: Mapping[str, str]
    fault: str | None = None
    ended: bool = False
    client: int = 0


class _Log:
    """Requests in the order in which they came, and how many ran at once.

    An entry is there before its client can see the end of the answer, and no longer counts as
    running then: what a client has received is in the log.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.log: list[Logged] = []
        self.running = 0
        self.max_running = 0

    def enter(self, entry: Logged) -> None:
        with self._lock:
            self.log.append(entry)
            self.running += 1
            self.max_running = max(self.max_running, self.running)

    def leave(self, entry: Logged) -> None:
        with self._lock:
            self.running -= not entry.ended
            entry.ended = True

    def clear_log(self) -> None:
        with self._lock:
            for entry in self.log:
                entry.ended = True
            self.log.clear()
            self.running = self.max_running = 0

    @property
    def sent(self) -> int:
        """Bytes of all bodies so far."""
        with self._lock:
            return sum(entry.sent for entry in self.log)

    def requests(self, method: str | None = None) -> list[Logged]:
        """The requests so far, of one method or all."""
        with self._lock:
            return [entry for entry in self.log if method in (None, entry.method)]


@dataclass
class Behaviour:
    """What a `RangeServer` does besides serving.

    Attributes
    ----------
    latency : float
        Seconds before each answer.
    bandwidth : float, optional
        Bytes a second for each connection.
    faults : list
        Taken one by one by the GETs that come; None lets one pass. A fault is a status ("500"), or
        one of "reset" (no answer), "cut" (half the body, then the connection ends), "short" (an
        answer that announces fewer bytes than asked), "stall" (the headers, then nothing), "silent"
        (nothing at all), "garbage" (a Content-Range that is none).
    fault_rate : dict
        Fault to probability, drawn for each GET with ``seed``.
    retry_after : str, optional
        Sent along with 429 and 503.
    etag, last_modified : str
        "strong", "weak" or "none"; "yes" or "none".
    conditions : bool
        Whether If-Match and If-Unmodified-Since are heeded.
    ignore_range : bool
        Every answer is 200 and the whole file.
    last_bytes : bool or int
        False: so is that to a request for the last bytes of a file. A status: that is the answer.
    head : bool
        False: HEAD is answered 403, as presigned URLs do.
    forbidden : set
        Names that are answered 403; ``"*"`` for all.
    authorized : set, optional
        Values of the header Authorization; requests without one of them are answered 403.
    headers : dict
        Sent along with each file.
    redirects : dict
        Name to the URL that it redirects to.
    before : callable, optional
        Called with the name and the number of the request before it is answered.
    """

    latency: float = 0.0
    bandwidth: float | None = None
    faults: list[str | None] = field(default_factory=list)
    fault_rate: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    retry_after: str | None = None
    etag: str = "strong"
    last_modified: str = "yes"
    conditions: bool = True
    ignore_range: bool = False
    last_bytes: bool | int = True
    head: bool = True
    forbidden: set[str] = field(default_factory=set)
    authorized: set[str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    before: Callable[[str, int], None] | None = None
    stall: float = 30.0


@dataclass
class Served:
    """One version of a file."""

    data: memoryview
    etag: str
    modified: str


class RangeServer(_Log):
    """A keep-alive HTTP/1.1 server of byte ranges on 127.0.0.1.

    Parameters
    ----------
    files : dict or path, optional
        Name to bytes, or a folder.
    tls : ssl.SSLContext, optional
        With a certificate.
    **behaviour
        See `Behaviour`; also settable later, as ``server.behaviour.latency = 0.1``.

    Examples
    --------
    >>> with RangeServer({"a.nwb": bytes(1000)}) as server:
    ...     server.url("a.nwb").rpartition("/")[2]
    'a.nwb'
    """

    def __init__(
        self,
        files: Mapping[str, bytes] | str | os.PathLike[str] | None = None,
        tls: ssl.SSLContext | None = None,
        **behaviour: Any,
    ) -> None:
        super().__init__()
        self.folder = None if files is None or isinstance(files, Mapping) else os.fspath(files)
        self.files: dict[str, bytes] = dict(files) if isinstance(files, Mapping) else {}
        self._served: dict[str, Served] = {}
        self._initial = behaviour
        self._over = threading.Event()
        self._chance = threading.Lock()
        self.reset(keep_files=True)
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> RangeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        host, port = self._server.server_address[:2]
        return f"{self._scheme}://{host!s}:{port}"

    def url(self, name: str) -> str:
        return f"{self.endpoint}/{name}"

    def reset(self, *, keep_files: bool = False) -> None:
        """Forget the log, the faults and, unless told otherwise, the files."""
        self._over.set()  # whatever still stalls
        self._over = threading.Event()
        self.clear_log()
        self.count = 0
        self.behaviour = Behaviour(**self._initial)
        self._random = random.Random(self.behaviour.seed)
        if not keep_files:
            self.files.clear()
            self._served.clear()

    def put(self, name: str, data: bytes) -> str:
        """Serve a file, in place of one of that name if there is one; returns its URL."""
        self.files[name] = data
        return self.url(name)

    def version(self, name: str) -> tuple[str, str]:
        """ETag and Last-Modified."""
        served = self.serve(name)
        assert served is not None
        return served.etag, served.modified

    def serve(self, name: str) -> Served | None:
        """A file as it is now; an answer that has begun doesn't see it replaced."""
        if self.folder is not None:
            path = os.path.join(self.folder, name)
            if not os.path.isfile(path):
                return None
            status = os.stat(path)
            data = memoryview(b"")
            if status.st_size:  # nothing can't be mapped
                with open(path, "rb") as file:
                    data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            return Served(data, etag, formatdate(status.st_mtime, usegmt=True))
        content = self.files.get(name)
        if content is None:
            return None
        served = self._served.get(name)
        if served is None or served.data.obj is not content:
            digest = hashlib.md5(content).hexdigest()
            stamp = 1_700_000_000 + int(digest[:6], 16)  # another content, another time
            served = Served(memoryview(content), f'"{digest}"', formatdate(stamp, usegmt=True))
            self._served[name] = served
        return served

    def listing(self, folder: str) -> list[str] | None:
        """Names in a folder that an index page would link to."""
        below = [name[len(folder) :] for name in self.files if name.startswith(folder)]
        return sorted({re.sub(r"/.*", "/", name) for name in below}) or None

    def next_fault(self) -> str | None:
        with self._chance:
            if self.behaviour.faults:
                return self.behaviour.faults.pop(0)
            draw = self._random.random()
            for fault, rate in self.behaviour.fault_rate.items():
                if draw < rate:
                    return fault
                draw -= rate
        return None

    def wait(self, seconds: float) -> None:
        self._over.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that goes away is nothing to report."""


class _Reset(Exception):
    """End the connection the hard way."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 64 * 1024
    disable_nagle_algorithm = True
    owner: RangeServer

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        owner = self.owner
        name = unquote(urlsplit(self.path).path).lstrip("/")
        self.entry = Logged(self.command, self.path, self._range(1 << 62), 0, 0, dict(self.headers))
        self.entry.client = self.client_address[1]
        owner.enter(self.entry)
        try:
            owner.count += 1
            if owner.behaviour.before:
                owner.behaviour.before(name, owner.count)
            if owner.behaviour.latency:
                owner.wait(owner.behaviour.latency)
            self._answer(name, owner.behaviour)
            owner.leave(self.entry)
            self.wfile.flush()
        except _Reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RD)
            self.connection.close()
        except OSError:
            self.close_connection = True
        finally:
            owner.leave(self.entry)

    def _answer(self, name: str, behaviour: Behaviour) -> None:
        owner = self.owner
        if self.command == "HEAD" and not behaviour.head:
            return self._empty(403)
        if name in behaviour.forbidden or "*" in behaviour.forbidden:
            return self._empty(403)
        allowed, shown = behaviour.authorized, self.headers.get("Authorization")
        if allowed is not None and shown not in allowed:
            return self._empty(403)
        if name in behaviour.redirects:
            return self._empty(302, {"Location": behaviour.redirects[name]})
        if name == "" or name.endswith("/"):
            return self._index(name)
        served = owner.serve(name)
        if served is None:
            if owner.listing(f"{name}/") is not None:
                return self._empty(301, {"Location": f"/{name}/"})
            return self._empty(404)
        fault = owner.next_fault() if self.command == "GET" else None
        self.entry.fault = fault
        if fault is not None and fault.isdecimal():
            after = {"Retry-After": behaviour.retry_after} if behaviour.retry_after else {}
            size = {"Content-Range": f"bytes */{len(served.data)}"} if fault == "416" else {}
            return self._empty(int(fault), after | size)
        if fault == "reset":
            raise _Reset
        if fault == "silent":
            owner.wait(behaviour.stall)
            raise _Reset
        if behaviour.last_bytes > 1 and self.headers.get("Range", "").startswith("bytes=-"):
            return self._empty(int(behaviour.last_bytes))
        size, etag = len(served.data), served.etag
        if behaviour.conditions and not self._holds(etag, served.modified):
            return self._empty(412)
        headers = {"Accept-Ranges": "none" if behaviour.ignore_range else "bytes", **behaviour.headers}
        if behaviour.etag != "none":
            headers["ETag"] = f"W/{etag}" if behaviour.etag == "weak" else etag
        if behaviour.last_modified == "yes":
            headers["Last-Modified"] = served.modified
        wanted = None if behaviour.ignore_range else self._range(size)
        if wanted is None:
            return self._body(200, served.data, headers, fault)
        start, stop = wanted
        if start >= size:
            return self._empty(416, {"Content-Range": f"bytes */{size}"})
        if fault == "short":
            stop = start + (stop - start) // 2
        last = "x" if fault == "garbage" else str(stop - 1)
        headers["Content-Range"] = f"bytes {start}-{last}/{size}"
        return self._body(206, served.data[start:stop], headers, fault)

    def _range(self, size: int) -> tuple[int, int] | None:
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if match is None or match[1] == match[2] == "":
            return None
        if match[1] == "" and not self.owner.behaviour.last_bytes:
            return None
        if match[1] == "":
            return max(0, size - int(match[2])), size
        stop = int(match[2]) + 1 if match[2] else size
        return int(match[1]), min(stop, size)

    def _holds(self, etag: str, modified: str) -> bool:
        if condition := self.headers.get("If-Match"):
            return condition in ("*", etag)
        if condition := self.headers.get("If-Unmodified-Since"):
            return parsedate_to_datetime(modified) <= parsedate_to_datetime(condition)
        return True

    def _index(self, folder: str) -> None:
        names = self.owner.listing(folder)
        if names is None:
            return self._empty(404)
        links = "".join(f'<a href="{name}">{name}</a>\n' for name in names)
        page = f"<html><body>{links}</body></html>".encode()
        self._start(200, len(page), {"Content-Type": "text/html"})
        if self.command != "HEAD":
            self.wfile.write(page)
        return None

    def _start(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.entry.status = status
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _empty(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self._start(status, 0, headers or {})

    def _body(self, status: int, data: memoryview, headers: Mapping[str, str], fault: str | None) -> None:
        self._start(status, len(data), headers)
        if self.command == "HEAD":
            return
        if fault in ("cut", "stall"):
            data = data[: len(data) // 2]
        self._send(data)
        if fault == "stall":
            self.wfile.flush()
            self.owner.wait(self.owner.behaviour.stall)
        if fault in ("cut", "stall"):
            self.wfile.flush()
            raise _Reset

    def _send(self, data: memoryview) -> None:
        bandwidth = self.owner.behaviour.bandwidth
        step = len(data) if bandwidth is None else max(4096, int(bandwidth / 50))
        begun = time.monotonic()
        for at in range(0, len(data), max(1, step)):
            part = data[at : at + step]
            self.entry.sent += len(part)
            if at + len(part) == len(data) and self.entry.fault not in ("cut", "stall"):
                self.wfile.write(part[:-1])
                self.owner.leave(self.entry)
                part = part[-1:]
            self.wfile.write(part)
            if bandwidth is not None:
                self.wfile.flush()
                ahead = min(at + step, len(data)) / bandwidth - (time.monotonic() - begun)
                self.owner.wait(max(0.0, ahead))


class S3Server(_Log):
    """Moto's S3 over a real socket, every request counted on its way in.

    Attributes
    ----------
    endpoint : str
    storage_options : dict
        For signed access with this server's key; secrets of no value.
    signed_only : bool
        Whether unsigned requests are answered 403.
    keys : set, optional
        Access keys; requests that aren't signed with one of them are answered 403.
    refused : callable, optional
        Whether a request of this path, with its query, is answered 403.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        super().__init__()
        self.signed_only = False
        self.keys: set[str] | None = None
        self.refused: Callable[[str], bool] | None = None
        self._app = DomainDispatcherApplication(create_backend_app)

        class Handler(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"  # keep-alive, as S3 does
            disable_nagle_algorithm = True

            def log(self, *_: Any) -> None:
                """Quiet."""

        self._server = make_server("127.0.0.1", 0, self._count, True, request_handler=Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> S3Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def storage_options(self) -> dict[str, Any]:
        return {
            "key": "testing",
            "secret": "testing",
            "endpoint_url": self.endpoint,
            "client_kwargs": {"region_name": REGION},
        }

    @property
    def anonymous(self) -> dict[str, Any]:
        """Storage options that don't say which credentials to use."""
        return {"endpoint_url": self.endpoint, "client_kwargs": {"region_name": REGION}}

    def put(self, bucket: str, key: str, data: bytes, *, public: bool = True) -> str:
        """Store an object, not by a request; returns its URL. A private one needs a signature."""
        from moto.s3.models import get_canned_acl

        backend = self._backend()
        if bucket not in backend.buckets:
            backend.create_bucket(bucket, REGION)
        stored = backend.put_object(bucket, key, data)
        stored.set_acl(get_canned_acl("public-read" if public else "private"))
        return f"s3://{bucket}/{key}"

    def reset(self) -> None:
        """Forget all buckets and the log."""
        self._backend().reset()
        self.signed_only = False
        self.keys = self.refused = None
        self.clear_log()

    @staticmethod
    def _backend() -> Any:
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    def _count(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", environ.get("HTTP_RANGE", ""))
        entry = Logged(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"] + ("?" + environ["QUERY_STRING"]) * bool(environ["QUERY_STRING"]),
            (int(wanted[1]), int(wanted[2]) + 1) if wanted else None,
            0,
            0,
            {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")},
        )

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            entry.status = int(status.split()[0])
            return start_response(status, headers, *rest)

        self.enter(entry)
        try:
            said = environ.get("HTTP_AUTHORIZATION", "") + environ["QUERY_STRING"]
            key = re.search(r"Credential=([^/%&]+)", said)
            refused = self.signed_only and "Signature" not in said
            refused |= self.keys is not None and (key is None or key[1] not in self.keys)
            refused |= self.refused is not None and self.refused(entry.path)
            if refused:
                start("403 Forbidden", [("Content-Length", "0")])
                return [b""]
            body = b"".join(self._app(environ, start))
            entry.sent = 0 if entry.method == "HEAD" else len(body)
            return [body]
        finally:
            self.leave(entry)
