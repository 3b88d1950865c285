"""Work at once, on threads that the process keeps."""

from __future__ import annotations

import contextvars
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.util.threads import THREADS, Pool, at_once


def test_results_come_in_the_order_of_the_calls() -> None:
    def late(i: int) -> int:
        time.sleep(0.01 * (5 - i % 5))
        return i

    assert at_once([partial(late, i) for i in range(40)]) == list(range(40))
    assert at_once([lambda: "one"]) == ["one"]
    assert at_once([]) == []


def test_no_more_run_at_a_time_than_asked_for() -> None:
    lock, under_way, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.01)
        with lock:
            under_way -= 1

    at_once([work] * 20, 4)
    assert 1 < most <= 4


def test_calls_within_calls_never_wait_for_a_thread_that_waits_for_them() -> None:
    def leaf() -> int:
        time.sleep(0.001)
        return 1

    def branch(depth: int) -> int:
        below = leaf if depth == 0 else partial(branch, depth - 1)
        return sum(at_once([below] * 3, 3))

    outer = THREADS + 6  # more callers than there are threads
    with ThreadPoolExecutor(outer) as callers:
        found = list(callers.map(lambda _: branch(2), range(outer), timeout=120))
    assert found == [27] * outer


def test_the_first_failure_in_order_is_raised_when_nothing_runs_any_more() -> None:
    running = set()

    def work(i: int) -> None:
        running.add(i)
        time.sleep(0.05 if i == 0 else 0.01)
        running.remove(i)
        if i in (0, 1):
            raise ValueError(f"call {i}")

    with pytest.raises(ValueError, match="call 0"):
        at_once([partial(work, i) for i in range(100)], 4)
    assert not running


def test_after_a_failure_no_call_is_begun() -> None:
    begun = []

    def work(i: int) -> None:
        begun.append(i)
        time.sleep(0.01)
        if i == 2:
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        at_once([partial(work, i) for i in range(1000)], 2)
    assert len(begun) < 500


def test_calls_see_the_context_of_their_caller() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("the caller's")

    def work() -> str:
        time.sleep(0.005)
        return variable.get()

    assert at_once([work] * 8) == ["the caller's"] * 8


def _in_child(queue: multiprocessing.Queue[list[int]]) -> None:
    queue.put(at_once([partial(pow, i, 2) for i in range(10)]))


def test_a_forked_process_has_threads_of_its_own() -> None:
    at_once([partial(time.sleep, 0.01)] * 4)
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[list[int]] = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == [i**2 for i in range(10)]
    child.join()


def _list_in_child(path: str, queue: multiprocessing.Queue[int]) -> None:
    queue.put(len(lazynwb_dask.list_tables(path)))


def test_processes_forked_while_threads_read_metadata_read_them_too(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=5, mean_spikes=10, channels=4, samples=100)
    expected = len(lazynwb_dask.list_tables(path))
    context = multiprocessing.get_context("fork")
    over = threading.Event()

    def keep_reading() -> None:
        while not over.is_set():
            lazynwb_dask.list_tables(path)

    readers = [threading.Thread(target=keep_reading) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(12):
            queue: multiprocessing.Queue[int] = context.Queue()
            child = context.Process(target=_list_in_child, args=(path, queue))
            child.start()
            try:
                assert queue.get(timeout=60) == expected
            finally:
                child.kill()
                child.join()
    finally:
        over.set()
        for reader in readers:
            reader.join()


def test_tasks_start_no_threads_once_the_process_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_sessions(tmp_path, n=3, units=5, mean_spikes=10, channels=4, samples=100)
    units = lazynwb_dask.read_nwb(paths, "/units")
    trials = lazynwb_dask.read_nwb(paths, "trials")
    queries = [
        units[units.snr > 1][["unit_id", "spike_times"]],
        lazynwb_dask.merge_by_file(units[["unit_id", "id"]], trials[["id"]], on="id"),
    ]
    expected = [query.compute(scheduler="sync") for query in queries]
    for _ in range(3):
        for query in queries:
            query.compute(scheduler="sync")
    started = []
    start = threading.Thread.start

    def counted(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counted)
    for query, frame in zip(queries, expected, strict=True):
        assert query.compute(scheduler="sync").equals(frame)
    # a kept pool grows, up to its limit, where all its threads happen to be busy
    assert len(started) <= 2, started


def test_a_pool_works_on_with_the_threads_it_has_where_the_system_gives_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool, started = Pool("test", 2), threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new thread"):
            pool.submit(int)
    assert pool.submit(int).result(10) == 0
    busy = pool.submit(started.wait, 10)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        waits = pool.submit(int)
    started.set()
    assert busy.result(10)
    assert waits.result(10) == 0
