"""The command `sql`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lazynwb_dask.cli import sources
from lazynwb_dask.cli.options import Call
from lazynwb_dask.cli.output import echo, printable, write_object
from lazynwb_dask.cli.running import Command, cluster, print_rows, scratch_folder, tell_left_out

if TYPE_CHECKING:
    import pandas as pd

    from lazynwb_dask.api.sql import SQLQuery
    from lazynwb_dask.scan.request import Policy


@click.command(
    cls=Command, cluster=True,
    example='lazynwb-dask sql "SELECT location, count(*) FROM units GROUP BY 1" s3://lab/sessions/\n'
            'lazynwb-dask sql --explain "SELECT spike_times FROM units WHERE snr > 3" dandi:000409',
)  # fmt: skip
@click.argument("statement")
@click.option("--explain", is_flag=True, help="Print what would be read, without reading it.")
@click.option(
    "--on-missing",
    type=click.Choice(["skip", "raise"]),
    default="skip",
    help="What to do with files without a table.",
)
def sql(statement: str, explain: bool, on_missing: Policy, call: Call) -> None:
    """Run a SELECT over tables of all files at PATHS.

    STATEMENT names tables by their path in the files, in double quotes, or alias (units, trials, epochs,
    electrodes, ...); sessions has a row for each file. Only the columns and rows that it needs are read.
    """
    import dask

    from lazynwb_dask.api import sql as api

    with cluster(call), scratch_folder() as folder, dask.config.set({"temporary-directory": folder}):
        query = api.sql(statement, sources.paths(call), on_missing=on_missing, **call.access)
        if not explain:
            print_rows(_rows(query), call, "rows", statement=statement)
        elif call.format == "json":
            write_object({"command": "sql", "statement": statement, **dataclasses.asdict(query.explain())})
        else:
            echo(printable(str(query.explain())))


def _rows(query: SQLQuery) -> Iterator[pd.DataFrame]:
    import pyarrow as pa

    from lazynwb_dask.sql_engine.results import to_pandas

    batch = None
    for batch in query.record_batches():
        yield to_pandas(pa.Table.from_batches([batch]))
    if batch is None:
        yield to_pandas(pa.Table.from_batches([], query.schema))
    tell_left_out(query)
