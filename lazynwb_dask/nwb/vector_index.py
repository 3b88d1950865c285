"""VectorIndex: which dataset of a table points into the rows of which."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

import numpy as np
from h5py import h5a, h5t

from lazynwb_dask.hdf5.dataset import Dataset
from lazynwb_dask.hdf5.links import MAX_SMALL, attribute, text
from lazynwb_dask.hdf5.sparse_file import SparseFile


def vector_indexes(
    datasets: Mapping[str, Dataset], sparse: SparseFile, unopened: Container[str] = ()
) -> dict[str, str]:
    """The name of the VectorIndex of each dataset that has one.

    A VectorIndex refers to its dataset by the attribute `target`, or else by its name, ``<dataset>_index``,
    which may be that of one of the `unopened` datasets.
    """
    found: dict[str, str] = {}
    addresses = {dataset.address: name for name, dataset in datasets.items()}
    for name, dataset in datasets.items():
        try:
            if dataset.array is not None:
                layout = dataset.array.layout
                is_index = not layout.item and layout.element[0] == "number"
            elif not dataset.in_file or dataset.problem or dataset.rank != 1:
                continue
            else:
                is_index = dataset.type_class in (h5t.INTEGER, h5t.FLOAT)
                is_index = is_index or (name.endswith("_index") and _is_typed(dataset))
            if not is_index:
                continue
            target = _target(dataset, addresses, sparse) if dataset.in_file else None
        except Exception:
            continue
        if target is None and name.endswith("_index"):
            sibling = name.removesuffix("_index")
            target = sibling if sibling in datasets or sibling in unopened else None
        if target is not None and target != name and target not in found:
            found[target] = name
    return found


def _target(dataset: Dataset, addresses: Mapping[int, str], sparse: SparseFile) -> str | None:
    """The sibling that `target` refers to; None for none, and for a dangling reference."""
    try:
        if not dataset.has("target"):
            return None
        address = dataset.header.reference("target") if dataset.header else None
        if address is not None:
            return addresses.get(address)
        opened = h5a.open(dataset.id, b"target")
        kind = opened.get_type()
        if kind.get_class() != h5t.REFERENCE or kind.get_size() != 8:
            return None
        if math.prod(opened.shape) > MAX_SMALL:
            return None
        raw = np.zeros(opened.shape, "<u8")
        opened.read(raw, kind)
    except Exception:
        if sparse.missing:
            raise
        return None  # damaged
    return addresses.get(int(raw.reshape(-1)[0])) if raw.size else None


def _is_typed(dataset: Dataset) -> bool:
    """Whether the neurodata_type of a dataset is VectorIndex, whatever it holds."""
    return dataset.has("neurodata_type") and text(attribute(dataset.id, "neurodata_type")) == "VectorIndex"
