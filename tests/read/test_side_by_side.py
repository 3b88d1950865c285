"""Reads side by side: all that they wait for is under way at once, and every wait ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from servers import RangeServer

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.source import Source
from lazynwb_dask.read.side_by_side import Await, Begin, Fetch, Read, blocking, side_by_side
from lazynwb_dask.storage import Request
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.runtime import ReadCancelled
from lazynwb_dask.util.threads import THREADS, at_once

DATA = bytes(range(256)) * 4


def reading(url: str, starts: list[int], heavy: bool = False) -> Read[list[int]]:
    """The bytes at some positions, one after the other."""
    found: list[int] = []
    for start in starts:
        wanted = [Request(start, start + 1, lambda data: found.append(data[0]))]
        yield Fetch(Source(url, len(DATA)), wanted, FileAccess(), heavy)
    return found


@pytest.fixture
def url(range_server: RangeServer) -> str:
    return range_server.put("a", DATA)


@pytest.mark.parametrize("heavy", [False, True])
def test_all_requests_are_under_way_at_once(url: str, range_server: RangeServer, heavy: bool) -> None:
    all_came = threading.Barrier(100)
    range_server.behaviour.before = lambda *_: all_came.wait(60) and None
    found = side_by_side([reading(url, [i], heavy) for i in range(100)])
    assert found == [[i] for i in range(100)]


def test_the_order_is_that_of_the_reads(url: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(DATA)
    reads = [reading([url, str(path)][i % 2], [i, i + 1, i + 2][: i % 4], i % 3 == 0) for i in range(60)]
    assert side_by_side(reads) == [[i, i + 1, i + 2][: i % 4] for i in range(60)]
    assert side_by_side([]) == []
    assert side_by_side([reading(url, [3, 4])]) == [[3, 4]]


def test_an_error_ends_all_and_is_raised(url: str, range_server: RangeServer) -> None:
    ended = []

    def waiting(i: int) -> Read[int]:
        try:
            yield from reading(url, [i] * 1000)
        finally:
            ended.append(i)
        return i

    range_server.behaviour.latency = 0.1
    begun = time.monotonic()
    with pytest.raises(NWBReadError, match="no such file"):
        side_by_side([*(waiting(i) for i in range(20)), reading(range_server.url("b"), [0])])
    assert time.monotonic() - begun < 20
    assert sorted(ended) == list(range(20))


def test_a_read_may_go_on_after_an_error(url: str, range_server: RangeServer) -> None:
    def forgiving(name: str) -> Read[list[int] | str]:
        try:
            return (yield from reading(name, [1]))
        except NWBReadError:
            return "skipped"

    names = [url, range_server.url("b")] * 5
    assert side_by_side([forgiving(name) for name in names]) == [[1], "skipped"] * 5
    # one that fails before there is a request
    names = [url, "nosuchstore://b/c"] * 5
    assert side_by_side([forgiving(name) for name in names]) == [[1], "skipped"] * 5


def test_ranges_may_be_empty(url: str) -> None:
    def nothing(i: int) -> Read[bytes]:
        found: list[bytes] = []
        wanted = [Request(i, i, lambda data: found.append(bytes(data)))]
        yield Fetch(Source(url, len(DATA)), wanted, FileAccess())
        return found[0]

    assert side_by_side([nothing(i) for i in range(3)]) == [b""] * 3


def test_a_cancelled_task_ends_soon(url: str, range_server: RangeServer) -> None:
    range_server.behaviour.latency = 30
    begun, cancelled = time.monotonic(), threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    with pytest.raises(ReadCancelled):
        side_by_side([reading(url, [i]) for i in range(5)], cancelled.is_set)
    assert time.monotonic() - begun < 15


def test_a_cancelled_task_ends_soon_though_bytes_keep_coming(url: str, range_server: RangeServer) -> None:
    cancelled = threading.Event()
    range_server.behaviour.latency = 0.01
    range_server.behaviour.before = lambda _, count: cancelled.set() if count > 50 else None
    with pytest.raises(ReadCancelled):
        side_by_side([reading(url, [i] * 400) for i in range(5)], cancelled.is_set)
    assert len(range_server.requests("GET")) < 1000


def test_calls_that_block_wait_for_no_thread_that_waits_for_them(url: str) -> None:
    def nested(i: int) -> Read[list[list[int]]]:
        return (yield from blocking(lambda: side_by_side([more(i, k) for k in range(3)])))

    def more(i: int, k: int) -> Read[list[int]]:
        some = yield from blocking(lambda: at_once([lambda: i, lambda: k]))
        return [*some, *(yield from reading(url, [k], heavy=True))]

    def work(_: int) -> list[list[list[int]]]:
        return side_by_side([nested(i) for i in range(40)])

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(4), timeout=100):
            assert found == [[[i, k, k] for k in range(3)] for i in range(40)]
    assert THREADS < 4 * 40, "more than there are threads"


def test_an_interrupt_ends_all(url: str, range_server: RangeServer) -> None:
    class Interrupt(BaseException):
        pass

    def interrupted() -> Read[int]:
        yield from reading(url, [1])
        raise Interrupt

    def others() -> Iterator[Read[list[int]]]:
        for i in range(5):
            yield reading(url, [i] * 1000)

    range_server.behaviour.latency = 0.05
    with pytest.raises(Interrupt):
        side_by_side([*others(), interrupted()])


@pytest.mark.parametrize("count", [1, 20])
def test_what_is_begun_runs_while_all_have_their_turn(url: str, range_server: RangeServer, count: int) -> None:
    """Every read has had its turn before any answer comes; an error comes where the end is awaited."""
    had_turns, names = threading.Barrier(count + 1), [url, range_server.url("b")]
    range_server.behaviour.before = lambda *_: had_turns.wait(60) and None

    def checked(i: int) -> Read[tuple[int, str]]:
        wanted = [Request(0, 1, lambda _: None)]
        started = yield Begin(Fetch(Source(names[i % 2], len(DATA)), wanted, FileAccess()))
        assert started is not None
        turns.append(i)
        if len(turns) == count:
            threading.Thread(target=had_turns.wait, args=(60,)).start()
        try:
            yield Await(started, FileAccess())
        except NWBReadError:
            return i, "gone"
        return i, "there"

    turns: list[int] = []
    assert side_by_side([checked(i) for i in range(count)]) == [
        (i, ["there", "gone"][i % 2]) for i in range(count)
    ]


def test_what_is_begun_and_not_awaited_is_ended(url: str, range_server: RangeServer) -> None:
    range_server.behaviour.latency = 60

    def careless() -> Read[int]:
        yield Begin(Fetch(Source(url, len(DATA)), [Request(0, 1, lambda _: None)], FileAccess()))
        return 1

    begun = time.monotonic()
    assert side_by_side([careless()]) == [1]
    assert side_by_side([careless(), careless()]) == [1, 1]
    assert time.monotonic() - begun < 30
