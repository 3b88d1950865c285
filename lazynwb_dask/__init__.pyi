"""The public names, each once: read by type checkers and editors, and by `__init__.py` itself."""

from lazynwb_dask import datasets as datasets
from lazynwb_dask import errors as errors
from lazynwb_dask.api.analysis import align_events as align_events
from lazynwb_dask.api.analysis import align_timeseries as align_timeseries
from lazynwb_dask.api.analysis import psth as psth
from lazynwb_dask.api.analysis import spike_counts as spike_counts
from lazynwb_dask.api.catalogs import build_catalog as build_catalog
from lazynwb_dask.api.catalogs import open_catalog as open_catalog
from lazynwb_dask.api.contents import contents as contents
from lazynwb_dask.api.dandi import dandi_assets as dandi_assets
from lazynwb_dask.api.dandi import group_assets_by_session as group_assets_by_session
from lazynwb_dask.api.explain import explain as explain
from lazynwb_dask.api.export import export_tables as export_tables
from lazynwb_dask.api.hdf5 import open_hdf5 as open_hdf5
from lazynwb_dask.api.interchange import to_arrow as to_arrow
from lazynwb_dask.api.interchange import to_awkward as to_awkward
from lazynwb_dask.api.interchange import to_polars as to_polars
from lazynwb_dask.api.interchange import to_pynapple as to_pynapple
from lazynwb_dask.api.interchange import to_xarray as to_xarray
from lazynwb_dask.api.joins import map_files as map_files
from lazynwb_dask.api.joins import merge_by_file as merge_by_file
from lazynwb_dask.api.regions import join_region as join_region
from lazynwb_dask.api.series import open_timeseries as open_timeseries
from lazynwb_dask.api.sessions import read_sessions as read_sessions
from lazynwb_dask.api.sessions import with_sessions as with_sessions
from lazynwb_dask.api.sql import SQLQuery as SQLQuery
from lazynwb_dask.api.sql import sql as sql
from lazynwb_dask.api.tables import list_tables as list_tables
from lazynwb_dask.api.tables import read_nwb as read_nwb
from lazynwb_dask.api.tables import read_report as read_report
from lazynwb_dask.api.tables import schema_report as schema_report
from lazynwb_dask.catalog.catalog import Catalog as Catalog
from lazynwb_dask.errors import ColumnNotFoundError as ColumnNotFoundError
from lazynwb_dask.errors import NWBError as NWBError
from lazynwb_dask.errors import NWBReadError as NWBReadError
from lazynwb_dask.errors import SchemaConflictError as SchemaConflictError
from lazynwb_dask.errors import SQLError as SQLError
from lazynwb_dask.errors import TableNotFoundError as TableNotFoundError
from lazynwb_dask.errors import UnsupportedColumnError as UnsupportedColumnError
from lazynwb_dask.explanation.trace import Trace as Trace
from lazynwb_dask.explanation.trace import trace as trace

__version__: str
