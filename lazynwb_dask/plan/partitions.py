"""Builds scans: assigns rows of files to partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import Layout, TableIndex
from lazynwb_dask.model.source import Source
from lazynwb_dask.plan.pruning import FileStatistics
from lazynwb_dask.plan.statistics import Columns
from lazynwb_dask.scan.fields import PROVENANCE, PROVENANCE_FIELDS, Schema
from lazynwb_dask.scan.records import Files, Records
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.storage.options import Options


def build(
    tables: Sequence[tuple[Source, TableIndex]], schema: Schema, request: TableRequest, options: Options
) -> Scan:
    """The scan of indexed tables, in source order. Large tables are split by rows."""
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
        parts=tuple(s.parts for s, _ in tables) if any(s.parts for s, _ in tables) else (),
        documents=_documents([s for s, _ in tables]),
    )
    rows = np.array([t.rows for _, t in tables], np.int64)
    return assemble(files, rows, schema, request, options)


def assemble(
    files: Files,
    rows: np.ndarray,
    schema: Schema,
    request: TableRequest,
    options: Options,
    columns: Columns | None = None,
) -> Scan:
    """The scan of files, given the number of rows of each table. Large tables are split by rows. `columns`
    are the column statistics of a catalog."""
    blocksize = request.blocksize
    lengths = np.fromiter(map(len, files.urls), np.float64, len(files.urls))
    per_row = lengths + 24 + max(map(len, files.tables), default=0)
    for held in files.records.values():
        per_row += held.weights
    pieces = np.ones(len(rows), np.int64)
    if blocksize is not None:
        pieces = np.clip(np.ceil(rows * per_row / blocksize), 1, np.maximum(rows, 1)).astype(int)
        pieces[rows == 0] = 0
        if not rows.any():
            pieces[:1] = 1  # one empty partition stands for all
    aligned = _aligned(files, rows, pieces)
    pieces = np.where(aligned > 0, -(-rows // np.maximum(aligned, 1)), pieces)
    file = np.repeat(np.arange(len(rows)), pieces)
    nth = np.arange(len(file)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    at, total = aligned[file], rows[file]
    start = np.where(at > 0, nth * at, total * nth // pieces[file])
    stop = np.where(at > 0, np.minimum((nth + 1) * at, total), total * (nth + 1) // pieces[file])
    names = [name for name in schema.fields if name not in PROVENANCE]
    numbered = request.on_error == "raise"  # else rows may be missing that planning has counted
    return Scan(
        files,
        {name: schema.fields[name] for name in names} | PROVENANCE_FIELDS,
        file.astype(np.int64),
        start,
        stop,
        np.cumsum(stop - start) - (stop - start),
        options,
        request.for_scan(indexed=True),
        fusable=blocksize is not None and numbered,
        numbered=numbered,
        statistics=FileStatistics(columns, rows, files),
    )


def _aligned(files: Files, rows: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """The rows of each file's partitions, as whole chunks of its heaviest column; 0 if one chunk doesn't
    fit."""
    heaviest, steps = np.zeros(len(rows)), np.ones(len(rows), np.int64)
    if pieces.max(initial=0) <= 1:
        return np.zeros(len(rows), np.int64)
    for held in files.records.values():
        of = np.array([*(_chunk_rows(layouts) for layouts, _ in held.variants), 1], np.int64)
        heavier = held.weights > heaviest
        steps[heavier] = of[held.which[heavier]]
        heaviest = np.maximum(heaviest, held.weights)
    whole: np.ndarray = rows // (np.maximum(pieces, 1) * steps) * steps
    return np.where((pieces > 1) & (steps > 1), whole, 0)


def _chunk_rows(layouts: tuple[Layout, ...]) -> int:
    chunk = layouts[0].chunk
    return 1 if chunk is None or len(layouts) > 1 else chunk[0]


def _documents(sources: Sequence[Source]) -> tuple[str, ...]:
    return tuple(s.document for s in sources) if any(s.document for s in sources) else ()


def unindexed(sources: Sequence[Source], schema: Schema, request: TableRequest, options: Options) -> Scan:
    """The scan of files that workers will index: one partition for each, of unknown length."""
    if callable(request.table):
        raise NWBReadError("a callable table can't be combined with a pyarrow schema; name the table")
    count = len(sources)
    zeros = np.zeros(count, np.int64)
    files = Files(
        tuple(s.url for s in sources),
        np.array([-1 if s.size is None else s.size for s in sources], np.int64),
        tuple(s.etag for s in sources),
        (),
        np.zeros(count, np.int32),
        {},
        documents=_documents(sources),
    )
    return Scan(
        files,
        dict(schema.fields) | PROVENANCE_FIELDS,
        np.arange(count),
        zeros,
        zeros,
        zeros,
        options,
        replace(request.for_scan(indexed=False), blocksize=None),
        fusable=False,
        indexed=False,
        numbered=False,
    )
