"""libhdf5 at arm's length: passes over a file's metadata in helper processes.

libhdf5 was not made for files that mean harm: damaged metadata can make it loop, take gigabytes, or
crash, and it can't be interrupted within a process. With the setting `lazynwb-dask.isolate`, each pass
over a file (see `formats.sparse`) is made by a helper with a limit on its memory and a deadline. A helper
that overruns is killed and replaced, and the file can't be read.

A helper has no secrets and does no input or output of its own. It is handed the blocks of the file that
are here, and answers with the result, an error, or the blocks that are missing; fetching them is up to its
parent. It keeps nothing from one pass to the next, so a few helpers serve many files that wait for bytes.

Messages are JSON and raw bytes, never pickles, and what a helper says is believed no more than the file
that it has read: every address and size in its answers is checked again (see `wire`).
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
from typing import TYPE_CHECKING, Any, cast

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.isolation.wire import (
    WireError,
    pack_job,
    pack_result,
    receive,
    send,
    unpack_job,
    unpack_result,
)
from lazynwb_dask.storage.settings import IsolatedSettings

if TYPE_CHECKING:
    from lazynwb_dask.hdf5.sparse_file import Job, SparseFile

HELPERS = max(2, min(8, os.cpu_count() or 2))  # at most so many of one process
GRACE = 5.0  # seconds by which a helper outlives its deadline if its parent is no more
START = 60.0  # seconds that a helper may take to begin
_SECRET = re.compile(
    "^(AWS|AZURE|GOOGLE|GCS|S3|DASK)_|KEY|SECRET|TOKEN|PASSW|CREDENTIAL|SIGNATURE", re.IGNORECASE
)


class Attempts:
    """Passes over one file, each made by whichever helper is free.

    Called like `formats.sparse.attempt`, of which this is the remote side.
    """

    def __init__(self, settings: IsolatedSettings) -> None:
        self._settings = settings
        self._left = settings.isolate_deadline
        self._job: object = None

    def __call__(self, sparse: SparseFile, name: str, job: Job[Any]) -> Any:
        if job is not self._job:  # each job of its own
            self._job, self._left = job, self._settings.isolate_deadline
        request = {"job": pack_job(job), "name": name, "size": sparse.size, "seconds": self._left}
        try:
            try:
                answer, payload = self._asked(request, sparse)
            except _GoneError as exc:
                if exc.overran:
                    raise
                # it may have been ended by somebody else, before it was asked
                answer, payload = self._asked(request, sparse)
        except _GoneError as exc:
            raise NWBReadError(f"{name}: {self._why(exc)}") from None
        try:
            return self._taken(answer, payload, sparse)
        except NWBReadError:
            raise
        except Exception as exc:  # a helper that a file has taken over may say anything
            raise NWBReadError(
                f"{name}: damaged: the helper process that read its metadata gave a senseless "
                f"answer ({type(exc).__name__})"
            ) from None

    def _asked(
        self, request: dict[str, Any], sparse: SparseFile
    ) -> tuple[dict[str, Any], memoryview]:
        helper = _pool.take(self._settings.isolate_memory)
        begun = time.monotonic()
        try:
            return helper.ask(request, sparse.runs(), self._left)
        finally:
            self._left -= time.monotonic() - begun
            _pool.give_back(helper)

    @staticmethod
    def _taken(answer: dict[str, Any], payload: memoryview, sparse: SparseFile) -> Any:
        if "error" in answer:
            raise NWBReadError(str(answer["error"])[:2000])
        if "missing" in answer:
            for start, stop in answer["missing"]:
                if not 0 <= start < stop <= sparse.size:
                    raise WireError("bytes outside the file")
                sparse.need(start, stop)
            if not sparse.missing:
                raise WireError("nothing is missing")
            return None
        return unpack_result(answer["result"], payload, sparse.size)

    def _why(self, exc: _GoneError) -> str:
        limit = self._settings
        if exc.overran:
            return (
                f"libhdf5 needs more than {limit.isolate_deadline:g} s for its metadata: the file is "
                "damaged, or lazynwb-dask.isolate-deadline too short"
            )
        return (
            f"the helper process that read its metadata ended unexpectedly (code {exc.code}): the "
            f"file is damaged, or needs more than lazynwb-dask.isolate-memory ({limit.isolate_memory >> 20} "
            "MiB)"
        )


class _GoneError(Exception):
    """A helper ended before it had answered."""

    def __init__(self, code: int | None, overran: bool = False) -> None:
        super().__init__(code)
        self.code, self.overran = code, overran


class _Helper:
    """One helper process, seen from its parent."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.alive = True
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        # one thread of each library is all that a pass needs; stacks count towards the limit
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**_harmless(), **threads, "PYTHONPATH": os.pathsep.join(paths)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in = cast(RawIOBase, self._process.stdin)
        self._out = cast(RawIOBase, self._process.stdout)
        self._overran = False
        self._exchanging: object = None
        self._exchange({}, [], START)  # an empty request: is it there?

    def ask(
        self, request: dict[str, Any], runs: list[tuple[int, list[bytes]]], seconds: float
    ) -> tuple[dict[str, Any], memoryview]:
        """The answer to one request, if it comes within so many seconds.

        Raises
        ------
        _GoneError
            The helper has crashed, or was killed because it took too long.
        """
        places = [(start, sum(map(len, blocks))) for start, blocks in runs]
        blocks = [block for _, held in runs for block in held]
        return self._exchange({**request, "runs": places}, blocks, seconds)

    def _exchange(
        self, request: dict[str, Any], parts: list[bytes], seconds: float
    ) -> tuple[dict[str, Any], memoryview]:
        exchange = self._exchanging = object()
        self._overran = False
        timer = threading.Timer(max(seconds, 0.0), self._overrun, [exchange])
        timer.daemon = True
        timer.start()
        try:
            send(self._in, request, parts)
            answer, payload = receive(self._out)
        except (OSError, EOFError, ValueError, WireError):
            self.end()
            raise _GoneError(self._process.returncode, self._overran) from None
        except BaseException:  # an interrupt leaves the rest of the answer in the pipe
            self.end()
            raise
        finally:
            self._exchanging = None
            timer.cancel()
        if answer.get("last"):
            self.end()
        return answer, payload

    def _overrun(self, exchange: object) -> None:
        if exchange is self._exchanging:  # not one that has ended meanwhile
            self._overran = True
            self._process.kill()

    def end(self) -> None:
        """End the process, whatever it does."""
        self.alive = False
        self._process.kill()
        self.forget()
        self._process.wait()

    def forget(self) -> None:
        """Let go of the process."""
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()


