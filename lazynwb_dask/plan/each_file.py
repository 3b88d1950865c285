"""The same work on each of many files: at once, in source order, with one policy for those that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from lazynwb_dask import config
from lazynwb_dask.errors import Failure, NWBError
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.util.concurrently import concurrently

R = TypeVar("R")


def each_file(
    sources: Sequence[Source], work: Callable[[Source], R | Failure], on_error: str
) -> tuple[list[R], list[Failure]]:
    """The results of some work on each file, and the files on which it failed.

    Parameters
    ----------
    sources : sequence of Source
        One that is named more than once is worked on once.
    work : callable
        May return a `Failure` too.
    on_error : {"raise", "skip"}
        Raise the error of the first file in source order that fails, or go on without such files.

    Returns
    -------
    list of results
        In source order, repeated where sources are; files that failed are left out.
    list of Failure
    """

    def guarded(source: Source) -> R | Failure:
        try:
            return work(source)
        except NWBError as exc:
            if on_error == "raise":
                raise
            return Failure.of(shown(source.url), "plan", exc)

    distinct = list(dict.fromkeys(sources))
    threads, progress = int(config.get("index-threads")), bool(config.get("progress"))
    results = dict(zip(distinct, concurrently(distinct, guarded, threads, progress), strict=True))
    ordered = [results[source] for source in sources]
    return (
        [one for one in ordered if not isinstance(one, Failure)],
        [one for one in ordered if isinstance(one, Failure)],
    )


def none_readable(failures: Sequence[Failure]) -> NWBError:
    """The error where all files failed."""
    return NWBError(
        f"none of the {len(failures)} files can be read; the first: {failures[0].path}: "
        f"{failures[0].error}"
    )
