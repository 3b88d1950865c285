"""Passes over a file's metadata in helper processes.

libhdf5 was not made for malicious files: damaged metadata can make it loop, take gigabytes, or crash, and
it can't be interrupted within a process. With the setting `lazynwb-dask.isolate`, each pass over a file
(see `lazynwb_dask.hdf5.sparse_file`) is made by a helper with a memory limit and a deadline. A helper that
exceeds the deadline is killed and replaced, and the file counts as unreadable.

A helper has no secrets and does no input or output of its own. It gets the blocks that are present, and
responds with the result, an error, or the missing blocks, which its parent fetches. It keeps nothing
between passes, so a few helpers serve many files. Messages are JSON and raw bytes, never pickles. A
response is trusted no more than the file: every address and size in it is checked again (see `wire`).
"""

from __future__ import annotations

import atexit
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Any, cast

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5.sparse_file import Job, SparseFile, attempt
from lazynwb_dask.isolation import wire
from lazynwb_dask.storage.settings import IsolatedSettings

HELPERS = max(2, min(8, os.cpu_count() or 2))  # the most that one process has
GRACE = 5.0  # seconds after its deadline at which a helper without a parent ends itself
START = 60.0  # seconds that a helper may take to start
_SECRET = re.compile(
    "^(AWS|AZURE|GOOGLE|GCS|S3|DASK)_|KEY|SECRET|TOKEN|PASSW|CREDENTIAL|SIGNATURE", re.IGNORECASE
)


class Attempts:
    """Passes over one file, each made by any free helper. Called like `sparse_file.attempt`."""

    def __init__(self, settings: IsolatedSettings) -> None:
        self._settings = settings
        self._left = settings.isolate_deadline
        self._job: object = None

    def __call__(self, sparse: SparseFile, name: str, job: Job[Any]) -> Any:
        if job is not self._job:  # each job has the whole time
            self._job, self._left = job, self._settings.isolate_deadline
        request = {"job": wire.pack_job(job), "name": name, "size": sparse.size, "seconds": self._left}
        try:
            try:
                response, payload = self._exchange(request, sparse)
            except _HelperEnded as exc:
                if exc.timed_out:
                    raise
                # something else may have ended it before the request
                response, payload = self._exchange(request, sparse)
        except _HelperEnded as exc:
            raise NWBReadError(f"{name}: {self._reason(exc)}") from None
        try:
            return self._result(response, payload, sparse)
        except NWBReadError:
            raise
        except Exception as exc:  # a helper that a file has taken over may send anything
            raise NWBReadError(
                f"{name}: damaged: the helper process that read its metadata gave a senseless "
                f"answer ({type(exc).__name__})"
            ) from None

    def _exchange(self, request: dict[str, Any], sparse: SparseFile) -> tuple[dict[str, Any], memoryview]:
        helper = _pool.take(self._settings.isolate_memory)
        begun = time.monotonic()
        try:
            return helper.request(request, sparse.runs(), self._left)
        finally:
            self._left -= time.monotonic() - begun
            _pool.give_back(helper)

    @staticmethod
    def _result(response: dict[str, Any], payload: memoryview, sparse: SparseFile) -> Any:
        if "error" in response:
            raise NWBReadError(str(response["error"])[:2000])
        if "missing" in response:
            for start, stop in response["missing"]:
                if not 0 <= start < stop <= sparse.size:
                    raise wire.WireError("bytes outside the file")
                sparse.need(start, stop)
            if not sparse.missing:
                raise wire.WireError("nothing is missing")
            return None
        return wire.unpack_result(response["result"], payload, sparse.size)

    def _reason(self, exc: _HelperEnded) -> str:
        limit = self._settings
        if exc.timed_out:
            return (
                f"libhdf5 needs more than {limit.isolate_deadline:g} s for its metadata: the file is "
                "damaged, or lazynwb-dask.isolate-deadline too short"
            )
        return (
            f"the helper process that read its metadata ended unexpectedly (code {exc.code}): the "
            f"file is damaged, or needs more than lazynwb-dask.isolate-memory ({limit.isolate_memory >> 20} "
            "MiB)"
        )


class _HelperEnded(Exception):
    """A helper ended before it had responded."""

    def __init__(self, code: int | None, timed_out: bool = False) -> None:
        super().__init__(code)
        self.code, self.timed_out = code, timed_out


