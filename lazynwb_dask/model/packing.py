"""Parts of scans and catalogs as bytes and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lazynwb_dask.model.index import Filter, Layout, Objects, View
from lazynwb_dask.model.source import Source

_WIDTHS = (("<i1", 1 << 7), ("<i2", 1 << 15), ("<i4", 1 << 31), ("<i8", 1 << 64))


def thin(values: np.ndarray) -> bytes:
    """Integers in the narrowest width that holds them, with a byte that says which."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    kind = next(kind for kind, bound in _WIDTHS if -bound <= low and high < bound)
    return kind[-1:].encode() + values.astype(kind).tobytes()


def wide(data: bytes) -> np.ndarray:
    """The integers that `thin` packed."""
    return np.frombuffer(data, f"<i{data[:1].decode()}", offset=1).astype(np.int64)


def front(urls: Sequence[str]) -> list[Any]:
    """URLs as their common prefix and the rest of each."""
    if not urls:
        return ["", []]
    low, high = min(urls), max(urls)
    n = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return [low[:n], [url[n:] for url in urls]]


def unfront(packed: list[Any]) -> list[str]:
    return [packed[0] + rest for rest in packed[1]]


def parts_json(parts: Sequence[Source]) -> list[Any]:
    """The files that make up a source."""
    return [(part.url, part.size, part.etag) for part in parts]


def parts_of(data: Sequence[Any]) -> tuple[Source, ...]:
    return tuple(Source(url, size, etag) for url, size, etag in data)


def layout_json(layout: Layout) -> list[Any]:
    view, own = layout.view, layout.objects
    objects = own and [
        own.prefix, own.separator, own.shard, _filters_json(own.index), own.index_first, own.suffix
    ]  # fmt: skip
    return [
        layout.element, layout.item, layout.chunk, _filters_json(layout.filters), layout.fill.hex(),
        layout.raw_edges, layout.user_block, layout.external, layout.rising,
        None if view is None else [view.channel, view.factors, view.offset], layout.unlisted, objects,
    ]  # fmt: skip


def layout_of(data: list[Any]) -> Layout:
    element, item, chunk, filters, fill, raw_edges, user_block, external, rising, view, unlisted, own = data
    if own is not None:
        prefix, separator, shard, index, index_first, suffix = own
        own = Objects(prefix, separator, tuples(shard), _filters_of(index), index_first, suffix)
    return Layout(
        tuples(element),
        tuple(item),
        tuples(chunk),
        _filters_of(filters),
        bytes.fromhex(fill),
        raw_edges,
        user_block,
        external,
        rising,
        None if view is None else View(view[0], tuple(view[1]), view[2]),
        unlisted,
        own,
    )


def _filters_json(filters: Sequence[Filter]) -> list[Any]:
    return [(f.id, f.values, f.name) for f in filters]


def _filters_of(data: Sequence[Any]) -> tuple[Filter, ...]:
    return tuple(Filter(number, tuple(values), name) for number, values, name in data)


def pack_arrays(arrays: Mapping[str, pa.Array]) -> bytes:
    """Arrow arrays of one length as bytes. Of a slice only its values are written."""
    batch = pa.record_batch(list(arrays.values()), names=list(arrays))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def unpack_arrays(data: bytes) -> dict[str, pa.Array]:
    with pa.ipc.open_stream(data) as stream:
        batch = stream.read_next_batch()
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def tuples(value: Any) -> Any:
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def spell(kind: pa.DataType) -> Any:
    """An Arrow type as JSON."""
    if pa.types.is_list(kind):
        return ["list", spell(kind.value_type)]
    if pa.types.is_timestamp(kind):
        return ["timestamp", kind.unit, kind.tz]
    if pa.types.is_struct(kind):
        return ["struct", [[f.name, spell(f.type)] for f in kind]]
    return str(kind)


def unspell(data: Any) -> pa.DataType:
    if isinstance(data, str):
        return pa.type_for_alias(data)
    if data[0] == "list":
        return pa.list_(unspell(data[1]))
    if data[0] == "timestamp":
        return pa.timestamp(data[1], data[2])
    return pa.struct([(name, unspell(kind)) for name, kind in data[1]])
