"""Work on many items at once, in order, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from typing import TypeVar

from lazynwb_dask.util.threads import kept

A = TypeVar("A")
B = TypeVar("B")


def concurrently(
    items: Sequence[A], work: Callable[[A], B], threads: int, progress: bool
) -> Iterator[B]:
    """The results of work on each item, in the items' order.

    The first error in that order is raised, whichever came first in time; what has not begun by then is
    not begun.
    """
    if not items:
        return
    if len(items) == 1:
        yield work(items[0])
        return
    pool = kept("lazynwb-dask-index", threads)
    futures = [pool.submit(work, item) for item in items]
    try:
        bar = _bar(len(items)) if progress else None
        for future in futures:
            yield future.result()
            if bar is not None:
                bar.update()
        if bar is not None:
            bar.close()
    finally:
        wait([future for future in futures if not future.cancel()])


def _bar(total: int):  # type: ignore[no-untyped-def]
    """A progress bar that appears only if the work takes a while, and only where somebody looks."""
    from tqdm.auto import tqdm

    return tqdm(
        total=total, desc="Indexing NWB files", unit="file", delay=2, disable=None, leave=False
    )
