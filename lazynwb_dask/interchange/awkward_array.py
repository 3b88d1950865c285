"""The rows of a table as an Awkward Array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lazynwb_dask.stream.arrow import Missing, arrow_schema, arrow_table, set_missing
from lazynwb_dask.util.extras import optional

if TYPE_CHECKING:
    import awkward as ak
    import pandas as pd


def records(rows: pd.DataFrame, names: list[str], missing: Missing) -> ak.Array:
    """Records with a field for each column, over Arrow's buffers. Types are options (``?``) only where
    something is missing."""
    ak: Any = optional("awkward", "to_awkward")

    def certain(layout: Any, continuation: Any, **_: Any) -> Any:
        return continuation().content if isinstance(layout, ak.contents.UnmaskedArray) else None

    kept = rows[names]
    table = set_missing(arrow_table(kept, arrow_schema(kept.iloc[:0]), nan_to_null=False), rows, missing)
    plain = [t.value_type if pa.types.is_dictionary(t) else t for t in table.schema.types]  # of categories
    table = table.cast(pa.schema(zip(names, plain, strict=True))).combine_chunks()
    found: ak.Array = ak.transform(certain, ak.from_arrow(table))
    return found
