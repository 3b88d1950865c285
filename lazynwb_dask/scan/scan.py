"""All partitions of one table over all files. Layouts, types and names that files share are stored once,
and what differs is one packed record for each file and column: ten thousand files are a few arrays. A
narrowed scan shares these arrays; only pickling cuts out what its partitions and columns need."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.model.packing import pack_arrays
from lazynwb_dask.model.task_names import task_label, words
from lazynwb_dask.predicate.tree import Predicate
from lazynwb_dask.scan import derived
from lazynwb_dask.scan.fields import Field, Schema
from lazynwb_dask.scan.pack import pack, unpack
from lazynwb_dask.scan.records import Files, Part
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.scan.to_pandas import series
from lazynwb_dask.storage.options import Options


class Statistics(Protocol):
    """What is known of the values of each partition. See `plan.pruning`."""

    def possible(self, predicate: Predicate, scan: Scan, /) -> np.ndarray | None: ...


@dataclass(frozen=True, eq=False)
class Scan:
    """A table over files, cut into partitions. Arrays are int64, with one element for each partition."""

    files: Files
    fields: Mapping[str, Field]  # in the frame's order, the provenance columns last
    file: np.ndarray  # the partition's file
    start: np.ndarray  # its rows in that file's table
    stop: np.ndarray
    offset: np.ndarray  # the global number of its first row
    options: Options  # without secrets
    request: TableRequest  # as `TableRequest.for_scan` returns it
    fusable: bool = True  # whether a task may read several partitions
    indexed: bool = True  # False: workers read the metadata; lengths are unknown
    numbered: bool = True  # whether the index is the global row number; else each starts at 0
    known_token: str = ""  # the token of an unpickled scan; else it is computed
    failures: tuple[tuple[str, str, str], ...] = ()  # path, stage, error of planning
    origin: str = ""  # the token of the scan that this was narrowed from, for failure reports
    statistics: Statistics | None = None  # of the partitions' values; not sent to workers

    @property
    def blocksize(self) -> int:
        """Most decoded bytes that a task should read."""
        return self.request.blocksize or 0

    @property
    def nparts(self) -> int:
        return len(self.file)

    @functools.cached_property
    def token(self) -> str:
        """Deterministic; covers everything that optimization rules use."""
        return self.known_token or hashlib.blake2b(self._packed(), digest_size=16).hexdigest()

    def __dask_tokenize__(self) -> str:
        return self.token

    @property
    def label(self) -> str:
        """The name of tasks: ``read-units``, or ``read-units-@sub-01`` for a single file."""
        tables = set(self.files.tables or self.request.table_names)
        about = words(tables.pop()) if len(tables) == 1 else []
        return task_label("read", about, self.files.urls)

    @functools.cached_property
    def meta(self) -> pd.DataFrame:
        return self.empty(self.fields)

    def empty(self, columns: Iterable[str]) -> pd.DataFrame:
        """A frame of some columns, derived ones too, without rows."""
        return Schema({name: self.field(name) for name in columns}).meta(columns)

    def field(self, name: str) -> Field:
        return derived.field(self.fields, name)

    @property
    def lengths(self) -> np.ndarray | None:
        return self.stop - self.start if self.indexed else None

    @property
    def divisions(self) -> tuple[int, ...] | None:
        """The borders of the global row number; None if it is not known."""
        if not (self.indexed and self.numbered) or not self.nparts:
            return None
        total = int(self.offset[-1] + self.stop[-1] - self.start[-1])
        # the last division is the last label, but an empty partition at the end must not break the order
        return (*self.offset.tolist(), max(total - 1, int(self.offset[-1])))

    @property
    def constants(self) -> frozenset[str]:
        known = ("_nwb_path", "_table_path") if self.indexed else ("_nwb_path",)
        return frozenset([*known, *self.files.facts])

    def constant_frame(self, columns: Iterable[str]) -> pd.DataFrame:
        """The values of constant columns, with one row for each partition."""
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
        """Whether each partition may hold rows that satisfy the predicate, by statistics."""
        return None if self.statistics is None else self.statistics.possible(predicate, self)

    def nbytes(self, columns: Iterable[str]) -> np.ndarray:
        """The estimated decoded bytes of some columns in each partition."""
        rows = (self.stop - self.start).astype(np.float64)
        per_row = np.zeros(self.nparts)
        for name in columns:
            if name == "_nwb_path":
                lengths = np.fromiter(map(len, self.files.urls), np.float64, len(self.files.urls))
                per_row += lengths[self.file] + 8
            elif name == "_table_path":
                per_row += 8 + max(map(len, self.files.tables), default=0)
            elif not derived.lengths_of(name) and derived.source(name) in self.files.records:
                per_row += self.files.records[derived.source(name)].weights[self.file]
            else:
                per_row += 8
        estimate: np.ndarray = (rows * per_row).astype(np.int64)
        return estimate

    def narrow(self, columns: Iterable[str], parts: Sequence[int]) -> Scan:
        """The scan of some columns and partitions, renumbered from 0."""
        chosen = np.asarray(parts, np.int64)
        wanted = {derived.source(name) for name in columns}
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
            origin=(self.origin or self.token) if self.may_leave_out else "",
        )

    def part(self, i: int) -> Part:
        """One partition, with its columns unpacked."""
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

    def derived(self, column: Any, function: str, args: tuple[Any, ...], rising: bool) -> str | None:
        """The name of what a function makes of a column's lists while it is read; None if that saves nothing.

        `rising`: the values of each list rise.
        """
        if function == "len":
            return derived.lengths(self.fields, column)
        records = self.files.records.get(column)
        if not rising or records is None or function not in ("between", "count_between"):
            return None
        if not all(len(layouts) == 2 and layouts[0].by_bytes for layouts, _ in records.variants):
            return None
        return derived.between(column, args)

    def with_facts(self, fields: Sequence[Field], values: Sequence[pa.Array]) -> Scan:
        """The scan with further columns, which have one value for each file."""
        facts = {f.name: held for f, held in zip(fields, values, strict=True)}
        digest = hashlib.blake2b(self.token.encode() + pack_arrays(facts), digest_size=16)
        return replace(
            self,
            files=replace(self.files, facts=dict(self.files.facts) | facts),
            fields=dict(self.fields) | {f.name: f for f in fields},
            known_token=digest.hexdigest(),
        )

    @property
    def may_leave_out(self) -> bool:
        """Whether reading may leave out files, which it then reports."""
        request = self.request
        return request.on_error == "skip" or (not self.indexed and request.on_missing == "skip")

    def _packed(self) -> bytes:
        return pack({f.name: getattr(self, f.name) for f in dataclass_fields(self)}, self.options.token)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (zlib.compress(self._packed(), 6), self.options, self.known_token)


def _unpickled(data: bytes, options: Options, token: str) -> Scan:
    return Scan(**unpack(zlib.decompress(data)), options=options, known_token=token)
