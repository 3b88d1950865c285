"""One reader, one question: run it in processes of its own and count what the store saw."""

from __future__ import annotations

import contextlib
import json
import select
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import limit
from .peers import PEERS, Task
from .sessions import Dataset
from .store import Store
from .workloads import Workload

SLOW = 3.0  # seconds of a run of another reader after which it isn't repeated


@dataclass(frozen=True)
class Setting:
    """Where and how it is measured."""

    dataset: Dataset
    layout: str
    latency: float  # seconds
    bandwidth: float  # bytes a second
    protocol: str
    repeats: int
    patience: float  # seconds until a run is given up


@dataclass
class Row:
    """What one reader did with one question."""

    workload: str
    peer: str
    layout: str
    latency: float
    files: int
    first: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)  # its requests, replayed
    answer: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def typical(self) -> dict[str, Any]:
        """The run of median time, of those after the first."""
        return _middle(self.runs) if self.runs else self.first

    @property
    def worst(self) -> float:
        """The most seconds of those runs."""
        return float(max((run["seconds"] for run in self.runs), default=self.first["seconds"]))

    @property
    def limit(self) -> dict[str, Any] | None:
        """The replay of median time."""
        return _middle(self.limits) if self.limits else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "typical": self.typical, "limit": self.limit}


def _middle(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    middle = statistics.median_low(run["seconds"] for run in runs)
    return next(run for run in runs if run["seconds"] == middle)


class Failed(Exception):
    """The reader can't, or didn't in time."""


class Worker:
    """A process that is about to be measured."""

    def __init__(self, python: str, patience: float) -> None:
        self._patience = patience
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker"], cwd=Path(__file__).parents[1], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __call__(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], self._patience)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise Failed(f"no answer within {self._patience:.0f} s" if not ready else "it crashed")
        reply: dict[str, Any] = json.loads(line)
        if "unsupported" in reply or "error" in reply:
            raise Failed(reply.get("unsupported") or reply["error"])
        return reply

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def measure(store: Store, workload: Workload, peer: str, setting: Setting, python: str) -> Row:
    """Run a question as often as asked for.

    Each time in a new process, for which the answer is new too: readers that keep data would otherwise
    be asked for what they have. After the first, each has answered the question for another file
    before the clock starts. Unless the question is a cold one, the files' schema is known by then.
    """
    row = Row(workload.name, peer, setting.layout, setting.latency, len(setting.dataset.keys))
    with tempfile.TemporaryDirectory() as folder:
        try:
            _repeated(row, store, workload, peer, setting, python, folder)
        except Failed as failed:
            row.note = str(failed)
    log = store.log() if row.first and PEERS[peer].is_ours else []
    log = [one for one in log if (store.root / one.key).is_file()]  # no listings
    spare = setting.dataset.spare
    if (store.root / spare).is_dir():
        spare = next(f"{spare}/{n}" for n in (".zgroup", "zarr.json") if (store.root / spare / n).exists())
    for _ in range(setting.repeats if log else 0):
        row.limits.append(limit.replay(store, log, workload.waves, spare))
    return row


def _repeated(
    row: Row, store: Store, workload: Workload, peer: str, setting: Setting, python: str, folder: str
) -> None:
    if PEERS[peer].keeps_catalog:
        catalog = f"{folder}/kept"
        with _started(store, workload, peer, setting, python, catalog) as (worker, _):
            worker("run")
    for i in range(setting.repeats + 1):
        if not PEERS[peer].keeps_catalog:
            catalog = f"{folder}/{i}"
        with _started(store, workload, peer, setting, python, catalog) as (worker, spare):
            if i:
                worker("warm_up", task=spare)
            run = _run(worker, store, setting)
            if i == 0:
                row.first, row.answer = run, worker("answer")
            else:
                row.runs.append(run)
        if run["seconds"] > SLOW and not PEERS[peer].is_ours:
            return


def _run(worker: Worker, store: Store, setting: Setting) -> dict[str, Any]:
    store.reset(latency=setting.latency, bandwidth=setting.bandwidth)
    run = worker("run")
    return run | store.stats()


@contextlib.contextmanager
def _started(
    store: Store, workload: Workload, peer: str, setting: Setting, python: str, catalog: str
) -> Iterator[tuple[Worker, dict[str, Any]]]:
    """A worker that knows its task, and the same task for another file."""
    about, dataset = PEERS[peer], setting.dataset
    keys: Sequence[str] = dataset.keys
    spare = [dataset.spare]
    if about.files == "parquet":
        keys = dataset.parquet(workload.table)
        spare = [dataset.spare_parquet(workload.table)]
    protocol = about.protocol or setting.protocol
    store.reset(latency=setting.latency, bandwidth=setting.bandwidth)

    def task(keys: Sequence[str]) -> dict[str, Any]:
        urls = [store.url(protocol, *key.split("/", 1)) for key in keys]
        settings = {"catalog": catalog}
        return asdict(
            Task(urls, workload.table, store.endpoint, dataset.unit, about.threads, about.workers, settings)
        )

    worker = Worker(python, setting.patience)
    try:
        worker("start", peer=peer, workload=workload.name, task=task(keys))
        yield worker, task(spare)
    finally:
        worker.close()
