"""A table of many files, written in other formats: Parquet by tasks, all else a few partitions at a time."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

import click

from lazynwb_dask.cli import interrupts, sources
from lazynwb_dask.cli.options import Call
from lazynwb_dask.cli.output import csv_texts, json_lines, printable
from lazynwb_dask.cli.running import Command, cluster, say, tell_left_out

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    import pyarrow as pa

    from lazynwb_dask.catalog.folder import Folder
    from lazynwb_dask.storage.access import FileAccess
    from lazynwb_dask.storage.options import Options

KINDS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".feather": "feather", ".arrow": "feather",
}  # fmt: skip
NAME = 150  # letters of a session in the name of a folder


@click.command(
    cls=Command, cluster=True, rows=True, formats=(),
    example="lazynwb-dask export units --to units.parquet s3://lab/sessions/\n"
            'lazynwb-dask export trials --where "is_hit" --to trials.csv.gz dandi:000409',
)  # fmt: skip
@click.argument("table")
@click.option(
    "--to", "target", required=True, type=click.Path(), help="A file, for Parquet a folder; or its URL."
)
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
def export(table: str, target: str, overwrite: bool, call: Call) -> None:
    """Write TABLE of all files at PATHS, or some of it, to a file.

    Its name says the format: .parquet (a folder with one folder for each session), .csv, .jsonl (JSON lines),
    .feather; of CSV and JSON lines also .gz. A file on this machine appears once it is complete.
    """
    kind = _kind(target)
    with cluster(call):
        frame = call.read(table)
        where_to = _Target.of(target, call.storage_options, overwrite)
        if kind == "parquet":
            rows = _parquet(_with_session(frame, call), where_to)
        else:
            rows = _one_file(frame, where_to, _WRITERS[kind])
        tell_left_out(frame)
    say(f"{rows:,} rows written to {target}")


@dataclass(frozen=True)
class _Target:
    """Where to write: a path of this machine, or a URL."""

    name: str
    access: FileAccess

    @staticmethod
    def of(name: str, storage_options: Any, overwrite: bool) -> _Target:
        """Raises OSError if there is something already, or no folder to write to."""
        from lazynwb_dask import config
        from lazynwb_dask.model.source import is_local, local_path, shown
        from lazynwb_dask.storage.options import Options

        if is_local(name):
            name = os.path.abspath(os.path.expanduser(local_path(name)))
            if not os.path.isdir(os.path.dirname(name)):
                raise FileNotFoundError(f"{os.path.dirname(name)}: no such folder to write to")
        found = _Target(name, config.file_access(Options(storage_options)))
        filesystem, path = found.options.filesystem(name)
        if filesystem.exists(path):
            if not overwrite:
                raise FileExistsError(f"{shown(name)}: exists already; --overwrite replaces it")
            if not found.is_local:
                found.remove()
        return found

    @property
    def options(self) -> Options:
        return self.access.options

    @property
    def is_local(self) -> bool:
        from lazynwb_dask.model.source import is_local

        return is_local(self.name)

    def remove(self) -> None:
        filesystem, path = self.options.filesystem(self.name)
        filesystem.invalidate_cache()
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)

    @contextmanager
    def beside(self) -> Iterator[str]:
        """A temporary name, which takes the place of the target at the end, and is removed at an error."""
        folder = os.path.dirname(self.name) if self.is_local else None
        scratch = tempfile.mkdtemp(prefix=".lazynwb-dask-", dir=folder)
        remove = partial(_remove, scratch)
        try:
            with interrupts.undone(remove):
                made = os.path.join(scratch, "data")
                yield made
                if not self.is_local:
                    filesystem, path = self.options.filesystem(self.name)
                    filesystem.put_file(made, path)
                    return
                if os.path.isdir(self.name) and not os.path.islink(self.name):
                    os.replace(self.name, os.path.join(scratch, "before"))
                os.replace(made, self.name)
        finally:
            remove()


def _remove(folder: str) -> None:
    """Remove a folder, into which tasks may still be writing: under another name, where they can't."""
    gone = f"{folder}-"
    with suppress(OSError):
        os.rename(folder, gone)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(gone, ignore_errors=True)


