"""Tables of many files as datasets of Parquet: which parts there are to be, and which are written anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lazynwb_dask._version import __version__
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.catalog.lock import locked
from lazynwb_dask.errors import Failure, SchemaConflictError
from lazynwb_dask.export.manifest import (
    Manifest,
    Record,
    parquet_files,
    remove_parts,
    remove_scratch,
    version_of,
)
from lazynwb_dask.export.names import (
    SESSIONS,
    SESSIONS_FILE,
    digest,
    folder_name,
    is_part,
    part_name,
    session_column,
    session_name,
    stem,
    table_folders,
)
from lazynwb_dask.export.part import Part, Rows, Written, lacks, sink
from lazynwb_dask.export.run import write_parts
from lazynwb_dask.export.schema import can_copy, stored, unified
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.session import Session
from lazynwb_dask.plan import sessions
from lazynwb_dask.plan.index_cache import is_identified
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.stream.arrow import arrow_schema, arrow_table
from lazynwb_dask.util.warn import warn

OFTEN = 2.0  # seconds between two writes of the manifest, at least


class Files(Protocol):
    """The files of an export."""

    def sources(self) -> Sequence[Source]:
        """All of them, each once, with their versions."""

    def sessions(self, sources: Sequence[Source]) -> tuple[Sequence[Session], Sequence[Failure]]: ...

    def tables(self, sources: Sequence[Source]) -> tuple[list[str], Sequence[Failure]]:
        """The paths of the tables that are asked for."""

    def scan(self, table: str, sources: Sequence[Source]) -> tuple[Scan, pd.DataFrame]:
        """A table of those that have it, and the report of its schema."""


@dataclass(frozen=True)
class Layout:
    """How an export is laid out, and what becomes of what is there."""

    tables: tuple[str, ...] | None
    partition_by: str
    partition_size: int
    on_missing: str
    on_error: str
    prune: bool = False
    overwrite: bool = False


def export(files: Files, folder: Folder, layout: Layout) -> pd.DataFrame:
    """Write the parts of tables that aren't there yet. Returns all parts, and what became of them."""
    with locked(folder, "export") as check_lock:
        run = _Export(files, folder, layout, check_lock)
        if not run.is_done():
            run.plan()
            run.write()
        return run.report()


@dataclass(frozen=True, eq=False)
class _Table:
    """A table to be exported."""

    path: str
    folder: str
    scan: Scan
    schema: pa.Schema
    key: str  # the schema's

    @cached_property
    def files(self) -> dict[str, int]:
        """Its files in the scan, by their names."""
        return {shown(url): i for i, url in enumerate(self.scan.files.urls)}

    def lacking(self, file: int) -> list[str]:
        return [name for name in self.scan.fields if lacks(self.scan, name, file)]

    def weights(self) -> np.ndarray:
        """The decoded bytes of each file."""
        return np.bincount(
            self.scan.file, self.scan.nbytes(self.scan.fields), minlength=len(self.scan.files.urls)
        )


