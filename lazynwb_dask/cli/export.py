"""A table of many files, written in other formats: Parquet by tasks, all else a few partitions at a time."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import click

from lazynwb_dask.cli import interrupts, sources
from lazynwb_dask.cli.options import Call, names_option
from lazynwb_dask.cli.output import csv_texts, json_lines, printable
from lazynwb_dask.cli.running import Command, cluster, one_line, say, tell_left_out

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd

    from lazynwb_dask.storage.access import FileAccess
    from lazynwb_dask.storage.options import Options

KINDS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".feather": "feather", ".arrow": "feather",
}  # fmt: skip


@click.command(
    "export-tables", cls=Command, cluster=True, formats=(),
    example="lazynwb-dask export-tables --to tables/ s3://lab/sessions/\n"
            "lazynwb-dask export-tables --tables units,trials --to s3://lab/tables/ dandi:000409",
)  # fmt: skip
@click.option("--to", "target", required=True, type=click.Path(), help="A folder or its URL.")
@click.option(
    "--tables", multiple=True, metavar="NAME[,NAME...]", callback=names_option,
    help="Only these tables. May be repeated.  [default: all, and sessions]",
)  # fmt: skip
@click.option("--partition-by", type=click.Choice(["session", "size"]), default="session", show_default=True,
              help="One Parquet file for each NWB file, or files of about --partition-size.")  # fmt: skip
@click.option("--partition-size", metavar="SIZE", default="128 MiB", show_default=True,
              help="Approximate decoded size of a Parquet file.")  # fmt: skip
@click.option("--on-missing", type=click.Choice(["skip", "raise"]), default="skip",
              help="What to do with files without one of the tables.")  # fmt: skip
@click.option("--prune", is_flag=True, help="Remove what was exported from files that are not among PATHS.")
@click.option("--overwrite", is_flag=True, help="Remove earlier exports from the folder, write all again.")
def export_tables(target: str, call: Call, **given: Any) -> None:
    """Write tables of all files at PATHS to Parquet, each to a folder of its own.

    Called again, it writes what is new and what has changed, and goes on where it was interrupted.
    """
    from lazynwb_dask.api.export import export_tables
    from lazynwb_dask.catalog import lock

    hint = "What was written is kept: the same command goes on from there."
    with interrupts.undone(lock.let_go, hint), interrupts.orderly(), cluster(call):
        done = export_tables(sources.paths(call), target, **given, **call.access)
    for path, error in done[done.status == "failed"][["path", "error"]].itertuples(index=False):
        say(f"Warning: {one_line(f'{path} was left out: {error}')}")
    counts = done.groupby("status").size()
    say(f"{done.rows.sum():,} rows at {target}; parts: {', '.join(f'{n} {s}' for s, n in counts.items())}")


@click.command(
    cls=Command, cluster=True, rows=True, formats=(),
    example="lazynwb-dask export units --to units.parquet s3://lab/sessions/\n"
            'lazynwb-dask export trials --where "is_hit" --to trials.csv.gz dandi:000409',
)  # fmt: skip
@click.argument("table")
@click.option(
    "--to", "target", required=True, type=click.Path(), help="A file (for Parquet a folder) or its URL."
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
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
            rows = _parquet(frame, where_to, call)
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
            f"--to {printable(target)}: its name must end in {', '.join(KINDS)}, or for example .csv.gz"
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


def _parquet(frame: dd.DataFrame, target: _Target, call: Call) -> int:
    """Written by Dask's tasks, a part of each file; on a cluster by the workers."""
    from lazynwb_dask.api.sessions import read_sessions
    from lazynwb_dask.catalog.folder import Folder
    from lazynwb_dask.export.frame import write_frame
    from lazynwb_dask.export.names import session_name

    found = read_sessions(sources.paths(call), **call.access).compute().astype(object)
    told = found.where(found.notna(), None)[["_nwb_path", "session_id", "identifier"]]
    names = {
        url: session_name(url, {"/general": {"session_id": session}, "/": {"identifier": identifier}})
        for url, session, identifier in told.itertuples(index=False)
    }
    if target.is_local:
        with target.beside() as folder:
            os.mkdir(folder)
            return write_frame(frame, Folder.of(folder, target.access), names)
    try:
        return write_frame(frame, Folder.of(target.name, target.access), names)
    except BaseException:
        target.remove()
        raise


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
