"""The schemas of a catalog's Parquet files; see `docs/catalog-format.md`. ``columns`` is sorted by table,
column and file: the rows of one table are contiguous. Files are referred to by their rows in ``files``."""

from __future__ import annotations

import pyarrow as pa

FORMAT = 7
MANIFEST = "_manifest.json"
BATCHES = "batches"  # the folder of batches that a build has indexed so far

_text = pa.string()
_repeated = pa.dictionary(pa.int32(), pa.string())

FILES = pa.schema(
    [
        ("url", _text),
        ("size", pa.int64()),
        ("etag", _text),  # null: the store tells no version
        ("parts", _text),  # JSON: URL, size and etag of the files that a LINDI file refers to
        ("document", _text),  # the name of a Zarr store's metadata document; null: a file
        ("session", _text),  # JSON: session and subject fields, by group; null if it can't be read
        ("rising", _text),  # JSON: which timestamps of TimeSeries rise, see `read.time_order.place`
        ("problem", _text),  # why the file can't be read; null if it can
    ]
)
TABLES = pa.schema(
    [
        ("table", _repeated),
        ("file", pa.int32()),
        ("rows", pa.int64()),
        ("values", _repeated),  # the Parquet file of its small columns' values; null: none
        ("first", pa.int64()),  # its first row there
        ("notes", _text),  # JSON: what was odd about it; null: nothing
        ("attributes", _text),  # JSON: its description; null: none
        ("damage", _text),  # the first column whose metadata can't be right; null: none
        ("problem", _text),  # why it can't be read; null if it can
    ]
)
STATISTICS = pa.schema(
    [
        ("nulls", pa.int64()),  # rows without a value; null: no statistics
        ("nans", pa.int64()),
        ("min_int", pa.int64()),  # of integers and booleans
        ("max_int", pa.int64()),
        ("min_float", pa.float64()),  # of floats, NaN left out
        ("max_float", pa.float64()),
        ("min_text", _text),
        ("max_text", _text),
        ("texts", _repeated),  # JSON: all distinct texts, if they are few
    ]
)
COLUMNS = pa.schema(
    [
        ("table", _repeated),
        ("column", _repeated),
        ("file", pa.int32()),
        ("position", pa.int32()),  # among the table's columns
        ("variant", pa.int32()),  # into `variants`; null: it can't be read
        ("short", pa.bool_()),  # rows are missing at its end
        ("bytes", pa.float32()),  # decoded, for each row
        ("values", _repeated),  # its column among the table's values; null: it isn't there
        ("index", _repeated),  # the same of the outermost index of a ragged column
        ("extents", pa.large_binary()),  # where its chunks lie, see `Extents.pack`
        ("problem", _text),
        ("notes", _text),  # JSON
        ("attributes", _text),  # JSON
        *STATISTICS,
    ]
)
VARIANTS = pa.schema(
    [("variant", _text)]  # JSON: layouts, labels, and whether it is a region; the row is its number
)
INDEX = {"files": FILES, "tables": TABLES, "columns": COLUMNS, "variants": VARIANTS}
