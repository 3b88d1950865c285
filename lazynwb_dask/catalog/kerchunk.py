"""Where a file's arrays of numbers lie, told in Kerchunk's way: for zarr, xarray and others.

A Kerchunk reference file is a Zarr store (version 2) of which each chunk is a byte range of another file. It
knows fewer ways of storing than HDF5: what it can't express is an error that names the column, never left out
in silence. Tables are told from the catalog; TimeSeries, which a catalog doesn't hold, from the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lazynwb_dask.decode.filters import BLOSC, DEFLATE, FLETCHER32, SHUFFLE, ZSTD
from lazynwb_dask.errors import ColumnNotFoundError, TableNotFoundError, UnsupportedColumnError
from lazynwb_dask.metadata.open import MetadataReader
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, ColumnIndex, Filter, TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.contents import ListSeries
from lazynwb_dask.nwb.series import SERIES
from lazynwb_dask.nwb.tables import IndexTable, table_path
from lazynwb_dask.read.partition import read_arrays

if TYPE_CHECKING:
    from lazynwb_dask.catalog.catalog import Catalog

_NAMES = {4: "szip", 5: "n-bit", 6: "scale-offset", 32000: "lzf"}
_DEFLATE_LEVEL = 4  # where the file doesn't tell; decoding doesn't ask


def to_kerchunk(
    catalog: Catalog,
    path: str,
    tables: str | Sequence[str] | None,
    columns: str | Sequence[str] | None,
) -> dict[str, Any]:
    """The references of one file. See `Catalog.to_kerchunk`."""
    number = catalog.number(path)
    source = catalog.source(number)
    if source.parts:
        raise UnsupportedColumnError(
            f"{shown(source.url)}: a LINDI file consists of references already; use it as it is"
        )
    columns = [columns] if isinstance(columns, str) else columns
    references: dict[str, Any] = {".zgroup": json.dumps({"zarr_format": 2})}
    found: set[str] = set()
    indexes = _tables(catalog, number, source, tables)
    for table in indexes:
        chosen = [c for c in table.columns.values() if columns is None or c.name in columns]
        found |= {column.name for column in chosen}
        arrays = _arrays(catalog, source, table, chosen, named=columns is not None)
        references |= _group(table.path, table, list(arrays), source)
    for column in columns or ():
        if column not in found:
            raise ColumnNotFoundError(
                f"no column {column!r} in {', '.join(table.path for table in indexes)}"
            )
    metadata = {
        key: json.loads(text)
        for key, text in references.items()
        if key.rpartition("/")[2][:2] == ".z"
    }
    consolidated = {"zarr_consolidated_format": 1, "metadata": metadata}
    references[".zmetadata"] = json.dumps(consolidated)
    return {"version": 1, "refs": references}


def _tables(
    catalog: Catalog, number: int, source: Source, tables: str | Sequence[str] | None
) -> list[TableIndex]:
    """The tables and TimeSeries that are to be told."""
    there = catalog.paths_of(number)
    if tables is None:
        held = [catalog.indexes(name, [number])[0] for name in there]
        return held + list(_in_file(catalog, source, None).values())
    names = [table_path(t) for t in ([tables] if isinstance(tables, str) else tables)]
    read = _in_file(catalog, source, [name for name in names if name not in there])
    for name in names:
        if name not in there and name not in read:
            raise TableNotFoundError(
                f"no table or TimeSeries {name} in {shown(source.url)}. Its tables: {', '.join(there)}"
            )
    return [read[n] if n in read else catalog.indexes(n, [number])[0] for n in names]


def _in_file(
    catalog: Catalog, source: Source, paths: Sequence[str] | None
) -> dict[str, TableIndex]:
    """What the catalog doesn't hold, by path: all TimeSeries, or what is there of these paths."""
    if paths is not None and not paths:
        return {}
    passes = MetadataReader(source, catalog.place.options, catalog.place.settings)
    found = {}
    for path in passes.run(ListSeries()) if paths is None else paths:
        table = passes.run(IndexTable((path,), details=True))
        if table is not None:
            found[path] = table
    return found


def _arrays(
    catalog: Catalog, source: Source, table: TableIndex, columns: Sequence[ColumnIndex], named: bool
) -> Iterator[tuple[str, ColumnIndex, ArrayIndex, int]]:
    """The numeric datasets: name, column, where it lies, and how many indexes point into it."""
    for column in columns:
        where = f"{shown(source.url)}: {table.path}: column {column.name!r}"
        why = _unfit(table, column)
        if why:
            if named:
                raise UnsupportedColumnError(
                    f"{where}: {why}; only arrays of numbers can be exported"
                )
            continue
        for level, array in enumerate(column.arrays):
            name = column.name + "_index" * level
            yield name, column, _mapped(catalog, source, array), level


def _unfit(table: TableIndex, column: ColumnIndex) -> str:
    """Why a column isn't an array of numbers of this file; empty if it is."""
    if column.problem:
        return column.problem
    if SERIES in table.attributes and "external_file" in table.attributes and column.name == "data":
        return "its values are in external files"
    if column.arrays[0].layout.computed:
        return (
            "not stored: it follows from starting_time and rate, which the group's attributes tell"
        )
    if column.labels is not None or column.arrays[0].layout.element[0] not in ("number", "bool"):
        return "not numbers"
    return ""


