"""Kerchunk references: a Zarr store (version 2) whose chunks are byte ranges of an NWB file. HDF5 storage
that Kerchunk can't express is an error that names the column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lazynwb_dask.decode.codecs import BLOSC, DEFLATE, FLETCHER32, SHUFFLE, ZSTD
from lazynwb_dask.errors import ColumnNotFoundError, UnsupportedColumnError
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, ColumnIndex, Filter, TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.series import SERIES
from lazynwb_dask.read.arrays import read_arrays
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.archives import public_address

_Array = tuple[str, ColumnIndex, ArrayIndex, int]  # with the number of indexes into it

_NAMES = {4: "szip", 5: "n-bit", 6: "scale-offset", 32000: "lzf"}
_DEFLATE_LEVEL = 4  # if the file has none; decoding ignores it


def to_kerchunk(
    source: Source, tables: Sequence[TableIndex], columns: str | Sequence[str] | None, access: FileAccess
) -> dict[str, Any]:
    """See `Catalog.to_kerchunk`."""
    if source.parts:
        raise UnsupportedColumnError(
            f"{shown(source.url)}: a LINDI file consists of references already; use it as it is"
        )

    if source.document:
        raise UnsupportedColumnError(f"{shown(source.url)}: a Zarr store already; use it as it is")

    def located(array: ArrayIndex) -> ArrayIndex:
        """With its chunk map: a catalog leaves out large ones."""
        if array.layout.chunk is None or array.extents.offsets.size or not array.rows:
            return array
        _, maps = read_arrays(source, [], [array], access)
        found = maps.get(array.extents.root)
        if found is None:
            raise UnsupportedColumnError(f"{shown(source.url)}: the list of its chunks can't be read")
        return ArrayIndex(array.layout, found)

    columns = [columns] if isinstance(columns, str) else columns
    references: dict[str, Any] = {".zgroup": json.dumps({"zarr_format": 2})}
    found: set[str] = set()
    for table in tables:
        found |= table.columns.keys()
        arrays = [
            (name, column, located(array), level)
            for name, column, array, level in _arrays(source, table, columns)
        ]
        references |= _group(table, arrays, source)
    for column in columns or ():
        if column not in found:
            raise ColumnNotFoundError(f"no column {column!r} in {', '.join(table.path for table in tables)}")
    metadata = {key: json.loads(text) for key, text in references.items() if key.rpartition("/")[2][:2] == ".z"}
    consolidated = {"zarr_consolidated_format": 1, "metadata": metadata}
    references[".zmetadata"] = json.dumps(consolidated)
    return {"version": 1, "refs": references}


def _arrays(source: Source, table: TableIndex, columns: Sequence[str] | None) -> Iterator[_Array]:
    for column in table.columns.values():
        if columns is not None and column.name not in columns:
            continue
        why = _problem(table, column)
        if why and columns is not None:
            raise UnsupportedColumnError(
                f"{shown(source.url)}: {table.path}: column {column.name!r}: {why}; only arrays of "
                "numbers can be exported"
            )
        if not why:
            for level, array in enumerate(column.arrays):
                yield column.name + "_index" * level, column, array, level


def _problem(table: TableIndex, column: ColumnIndex) -> str:
    """Why a column isn't an array of numbers of this file; empty if it is."""
    if column.problem:
        return column.problem
    if SERIES in table.attributes and "external_file" in table.attributes and column.name == "data":
        return "its values are in external files"
    if column.arrays[0].layout.computed:
        return "not stored: it follows from starting_time and rate, which the group's attributes tell"
    if column.labels is not None or column.arrays[0].layout.element[0] not in ("number", "bool"):
        return "not numbers"
    return ""


def _group(table: TableIndex, arrays: Sequence[_Array], source: Source) -> dict[str, Any]:
    root = table.path.strip("/")
    found: dict[str, Any] = {}
    parts = root.split("/")
    for i in range(1, len(parts) + 1):
        found["/".join(parts[:i]) + "/.zgroup"] = json.dumps({"zarr_format": 2})
    found[f"{root}/.zattrs"] = json.dumps(table.attributes)
    for name, column, array, level in arrays:
        where = f"{shown(source.url)}: {table.path}: column {column.name!r}"
        key = f"{root}/{name.replace('/', '_')}"
        last = level == len(column.arrays) - 1
        rows = "rows" if last and array.rows == table.rows else f"{name}_values"
        dimensions = [rows, *[f"{name}_{i + 1}" for i in range(len(array.layout.item))]]
        attributes = column.attributes if level == 0 else {}
        found[f"{key}/.zattrs"] = json.dumps({**attributes, "_ARRAY_DIMENSIONS": dimensions})
        found[f"{key}/.zarray"] = json.dumps(_metadata(array, where))
        found |= {
            f"{key}/{chunk}": ref
            for chunk, ref in _chunks(array, public_address(source.url, source.etag), where)
        }
    return found


def _metadata(array: ArrayIndex, where: str) -> dict[str, Any]:
    layout = array.layout
    shape = [array.rows, *layout.item]
    chunk = list(layout.chunk) if layout.chunk is not None else shape
    if layout.external:
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
    """A filter as numcodecs configures it."""
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


def _chunks(array: ArrayIndex, url: str, where: str) -> Iterator[tuple[str, list[Any]]]:
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
        yield ".".join(map(str, key)), [url, offset, size]
