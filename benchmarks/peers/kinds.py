"""What a column holds, in the few words that all readers' types can be put into."""

from __future__ import annotations

from typing import Any


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
