"""Columns whose data are in another file: external links, external storage and virtual datasets.

They are refused unless the user asks for them (`allow_external_links=True`), and then only from local disk:
libhdf5 finds and opens the other files. Nothing else in this package lets it open a file.
"""

from __future__ import annotations

import os

import h5py
import numpy as np

from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.hdf5.datatypes import element_of
from lazynwb_dask.model.index import ArrayIndex, Layout
from lazynwb_dask.model.source import Source, is_local, local_path, shown

REFUSED = "links into other files are not followed; allow_external_links=True follows them"
GROUP_REFUSED = (
    "an external link to a table or TimeSeries, or to a group that holds it, which is not followed: with "
    "allow_external_links=True links to datasets are. Read it from the file that it is in"
)
STORE_REFUSED = "a link of a Zarr store into another, which is not followed: read it from there"
OTHER_STORE = b"another Zarr store\n"
"""The file that external links lead to in the file image of a store."""
_READABLE = ("number", "bool", "enum", "text", "complex", "string")


def external_array(source: Source, path: str) -> ArrayIndex:
    """The index of a dataset that is, or whose data are, in another file. `source` leads there.

    Raises UnsupportedColumnError if it can't be read.
    """
    if not is_local(source.url):
        raise UnsupportedColumnError("data in other files can be read from local disk only")
    try:
        with h5py.File(local_path(source.url), "r") as file:
            dataset = file[path]
            if not isinstance(dataset, h5py.Dataset):
                raise UnsupportedColumnError("a link to something else than a dataset")
            element = element_of(dataset.id.get_type())
            shape = dataset.shape or (1,)
    except (OSError, KeyError) as exc:
        if os.path.isdir(local_path(source.url)):
            raise UnsupportedColumnError(STORE_REFUSED) from None
        raise UnsupportedColumnError(f"the other file can't be read: {exc}") from None
    if element[0] not in _READABLE:
        raise UnsupportedColumnError(f"{element[0]} values in another file")
    layout = Layout(element, tuple(shape[1:]), external=path)
    return ArrayIndex.without_chunks(layout, shape[0])


def external_rows(source: Source, layout: Layout, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Row ranges of such a dataset, concatenated: stored bytes as uint8, or strings as objects."""
    try:
        with h5py.File(local_path(source.url), "r") as file:
            dataset = file[layout.external]
            pieces = [
                _read(dataset, layout, a, b) for a, b in zip(starts.tolist(), stops.tolist(), strict=True)
            ]
    except (OSError, KeyError) as exc:
        raise NWBReadError(f"{shown(source.url)}: {layout.external}: {exc}") from None
    return np.concatenate(pieces)


def _read(dataset: h5py.Dataset, layout: Layout, start: int, stop: int) -> np.ndarray:
    if layout.element[0] == "string":
        texts: np.ndarray = dataset.asstr(errors="replace")[start:stop].reshape(-1)
        return texts
    shape = (stop - start, *dataset.shape[1:])
    space = dataset.id.get_space()
    if shape:
        space.select_hyperslab((start, *[0] * len(shape[1:])), shape)
    out = np.empty((stop - start) * layout.row_bytes, np.uint8)
    dataset.id.read(h5py.h5s.create_simple(shape), space, out, dataset.id.get_type())
    return out