def _kind(target: str) -> str:
    suffixes = PurePosixPath(target.rstrip("/").lower()).suffixes
    packed = suffixes[-1:] in ([".gz"], [".bz2"], [".xz"], [".zst"])
    ending = suffixes[-2] if packed and len(suffixes) > 1 else (suffixes or [""])[-1]
    kind = KINDS.get(ending)
    if kind is None or (packed and kind not in ("csv", "jsonl")):
        raise click.UsageError(
            f"--to {printable(target)}: its name is to end in {', '.join(KINDS)}, or for example .csv.gz"
        )
    return kind


def _one_file(frame: dd.DataFrame, target: _Target, write: Callable[[Any, IO[bytes]], int]) -> int:
    import fsspec

    from lazynwb_dask.stream.batches import batches

    with target.beside() as name:
        packed = fsspec.utils.infer_compression(target.name)
        with _bar(frame.npartitions) as bar, fsspec.open(f"file://{name}", "wb", compression=packed) as file:
            return write(batches(frame, told=bar.update), file)


def _csv(frames: Iterator[pd.DataFrame], file: IO[bytes]) -> int:
    count = 0
    for i, frame in enumerate(frames):
        for text in csv_texts(frame, header=i == 0):
            file.write(text.encode("utf-8", "backslashreplace"))
        count += len(frame)
    return count


def _jsonl(frames: Iterator[pd.DataFrame], file: IO[bytes]) -> int:
    count = 0
    for frame in frames:
        for line in json_lines(frame):
            file.write(f"{line}\n".encode())
            count += 1
    return count


def _feather(frames: Iterator[pd.DataFrame], file: IO[bytes]) -> int:
    import pyarrow as pa

    from lazynwb_dask.stream.arrow import arrow_schema, arrow_table

    first = next(frames)
    schema, count = arrow_schema(first), 0
    packed = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(file, schema, options=packed) as writer:
        for frame in itertools.chain([first], frames):
            writer.write_table(arrow_table(frame, schema))
            count += len(frame)
    return count


_WRITERS = {"csv": _csv, "jsonl": _jsonl, "feather": _feather}


def _with_session(frame: dd.DataFrame, call: Call) -> dd.DataFrame:
    """The frame, with the session that each row is of as its last column."""
    from lazynwb_dask.api.sessions import read_sessions, with_sessions

    sessions = read_sessions(sources.paths(call), **call.access).compute()
    name = session_column(list(map(str, frame.columns)))
    made = sessions[["_nwb_path"]].assign(**{name: session_names(sessions)})
    return with_sessions(frame, name, sessions=made)


def session_column(columns: list[str]) -> str:
    """What the folders of sessions are called: not as a column of the table.

    >>> session_column(["id", "session"])
    'nwb_session'
    """
    return next(name for name in ("session", "nwb_session", "nwb_session_") if name not in columns)


def session_names(sessions: pd.DataFrame) -> list[str]:
    """The session of each file: its session_id, else its identifier, else its file's name."""
    import pandas as pd

    found = pd.Series(None, index=sessions.index, dtype=object)
    for column in ("session_id", "identifier"):
        if column in sessions.columns:
            found = found.where(found.notna(), sessions[column].astype(object).where(sessions[column] != ""))
    stems = [PurePosixPath(path.split("?")[0].rstrip("/")).stem or path for path in sessions["_nwb_path"]]
    return [str(name) if isinstance(name, str) else stem for name, stem in zip(found, stems, strict=True)]


