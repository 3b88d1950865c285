"""Catalogs: built, brought up to date, and shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from lazynwb_dask.cli import interrupts, sources
from lazynwb_dask.cli.options import Call, names_option
from lazynwb_dask.cli.output import printable
from lazynwb_dask.cli.running import Command, Group, cluster, print_rows, say
from lazynwb_dask.cli.tables import of_catalog

if TYPE_CHECKING:
    from lazynwb_dask.catalog.catalog import Catalog


@click.group(cls=Group)
def catalog() -> None:
    """Index many NWB files once, and keep the index."""


@catalog.command(
    cls=Command, cluster=True,
    example="lazynwb-dask catalog build s3://lab/catalog s3://lab/sessions/\n"
            "lazynwb-dask catalog build catalog dandi:000409 --tables units",
)  # fmt: skip
@click.argument("url")
@click.option("--tables", "--table", multiple=True, metavar="NAME[,NAME...]", callback=names_option,
              help="Only these tables. May be repeated.")  # fmt: skip
def build(url: str, tables: list[str] | None, call: Call) -> None:
    """Index the NWB files at PATHS into a catalog in the folder URL.

    Files that were indexed before, also by an interrupted build, are not indexed again.
    """
    from lazynwb_dask.api.catalogs import build_catalog

    with _indexing(call):
        made = build_catalog(list(sources.given(call)), url, tables=tables, **call.access)
    _show(made, call)


@catalog.command(
    cls=Command,
    files=False,
    stores=True,
    cluster=True,
    example="lazynwb-dask catalog refresh s3://lab/catalog --skip-errors",
)
@click.argument("url")
@click.option("--anew", is_flag=True, help="Index all files again, also unchanged ones.")
@click.option("--skip-errors", is_flag=True, help="Skip files that can't be read, and list them.")
def refresh(url: str, anew: bool, skip_errors: bool, call: Call) -> None:
    """Index new and changed files into the catalog at URL, and drop deleted ones."""
    from lazynwb_dask.api.catalogs import open_catalog

    with _indexing(call):
        made = open_catalog(url, storage_options=call.storage_options).refresh(
            on_error="skip" if skip_errors else "raise", anew=anew
        )
    _show(made, call)


@catalog.command(cls=Command, files=False, stores=True, example="lazynwb-dask catalog show s3://lab/catalog")
@click.argument("url")
@click.option("--sessions", is_flag=True, help="Print the table of sessions.")
def show(url: str, sessions: bool, call: Call) -> None:
    """Show the catalog at URL: its tables, in how many files each is, and the files that can't be read."""
    from lazynwb_dask.api.catalogs import open_catalog

    opened = open_catalog(url, storage_options=call.storage_options)
    if sessions:
        print_rows(opened.sessions, call, "sessions")
    else:
        _show(opened, call)


@contextmanager
def _indexing(call: Call) -> Iterator[None]:
    """Within, an interrupt keeps what was indexed, and lets go of the catalog's lock."""
    from lazynwb_dask.catalog import lock

    hint = "What was indexed is kept: the same command goes on from there."
    with interrupts.undone(lock.let_go, hint), interrupts.orderly(), cluster(call):
        yield


def _show(opened: Catalog, call: Call) -> None:
    held, failures = opened.manifest, opened.failures
    say(f"{len(opened)} NWB files, indexed in {printable(opened.url)}")
    say(f"snapshot {held.snapshot}, {held.created}, lazynwb_dask {held.library}")
    print_rows(
        of_catalog(opened),
        call,
        "tables",
        created=held.created,
        failures=[{"error": row.error, "path": row.path} for row in failures.itertuples()],
        files=len(opened),
        library=held.library,
        snapshot=held.snapshot,
        url=opened.url,
    )
    if len(failures):
        say(f"{len(failures)} files can't be read:")
        for row in failures.itertuples():
            say(f"  {row.error}")
