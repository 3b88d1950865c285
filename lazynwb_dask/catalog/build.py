"""Making a catalog, and making it anew from what is known already.

What has been indexed is written at once, in parts; so an interrupted build goes on where it was. All files of
the catalog get new names, and the manifest, which names them, is replaced last and as a whole.
"""

from __future__ import annotations

import math
import os
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from lazynwb_dask import config
from lazynwb_dask.catalog import batch as parts
from lazynwb_dask.catalog.batch import Part, What, chosen, joined, parts_of
from lazynwb_dask.catalog.compaction import gathered, is_scattered
from lazynwb_dask.catalog.folder import Place, unkept
from lazynwb_dask.catalog.layout import INDEX
from lazynwb_dask.catalog.leases import Turn, superseded, turn
from lazynwb_dask.catalog.manifest import Manifest, read_manifest
from lazynwb_dask.catalog.reader import index_of, whole
from lazynwb_dask.catalog.values import written
from lazynwb_dask.cluster.client import active_client, cancellation_check
from lazynwb_dask.cluster.secrets_plugin import share
from lazynwb_dask.errors import NWBError, NWBFileNotFoundError, NWBReadError, TableNotFoundError
from lazynwb_dask.metadata.queries import list_tables
from lazynwb_dask.model.source import Source, is_local, shown
from lazynwb_dask.nwb.session import Session
from lazynwb_dask.nwb.tables import table_path
from lazynwb_dask.plan.index_cache import is_identified
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.sources.stat import versions
from lazynwb_dask.storage import open_source
from lazynwb_dask.storage.options import Options
from lazynwb_dask.util.threads import at_once

GROUP = 65_536  # rows of a row group of the index
SMALL, LARGE = 8, 128  # files of one part, that workers make
NEAR = 16  # at most, where threads make it: what is left undone is indexed again after an interrupt
TRIES = 5  # times that a build goes on with what others have built meanwhile
LOCAL = 2  # parts made at a time by threads: one's round trips while the other decodes


def build(
    paths: Iterable[str], place: Place, what: What, *, on_error: str = "raise", anew: bool = False
) -> Manifest:
    """Index files, as far as they aren't yet, and put the catalog in place.

    Parameters
    ----------
    paths : iterable of str
        What the user named.
    place : Place
    what : What
    on_error : {"raise", "skip"}
    anew : bool
        Index all files, whatever is known of them.
    """
    named = tuple(paths)
    return _built(place, lambda before: (named, what), on_error, anew, again=False)


def refresh(place: Place, *, on_error: str = "raise", anew: bool = False) -> Manifest:
    """The same for what the catalog says was named when it was built, as far as it is still there."""

    def as_before(before: Manifest | None) -> tuple[tuple[str, ...], What]:
        if before is None:
            raise NWBReadError(f"{shown(place.url)}: the catalog is gone; use build_catalog")
        return before.paths, before.what

    return _built(place, as_before, on_error, anew, again=True)


def _built(
    place: Place,
    wanted: Callable[[Manifest | None], tuple[tuple[str, ...], What]],
    on_error: str,
    anew: bool,
    again: bool,
) -> Manifest:
    """Build, and build on what others have built meanwhile, so that nothing of theirs is lost.

    If it is only done again for the catalog that is there, that one must be whole, and files that have
    vanished are dropped. Else it may be of any state, and files that were named must be there.
    """
    threads = int(config.get("index-threads"))
    fresh: list[Part] = []
    with turn(place) as mine:
        for last in (*[False] * (TRIES - 1), True):
            before = read_manifest(place, replaced=not again)
            named, what = wanted(before)
            sources = _files(named, place, threads)
            if again and before is not None:
                sources = _left(sources, before, place, threads, anew)
            known = [] if anew else _known(place, mine, before, what, threads, again)
            fresh = _surveyed(sources, fresh, known, place, what, threads, mine, on_error) + fresh
            found = _held([*fresh, *known], fresh=len(fresh))
            alike = before is not None and before.what == what and before.paths == named
            if (
                alike
                and known
                and not fresh
                and _is_same(sources, known[-1], len(known) - 1, found)
            ):
                assert before is not None
                return before
            every = [*fresh, *known]
            manifest, files = _assembled(sources, every, found, named, what, place, mine.build)
            if not again:
                _check_tables(manifest, sources, place)
            manifest = replace(manifest, superseded=superseded(before, manifest.names))
            mine.wrote(files)
            at_once([partial(place.write, *item) for item in files.items()], 8)
            with place.alone():
                now = read_manifest(place, replaced=not again)
                if last or _snapshot(now) == _snapshot(before):
                    manifest.write(place)
                    break
        mine.sweep(manifest)
    return manifest


