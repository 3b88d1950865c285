"""A source that is several files: which byte ranges are of which."""

from __future__ import annotations

from collections.abc import Sequence

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.storage.coalesce import Request


def by_part(source: Source, requests: Sequence[Request]) -> list[tuple[Source, list[Request]]]:
    """The requests for each of a source's files, with positions as they are there.

    NWBReadError if a range doesn't lie within one of them.

    >>> both = Source("both", parts=(Source("one", 10), Source("two", 20)))
    >>> [(s.url, [r[:2] for r in found]) for s, found in by_part(both, [Request(12, 15, print)])]
    [('two', [(2, 5)])]
    """
    if not source.parts:
        return [(source, list(requests))]
    found: list[tuple[Source, list[Request]]] = [(part, []) for part in source.parts]
    ends: list[int] = []
    for part in source.parts:
        ends.append((ends[-1] if ends else 0) + (part.size or 0))
    for start, stop, sink, *_ in requests:
        at = next((i for i, end in enumerate(ends) if start < end), len(ends) - 1)
        begin = ends[at - 1] if at else 0
        if stop > ends[at]:
            raise NWBReadError(
                f"{shown(source.url)}: it refers to bytes {start - begin}-{stop - begin - 1} of "
                f"{shown(source.parts[at].url)}, which has only {source.parts[at].size}"
            )
        found[at][1].append(Request(start - begin, stop - begin, sink))
    return [(part, some) for part, some in found if some]
