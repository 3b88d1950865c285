"""What passes between a process and its helpers: JSON and raw bytes.

A message is the lengths of its JSON text and of its payload, the text, the payload. Pipes are not buffered: a
process that is forked meanwhile would send a buffer's content once more. Results are unpacked with the
same mistrust as a file: see `unpack_result`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict
from io import RawIOBase
from typing import TYPE_CHECKING, Any

from .formats.limits import check_extents, check_missing, check_shape
from .formats.plain import Plain
from .index import ArrayIndex, ColumnIndex, Extents, TableIndex
from .packing import layout_json, layout_of

if TYPE_CHECKING:
    from .formats.sparse import Job

MAX_TEXT = 256 << 20  # bytes of a message's JSON
MAX_PAYLOAD = 1 << 30
MAX_ROWS = 1 << 40  # of a table
_HEAD = struct.Struct("<QQ")


class WireError(Exception):
    """A message that can't be right."""


def send(pipe: RawIOBase, message: dict[str, Any], parts: Sequence[bytes | memoryview]) -> None:
    """Write one message."""
    text = json.dumps(message, separators=(",", ":")).encode()
    head = _HEAD.pack(len(text), sum(map(len, parts)))
    for part in (head + text, *parts):
        rest = memoryview(part)
        while rest:
            rest = rest[pipe.write(rest) :]


def receive(pipe: RawIOBase) -> tuple[dict[str, Any], memoryview]:
    """Read one message.

    Raises
    ------
    EOFError
        There is none any more.
    WireError
        It is longer than any could be.
    """
    size, more = _HEAD.unpack(_exactly(pipe, _HEAD.size))
    if size > MAX_TEXT or more > MAX_PAYLOAD:
        raise WireError("too long")
    message = json.loads(bytes(_exactly(pipe, size)))
    if not isinstance(message, dict):
        raise WireError("not an object")
    return message, _exactly(pipe, more)


def _exactly(pipe: RawIOBase, size: int) -> memoryview:
    data = memoryview(bytearray(size))
    at = 0
    while at < size:
        n = pipe.readinto(data[at:])
        if not n:
            raise EOFError
        at += n
    return data


# ------------------------------------------------------------------------------------------------ jobs
def pack_job(job: Job[Any]) -> list[Any]:
    return [type(job).__name__, asdict(job)]  # type: ignore[call-overload]


def unpack_job(packed: list[Any]) -> Job[Any]:
    from .formats.hdf5 import IndexTable, ListChunks
    from .formats.inventory import ListSeries, TakeStock
    from .formats.session import ReadSession
    from .formats.tree import ListTables, NameObjects

    known: tuple[type, ...] = (
        IndexTable, ListChunks, ListSeries, ListTables, NameObjects, ReadSession, TakeStock,
    )  # fmt: skip
    kinds = {kind.__name__: kind for kind in known}
    name, arguments = packed
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    made: Job[Any] = kinds[name](**arguments)
    return made


# --------------------------------------------------------------------------------------------- results
def pack_result(result: Any) -> tuple[list[Any], list[bytes]]:
    """The result of a job: the paths of tables, the names of objects, values, or a table's index."""
    parts: list[bytes] = []
    if isinstance(result, TableIndex):
        return ["table", _pack_table(result, parts)], parts
    if isinstance(result, Plain):
        return ["values", result.value], parts
    if isinstance(result, dict):
        return ["names", list(result.items())], parts
    return ["plain", result], parts


def unpack_result(packed: list[Any], payload: memoryview, size: int) -> Any:
    """The result of a job on a file of `size` bytes.

    Raises
    ------
    WireError, KeyError, TypeError, ValueError, OverflowError, NWBReadError
        It is not one, or says what no such file can hold.
    """
    kind, data = packed
    if kind == "table":
        return _unpack_table(data, payload, size)
    if kind == "values":
        return Plain(data)
    if kind == "names":
        return {int(address): _text(path) for address, path in data}
    if data is not None:
        return [_text(path) for path in data]
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WireError("not a text")
    return value


def _pack_table(table: TableIndex, parts: list[bytes]) -> dict[str, Any]:
    columns = []
    for column in table.columns.values():
        packed = [array.extents.pack() for array in column.arrays]
        parts += packed
        columns.append(
            {
                "name": column.name,
                "layouts": [layout_json(array.layout) for array in column.arrays],
                "bytes": list(map(len, packed)),
                "rows": column.rows,
                "labels": column.labels,
                "region": column.region,
                "problem": column.problem,
                "notes": column.notes,
                "attributes": column.attributes,
            }
        )
    return {
        "path": table.path,
        "rows": table.rows,
        "columns": columns,
        "notes": table.notes,
        "attributes": table.attributes,
    }


def _unpack_table(data: dict[str, Any], payload: memoryview, size: int) -> TableIndex:
    columns: dict[str, ColumnIndex] = {}
    rows, at = _count(data["rows"]), 0
    for held in data["columns"]:
        arrays = []
        for packed, length in zip(held["layouts"], held["bytes"], strict=True):
            layout = layout_of(packed)
            extents, end = Extents.unpack(payload[at : at + _count(length)])
            if end != length:
                raise WireError("extents of another length")
            at += length
            check_shape(layout, extents.rows, size)
            check_extents(layout, extents, size, held["name"])
            arrays.append(ArrayIndex(layout, extents))
        column = ColumnIndex(
            _text(held["name"]),
            tuple(arrays),
            rows,
            None if held["labels"] is None else tuple(map(_text, held["labels"])),
            bool(held["region"]),
            _text(held["problem"]),
            tuple(map(_text, held["notes"])),
            {_text(k): _text(v) for k, v in held["attributes"].items()},
        )
        if not column.problem:
            check_missing(column)
            _ = column.type  # raises for an element type that there isn't
        columns[column.name] = column
    notes = tuple(map(_text, data["notes"]))
    attributes = {_text(k): _text(v) for k, v in data["attributes"].items()}
    return TableIndex(_text(data["path"]), rows, columns, notes, attributes)


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= MAX_ROWS:
        raise WireError("not a count")
    return value
