"""What datasets of a table refer to: a VectorIndex to the rows of another, EnumData to their labels."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

import numpy as np
from h5py import h5a, h5t

from lazynwb_dask.hdf5 import links
from lazynwb_dask.hdf5.dataset import Dataset
from lazynwb_dask.hdf5.sparse_file import SparseFile
from lazynwb_dask.model.index import UNDEFINED, flat_length


def vector_indexes(
    datasets: Mapping[str, Dataset], sparse: SparseFile, unopened: Container[str] = ()
) -> dict[str, str]:
    """The name of the VectorIndex of each dataset that has one.

    A VectorIndex refers to its dataset by the attribute `target`, or else by its name, ``<dataset>_index``,
    which may be that of one of the `unopened` datasets.
    """
    found: dict[str, str] = {}
    addresses = _by_address(datasets)
    one_row = "id" in datasets and datasets["id"].length == 1
    for name, dataset in datasets.items():
        try:
            if dataset.array is not None:
                layout = dataset.array.layout
                is_index = layout.element[0] == "number"
            elif not dataset.in_file or dataset.problem:
                continue
            else:
                is_index = dataset.type_class in (h5t.INTEGER, h5t.FLOAT)
                is_index = is_index or (name.endswith("_index") and _is_typed(dataset))
            if not is_index:
                continue
            targets = _targets(dataset, addresses, sparse) if dataset.in_file else []
            if name in targets or "id" in targets:
                targets = []
            if not targets and name.endswith("_index"):
                sibling = name.removesuffix("_index")
                # by its name alone only what has the shape of an index is one
                known = sibling in datasets or sibling in unopened
                is_list = flat_length(dataset.shape) is not None and bool(dataset.shape or one_row)
                if known and (is_list or _is_typed(dataset)):
                    targets = [sibling]
        except Exception:
            continue
        for target in targets:
            if target not in found or name == f"{target}_index":
                found[target] = name
    return found


def enum_elements(datasets: Mapping[str, Dataset], sparse: SparseFile) -> set[str]:
    """The datasets that hold the labels of EnumData in the same table."""
    addresses = _by_address(datasets)
    here = [d for d in datasets.values() if d.in_file and not d.problem and d.type_class == h5t.INTEGER]
    return {name for d in here for name in _targets(d, addresses, sparse, "elements")}


def _by_address(datasets: Mapping[str, Dataset]) -> dict[int, list[str]]:
    """The names of each dataset: several links of a group may lead to one."""
    found: dict[int, list[str]] = {}
    for name, dataset in datasets.items():
        if dataset.address != UNDEFINED:
            found.setdefault(dataset.address, []).append(name)
    return found


def _targets(
    dataset: Dataset, addresses: Mapping[int, list[str]], sparse: SparseFile, attribute: str = "target"
) -> list[str]:
    """The names of the sibling that an attribute refers to; none for a dangling reference."""
    try:
        if not dataset.has(attribute):
            return []
        address = dataset.header.reference(attribute) if dataset.header else None
        if address is not None:
            return addresses.get(address, [])
        opened = h5a.open(dataset.id, attribute.encode())
        kind = opened.get_type()
        if kind.get_class() != h5t.REFERENCE or kind.get_size() != 8:
            return []
        if math.prod(opened.shape) > links.MAX_SMALL:
            return []
        raw = np.zeros(opened.shape, "<u8")
        opened.read(raw, kind)
    except Exception:
        if sparse.missing:
            raise
        return []  # damaged
    return addresses.get(int(raw.reshape(-1)[0]), []) if raw.size else []


def _is_typed(dataset: Dataset) -> bool:
    """Whether the neurodata_type of a dataset is VectorIndex, whatever it holds."""
    return (
        dataset.in_file
        and dataset.has("neurodata_type")
        and links.text(links.attribute(dataset.id, "neurodata_type")) == "VectorIndex"
    )