def _snapshot(manifest: Manifest | None) -> str:
    return "" if manifest is None else manifest.snapshot


def _known(
    place: Place, mine: Turn, before: Manifest | None, what: What, threads: int, again: bool
) -> list[Part]:
    """What is known already: of builds that were interrupted or go on, and of the catalog as it is.

    Of a catalog that is not whole nothing is known, unless it is to be refreshed.
    """
    known = list(parts_of(place, mine.parts, threads, lambda part: part.what == what))
    if before is not None and before.what == what:
        try:
            known.append(index_of(place, before))
        except NWBReadError:
            if again:
                raise
    return known


def _surveyed(
    sources: Sequence[Source],
    fresh: Sequence[Part],
    known: Sequence[Part],
    place: Place,
    what: What,
    threads: int,
    mine: Turn,
    on_error: str,
) -> list[Part]:
    """Parts of the files of which nothing is known."""
    seen, held = _held(fresh, fresh=len(fresh)), _held([*fresh, *known])
    todo = [
        source
        for source in sources
        if (_key(source) not in held if is_identified(source) else _any(source) not in seen)
    ]
    made: list[str] = []
    for name, problems in _made(todo, place, what, threads, mine.build):
        made.append(name)
        mine.wrote([name])
        mine.renew()
        if on_error == "raise" and any(problems):
            first = next(problem for problem in problems if problem)
            raise NWBReadError(f"{first.rstrip('.')}. on_error='skip' leaves such files out")
    found = list(parts_of(place, made, threads, lambda part: True))
    if len(found) < len(made):
        raise NWBReadError(
            f"{shown(place.url)}: what was indexed has vanished again. Something else deletes files "
            "there; the same call goes on where it was"
        )
    for part in found:
        mine.wrote(part.values)
    return found


def _is_same(
    sources: Sequence[Source],
    catalog: Part,
    number: int,
    found: Mapping[tuple[str, int | None, str], tuple[int, int]],
) -> bool:
    """Whether the catalog as it is, the part of this number, is what would be made."""
    rows = range(catalog.tables["files"].num_rows)
    where = [found.get(_key(source)) for source in sources]
    return where == [(number, row) for row in rows] and not is_scattered(catalog)


def _files(named: Sequence[str], place: Place, threads: int) -> list[Source]:
    """The files, each once, with their versions."""
    found = list(dict.fromkeys(expand(list(named), place.options)))
    for source in found:
        why = unkept(source.url)
        if why:
            raise ValueError(why)
    return versions(found, place.options, place.settings, threads=2 * threads)


def _left(
    sources: Sequence[Source], before: Manifest, place: Place, threads: int, anew: bool
) -> list[Source]:
    """The files without those that have vanished since they were indexed.

    One that wasn't there when the catalog was built is not among these: it stays a failure, as far as
    that can still be read.
    """
    unknown = [source for source in sources if source.size is None and source.etag is None]
    if not unknown:
        return list(sources)
    try:
        files = whole(place, before, "files", ["url", "problem"])
        failed = set(files.filter(files["problem"].is_valid())["url"].to_pylist())
    except NWBReadError:
        if not anew:
            raise
        failed = set()

    def is_gone(source: Source) -> bool:
        try:
            open_source(source, 1, place.options, place.settings)
        except NWBFileNotFoundError:
            return True
        except NWBError:
            return False  # whoever reads it says what is wrong
        return False

    asked = [source for source in unknown if source.url not in failed]
    gone = at_once([partial(is_gone, source) for source in asked], threads)
    dropped = {source for source, missing in zip(asked, gone, strict=True) if missing}
    if len(dropped) == len(sources):
        raise NWBFileNotFoundError(
            f"{shown(place.url)}: none of its files is there any more, the first was "
            f"{shown(sources[0].url)}; the catalog stays as it is"
        )
    return [source for source in sources if source not in dropped]