@dataclass
class _Export:
    files: Files
    folder: Folder
    layout: Layout
    check_lock: Callable[[], None]
    failures: list[tuple[str, str, str]] = field(default_factory=list)  # table, path, error
    removed: dict[str, Record] = field(default_factory=dict)
    todo: dict[str, Part] = field(default_factory=dict)
    after: dict[str, Record] = field(default_factory=dict)  # what is known of these once they are written
    replaced: dict[str, str] = field(default_factory=dict)  # parts to be removed once another is written
    new: set[str] = field(default_factory=set)  # parts that were written
    saved: float = 0.0  # when the manifest was

    def __post_init__(self) -> None:
        remove_scratch(self.folder)
        self.there = parquet_files(self.folder)
        self.manifest = Manifest.read(self.folder)
        by = self.layout.partition_by
        if self.layout.overwrite:
            # once it is known what is written instead
            self.removed = {path: one for path, one in self.manifest.parts.items() if path in self.there}
            self.manifest = Manifest()
        elif self.manifest.parts and self.manifest.partition_by != by:
            raise ValueError(
                f"partition_by={by!r}: the export at {shown(self.folder.url)} is partitioned by "
                f"{self.manifest.partition_by!r}; overwrite=True replaces it"
            )
        self.manifest.partition_by = by
        self.before = self.manifest.parts
        self.manifest.parts = {
            path: record
            for path, record in self.before.items()
            if path in self.there and (record.pending or self.there[path] == record.bytes)
        }
        self.lost = len(self.manifest.parts) < len(self.before)
        self.sources = {shown(source.url): source for source in self.files.sources()}
        named = sorted((name, version_of(source)) for name, source in self.sources.items())
        self.asked = digest(repr((self.layout.tables, self.layout.on_missing, named)))

    def is_done(self) -> bool:
        """Whether all is there already."""
        return (
            self.manifest.done == self.asked
            and not self.lost
            and not any(record.pending for record in self.manifest.parts.values())
            and not (self.layout.prune and self.manifest.sources.keys() - self.sources.keys())
            and all(map(is_identified, self.sources.values()))
        )

    def plan(self) -> None:
        manifest = self.manifest
        manifest.done = ""
        if self.layout.prune:
            manifest.sources = {n: held for n, held in manifest.sources.items() if n in self.sources}
        new = [
            source
            for name, source in self.sources.items()
            if not self._is_same(name, manifest.sources.get(name, {}).get("version"))
        ]
        found, failed = self.files.sessions(new)
        self._leave_out(failed)
        for session in found:
            name = shown(session.source.url)
            manifest.sources[name] = {"version": self._version(name), "session": session.fields}
        tables, failed = self.files.tables(list(self.sources.values()))
        self._leave_out(failed)
        known = {record.table for record in manifest.parts.values()}
        folders = table_folders(sorted({*tables, *known}))
        for path in sorted(known - {*tables}):  # nothing is written of these
            self._check_place(path, folders[path])
            # of all tables, those that no file has any more
            self._remove_gone(path, {*self.sources} if self.layout.tables is None else set())
        for path in tables:
            if path != SESSIONS:
                self._plan_table(path, folders[path])
        self.tables = tables
        places = {folders[path] for path in tables if path != SESSIONS}
        for path in self.there.keys() - manifest.parts.keys() - self.todo.keys() - self.removed.keys():
            # of a run that was killed, or of an export whose manifest was lost
            if is_part(path, places) or (self.layout.tables is None and path in self.before):
                self.removed[path] = Record("", {}, 0, self.there[path], "")

    def _check_place(self, table: str, folder: str) -> None:
        if not all(path.startswith(f"{folder}/") for path in self.manifest.of(table)):
            raise ValueError(
                f"{table} was exported before, to a folder within another table's now: name both tables, so "
                "that it gets another one"
            )

    def _is_same(self, name: str, version: str | None) -> bool:
        return is_identified(self.sources[name]) and version == self._version(name)

    def _version(self, name: str) -> str:
        return version_of(self.sources[name])

    def _leave_out(self, failed: Sequence[Failure]) -> None:
        """From here on, what is there of these files is left as it is."""
        for failure in failed:
            if self.sources.pop(failure.path, None) is not None:
                self.failures.append(("", failure.path, failure.error))

    def _is_gone(self, name: str, lost: Container[str]) -> bool:
        """Whether rows of a file aren't to stay: it is one of those that have lost the table, or was pruned."""
        return name in lost or name not in self.manifest.sources

    def _remove_gone(self, table: str, lost: Container[str]) -> None:
        for path, record in self.manifest.of(table).items():
            if all(self._is_gone(name, lost) for name in record.members):
                self.removed[path] = self.manifest.parts.pop(path)

    def _plan_table(self, path: str, folder: str) -> None:
        scan, report = self.files.scan(path, list(self.sources.values()))
        self._leave_out([Failure(*one) for one in scan.failures if one[0] not in map(shown, scan.files.urls)])
        mine = set(map(shown, scan.files.urls))
        lost = self.sources.keys() - mine
        self._remove_gone(path, lost)
        before = self.manifest.of(path)
        left = {
            record.schema
            for record in before.values()
            if not all(name in mine or self._is_gone(name, lost) for name in record.members)
        }
        schema = unified(scan, report, [self.manifest.schema(key) for key in sorted(left)], path)
        fields = {
            name: one
            if stored(one.type) == schema.field(name).type
            else replace(one, type=schema.field(name).type)
            for name, one in scan.fields.items()
        }
        scan = replace(scan, fields=fields, known_token="")
        table = _Table(path, folder, scan, schema, self.manifest.add_schema(schema))
        for part, members, old in self._groups(table, before, lost):
            self._plan_part(table, part, members, old)

    def _groups(
        self, table: _Table, before: Mapping[str, Record], lost: Container[str]
    ) -> Iterator[tuple[str, list[str], str]]:
        """The parts: path, files, and where it was before."""
        stays = {path: [n for n in one.members if not self._is_gone(n, lost)] for path, one in before.items()}
        old = {name: path for path, names in stays.items() for name in names}
        files = table.files
        if self.layout.partition_by == "session":
            column = session_column(table.schema.names)
            for name in dict.fromkeys([*files, *old]):
                session = session_name(name, self.manifest.sources[name]["session"])
                part = part_name(stem(name), name)
                yield f"{table.folder}/{column}={folder_name(session)}/{part}", [name], old.get(name, "")
            return
        for path in dict.fromkeys(old.values()):  # a file stays in the part that it is in
            yield f"{table.folder}/{path.rpartition('/')[2]}", stays[path], path
        members: list[str] = []
        size, weights = 0, table.weights()
        for name in [*files, ""]:
            weight = int(weights[files[name]]) if name else 0
            if members and (not name or size + weight > self.layout.partition_size):
                yield f"{table.folder}/{part_name(stem(members[0]), '|'.join(members))}", members, ""
                members, size = [], 0
            if name and name not in old:
                members, size = [*members, name], size + weight

    def _plan_part(self, table: _Table, path: str, members: list[str], old: str) -> None:
        """Plan a part to be written, unless it is there. Rows of files that haven't changed are copied."""
        record, files = self.manifest.parts.get(old), table.files
        held = record.members if record is not None else {}
        fresh = {n for n in members if n in held and (n not in files or self._is_same(n, held[n]))}
        there = record is not None and path == old and record.schema == table.key and not record.pending
        if there and fresh == {*members} == {*held}:
            return
        runs: list[tuple[bool, list[str]]] = []  # files in a row that are copied, or that are read
        for name in members:
            lacking = table.lacking(files[name]) if name in files else table.schema.names
            copied = (
                name in fresh
                and record is not None
                and can_copy(self.manifest.schema(record.schema), table.schema, lacking)
            )
            if not copied and name not in files:
                raise SchemaConflictError(
                    f"{table.path}: the columns of {name}, which was exported before, have other types in "
                    "these files: prune=True removes it, overwrite=True all that is there"
                )
            if not runs or runs[-1][0] != copied:
                runs.append((copied, []))
            runs[-1][1].append(name)
        rows = [
            Rows(tuple(names), kept=old) if copied else rows_of(table.scan, [files[n] for n in names])
            for copied, names in runs
        ]
        before: frozenset[str] = frozenset()
        if record is not None and path == old:
            # of a file alone in its part the rows stay if nothing is written
            if len(members) > 1 or record.schema != table.key:
                schema = self.manifest.schema(record.schema)
                before = frozenset(held if can_copy(schema, table.schema, table.schema.names) else ())
            record.members = dict.fromkeys(members)  # to be written, whatever happens from here on
        elif record is not None and any(one.kept for one in rows):
            self.replaced[path] = old
        elif record is not None:
            self.removed[old] = self.manifest.parts.pop(old)
        columns = tuple(name for name in table.schema.names if name in table.scan.fields)
        self.todo[path] = Part(path, table.schema, tuple(rows), columns, held=before)
        versions: dict[str, str | None] = {
            n: self._version(n) if n in files else held[n] or "" for n in members
        }
        self.after[path] = Record(table.path, versions, 0, 0, table.key)

    def write(self) -> None:
        written = {*self.todo, *([SESSIONS_FILE] if SESSIONS in self.tables else [])}
        self.removed = {path: record for path, record in self.removed.items() if path not in written}
        self._save()
        remove_parts(self.folder, self.removed)
        try:
            write_parts(list(self.todo.values()), self.folder, self.layout.on_error, self._told)
            remove_parts(self.folder, self.replaced.values())
            if SESSIONS in self.tables:
                self._write_sessions()
            if not self.failures:
                self.manifest.done = self.asked
        finally:
            remove_scratch(self.folder)
            self._save()

    def _save(self) -> None:
        self.check_lock()
        self.manifest.write(self.folder)
        self.saved = time.monotonic()

    def _told(self, written: Written) -> None:
        """Take note of a part that is complete."""
        path, parts = written.path, self.manifest.parts
        record = self.after[path]
        left_out, held = {name for name, _ in written.failed}, self.todo[path].held
        self.failures += [(record.table, name, error) for name, error in written.failed]
        if written.bytes:
            members = {
                name: None if name in left_out else version
                for name, version in record.members.items()
                if name not in left_out or name in held
            }
            parts[path] = Record(record.table, members, written.rows, written.bytes, record.schema)
            self.new.add(path)
            parts.pop(self.replaced.get(path, ""), None)
        elif path in self.there and (path not in parts or parts[path].schema != record.schema):
            self.removed[path] = parts.pop(path, record)
            remove_parts(self.folder, [path])
        if time.monotonic() - self.saved > OFTEN:
            self._save()

    def _write_sessions(self) -> None:
        """The table of all files' sessions: one part, with the names that their folders have."""
        held, path = self.manifest.sources, SESSIONS_FILE
        names = [*[name for name in self.sources if name in held], *sorted(held.keys() - self.sources.keys())]
        members: dict[str, str | None] = {name: held[name]["version"] for name in names}
        before = self.manifest.parts.get(path)
        if before is not None and list(before.members.items()) == list(members.items()):
            return
        found = [Session(Source(name), held[name]["session"]) for name in names]
        frame, odd = sessions.table(found)
        if odd:
            warn(f"{len(odd)} times are not valid dates and are missing (the first: {odd[0]})")
        told = [session_name(one.source.url, one.fields) for one in found]
        frame.insert(
            len(frame.columns) - 1, session_column(frame.columns), pd.Series(told, dtype="string[pyarrow]")
        )
        about = {"table_path": SESSIONS, "lazynwb_dask": __version__}
        schema = pa.schema([(one.name, stored(one.type)) for one in arrow_schema(frame)], about)
        with sink(self.folder, path) as file:
            pq.write_table(arrow_table(frame, schema), file, compression="zstd")
            size = int(file.tell())
        key = self.manifest.add_schema(schema)
        self.manifest.parts[path] = Record(SESSIONS, members, len(frame), size, key)
        self.new.add(path)

    def report(self) -> pd.DataFrame:
        if self.failures:
            _, path, error = self.failures[0]
            count = len({name for _, name, _ in self.failures})
            warn(
                f"{count} files can't be read and are left out (the first: "
                f"{path}: {error}); the table that export_tables returns lists them"
            )
        rows = [
            (record.table, path, record.rows, record.bytes, "written" if path in self.new else "kept", "")
            for path, record in sorted(self.manifest.parts.items())
        ]
        rows += [(one.table, path, one.rows, one.bytes, "removed", "") for path, one in self.removed.items()]
        rows += [(table, path, 0, 0, "failed", error) for table, path, error in self.failures]
        return pd.DataFrame(rows, columns=["table", "path", "rows", "bytes", "status", "error"])


def rows_of(scan: Scan, files: Sequence[int]) -> Rows:
    """The rows of files, as they are read."""
    parts: list[int] = []
    for first, last in np.searchsorted(scan.file, [[file, file + 1] for file in files]).tolist():
        parts += [i for i in range(first, last) if not scan.indexed or scan.stop[i] > scan.start[i]]
    narrow = scan.narrow(tuple(scan.fields), parts) if parts else None
    return Rows(tuple(scan.files.urls[file] for file in files), narrow)
