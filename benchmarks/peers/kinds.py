"""Answers in a form that all readers' can be put into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa


def histogram(units: Any, counts: np.ndarray) -> Mapping[str, Any]:
    """The counts in each bin, of each unit."""
    offsets = np.arange(len(counts) + 1, dtype=np.int64) * counts.shape[1]
    return {"unit_id": units, "counts": pa.LargeListArray.from_arrays(offsets, counts.reshape(-1))}


def of_pandas(kind: Any) -> str:
    """Of a pandas dtype."""
    text = str(kind).lower()
    if text.startswith(("list", "fixed_size_list", "large_list")):
        return "list"
    return _of_text(text)


def of_polars(kind: Any) -> str:
    """Of a polars dtype."""
    text = str(kind).lower()
    return "list" if text.startswith(("list", "array")) else _of_text(text)


def of_hdf5(dataset: Any, ragged: bool) -> str:
    """Of an h5py dataset."""
    if ragged or dataset.ndim > 1:
        return "list"
    return "text" if dataset.dtype.kind == "O" else _of_text(str(dataset.dtype))


def _of_text(text: str) -> str:
    for word, kind in (("bool", "bool"), ("int", "int"), ("float", "float"), ("double", "float")):
        if word in text:
            return kind
    return "text"
