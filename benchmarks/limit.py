"""What the network and the decoder allow: a query's own requests, replayed by plain aiohttp.

The store has kept what a run asked for. A process that knows nothing of lazynwb_dask asks for the same
ranges, over as many connections, which are open before the clock starts. All is asked for at once, except that
of each file what depends on other bytes follows these; the question says how many such waves it needs. Chunks
are inflated in threads as soon as their last byte is there, and nothing is made of them. Where they lie is
found by h5py beforehand. All objects of a Zarr store are one file here; their chunks are not decoded.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .store import Served, Store, whole

Chunk = tuple[int, int, int]  # of a file: where it begins, its bytes, and those it is inflated to


# ----------------------------------------------------------------------------------- before the clock
def replay(store: Store, log: Iterable[Served], waves: int, spare: str) -> dict[str, Any]:
    """Ask the store for the same again, in a process of its own: seconds and what the store saw.

    Parameters
    ----------
    store : Store
    log : iterable of Served
        What a run has asked for.
    waves : int
        How many requests for a file may have to wait for each other, at most.
    spare : str
        Another object, to open connections with.
    """
    from lazynwb_dask import config

    by_file: dict[str, list[Served]] = {}
    for one in log:
        by_file.setdefault(whole(one.key), []).append(one)
    files = [_file(store.root / key, served, waves) for key, served in by_file.items()]
    connections = int(config.get("connections"))
    plan = {"endpoint": store.endpoint, "connections": connections, "spare": _path(spare), "files": files}
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.limit"], cwd=Path(__file__).parents[1], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(plan), file=process.stdin, flush=True)
        process.stdout.readline()  # it is ready
        store.reset()
        print(file=process.stdin, flush=True)
        taken: dict[str, Any] = json.loads(process.stdout.readline())
        return taken | store.stats() | {"waves": max(len(file["waves"]) for file in files)}


def _file(path: Path, served: Sequence[Served], most: int) -> dict[str, Any]:
    """The requests for a file in waves, and its chunks as pieces of answers."""
    served = sorted(served, key=lambda one: one.begin)
    level: list[int] = []
    for i, one in enumerate(served):
        before = [level[j] for j in range(i) if served[j].end <= one.begin]
        level.append(1 + max(before, default=0))
    waves: list[list[int]] = [[] for _ in range(min(most, max(level)))]
    for i, depth in enumerate(level):
        waves[min(depth, most) - 1].append(i)
    bodies = sorted((one.start, one.start + one.sent, i) for i, one in enumerate(served) if one.sent)
    chunks = []
    for start, size, inflated in _deflated(path) if bodies else ():
        pieces, at = [], start
        for begin, end, i in bodies:
            until = min(end, start + size)
            if begin <= at < until:
                pieces.append([i, at - begin, until - begin])
                at = until
        if at == start + size:
            chunks.append([pieces, inflated])
    requests = [[_path(one.key), one.start, one.sent] for one in served]
    return {"requests": requests, "waves": waves, "chunks": chunks}


def _path(key: str) -> str:
    return f"/{quote(key)}"


@cache
def _deflated(path: Path) -> list[Chunk]:
    """The chunks of a file that are deflated."""
    if path.suffix != ".nwb":
        return []
    import h5py

    found: list[Chunk] = []

    def visit(_: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.compression != "gzip":
            return
        filters = item.id.get_create_plist()
        names = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
        skipped = 1 << names.index(h5py.h5z.FILTER_DEFLATE)
        chunks: list[Any] = []
        item.id.chunk_iter(chunks.append)
        packed = [chunk for chunk in chunks if not chunk.filter_mask & skipped]
        size = item.dtype.itemsize * math.prod(item.chunks)
        if packed and item.dtype.hasobject:  # a text's place in the heap takes other bytes than its object
            size = len(zlib.decompress(item.id.read_direct_chunk(packed[0].chunk_offset)[1]))
        found.extend((chunk.byte_offset, chunk.size, size) for chunk in packed)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


# ------------------------------------------------------------------------------- in the replaying process
def main() -> None:
    """Read a plan, get ready, say so; at the next line replay it, and say how long it took."""
    print(json.dumps(asyncio.run(_replayed(json.loads(sys.stdin.readline())))), flush=True)


async def _replayed(plan: Mapping[str, Any]) -> dict[str, float]:
    import aiohttp

    inflate = inflater()
    connector = aiohttp.TCPConnector(limit=plan["connections"])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        async with aiohttp.ClientSession(plan["endpoint"], connector=connector) as session:
            opened = [_fetched(session, plan["spare"], (0, 1)) for _ in range(plan["connections"])]
            await asyncio.gather(*opened)
            print("ready", flush=True)
            sys.stdin.readline()
            cpu, begun = time.process_time(), time.perf_counter()
            await asyncio.gather(*[_read(session, file, threads, inflate) for file in plan["files"]])
            return {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}


async def _read(
    session: Any, file: Mapping[str, Any], threads: ThreadPoolExecutor, inflate: Callable[[Any, int], Any]
) -> None:
    """Fetch a file's ranges, wave after wave, and inflate its chunks."""
    bodies = [bytearray(sent) for *_, sent in file["requests"]]
    ends: list[list[tuple[int, int]]] = [[] for _ in bodies]  # of each body: where pieces end, of which chunk
    missing = []
    for number, (pieces, _) in enumerate(file["chunks"]):
        missing.append(len(pieces))
        for i, _, until in pieces:
            ends[i].append((until, number))
    work: list[Future[None]] = []

    def complete(number: int) -> None:
        pieces, size = file["chunks"][number]
        parts = [memoryview(bodies[i])[begin:until] for i, begin, until in pieces]
        inflate(parts[0] if len(parts) == 1 else b"".join(parts), size)

    async def one(i: int) -> None:
        due = sorted(ends[i], reverse=True)

        def arrived(size: int) -> None:
            while due and due[-1][0] <= size:
                number = due.pop()[1]
                missing[number] -= 1
                if not missing[number]:
                    work.append(threads.submit(complete, number))

        path, *span = file["requests"][i]
        await _fetched(session, path, span, bodies[i], arrived)

    for wave in file["waves"]:
        await asyncio.gather(*map(one, wave))
    await asyncio.gather(*map(asyncio.wrap_future, work))


async def _fetched(
    session: Any, path: str, span: Sequence[int], body: bytearray | None = None,
    arrived: Callable[[int], None] = lambda _: None,
) -> None:  # fmt: skip
    start, size = span
    if not size:  # it had an answer without a body
        async with session.head(path):
            return
    body, at = bytearray(size) if body is None else body, 0
    async with session.get(path, headers={"Range": f"bytes={start}-{start + size - 1}"}) as response:
        response.raise_for_status()
        async for piece in response.content.iter_any():
            body[at : at + len(piece)] = piece
            at += len(piece)
            arrived(at)


def inflater() -> Callable[[Any, int], Any]:
    """The fastest decoder that is installed; all release the interpreter lock."""
    try:
        from deflate import zlib_decompress
    except ImportError:
        from isal import isal_zlib

        return lambda data, size: isal_zlib.decompress(data, bufsize=size)
    found: Callable[[Any, int], Any] = zlib_decompress
    return found


if __name__ == "__main__":
    main()
