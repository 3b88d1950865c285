"""All partitions of one table over all files: what the expression carries, and a task a slice of.

What files share (layouts, types, names) is held once; what differs is one packed record of bytes for each
file and column. So ten thousand files are a few arrays, not a million objects; a narrowed scan shares them
with the whole one, and only pickling cuts out what the chosen partitions and columns need.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.model.index import Layout
from lazynwb_dask.model.packing import (
    front,
    layout_json,
    layout_of,
    pack_arrays,
    parts_json,
    parts_of,
    spell,
    thin,
    tuples,
    unfront,
    unpack_arrays,
    unspell,
    wide,
)
from lazynwb_dask.model.series_view import Shown
from lazynwb_dask.model.task_names import task_label, words
from lazynwb_dask.scan.catalog_slots import Inlined
from lazynwb_dask.scan.records import Files, Part, Records
from lazynwb_dask.scan.schema import Field, Schema, series
from lazynwb_dask.storage.options import Options

if TYPE_CHECKING:
    from lazynwb_dask.predicate.tree import Predicate


class Statistics(Protocol):
    """What is known of the values of each partition. See `catalogs.pruning`."""

    def possible(self, predicate: Predicate, scan: Scan, /) -> np.ndarray | None: ...


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
    statistics : Statistics or None
        What is known of the partitions' values; stays with whoever plans.
    shown : Shown or None
        How workers that index files are to show the data of TimeSeries.
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
    statistics: Statistics | None = None
    shown: Shown | None = None

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

    @property
    def label(self) -> str:
        """What tasks are called: ``read-units``, or ``read-units-@sub-01`` of one file."""
        asked = [self.table] if isinstance(self.table, str) else self.table or []
        tables = set(self.files.tables or asked)
        about = words(tables.pop()) if len(tables) == 1 else []
        return task_label("read", about, self.files.urls)

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
        known = ("_nwb_path", "_table_path") if self.indexed else ("_nwb_path",)
        return frozenset([*known, *self.files.facts])

    def constant_frame(self, columns: Iterable[str]) -> pd.DataFrame:
        """One row for each partition: the values of constant columns."""
        data = {}
        for name in columns:
            if name in self.files.facts:
                held = self.files.facts[name].take(pa.array(self.file))
                data[name] = pd.Series(series([held], self.fields[name]))
                continue
            if name == "_nwb_path":
                values = [self.files.urls[i] for i in self.file.tolist()]
            else:
                values = [self.files.tables[i] for i in self.files.table[self.file].tolist()]
            data[name] = pd.Series(values, dtype=self.fields[name].dtype)
        return pd.DataFrame(data)

    def possible(self, predicate: Predicate) -> np.ndarray | None:
        """Whether each partition may hold rows that a predicate leaves, as far as statistics tell."""
        return None if self.statistics is None else self.statistics.possible(predicate, self)

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
        held = self.files.inlined
        inlined = None if held is None else held.narrow(wanted)
        facts = {name: values for name, values in self.files.facts.items() if name in wanted}
        whole = chosen.size == self.nparts and bool((chosen == np.arange(self.nparts)).all())
        if whole and len(fields) == len(self.fields):
            return self
        return replace(
            self,
            files=replace(self.files, records=records, inlined=inlined, facts=facts),
            fields=fields,
            file=self.file[chosen],
            start=self.start[chosen],
            stop=self.stop[chosen],
            offset=self.offset[chosen],
            known_token="",
            failures=(),
            statistics=None,
            origin=(self.origin or self.token) if self.tells else "",
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
            None if self.files.inlined is None else self.files.inlined.of(file),
            {name: values[file] for name, values in self.files.facts.items()},
        )

    def with_facts(self, fields: Sequence[Field], values: Sequence[pa.Array]) -> Scan:
        """The same with further columns, which have one value in each file."""
        facts = {f.name: held for f, held in zip(fields, values, strict=True)}
        digest = hashlib.blake2b(self.token.encode() + pack_arrays(facts), digest_size=16)
        return replace(
            self,
            files=replace(self.files, facts=dict(self.files.facts) | facts),
            fields=dict(self.fields) | {f.name: f for f in fields},
            known_token=digest.hexdigest(),
        )

    @property
    def tells(self) -> bool:
        """Whether reading may leave something out, and tells of it."""
        return self.on_error == "skip" or (not self.indexed and self.on_missing == "skip")

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
            None if f.inlined is None else f.inlined.take(used),
            {name: values.take(pa.array(used)) for name, values in f.facts.items()},
            tuple([f.parts[i] for i in pick]) if f.parts else (),
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
        inlined = None
        if f.inlined is not None:
            inlined, more = f.inlined.pack()
            buffers += more
        if f.facts:
            buffers.append(pack_arrays(f.facts))
        urls, etags = front(f.urls), list(f.etags)
        head = {
            "urls": urls,
            "etags": etags if any(e is not None for e in etags) else None,
            "parts": [parts_json(x) for x in f.parts],
            "tables": f.tables,
            "fields": [(x.name, spell(x.type), x.nullable) for x in compact.fields.values()],
            "columns": columns,
            "inlined": inlined,
            "facts": bool(f.facts),
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
                None if self.shown is None else [self.shown.channels, self.shown.scaled],
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
    facts = unpack_arrays(buffers.pop()) if head["facts"] else {}
    files = Files(
        tuple(urls), wide(buffers[0]), tuple(etags), tuple(head["tables"]),
        wide(buffers[1]).astype(np.int32), records,
        None if head["inlined"] is None
        else Inlined.unpack(head["inlined"], buffers[6 + 4 * len(records) :]),
        facts, tuple(map(parts_of, head["parts"])),
    )  # fmt: skip
    fields = {name: Field(name, unspell(kind), null) for name, kind, null in head["fields"]}
    blocksize, fusable, indexed, numbered, on_error, on_missing, table, origin, links, shown, _ = (
        head["rest"]
    )
    file, start, stop, offset = (wide(b) for b in buffers[2:6])
    return Scan(
        files, fields, file, start, stop, offset, options, blocksize, fusable, indexed, numbered,
        on_error, on_missing, table, token, tuple(map(tuple, head["failures"])), origin, links,
        shown=None if shown is None else Shown(tuples(shown[0]), shown[1]),
    )  # fmt: skip
