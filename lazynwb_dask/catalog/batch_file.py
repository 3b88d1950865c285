"""Batches as files, from which an interrupted build continues: a checksum, a line of JSON, and the index
tables as Arrow streams."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pyarrow as pa

from lazynwb_dask.catalog.batch import Batch
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.catalog.manifest import Keeps
from lazynwb_dask.catalog.tables_schema import BATCHES, FORMAT, INDEX
from lazynwb_dask.util.concurrently import concurrently

_DIGEST = 16


def write_batch(folder: Folder, batch: Batch, values: dict[str, bytes], keeps: Keeps) -> str:
    """Write a batch and its Parquet files of values; returns the batch's name."""
    for name, data in values.items():
        folder.write(name, data)
    name = f"{BATCHES}/{uuid.uuid4().hex}"
    folder.write(name, dump(batch, keeps))
    return name


def read_batches(folder: Folder, names: Sequence[str], keeps: Keeps, threads: int) -> list[Batch]:
    """The undamaged batches whose values all exist and whose `keeps` are equal."""
    there = set(folder.names("values")) if names else set()

    def read(name: str) -> Batch | None:
        data = folder.read(name)
        batch = None if data is None else load(data, keeps)
        return batch if batch is not None and there.issuperset(batch.values) else None

    found = concurrently(list(names), read, threads, False)
    return [batch for batch in found if batch is not None]


def _head(keeps: Keeps, values: Mapping[str, int]) -> bytes:
    return json.dumps({"format": FORMAT, "keeps": asdict(keeps), "values": dict(values)}).encode()


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()


def dump(batch: Batch, keeps: Keeps) -> bytes:
    sink = pa.BufferOutputStream()
    sink.write(_head(keeps, batch.values) + b"\n")
    for kind, schema in INDEX.items():
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, schema, options=options) as writer:
            writer.write_table(batch.tables[kind])
    body = sink.getvalue().to_pybytes()
    return b"".join([_digest(body), body])


def load(data: bytes, keeps: Keeps) -> Batch | None:
    """The batch; None if the bytes are damaged or of another format, or `keeps` differ."""
    if data[:_DIGEST] != _digest(data[_DIGEST:]):
        return None
    text, _, streams = data[_DIGEST:].partition(b"\n")
    values = json.loads(text).get("values", {})
    if text != _head(keeps, values):
        return None
    source = pa.BufferReader(streams)
    return Batch({kind: pa.ipc.open_stream(source).read_all() for kind in INDEX}, values)
