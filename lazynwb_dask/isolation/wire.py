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

from lazynwb_dask.hdf5.json_values import Plain
from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.table_json import pack_table, unpack_table

if TYPE_CHECKING:
    from lazynwb_dask.hdf5.sparse_file import Job

MAX_TEXT = 256 << 20  # bytes of a message's JSON
MAX_PAYLOAD = 1 << 30
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
    from lazynwb_dask.hdf5.links import ListTables, NameObjects
    from lazynwb_dask.nwb.contents import ListSeries, TakeStock
    from lazynwb_dask.nwb.session import ReadSession
    from lazynwb_dask.nwb.tables import IndexTable, ListChunks

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
        return ["table", pack_table(result, parts)], parts
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
        return unpack_table(data, payload, size)
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
