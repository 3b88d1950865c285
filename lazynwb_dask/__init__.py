"""Hundreds of NWB files as one lazy Dask DataFrame: only the columns and rows that a query needs are read."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from lazynwb_dask.api.analysis import align_events, align_timeseries, psth, spike_counts
    from lazynwb_dask.api.catalogs import build_catalog, open_catalog
    from lazynwb_dask.api.contents import contents
    from lazynwb_dask.api.dandi import dandi_assets, group_assets_by_session
    from lazynwb_dask.api.explain import explain
    from lazynwb_dask.api.hdf5 import open_hdf5
    from lazynwb_dask.api.joins import map_files, merge_by_file
    from lazynwb_dask.api.regions import join_region
    from lazynwb_dask.api.series import open_timeseries
    from lazynwb_dask.api.sessions import read_sessions, with_sessions
    from lazynwb_dask.api.sql import SQLQuery, sql
    from lazynwb_dask.api.tables import list_tables, read_nwb, read_report, schema_report
    from lazynwb_dask.catalog.catalog import Catalog
    from lazynwb_dask.errors import (
        ColumnNotFoundError,
        NWBError,
        NWBReadError,
        SchemaConflictError,
        SQLError,
        TableNotFoundError,
        UnsupportedColumnError,
    )
    from lazynwb_dask.explanation.trace import Trace, trace


_HOMES = {
    "api.analysis": ("align_events", "align_timeseries", "psth", "spike_counts"),
    "api.catalogs": ("build_catalog", "open_catalog"),
    "api.contents": ("contents",),
    "api.dandi": ("dandi_assets", "group_assets_by_session"),
    "api.explain": ("explain",),
    "api.hdf5": ("open_hdf5",),
    "api.joins": ("map_files", "merge_by_file"),
    "api.regions": ("join_region",),
    "api.series": ("open_timeseries",),
    "api.sessions": ("read_sessions", "with_sessions"),
    "api.sql": ("SQLQuery", "sql"),
    "api.tables": ("list_tables", "read_nwb", "read_report", "schema_report"),
    "catalog.catalog": ("Catalog",),
    "errors": (
        "ColumnNotFoundError", "NWBError", "NWBReadError", "SQLError",
        "SchemaConflictError", "TableNotFoundError", "UnsupportedColumnError",
    ),
    "explanation.trace": ("Trace", "trace"),
}  # fmt: skip
_NAMES = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Catalog", "ColumnNotFoundError", "NWBError", "NWBReadError", "SQLError", "SQLQuery",
    "SchemaConflictError", "TableNotFoundError", "Trace", "UnsupportedColumnError", "__version__",
    "align_events", "align_timeseries", "build_catalog", "contents", "dandi_assets", "explain",
    "group_assets_by_session", "join_region", "list_tables", "map_files", "merge_by_file", "open_catalog",
    "open_hdf5", "open_timeseries", "psth", "read_nwb", "read_report", "read_sessions", "schema_report",
    "spike_counts", "sql", "trace", "with_sessions",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # on first use, so that importing the package takes no time
    if name in _NAMES:
        value = getattr(import_module(f".{_NAMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
