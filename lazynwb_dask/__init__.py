"""Hundreds of NWB files as one lazy Dask DataFrame: only the columns and rows that a query needs are read."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import list_tables, open_hdf5, read_nwb, read_report, schema_report
    from .errors import (
        ColumnNotFoundError,
        NWBError,
        NWBReadError,
        SchemaConflictError,
        TableNotFoundError,
        UnsupportedColumnError,
    )

__version__ = "0.1.0"

_HOMES = {
    "api": ("list_tables", "open_hdf5", "read_nwb", "read_report", "schema_report"),
    "errors": (
        "ColumnNotFoundError",
        "NWBError",
        "NWBReadError",
        "SchemaConflictError",
        "TableNotFoundError",
        "UnsupportedColumnError",
    ),
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ColumnNotFoundError",
    "NWBError",
    "NWBReadError",
    "SchemaConflictError",
    "TableNotFoundError",
    "UnsupportedColumnError",
    "list_tables",
    "open_hdf5",
    "read_nwb",
    "read_report",
    "schema_report",
]


def __getattr__(name: str) -> Any:
    # on first use, so that importing the package takes no time
    if name in _NAMES:
        value = getattr(import_module(f".{_NAMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
