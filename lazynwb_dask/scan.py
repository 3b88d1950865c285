"""All partitions of one table over all files: what the expression carries, and a task a slice of.

What files share (layouts, types, names) is held once; what differs is one packed record of bytes for each
file and column. So ten thousand files are a few arrays, not a million objects; a narrowed scan shares them
with the whole one, and only pickling cuts out what the chosen partitions and columns need.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .errors import Failure, NWBReadError
from .failures import tell
from .index import (
    ArrayIndex,
    ColumnIndex,
    Extents,
    Layout,
    TableIndex,
)
from .options import Options
from .packing import front, layout_json, layout_of, spell, thin, unfront, unspell, wide
from .schema import PROVENANCE, PROVENANCE_FIELDS, Field, Schema
from .sources import Source
from .storage import Settings

if TYPE_CHECKING:
    from .predicate import Limit, Predicate

Variant = tuple[tuple[Layout, ...], tuple[str, ...] | None]
ABSENT = -1


@dataclass(frozen=True, eq=False)
class Records:
    """One column over all files: which variant it is in each, and where its chunks lie there."""

    variants: tuple[Variant, ...]
    which: np.ndarray  # int32 for each file; ABSENT where the file lacks the column
    data: bytes
    ends: np.ndarray  # int64 for each file: where its record ends in `data`
    weights: np.ndarray  # float32 for each file: decoded bytes a row

    def arrays(self, file: int) -> tuple[tuple[ArrayIndex, ...], tuple[str, ...] | None] | None:
        """The datasets of the column in one file, or None."""
        kind = int(self.which[file])
        if kind == ABSENT:
            return None
        layouts, labels = self.variants[kind]
        at = int(self.ends[file - 1]) if file else 0
        found = []
        for layout in layouts:
            extents, at = Extents.unpack(self.data, at)
            found.append(ArrayIndex(layout, extents))
        return tuple(found), labels

    def take(self, files: np.ndarray) -> Records:
        """Some files' records, renumbered."""
        begins = np.concatenate([[0], self.ends[:-1]])[files]
        ends = self.ends[files]
        data = b"".join(
            [self.data[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
        )
        which = self.which[files]
        used, renumbered = np.unique(which[which != ABSENT], return_inverse=True)
        compact = np.full(len(which), ABSENT, np.int32)
        compact[which != ABSENT] = renumbered
        return Records(
            tuple(self.variants[i] for i in used.tolist()),
            compact,
            data,
            np.cumsum(ends - begins),
            self.weights[files],
        )

    @staticmethod
    def of(columns: Sequence[ColumnIndex | None]) -> Records:
        """The records of one column, given by file."""
        variants: dict[Variant, int] = {}
        which = np.full(len(columns), ABSENT, np.int32)
        weights = np.zeros(len(columns), np.float32)
        packed: list[bytes] = []
        for i, column in enumerate(columns):
            if column is None or column.problem:
                packed.append(b"")
                continue
            which[i] = variants.setdefault(column.variant, len(variants))
            weights[i] = column.nbytes / max(column.rows, 1)
            packed.append(b"".join([array.extents.pack() for array in column.arrays]))
        ends = np.cumsum(np.fromiter(map(len, packed), np.int64, len(packed)))
        return Records(tuple(variants), which, b"".join(packed), ends, weights)


@dataclass(frozen=True, eq=False)
class Files:
    """The files of a scan and how to reach them."""

    urls: tuple[str, ...]
    sizes: np.ndarray  # int64
    etags: tuple[str | None, ...]
    tables: tuple[str, ...]  # distinct table paths
    table: np.ndarray  # int32 for each file, into `tables`
    records: Mapping[str, Records]

    def source(self, file: int) -> Source:
        size = int(self.sizes[file])
        return Source(self.urls[file], size if size >= 0 else None, self.etags[file])


@dataclass(frozen=True, eq=False)
class Part:
    """One partition: a range of rows of one file's table."""

    source: Source
    table: str
    start: int
    stop: int
    offset: int  # global row number of `start`
    columns: Mapping[str, tuple[tuple[ArrayIndex, ...], tuple[str, ...] | None]]


@dataclass(frozen=True, eq=False)
class Scan:
    """A table over files, cut into partitions.

    Parameters
    ----------
    files : Files
    fields : dict of str to Field
        The frame's columns in order, the provenance columns last.
    file, start, stop, offset : numpy.ndarray of int64
        For each partition: its file, its rows in that file's table, and the global number of the first.
    options : Options
        How to reach the files, without secrets.
    blocksize : int
        Decoded bytes that a task should stay below.
    fusable : bool
        Whether partitions may be read together in one task.
    indexed : bool
        Whether the files' metadata are known; if not, workers read them, and lengths are unknown.
    numbered : bool
        Whether the index is the global row number; else it starts from 0 in each partition.
    on_error, on_missing : str
        What workers do with a file that can't be read, or lacks a table or column.
    known_token : str
        The identity, where it is not computed from the content: of one that was unpickled.
    failures : tuple of (path, stage, error)
        The files that could not be read while planning.
    origin : str
        The token of the scan that this one was narrowed from, where failures may have to be told.
    allow_external_links : bool
        Whether workers that index files may open others that these name.
    """

    files: Files
    fields: Mapping[str, Field]
    file: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    offset: np.ndarray
    options: Options
    blocksize: int
    fusable: bool = True
    indexed: bool = True
    numbered: bool = True
    on_error: str = "raise"
    on_missing: str = "skip"
    table: Any = None  # as asked for, where workers must look it up
    known_token: str = ""
    failures: tuple[tuple[str, str, str], ...] = ()
    origin: str = ""
    allow_external_links: bool = False

    # --- what the planner asks
    @property
    def nparts(self) -> int:
        return len(self.file)

    @functools.cached_property
    def token(self) -> str:
        """Deterministic; covers everything that any rule reads."""
        return self.known_token or hashlib.blake2b(self._pack(), digest_size=16).hexdigest()

    def __dask_tokenize__(self) -> str:
        return self.token

    @functools.cached_property
    def meta(self) -> pd.DataFrame:
        return Schema(dict(self.fields)).meta(self.fields)

    @property
    def lengths(self) -> np.ndarray | None:
        return self.stop - self.start if self.indexed else None

    @property
    def divisions(self) -> tuple[int, ...] | None:
        """The borders of the global row number, None where it is not known."""
        if not (self.indexed and self.numbered) or not self.nparts:
            return None
        total = int(self.offset[-1] + self.stop[-1] - self.start[-1])
        # the last division is the last label, but an empty partition at the end must not break the order
        return (*self.offset.tolist(), max(total - 1, int(self.offset[-1])))

    @property
    def constants(self) -> frozenset[str]:
        """Columns that are constant within each partition."""
        return frozenset(("_nwb_path", "_table_path") if self.indexed else ("_nwb_path",))

    def constant_frame(self, columns: Iterable[str]) -> pd.DataFrame:
        """One row for each partition: the values of constant columns."""
        data = {}
        for name in columns:
            if name == "_nwb_path":
                values = [self.files.urls[i] for i in self.file.tolist()]
            else:
                values = [self.files.tables[i] for i in self.files.table[self.file].tolist()]
            data[name] = pd.Series(values, dtype=self.fields[name].dtype)
        return pd.DataFrame(data)

    def nbytes(self, columns: Iterable[str]) -> np.ndarray:
        """Decoded bytes of some columns for each partition, as an estimate."""
        rows = (self.stop - self.start).astype(np.float64)
        per_row = np.zeros(self.nparts)
        for name in columns:
            if name == "_nwb_path":
                lengths = np.fromiter(map(len, self.files.urls), np.float64, len(self.files.urls))
                per_row += lengths[self.file] + 8
            elif name == "_table_path":
                per_row += 8 + max(map(len, self.files.tables), default=0)
            elif name in self.files.records:
                per_row += self.files.records[name].weights[self.file]
            else:
                per_row += 8
        estimate: np.ndarray = (rows * per_row).astype(np.int64)
        return estimate

    def narrow(self, columns: Iterable[str], parts: Sequence[int]) -> Scan:
        """Only some columns and partitions, renumbered from 0."""
        chosen = np.asarray(parts, np.int64)
        wanted = set(columns)
        fields = {name: f for name, f in self.fields.items() if name in wanted}
        records = {name: r for name, r in self.files.records.items() if name in wanted}
        whole = chosen.size == self.nparts and bool((chosen == np.arange(self.nparts)).all())
        if whole and len(fields) == len(self.fields):
            return self
        return replace(
            self,
            files=replace(self.files, records=records),
            fields=fields,
            file=self.file[chosen],
            start=self.start[chosen],
            stop=self.stop[chosen],
            offset=self.offset[chosen],
            known_token="",
            failures=(),
            origin=(self.origin or self.token) if self.on_error == "skip" else "",
        )

    def part(self, i: int) -> Part:
        """One partition, its columns unpacked."""
        file = int(self.file[i])
        found = {name: records.arrays(file) for name, records in self.files.records.items()}
        return Part(
            self.files.source(file),
            self.files.tables[int(self.files.table[file])] if self.files.tables else "",
            int(self.start[i]),
            int(self.stop[i]),
            int(self.offset[i]),
            {name: arrays for name, arrays in found.items() if arrays is not None},
        )

    # --- what the worker asks
    def read(
        self,
        columns: Sequence[str],
        predicate: Predicate | None,
        limit: Limit | None,
        settings: Settings,
    ) -> pd.DataFrame:
        """All partitions, one after the other, as a frame. See `read.read_parts`."""
        from .read import read_parts

        failed: list[Failure] = []
        frame = read_parts(self, columns, predicate, limit, settings, failed)
        if failed:
            tell(self.origin or self.token, failed)
        return frame

    def before_compute(self) -> None:
        """Called in the client's process when the graph is about to be made."""
        self.options.share()

    # --- packing
    def _compact(self) -> Scan:
        """With only the files that its partitions are of."""
        used, renumbered = np.unique(self.file, return_inverse=True)
        if len(used) == len(self.files.urls):
            return self
        f = self.files
        pick = used.tolist()
        files = Files(
            tuple([f.urls[i] for i in pick]),
            f.sizes[used],
            tuple([f.etags[i] for i in pick]),
            f.tables,
            f.table[used],
            {name: records.take(used) for name, records in f.records.items()},
        )
        return replace(self, files=files, file=renumbered.reshape(-1).astype(np.int64))

    def _pack(self) -> bytes:
        compact = self._compact()
        f = compact.files
        layouts: dict[Layout, int] = {}
        columns = {}
        buffers: list[bytes] = [
            thin(f.sizes),
            thin(f.table),
            thin(compact.file),
            thin(compact.start),
            thin(compact.stop),
            thin(compact.offset),
        ]
        for name, records in f.records.items():
            variants = [
                ([layouts.setdefault(x, len(layouts)) for x in found], labels)
                for found, labels in records.variants
            ]
            columns[name] = variants
            lengths = np.diff(records.ends, prepend=0)
            buffers += [
                thin(records.which),
                thin(lengths),
                records.weights.tobytes(),
                records.data,
            ]
        urls, etags = front(f.urls), list(f.etags)
        head = {
            "urls": urls,
            "etags": etags if any(e is not None for e in etags) else None,
            "tables": f.tables,
            "fields": [(x.name, spell(x.type), x.nullable) for x in compact.fields.values()],
            "columns": columns,
            "layouts": [layout_json(x) for x in layouts],
            "sizes": [len(b) for b in buffers],
            "rest": [
                self.blocksize,
                self.fusable,
                self.indexed,
                self.numbered,
                self.on_error,
                self.on_missing,
                self.table,
                self.origin,
                self.allow_external_links,
                self.options.token,
            ],
            "failures": self.failures,
        }
        text = json.dumps(head, separators=(",", ":")).encode()
        return len(text).to_bytes(4, "little") + text + b"".join(buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (zlib.compress(self._pack(), 6), self.options, self.known_token)


def _unpack(data: bytes, options: Options, token: str) -> Scan:
    raw = zlib.decompress(data)
    size = int.from_bytes(raw[:4], "little")
    head = json.loads(raw[4 : 4 + size])
    at = 4 + size
    buffers = []
    for n in head["sizes"]:
        buffers.append(raw[at : at + n])
        at += n
    urls = unfront(head["urls"])
    layouts = [layout_of(x) for x in head["layouts"]]
    records = {}
    for i, (name, variants) in enumerate(head["columns"].items()):
        which, lengths, weights, data = buffers[6 + 4 * i : 10 + 4 * i]
        records[name] = Records(
            tuple(
                (tuple(layouts[j] for j in found), None if labels is None else tuple(labels))
                for found, labels in variants
            ),
            wide(which).astype(np.int32),
            data,
            np.cumsum(wide(lengths)),
            np.frombuffer(weights, np.float32),
        )
    etags = head["etags"] or [None] * len(urls)
    files = Files(
        tuple(urls), wide(buffers[0]), tuple(etags), tuple(head["tables"]),
        wide(buffers[1]).astype(np.int32), records,
    )  # fmt: skip
    fields = {name: Field(name, unspell(kind), null) for name, kind, null in head["fields"]}
    blocksize, fusable, indexed, numbered, on_error, on_missing, table, origin, links, _ = head[
        "rest"
    ]
    file, start, stop, offset = (wide(b) for b in buffers[2:6])
    return Scan(
        files, fields, file, start, stop, offset, options, blocksize, fusable, indexed, numbered,
        on_error, on_missing, table, token, tuple(map(tuple, head["failures"])), origin, links,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- building
def build(
    tables: Sequence[tuple[Source, TableIndex]],
    schema: Schema,
    options: Options,
    blocksize: int | None,
    *,
    numbered: bool = True,
    on_error: str = "raise",
    on_missing: str = "skip",
) -> Scan:
    """The scan of tables that have been indexed, split by rows where they are large.

    Parameters
    ----------
    tables : sequence of (Source, TableIndex)
        In source order.
    blocksize : int or None
        Decoded bytes of a partition at most, as far as a row fits; None: one partition for each table.
    """
    names = [name for name in schema.fields if name not in PROVENANCE]
    records = {name: Records.of([t.columns.get(name) for _, t in tables]) for name in names}
    paths = list(dict.fromkeys(t.path for _, t in tables))
    number = {path: i for i, path in enumerate(paths)}
    files = Files(
        tuple(s.url for s, _ in tables),
        np.array([-1 if s.size is None else s.size for s, _ in tables], np.int64),
        tuple(s.etag for s, _ in tables),
        tuple(paths),
        np.array([number[t.path] for _, t in tables], np.int32),
        records,
    )
    rows = np.array([t.rows for _, t in tables], np.int64)
    per_row = np.zeros(len(tables))
    for held in records.values():
        per_row += held.weights
    per_row += np.fromiter(
        (len(s.url) + len(t.path) + 24 for s, t in tables), np.float64, len(tables)
    )
    file, start, stop = [], [], []
    keep_empty = blocksize is None or not rows.any()
    for i, (n, width) in enumerate(zip(rows.tolist(), per_row.tolist(), strict=True)):
        if not n and not keep_empty:
            continue
        pieces = 1 if blocksize is None else max(1, math.ceil(n * width / blocksize))
        borders = np.linspace(0, n, min(pieces, max(n, 1)) + 1).astype(np.int64)
        file += [i] * (len(borders) - 1)
        start += borders[:-1].tolist()
        stop += borders[1:].tolist()
        if not n and blocksize is not None:
            keep_empty = False  # one empty partition stands for all
    starts, stops = np.array(start, np.int64), np.array(stop, np.int64)
    lengths = stops - starts
    fields = {name: schema.fields[name] for name in names} | PROVENANCE_FIELDS
    return Scan(
        files,
        fields,
        np.array(file, np.int64),
        starts,
        stops,
        np.cumsum(lengths) - lengths,
        options,
        blocksize or 0,
        fusable=blocksize is not None and numbered,
        numbered=numbered,
        on_error=on_error,
        on_missing=on_missing,
    )


def unindexed(
    sources: Sequence[Source],
    table: Any,
    schema: Schema,
    options: Options,
    on_error: str,
    on_missing: str,
    allow_external_links: bool,
) -> Scan:
    """The scan of files that workers will index: one partition for each, of unknown length."""
    count = len(sources)
    files = Files(
        tuple(s.url for s in sources),
        np.array([-1 if s.size is None else s.size for s in sources], np.int64),
        tuple(s.etag for s in sources),
        (),
        np.zeros(count, np.int32),
        {},
    )
    if callable(table):
        raise NWBReadError(
            "a callable table can't be combined with a pyarrow schema; name the table"
        )
    zeros = np.zeros(count, np.int64)
    return Scan(
        files, dict(schema.fields) | PROVENANCE_FIELDS, np.arange(count), zeros, zeros, zeros, options, 0,
        fusable=False, indexed=False, numbered=False, on_error=on_error, on_missing=on_missing,
        table=table if isinstance(table, str) else list(table),
        allow_external_links=allow_external_links,
    )  # fmt: skip
