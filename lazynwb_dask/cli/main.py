"""The command `lazynwb-dask`."""

from __future__ import annotations

import click

from lazynwb_dask import __version__
from lazynwb_dask.cli.about import config, info
from lazynwb_dask.cli.catalogs import catalog
from lazynwb_dask.cli.context import context
from lazynwb_dask.cli.demo import demo
from lazynwb_dask.cli.export import export, export_tables
from lazynwb_dask.cli.rows import explain, head, query
from lazynwb_dask.cli.running import Group
from lazynwb_dask.cli.sql import sql
from lazynwb_dask.cli.tables import assets, contents, paths, schema, sessions, tables


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  lazynwb-dask tables s3://lab/sessions/\n"
    '  lazynwb-dask query units --where "presence_ratio > 0.9" s3://lab/sessions/',
)
@click.version_option(__version__)
def main() -> None:
    """Hundreds of NWB files as one lazy Dask DataFrame.

    PATHS of a command are files, folders, globs, URLs, dandi: names or a catalog. Data are printed on stdout,
    messages on stderr. The exit code is 0 for success, 1 for an error, 2 for wrong usage.
    """


for _command in (
    assets, catalog, config, contents, context, demo, explain, export, export_tables, head, info, paths, query,
    schema, sessions, sql, tables,
):  # fmt: skip
    main.add_command(_command)
main.add_command(head, "preview")  # its name in lazynwb; left out of the help

if __name__ == "__main__":
    main()
