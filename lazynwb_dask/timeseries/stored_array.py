"""A dataset as an array of which Dask takes blocks. It travels in graphs, in place of an open file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lazynwb_dask.cluster.events import observed
from lazynwb_dask.errors import UnsupportedColumnError
from lazynwb_dask.model.index import ArrayIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.read.arrays import read_block
from lazynwb_dask.read.block import Block
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

_NUMBERS = ("number", "bool", "odd")
_TEXTS = ("string", "text", "enum")


@dataclass(frozen=True, eq=False)
class StoredArray:
    """The values of one dataset, read when an index is taken.

    Holds the positions of the dataset's chunks; no values, no open file and no secrets.
    """

    source: Source
    path: str  # the dataset's path in the file, for messages
    array: ArrayIndex
    rows: int  # the number of rows to show, at most those that are stored
    options: Options

    def __post_init__(self) -> None:
        kind = self.array.layout.element[0]
        if kind not in (*_NUMBERS, *_TEXTS):
            raise UnsupportedColumnError(f"{self}: values of the kind {kind} make no array")

    def __str__(self) -> str:
        return f"{shown(self.source.url)}: {self.path}"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.rows, *self.array.layout.item)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        element = self.array.layout.element
        if element[0] in _TEXTS:
            return np.dtype(object)
        if element[0] == "bool":
            return np.dtype(bool)
        return np.dtype(element[2] if element[0] == "odd" else element[1]).newbyteorder("=")

    @property
    def chunks(self) -> tuple[int, ...]:
        """The shape of a stored chunk, or of a row if the data are contiguous."""
        return self.array.layout.chunk or (1, *self.array.layout.item)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        source = self.source
        known = *source.key, self.path, self.shape
        return "stored", *known, self.options.token

    def __getitem__(self, key: Any) -> np.ndarray:
        """The values at `key`, as of a NumPy array, but arrays of numbers index each axis by itself."""
        keys, new = _key_of_each_axis(key, self.ndim)
        picks = [_pick(k, n) for k, n in zip(keys, self.shape, strict=True)]
        rows = picks[0].wanted
        starts = rows[np.diff(rows, prepend=-2) != 1]
        stops = rows[np.diff(rows, append=rows[-1:] + 2) != 1] + 1
        box = tuple((int(p.wanted[0]), int(p.wanted[-1]) + 1) if p.wanted.size else (0, 0)
                    for p in picks[1:])  # fmt: skip
        shape = (len(rows), *[b - a for a, b in box])
        if math.prod(shape):
            with observed() as settings:
                found = read_block(
                    self.source,
                    self.path,
                    self.array,
                    Block(starts, stops, box),
                    FileAccess(self.options, settings),
                )
        else:
            found = np.empty(shape, self.dtype)
        for axis in reversed(range(self.ndim)):
            pick, before = picks[axis], (slice(None),) * axis
            index = pick.index
            if axis:  # what was read are the rows wanted, and whole ranges of the other axes
                index = pick.wanted[index] - box[axis - 1][0]
            where: Any = int(index[0]) if pick.single else _slice(index)
            found = found[(*before, where)]
        return found[tuple([None if n else slice(None) for n in new])] if any(new) else found


@dataclass(frozen=True)
class _Pick:
    """The key of one axis."""

    wanted: np.ndarray  # the positions to read, sorted
    index: np.ndarray  # for each position of the key its place in `wanted`
    single: bool  # the key is a number, so that the axis is dropped


def _pick(key: Any, size: int) -> _Pick:
    """A key of one axis: a number, a slice, or an array of numbers or truth values."""
    single = np.ndim(key) == 0 and not isinstance(key, (slice, bool, np.bool_))
    if isinstance(key, slice):
        positions = np.arange(*key.indices(size))
    elif single:
        positions = np.array([int(key)])
    else:
        positions = np.asarray(key)
        positions = np.flatnonzero(positions) if positions.dtype == bool else positions.astype(np.int64)
    positions = np.where(positions < 0, positions + size, positions)
    if ((positions < 0) | (positions >= size)).any():
        raise IndexError(f"index {key!r} is out of bounds for an axis of {size}")
    return _Pick(*np.unique(positions, return_inverse=True), single)


def _slice(index: np.ndarray) -> Any:
    """Positions as a slice if they are consecutive: no copy is made then."""
    if index.size and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _key_of_each_axis(key: Any, ndim: int) -> tuple[list[Any], list[bool]]:
    """A key for each axis; and for each axis of the result, whether it is a new one."""
    keys = list(key) if isinstance(key, tuple) else [key]
    real = [k for k in keys if k is not None and k is not Ellipsis]
    fill = [slice(None)] * (ndim - len(real))
    if not any(k is Ellipsis for k in keys):
        keys.append(Ellipsis)
    full: list[Any] = []
    for k in keys:
        full += fill if k is Ellipsis else [k]
    kept = [k for k in full if k is None or np.ndim(k) > 0 or isinstance(k, slice)]
    return [k for k in full if k is not None], [k is None for k in kept]
