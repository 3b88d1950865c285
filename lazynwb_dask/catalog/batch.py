"""A batch of files, surveyed by one task: its rows of the index, kept until the catalog is complete.

A task sends nothing home but the name of what it has written. So a build that was interrupted goes on from
there.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from lazynwb_dask.catalog.column_stats import statistics
from lazynwb_dask.catalog.folder import Place
from lazynwb_dask.catalog.layout import COLUMNS, FILES, FORMAT, INDEX, PARTS, TABLES, VARIANTS
from lazynwb_dask.catalog.survey import Surveyed, survey
from lazynwb_dask.catalog.values import Writer, values_name
from lazynwb_dask.model.index import ColumnIndex, TableIndex
from lazynwb_dask.model.packing import layout_json, parts_json
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage.runtime import ReadCancelled
from lazynwb_dask.util.concurrently import concurrently

MAGIC = b"nwb-part"
MAX_VALUES = 256  # tables of a batch whose values are kept, those of most files first


@dataclass(frozen=True)
class What:
    """What a catalog keeps of each file.

    Parameters
    ----------
    tables : tuple of str or None
        The paths of the tables; None: all.
    values_limit : int
        Bytes of the values of one table of one file.
    """

    tables: tuple[str, ...] | None
    values_limit: int


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of the index, files and variants numbered from 0."""

    tables: Mapping[str, pa.Table]
    what: What
    values: Mapping[str, int]  # the Parquet files of values that it refers to, and their sizes
    name: str = ""


def make_part(
    sources: Sequence[Source],
    place: Place,
    what: What,
    threads: int,
    build: str,
    stopped: Callable[[], bool] | None = None,
) -> tuple[str, list[str]]:
    """Survey some files and write what was found.

    Parameters
    ----------
    build : str
        The identity of the build: all that it writes is called after it.
    stopped : callable, optional
        Whether nobody waits any more. Then no other file is begun, and reads that go on end; what was
        found until then is written, for the build that goes on from there.

    Returns
    -------
    str
        The name of the part.
    list of str
        For each file why it can't be read, empty if it can.

    Raises
    ------
    ReadCancelled
        It was stopped.
    """
    settings = replace(place.settings, is_cancelled=stopped)

    def one(source: Source) -> Surveyed | None:
        if stopped is not None and stopped():
            return None
        try:
            made = survey(
                source, place.options, settings,
                chosen=what.tables, values_limit=what.values_limit,
            )  # fmt: skip
        except ReadCancelled:
            return None
        # (what a read that ended early should have given may be missing)
        return None if stopped is not None and stopped() else made

    surveyed = list(concurrently(list(sources), one, threads, False))
    found = [one for one in surveyed if one is not None]
    if len(found) < len(sources):
        if found:
            _write(found, place, what, build)
        raise ReadCancelled
    return _write(found, place, what, build), [one.problem for one in found]


def _write(found: Sequence[Surveyed], place: Place, what: What, build: str) -> str:
    """Write a part and the values that it refers to."""
    part, files = built(found, what, build)
    for name, data in files.items():
        place.write(name, data)
    name = f"{PARTS}/{build}-{uuid.uuid4().hex}.part"
    place.write(name, dump(part))
    return name


def built(found: Sequence[Surveyed], what: What, build: str) -> tuple[Part, dict[str, bytes]]:
    """The rows of the index of some files, and the Parquet files of their values."""
    count: dict[str, int] = defaultdict(int)
    for one in found:
        for table in one.tables:
            count[table.path] += bool(one.values[table.path] or one.indexes[table.path])
    often = sorted((path for path in count if count[path]), key=lambda path: -count[path])
    writers = {path: (values_name(build), Writer()) for path in often[:MAX_VALUES]}
    rows = _Rows()
    for number, one in enumerate(found):
        rows.file(one)
        for path, problem in one.problems.items():
            rows.tables.append({"table": path, "file": number, "rows": 0, "problem": problem})
        for table in one.tables:
            name, writer = writers.get(table.path, ("", None))
            rows.table(number, table, one, name, writer)
    files = {name: writer.parquet() for name, writer in writers.values()}
    sizes = {name: len(data) for name, data in files.items()}
    return Part(rows.arrow(), what, sizes), files


