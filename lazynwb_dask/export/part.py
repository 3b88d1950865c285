"""One Parquet file of an export, written by a task: row group by row group, and visible once it is complete."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lazynwb_dask import config
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.errors import NWBError, NWBReadError
from lazynwb_dask.expr.tasks import read
from lazynwb_dask.model.source import is_local, shown
from lazynwb_dask.predicate.tree import Predicate
from lazynwb_dask.scan.fields import Field
from lazynwb_dask.scan.records import ABSENT
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.storage.options import Options

ROW_GROUP = 32 << 20  # decoded bytes of a row group, about
BLOCK = 16 << 20  # bytes of a part of a multipart upload
SCRATCH = ".lazynwb-dask"  # a folder for files that aren't complete; of the kind that no reader looks at
# stores where an object appears once it has been sent
_OBJECTS = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "tos"})


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a part: of files that are read, or copied from a part that has them already."""

    urls: tuple[str, ...]
    scan: Scan | None = None  # of these files alone; None if they have no rows
    kept: str = ""  # the part that the rows are copied from


@dataclass(frozen=True, eq=False)
class Part:
    """A Parquet file to be written."""

    path: str  # below the folder of the export
    schema: pa.Schema
    rows: tuple[Rows, ...]
    columns: tuple[str, ...]  # those of the schema that files have
    predicate: Predicate | None = None
    held: frozenset[str] = frozenset()  # files whose rows are there already, and stay if these can't be read


@dataclass(frozen=True)
class Written:
    """What became of a part. `failed` are files that are left out of it, and why."""

    path: str
    rows: int = 0
    bytes: int = 0
    failed: tuple[tuple[str, str], ...] = ()


class StoredField(Field):
    """A column with what is missing apart from what is NaN, as Arrow has them."""

    @property
    def dtype(self) -> Any:
        return pd.ArrowDtype(self.type)


class _FileError(Exception):
    """Some files of a part can't be read."""

    def __init__(self, urls: tuple[str, ...], cause: NWBError) -> None:
        super().__init__(urls, cause)
        self.urls, self.cause = urls, cause


def write_part(part: Part, url: str, options: Options, on_error: str) -> Written:
    """Write a part of the export at `url`: without files that can't be read, if `on_error` is "skip"."""
    folder = Folder(url, config.file_access(options))
    failed: list[tuple[str, str]] = []
    rows = part.rows
    while True:
        try:
            count, size = _written(replace(part, rows=rows), folder)
            return Written(part.path, count, size, tuple(failed))
        except _FileError as exc:
            if on_error == "raise":
                raise exc.cause from None
            bad = next(i for i, one in enumerate(rows) if one.urls == exc.urls)
            if len(exc.urls) > 1:  # which of these it is
                rows = (*rows[:bad], *_by_file(rows[bad]), *rows[bad + 1 :])
                continue
            name = shown(exc.urls[0])
            failed.append((name, f"{type(exc.cause).__name__}: {exc.cause}"))
            before = (Rows(exc.urls, kept=part.path),) if name in part.held else ()
            rows = (*rows[:bad], *before, *rows[bad + 1 :])
            if not rows:
                return Written(part.path, failed=tuple(failed))


def _by_file(rows: Rows) -> Iterator[Rows]:
    scan = rows.scan
    assert scan is not None
    for url in rows.urls:
        parts = [i for i, file in enumerate(scan.file.tolist()) if scan.files.urls[file] == url]
        yield Rows((url,), scan.narrow(tuple(scan.fields), parts) if parts else None)


def _written(part: Part, folder: Folder) -> tuple[int, int]:
    count = 0
    texts = [field.name for field in part.schema if pa.types.is_string(field.type)]
    with sink(folder, part.path) as file:
        with pq.ParquetWriter(file, part.schema, compression="zstd", use_dictionary=texts) as writer:
            for table in _grouped(_tables(part, folder)):
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
                count += table.num_rows
        size = int(file.tell())
    return count, size


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Tables of about the size of a row group, of small ones."""
    held: list[pa.Table] = []
    for table in tables:
        if held and sum(one.nbytes for one in held) + table.nbytes > ROW_GROUP:
            yield pa.concat_tables(held)
            held = []
        held.append(table)
    if held:
        yield pa.concat_tables(held)


def _tables(part: Part, folder: Folder) -> Iterator[pa.Table]:
    for rows in part.rows:
        if rows.kept:
            yield from _copied(rows, part, folder)
        elif rows.scan is not None:
            yield from _read(rows.urls, rows.scan, part)


def _read(urls: tuple[str, ...], scan: Scan, part: Part) -> Iterator[pa.Table]:
    """The rows of files, one partition after the other, or of small ones some at a time."""
    deciding = part.predicate.columns if part.predicate is not None else frozenset()
    fields = {
        name: field if name in deciding else StoredField(name, field.type, field.nullable, field.of)
        for name, field in scan.fields.items()
    }
    scan = replace(scan, fields=fields, request=replace(scan.request, on_error="raise"))
    ends = np.cumsum(scan.nbytes(part.columns))
    stop = 0
    while stop < scan.nparts:
        i, done = stop, int(ends[stop - 1]) if stop else 0
        stop = max(int(np.searchsorted(ends, done + ROW_GROUP, side="right")), i + 1)
        one = scan.narrow(tuple({*part.columns, *deciding}), range(i, stop))
        try:
            frame = read(one, part.columns, part.predicate, None)
        except NWBError as exc:
            raise _FileError(urls, exc) from None
        lacking = {name for name in deciding if lacks(scan, name, int(scan.file[i]))}
        yield _table(frame, part.schema, lacking)
        del frame


def lacks(scan: Scan, name: str, file: int) -> bool:
    """Whether a file doesn't have a column of a scan."""
    records, held = scan.files.records.get(name), scan.files.inlined
    slots = None if held is None else held.values.get(name)
    return (
        records is not None and int(records.which[file]) == ABSENT and (slots is None or slots.of(file) is None)
    )


