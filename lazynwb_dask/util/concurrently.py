"""Many items, worked on concurrently, with results and errors in the order of the items; and progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from lazynwb_dask.util.threads import MOST, end, submit_all, thread_pool

A = TypeVar("A")
B = TypeVar("B")


def concurrently(items: Sequence[A], work: Callable[[A], B], threads: int, progress: bool) -> Iterator[B]:
    """The results of work on each item, in the items' order; `threads` items are worked on at a time.

    The first error in that order is raised, whichever came first in time; no further item is begun then.
    `progress` shows a progress bar if it takes long.

    >>> list(concurrently(["a", "b"], str.upper, threads=2, progress=False))
    ['A', 'B']
    """
    if not items:
        return
    if len(items) == 1:
        yield work(items[0])
        return
    pool = thread_pool("lazynwb-dask-index", threads)
    futures, interrupt = submit_all(pool, [partial(work, item) for item in items])
    try:
        bar = progress_bar(len(items), "Indexing NWB files") if progress else None
        for future in futures:
            yield future.result()
            if bar is not None:
                bar.update()
        if bar is not None:
            bar.close()
    except KeyboardInterrupt:
        interrupt.set()
        end(futures, MOST)
        raise
    finally:
        if not interrupt.is_set():
            end(futures)


def progress_bar(total: int, description: str, delay: float = 2, unit: str = "file") -> Any:
    """A bar of tqdm over `total` files, after `delay` seconds, and only in terminals and notebooks."""
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=description, unit=unit, delay=delay, disable=None, leave=False)