class _Rows:
    """Rows of the index that are being collected."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []
        self.tables: list[dict[str, Any]] = []
        self.columns: list[dict[str, Any]] = []
        self.variants: dict[str, int] = {}

    def file(self, one: Surveyed) -> None:
        self.files.append(
            {
                "url": one.source.url,
                "size": one.source.size,
                "etag": one.source.etag,
                "parts": _json(parts_json(one.source.parts)),
                "session": None if one.problem else json.dumps(one.session),
                "problem": one.problem or None,
            }
        )

    def table(
        self, number: int, table: TableIndex, one: Surveyed, name: str, writer: Writer | None
    ) -> None:
        values, indexes = one.values[table.path], one.indexes[table.path]
        first, named, ends = 0, dict[str, str](), dict[str, str]()
        if writer is not None:
            first = writer.rows
            named, ends = writer.add(table.rows, values, indexes)
        self.tables.append(
            {
                "table": table.path,
                "file": number,
                "rows": table.rows,
                "values": name if named or ends else None,
                "first": first,
                "notes": _json(table.notes),
                "attributes": _json(table.attributes),
                "damage": table.damage or None,
            }
        )
        for position, column in enumerate(table.columns.values()):
            row = {
                "table": table.path,
                "column": column.name,
                "file": number,
                "position": position,
                "variant": None if column.problem else self._variant(column),
                "short": not column.problem and column.short,
                "bytes": 0 if column.problem else column.nbytes / max(column.rows, 1),
                "values": named.get(column.name),
                "index": ends.get(column.name),
                "extents": b"".join(array.extents.pack() for array in column.arrays),
                "problem": column.problem or None,
                "notes": _json(column.notes),
                "attributes": _json(column.attributes),
            }
            if column.name in values:
                row |= statistics(values[column.name])
            self.columns.append(row)

    def _variant(self, column: ColumnIndex) -> int:
        layouts, labels = column.variant
        text = json.dumps([[layout_json(layout) for layout in layouts], labels, column.region])
        return self.variants.setdefault(text, len(self.variants))

    def arrow(self) -> dict[str, pa.Table]:
        variants = [{"variant": text} for text in self.variants]
        return {
            "files": pa.Table.from_pylist(self.files, FILES),
            "tables": pa.Table.from_pylist(self.tables, TABLES),
            "columns": pa.Table.from_pylist(self.columns, COLUMNS),
            "variants": pa.Table.from_pylist(variants, VARIANTS),
        }


def _json(value: Any) -> str | None:
    return json.dumps(value) if value else None


# --------------------------------------------------------------------------------------------- as bytes
def dump(part: Part) -> bytes:
    """A part as bytes: JSON, the index's tables as Arrow streams, and a checksum."""
    streams = []
    for table in part.tables.values():
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
            writer.write_table(table)
        streams.append(sink.getvalue().to_pybytes())
    head = {
        "format": FORMAT,
        "tables": part.what.tables,
        "values_limit": part.what.values_limit,
        "values": dict(part.values),
        "streams": [len(stream) for stream in streams],
    }
    text = json.dumps(head).encode()
    body = b"".join([len(text).to_bytes(8, "little"), text, *streams])
    return MAGIC + hashlib.blake2b(body, digest_size=16).digest() + body


def load(data: bytes, name: str) -> Part | None:
    """The part that bytes hold; None if they are damaged or of another format."""
    start = len(MAGIC) + 16
    body = data[start:]
    digest = hashlib.blake2b(body, digest_size=16).digest()
    if not data.startswith(MAGIC) or data[len(MAGIC) : start] != digest:
        return None
    at = 8 + int.from_bytes(body[:8], "little")
    head = json.loads(body[8:at])
    if head["format"] != FORMAT:
        return None
    tables = {}
    for kind, length in zip(INDEX, head["streams"], strict=True):
        with pa.ipc.open_stream(body[at : at + length]) as reader:
            tables[kind] = reader.read_all()
        if tables[kind].schema != INDEX[kind]:
            return None
        at += length
    chosen = head["tables"]
    what = What(None if chosen is None else tuple(chosen), head["values_limit"])
    return Part(tables, what, head["values"], name)


# ------------------------------------------------------------------------------------ putting together
def chosen(part: Part, keep: np.ndarray) -> Part:
    """Only some of its files, in the order given."""
    renumbered = np.full(part.tables["files"].num_rows, -1, np.int64)
    renumbered[keep] = np.arange(len(keep))
    tables = {
        "files": part.tables["files"].take(pa.array(keep)),
        "variants": part.tables["variants"],
    }
    for kind in ("tables", "columns"):
        rows = part.tables[kind]
        file = renumbered[rows["file"].to_numpy()]
        tables[kind] = _with_numbers(rows, "file", file).filter(pa.array(file >= 0))
    used = tables["tables"]["values"].unique().drop_null().to_pylist()
    values = {name: part.values[name] for name in used}
    return Part(tables, part.what, values, part.name)


def joined(parts: Sequence[Part]) -> dict[str, pa.Table]:
    """The index of the files of several parts, one after the other; equal variants are one."""
    numbers: dict[str, int] = {}
    held: dict[str, list[pa.Table]] = {kind: [] for kind in INDEX}
    files = 0
    for part in parts:
        texts = part.tables["variants"]["variant"].to_pylist()
        number = np.array([numbers.setdefault(t, len(numbers)) for t in texts], np.int32)
        columns = part.tables["columns"]
        variant = columns["variant"].combine_chunks()
        there = variant.is_valid().to_numpy(zero_copy_only=False)
        old = variant.fill_null(0).to_numpy()
        new = number[old] if len(number) else old
        columns = columns.set_column(
            columns.schema.get_field_index("variant"),
            columns.schema.field("variant"),
            pa.array(new, pa.int32(), mask=~there),
        )
        held["files"].append(part.tables["files"])
        for kind, rows in (("tables", part.tables["tables"]), ("columns", columns)):
            held[kind].append(_with_numbers(rows, "file", rows["file"].to_numpy() + files))
        files += part.tables["files"].num_rows
    result = {
        kind: pa.concat_tables(tables or [schema.empty_table()]).unify_dictionaries()
        for kind, schema, tables in ((k, INDEX[k], held[k]) for k in INDEX)
    }
    result["variants"] = pa.table({"variant": pa.array(list(numbers), pa.string())}, VARIANTS)
    return result


def _with_numbers(table: pa.Table, name: str, numbers: np.ndarray) -> pa.Table:
    at = table.schema.get_field_index(name)
    field = table.schema.field(name)
    return table.set_column(at, field, pa.array(numbers, field.type))


def parts_of(
    place: Place, names: Sequence[str], threads: int, made_as: Callable[[Part], bool]
) -> Iterator[Part]:
    """The parts of these names that are whole and as asked for."""

    def read(name: str) -> Part | None:
        data = place.read(name)
        return None if data is None else load(data, name)

    for part in concurrently(list(names), read, threads, False):
        if part is not None and made_as(part):
            yield part
