"""The command `lazynwb-dask`."""

from __future__ import annotations

import click

from . import __version__


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
    from .demo import run

    if sessions < 1 or workers < 1:
        raise click.UsageError("at least one session and one worker")
    try:
        run(sessions, workers, keep)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


@main.command()
@click.argument("path")
def tables(path: str) -> None:
    """List the tables of the NWB file at PATH, a local path or a URL."""
    from .api import list_tables
    from .errors import NWBError

    try:
        names = list_tables(path)
    except NWBError as exc:
        raise click.ClickException(str(exc)) from None
    for name in names:
        click.echo(name)


if __name__ == "__main__":
    main()
