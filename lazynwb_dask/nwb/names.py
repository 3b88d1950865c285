"""How users name tables."""

from __future__ import annotations

ALIASES = {
    "trials": "/intervals/trials",
    "epochs": "/intervals/epochs",
    "invalid_times": "/intervals/invalid_times",
    "electrodes": "/general/extracellular_ephys/electrodes",
}


def table_path(name: str) -> str:
    """The path of a table that was named by path or alias, or as h5py has it.

    >>> table_path("trials"), table_path("/trials"), table_path("units")
    ('/intervals/trials', '/trials', '/units')
    """
    # h5py has bytes that are not UTF-8 as surrogates: see `lazynwb_dask.hdf5.links.shown_name`
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return ALIASES.get(name, "/" + name.strip("/"))
