"""The command `lazynwb-dask`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from lazynwb_dask import __version__

if TYPE_CHECKING:
    from lazynwb_dask.catalog.catalog import Catalog


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Hundreds of NWB files as one lazy Dask DataFrame."""


@main.command()
@click.option("--sessions", default=8, show_default=True, help="Files to make up.")
@click.option("--workers", default=2, show_default=True, help="Local worker processes.")
@click.option("--keep", type=click.Path(file_okay=False), help="Keep the files in this folder.")
def demo(sessions: int, workers: int, keep: str | None) -> None:
    """Run the main job on made-up sessions: quality control, then spike times."""
    if sessions < 1 or workers < 1:
        raise click.UsageError("at least one session and one worker")
    try:
        from lazynwb_dask.cli.demo import run

        run(sessions, workers, keep)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


@main.command()
@click.argument("path")
def tables(path: str) -> None:
    """List the tables of the NWB file at PATH, a local path or a URL."""
    from lazynwb_dask.api.tables import list_tables

    with _readable_errors():
        for name in list_tables(path):
            click.echo(name)


@main.group()
def catalog() -> None:
    """Index many NWB files once, and keep the index."""


_TOLERANT = click.option(
    "--skip-errors", is_flag=True, help="Leave out files that can't be read, and list them."
)
_CLUSTER = click.option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster that does the work.")


@catalog.command()
@click.argument("url")
@click.argument("paths", nargs=-1, required=True)
@click.option("--table", "tables", multiple=True, help="Only this table; may be repeated.")
@_TOLERANT
@_CLUSTER
def build(
    url: str, paths: tuple[str, ...], tables: tuple[str, ...], skip_errors: bool, scheduler: str | None
) -> None:
    """Index the NWB files at PATHS into a catalog in the folder URL.

    PATHS are files, folders, globs or URLs. What was indexed before, also by a build that was interrupted,
    isn't indexed again.
    """
    from lazynwb_dask.api.catalogs import build_catalog

    with _readable_errors(), _client(scheduler):
        made = build_catalog(list(paths), url, tables=list(tables) or None, on_error=_policy(skip_errors))
        _show(made)


@catalog.command()
@click.argument("url")
@click.option("--anew", is_flag=True, help="Index all files again.")
@_TOLERANT
@_CLUSTER
def refresh(url: str, anew: bool, skip_errors: bool, scheduler: str | None) -> None:
    """Index new and changed files into the catalog at URL, and drop vanished ones."""
    from lazynwb_dask.api.catalogs import open_catalog

    with _readable_errors(), _client(scheduler):
        _show(open_catalog(url).refresh(on_error=_policy(skip_errors), anew=anew))


@catalog.command()
@click.argument("url")
@click.option("--sessions", is_flag=True, help="The table of sessions, as CSV.")
def show(url: str, sessions: bool) -> None:
    """Say what the catalog at URL holds."""
    from lazynwb_dask.api.catalogs import open_catalog

    with _readable_errors():
        opened = open_catalog(url)
        if sessions:
            click.echo(opened.sessions.to_csv(index=False), nl=False)
        else:
            _show(opened)


def _policy(skip_errors: bool) -> str:
    return "skip" if skip_errors else "raise"


def _show(opened: Catalog) -> None:
    held = opened.manifest
    click.echo(f"{len(opened)} NWB files, indexed in {opened.url}")
    click.echo(f"snapshot {held.snapshot}, {held.created}, lazynwb_dask {held.library}")
    if len(opened):
        click.echo(opened.tables.to_string())
    failures = opened.failures
    if len(failures):
        click.echo(f"{len(failures)} files can't be read:")
        for row in failures.itertuples():
            click.echo(f"  {row.error}")


# Advice in messages, as commands and options.
_SPELT = {
    "on_error='skip'": "--skip-errors",
    "refresh(anew=True)": "catalog refresh --anew",
    "use build_catalog": "use catalog build",
    "with build_catalog": "with catalog build",
    "build_catalog(paths, url) makes one": "catalog build makes one",
}


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Show errors that users can mend without a traceback."""
    from lazynwb_dask.errors import NWBError

    try:
        yield
    except (NWBError, OSError, ValueError) as exc:
        text = str(exc)
        for python, here in _SPELT.items():
            text = text.replace(python, here)
        raise click.ClickException(text) from None
    except KeyboardInterrupt:
        click.echo("Interrupted. The same command goes on from here.", err=True)
        raise click.exceptions.Exit(130) from None


@contextmanager
def _client(scheduler: str | None) -> Iterator[None]:
    if scheduler is None:
        yield
        return
    from distributed import Client

    with Client(scheduler):
        yield


if __name__ == "__main__":
    main()
