"""How users name tables."""

from __future__ import annotations

ALIASES = {
    "trials": "/intervals/trials",
    "epochs": "/intervals/epochs",
    "invalid_times": "/intervals/invalid_times",
    "electrodes": "/general/extracellular_ephys/electrodes",
}


def table_path(name: str) -> str:
    """The path of a table that was named by path or alias.

    >>> table_path("trials"), table_path("/trials"), table_path("units")
    ('/intervals/trials', '/trials', '/units')
    """
    return ALIASES.get(name, "/" + name.strip("/"))
