"""Hundreds of NWB files as one lazy Dask DataFrame: only the columns and rows that a query needs are read."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        build_catalog,
        explain,
        list_tables,
        open_catalog,
        open_hdf5,
        read_nwb,
        read_report,
        schema_report,
    )
    from .catalogs.catalog import Catalog
    from .companions import contents, open_timeseries, read_sessions, with_sessions
    from .errors import (
        ColumnNotFoundError,
        NWBError,
        NWBReadError,
        SchemaConflictError,
        TableNotFoundError,
        UnsupportedColumnError,
    )
    from .joins import map_files, merge_by_file
    from .tracing import Trace, trace

__version__ = "0.1.0"

_HOMES = {
    "api": (
        "build_catalog",
        "explain",
        "list_tables",
        "open_catalog",
        "open_hdf5",
        "read_nwb",
        "read_report",
        "schema_report",
    ),
    "catalogs.catalog": ("Catalog",),
    "companions": ("contents", "open_timeseries", "read_sessions", "with_sessions"),
    "joins": ("map_files", "merge_by_file"),
    "errors": (
        "ColumnNotFoundError",
        "NWBError",
        "NWBReadError",
        "SchemaConflictError",
        "TableNotFoundError",
        "UnsupportedColumnError",
    ),
    "tracing": ("Trace", "trace"),
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Catalog",
    "ColumnNotFoundError",
    "NWBError",
    "NWBReadError",
    "SchemaConflictError",
    "TableNotFoundError",
    "Trace",
    "UnsupportedColumnError",
    "build_catalog",
    "contents",
    "explain",
    "list_tables",
    "map_files",
    "merge_by_file",
    "open_catalog",
    "open_hdf5",
    "open_timeseries",
    "read_nwb",
    "read_report",
    "read_sessions",
    "schema_report",
    "trace",
    "with_sessions",
]


def __getattr__(name: str) -> Any:
    # on first use, so that importing the package takes no time
    if name in _NAMES:
        value = getattr(import_module(f".{_NAMES[name]}", __name__), name)
        globals()[name] = value
        return value
    if name == "deploy":
        return import_module(".deploy", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
