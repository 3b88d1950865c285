"""The version of the NWB schema that a file follows."""

from __future__ import annotations

from h5py import h5d, h5g

from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.hdf5.links import attribute, find, small, text


def check_nwb(root: h5g.GroupID, name: str) -> None:
    """Raise NWBReadError unless the file is NWB 2."""
    version = nwb_version(root)
    if version is None:
        raise NWBReadError(f"{name}: an HDF5 file, but not NWB: it has no nwb_version")
    if version.startswith(("1.", "NWB-1.", "0.")):
        raise NWBReadError(
            f"{name}: NWB {version.removeprefix('NWB-')}; only NWB 2 has tables. "
            "Convert the file, or read it with h5py (lazynwb_dask.open_hdf5)"
        )


def nwb_version(root: h5g.GroupID) -> str | None:
    """The `nwb_version` of a file: an attribute, in NWB 1 a dataset; None if there is none."""
    value = attribute(root, "nwb_version")
    if value is not None:
        return text(value)
    if not root.links.exists(b"nwb_version"):
        return None
    found = find(root, "nwb_version")
    if found is None or not isinstance(found[0], h5d.DatasetID):
        return None
    return text(small(found[0]))
