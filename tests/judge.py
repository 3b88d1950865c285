"""What becomes of damaged files: each is read in a process that may crash, and the answer is judged.

`judged` runs a range of mutants in worker processes. A worker lists a mutant's tables, indexes and reads
each, and compares with the frames of the good file; where values differ, with what h5py reads from the
mutant, in a third process, since h5py may hang on it. Every mutant ends in one of the `OUTCOMES`; those in
`FORBIDDEN` are our failures.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OUTCOMES = {
    "same": "every table reads as in the good file",
    "partly": "the same, but for columns or tables that are reported to be unreadable",
    "refused": "an NWBError that names the file",
    "as h5py": "values differ from the good file's, and are what h5py reads",
    "unsettled": "values differ, and h5py can't read them or takes too long",
    "wrong": "values differ from the good file's and from what h5py reads",
    "nameless": "an NWBError that doesn't name the file",
    "escaped": "an exception of another type",
    "leaked": "a frame or an error shows what is in another file",
    "memory": "more memory than declared and 200 MB",
    "late": "longer than the deadline",
    "crashed": "the process died",
}
FORBIDDEN = ("wrong", "nameless", "escaped", "leaked", "memory", "late", "crashed")
SPARE = 200 << 20  # bytes beyond what the file declares
WORKERS = 2


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant."""

    number: int
    outcome: str
    file: str = ""
    how: str = ""
    note: str = ""
    seconds: float = 0.0
    grown: int = 0  # bytes of memory at the peak, more than before


def judged(
    first: int, last: int, *, deadline: float = 10.0, isolate: bool = True, workers: int = WORKERS
) -> Iterator[Verdict]:
    """The verdicts on a range of mutants, in any order."""
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(first, last):
        numbers.put(number)
    found: queue.SimpleQueue[Verdict | None] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        threads = [
            threading.Thread(
                target=_oversee, args=(numbers, found, Path(folder), deadline, isolate), daemon=True
            )
            for _ in range(workers)
        ]
        for thread in threads:
            thread.start()
        ended = 0
        while ended < workers:
            verdict = found.get()
            if verdict is None:
                ended += 1
            else:
                yield verdict


def _oversee(
    numbers: queue.SimpleQueue[int],
    found: queue.SimpleQueue[Verdict | None],
    folder: Path,
    deadline: float,
    isolate: bool,
) -> None:
    """Hand out numbers to one worker at a time; a new one when it dies."""
    worker: subprocess.Popen[str] | None = None
    try:
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                return
            if worker is None:
                own = tempfile.mkdtemp(dir=folder)
                arguments = [sys.executable, __file__, own, str(deadline), str(int(isolate))]
                worker = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                assert worker.stdout is not None
                worker.stdout.readline()
            assert worker.stdin is not None
            assert worker.stdout is not None
            # three jobs at most may run into their deadline before a mutant is refused
            timer = threading.Timer(3 * deadline + 30, worker.kill)
            timer.start()
            with contextlib.suppress(OSError):
                worker.stdin.write(f"{number}\n")
                worker.stdin.flush()
            line = worker.stdout.readline()
            overran = not timer.is_alive()
            timer.cancel()
            if line:
                found.put(Verdict(**json.loads(line)))
                continue
            code = worker.wait()
            found.put(Verdict(number, "late" if overran else "crashed", note=f"code {code}"))
            worker = None
    finally:
        if worker is not None:
            worker.kill()
            worker.wait()
        found.put(None)


