"""One partition, or several at once: the predicate's columns first, then the rest for the rows it leaves.

Knows no Dask. Reads on the calling thread, the partitions of a fused task side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.decode.arrays import Values, empty
from lazynwb_dask.errors import Failure, NWBError, NWBMemoryError
from lazynwb_dask.model.source import shown
from lazynwb_dask.predicate.tree import Predicate
from lazynwb_dask.read import catalog_values, time_search
from lazynwb_dask.read.column import Reader
from lazynwb_dask.read.executor import AHEAD_OF_ALL, ChunkMaps, Executor, guarded
from lazynwb_dask.read.late_index import indexed_part
from lazynwb_dask.read.memory_need import needs
from lazynwb_dask.read.part_columns import ahead_steps, column_steps, file_arrays, where
from lazynwb_dask.read.side_by_side import Read, alone, blocking, side_by_side
from lazynwb_dask.read.steps import Steps, together
from lazynwb_dask.read.time_order import TimeOrder
from lazynwb_dask.scan.fields import Field
from lazynwb_dask.scan.records import Part
from lazynwb_dask.scan.request import Selection
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.scan.to_pandas import series
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.settings import Settings


@dataclass
class LeftOut:
    """What reading leaves out, under ``on_error="skip"`` and ``on_missing="skip"``."""

    failed: list[Failure] = field(default_factory=list)  # files that can't be read
    # files that planning didn't read, and that lack the table or a column
    lacking: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Piece:
    """What was read of one partition."""

    part: Part
    rows: np.ndarray  # row numbers in the file's table
    values: dict[str, Values]


def read_parts(
    scan: Scan, selection: Selection, settings: Settings, left_out: LeftOut | None = None
) -> pd.DataFrame:
    """All partitions of a scan, one after the other in a frame whose index is the global row number.

    The scan has only the partitions and columns in question. `left_out` takes the files that are skipped.
    """

    left_out = LeftOut() if left_out is None else left_out
    access = FileAccess(scan.options, settings)
    chosen = None
    if selection.limit is None and scan.indexed and scan.nparts > 1:
        chosen = _chosen_at_once(scan, selection, access)
    if isinstance(chosen, pd.DataFrame):
        return chosen

    def read(i: int) -> Read[Piece]:
        try:
            part, blocks = scan.part(i), None
            if not scan.indexed:
                part, blocks = yield from blocking(
                    lambda: indexed_part(scan.part(i), scan, access, left_out.lacking)
                )
            rows = None if chosen is None else chosen.of(i)
            reader = Reader(part.source.reach, ChunkMaps(part.source))
            executor = Executor(part.source, access, blocks)
            return (yield from PartReader(scan, part, reader, executor).read(selection, rows))
        except NWBError as exc:
            if scan.request.on_error != "skip" or isinstance(exc, NWBMemoryError):
                raise
            url = scan.files.urls[int(scan.file[i])]
            left_out.failed.append(Failure.of(shown(url), "read", exc))
            return _no_rows(scan, scan.part(i), selection.columns)

    pieces = side_by_side([read(i) for i in range(scan.nparts)], settings.is_cancelled)
    fields = [scan.field(name) for name in selection.columns]
    return _frame(pieces, fields, scan.numbered)


def _no_rows(scan: Scan, part: Part, columns: Sequence[str]) -> Piece:
    values = {name: empty(scan.field(name).type) for name in columns}
    return Piece(part, np.zeros(0, np.int64), values)


def _chosen_at_once(scan: Scan, selection: Selection, access: FileAccess) -> pd.DataFrame | _Choice | None:
    """The frame, or the rows that a condition leaves of each partition, where a catalog holds the values.

    None where it doesn't, or where something is wrong with them: reading file by file finds out what.
    """
    columns, predicate = selection.columns, selection.predicate
    wanted = sorted(selection.deciding)
    held = catalog_values.in_catalog(scan, dict.fromkeys([*wanted, *columns]))
    if scan.files.inlined is None or not set(wanted) <= set(held):
        return None
    whole = set(columns) <= set(held)
    if predicate is None and not whole:
        return None
    rows = catalog_values.Rows(scan, access)
    try:
        keep = None if predicate is None else predicate.rows(rows.frame(wanted))
        if whole:
            frame = rows.frame(columns)
            some: pd.DataFrame = frame if keep is None else frame.iloc[keep]
            return some
    except NWBError:
        return None
    assert keep is not None
    part, number = rows.part[keep], rows.number[keep]
    borders = np.searchsorted(part, np.arange(scan.nparts + 1))
    return _Choice(number, borders)


@dataclass(frozen=True, eq=False)
class _Choice:
    """The rows that a condition leaves of each partition."""

    number: np.ndarray  # row numbers in the files' tables, one partition after the other
    borders: np.ndarray

    def of(self, i: int) -> np.ndarray:
        return self.number[self.borders[i] : self.borders[i + 1]]


class PartReader:
    """Reads one partition: what decides on rows first, then the rest for the rows that are left. The reader
    makes the steps for the columns of the partition's file, the executor runs them."""

    def __init__(self, scan: Scan, part: Part, reader: Reader, executor: Executor) -> None:
        self.scan, self.part, self.reader, self.executor = scan, part, reader, executor
        self.settings = executor.access.settings
        self.order = TimeOrder(part.source, self.settings)

    def read(self, selection: Selection, chosen: np.ndarray | None = None) -> Read[Piece]:
        """What is selected of the partition; `chosen` are the rows its condition leaves, where known."""
        columns = selection.columns
        if chosen is not None and not chosen.size:
            return _no_rows(self.scan, self.part, columns)
        try:
            rows, values = (yield from self.choose(selection)) if chosen is None else (chosen, {})
            todo = [name for name in columns if name not in values]
            read = yield from self.executor.through(self.steps(todo, rows))
            yield from self.executor.settle()
        finally:
            self.executor.close()
        self._note(rows, dict(zip(todo, read, strict=True)))
        values |= dict(zip(todo, read, strict=True))
        return Piece(self.part, rows, {name: values[name] for name in columns})

    def choose(self, selection: Selection) -> Read[tuple[np.ndarray, dict[str, Values]]]:
        """The rows that are left, and for these the values of the columns that decided."""
        predicate, limit = selection.predicate, selection.limit
        yield from self._narrow(predicate)
        rows = np.arange(self.part.start, self.part.stop)
        if predicate is None and limit is not None and not limit.columns:
            return rows[limit.rows(pd.DataFrame(index=pd.RangeIndex(len(rows))))], {}
        if (predicate is None and limit is None) or not rows.size:
            return rows, {}
        return (yield from self._decide(selection, rows))

    def steps(self, names: Sequence[str], rows: np.ndarray) -> Steps[list[Values]]:
        """The steps that read columns of the rows that are left."""
        self._check_memory(names, len(rows), len(rows) < self.part.stop - self.part.start)
        return together([column_steps(self.reader, self.part, self.scan.field(n), rows) for n in names])

    def _narrow(self, predicate: Predicate | None) -> Read[None]:
        """Leave out rows whose times can't be in the range that a condition asks for."""
        names = float_columns(self.scan)
        if predicate is None or next(time_search.ranges(self.part, predicate, names), None) is None:
            return

        def run(steps: Steps[Values]) -> Values:
            # whether it is still the same file is asked once, of which `settle` awaits the answer
            return alone(self.executor.through(guarded(steps, where(self.part, "timestamps"))), ends=False)

        file = time_search.File(self.reader, self.order, run)
        self.part = yield from blocking(lambda: time_search.narrowed(self.part, predicate, names, file))

    def _note(self, rows: np.ndarray, values: Mapping[str, Values | None]) -> None:
        """Note of timestamps that were read, all of the partition's, whether they rise."""
        part = self.part
        if len(rows) < part.stop - part.start:
            return
        for name in float_columns(self.scan):
            if name in values and name in part.columns and (part.held is None or name not in part.held.values):
                self.order.note(part.columns[name][0][-1], part.start, np.asarray(values[name]))

    def _decide(self, selection: Selection, rows: np.ndarray) -> Read[tuple[np.ndarray, dict[str, Values]]]:
        """The rows that are left, and for these the values of the columns that decided."""
        part, first = self.part, sorted(selection.deciding)
        rest = [name for name in selection.columns if name not in first]
        if not any(file_arrays(part, name) for name in first):
            rest = []  # the file itself isn't touched before it is known that rows are left
        self._check_memory(first, len(rows))
        steps: list[Steps[Values | None]] = [
            column_steps(self.reader, part, self.scan.field(name), rows) for name in first
        ]
        most = AHEAD_OF_ALL // self.scan.nparts
        steps += [
            guarded(ahead_steps(self.reader, part, name, most), where(part, name))
            for name in rest
            if file_arrays(part, name)
        ]
        found = yield from self.executor.through(together(steps), deciding=True)
        values = {name: v for name, v in zip(first, found, strict=False) if v is not None}
        self._note(rows, values)
        with self.executor.turn():
            keep = chosen_rows(Piece(part, rows, values), self.scan, selection)
        values = {
            name: v[keep] if isinstance(v, np.ndarray) else v.take(pa.array(keep)) for name, v in values.items()
        }
        return rows[keep], values

    def _check_memory(self, columns: Sequence[str], rows: int, picked: bool = False) -> None:
        """Raise rather than have the worker killed, where some rows can't fit."""
        if self.settings.memory is None:
            return
        part = self.part
        decoded, most = needs(part, columns, rows, picked)
        self.settings.memory.take(
            most,
            lambda: (
                f"{shown(part.source.url)}: {part.table}: {rows} rows of {', '.join(columns)} take about "
                f"{decoded >> 20} MiB"
            ),
        )


def float_columns(scan: Scan) -> list[str]:
    """The columns that the frame has as float64: in these, times are compared as they are stored."""
    return [name for name, field in scan.fields.items() if field.type == pa.float64()]


def chosen_rows(piece: Piece, scan: Scan, selection: Selection) -> np.ndarray:
    """The positions of the rows that predicate and limit leave."""
    fields = [scan.field(name) for name in sorted(selection.deciding)]
    frame = _frame([piece], fields, scan.numbered)
    keep = np.arange(len(frame))
    if selection.predicate is not None:
        keep = selection.predicate.rows(frame)
    if selection.limit is not None:
        keep = keep[selection.limit.rows(frame.iloc[keep])]
    return keep


def _frame(pieces: Sequence[Piece], fields: Sequence[Field], numbered: bool) -> pd.DataFrame:
    """The pieces one after the other."""
    data = {f.name: series([p.values[f.name] for p in pieces], f) for f in fields}
    labels = [p.rows - p.part.start + (p.part.offset if numbered else 0) for p in pieces]
    joined = labels[0] if len(labels) == 1 else np.concatenate(labels)
    return pd.DataFrame(data, index=catalog_values.index_of(joined), copy=False)
