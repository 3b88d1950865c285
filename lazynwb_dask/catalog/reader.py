"""The index of a catalog, read: whole, or the stretch of it that is about one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lazynwb_dask.catalog.batch import Part
from lazynwb_dask.catalog.folder import Place
from lazynwb_dask.catalog.layout import INDEX
from lazynwb_dask.catalog.manifest import Manifest
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.model.index import ArrayIndex, ColumnIndex, Extents, Layout, TableIndex
from lazynwb_dask.model.packing import layout_of, parts_of
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import parquet


def whole(
    place: Place, manifest: Manifest, kind: str, names: Sequence[str] | None = None
) -> pa.Table:
    """All rows of one of the index's files."""
    file = place.parquet(*manifest.index[kind])
    footer = parquet.footer(file, place.access)
    wanted = names if names is not None else footer.schema.to_arrow_schema().names
    groups = range(footer.num_row_groups)
    return parquet.table(file, wanted, groups, place.access)


def section(
    place: Place, manifest: Manifest, kind: str, table: str, names: Sequence[str]
) -> pa.Table:
    """The rows of `tables` or `columns` that are about one table."""
    at = manifest.sections.get(table, (0, 0, 0, 0))
    start, stop = at[:2] if kind == "tables" else at[2:]
    if stop <= start:
        return pa.schema([INDEX[kind].field(name) for name in names]).empty_table()
    file = place.parquet(*manifest.index[kind])
    groups, first = parquet.groups_of(file, start, stop, place.access)
    rows = parquet.table(file, names, groups, place.access)
    return rows.slice(start - first, stop - start)


def index_of(place: Place, manifest: Manifest) -> Part:
    """A whole catalog as one part."""
    tables = {kind: whole(place, manifest, kind).cast(INDEX[kind]) for kind in INDEX}
    return Part(tables, manifest.what, manifest.values)


def source_of(row: dict[str, Any]) -> Source:
    """The file that a row of `files` is about."""
    return Source(row["url"], row["size"], row["etag"], parts_of(json.loads(row["parts"] or "[]")))


Variant = tuple[tuple[Layout, ...], tuple[str, ...] | None, bool]


def variant_of(text: str) -> Variant:
    """Layouts, labels, and whether it is a region, of one row of `variants`."""
    try:
        layouts, labels, region = json.loads(text)
        return (
            tuple(layout_of(layout) for layout in layouts),
            None if labels is None else tuple(labels),
            bool(region),
        )
    except (ValueError, TypeError):
        raise NWBReadError(
            "a damaged catalog, or one of another version: build it again with "
            "catalog.refresh(anew=True)"
        ) from None


def table_index(
    path: str, rows: int, columns: Sequence[dict[str, Any]], variants: Sequence[Variant | None],
    notes: str | None = None, attributes: str | None = None, damage: str | None = None,
) -> TableIndex:  # fmt: skip
    """One file's table, from its rows of `columns` in the order of `position`.

    Parameters
    ----------
    variants : sequence of Variant or None
        One for each of the columns.
    """
    made: dict[str, ColumnIndex] = {}
    for row, variant in zip(columns, variants, strict=True):
        name = row["column"]
        held: dict[str, Any] = {
            "rows": rows,
            "notes": tuple(json.loads(row["notes"] or "[]")),
            "attributes": json.loads(row["attributes"] or "{}"),
        }
        if variant is None:
            made[name] = ColumnIndex(name, problem=row["problem"] or "it can't be read", **held)
            continue
        layouts, labels, region = variant
        arrays, at = [], 0
        for layout in layouts:
            extents, at = Extents.unpack(row["extents"], at)
            arrays.append(ArrayIndex(layout, extents))
        made[name] = ColumnIndex(name, tuple(arrays), labels=labels, region=region, **held)
    return TableIndex(
        path, rows, made, tuple(json.loads(notes or "[]")), json.loads(attributes or "{}"),
        damage or "",
    )  # fmt: skip
