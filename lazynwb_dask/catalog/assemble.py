"""From batches to the files of a catalog."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask.catalog.batch import Batch
from lazynwb_dask.catalog.compaction import compacted
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.catalog.manifest import Keeps, Manifest
from lazynwb_dask.catalog.tables_schema import INDEX, VARIANTS
from lazynwb_dask.catalog.values import written
from lazynwb_dask.model.source import Source
from lazynwb_dask.nwb.session import Session
from lazynwb_dask.plan import sessions

ROW_GROUP = 65_536  # rows of a row group of the index

Sections = dict[str, tuple[int, int, int, int]]


def assembled(
    batches: Sequence[Batch],
    files: tuple[np.ndarray, Sequence[str]],
    folder: Folder,
    keeps: Keeps,
    paths: tuple[str, ...],
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the files to write. `files` are the batch, and the row in it, of each file of the
    catalog, and their URLs; `folder` holds the values that the batches refer to."""
    where, urls = files
    joined = _joined(batches, where)
    joined["files"] = _replaced(joined["files"], "url", pa.array(urls, pa.string()))
    tables, sections = _sorted(joined)
    sizes = {name: size for batch in batches for name, size in batch.values.items()}
    tables["tables"], made = compacted(tables["tables"], sections, sizes, folder)
    sizes |= {name: len(data) for name, data in made.items()}
    used = tables["tables"]["values"].unique().drop_null().to_pylist()
    tables["sessions"] = _sessions(tables["files"])
    index = {}
    for kind, table in tables.items():
        name = f"index/{kind}-{uuid.uuid4().hex}.parquet"
        made[name] = written(table, ROW_GROUP)
        index[kind] = (name, len(made[name]))
    count = tables["files"].num_rows
    manifest = Manifest(
        index, {name: sizes[name] for name in used}, sections, count,
        count - tables["files"]["problem"].null_count, keeps, paths,
    )  # fmt: skip
    return manifest, made


def _joined(batches: Sequence[Batch], where: np.ndarray) -> dict[str, pa.Table]:
    """The rows of the catalog's files, renumbered; equal variants become one. Files may share rows."""
    numbers: dict[str, int] = {}
    pieces: dict[str, list[pa.Table]] = {kind: [schema.empty_table()] for kind, schema in INDEX.items()}
    order = [np.zeros(0, np.int64)]
    again = pd.DataFrame(where).groupby([0, 1]).cumcount().to_numpy()
    for i, nth in sorted({*zip(where[:, 0].tolist(), again.tolist(), strict=True)}):
        tables, mine = batches[i].tables, np.flatnonzero((where[:, 0] == i) & (again == nth))
        order.append(mine)
        pieces["files"].append(tables["files"].take(pa.array(where[mine, 1])))
        number = np.full(tables["files"].num_rows, -1, np.int64)
        number[where[mine, 1]] = mine
        for kind in ("tables", "columns"):
            file = number[tables[kind]["file"].to_numpy()]
            rows = _replaced(tables[kind], "file", pa.array(file, pa.int32()))
            if kind == "columns":
                rows = _replaced(rows, "variant", _renumbered(tables, numbers))
            pieces[kind].append(rows.filter(pa.array(file >= 0)))
    joined = {kind: pa.concat_tables(pieces[kind]).unify_dictionaries() for kind in INDEX}
    joined["files"] = joined["files"].take(pa.array(np.argsort(np.concatenate(order))))
    joined["variants"] = pa.table({"variant": pa.array(list(numbers), pa.string())}, VARIANTS)
    return joined


def _renumbered(tables: Mapping[str, pa.Table], numbers: dict[str, int]) -> pa.Array:
    """The variants of a batch's columns by their numbers in the catalog, which are added to `numbers`."""
    texts = tables["variants"]["variant"].to_pylist()
    number = pa.array([numbers.setdefault(text, len(numbers)) for text in texts], pa.int32())
    return number.take(tables["columns"]["variant"].combine_chunks())


def _replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(name), values)


def _sorted(tables: dict[str, pa.Table]) -> tuple[dict[str, pa.Table], Sections]:
    """Sorts the rows. Returns each table's sections too."""
    ends: dict[str, list[int]] = {}
    for kind, keys in (("tables", ["table"]), ("columns", ["column", "table"])):
        rows = tables[kind]
        codes = [np.asarray(rows[key].combine_chunks().indices) for key in keys]
        order = np.lexsort((rows["file"].to_numpy(), *codes))
        tables[kind] = rows.take(pa.array(order))
        of_table = codes[-1][order]
        for code, name in enumerate(rows["table"].combine_chunks().dictionary.to_pylist()):
            bounds = np.searchsorted(of_table, [code, code + 1]).tolist()
            ends.setdefault(name, []).extend(bounds)
    sections: Sections = {}
    for name, (start, stop, *columns) in sorted(ends.items()):
        first, last = columns or (0, 0)
        sections[name] = (start, stop, first, last)
    return tables, sections


def _sessions(files: pa.Table) -> pa.Table:
    """The table of sessions, one row for each readable file."""
    readable = files.filter(files["session"].is_valid())
    pairs = zip(readable["url"].to_pylist(), readable["session"].to_pylist(), strict=True)
    read = [Session(Source(url), json.loads(text)) for url, text in pairs]
    sessions.warn_of_fields(read)
    frame, _ = sessions.table(read)
    # without pandas' metadata, in which pandas itself can't read lists of timestamps
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