def _check_tables(manifest: Manifest, sources: Sequence[Source], place: Place) -> None:
    """That the tables that were asked for are in some file."""
    lacked = [name for name in manifest.what.tables or () if name not in manifest.sections]
    if not lacked or manifest.files == manifest.unreadable:
        return
    text = f"{shown(place.url)}: none of the files has a table {' or '.join(lacked)}"
    if manifest.sections:
        warnings.warn(f"{text}; the catalog is without", stacklevel=4)
        return
    try:
        there = list_tables(sources[0], place.options, place.settings)
    except NWBError:
        there = []
    near = [one for name in lacked for one in get_close_matches(name, there, n=3, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
    raise TableNotFoundError(f"{text}{hint} The first one's tables: {', '.join(there) or 'none'}")


def _key(source: Source) -> tuple[str, int | None, str]:
    return source.url, source.size, (source.etag or "").strip('"')


def _any(source: Source) -> tuple[str, int | None, str]:
    """The key of a file of whatever version."""
    return source.url, None, ""


def _held(
    known: Sequence[Part], fresh: int = 0
) -> dict[tuple[str, int | None, str], tuple[int, int]]:
    """Where each version of a file is known: the part, and the row in it.

    Of the first `fresh` parts, made just now, files that can't be read count too.
    """
    found: dict[tuple[str, int | None, str], tuple[int, int]] = {}
    for i, one in enumerate(known):
        files = one.tables["files"]
        for row, (url, size, etag, problem) in enumerate(
            zip(*[files[n].to_pylist() for n in ("url", "size", "etag", "problem")], strict=True)
        ):
            source = Source(url, size, etag)
            if i < fresh:
                found.setdefault(_any(source), (i, row))
            if problem is None and is_identified(source):
                found.setdefault(_key(source), (i, row))
    return found


# ---------------------------------------------------------------------------------------------- indexing
def _made(
    todo: Sequence[Source], place: Place, what: What, threads: int, build: str
) -> Iterator[tuple[str, list[str]]]:
    """The parts of files that are not known, as they come: by the cluster, or by threads."""
    if not todo:
        return
    client = active_client()
    slots = sum(client.nthreads().values()) if client is not None else LOCAL
    most = LARGE if client is not None else NEAR
    size = min(max(math.ceil(len(todo) / (4 * max(slots, 1))), SMALL), most)
    batches = [todo[i : i + size] for i in range(0, len(todo), size)]
    bar = _bar(len(todo)) if config.get("progress") else None
    work = _by_cluster if client is not None else _by_threads
    try:
        for batch, result in work(batches, place, what, threads, build, client):
            if bar is not None:
                bar.update(len(batch))
            yield result
    finally:
        if bar is not None:
            bar.close()


def _by_threads(
    batches: Sequence[Sequence[Source]],
    place: Place,
    what: What,
    threads: int,
    build: str,
    client: Any,
) -> Iterator[tuple[Sequence[Source], tuple[str, list[str]]]]:
    pool, over = ThreadPoolExecutor(LOCAL, "lazynwb-catalog"), threading.Event()
    try:
        running = {
            pool.submit(parts.make_part, batch, place, what, threads, build, over.is_set): batch
            for batch in batches
        }
        for future in as_completed(running):
            yield running[future], future.result()
    finally:
        over.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _by_cluster(
    batches: Sequence[Sequence[Source]],
    place: Place,
    what: What,
    threads: int,
    build: str,
    client: Any,
) -> Iterator[tuple[Sequence[Source], tuple[str, list[str]]]]:
    from distributed import as_completed as as_they_come

    share(place.options)
    running = {
        client.submit(
            _make_there, list(batch), place.url, place.options, what, build, pure=False
        ): batch
        for batch in batches
    }
    try:
        for future in as_they_come(running):
            yield running[future], future.result()
    finally:
        client.cancel(list(running))


def _make_there(
    batch: Sequence[Source], url: str, options: Options, what: What, build: str
) -> tuple[str, list[str]]:
    """On a worker, by its own settings."""
    place = Place(url, options, config.settings())
    threads = int(config.get("index-threads"))
    return parts.make_part(batch, place, what, threads, build, cancellation_check())


def _bar(total: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc="Building the catalog", unit="file", delay=1, disable=None)


# ------------------------------------------------------------------------------------------- assembling
def _assembled(
    sources: Sequence[Source],
    known: Sequence[Part],
    found: dict[tuple[str, int | None, str], tuple[int, int]],
    named: tuple[str, ...],
    what: What,
    place: Place,
    build: str,
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, and the files that are to be written."""
    where = np.array([found.get(_key(s)) or found[_any(s)] for s in sources], np.int64).reshape(
        -1, 2
    )
    pieces, before = [], []
    for i, one in enumerate(known):
        mine = np.flatnonzero(where[:, 0] == i)
        if len(mine):
            pieces.append(chosen(one, where[mine, 1]))
            before.append(mine)
    tables = joined(pieces)
    order = np.argsort(np.concatenate(before)) if before else np.zeros(0, np.int64)
    tables, sections = _sorted(tables, order)
    values = {name: size for piece in pieces for name, size in piece.values.items()}
    tables, files = gathered(tables, values, place, build)
    used = tables["tables"]["values"].unique().drop_null().to_pylist()
    sizes = {name: len(files[name]) if name in files else values[name] for name in used}
    tables["sessions"] = _sessions(tables["files"])
    index = {}
    for kind, table in tables.items():
        name = f"index/{kind}-{build}-{uuid.uuid4().hex}.parquet"
        files[name] = written(table, GROUP)
        index[kind] = (name, len(files[name]))
    unreadable = tables["files"].num_rows - tables["files"]["problem"].null_count
    manifest = Manifest(index, sizes, sections, tables["files"].num_rows, unreadable, what, named)
    return manifest, files


def _sorted(
    tables: dict[str, pa.Table], order: np.ndarray
) -> tuple[dict[str, pa.Table], dict[str, tuple[int, int, int, int]]]:
    """The index with files in the order given, rows sorted; and where each table's rows are."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    result = {"files": tables["files"].take(pa.array(order)), "variants": tables["variants"]}
    borders: dict[str, list[int]] = {}
    for kind, keys in (("tables", ["table"]), ("columns", ["column", "table"])):
        rows = tables[kind]
        file = place[rows["file"].to_numpy()]
        codes = [np.asarray(rows[key].combine_chunks().indices) for key in keys]
        by = np.lexsort((file, *codes))
        at = rows.schema.get_field_index("file")
        rows = rows.set_column(at, INDEX[kind].field("file"), pa.array(file, pa.int32()))
        result[kind] = rows.take(pa.array(by))
        names = rows["table"].combine_chunks().dictionary.to_pylist()
        table = codes[-1][by]
        for code, name in enumerate(names):
            begin, end = np.searchsorted(table, [code, code + 1]).tolist()
            borders.setdefault(name, []).extend([begin, end])
    sections = {
        name: (ends[0], ends[1], *(ends[2:4] if len(ends) == 4 else (0, 0)))
        for name, ends in borders.items()
    }
    return result, dict(sorted(sections.items()))


def _sessions(files: pa.Table) -> pa.Table:
    """The table of sessions, a row for each file that can be read."""
    import json

    from lazynwb_dask.plan.sessions import table

    readable = files.filter(files["session"].is_valid())
    pairs = zip(readable["url"].to_pylist(), readable["session"].to_pylist(), strict=True)
    frame, _ = table([Session(Source(url), json.loads(text)) for url, text in pairs])
    return pa.Table.from_pandas(frame, preserve_index=False)


# ------------------------------------------------------------------------------------------ what is named
def as_named(paths: Any) -> list[str]:
    """What the user named, as it can be named again from anywhere."""
    many = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    named = []
    for path in many:
        text = path.url if isinstance(path, Source) else os.fspath(path)
        if is_local(text) and not text.startswith(("file://", "local://")):
            whole = os.path.abspath(os.path.expanduser(text))
            text = whole + "/" if text.endswith("/") else whole
        named.append(text)
    return named


def what_of(tables: Any, values_limit: int) -> What:
    """What to keep, as the user said it."""
    if tables is None:
        return What(None, values_limit)
    names = [tables] if isinstance(tables, str) else list(tables)
    return What(tuple(table_path(name) for name in names), values_limit)