def _mapped(catalog: Catalog, source: Source, array: ArrayIndex) -> ArrayIndex:
    """With its chunks: a catalog leaves out the longest lists of them, to be read on demand."""
    layout, place = array.layout, catalog.place
    if layout.chunk is None or array.extents.offsets.size or not array.rows:
        return array
    _, maps = read_arrays(source, [], [array], place.options, place.settings)
    found = maps.get(array.extents.root)
    if found is None:
        raise UnsupportedColumnError(f"{shown(source.url)}: the list of its chunks can't be read")
    return ArrayIndex(layout, found)


def _group(
    path: str,
    table: TableIndex,
    arrays: Sequence[tuple[str, ColumnIndex, ArrayIndex, int]],
    source: Source,
) -> dict[str, Any]:
    """One table's references."""
    root = path.strip("/")
    found: dict[str, Any] = {}
    parts = root.split("/")
    for i in range(1, len(parts) + 1):
        found["/".join(parts[:i]) + "/.zgroup"] = json.dumps({"zarr_format": 2})
    found[f"{root}/.zattrs"] = json.dumps(table.attributes)
    for name, column, array, level in arrays:
        where = f"{shown(source.url)}: {path}: column {column.name!r}"
        key = f"{root}/{name.replace('/', '_')}"
        last = level == len(column.arrays) - 1
        rows = "rows" if last and array.rows == table.rows else f"{name}_values"
        dimensions = [rows, *[f"{name}_{i + 1}" for i in range(len(array.layout.item))]]
        attributes = column.attributes if level == 0 else {}
        found[f"{key}/.zattrs"] = json.dumps({**attributes, "_ARRAY_DIMENSIONS": dimensions})
        found[f"{key}/.zarray"] = json.dumps(_metadata(array, where))
        found |= {f"{key}/{chunk}": ref for chunk, ref in _chunks(array, source, where)}
    return found


def _metadata(array: ArrayIndex, where: str) -> dict[str, Any]:
    layout = array.layout
    shape = [array.rows, *layout.item]
    chunk = list(layout.chunk) if layout.chunk is not None else shape
    if layout.foreign:
        raise UnsupportedColumnError(f"{where}: its data are in another file")
    if layout.raw_edges:
        raise UnsupportedColumnError(
            f"{where}: chunks at its edges are stored without filters, which Kerchunk can't express; "
            "leave it out with tables= or columns="
        )
    kind = np.dtype("|b1") if layout.element[0] == "bool" else np.dtype(layout.element[1])
    return {
        "zarr_format": 2,
        "shape": shape,
        "chunks": [max(1, n) for n in chunk],
        "dtype": kind.str,
        "compressor": None,
        "filters": [_codec(step, where) for step in layout.filters] or None,
        "fill_value": _fill(layout.fill, kind),
        "order": "C",
    }


def _codec(step: Filter, where: str) -> dict[str, Any]:
    """A filter as numcodecs has it."""
    if step.id == DEFLATE:
        return {"id": "zlib", "level": step.values[0] if step.values else _DEFLATE_LEVEL}
    if step.id == SHUFFLE:
        return {"id": "shuffle", "elementsize": step.values[0] if step.values else 1}
    if step.id == FLETCHER32:
        return {"id": "fletcher32"}
    if step.id == ZSTD:
        return {"id": "zstd", "level": 0}
    if step.id == BLOSC:
        return {"id": "blosc"}
    name = _NAMES.get(step.id) or step.name or str(step.id)
    raise UnsupportedColumnError(
        f"{where}: stored with the HDF5 filter {name}, which Kerchunk can't express; leave it out "
        "with tables= or columns="
    )


def _fill(stored: bytes, kind: np.dtype[Any]) -> Any:
    if not stored:
        return False if kind.kind == "b" else 0
    value = np.frombuffer(stored, kind)[0]
    if kind.kind == "f" and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value.item()


def _chunks(array: ArrayIndex, source: Source, where: str) -> Iterator[tuple[str, list[Any]]]:
    """Keys and byte ranges of the chunks that were written."""
    layout, extents = array.layout, array.extents
    if extents.masks is not None and extents.masks.any():
        raise UnsupportedColumnError(
            f"{where}: some of its chunks were stored without some of its filters (filter masks), "
            "which Kerchunk can't express; leave it out with tables= or columns="
        )
    if not array.rows:
        return
    shape = (array.rows, *layout.item)
    chunk = layout.chunk or shape
    grid = tuple(-(-n // max(c, 1)) for n, c in zip(shape, chunk, strict=True))
    there = np.flatnonzero(extents.offsets != UNDEFINED)
    keys = np.stack(np.unravel_index(there, grid), axis=1)
    ranges = zip(extents.offsets[there].tolist(), extents.sizes[there].tolist(), strict=True)
    for key, (offset, size) in zip(keys.tolist(), ranges, strict=True):
        yield ".".join(map(str, key)), [source.url, offset, size]
