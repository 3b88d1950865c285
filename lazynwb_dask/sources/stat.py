"""The sizes and versions of many files, in few requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lazynwb_dask.errors import NWBError
from lazynwb_dask.model.source import Source, is_zip
from lazynwb_dask.sources.listing import list_keys
from lazynwb_dask.sources.stores import file_or_store, is_store, open_document, opened_zip
from lazynwb_dask.storage import open_source, retried
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.responses import validator_of
from lazynwb_dask.util.threads import at_once

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

FEW = 8  # fewer files of one bucket are requested one by one


def versions(
    sources: Sequence[Source],
    access: FileAccess,
    *,
    threads: int = 32,
    asked: Callable[[Source], bool] = lambda source: True,
) -> list[Source]:
    """The same sources, with unknown sizes and versions filled in where `asked` is true. Many objects of a
    bucket cost one listing of their common prefix, if that is cheaper than one request of one byte for
    each. If a request fails, the source stays as it is, and reading it raises the error."""
    unknown = [s for s in dict.fromkeys(sources) if s.etag is None and asked(s)]
    known: dict[Source, Source] = {}
    buckets: dict[str, list[Source]] = defaultdict(list)
    for source in unknown:
        if source.url.startswith(("s3://", "s3a://")) and "?" not in source.url and not is_store(source):
            buckets["/".join(source.url.split("/")[:3])].append(source)
    for together in buckets.values():
        if len(together) >= FEW:
            known |= _from_listing(together, access)
    single = [source for source in unknown if source not in known]

    def ask(source: Source) -> Source:
        try:
            return opened(source, access)
        except NWBError:
            return source

    answers = at_once([partial(ask, source) for source in single], threads)
    known |= dict(zip(single, answers, strict=True))
    return [known.get(source, source) for source in sources]


def opened(source: Source, access: FileAccess) -> Source:
    """A file or Zarr store with its size and version, by a request for one byte of it, or of its document.

    Raises NWBFileNotFoundError if there is neither.
    """
    if is_zip(source.url):
        return opened_zip(source, access)
    return file_or_store(
        source, lambda: open_source(source, 1, access), lambda: open_document(source, 1, access)[0]
    )


def _from_listing(sources: Sequence[Source], access: FileAccess) -> dict[Source, Source]:
    start = _common(source.url for source in sources)
    pages = max(1, len(sources) // FEW)

    def ask(filesystem: AbstractFileSystem, path: str) -> dict[str, Source] | None:
        found = list_keys(filesystem, path, pages)
        if found is None:
            return None
        return {name: Source(name, info.get("size"), validator_of(info)) for name, info in found.items()}

    try:
        found = retried(start, access, partial(ask))
    except NWBError:
        return {}  # not everyone who may read may list
    known = {}
    for source in sources:
        entry = (found or {}).get(source.url.split("://", 1)[1])
        if entry is not None:
            known[source] = replace(source, size=entry.size, etag=entry.etag)
    return known


def _common(urls: Iterable[str]) -> str:
    """The common prefix of URLs, up to a slash."""
    first, *_, last = sorted(urls)
    pairs = enumerate(zip(first, last, strict=False))
    end = next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))
    return first[:end].rpartition("/")[0] + "/"