# ---------------------------------------------------------------------------------------- the worker
class Judge:
    """Makes mutants, reads them and judges the answers."""

    def __init__(self, folder: Path, deadline: float, isolate: bool) -> None:
        import mutants
        import oracle

        from lazynwb_dask.storage import Settings
        from lazynwb_dask.storage.settings import IsolatedSettings

        self.mutants, self.folder, self.deadline = mutants, folder, deadline
        self.settings = IsolatedSettings(isolate_deadline=deadline) if isolate else Settings()
        good = mutants.good_files(folder, _corpus(oracle))
        self.names = list(good)
        self.good = good
        self.anatomies: dict[str, Any] = {}
        self.frames: dict[str, dict[str, Any]] = {}  # of the tables of good files
        self.more: dict[str, dict[str, Any]] = {}  # and of their TimeSeries
        self.h5py = Oracle(deadline)
        self.path = folder / "mutant.nwb"

    def judge(self, number: int) -> Verdict:
        chance = random.Random(number)
        kinds = self.names[:2] if chance.random() < 0.4 else self.names
        name = chance.choice(kinds)
        if name not in self.anatomies:
            self.anatomies[name] = self.mutants.Anatomy.of(self.good[name])
            self._learn(name)
        mutant = self.mutants.mutate(self.anatomies[name], number)
        self.path = self.folder / f"mutant-{number}.nwb"
        self.path.write_bytes(mutant.data)
        try:
            return self._judge(number, name, mutant.how)
        finally:
            self.path.unlink()

    def _learn(self, name: str) -> None:
        """What is in a good file."""
        path = self.folder / "good.nwb"
        path.write_bytes(self.good[name])
        read = Reading(path, self.settings)
        self.frames[name] = {table: read.frame(table)[0] for table in read.tables()}
        self.more[name] = {table: read.frame(table)[0] for table in read.series()}

    def _judge(self, number: int, name: str, how: str) -> Verdict:
        from lazynwb_dask.errors import NWBError

        _reset_peak()
        before, begun = _memory("VmRSS"), time.monotonic()
        outcomes: set[str] = set()
        notes: list[str] = []
        declared = 0
        read = Reading(self.path, self.settings)
        slowest = 0.0
        try:
            good = self.frames[name] | self.more[name]
            tables = list(dict.fromkeys([*read.tables(), *self.frames[name]]))
            if number % 3 == 0:  # all the rest takes as long again
                read.session()
                tables = list(dict.fromkeys([*tables, *self.more[name], *read.series()]))
            for table in tables[:40]:
                started = time.monotonic()
                try:
                    got, nbytes, problems = read.frame(table)
                except NWBError as exc:
                    outcomes.add(self._refusal(exc, notes))
                    slowest = max(slowest, time.monotonic() - started)
                    if time.monotonic() - begun > self.deadline:
                        break  # it would be as long with every table
                    continue
                slowest = max(slowest, time.monotonic() - started)
                declared += nbytes
                outcomes |= self._compared(got, good.get(table), table, notes)
                if problems:
                    outcomes.add("partly")
                    if self.mutants.SECRET in str(problems):
                        outcomes.add("leaked")
        except NWBError as exc:
            outcomes.add(self._refusal(exc, notes))
        except MemoryError:
            outcomes.add("memory")
        except Exception as exc:
            import traceback

            outcomes.add("escaped")
            notes.append("".join(traceback.format_exception(exc)[-4:]))
        seconds = max(slowest, read.listing)
        grown = _memory("VmHWM") - before
        if grown > declared + SPARE:
            outcomes.add("memory")
        if seconds > self.deadline + 5:
            outcomes.add("late")
        order = list(OUTCOMES)
        worst = max(outcomes or {"same"}, key=order.index)
        return Verdict(number, worst, name, how, "; ".join(notes)[:1500], seconds, grown)

    def _refusal(self, exc: Exception, notes: list[str]) -> str:
        text = str(exc)
        notes.append(text[:300])
        if self.mutants.SECRET in text:
            return "leaked"
        return "refused" if str(self.path) in text else "nameless"

    def _compared(self, got: Any, good: Any, table: str, notes: list[str]) -> set[str]:
        """How a frame differs from the good file's."""
        import oracle

        if self.mutants.SECRET in got.to_csv():
            return {"leaked"}
        outcomes = set()
        changed = []
        if good is None or len(good) != len(got):
            changed = list(got.columns)
        else:
            for column in got.columns:
                same = column in good and good[column].dtype == got[column].dtype
                if not same or oracle._difference(oracle._arrow(got[column]), oracle._arrow(good[column])):
                    changed.append(column)
            if set(good.columns) - set(got.columns):
                outcomes.add("partly")
        changed = [c for c in changed if not c.startswith("_")]
        if not changed:
            return outcomes | {"same"}
        for column, verdict in self.h5py.compare(self.path, table, got[changed]).items():
            outcomes.add(verdict[0])
            if verdict[0] != "as h5py":
                notes.append(f"{table} {column}: {verdict[1]}")
        return outcomes


class Reading:
    """Reads one file as `read_nwb` does, without Dask."""

    def __init__(self, path: Path, settings: Any) -> None:
        from lazynwb_dask.sources.expand import expand
        from lazynwb_dask.storage.access import FileAccess
        from lazynwb_dask.storage.options import Options

        self.access = FileAccess(Options(None), settings)
        (self.source,) = expand(str(path), self.access)
        self.listing = 0.0

    def tables(self) -> list[str]:
        from lazynwb_dask.metadata import queries

        begun = time.monotonic()
        try:
            return queries.list_tables(self.source, self.access)
        finally:
            self.listing = max(self.listing, time.monotonic() - begun)

    def series(self) -> list[str]:
        """The paths of the first TimeSeries."""
        from lazynwb_dask.metadata import queries
        from lazynwb_dask.nwb.contents import TIMESERIES

        begun = time.monotonic()
        try:
            _, found = queries.list_objects(self.source, self.access)
        finally:
            self.listing = max(self.listing, time.monotonic() - begun)
        return [f["path"] for f in found if f["kind"] == TIMESERIES][:3]

    def session(self) -> dict[str, Any]:
        """The session's and the subject's fields."""
        from lazynwb_dask.metadata.queries import read_session

        return read_session(self.source, self.access).fields

    def frame(self, table: str) -> tuple[Any, int, dict[str, str]]:
        """The frame, what the file declares to hold of it, and the columns left out."""
        from lazynwb_dask.errors import TableNotFoundError
        from lazynwb_dask.plan import partitions as assembly
        from lazynwb_dask.plan import schema
        from lazynwb_dask.plan.index_files import index_files
        from lazynwb_dask.scan.request import Selection, TableRequest

        (found,), _ = index_files([self.source], TableRequest(table), self.access)
        if found.table is None:
            raise TableNotFoundError(f"{self.source.url}: no table {table}")
        pairs = [(found.source, found.table)]
        unified = schema.unify([(s.url, t) for s, t in pairs])
        plan = assembly.build(pairs, unified, TableRequest(table), self.access.options)
        from lazynwb_dask.cluster.execute import execute

        frame = execute(plan, Selection(tuple(plan.fields)), self.access.settings)
        declared = sum(c.nbytes for c in found.table.columns.values())
        problems = {name: conflict.reason for name, conflict in unified.conflicts.items()}
        return frame, declared, problems


