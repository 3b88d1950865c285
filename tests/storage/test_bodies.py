"""Long bodies are received straight into place, and aiohttp gets its connection back."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import pandas as pd
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from reading import DATA, IMPATIENT, MIB, PLAIN, QUICK, read
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import http_body, open_source, record
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.http_body import SHORT
from lazynwb_dask.storage.options import Options

LENGTHS = [1, SHORT - 1, SHORT, SHORT + 1, 300_000, 2 * MIB]


@pytest.fixture
def https(tmp_path: Path) -> Iterator[tuple[RangeServer, Options]]:
    """A server with a certificate of its own, and options that trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with RangeServer({"a.nwb": DATA}, tls=context) as server:
        yield server, Options({"ssl": ssl.create_default_context(cafile=path)})


@pytest.mark.parametrize("length", LENGTHS)
def test_bodies_of_all_lengths_arrive_whole_over_http(range_server: RangeServer, length: int) -> None:
    source, _ = open_source(Source(range_server.put("a.nwb", DATA)), 10, FileAccess(PLAIN, QUICK))
    with record() as seen:
        assert read(source, [(5, 5 + length)]) == [DATA[5 : 5 + length]]
    assert (seen.total.requests, seen.total.bytes) == (1, length)


@pytest.mark.parametrize("length", LENGTHS)
def test_bodies_of_all_lengths_arrive_whole_over_tls(https: tuple[RangeServer, Options], length: int) -> None:
    server, options = https
    source, _ = open_source(Source(server.url("a.nwb")), 10, FileAccess(options, QUICK))
    with record() as seen:
        assert read(source, [(5, 5 + length)], options) == [DATA[5 : 5 + length]]
    assert (seen.total.requests, seen.total.bytes) == (1, length)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> http_body.Usage:
    """Nothing is known of aiohttp yet."""
    usage = http_body.Usage()
    monkeypatch.setattr(http_body, "usage", usage)
    return usage


def long_body(server: RangeServer) -> None:
    """Read bodies of which one is long, and check them."""
    source, _ = open_source(Source(server.put("a.nwb", DATA)), 10, FileAccess(PLAIN, QUICK))
    ranges = [(5, 1_000_005), (2_000_000, 2_000_100)]
    assert read(source, ranges) == [DATA[a:b] for a, b in ranges]


def test_long_bodies_are_received_in_place(range_server: RangeServer, fresh: http_body.Usage) -> None:
    long_body(range_server)
    assert (fresh.in_place, fresh.problem) == (1, "")


USED = [
    (aiohttp.ClientResponse, "connection"),
    (aiohttp.StreamReader, "exception"),
    (aiohttp.StreamReader, "feed_eof"),
    (aiohttp.StreamReader, "get_read_buffer_limits"),
    (aiohttp.StreamReader, "is_eof"),
    (aiohttp.StreamReader, "read_nowait"),
    (aiohttp.client_proto.ResponseHandler, "eof_received"),
]