def _harmless() -> dict[str, str]:
    """The environment without what sounds like credentials."""
    return {name: value for name, value in os.environ.items() if not _SECRET.search(name)}


class _Pool:
    """The helpers of this process: started when they are needed, at most `HELPERS`."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(HELPERS)
        self._lock = threading.Lock()
        self._idle: list[_Helper] = []
        self._all: set[_Helper] = set()

    def take(self, memory: int) -> _Helper:
        """A helper that nobody else uses; waits for one if need be."""
        self._places.acquire()
        try:
            with self._lock:
                fitting = [h for h in self._idle if h.memory == memory]
                unfit = [h for h in self._idle if h.memory != memory]
                self._idle = fitting[:-1]
                self._all -= set(unfit)
            for helper in unfit:  # another limit was set since
                helper.end()
            if fitting:
                return fitting[-1]
            try:
                helper = _Helper(memory)
            except (OSError, _GoneError) as exc:
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
        """End all helpers."""
        with self._lock:
            helpers, self._idle, self._all = self._all, [], set()
        for helper in helpers:
            helper.end()


_pool = _Pool()
atexit.register(lambda: _pool.end())


def _after_fork() -> None:
    """A forked process has its parent's helpers no more: they answer to one only."""
    global _pool
    for helper in list(_pool._all):
        helper.forget()
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# ------------------------------------------------------------------------------------- the helper's side
def main(memory: int) -> None:
    """Serve requests from standard input until it ends."""
    from lazynwb_dask.nwb import tables as hdf5  # noqa: F401  (before the limit is set: libraries don't count)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent
    requests, answers = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    # what a library prints must not get between the answers
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    at_first = _address_space()
    _limit(at_first + memory)
    while True:
        try:
            request, payload = receive(requests)
        except EOFError:
            return
        if not request:
            send(answers, {}, [])
            continue
        answer, parts = _answer(request, payload)
        # a pass that went wrong may leave memory behind for good
        last = _address_space() - at_first > memory // 4
        send(answers, {**answer, "last": last}, parts)
        if last:
            return


def _answer(request: dict[str, Any], payload: memoryview) -> tuple[dict[str, Any], list[bytes]]:
    from lazynwb_dask.hdf5.sparse_file import SparseFile, attempt

    sparse = SparseFile(int(request["size"]))
    at = 0
    for start, length in request["runs"]:
        sparse.put(start, payload[at : at + length])
        at += length
    _alarm(float(request["seconds"]) + GRACE)
    try:
        result = attempt(sparse, request["name"], unpack_job(request["job"]))
        if sparse.missing:
            return {"missing": sparse.missing_ranges()}, []
        packed, parts = pack_result(result)
        return {"result": packed}, parts
    except NWBReadError as exc:
        return {"error": str(exc)}, []
    finally:
        _alarm(0)


def _alarm(seconds: float) -> None:
    """End this process in so many seconds, even within libhdf5, should its parent not do so."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _address_space() -> int:
    """The address space in use; 0 where the system doesn't tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit(nbytes: int) -> None:
    """Let this process take no more address space than so many bytes, where the system can see to that."""
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