def folder_name(session: str) -> str:
    """A session as part of a folder's name, percent-encoded, as readers of Parquet decode it.

    >>> folder_name("a/b c"), folder_name("..")
    ('a%2Fb%20c', '%2E%2E')
    """
    quoted = quote(session, safe="", errors="backslashreplace")
    quoted = quoted.replace(".", "%2E") if not quoted.strip(".") else quoted
    if len(quoted) <= NAME:
        return quoted or "%20"
    digest = hashlib.blake2b(session.encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()
    return f"{quote(session[: NAME // 9], safe='')}-{digest}"


def _parquet(frame: dd.DataFrame, target: _Target) -> int:
    """Written by Dask's tasks, each its partitions; on a cluster by the workers."""
    from lazynwb_dask.catalog.folder import Folder
    from lazynwb_dask.cluster.secrets_plugin import share

    share(target.options)
    if target.is_local:
        with target.beside() as folder:
            os.mkdir(folder)
            return _by_tasks(frame, Folder.of(folder, target.access))
    try:
        return _by_tasks(frame, Folder.of(target.name, target.access))
    except BaseException:
        target.remove()
        raise


def _by_tasks(frame: dd.DataFrame, folder: Folder) -> int:
    import pandas as pd

    from lazynwb_dask.stream.arrow import arrow_schema

    schema = arrow_schema(frame._meta.iloc[:, :-1])
    meta = pd.DataFrame({"rows": pd.Series(dtype="int64")})
    # what travels are the URL and the options, whose secrets workers are given apart
    made = frame.map_partitions(_write_partition, folder.url, folder.access.options, schema, meta=meta)
    with _bar(frame.npartitions) as bar:
        written = pd.concat([meta, *_computed(made, bar)])
    if not len(written):
        _write(frame._meta, "none", folder, schema)  # so that there is something to read
    return int(written["rows"].sum())


def _write_partition(rows: pd.DataFrame, url: str, options: Options, schema: pa.Schema) -> pd.DataFrame:
    """Write a file for each session that rows of a partition are of."""
    import pandas as pd

    from lazynwb_dask import config
    from lazynwb_dask.catalog.folder import Folder

    folder = Folder(url, config.file_access(options))
    counts = []
    for session, part in rows.groupby(rows.columns[-1], sort=False, observed=True):
        _write(part, folder_name(str(session)), folder, schema)
        counts.append(len(part))
    return pd.DataFrame({"rows": counts}, dtype="int64")


def _write(rows: pd.DataFrame, session: str, folder: Folder, schema: pa.Schema) -> None:
    import pyarrow.parquet as pq

    from lazynwb_dask.model.source import is_local
    from lazynwb_dask.stream.arrow import arrow_table

    sink = BytesIO()
    pq.write_table(arrow_table(rows.iloc[:, :-1], schema), sink, compression="zstd")
    # by the number of its first row over all files: a task that is repeated writes the same file again
    first = int(rows.index[0]) if len(rows) else 0
    part = f"{rows.columns[-1]}={session}/{first:012d}.parquet"
    if not is_local(folder.url):
        folder.write(part, sink.getvalue())
        return
    path = Path(folder.url_of(part))
    if not path.parents[1].is_dir():  # after an error elsewhere it's gone, and not to be made again
        raise FileNotFoundError(
            f"{path.parents[3]}: a worker of the cluster can't write there; name a folder that workers share "
            "with this machine, or a URL such as s3://..."
        )
    path.parent.mkdir(exist_ok=True)
    whole = path.with_name(f".{uuid.uuid4().hex}")
    whole.write_bytes(sink.getvalue())
    whole.replace(path)


def _computed(frame: dd.DataFrame, bar: Any) -> list[pd.DataFrame]:
    """All partitions of a frame that is small; the bar is moved on with each."""
    import dask

    from lazynwb_dask.cluster.client import active_client

    parts = frame.to_delayed()
    client = active_client()
    if client is not None:
        from distributed import as_completed

        futures = client.compute(parts)
        try:
            for future in as_completed(futures):
                future.result()  # the first error ends it
                bar.update(bar.total / len(parts))
            return list(client.gather(futures))
        finally:
            client.cancel(futures)
    from dask.callbacks import Callback

    def told(key: Any, *args: Any) -> None:
        if "write" in str(key):
            bar.update(bar.total / len(parts))

    # once this pool is closed, no task runs any more after an error of another
    with Callback(posttask=told), ThreadPoolExecutor(dask.system.CPU_COUNT) as pool:
        return list(dask.compute(*parts, scheduler="threads", pool=pool))


@contextmanager
def _bar(total: int) -> Iterator[Any]:
    from lazynwb_dask import config
    from lazynwb_dask.util.concurrently import progress_bar

    bar = progress_bar(total, "Writing", unit="partition")
    bar.disable = bar.disable or not config.get("progress")
    try:
        yield bar
    finally:
        bar.close()
