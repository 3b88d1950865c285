"""Statistics of a column's values in one file, by which files without matching rows are skipped."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lazynwb_dask.decode.arrays import Values, arrow

FEW = 32  # distinct texts that are kept
LONG = 128  # bytes of a text that is kept; longer ones leave the statistics without texts


def statistics(values: Values) -> dict[str, Any]:
    """Nulls, smallest and largest value, and distinct texts, as the catalog keeps them.

    >>> found = statistics(np.array([3.0, np.nan, 1.0]))
    >>> found["min_float"], found["max_float"], found["nans"], found["nulls"]
    (1.0, 3.0, 1, 0)
    """
    held = arrow(values)
    kind = held.type
    nulls = held.null_count
    if pa.types.is_floating(kind):
        numbers = held.drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
        real = numbers[~np.isnan(numbers)]
        found: dict[str, Any] = {"nulls": nulls, "nans": len(numbers) - len(real)}
        if len(real):
            found |= {"min_float": float(real.min()), "max_float": float(real.max())}
        return found
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        low, high = _ends(pc.cast(held, pa.uint8()) if pa.types.is_boolean(kind) else held)
        if low is not None and high >= 2**63:
            return {}  # more than the catalog's integers hold
        return {"nulls": nulls, "nans": 0, "min_int": low, "max_int": high}
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return {"nulls": nulls, "nans": 0} | _texts(held)
    return {}


def _ends(values: pa.Array) -> tuple[Any, Any]:
    found = pc.min_max(values)
    return found["min"].as_py(), found["max"].as_py()


def _texts(values: pa.Array) -> dict[str, Any]:
    distinct = pc.unique(values.drop_null())
    if not len(distinct):
        return {"texts": "[]"}
    low, high = _ends(distinct)
    found: dict[str, Any] = {}
    if max(len(low), len(high)) <= LONG:
        found = {"min_text": low, "max_text": high}
    longest = pc.max(pc.binary_length(distinct)).as_py()
    if len(distinct) <= FEW and longest <= LONG:
        found["texts"] = json.dumps(sorted(distinct.to_pylist()), ensure_ascii=False)
    return found
