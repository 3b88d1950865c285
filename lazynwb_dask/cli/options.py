"""The options that many commands have."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import dask.dataframe as dd


@dataclass(frozen=True)
class Call:
    """What a command was given beside its own arguments. `table` are the arguments of `read_nwb`."""

    paths: tuple[str, ...] = ()
    storage_options: dict[str, Any] | None = None
    skip_errors: bool = False
    format: str = "table"
    scheduler: str | None = None
    workers: int | None = None
    table: dict[str, Any] = field(default_factory=dict)

    @property
    def on_error(self) -> str:
        return "skip" if self.skip_errors else "raise"

    @property
    def access(self) -> dict[str, Any]:
        """The arguments that all functions of files have."""
        return {"on_error": self.on_error, "storage_options": self.storage_options}

    def read(self, table: str) -> dd.DataFrame:
        """One table of the files that are meant."""
        from lazynwb_dask.api.tables import read_nwb
        from lazynwb_dask.cli.sources import paths

        return read_nwb(paths(self), table, **self.table, **self.access)


def _json_object(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    try:
        found = json.loads(value)
    except ValueError as exc:
        raise click.BadParameter(f"not JSON: {exc}") from None
    if not isinstance(found, dict):
        raise click.BadParameter("a JSON object, in braces")
    return found


def names_option(context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> list[str] | None:
    return [name.strip() for text in value for name in text.split(",")] or None


def _channels(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    if value is None or value == "all":
        return value
    try:
        return [int(number) for number in value.split(",")]
    except ValueError:
        raise click.BadParameter("numbers, as in 0,5; or all") from None


def debug_option() -> click.Option:
    def heed(context: click.Context, option: click.Parameter, value: bool) -> None:
        if value:
            context.meta["debug"] = True

    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=heed, help="Show where an error comes from."
    )


def of_files() -> list[click.Parameter]:
    return [
        click.Argument(["paths"], nargs=-1, type=click.Path()),
        click.Option(["--skip-errors"], is_flag=True, help="Skip files that can't be read, with a warning."),
        of_stores(),
    ]


def of_stores() -> click.Option:
    return click.Option(
        ["--storage-options"],
        metavar="JSON",
        callback=_json_object,
        help="fsspec's options for files and catalogs, such as '{\"anon\": true}'.",
    )


def of_tables(where: bool) -> list[click.Parameter]:
    """The arguments of `read_nwb`, under their names there."""
    condition = click.Option(
        ["--where", "filters"], metavar="CONDITION", help="Rows to keep, as in pandas' DataFrame.query."
    )
    return [
        *([condition] if where else []),
        click.Option(
            ["--columns"],
            multiple=True,
            metavar="NAME[,NAME...]",
            callback=names_option,
            help="Only these columns. May be repeated.",
        ),
        click.Option(
            ["--schema"],
            metavar="JSON",
            callback=_json_object,
            help='Types of columns that differ between files, such as \'{"unit_id": "string"}\'.',
        ),
        click.Option(
            ["--on-missing"],
            type=click.Choice(["skip", "raise"]),
            default="skip",
            help="What to do with files without the table.",
        ),
        click.Option(
            ["--blocksize"],
            metavar="SIZE",
            default="128 MiB",
            show_default=True,
            help="Approximate decoded size that a task reads.",
        ),
        click.Option(
            ["--channels"],
            metavar="N[,N...]",
            callback=_channels,
            help="Of a time series: these channels, each as a column; or all.",
        ),
        click.Option(["--scaled"], is_flag=True, help="Convert the data of a time series to its unit."),
        click.Option(["--allow-external-links"], is_flag=True, help="Follow links into other local files."),
    ]


def of_clusters() -> list[click.Parameter]:
    return [
        click.Option(["--scheduler"], metavar="ADDRESS", help="Compute on the cluster of this Dask scheduler."),
        click.Option(
            ["--workers"], type=click.IntRange(1), metavar="N", help="Compute in N local worker processes."
        ),
    ]
