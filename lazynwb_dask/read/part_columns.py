"""Steps that read some rows of one column of a partition, wherever its values are."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pyarrow as pa

from lazynwb_dask.decode.arrays import Values, arrow
from lazynwb_dask.decode.convert import convert
from lazynwb_dask.decode.lists import between, lengths
from lazynwb_dask.model.index import ArrayIndex
from lazynwb_dask.model.source import shown
from lazynwb_dask.read.catalog_values import plain
from lazynwb_dask.read.column import Reader
from lazynwb_dask.read.executor import guarded
from lazynwb_dask.read.nearby import SMALL
from lazynwb_dask.read.steps import Steps, Stored, Wave, together
from lazynwb_dask.scan.catalog_slots import Held
from lazynwb_dask.scan.derived import lengths_of, limits, source
from lazynwb_dask.scan.fields import PROVENANCE, Field
from lazynwb_dask.scan.records import Part
from lazynwb_dask.scan.to_pandas import check_nulls, nothing


def column_steps(reader: Reader, part: Part, field: Field, rows: np.ndarray) -> Steps[Values]:
    """The steps that read some rows of a column as the schema's type."""
    return guarded(_unified(reader, part, field, rows), where(part, field.name))


def _unified(reader: Reader, part: Part, field: Field, rows: np.ndarray) -> Steps[Values]:
    if field.name in PROVENANCE:
        if field.name == "_table_index":
            return rows
        text = part.source.url if field.name == "_nwb_path" else part.table
        return pa.repeat(pa.scalar(text, pa.large_string()), len(rows))
    if field.of is not None:
        make = _lengths if lengths_of(field.name) else _between
        return (yield from make(reader, part, field, rows))
    if field.name in part.facts:
        return pa.repeat(part.facts[field.name], len(rows))
    held = part.held
    if held is not None and field.name in held.values:
        stored = yield from _stored(held, held.values[field.name], rows)
        return check_nulls(convert(stored, field.type), field)
    if field.name not in part.columns:
        return nothing(len(rows), field)
    arrays, labels = part.columns[field.name]
    yield from _hold_index(reader, part, field.name, rows)
    values = yield from reader.column(arrays, labels, rows)
    return check_nulls(convert(values, field.type), field)


def _lengths(reader: Reader, part: Part, field: Field, rows: np.ndarray) -> Steps[pa.Array]:
    """How long the lists of a column are, by its outermost index or its shape where these tell."""
    assert field.of is not None
    arrays = _telling(part, field.of.name)
    if not arrays:
        values = yield from _unified(reader, part, field.of, rows)
        return lengths(arrow(values))
    yield from _hold_index(reader, part, field.of.name, rows)
    return (yield from reader.lengths(arrays, rows))


def _between(reader: Reader, part: Part, field: Field, rows: np.ndarray) -> Steps[pa.Array]:
    """The values of a column's lists, which rise, between two limits."""
    found, asked = field.of, limits(field.name)
    assert found is not None
    assert asked is not None
    if len(arrays := file_arrays(part, found.name)) == 2 and arrays[0].layout.by_bytes:
        values = yield from reader.around(arrays, rows, *asked)
        values = convert(values, found.type)
    else:
        values = yield from _unified(reader, part, found, rows)
    return between(arrow(values), *asked)


def _telling(part: Part, name: str) -> tuple[ArrayIndex, ...]:
    """The datasets of a column, if how long its lists are shows without its values."""
    if name in part.facts or name not in part.columns or (part.held is not None and name in part.held.values):
        return ()
    arrays, _ = part.columns[name]
    return arrays if len(arrays) > 1 or arrays[0].layout.item else ()


def ahead_steps(reader: Reader, part: Part, name: str, most: int) -> Steps[None]:
    """Let what saves a round trip later and costs little, at most so many bytes of a dataset, come along with
    the predicate's columns."""
    arrays = file_arrays(part, name)
    outer = arrays[-1]
    start = max(part.start - 1, 0) if len(arrays) > 1 or lengths_of(name) else part.start
    stop = min(part.stop, outer.rows)
    todo = [reader.near(array, 0, array.rows, most) for array in arrays[:-1]]
    held = part.held is not None and name in part.held.indexes
    if not held and (stop - start) * outer.layout.row_bytes <= SMALL:
        todo.append(reader.near(outer, start, stop, most))
    with suppress(Exception):  # what is damaged is an error if it turns out to be needed
        yield from together(todo)


def file_arrays(part: Part, name: str) -> tuple[ArrayIndex, ...]:
    """The datasets of a column, outward, that reading it needs the file for; none where it doesn't."""
    column = lengths_of(name)
    if column and (telling := _telling(part, column)):
        known = part.held is not None and column in part.held.indexes
        return () if known or len(telling) == 1 else telling[-1:]
    name = source(name)
    if name in PROVENANCE or name in part.facts or name not in part.columns:
        return ()
    arrays, held = part.columns[name][0], part.held
    if (held is not None and name in held.values) or arrays[-1].layout.computed:
        return ()
    return arrays[:-1] if held is not None and name in held.indexes else arrays


def _stored(held: Held, name: str, rows: np.ndarray) -> Steps[Values]:
    """Some rows of values that the catalog holds."""
    if not rows.size:
        rows, start, stop = np.zeros(1, np.int64), 0, 0
    else:
        start, stop = int(rows[0]), int(rows[-1]) + 1
    asked = Stored(held.parquet, name, held.first + start, held.first + stop)
    yield Wave(stored=[asked])
    assert asked.found is not None
    found = asked.found
    if stop - start and len(rows) < stop - start:
        found = found.take(pa.array(rows - start))
    return plain(found)


def _hold_index(reader: Reader, part: Part, column: str, rows: np.ndarray) -> Steps[None]:
    """Take a ragged column's index from the catalog, if it is there, rather than from the file."""
    if part.held is None or column not in part.held.indexes or not rows.size:
        return
    outer, name = part.columns[column][0][-1], part.held.indexes[column]
    start, stop = max(part.start - 1, 0), min(part.stop, outer.rows)
    if stop <= start:
        return
    values = yield from _stored(part.held, name, np.arange(start, stop))
    raw = arrow(values).to_numpy().astype(np.dtype(outer.layout.element[1])).view(np.uint8)
    reader.keep(outer, start, stop, raw)


def where(part: Part, name: str) -> str:
    return f"{shown(part.source.url)}: {part.table}: column {source(name)!r}: "
