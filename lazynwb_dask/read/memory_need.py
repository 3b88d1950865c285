"""What it takes of memory to read some rows of a partition."""

from __future__ import annotations

from collections.abc import Sequence

from lazynwb_dask.model.index import ArrayIndex
from lazynwb_dask.read.nearby import SMALL
from lazynwb_dask.scan.derived import lengths_of, source
from lazynwb_dask.scan.records import Part

# What a column takes while it is read, as a multiple of its decoded bytes.
CHUNKED = 1.25  # chunks are decoded straight into place
COPIED = 2.0  # what came is copied into place, or partitions are put together
TEXTS = 5.0  # descriptors, the bytes, and the texts made of them
SCATTERED = 32  # bytes for each row of a column whose rows are picked: where these are


def needs(part: Part, columns: Sequence[str], rows: int, picked: bool) -> tuple[int, int]:
    """Decoded bytes of some rows of a partition, and the bytes it takes to decode them.

    `picked` rows may be scattered.
    """
    paths = {"_nwb_path": part.source.url, "_table_path": part.table}
    decoded = peak = 0.0
    for name in columns:
        column = "" if lengths_of(name) else source(name)
        if column not in part.columns:
            plain = rows * (8 + len(paths.get(name, "")))
            decoded, peak = decoded + plain, peak + plain
            continue
        arrays, _ = part.columns[column]
        for array in arrays:
            nbytes = _decoded(array) * rows / max(arrays[-1].rows, 1)
            along = min(array.stored_bytes, SMALL)  # as it is stored, for all rows
            decoded, peak = decoded + nbytes, peak + nbytes * _factor(array, len(arrays)) + along
    return int(decoded), int(peak) + (SCATTERED * rows * len(columns) if picked else 0)


def _is_text(array: ArrayIndex) -> bool:
    return array.layout.element[0] in ("text", "string", "sequence")


def _decoded(array: ArrayIndex) -> int:
    # a variable-length element is 16 bytes of descriptor; what it refers to is guessed at 32
    loose = array.layout.element[0] in ("string", "sequence")
    return array.rows * array.layout.shown_bytes * (3 if loose else 1)


def _factor(array: ArrayIndex, arrays: int) -> float:
    if _is_text(array):
        return TEXTS
    straight = array.layout.chunk is not None and (arrays > 1 or array.layout.item)
    return CHUNKED if straight else COPIED
