"""Whatever a store does wrong: the right bytes in the end, or one clear error."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace

import fsspec
import pytest
from reading import DATA, IMPATIENT, MIB, PLAIN, QUICK, read
from servers import RangeServer, S3Server

from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBPermissionError, NWBReadError
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import open_source, record
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

# --- what a server can do wrong


def test_a_server_that_ignores_ranges_is_found_out_without_a_download(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.put("big.nwb", bytes(80 * MIB))
    server.behaviour.ignore_range = True
    for call in (
        lambda: read(source, [(0, 100), (MIB, MIB + 100)]),
        lambda: open_source(Source(server.url("big.nwb")), 1000, FileAccess(PLAIN, QUICK)),
    ):
        with record() as seen, pytest.raises(NWBReadError, match="ignores Range"):
            call()
        assert seen.total.bytes < MIB


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("etag", ["strong", "none"])
def test_a_replaced_file_is_an_error_and_never_a_mix(
    web: tuple[RangeServer, Source], conditions: bool, etag: str
) -> None:
    server, _ = web
    server.behaviour.conditions, server.behaviour.etag = conditions, etag
    source, _ = open_source(Source(server.url("a.nwb")), 10, FileAccess(PLAIN, QUICK))
    server.put("a.nwb", DATA[::-1])  # as long as before
    with pytest.raises(NWBFileChangedError, match="changed between planning and reading"):
        read(source, [(0, 10), (MIB, MIB + 10)])


def test_without_any_validator_a_change_of_size_is_noticed(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.etag = server.behaviour.last_modified = "none"
    server.put("a.nwb", DATA + b"more")
    with pytest.raises(NWBFileChangedError, match=f"had {len(DATA)} bytes"):
        read(replace(source, etag=None), [(0, 10)])


def test_a_file_replaced_between_two_ranges_of_one_call_is_noticed(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    first = server.count

    def replace_it(name: str, count: int) -> None:
        if count == first + 3:
            server.put("a.nwb", DATA[::-1])

    server.behaviour.before = replace_it
    with pytest.raises(NWBFileChangedError):
        read(source, [(i * MIB // 2, i * MIB // 2 + 10) for i in range(6)])


def test_a_replaced_object_in_s3_is_noticed(s3_server: S3Server) -> None:
    options = Options(s3_server.storage_options)
    source, _ = open_source(Source(s3_server.put("lab", "a", DATA)), 10, FileAccess(options, QUICK))
    s3_server.put("lab", "a", DATA[::-1])
    with pytest.raises(NWBFileChangedError):
        read(source, [(0, 10)], options)


def test_a_replaced_object_in_memory_is_noticed() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/changes/a", DATA)
    source, _ = open_source(Source("memory://changes/a"), 10, FileAccess(PLAIN, QUICK))
    memory.pipe_file("/changes/a", DATA[::-1])
    with pytest.raises(NWBFileChangedError):
        read(source, [(0, 10)])


def test_a_file_cut_short_is_an_error_that_says_so(range_server: RangeServer) -> None:
    url = range_server.put("a.nwb", DATA[:1000])
    for ranges in ([(2000, 3000)], [(500, 1500)]):
        with pytest.raises(NWBReadError, match="truncated"):
            read(Source(url), ranges)
    known = Source(url, len(DATA))
    with pytest.raises(NWBFileChangedError):
        read(known, [(2000, 3000)])
    assert len(range_server.log) == 3  # none of it is worth a second attempt


def test_missing_and_forbidden_are_told_apart(range_server: RangeServer, s3_server: S3Server) -> None:
    range_server.put("a.nwb", DATA)
    range_server.behaviour.forbidden.add("secret.nwb")
    s3_server.put("lab", "a", DATA)
    options = Options(s3_server.storage_options)
    for url in (range_server.url("no.nwb"), "s3://lab/no", "s3://nobucket/no", "memory://no"):
        with pytest.raises(NWBFileNotFoundError, match="no such file") as missing:
            open_source(Source(url), 10, FileAccess(options if url.startswith("s3") else PLAIN, QUICK))
        assert isinstance(missing.value, FileNotFoundError)
        assert url in str(missing.value)
    for call in (
        lambda: open_source(Source(range_server.url("secret.nwb")), 10, FileAccess(PLAIN, QUICK)),
        lambda: read(Source(range_server.url("secret.nwb")), [(0, 10)]),
    ):
        with pytest.raises(NWBPermissionError, match="credentials") as forbidden:
            call()
        assert isinstance(forbidden.value, PermissionError)
        copy = pickle.loads(pickle.dumps(forbidden.value))
        assert (type(copy), str(copy)) == (NWBPermissionError, str(forbidden.value))
    assert [e.status for e in range_server.log] == [404, 403, 403]


def test_a_signature_that_expires_in_mid_read_is_one_clear_error(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    expire_at = server.count + 3

    def expire(name: str, count: int) -> None:
        if count >= expire_at:
            server.behaviour.forbidden.add("*")

    server.behaviour.before = expire
    with pytest.raises(NWBPermissionError, match="signed URLs expire"):
        read(source, [(i * MIB // 2, i * MIB // 2 + 10) for i in range(6)])


# --- transient faults

PASSING = ["500", "502", "503", "504", "429", "408", "reset", "cut", "short", "stall", "silent"]


@pytest.mark.parametrize("stop", [50_000, 900_000])
@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_retried(web: tuple[RangeServer, Source], fault: str, stop: int) -> None:
    server, source = web
    server.behaviour.stall = 3.0
    server.behaviour.faults = [fault, fault]
    how = IMPATIENT if fault in ("stall", "silent") else QUICK
    with record() as seen:
        assert read(source, [(10, stop)], how=how) == [DATA[10:stop]]
    assert [entry.fault for entry in server.log if entry.status == 206][-1:] == [None]
    assert (seen.total.requests, seen.total.retries) == (3, 2)
    assert seen.total.wanted == stop - 10


@pytest.mark.parametrize("stop", [50_000, 900_000])
@pytest.mark.parametrize("fault", ["500", "503", "reset", "cut", "short", "stall"])
def test_s3_attempts_are_retried_and_counted_as_they_are(
    range_server: RangeServer, fault: str, stop: int
) -> None:
    range_server.put("bucket/a.nwb", DATA)
    options = Options({"key": "k", "secret": "s", "endpoint_url": range_server.endpoint})
    source, _ = open_source(Source("s3://bucket/a.nwb"), 10, FileAccess(options, QUICK))
    range_server.clear_log()
    range_server.behaviour.stall = 3.0
    range_server.behaviour.faults = [fault, fault]
    how = IMPATIENT if fault == "stall" else QUICK
    with record() as seen:
        assert read(source, [(10, stop)], options, how) == [DATA[10:stop]]
    assert seen.total.retries == 2
    assert seen.total.requests == 3


def test_a_lasting_fault_is_one_error_that_names_url_range_and_attempts(
    web: tuple[RangeServer, Source],
) -> None:
    server, source = web
    server.behaviour.fault_rate = {"503": 1.0}
    with pytest.raises(NWBReadError) as caught:
        read(source, [(10, 20)])
    text = str(caught.value)
    assert source.url in text
    assert "bytes 10-19" in text
    assert "4 attempts" in text
    assert "503" in text
    assert len(server.log) == 4


def test_a_pause_that_the_store_asks_for_is_kept(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.retry_after = "1"
    server.behaviour.faults = ["429"]
    begun = time.monotonic()
    read(source, [(0, 10)])
    assert 1.0 <= time.monotonic() - begun < 30.0
    server.behaviour.retry_after = "3600"  # longer than anyone waits: say so at once
    server.behaviour.faults = ["503"]
    begun = time.monotonic()
    with pytest.raises(NWBReadError, match="503"):
        read(source, [(0, 10)])
    assert time.monotonic() - begun < 30.0


def test_no_attempt_begins_after_the_deadline(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.fault_rate = {"503": 1.0}
    how = replace(QUICK, retries=9, deadline=1.5, pause=1.0, longest_pause=1.0)
    with pytest.raises(NWBReadError, match=r": [234] attempts in"):  # pauses are 0.5 s at least
        read(source, [(0, 10)], how=how)


def test_the_deadline_ends_an_attempt_that_has_no_response(web: tuple[RangeServer, Source]) -> None:
    server, source = web
    server.behaviour.fault_rate = {"silent": 1.0}
    begun = time.monotonic()
    with pytest.raises(NWBReadError, match="no end in time"):
        read(source, [(0, 10)], how=replace(QUICK, timeout=12.0, deadline=1.0))
    assert 0.8 <= time.monotonic() - begun < 10.0


def test_a_refused_connection_is_retried_and_then_reported() -> None:
    with RangeServer() as gone:
        url = gone.url("a.nwb")
    with record() as seen, pytest.raises(NWBReadError, match="connection was refused"):
        open_source(Source(url), 10, FileAccess(PLAIN, QUICK))
    assert seen.total.requests == 4


def test_ten_thousand_ranges_survive_one_fault_in_a_hundred(range_server: RangeServer) -> None:
    source, _ = open_source(Source(range_server.put("a.nwb", DATA)), 10, FileAccess(PLAIN, QUICK))
    kinds = ("500", "503", "reset", "cut", "short", "stall")
    range_server.behaviour.fault_rate = dict.fromkeys(kinds, 0.01 / len(kinds))
    ranges = [(i * 300, i * 300 + 100) for i in range(10_000)]
    with record() as seen:
        got = read(source, ranges, how=replace(QUICK, gap=0, retries=6, timeout=1.5))
    assert got == [DATA[a:b] for a, b in ranges]
    assert seen.total.requests >= 10_000
    assert seen.total.retries > 50
