"""A measured process: it is told in JSON, a line each, what to do, and answers in the same way."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from .peers import NotSupported, Task, load
from .workloads import WORKLOADS

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def main() -> None:
    """Serve until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not get between
    worker = _Worker()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            reply = getattr(worker, command.pop("do"))(**command)
        except NotSupported as error:
            reply = {"unsupported": str(error)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(reply), file=out, flush=True)


class _Worker:
    def start(self, peer: str, workload: str, task: dict[str, Any]) -> dict[str, Any]:
        """Import the reader; if the question isn't a cold one, let it learn the schema."""
        self.name, self.workload = peer, WORKLOADS[workload]
        self.peer = load(peer, Task(**task))
        self.method = getattr(self.peer, self.workload.method, None)
        self.result: Any = None
        if self.method is None:
            raise NotSupported("not supported")
        if not self.workload.cold:
            self.peer.plan()
        return {}

    def warm_up(self, task: dict[str, Any]) -> dict[str, Any]:
        """Answer the question for other files, so that code is loaded and connections are open."""
        other = load(self.name, Task(**task))
        other.plan()
        getattr(other, self.workload.method)()
        if hasattr(other, "warm_up"):
            other.warm_up(self.workload.method)
        return {}

    def run(self) -> dict[str, Any]:
        """Answer the question once."""
        self.result = None
        gc.collect()
        assert self.method is not None
        everywhere = getattr(self.peer, "everywhere", lambda work: [work()])  # if it has more processes
        everywhere(_forget_peak)
        cpu, begun = sum(everywhere(time.process_time)), time.perf_counter()
        if self.workload.cold:
            self.peer.plan()
        self.result = self.method()
        seconds = time.perf_counter() - begun
        cpu = sum(everywhere(time.process_time)) - cpu
        return {"seconds": seconds, "cpu": cpu, "peak": sum(everywhere(_peak))}

    def answer(self) -> dict[str, Any]:
        """What the last answer was, as a digest."""
        if self.workload.method == "schema":
            return {"rows": len(self.result), "digest": json.dumps(self.result, sort_keys=True)}
        from .answers import digest

        return digest(self.peer.answer(self.workload.method, self.result))


def _forget_peak() -> None:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return  # elsewhere than on Linux the peak is that of the whole process


def _peak() -> int:
    """The most memory that was resident, in bytes."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    main()
