"""Whole columns and blocks of one file's datasets, outside of any partition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lazynwb_dask.decode.arrays import Values
from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBPermissionError
from lazynwb_dask.model.index import ArrayIndex, Extents, TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.read.block import Block
from lazynwb_dask.read.column import Reader
from lazynwb_dask.read.executor import ChunkMaps, OwnMaps, guarded, run_steps
from lazynwb_dask.read.steps import Steps, together
from lazynwb_dask.storage.access import FileAccess

_GONE = (NWBFileChangedError, NWBFileNotFoundError, NWBPermissionError)  # no other bytes will come


def read_column(source: Source, table: TableIndex, name: str, access: FileAccess) -> Values:
    """One whole column of one file, as its own type."""
    column = table.columns[name]
    reader = Reader(source.reach, ChunkMaps(source))
    rows = np.arange(table.rows)
    return run_steps(reader.column(column.arrays, column.labels, rows), source, access)


def read_block(source: Source, path: str, array: ArrayIndex, wanted: Block, access: FileAccess) -> np.ndarray:
    """A block of the dataset at `path`: numbers, or texts as objects."""
    reader = Reader(source.reach, ChunkMaps(source))
    layout, shape = array.layout, wanted.shape

    def steps() -> Steps[Values]:
        raw = yield from reader.raw(array, wanted.starts, wanted.stops, wanted.box)
        return (yield from reader.elements(raw, layout.element, math.prod(shape), layout.user_block))

    flat = run_steps(guarded(steps(), f"{shown(source.url)}: {path}: "), source, access)
    if isinstance(flat, np.ndarray):
        return flat.reshape(shape)
    texts: np.ndarray = flat.to_numpy(zero_copy_only=False).astype(object).reshape(shape)
    return texts


@dataclass(frozen=True, eq=False)
class Wanted:
    """A whole column, or one of the datasets that make it up."""

    arrays: Sequence[ArrayIndex]
    labels: tuple[str, ...] | None
    rows: int


def read_arrays(
    source: Source, wanted: Sequence[Wanted], unread: Sequence[ArrayIndex], access: FileAccess
) -> tuple[list[Values | None], dict[int | str, Extents]]:
    """Whole columns of one file, and chunk maps that were left unread, in a few round trips.

    None for a column that can't be read; the others are read. The maps are by the address of their B-tree.
    """
    maps = OwnMaps()

    def run(todo: Sequence[Wanted], trees: Sequence[ArrayIndex]) -> list[Values | None]:
        reader = Reader(source.reach, maps)
        steps: list[Steps[Values | None]] = [reader.column(w.arrays, w.labels, np.arange(w.rows)) for w in todo]
        steps += [reader.locate(array) for array in trees]
        found: list[Values | None] = list(run_steps(together(steps), source, access))
        return found[: len(todo)]

    try:
        return run(wanted, unread), maps.held
    except _GONE:
        raise
    except Exception:
        if len(wanted) + len(unread) == 1:
            return [None] * len(wanted), maps.held
    found: list[Values | None] = []
    for one in wanted:
        found += read_arrays(source, [one], [], access)[0]
    for array in unread:
        maps.held |= read_arrays(source, [], [array], access)[1]
    return found, maps.held