class Oracle:
    """h5py's opinion of a mutant, from a process that may hang."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None

    def compare(self, path: Path, table: str, got: Any) -> dict[str, tuple[str, str]]:
        """For each column whether it is what h5py reads."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "oracle"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self.deadline, process.kill)
        timer.start()
        try:
            pickle.dump((str(path), table, got), process.stdin)
            process.stdin.flush()
            answer: dict[str, tuple[str, str]] = pickle.load(process.stdout)
            return answer
        except (OSError, EOFError, pickle.UnpicklingError):
            process.kill()
            process.wait()
            self._process = None
            return {"*": ("unsettled", "h5py crashes or hangs")}
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def _opinion(path: str, table: str, got: Any) -> dict[str, tuple[str, str]]:
    import h5py
    import oracle

    found: dict[str, tuple[str, str]] = {}
    try:
        with h5py.File(path, "r") as file:
            try:
                paths = oracle._paths(file)
            except Exception:
                paths = _tolerant_paths(file)
            group = file[table]
            if "id" not in group:  # a TimeSeries; its times may follow from a rate
                rows = len(got)
                got = got[[c for c in got.columns if c in group]]
            else:
                rows = group["id"].shape[0] if group["id"].shape else 1
            if rows > 10_000_000:
                return {"*": ("unsettled", f"{rows} rows")}
            for column in got.columns:
                found[column] = _column_opinion(file, paths, group, column, rows, got[column])
    except Exception as exc:
        return {"*": ("unsettled", f"h5py: {type(exc).__name__}: {exc}")} | found
    return found


def _tolerant_paths(file: Any) -> dict[int, str]:
    """The paths of the objects that can be reached past those that can't."""
    import h5py

    found: dict[int, str] = {}
    level = [("", file)]
    for _ in range(12):
        below = []
        for path, group in level:
            names: list[str] = []
            with contextlib.suppress(Exception):
                names = list(group)
            for name in names:
                with contextlib.suppress(Exception):
                    if isinstance(group.get(name, getlink=True), h5py.HardLink):
                        # the link tells, also where the object itself can't be opened
                        address = group.id.links.get_info(name.encode()).u
                        if address not in found:
                            found[address] = f"{path}/{name}"
                            item = group[name]
                            if isinstance(item, h5py.Group):
                                below.append((f"{path}/{name}", item))
        level = below
    return found


def _column_opinion(file: Any, paths: Any, group: Any, column: str, rows: int, got: Any) -> tuple[str, str]:
    import oracle
    import pandas as pd

    parent, _, last = column.rpartition("/")
    try:
        home = group[parent] if parent else group
        indexes = {at: index for index, at in oracle._indexes(file, home).items()}
        wanted = pd.Series(oracle._column(file, paths, home, last, indexes, rows))
    except Exception as exc:
        return "unsettled", f"h5py: {type(exc).__name__}: {exc}"
    if got.dtype != wanted.dtype:
        return "wrong", f"{got.dtype}, h5py {wanted.dtype}"
    difference = oracle._difference(oracle._arrow(got), oracle._arrow(wanted))
    if difference is None:
        return "as h5py", ""
    return "wrong", f"{difference}: {got.tolist()!s:.200} h5py {wanted.tolist()!s:.200}"


def _corpus(oracle: Any) -> list[Path]:
    try:
        return oracle.corpus_files()  # type: ignore[no-any-return]
    except BaseException as exc:  # pytest.skip raises what is no Exception
        if type(exc).__name__ == "Skipped":
            return []
        raise


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> int:
    """Bytes of this process's memory, now or at the peak; 0 where the system doesn't tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return 0


def main() -> None:
    if sys.argv[1] == "oracle":
        answers = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        while True:
            try:
                asked = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            pickle.dump(_opinion(*asked), answers)
            answers.flush()
    import dask

    dask.config.set({"lazynwb-dask.cache": False})  # of no use, as each file is read once
    judge = Judge(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "1")
    import resource

    # what is asked for and not used counts too: as a MemoryError
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(judge.judge(int(line)))), flush=True)


if __name__ == "__main__":
    main()
