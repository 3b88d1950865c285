"""A table's index as JSON and bytes: for the cache on disk, and between processes."""

from __future__ import annotations

from typing import Any

from lazynwb_dask.model.index import ArrayIndex, ColumnIndex, Extents, Layout, TableIndex
from lazynwb_dask.model.limits import check_extents, check_missing, check_shape
from lazynwb_dask.model.packing import layout_json, layout_of

MAX_ROWS = 1 << 40  # of a table


class InvalidIndexError(ValueError):
    """No packed index of a table."""


def pack_table(table: TableIndex, parts: list[bytes]) -> dict[str, Any]:
    """An index as JSON. The packed extents are appended to `parts`."""
    layouts: dict[Layout, int] = {}
    columns = []
    for column in table.columns.values():
        numbers = [layouts.setdefault(array.layout, len(layouts)) for array in column.arrays]
        parts += [array.extents.pack() for array in column.arrays]
        columns.append(
            [
                column.name, numbers, column.labels, column.region, column.problem, column.notes,
                column.attributes,
            ]
        )  # fmt: skip
    return {
        "path": table.path, "rows": table.rows, "columns": columns, "notes": table.notes,
        "attributes": table.attributes, "damage": table.damage,
        "layouts": [layout_json(layout) for layout in layouts],
    }  # fmt: skip


def unpack_table(data: dict[str, Any], payload: bytes | memoryview, size: int | None = None) -> TableIndex:
    """The index that was packed; `payload` holds its parts, one after the other.

    With the file's `size`, it is checked as a file is, since another process may be compromised. Raises
    InvalidIndexError, KeyError, TypeError, ValueError, OverflowError or NWBReadError for an invalid one.
    """
    layouts = [layout_of(packed) for packed in data["layouts"]]
    columns: dict[str, ColumnIndex] = {}
    rows, at = _count(data["rows"]), 0
    for name, numbers, labels, region, problem, notes, attributes in data["columns"]:
        arrays = []
        for number in numbers:
            extents, at = Extents.unpack(payload, at)
            if size is not None:
                check_shape(layouts[number], extents.rows, size)
                check_extents(layouts[number], extents, size, _text(name))
            arrays.append(ArrayIndex(layouts[number], extents))
        column = ColumnIndex(
            _text(name),
            tuple(arrays),
            rows,
            None if labels is None else tuple(map(_text, labels)),
            bool(region),
            _text(problem),
            tuple(map(_text, notes)),
            {_text(k): _text(v) for k, v in attributes.items()},
        )
        if size is not None and not column.problem:
            check_missing(column)
            _ = column.type  # raises for an unknown element type
        columns[column.name] = column
    if at != len(payload):
        raise InvalidIndexError("more bytes than extents")
    notes = tuple(map(_text, data["notes"]))
    attributes = {_text(k): _text(v) for k, v in data["attributes"].items()}
    damage = _text(data["damage"])
    return TableIndex(_text(data["path"]), rows, columns, notes, attributes, damage)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidIndexError("not a text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= MAX_ROWS:
        raise InvalidIndexError("not a count")
    return value
