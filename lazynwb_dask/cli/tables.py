"""What files hold: `paths`, `contents`, `tables`, `schema`, `sessions`, and `assets` of a dandiset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lazynwb_dask.cli import sources
from lazynwb_dask.cli.options import Call
from lazynwb_dask.cli.output import rows_of
from lazynwb_dask.cli.running import Command, print_rows

if TYPE_CHECKING:
    import pandas as pd

    from lazynwb_dask.catalog.catalog import Catalog


@click.command(cls=Command, example='lazynwb-dask paths "s3://lab/sessions/**/*.nwb"')
def paths(call: Call) -> None:
    """List the files that PATHS mean, and their sizes where a listing gives them.

    PATHS are files, folders, globs, URLs, dandi: names or a catalog.
    """
    from lazynwb_dask.api.arguments import file_access, sources_of

    meant = sources.paths(call)
    rows = []
    for name in meant if isinstance(meant, list) else [meant]:
        for source in sources_of(name, file_access(name, call.storage_options)):
            named = name if isinstance(name, str) else sources.given(call)[0]
            rows.append({"input": named, "resolved": source.url, "size": source.size})
    print_rows(rows_of(rows), call, "paths", resolved_count=len(rows))


@click.command(
    cls=Command,
    example="lazynwb-dask contents sub-01.nwb\n"
            "lazynwb-dask contents --per-file --format csv s3://lab/sessions/",
)  # fmt: skip
@click.option("--per-file", is_flag=True, help="With several files: list the objects of each.")
def contents(per_file: bool, call: Call) -> None:
    """Tables, time series and all other objects of a file, or in how many files each is.

    No data are read.
    """
    from lazynwb_dask.api.contents import contents

    found = contents(sources.paths(call), per_file=per_file, **call.access)
    order = ["_nwb_path", "path"] if "_nwb_path" in found.columns else ["path"]
    found = found.sort_values(order, kind="stable")
    if call.format == "table":
        found = found.drop(
            columns=["columns", *[c for c in found.columns if found[c].isna().all()]], errors="ignore"
        )
    print_rows(found, call, "objects")


@click.command(cls=Command, example="lazynwb-dask tables dandi:000409")
def tables(call: Call) -> None:
    """List the tables of the files at PATHS: in how many files each is, and how many rows it has."""
    print_rows(tables_of(call), call, "tables")


def tables_of(call: Call) -> pd.DataFrame:
    """A row for each table: its path, in how many files it is and isn't, and its rows in all of them."""
    from lazynwb_dask.catalog.catalog import Catalog

    meant = sources.paths(call)
    if isinstance(meant, Catalog):
        return of_catalog(meant)
    return _objects(call, "table")[["path", "files", "missing", "rows"]]


def of_catalog(opened: Catalog) -> pd.DataFrame:
    held = opened.tables.reset_index().rename(columns={"table": "path"}).sort_values("path")
    held.insert(2, "missing", len(opened) - held["files"])
    return held


def series_of(call: Call) -> pd.DataFrame:
    """The same of time series, with their types."""
    return _objects(call, "time series")[["path", "neurodata_type", "files", "missing", "rows"]]


def _objects(call: Call, kind: str) -> pd.DataFrame:
    from lazynwb_dask.api.contents import contents

    meant = sources.paths(call)
    meant = [meant] if isinstance(meant, str) else meant  # of one file too: in how many files
    found = contents(meant, **call.access)
    return found[found["kind"] == kind].sort_values("path")


@click.command(
    cls=Command,
    example='lazynwb-dask schema units "s3://lab/sessions/*.nwb"\nlazynwb-dask schema trials dandi:000409',
)
@click.argument("table")
def schema(table: str, call: Call) -> None:
    """What each column of TABLE is, and in how many of the files at PATHS."""
    from lazynwb_dask.nwb.names import table_path

    found = schema_of(table, call)
    if call.format == "table":
        found = found[[c for c in found.columns if not (found[c] == "").all()]]
    print_rows(found, call, "columns", table=table_path(table))


def schema_of(table: str, call: Call) -> pd.DataFrame:
    """The report of a table's columns, with their names as a column, sorted by them."""
    from lazynwb_dask.api.tables import schema_report

    found = schema_report(sources.paths(call), table, **call.access)
    return found.rename_axis("name").sort_index().reset_index()


@click.command(cls=Command, example="lazynwb-dask sessions --format csv s3://lab/sessions/ > sessions.csv")
def sessions(call: Call) -> None:
    """Session and subject metadata of the files at PATHS: a row for each file."""
    from lazynwb_dask.api.sessions import read_sessions

    frame = read_sessions(sources.paths(call), **call.access)
    found = frame.compute()
    if call.format == "table":
        found = found[[c for c in found.columns if not found[c].isna().all()]]
    print_rows(found, call, "sessions")


@click.command(
    cls=Command, files=False,
    example="lazynwb-dask assets dandi:000409\n"
            "lazynwb-dask assets --format csv dandi:000409@draft > assets.csv",
)  # fmt: skip
@click.argument("dandiset")
def assets(dandiset: str, call: Call) -> None:
    """The NWB files of DANDISET in the archive: path, size, subject, session, what was measured."""
    from lazynwb_dask.api.dandi import dandi_assets

    print_rows(dandi_assets(dandiset), call, "assets")
