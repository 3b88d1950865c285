"""Servers that label bodies oddly, and proxies between here and there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from files import one
from reading import DATA, PLAIN, QUICK, read
from servers import RangeServer, S3Server
from test_bodies import https  # noqa: F401

import lazynwb_dask
from lazynwb_dask.errors import NWBPermissionError, NWBReadError
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import open_source
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options


@pytest.mark.parametrize(
    "label",
    [
        "",
        "identity",
        "Identity",
        "none",
        "aws-chunked",
        "AWS-Chunked, None",
        "7bit",
        "application/octet-stream",
    ],
)
@pytest.mark.parametrize("ignore_range", [False, True])
def test_labels_that_name_no_compression_are_no_matter(
    range_server: RangeServer, label: str, ignore_range: bool
) -> None:
    url = range_server.put("a.nwb", DATA)
    range_server.behaviour.headers["Content-Encoding"] = label
    range_server.behaviour.ignore_range = ignore_range
    source, head = open_source(Source(url), len(DATA), FileAccess(PLAIN, QUICK))
    assert head == DATA
    if not ignore_range:
        assert read(source, [(5, 200_005)]) == [DATA[5:200_005]]


@pytest.mark.parametrize("label", ["gzip", "X-Gzip", "br", "aws-chunked, gzip", "zstd"])
@pytest.mark.parametrize("ignore_range", [False, True])
def test_compressed_bodies_are_refused(range_server: RangeServer, label: str, ignore_range: bool) -> None:
    url = range_server.put("a.nwb", DATA)
    range_server.behaviour.headers["Content-Encoding"] = label
    range_server.behaviour.ignore_range = ignore_range
    with pytest.raises(NWBReadError, match="compressed"):
        open_source(Source(url), len(DATA), FileAccess(PLAIN, QUICK))
    assert range_server.log[0].headers["Accept-Encoding"] == "identity"


def test_a_file_whose_ranges_are_refused_is_not_called_empty(range_server: RangeServer) -> None:
    url = range_server.put("a.nwb", DATA)
    range_server.behaviour.fault_rate = {"416": 1}
    with pytest.raises(NWBReadError, match=r"refuses ranges.*416"):
        open_source(Source(url), len(DATA), FileAccess(PLAIN, QUICK))


@pytest.mark.parametrize(
    ("location", "words"), [("/a.nwb", "too many redirects"), ("ftp://127.0.0.1/a", "isn't HTTP")]
)
def test_redirects_that_lead_nowhere_are_called_that(
    range_server: RangeServer, location: str, words: str
) -> None:
    range_server.behaviour.redirects["a.nwb"] = location
    with pytest.raises(NWBReadError, match=words):
        open_source(Source(range_server.url("a.nwb")), 100, FileAccess(PLAIN, QUICK))


def test_a_response_that_is_not_http_is_repeated_and_then_called_that(range_server: RangeServer) -> None:
    url = range_server.put("a.nwb", DATA)
    range_server.behaviour.headers["X-Long"] = "x" * 20_000  # more than clients accept
    with pytest.raises(NWBReadError, match=r"attempts.*isn't valid HTTP"):
        open_source(Source(url), len(DATA), FileAccess(PLAIN, QUICK))
    range_server.count = 0
    range_server.behaviour.before = lambda name, count: count == 2 and range_server.behaviour.headers.clear()
    assert open_source(Source(url), len(DATA), FileAccess(PLAIN, QUICK))[1] == DATA


class Proxy:
    """A proxy: tunnels, and plain requests, which are handed on as they are. `asked` has their first lines."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            head = client.recv(65536)
            self.asked.append(head.split(b"\r\n")[0].decode())
            method, target = head.decode("latin-1").split(" ")[:2]
            host, port = target.removeprefix("http://").partition("/")[0].split(":")
            with socket.create_connection((host, int(port))) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    server.sendall(head)
                threading.Thread(target=self._pipe, args=(server, client), daemon=True).start()
                self._pipe(client, server)

    def _pipe(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    proxy = Proxy()
    yield proxy
    proxy.close()


def test_the_environments_proxy_is_heeded_for_http(
    range_server: RangeServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = range_server.put("a.nwb", DATA)
    access = FileAccess(PLAIN, QUICK)
    open_source(Source(url), 10, access)
    assert proxy.asked == []
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    (tmp_path / "netrc").write_text("default login me password hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    range_server.clear_log()
    source, _ = open_source(Source(url), 10, access)
    assert read(source, [(5, 300_005)]) == [DATA[5:300_005]]
    assert proxy.asked[0] == f"GET {url} HTTP/1.1"
    assert not any("Authorization" in entry.headers for entry in range_server.log)
    asked = len(proxy.asked)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with RangeServer({"a.nwb": DATA}) as other:
        open_source(Source(other.url("a.nwb")), 10, access)
    assert len(proxy.asked) == asked


def test_a_proxy_without_a_scheme_and_ports_in_no_proxy_are_heeded(
    range_server: RangeServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = range_server.put("a.nwb", DATA)
    monkeypatch.setenv("HTTP_PROXY", f"me:hush@{proxy.url.removeprefix('http://')}")
    open_source(Source(url), 10, FileAccess(Options({"headers": {"X-A": "1"}}), QUICK))
    assert proxy.asked == [f"GET {url} HTTP/1.1"]
    monkeypatch.setenv("NO_PROXY", range_server.endpoint.removeprefix("http://"))
    open_source(Source(url), 10, FileAccess(Options({"headers": {"X-A": "2"}}), QUICK))
    assert len(proxy.asked) == 1


def test_a_proxy_that_refuses_is_named(
    range_server: RangeServer,
    proxy: Proxy,  # no other one
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    range_server.behaviour.before = lambda name, count: range_server.behaviour.faults.append("407")
    range_server.put("a.nwb", DATA)
    monkeypatch.setenv("HTTP_PROXY", range_server.endpoint.replace("//", "//me:hush@"))
    access = FileAccess(Options({"headers": {"X-A": "3"}}), QUICK)
    with pytest.raises(NWBPermissionError, match=r"the proxy refused .*HTTP_PROXY") as caught:
        open_source(Source("http://data.example/a.nwb"), 10, access)
    assert "hush" not in str(caught.value)


def test_the_environments_proxy_is_heeded_for_https(
    https: tuple[RangeServer, Options],  # noqa: F811
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, options = https
    monkeypatch.setenv("https_proxy", proxy.url)
    source, _ = open_source(Source(server.url("a.nwb")), 10, FileAccess(options, QUICK))
    assert read(source, [(5, 300_005)], options) == [DATA[5:300_005]]
    assert proxy.asked[0] == f"CONNECT {server.endpoint.removeprefix('https://')} HTTP/1.1"


def test_the_environments_proxy_is_heeded_for_s3(
    s3_server: S3Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3_server.put("lab", "a.nwb", Path(one(tmp_path / "a.nwb", [1, 2])).read_bytes())
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    options = {**s3_server.storage_options, "default_block_size": 2**20}  # connections of their own
    frame = lazynwb_dask.read_nwb("s3://lab/a.nwb", "/units", storage_options=options)
    assert frame.x.compute().tolist() == [1, 2]
    assert all("/lab" in asked and asked.startswith("GET http://127.0.0.1:") for asked in proxy.asked)
    assert proxy.asked


def test_open_hdf5_asks_as_the_storage_options_say(range_server: RangeServer, tmp_path: Path) -> None:
    url = range_server.put("a.nwb", Path(one(tmp_path / "a.nwb", [1, 2])).read_bytes())
    range_server.behaviour.authorized = {"Bearer hush"}
    options = {"headers": {"Authorization": "Bearer hush"}}
    with lazynwb_dask.open_hdf5(url, storage_options=options) as file:
        assert file["units/x"][()].tolist() == [1, 2]