class _Helper:
    """One helper process, as its parent has it."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.alive = True
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        # a pass needs no threads of libraries, and their stacks count towards the limit
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**_environment(), **threads, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in = cast(RawIOBase, self._process.stdin)
        self._out = cast(RawIOBase, self._process.stdout)
        self._timed_out = False
        self._exchanging: object = None
        self._exchange({}, [], START)  # an empty request, to which it responds once it has started

    def request(
        self, request: dict[str, Any], runs: list[tuple[int, list[bytes]]], seconds: float
    ) -> tuple[dict[str, Any], memoryview]:
        """The response to one request. After `seconds` the helper is killed.

        `runs` are the blocks that are present: the position of each run, and its blocks. Raises
        _HelperEnded if the helper has crashed, or was killed.
        """
        spans = [(start, sum(map(len, blocks))) for start, blocks in runs]
        parts = [block for _, blocks in runs for block in blocks]
        return self._exchange({**request, "runs": spans}, parts, seconds)

    def _exchange(
        self, request: dict[str, Any], parts: list[bytes], seconds: float
    ) -> tuple[dict[str, Any], memoryview]:
        exchange = self._exchanging = object()
        self._timed_out = False
        timer = threading.Timer(max(seconds, 0.0), self._time_out, [exchange])
        timer.daemon = True
        timer.start()
        try:
            wire.send(self._in, request, parts)
            response, payload = wire.receive(self._out)
        except (OSError, EOFError, ValueError, wire.WireError):
            self.end()
            raise _HelperEnded(self._process.returncode, self._timed_out) from None
        except BaseException:  # an interrupt leaves the rest of the response in the pipe
            self.end()
            raise
        finally:
            self._exchanging = None
            timer.cancel()
        if response.get("last"):
            self.end()
        return response, payload

    def _time_out(self, exchange: object) -> None:
        if exchange is self._exchanging:  # not if it has ended meanwhile
            self._timed_out = True
            self._process.kill()

    def end(self) -> None:
        self.alive = False
        self._process.kill()
        self.forget()
        self._process.wait()

    def forget(self) -> None:
        """Close this side of the pipes."""
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()


def _environment() -> dict[str, str]:
    """The environment without variables that may hold credentials."""
    return {name: value for name, value in os.environ.items() if not _SECRET.search(name)}


class _Pool:
    """The helpers of this process: at most `HELPERS`, started when they are needed."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(HELPERS)
        self._lock = threading.Lock()
        self._idle: list[_Helper] = []
        self._all: set[_Helper] = set()

    def take(self, memory: int) -> _Helper:
        """A helper with this memory limit for exclusive use. Waits until one is free."""
        self._places.acquire()
        try:
            with self._lock:
                fitting = [h for h in self._idle if h.memory == memory]
                unfit = [h for h in self._idle if h.memory != memory]
                self._idle = fitting[:-1]
                self._all -= set(unfit)
            for helper in unfit:  # the limit was changed meanwhile
                helper.end()
            if fitting:
                return fitting[-1]
            try:
                helper = _Helper(memory)
            except (OSError, _HelperEnded) as exc:
                raise NWBReadError(
                    f"no helper process can be started to read metadata in ({exc}): "
                    "lazynwb-dask.isolate needs one; isolate-memory may be too small"
                ) from None
            with self._lock:
                self._all.add(helper)
            return helper
        except BaseException:
            self._places.release()
            raise

    def give_back(self, helper: _Helper) -> None:
        with self._lock:
            if helper.alive:
                self._idle.append(helper)
            else:
                self._all.discard(helper)
        self._places.release()

    def end(self) -> None:
        with self._lock:
            helpers, self._idle, self._all = self._all, [], set()
        for helper in helpers:
            helper.end()


_pool = _Pool()
atexit.register(lambda: _pool.end())


def _after_fork() -> None:
    """Give a forked process a pool of its own: a helper's pipes serve one process only."""
    global _pool
    for helper in list(_pool._all):
        helper.forget()
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def main(memory: int) -> None:
    """Serve requests from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent
    requests, responses = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    # what a library prints must not get between the responses
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    at_first = _address_space()
    _limit(at_first + memory)
    while True:
        try:
            request, payload = wire.receive(requests)
        except EOFError:
            return
        if not request:
            wire.send(responses, {}, [])
            continue
        response, parts = _respond(request, payload)
        # a pass that failed may have leaked memory
        last = _address_space() - at_first > memory // 4
        wire.send(responses, {**response, "last": last}, parts)
        if last:
            return


def _respond(request: dict[str, Any], payload: memoryview) -> tuple[dict[str, Any], list[bytes]]:
    sparse = SparseFile(int(request["size"]))
    at = 0
    for start, length in request["runs"]:
        sparse.put(start, payload[at : at + length])
        at += length
    _alarm(float(request["seconds"]) + GRACE)
    try:
        result = attempt(sparse, request["name"], wire.unpack_job(request["job"]))
        if sparse.missing:
            return {"missing": sparse.missing_ranges()}, []
        packed, parts = wire.pack_result(result)
        return {"result": packed}, parts
    except NWBReadError as exc:
        return {"error": str(exc)}, []
    finally:
        _alarm(0)


def _alarm(seconds: float) -> None:
    """End this process after so many seconds, even within libhdf5, should its parent not do so."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _address_space() -> int:
    """The address space in use, in bytes; 0 where the system doesn't tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit(nbytes: int) -> None:
    """Limit the address space of this process to so many bytes, where the system supports that."""
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard != resource.RLIM_INFINITY:
            nbytes = min(nbytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (nbytes, nbytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # crashes leave no gigabytes behind
    except (ImportError, OSError, ValueError):  # Windows, some containers
        return


if __name__ == "__main__":
    main(int(sys.argv[1]))
