"""What a computation did fetch, by file: in this process and on the workers of the active cluster."""

from __future__ import annotations

import html
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from dask.utils import format_bytes

from lazynwb_dask.cluster.client import active_client
from lazynwb_dask.storage import counters
from lazynwb_dask.storage.counters import Snapshot, Tally

_COLUMNS = ["requests", "bytes", "wanted", "gap", "retries"]
_SHOWN = 20  # files that the text names
Process = tuple[str, int]


@dataclass
class Trace:
    """What was read in a ``with`` block of `trace`. Complete when the block has ended.

    Attributes
    ----------
    total : Tally
        Counts of all files together: ``total.requests``, ``total.bytes``, ...
    by_file : dict of str to Tally
        Counts of each file, by its path or URL.
    processes : int
        The number of processes that read anything.

    See Also
    --------
    trace : makes one.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = lazynwb_dask.read_nwb(make_sessions("sessions", n=2), "/units")
    >>> with lazynwb_dask.trace() as fetched:
    ...     rates = units.firing_rate.compute()
    >>> fetched.total.requests, fetched.total.bytes, fetched.processes
    (2, 1920, 1)
    """

    total: Tally = field(default_factory=Tally)
    by_file: dict[str, Tally] = field(default_factory=dict)
    processes: int = 0

    @property
    def files(self) -> pd.DataFrame:
        """The counts of each file as a table.

        Returns
        -------
        pandas.DataFrame
            One row for each file, those with the most bytes first; the path or URL is the index. Columns
            (int64): `requests`, `bytes`, `wanted`, `gap`, `retries`, as in `total`.
        """
        rows = {name: [getattr(t, c) for c in _COLUMNS] for name, t in self.by_file.items()}
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=_COLUMNS)
        frame.index.name = "file"
        return frame.sort_values(["bytes", "requests"], ascending=False)

    def __str__(self) -> str:
        t = self.total
        head = (
            f"{t.requests} requests, {format_bytes(t.bytes)}, of {len(self.by_file)} files by "
            f"{self.processes} process{'es' * (self.processes != 1)}; {t.retries} repeated"
        )
        return f"{head}\n{self.files.head(_SHOWN).to_string()}" if self.by_file else head

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, _, _ = str(self).partition("\n")
        table = self.files.head(_SHOWN)._repr_html_()  # type: ignore[operator]
        return f"<p>{html.escape(head)}</p>{table}"


@contextmanager
def trace() -> Iterator[Trace]:
    """Record what is read in a ``with`` block, by this process and the workers of the active cluster.

    All reads of these processes during the block are counted, also those of other threads or users of the
    cluster.

    Yields
    ------
    Trace
        Empty until the block has ended.

    See Also
    --------
    explain : what a computation would read.

    Examples
    --------
    >>> import lazynwb_dask
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = lazynwb_dask.read_nwb(make_sessions("sessions", n=2), "/units")
    >>> with lazynwb_dask.trace() as fetched:
    ...     spikes = units[units.presence_ratio > 0.9].spike_times.compute()
    >>> fetched.files.columns.tolist()
    ['requests', 'bytes', 'wanted', 'gap', 'retries']
    >>> len(fetched.files), fetched.total.retries
    (2, 0)
    """
    before = _everywhere()
    found = Trace()
    try:
        yield found
    finally:
        for process, snapshot in _everywhere().items():
            _add(found, snapshot - before.get(process, Snapshot()))


def _add(found: Trace, difference: Snapshot) -> None:
    found.total.add(difference.total)
    found.processes += difference.total.requests > 0
    for name, tally in difference.files.items():
        found.by_file.setdefault(name, Tally()).add(tally)


def _everywhere() -> dict[Process, Snapshot]:
    """The counters of each process; workers that share one are one."""
    found = dict([_here()])
    client = active_client()
    if client is not None:
        responses: dict[str, Any] = client.run(_here, on_error="ignore")
        found.update(responses.values())
    return found


def _here() -> tuple[Process, Snapshot]:
    return (socket.gethostname(), os.getpid()), counters.snapshot()
