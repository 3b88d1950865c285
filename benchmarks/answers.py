"""Whether two readers gave the same answer: a digest of rows that doesn't depend on their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PRIME = np.uint64(0x9E3779B97F4A7C15)


def digest(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The number of rows and a sum over them in which each value of each column counts.

    Parameters
    ----------
    columns : mapping of str to array
        NumPy, pandas, polars or Arrow. Null and NaN are the same, and so are numbers of any type; of
        a path only the file's name counts.
    """
    rows, total = 0, None
    for name in sorted(columns):
        held = _arrow(columns[name])
        if name == "_nwb_path":
            held = _names(held)
        hashes = np.concatenate([np.zeros(0, np.uint64), *[_hashes(c) for c in held.chunks]])
        salt = np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()))
        mixed = _mix(hashes ^ salt)
        rows = len(mixed)
        total = mixed if total is None else _mix(total * _PRIME + mixed)
    value = 0 if total is None else int(total.sum(dtype=np.uint64))
    return {"rows": rows, "digest": f"{value:016x}"}


def _arrow(values: Any) -> pa.ChunkedArray:
    if hasattr(values, "to_arrow"):  # polars
        values = values.to_arrow()
    elif hasattr(values, "array"):  # pandas
        values = pa.array(values) if not hasattr(values.array, "__arrow_array__") else pa.array(values.array)
    elif not isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = pa.array(values)
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])


def _names(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Paths as file names without folder and suffix."""
    held = pc.dictionary_encode(paths.cast(pa.large_string())).unify_dictionaries()
    chunks = []
    for chunk in held.chunks:
        stems = [PurePosixPath(path).stem for path in chunk.dictionary.to_pylist()]
        chunks.append(pa.array(stems, pa.large_string()).take(chunk.indices))
    return pa.chunked_array(chunks, pa.large_string())


def _hashes(values: pa.Array) -> np.ndarray:
    """One number for each value."""
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        counts = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
        return _of_lists(_hashes(values.flatten()), counts.astype(np.int64))
    if pa.types.is_dictionary(kind):
        values = values.dictionary_decode()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        held = values.cast(pa.large_string()).fill_null("\0").dictionary_encode()
        known = [_of_text(text) for text in held.dictionary.to_pylist()]
        texts: np.ndarray = np.array(known, np.uint64)[held.indices.to_numpy()]
        return texts
    numbers = (
        values.cast(pa.float64(), safe=False)
        if not pa.types.is_boolean(kind)
        else values.cast(pa.uint8()).cast(pa.float64())
    )
    floats = numbers.to_numpy(zero_copy_only=False) + 0.0  # null becomes NaN, and -0.0 becomes 0.0
    return np.where(np.isnan(floats), np.uint64(1), floats.view(np.uint64))


def _of_text(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _of_lists(items: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The hashes of lists, given those of their items one after the other."""
    ends = np.cumsum(counts)
    position = np.arange(len(items), dtype=np.int64) - np.repeat(ends - counts, counts)
    weighted = _mix(items + position.astype(np.uint64) * _PRIME)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)])
    hashes: np.ndarray = sums[ends] - sums[ends - counts] + counts.astype(np.uint64)
    return hashes


def _mix(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed: np.ndarray = values ^ (values >> np.uint64(29))
    return mixed
