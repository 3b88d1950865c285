"""Concurrent work on many files, with results in source order and one error policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from lazynwb_dask import config
from lazynwb_dask.errors import Failure, NWBError, NWBReadError
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.util.concurrently import concurrently
from lazynwb_dask.util.suggest import sentence

R = TypeVar("R")


def each_file(
    sources: Sequence[Source], work: Callable[[Source], R | Failure], on_error: str
) -> tuple[list[R], list[Failure]]:
    """The results of `work` on each source, and the files on which it failed. A source that is repeated is
    worked on once, and its result is repeated. Results are in source order, without those of files that
    failed. With ``on_error="raise"`` the error of the first file in source order that fails is raised."""

    def guarded(source: Source) -> R | Failure:
        try:
            return work(source)
        except NWBError as exc:
            if on_error == "raise":
                if isinstance(exc, NWBReadError) and len(distinct) > 1:
                    exc.args = (f"{sentence(str(exc))} on_error='skip' leaves such files out",)
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
    return NWBError(
        f"none of the {len(failures)} files can be read; the first: {failures[0].path}: {failures[0].error}"
    )
