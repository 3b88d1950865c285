"""Small NWB files with h5py, for tests that need a table of just the kind in question."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np


@contextmanager
def nwb(path: str | os.PathLike[str], **kwargs: Any) -> Iterator[h5py.File]:
    """An NWB file open for writing, with what says that it is one."""
    with h5py.File(path, "w", **kwargs) as file:
        file.attrs["nwb_version"] = "2.8.0"
        file.attrs["neurodata_type"] = "NWBFile"
        file.attrs["namespace"] = "core"
        yield file


def table(file: h5py.File, path: str, rows: int, colnames: Sequence[str]) -> h5py.Group:
    """A table's group with its id."""
    group = file.create_group(path)
    group.attrs["colnames"] = np.array(list(colnames), dtype=h5py.string_dtype())
    group.attrs["neurodata_type"] = "DynamicTable"
    group.create_dataset("id", data=np.arange(rows))
    return group


def ragged(group: h5py.Group, name: str, ends: Any, data: Any, **kwargs: Any) -> None:
    """A column with its VectorIndex."""
    if data is not None:
        group.create_dataset(name, data=data, **kwargs)
    index = group.create_dataset(f"{name}_index", data=ends)
    index.attrs["neurodata_type"] = "VectorIndex"
    index.attrs["target"] = group[name].ref


def one(path: Path, column: Any, *, rows: int | None = None, **kwargs: Any) -> str:
    """A file whose table `/units` has a single column `x`."""
    with nwb(path) as file:
        group = table(file, "/units", len(column) if rows is None else rows, ["x"])
        group.create_dataset("x", data=column, **kwargs)
    return str(path)
