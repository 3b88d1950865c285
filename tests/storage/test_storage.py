"""Bytes arrive whole and at once, in few requests, wherever they are."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import DATA, KIB, MIB, PLAIN, QUICK, read
from servers import RangeServer, S3Server

from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import Ends, Request, Settings, counters, fetch, open_ends, open_source, record
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

# --- coalescing


def test_ranges_that_touch_overlap_or_repeat_are_one_request(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    ranges = [(2000, 3000), (1000, 2000), (2500, 3500), (1000, 2000), (7, 7)]
    with record() as seen:
        assert read(source, ranges) == [DATA[a:b] for a, b in ranges]
    assert [entry.range for entry in server.log] == [(1000, 3500)]
    assert (seen.total.requests, seen.total.bytes, seen.total.wanted) == (1, 2500, 2500)
    assert seen.total.gap == seen.total.retries == 0
    assert seen.files.keys() == {source.url}


def test_gaps_are_joined_up_to_the_limit_and_counted_apart(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    ranges = [(0, 100), (100 + 64 * KIB, 70_000), (70_000 + 64 * KIB + 1, 140_000)]
    with record() as seen:
        assert read(source, ranges) == [DATA[a:b] for a, b in ranges]
    assert sorted(entry.range or () for entry in server.log) == [(0, 70_000), ranges[2]]
    assert seen.total.gap == 64 * KIB
    assert seen.total.wanted == sum(b - a for a, b in ranges)
    assert seen.total.bytes == seen.total.wanted + seen.total.gap == server.sent


def test_the_smallest_gaps_are_joined_first_and_their_sum_is_bounded(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    gaps = [60, 50, 40, 64, 60, 64, 60, 64, 3]  # KiB; wanted is little, so 256 KiB are allowed
    ranges, at = [(0, 10)], 10
    for gap in gaps:
        at += gap * KIB
        ranges.append((at, at + 10))
        at += 10
    with record() as seen:
        read(source, ranges)
    joined = sorted(gaps)[:5]
    assert sum(joined) <= 256 < sum(sorted(gaps)[:6])
    assert seen.total.gap == sum(joined) * KIB
    assert len(server.log) == len(ranges) - len(joined)


def test_no_gap_is_joined_where_the_setting_forbids_it(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    with record() as seen:
        read(source, [(0, 10), (11, 20)], how=replace(QUICK, gap=0))
    assert len(server.log) == 2
    assert seen.total.gap == 0


def test_long_ranges_are_split_and_put_together_again(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    how = replace(QUICK, split=MIB)
    ranges = [(5, 2 * MIB + 6), (2 * MIB + 6, 2 * MIB + 16), (2 * MIB + 16, 3 * MIB)]
    assert read(source, ranges, how=how) == [DATA[a:b] for a, b in ranges]
    asked = sorted(entry.range or () for entry in server.log)
    assert len(asked) == 4  # three parts of the first, and the two others in one
    assert all(b - a <= MIB for a, b in asked)
    assert sum(b - a for a, b in asked) == server.sent == 3 * MIB - 5


def test_a_range_beyond_the_file_is_an_error_before_any_request(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    with pytest.raises(NWBReadError, match="truncated"):
        read(source, [(0, 10), (len(DATA) - 5, len(DATA) + 1)])
    with pytest.raises(ValueError, match="not a byte range"):
        read(source, [(10, 5)])
    assert server.log == []


# --- every kind of store, any ranges


@pytest.fixture
def places(tmp_path: Path, range_server: RangeServer, s3_server: S3Server) -> dict[str, tuple[Source, Options]]:
    """The same file on disk, on the web, in S3 and in memory."""
    path = tmp_path / "a.nwb"
    path.write_bytes(DATA)
    fsspec.filesystem("memory").pipe_file("/places/a.nwb", DATA)
    signed = Options(s3_server.storage_options)
    where = {
        "local": (str(path), PLAIN),
        "http": (range_server.put("a.nwb", DATA), PLAIN),
        "s3": (s3_server.put("places", "a.nwb", DATA), signed),
        "memory": ("memory://places/a.nwb", PLAIN),
        "cached": ("simplecache::memory://places/a.nwb", PLAIN),
        "asynchronous": (f"dir://a.nwb::{range_server.url('')}", PLAIN),
    }
    return {
        kind: (open_source(Source(url), KIB, FileAccess(options, QUICK))[0], options)
        for kind, (url, options) in where.items()
    }


bounds = st.tuples(st.integers(0, len(DATA)), st.one_of(st.integers(0, 3000), st.integers(0, 400_000))).map(
    lambda pair: (pair[0], min(len(DATA), sum(pair)))
)


@pytest.mark.parametrize("kind", ["local", "http", "s3", "memory", "cached", "asynchronous"])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(ranges=st.lists(bounds, max_size=20), gap=st.integers(0, 100_000))
def test_every_sink_gets_its_bytes_exactly_once(
    places: dict[str, tuple[Source, Options]], kind: str, ranges: list[tuple[int, int]], gap: int
) -> None:
    source, options = places[kind]
    how = replace(QUICK, gap=gap, split=200_000)
    with record() as seen:
        assert read(source, ranges, options, how) == [DATA[a:b] for a, b in ranges]
    covered = bytearray(len(DATA))
    for a, b in ranges:
        covered[a:b] = b"\x01" * (b - a)
    assert seen.total.wanted == sum(covered)
    assert seen.total.bytes == seen.total.wanted + seen.total.gap


def test_many_threads_read_many_files_at_once(range_server: RangeServer) -> None:
    files = {f"{i}.nwb": random.Random(i).randbytes(100_000) for i in range(8)}
    sources = [Source(range_server.put(name, data)) for name, data in files.items()]
    failures: list[BaseException] = []

    def work(source: Source, data: bytes) -> None:
        try:
            for i in range(5):
                ranges = [(i * 1000 + j * 9000, i * 1000 + j * 9000 + 500) for j in range(8)]
                assert read(source, ranges, how=Settings(gap=0)) == [data[a:b] for a, b in ranges]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(sources, files.values(), strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(range_server.log) == 8 * 5 * 8


# --- opening


def test_one_get_tells_size_version_and_first_bytes(range_server: RangeServer) -> None:
    url = range_server.put("a.nwb", DATA)
    source, head = open_source(Source(url), 1000, FileAccess(PLAIN, QUICK))
    assert source == Source(url, len(DATA), range_server.version("a.nwb")[0])
    assert head == DATA[:1000]
    assert [(e.method, e.range) for e in range_server.log] == [("GET", (0, 1000))]


def test_one_get_opens_an_object_in_s3(s3_server: S3Server) -> None:
    url = s3_server.put("lab", "a.nwb", DATA)
    source, head = open_source(Source(url), 1000, FileAccess(Options(s3_server.storage_options), QUICK))
    assert (source.size, head) == (len(DATA), DATA[:1000])
    assert source.etag is not None
    assert source.etag.startswith('"')
    assert [(e.method, e.range) for e in s3_server.log] == [("GET", (0, 1000))]


@pytest.mark.parametrize("kind", ["http", "http that ignores ranges", "s3", "local", "memory"])
def test_short_and_empty_files_open_whole(
    kind: str, range_server: RangeServer, s3_server: S3Server, tmp_path: Path
) -> None:
    for data in (b"tiny", b""):
        options = PLAIN
        if kind.startswith("http"):
            range_server.behaviour.ignore_range = kind != "http"
            url = range_server.put("a.nwb", data)
        elif kind == "s3":
            url, options = s3_server.put("lab", "a", data), Options(s3_server.storage_options)
        elif kind == "local":
            (tmp_path / "a.nwb").write_bytes(data)
            url = str(tmp_path / "a.nwb")
        else:
            fsspec.filesystem("memory").pipe_file("/short/a.nwb", data)
            url = "memory://short/a.nwb"
        source, head = open_source(Source(url), 1000, FileAccess(options, QUICK))
        assert (source.size, head) == (len(data), data)
        assert open_source(source, 1000, FileAccess(options, QUICK)) == (source, data)


def test_what_a_listing_told_is_used_and_checked(range_server: RangeServer) -> None:
    url = range_server.put("a.nwb", b"0123456789")
    etag = range_server.version("a.nwb")[0]
    assert open_source(Source(url, 10, etag), 1000, FileAccess(PLAIN, QUICK))[1] == b"0123456789"
    assert range_server.log[0].range == (0, 10)
    assert range_server.log[0].headers["If-Match"] == etag
    range_server.put("a.nwb", b"9876543210")
    with pytest.raises(NWBFileChangedError):
        open_source(Source(url, 10, etag), 1000, FileAccess(PLAIN, QUICK))


def test_the_time_of_change_stands_in_for_a_weak_or_absent_etag(range_server: RangeServer) -> None:
    for habit in ("weak", "none"):
        range_server.behaviour.etag = habit
        source, _ = open_source(Source(range_server.put("a.nwb", DATA)), 10, FileAccess(PLAIN, QUICK))
        assert source.etag == range_server.version("a.nwb")[1]
        read(source, [(0, 10)])
        assert range_server.log[-1].headers["If-Unmodified-Since"] == source.etag
    range_server.behaviour.last_modified = "none"
    assert open_source(Source(source.url), 10, FileAccess(PLAIN, QUICK))[0].etag is None


# --- concurrency and memory


def test_requests_run_at_once_up_to_the_limit(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.latency = 0.5
    ranges = [(i * 100_000, i * 100_000 + 10) for i in range(24)]
    read(source, ranges, how=replace(QUICK, connections=24))
    assert server.max_running > 8
    server.behaviour.latency = 0.05
    server.clear_log()
    read(source, ranges, how=replace(QUICK, connections=3))
    assert server.max_running == 3


def test_the_limit_holds_for_all_threads_together(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.latency = 0.02
    ranges = [(i * 100_000, i * 100_000 + 10) for i in range(10)]
    how = replace(QUICK, connections=4)
    threads = [threading.Thread(target=read, args=(source, ranges, PLAIN, how)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.log) == 40
    assert server.max_running == 4


def test_no_more_is_requested_than_the_sinks_keep_up_with(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    go_on = threading.Event()
    how = replace(QUICK, split=MIB // 4, in_flight=MIB // 2)
    requests = [Request(i * MIB // 4, (i + 1) * MIB // 4, lambda _: go_on.wait(20) and None) for i in range(12)]
    reader = threading.Thread(target=fetch, args=(source, requests, FileAccess(PLAIN, how)))
    reader.start()
    deadline = time.monotonic() + 15
    while not server.sent and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    sent = server.sent
    go_on.set()
    reader.join()
    assert 0 < sent <= MIB // 2
    assert server.sent == 3 * MIB


def test_a_request_larger_than_the_allowance_still_gets_through(web: tuple[RangeServer, Source]) -> None:
    _, source = web
    how = replace(QUICK, in_flight=1000)
    assert read(source, [(0, len(DATA))], how=how) == [DATA]


def test_a_sink_runs_as_soon_as_its_bytes_have_come(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.faults = [None, "stall"]
    server.behaviour.stall = 0.5
    when: list[float] = []
    requests = [Request(a, a + 10, lambda _: when.append(time.monotonic())) for a in (0, 2 * MIB)]
    fetch(source, requests, FileAccess(PLAIN, replace(QUICK, timeout=0.5)))
    assert when[1] - when[0] > 0.3


# --- giving up


def test_an_exception_in_a_sink_ends_the_call_and_is_raised_as_it_is(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.latency = 0.2

    class Spoilt(Exception):
        pass

    def sink(view: memoryview) -> None:
        raise Spoilt

    requests = [Request(i * 100_000, i * 100_000 + 10, sink) for i in range(30)]
    with pytest.raises(Spoilt):
        fetch(source, requests, FileAccess(PLAIN, replace(QUICK, connections=2)))
    seen = server.count
    time.sleep(0.3)
    assert server.count <= seen + 2 < 30


def test_a_read_from_within_a_sink_is_refused_instead_of_waiting_forever(
    web: tuple[RangeServer, Source],
) -> None:
    _, source = web
    with pytest.raises(RuntimeError, match="from a sink"):
        fetch(source, [Request(0, 10, lambda _: read(source, [(0, 10)]) and None)], FileAccess(PLAIN, QUICK))


INTERRUPTED = """
    import sys, threading
    from lazynwb_dask.storage.access import FileAccess
    from lazynwb_dask.storage.options import Options
    from lazynwb_dask.model.source import Source
    from lazynwb_dask.storage import Request, Settings, fetch
    requests = [Request(i * 100_000, i * 100_000 + 10, lambda view: None) for i in range(30)]
    print("started", flush=True)
    try:
        fetch(Source(sys.argv[1]), requests, FileAccess(Options(), Settings(connections=2)))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        threading.Event().wait(0.5)
        print("done", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_requests(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.latency = 0.2
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), source.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "started\n"
        while len(server.log) < 2:
            time.sleep(0.02)
        reader.send_signal(signal.SIGINT)
        assert reader.stdout.readline() == "interrupted\n"
        at_once = server.count
        assert reader.stdout.readline() == "done\n"
    assert server.count <= at_once + 2 < 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_process_reads_too(web: tuple[RangeServer, Source]) -> None:
    _, source = web
    code = """
        import os, sys, warnings
        from lazynwb_dask.storage.access import FileAccess
        from lazynwb_dask.storage.options import Options
        from lazynwb_dask.model.source import Source
        from lazynwb_dask.storage import Request, Settings, fetch, open_source
        def one():
            got = []
            fetch(Source(sys.argv[1]), [Request(5, 9, lambda v: got.append(len(v)))],
                  FileAccess(Options(), Settings(timeout=10, retries=0)))
            return got == [4]
        assert one()
        warnings.simplefilter("ignore")
        child = os.fork()
        if child == 0:
            os._exit(0 if one() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert one()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), source.url]
    subprocess.run(command, check=True, timeout=60)


# --- the test server itself


def test_the_range_server_serves_a_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.nwb").write_bytes(DATA)
    (tmp_path / "empty.nwb").write_bytes(b"")
    with RangeServer(tmp_path, latency=0.01) as server:
        source, head = open_source(Source(server.url("deep/a.nwb")), 10, FileAccess(PLAIN, QUICK))
        assert (source.size, head) == (len(DATA), DATA[:10])
        assert read(source, [(5, 9), (MIB, 2 * MIB)]) == [DATA[5:9], DATA[MIB : 2 * MIB]]
        assert open_source(Source(server.url("empty.nwb")), 10, FileAccess(PLAIN, QUICK))[1] == b""
        with pytest.raises(NWBFileNotFoundError):
            open_source(Source(server.url("no.nwb")), 10, FileAccess(PLAIN, QUICK))


def test_the_range_server_keeps_to_its_bandwidth(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.bandwidth = 1_000_000.0
    begun = time.monotonic()
    read(source, [(0, 300_000)])
    assert time.monotonic() - begun > 0.25


# --- counters


@pytest.fixture
def fresh_counters() -> Iterator[None]:
    counters.reset()
    yield
    counters.reset()


def test_counters_add_up_per_file_and_reset(fresh_counters: None, range_server: RangeServer) -> None:
    for name in ("a.nwb", "b.nwb"):
        url = range_server.put(name, DATA)
        read(Source(url + "?X-Amz-Signature=hidden"), [(0, 100)])
    snapshot = counters.snapshot()
    assert snapshot.total.requests == 2
    assert snapshot.files[range_server.url("a.nwb")].bytes == 100
    assert "hidden" not in repr(snapshot)
    counters.reset()
    assert counters.snapshot().total.requests == 0


ENDS = Ends(whole=1000, head=100, tail=300, unknown=500)


@pytest.mark.parametrize("known", [True, False], ids=["known size", "unknown size"])
@pytest.mark.parametrize("kind", ["http", "s3"])
def test_both_ends_come_in_one_wave(
    kind: str, known: bool, range_server: RangeServer, s3_server: S3Server
) -> None:
    server = range_server if kind == "http" else s3_server
    access = FileAccess(PLAIN if kind == "http" else Options(s3_server.storage_options), QUICK)

    def put(name: str, size: int) -> Source:
        data = DATA[:size]
        url = range_server.put(name, data) if kind == "http" else s3_server.put("lab", name, data)
        return Source(url, size if known else None)

    first = open_ends(put("a", 5000), ENDS, access)
    assert first[1:] == ((DATA[:100], DATA[4700:5000]) if known else (DATA[:500], b""))
    server.clear_log()
    source, head, tail = open_ends(put("b", 5000), ENDS, access)
    assert (source.size, head, tail) == (5000, DATA[:100], DATA[4700:5000])
    assert source.etag
    assert len(server.requests("GET")) == 2
    source, head, tail = open_ends(put("c", 200), ENDS, access)
    assert (source.size, head, tail) == ((200, DATA[:200], b"") if known else (200, DATA[:100], DATA[:200]))
    server.clear_log()
    assert open_ends(put("d", 400), ENDS, access)[1:] == (DATA[:400], b"")
    assert len(server.requests("GET")) == 1


def test_only_files_that_are_elsewhere_are_not_asked_for_their_end_at_once(range_server: RangeServer) -> None:
    access = FileAccess(PLAIN, QUICK)
    with RangeServer() as other:
        for name in "ab":
            other.behaviour.redirects[name] = range_server.put(f"moved {name}", DATA[:5000])
            assert open_ends(Source(other.url(name)), ENDS, access)[1:] == (DATA[:500], b"")
    range_server.clear_log()
    for name, tail in (("c", b""), ("d", DATA[4700:5000])):
        assert open_ends(Source(range_server.put(name, DATA[:5000])), ENDS, access)[2] == tail


def test_the_end_of_another_version_is_not_taken(range_server: RangeServer) -> None:
    """The file is replaced between the two requests for its ends."""
    access = FileAccess(PLAIN, QUICK)
    open_ends(Source(range_server.put("a", DATA)), ENDS, access)
    url = range_server.put("b", DATA)
    came = range_server.count

    def replace(name: str, number: int) -> None:
        if number == came + 2:
            while not range_server.log[-2].ended:
                time.sleep(0.01)
            range_server.put("b", DATA[::-1])

    range_server.behaviour.before = replace
    _, head, tail = open_ends(Source(url), ENDS, access)
    assert head in (DATA[:100], DATA[::-1][:100])
    assert tail == b""
