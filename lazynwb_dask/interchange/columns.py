"""Which frames can be handed to other libraries."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pandas.api.types import is_object_dtype


def check_frame(frame: Any, call: str, *, dask: bool = False, more: str = "") -> None:
    """Raise TypeError if it is no frame (of Dask alone, if `dask`), or a column has no name or no
    certain type."""
    if not isinstance(getattr(frame, "_meta", None if dask else frame), pd.DataFrame):
        raise TypeError(f"{call}: {type(frame).__name__}: give a frame, as read_nwb makes them{more}")
    names = frame.columns.tolist()
    if len({*names}) < len(names):
        again = sorted({str(name) for name in names if names.count(name) > 1})
        raise ValueError(f"{call}: several columns have the same name: {', '.join(again)}: rename them")
    odd = [name for name in names if not isinstance(name, str) or not name]
    if odd:
        raise TypeError(f"{call}: {odd[0]!r} is not a valid column name: use text: frame.rename(columns=...)")
    for name, dtype in frame.dtypes.items():
        if is_object_dtype(dtype):
            raise TypeError(
                f"{call}: column {name!r} holds Python objects of unknown type: convert it, as "
                f"frame.astype({{{name!r}: 'string[pyarrow]'}}), or leave it out: frame.drop(columns={name!r})"
            )
