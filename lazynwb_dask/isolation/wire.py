"""Messages between a process and its helpers: JSON and raw bytes.

A message is the lengths of its JSON text and of its payload, the text, and the payload. Pipes are unbuffered: a
process forked meanwhile would send a buffer's content again. Results are checked, see `unpack_result`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict
from io import RawIOBase
from typing import Any

from lazynwb_dask.hdf5.json_values import JSONValue
from lazynwb_dask.hdf5.links import NameObjects
from lazynwb_dask.hdf5.sparse_file import Job
from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.table_json import pack_table, unpack_table
from lazynwb_dask.nwb.contents import ListObjects
from lazynwb_dask.nwb.electrode_groups import ListElectrodeGroups
from lazynwb_dask.nwb.jobs import IndexTable, ListChunks, ListLinks, ListSeries, ListTables
from lazynwb_dask.nwb.session import ReadSession

MAX_TEXT = 256 << 20  # bytes of a message's JSON
MAX_PAYLOAD = 1 << 30
JOBS: dict[str, type] = {
    job.__name__: job
    for job in (
        IndexTable, ListChunks, ListElectrodeGroups, ListLinks, ListObjects, ListSeries, ListTables,
        NameObjects, ReadSession,
    )
}  # fmt: skip
_HEAD = struct.Struct("<QQ")


class WireError(Exception):
    """An invalid message."""


def send(pipe: RawIOBase, message: dict[str, Any], parts: Sequence[bytes | memoryview]) -> None:
    """Write one message."""
    text = json.dumps(message, separators=(",", ":")).encode()
    head = _HEAD.pack(len(text), sum(map(len, parts)))
    for part in (head + text, *parts):
        rest = memoryview(part)
        while rest:
            rest = rest[pipe.write(rest) :]


def receive(pipe: RawIOBase) -> tuple[dict[str, Any], memoryview]:
    """Read one message. EOFError if the pipe was closed, WireError if it is too long or no JSON object."""
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


def pack_job(job: Job[Any]) -> list[Any]:
    return [type(job).__name__, asdict(job)]  # type: ignore[call-overload]


def unpack_job(packed: list[Any]) -> Job[Any]:
    name, arguments = packed
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    job: Job[Any] = JOBS[name](**arguments)
    return job


def pack_result(result: Any) -> tuple[list[Any], list[bytes]]:
    """A job's result as JSON and raw bytes.

    It is a table's index, a `JSONValue`, a mapping of addresses to paths, a list of paths, or None.
    """
    parts: list[bytes] = []
    if isinstance(result, TableIndex):
        return ["table", pack_table(result, parts)], parts
    if isinstance(result, JSONValue):
        return ["values", result.value], parts
    if isinstance(result, dict):
        return ["names", list(result.items())], parts
    return ["paths", result], parts


def unpack_result(packed: list[Any], payload: memoryview, size: int) -> Any:
    """The result of a job on a file of `size` bytes.

    WireError, KeyError, TypeError, ValueError, OverflowError or NWBReadError if it isn't one, or not of
    such a file.
    """
    kind, data = packed
    if kind == "table":
        return unpack_table(data, payload, size)
    if kind == "values":
        return JSONValue(data)
    if kind == "names":
        return {int(address): _text(path) for address, path in data}
    if data is not None:
        return [_text(path) for path in data]
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WireError("not a text")
    return value
