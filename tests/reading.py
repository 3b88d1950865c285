"""What tests of reading share: a file's bytes, patience, and a reader that checks its sinks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import Request, Settings, fetch
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

KIB, MIB = 1024, 1024 * 1024
DATA = random.Random(1).randbytes(3 * MIB)
PLAIN = Options()
# No test waits long for what must fail; only stalls need an impatient reader to be noticed.
QUICK = Settings(timeout=10, retries=3, deadline=20, pause=0.01, longest_pause=0.02)
IMPATIENT = replace(QUICK, timeout=1.0)  # where a machine is busy, any response may take a while


def read(
    source: Source, ranges: Sequence[tuple[int, int]], options: Options = PLAIN, how: Settings = QUICK
) -> list[bytes]:
    """What the sinks got, in the order of the ranges; each must have been called once."""
    got: list[list[bytes]] = [[] for _ in ranges]
    requests = [
        Request(a, b, lambda view, i=i: got[i].append(bytes(view)))  # type: ignore[misc]
        for i, (a, b) in enumerate(ranges)
    ]
    fetch(source, requests, FileAccess(options, how))
    assert [len(calls) for calls in got] == [1] * len(ranges)
    return [calls[0] for calls in got]
