"""Which dataset of a table is the VectorIndex of which."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from h5py import h5a, h5t

from lazynwb_dask.hdf5.dataset import Dataset
from lazynwb_dask.hdf5.links import MAX_SMALL, attribute, text
from lazynwb_dask.hdf5.sparse_file import SparseFile


def indexes_of(datasets: Mapping[str, Dataset], sparse: SparseFile) -> dict[str, str]:
    """The name of the VectorIndex of each dataset that has one."""
    found: dict[str, str] = {}
    addresses = {dataset.address: name for name, dataset in datasets.items()}
    for name, dataset in datasets.items():
        try:
            if dataset.elsewhere is not None:
                layout = dataset.elsewhere.layout
                typed = not layout.item and layout.element[0] == "number"
            elif not dataset.here or dataset.problem or dataset.rank != 1:
                continue
            else:
                typed = dataset.kind in (h5t.INTEGER, h5t.FLOAT)
                typed = typed or (name.endswith("_index") and _is_typed(dataset))
            known = typed and dataset.here
            target = _target(dataset, addresses, sparse) if known else None
        except Exception:
            continue
        if typed and target is None and name.endswith("_index"):
            sibling = name.removesuffix("_index")
            target = sibling if sibling in datasets else None
        if target is not None and target != name and target not in found:
            found[target] = name
    return found


def _target(dataset: Dataset, addresses: Mapping[int, str], sparse: SparseFile) -> str | None:
    """The sibling that a VectorIndex's `target` refers to; None for none, a dead one, or itself."""
    try:
        if not dataset.has("target"):
            return None
        plain = dataset.header.reference("target") if dataset.header else None
        if plain is not None:
            return addresses.get(plain)
        held = h5a.open(dataset.id, b"target")
        kind = held.get_type()
        if kind.get_class() != h5t.REFERENCE or kind.get_size() != 8:
            return None
        if math.prod(held.shape) > MAX_SMALL:
            return None
        raw = np.zeros(held.shape, "<u8")
        held.read(raw, kind)
    except Exception:
        if sparse.missing:
            raise
        return None  # damaged: as good as dead
    return addresses.get(int(raw.reshape(-1)[0])) if raw.size else None


def _is_typed(dataset: Dataset) -> bool:
    """Whether a dataset says that it is a VectorIndex, whatever it holds."""
    return (
        dataset.has("neurodata_type")
        and text(attribute(dataset.id, "neurodata_type")) == "VectorIndex"
    )
