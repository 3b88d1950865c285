"""The rows of a table as an Awkward Array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lazynwb_dask.stream.arrow import Missing, arrow_table, set_missing
from lazynwb_dask.util.extras import optional

if TYPE_CHECKING:
    import awkward as ak
    import pandas as pd


def records(rows: pd.DataFrame, schema: pa.Schema, missing: Missing) -> ak.Array:
    """Records with a field for each column of the schema, over Arrow's buffers. Types are options (``?``)
    only where something is missing."""
    ak: Any = optional("awkward", "to_awkward")

    def certain(layout: Any, continuation: Any, **_: Any) -> Any:
        return continuation().content if isinstance(layout, ak.contents.UnmaskedArray) else None

    table = set_missing(arrow_table(rows[schema.names], schema, nan_to_null=False), rows, missing)
    plain = [t.value_type if pa.types.is_dictionary(t) else t for t in table.schema.types]  # of categories
    table = table.cast(pa.schema(zip(schema.names, plain, strict=True))).combine_chunks()
    found: ak.Array = ak.transform(certain, ak.from_arrow(table))
    return found