@pytest.mark.parametrize(("owner", "name"), USED)
def test_where_aiohttp_lacks_what_that_needs_it_reads_the_bodies(
    range_server: RangeServer, fresh: http_body.Usage, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    class Without:
        """What aiohttp itself needs stays, what we look for is gone."""

        def __init__(self, whole: object) -> None:
            self.whole = whole

        def __getattr__(self, wanted: str) -> object:
            if wanted == name:
                raise AttributeError(wanted)
            found = getattr(self.whole, wanted)
            return Without(found) if isinstance(found, parts) else found

    parts = (aiohttp.StreamReader, aiohttp.client_proto.ResponseHandler, aiohttp.connector.Connection)
    assert hasattr(owner, name)
    problem_with = http_body.problem_with
    monkeypatch.setattr(http_body, "problem_with", lambda response: problem_with(Without(response)))
    long_body(range_server)
    assert fresh.in_place == 0 < fresh.by_aiohttp
    assert fresh.problem
    assert name in fresh.problem


def test_where_aiohttp_has_changed_it_reads_the_bodies(
    range_server: RangeServer, fresh: http_body.Usage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(aiohttp.StreamReader, "get_read_buffer_limits")
    long_body(range_server)
    assert fresh.in_place == 0
    assert fresh.problem == "there is no content.get_read_buffer_limits"


@pytest.mark.parametrize("limits", [None, (1 << 20,), "two"])
def test_what_aiohttp_returns_otherwise_than_expected_costs_one_attempt(
    range_server: RangeServer, fresh: http_body.Usage, monkeypatch: pytest.MonkeyPatch, limits: object
) -> None:
    monkeypatch.setattr(aiohttp.StreamReader, "get_read_buffer_limits", lambda self: limits)
    with record() as seen:
        long_body(range_server)
    if limits == (1 << 20,):
        assert fresh.in_place == 1
    else:
        assert (fresh.in_place, seen.total.retries) == (0, 1)
        assert fresh.problem == "TypeError where its connection is taken"


def test_a_frame_is_the_same_by_either_way(
    range_server: RangeServer, fresh: http_body.Usage, tmp_path: Path
) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=100, mean_spikes=3000)
    url = range_server.put("s.nwb", Path(path).read_bytes())
    ways = []
    for problem in (None, "as a test wants it"):
        fresh.problem, fresh.in_place = problem, 0
        ways.append(lazynwb_dask.read_nwb(url, "/units")[["unit_id", "spike_times"]].compute())
        assert (fresh.in_place > 0) == (problem is None)
    pd.testing.assert_frame_equal(*ways)


def test_one_connection_carries_many_long_bodies(range_server: RangeServer) -> None:
    source, _ = open_source(Source(range_server.put("a.nwb", DATA)), 10, FileAccess(PLAIN, QUICK))
    range_server.clear_log()
    ranges = [(i * MIB // 4, i * MIB // 4 + 100_000) for i in range(12)]
    how = replace(QUICK, connections=1)
    assert read(source, ranges, how=how) == [DATA[a:b] for a, b in ranges]
    assert len(range_server.log) == 12
    assert len({entry.client for entry in range_server.log}) == 1


def test_one_tls_connection_carries_many_long_bodies(https: tuple[RangeServer, Options]) -> None:
    server, options = https
    source, _ = open_source(Source(server.url("a.nwb")), 10, FileAccess(options, QUICK))
    server.clear_log()
    ranges = [(i * MIB // 4, i * MIB // 4 + 100_000) for i in range(12)]
    how = replace(QUICK, connections=1)
    assert read(source, ranges, options, how) == [DATA[a:b] for a, b in ranges]
    assert len(server.log) == 12
    assert len({entry.client for entry in server.log}) == 1


class Raw:
    """A server that says to the first connection, to the second, ... what it is told to."""

    def __init__(self, *scripts: list[bytes | float]) -> None:
        self.scripts = scripts
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/a.nwb"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for script in self.scripts:
            with suppress(OSError):
                connection, _ = self.listener.accept()
                threading.Thread(target=self._say, args=(connection, script), daemon=True).start()

    def _say(self, connection: socket.socket, script: list[bytes | float]) -> None:
        with connection, suppress(OSError):
            for one in script:
                if isinstance(one, float):
                    time.sleep(one)
                    continue
                if one.startswith(b"HTTP/"):
                    while not connection.recv(65536).endswith(b"\r\n\r\n"):
                        pass
                connection.sendall(one)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()


def headers(start: int, stop: int) -> bytes:
    return (
        "HTTP/1.1 206 Partial Content\r\n"
        f"Content-Range: bytes {start}-{stop - 1}/{len(DATA)}\r\n"
        f"Content-Length: {stop - start}\r\n\r\n"
    ).encode()


def test_what_a_given_up_connection_sends_late_goes_nowhere() -> None:
    half, stop = 500_000, 1_000_000
    late: list[bytes | float] = [headers(0, stop), DATA[:half], 1.5, b"\xff" * (stop - half)]
    right: list[bytes | float] = [headers(0, stop), DATA[:half]]
    for at in range(half, stop, 50_000):
        right += [0.1, DATA[at : at + 50_000]]
    with Raw(late, right) as server, record() as seen:
        got = read(Source(server.url, len(DATA)), [(0, stop)], how=IMPATIENT)
    assert got == [DATA[:stop]]
    assert seen.total.retries == 1


@pytest.mark.parametrize("length", [10, 100_000, 300_000])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("wrong", [0.5, 1.5])
def test_a_body_of_another_length_than_its_range_is_requested_again(
    wrong: float, chunked: bool, length: int
) -> None:
    head = headers(0, length).replace(f"Content-Length: {length}".encode(), b"Connection: close")
    first, whole = DATA[: int(length * wrong)], DATA[:length]
    if chunked:
        head = head.replace(b"Connection: close", b"Transfer-Encoding: chunked")
        first, whole = (b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data) for data in (first, whole))
    with Raw([head, first], [head, whole]) as server, record() as seen:
        assert read(Source(server.url, len(DATA)), [(0, length)]) == [DATA[:length]]
    assert seen.total.retries == 1


def test_bytes_behind_a_body_are_not_taken_for_the_next_one() -> None:
    first: list[bytes | float] = [headers(0, 200_000), DATA[:200_000] + b"\xff" * 1000, 1.0]
    second: list[bytes | float] = [headers(200_000, 400_000), DATA[200_000:400_000], 1.0]
    how = replace(QUICK, connections=1, split=200_000, gap=0)
    with Raw(first, second, second) as server:
        source = Source(server.url, len(DATA))
        assert read(source, [(0, 200_000)], how=how) == [DATA[:200_000]]
        assert read(source, [(200_000, 400_000)], how=how) == [DATA[200_000:400_000]]


def test_a_slow_body_is_waited_for_as_long_as_bytes_come(range_server: RangeServer) -> None:
    source, _ = open_source(Source(range_server.put("a.nwb", DATA)), 10, FileAccess(PLAIN, QUICK))
    range_server.behaviour.bandwidth = 500_000.0
    with record() as seen:
        assert read(source, [(0, 600_000)], how=IMPATIENT) == [DATA[:600_000]]
    assert seen.total.retries == 0
