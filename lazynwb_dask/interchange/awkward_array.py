"""The rows of a table as an Awkward Array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazynwb_dask.stream.arrow import arrow_schema, arrow_table
from lazynwb_dask.util.extras import optional

if TYPE_CHECKING:
    import awkward as ak
    import pandas as pd


def records(rows: pd.DataFrame) -> ak.Array:
    """Records with a field for each column, over Arrow's buffers. Types are options (``?``) only where
    something is missing."""
    ak: Any = optional("awkward", "to_awkward")

    def certain(layout: Any, continuation: Any, **_: Any) -> Any:
        return continuation().content if isinstance(layout, ak.contents.UnmaskedArray) else None

    table = arrow_table(rows, arrow_schema(rows.iloc[:0]), nan_to_null=False)
    found: ak.Array = ak.transform(certain, ak.from_arrow(table.combine_chunks()))
    return found
