"""The binary form of a scan, which tasks carry and from which its token is computed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from lazynwb_dask.model import packing
from lazynwb_dask.model.index import Layout
from lazynwb_dask.model.series_view import Shown
from lazynwb_dask.scan.catalog_slots import Inlined
from lazynwb_dask.scan.fields import Field
from lazynwb_dask.scan.records import Files, Records
from lazynwb_dask.scan.request import TableRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARTITIONS = ("file", "start", "stop", "offset")
_FLAGS = ("fusable", "indexed", "numbered", "origin")
_BEFORE = 6  # buffers before those of the columns: sizes, tables, and the partitions' four
_EACH = 4  # buffers of each column


def pack(scan: Mapping[str, Any], options: str) -> bytes:
    """The bytes of a scan, given by its attributes; equal scans have the same bytes in every process. Only
    files that have partitions are packed. `options` is the token of the storage options: it covers secrets,
    which aren't packed."""
    used, renumbered = np.unique(scan["file"], return_inverse=True)
    files: Files = scan["files"]
    if len(used) < len(files.urls):
        files = files.take(used)
        scan = {**scan, "file": renumbered.reshape(-1).astype(np.int64)}
    layouts: dict[Layout, int] = {}
    columns = {}
    buffers = [
        packing.thin(files.sizes),
        packing.thin(files.table),
        *[packing.thin(scan[name]) for name in _PARTITIONS],
    ]
    for name, records in files.records.items():
        columns[name] = [
            ([layouts.setdefault(x, len(layouts)) for x in found], labels) for found, labels in records.variants
        ]
        lengths = records.ends.copy()
        lengths[1:] -= records.ends[:-1]
        buffers += [packing.thin(records.which), packing.thin(lengths), records.weights.tobytes(), records.data]
    inlined = None
    if files.inlined is not None:
        inlined, more = files.inlined.pack()
        buffers += more
    if files.facts:
        buffers.append(packing.pack_arrays(files.facts))
    head = {
        "urls": packing.front(files.urls),
        "etags": list(files.etags) if any(e is not None for e in files.etags) else None,
        "parts": [packing.parts_json(x) for x in files.parts],
        "documents": files.documents,
        "tables": files.tables,
        "fields": [(x.name, packing.spell(x.type), x.nullable) for x in scan["fields"].values()],
        "columns": columns,
        "inlined": inlined,
        "facts": bool(files.facts),
        "layouts": [packing.layout_json(x) for x in layouts],
        "sizes": [len(b) for b in buffers],
        "flags": [scan[name] for name in _FLAGS],
        "request": _request_json(scan["request"]),
        "options": options,
        "failures": scan["failures"],
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return len(text).to_bytes(4, "little") + text + b"".join(buffers)


def unpack(data: bytes) -> dict[str, Any]:
    """The attributes of a packed scan, without its options."""
    size = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + size])
    buffers, at = [], 4 + size
    for nbytes in head["sizes"]:
        buffers.append(data[at : at + nbytes])
        at += nbytes
    urls = packing.unfront(head["urls"])
    layouts = [packing.layout_of(x) for x in head["layouts"]]
    records = {
        name: _records(variants, layouts, buffers[_BEFORE + _EACH * i :])
        for i, (name, variants) in enumerate(head["columns"].items())
    }
    facts = packing.unpack_arrays(buffers.pop()) if head["facts"] else {}
    inlined = None
    if head["inlined"] is not None:
        inlined = Inlined.unpack(head["inlined"], buffers[_BEFORE + _EACH * len(records) :])
    files = Files(
        tuple(urls), packing.wide(buffers[0]), tuple(head["etags"] or [None] * len(urls)),
        tuple(head["tables"]), packing.wide(buffers[1]).astype(np.int32), records, inlined, facts,
        tuple(map(packing.parts_of, head["parts"])), tuple(head["documents"]),
    )  # fmt: skip
    return {
        "files": files,
        "fields": {name: Field(name, packing.unspell(kind), null) for name, kind, null in head["fields"]},
        "request": _request_of(head["request"]),
        "failures": tuple(map(tuple, head["failures"])),
        **{name: packing.wide(b) for name, b in zip(_PARTITIONS, buffers[2:_BEFORE], strict=True)},
        **dict(zip(_FLAGS, head["flags"], strict=True)),
    }


def _records(variants: Any, layouts: list[Layout], buffers: list[bytes]) -> Records:
    which, lengths, weights, data = buffers[:_EACH]
    return Records(
        tuple(
            (tuple(layouts[j] for j in found), None if labels is None else tuple(labels))
            for found, labels in variants
        ),
        packing.wide(which).astype(np.int32),
        data,
        np.cumsum(packing.wide(lengths)),
        np.frombuffer(weights, np.float32),
    )


def _request_json(request: TableRequest) -> list[Any]:
    view = request.view
    shown = None if view is None else [view.channels, view.scaled]
    policies = request.on_missing, request.on_error, request.allow_external_links
    return [request.table_names, request.blocksize, *policies, shown]


def _request_of(data: list[Any]) -> TableRequest:
    table, blocksize, on_missing, on_error, links, shown = data
    view = None if shown is None else Shown(packing.tuples(shown[0]), shown[1])
    return TableRequest(
        tuple(table), blocksize=blocksize, on_missing=on_missing, on_error=on_error,
        allow_external_links=links, view=view,
    )  # fmt: skip