def _table(frame: pd.DataFrame, schema: pa.Schema, lacking: set[str]) -> pa.Table:
    arrays = []
    for field in schema:
        if field.name not in frame.columns or field.name in lacking:
            arrays.append(pa.nulls(len(frame), field.type))
            continue
        held = getattr(frame[field.name].array, "_pa_array", None)
        column = pa.chunked_array([pa.array(frame[field.name].to_numpy())]) if held is None else held
        if field.name == "_nwb_path":
            column = _shown(column)
        arrays.append(column if column.type == field.type else pc.cast(column, field.type))
    return pa.table(arrays, schema=schema)


def _shown(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """Paths without queries, which may be signatures."""
    coded = pa.chunked_array(urls.cast(pa.string())).combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    names = pa.array([shown(url) for url in coded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([names.take(coded.indices)], pa.string())


def _copied(rows: Rows, part: Part, folder: Folder) -> Iterator[pa.Table]:
    """The rows that a part has of some files, with the types of the new schema."""
    filesystem, path = folder.access.options.filesystem(folder.url_of(rows.kept))
    names = pa.array([shown(url) for url in rows.urls], pa.string())
    with filesystem.open(path, "rb") as raw:
        file = pq.ParquetFile(raw)
        for group in range(file.num_row_groups):
            held = file.read_row_group(group)
            held = held.filter(pc.is_in(held["_nwb_path"], names))
            columns = [
                held[field.name].cast(field.type) if field.name in held.column_names
                else pa.nulls(held.num_rows, field.type)
                for field in part.schema
            ]  # fmt: skip
            yield pa.table(columns, schema=part.schema)


@contextmanager
def sink(folder: Folder, path: str) -> Iterator[Any]:
    """A file to write into, which takes its name at the end, and leaves nothing at an error."""
    url = folder.url_of(path)
    try:
        if is_local(folder.url):
            with _local_sink(folder.url, url) as file:
                yield file
        else:
            with _remote_sink(folder, url) as file:
                yield file
    except (NWBError, _FileError, KeyboardInterrupt, SystemExit):
        raise
    except FileNotFoundError as exc:
        raise NWBReadError(
            f"{shown(folder.url)}: it can't be written there ({exc}). On a cluster, name a folder that workers "
            "share with this machine, or a URL such as s3://..."
        ) from None
    except Exception as exc:  # of any store's library
        raise NWBReadError(f"{shown(url)}: it can't be written: {type(exc).__name__}: {exc}") from exc


@contextmanager
def _local_sink(root: str, path: str) -> Iterator[Any]:
    scratch = f"{root}/{SCRATCH}"
    whole = f"{scratch}/{uuid.uuid4().hex}"
    if os.path.isdir(root):  # after an error elsewhere it may be gone, and isn't to be made again
        os.makedirs(scratch, exist_ok=True)
    try:
        with open(whole, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(whole, path)
    finally:
        with suppress(OSError):
            os.unlink(whole)


@contextmanager
def _remote_sink(folder: Folder, url: str) -> Iterator[Any]:
    filesystem, path = folder.access.options.filesystem(url)
    protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else {*filesystem.protocol}
    whole = path
    if protocols.isdisjoint(_OBJECTS):
        _, root = folder.access.options.filesystem(folder.url)
        whole = f"{root}/{SCRATCH}/{uuid.uuid4().hex}"
        for name in (whole, path):
            filesystem.makedirs(name.rpartition("/")[0], exist_ok=True)
    file = filesystem.open(whole, "wb", block_size=BLOCK)
    try:
        yield file
        file.close()
    except BaseException:
        _discard(file)
        if whole != path:
            with suppress(Exception):
                filesystem.rm_file(whole)
        raise
    if whole != path:
        filesystem.mv(whole, path)


def _discard(file: Any) -> None:
    """End an upload without an object. A file that is merely closed would appear half."""
    with suppress(Exception):
        file.discard()
    with suppress(AttributeError):
        file.closed = True
