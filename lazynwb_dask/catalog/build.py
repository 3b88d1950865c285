"""Building and refreshing catalogs. Batches are written as they are indexed, so an interrupted build can
continue. Files get new names; the manifest that lists them is replaced last, in one write."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lazynwb_dask import config, errors
from lazynwb_dask.catalog.assemble import assembled
from lazynwb_dask.catalog.batch import Batch, batch_of
from lazynwb_dask.catalog.batch_file import read_batches, write_batch
from lazynwb_dask.catalog.folder import Folder, url_problem
from lazynwb_dask.catalog.lock import locked
from lazynwb_dask.catalog.manifest import Keeps, Manifest, read_manifest
from lazynwb_dask.catalog.reader import IndexReader
from lazynwb_dask.catalog.survey import Surveyed, survey
from lazynwb_dask.catalog.tables_schema import BATCHES
from lazynwb_dask.cluster.client import active_client, cancellation_check, completed
from lazynwb_dask.cluster.secrets_plugin import share
from lazynwb_dask.errors import NWBError, NWBFileNotFoundError, NWBReadError, TableNotFoundError
from lazynwb_dask.metadata.queries import list_tables
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.plan.index_cache import identity, is_identified
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.sources.stat import opened, versions
from lazynwb_dask.storage.archives import SCHEME
from lazynwb_dask.storage.options import Options
from lazynwb_dask.storage.runtime import ReadCancelled
from lazynwb_dask.util.concurrently import concurrently, progress_bar
from lazynwb_dask.util.suggest import did_you_mean, listed, sentence
from lazynwb_dask.util.threads import at_once
from lazynwb_dask.util.warn import warn

SMALLEST, LARGEST = 8, 128  # files of a batch that a worker indexes
LARGEST_LOCAL = 16  # where threads do: these files are indexed again if the process is killed
LOCAL = 2  # batches at a time by threads: one waits for the network while the other decodes


def build(paths: Sequence[str], folder: Folder, keeps: Keeps, *, on_error: str) -> Manifest:
    """Index files whose current versions are not indexed yet, and write the catalog."""
    with locked(folder) as check_lock:
        before = read_manifest(folder, replaced=True)
        update = _Update(folder, keeps, tuple(paths), before, on_error, check_lock)
        current = None
        if before is not None and before.keeps == keeps:
            with suppress(NWBReadError):  # a damaged index is built again
                current = IndexReader(folder, before).batch()
        sources = _files(paths, folder)
        made = update.made(sources, update.unfinished(), current)
        if made is None:
            assert before is not None
            return before
        _check_tables(made[0], sources, folder)
        return update.put(*made)


def refresh(folder: Folder, *, on_error: str, anew: bool) -> Manifest:
    """Index new and changed files of a catalog, or all if `anew`, and drop those that have vanished."""
    with locked(folder) as check_lock:
        before = read_manifest(folder)
        if before is None:
            raise NWBReadError(f"{shown(folder.url)}: the catalog is gone; use build_catalog")
        update = _Update(folder, before.keeps, before.paths, before, on_error, check_lock)
        sources = _present(_files(before.paths, folder), IndexReader(folder, before), anew)
        current = None if anew else IndexReader(folder, before).batch()
        made = update.made(sources, [] if anew else update.unfinished(), current)
        return before if made is None else update.put(*made)


@dataclass(frozen=True)
class _Update:
    folder: Folder
    keeps: Keeps
    paths: tuple[str, ...]
    before: Manifest | None
    on_error: str
    check_lock: Callable[[], None]

    def unfinished(self) -> list[Batch]:
        """The batches of an interrupted build."""
        return read_batches(self.folder, self.folder.names(BATCHES), self.keeps, _threads())

    def made(
        self, sources: Sequence[Source], unfinished: Sequence[Batch], current: Batch | None
    ) -> tuple[Manifest, dict[str, bytes]] | None:
        """The manifest and the files to write; None if the current catalog is up to date."""
        known = [*unfinished] if current is None else [*unfinished, current]
        rows = _rows(known)
        keys = [_key(source) or source.url for source in sources]
        todo = {key: source for key, source in zip(keys, sources, strict=True) if key not in rows}
        fresh = self._indexed(list(todo.values()))
        new = {
            url: (len(known) + i, row)
            for i, batch in enumerate(fresh)
            for row, url in enumerate(batch.tables["files"]["url"].to_pylist())
        }
        found = [new[todo[key].url] if key in todo else rows[key] for key in keys]
        where, urls = np.array(found, np.int64).reshape(-1, 2), [source.url for source in sources]
        if current is not None and self.before is not None and self.before.paths == self.paths:
            count = current.tables["files"].num_rows
            same = current.tables["files"]["url"].to_pylist() == urls
            if same and found == [(len(known) - 1, row) for row in range(count)]:
                return None
        return assembled([*known, *fresh], (where, urls), self.folder, self.keeps, self.paths)

    def _indexed(self, sources: Sequence[Source]) -> list[Batch]:
        names: list[str] = []
        with closing(_indexing(sources, self.folder, self.keeps)) as batches:
            for name, problems in batches:
                names.append(name)
                self.check_lock()
                problem = next(filter(None, problems), "")
                if problem and self.on_error == "raise":
                    kind, _, text = problem.partition(": ")
                    error: type[Exception] = getattr(errors, kind, NWBReadError)
                    raise error(f"{sentence(text)} on_error='skip' leaves such files out")
        found = read_batches(self.folder, names, self.keeps, _threads())
        if len(found) < len(names):
            raise NWBReadError(
                f"{shown(self.folder.url)}: indexed data were deleted. Something else "
                "deletes files there; the same call goes on where it was"
            )
        return found

    def put(self, manifest: Manifest, files: dict[str, bytes]) -> Manifest:
        """Replace the catalog. Delete files that neither it nor its recent snapshots refer to."""
        manifest = manifest.after(self.before)
        at_once([partial(self.folder.write, *item) for item in files.items()], 8)
        self.check_lock()
        manifest.write(self.folder)
        there = {name for kind in ("index", "values", BATCHES) for name in self.folder.names(kind)}
        self.folder.remove(sorted(there - manifest.names - set(manifest.superseded)))
        return manifest


def _threads() -> int:
    return int(config.get("index-threads"))


_Key = tuple[str, int | None, str] | str


def _key(source: Source) -> _Key | None:
    """Identifies a version of a file, or the blob of an asset wherever it is; None if the file's versions can't
    be distinguished."""
    if not is_identified(source):
        return None
    name = identity(source.url, source.etag) if source.url.startswith(SCHEME) else source.url
    return name, source.size, (source.etag or "").strip('"')


def _rows(batches: Sequence[Batch]) -> dict[_Key, tuple[int, int]]:
    """The batch, and the row in it, of each file version that could be read."""
    rows: dict[_Key, tuple[int, int]] = {}
    for i, batch in enumerate(batches):
        for row, file in enumerate(batch.tables["files"].drop_columns("session").to_pylist()):
            key = _key(Source(file["url"], file["size"], file["etag"]))
            if key is not None and file["problem"] is None:
                rows.setdefault(key, (i, row))
    return rows


def _files(paths: Sequence[str], folder: Folder) -> list[Source]:
    """The files without duplicates, with versions."""
    found = list({source.url: source for source in expand(list(paths), folder.access)}.values())
    for source in found:
        why = url_problem(source.url)
        if why:
            raise ValueError(why)
    return versions(found, folder.access, threads=2 * _threads())


def _present(sources: Sequence[Source], index: IndexReader, anew: bool) -> list[Source]:
    """The files without those deleted since they were indexed. A file that couldn't be read then remains,
    as a failure, if the index can be read."""
    folder = index.folder
    unknown = [source for source in sources if source.size is None and source.etag is None]
    if not unknown:
        return list(sources)
    try:
        files = index.rows("files", ["url", "problem"])
        failed = set(files.filter(files["problem"].is_valid())["url"].to_pylist())
    except NWBReadError:
        if not anew:
            raise
        failed = set()

    def is_gone(source: Source) -> bool:
        try:
            opened(source, folder.access)
        except NWBFileNotFoundError:
            return True
        except NWBError:
            return False  # indexing reports the error
        return False

    candidates = [source for source in unknown if source.url not in failed]
    gone = at_once([partial(is_gone, source) for source in candidates], _threads())
    dropped = {source for source, missing in zip(candidates, gone, strict=True) if missing}
    if len(dropped) == len(sources):
        raise NWBFileNotFoundError(
            f"{shown(folder.url)}: none of its files exists any more, the first was "
            f"{shown(sources[0].url)}; the catalog stays as it is"
        )
    return [source for source in sources if source not in dropped]


def _check_tables(manifest: Manifest, sources: Sequence[Source], folder: Folder) -> None:
    """Raise if no file has any of the requested tables; warn if only some are missing."""
    lacked = [name for name in manifest.keeps.tables or () if name not in manifest.sections]
    if not lacked or manifest.files == manifest.unreadable:
        return
    text = f"{shown(folder.url)}: none of the files has a table {' or '.join(lacked)}"
    if manifest.sections:
        warn(f"{text}; the catalog has no such table")
        return
    try:
        there = list_tables(sources[0], folder.access)
    except NWBError:
        there = []
    hint = did_you_mean(lacked, there)
    raise TableNotFoundError(f"{text}{hint} The first one's tables: {listed(there)}")


_Made = tuple[str, list[str]]  # a batch's name, and for each of its files why it can't be read


def _indexing(sources: Sequence[Source], folder: Folder, keeps: Keeps) -> Generator[_Made, None, None]:
    """Batches as they are completed, by the cluster or by threads."""
    if not sources:
        return
    client = active_client()
    slots = sum(client.nthreads().values()) if client is not None else LOCAL
    most = LARGEST if client is not None else LARGEST_LOCAL
    size = min(max(math.ceil(len(sources) / (4 * max(slots, 1))), SMALLEST), most)
    parts = [sources[i : i + size] for i in range(0, len(sources), size)]
    bar = progress_bar(len(sources), "Building the catalog", 1) if config.get("progress") else None
    if client is not None:
        work = _by_cluster(parts, folder, keeps, client)
    else:
        work = _by_threads(parts, folder, keeps)
    try:
        for made in work:
            if bar is not None:
                bar.update(len(made[1]))
            yield made
    finally:
        work.close()
        if bar is not None:
            bar.close()


def _by_threads(
    parts: Sequence[Sequence[Source]], folder: Folder, keeps: Keeps
) -> Generator[_Made, None, None]:
    pool, over = ThreadPoolExecutor(LOCAL, "lazynwb-catalog"), threading.Event()
    try:
        running = [pool.submit(make_batch, part, folder, keeps, _threads(), over.is_set) for part in parts]
        for future in as_completed(running):
            yield future.result()
    finally:
        over.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _by_cluster(
    parts: Sequence[Sequence[Source]], folder: Folder, keeps: Keeps, client: Any
) -> Generator[_Made, None, None]:
    share(folder.access.options)
    running = [
        client.submit(_make_there, list(part), folder.url, folder.access.options, keeps, pure=False)
        for part in parts
    ]
    with closing(completed(client, running)) as made:
        yield from made


def _make_there(sources: Sequence[Source], url: str, options: Options, keeps: Keeps) -> _Made:
    """On a worker, with the worker's own configuration."""
    folder = Folder(url, config.file_access(options))
    return make_batch(sources, folder, keeps, _threads(), cancellation_check())


def make_batch(
    sources: Sequence[Source],
    folder: Folder,
    keeps: Keeps,
    threads: int,
    stopped: Callable[[], bool] | None = None,
) -> _Made:
    """Survey files and write the batch. Once `stopped` returns True no other file is started, running reads
    end, the files surveyed so far are written, for a later build, and `ReadCancelled` is raised."""
    access = folder.access.with_settings(is_cancelled=stopped)

    def is_over() -> bool:
        return stopped is not None and stopped()

    def one(source: Source) -> Surveyed | None:
        if is_over():
            return None
        try:
            found = survey(source, access, keeps)
        except ReadCancelled:
            return None
        return None if is_over() else found  # a read that ended early may lack something

    surveyed = list(concurrently(list(sources), one, threads, False))
    files = [file for file in surveyed if file is not None]
    name = write_batch(folder, *batch_of(files), keeps) if files else ""
    if len(files) < len(sources):
        raise ReadCancelled
    return name, [file.problem for file in files]
