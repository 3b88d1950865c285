"""Rows of a table: `head`, `preview` and `query`; and `explain`, what these would read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lazynwb_dask.cli.options import Call
from lazynwb_dask.cli.output import echo, printable, write_object
from lazynwb_dask.cli.running import Command, cluster, print_rows, say, tell_left_out

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 100


@click.command(
    cls=Command, cluster=True, rows=True, where=False,
    example='lazynwb-dask head units -n 3 "s3://lab/sessions/*.nwb"\nlazynwb-dask head trials --columns '
            "start_time,stop_time dandi:000409",
)  # fmt: skip
@click.argument("table")
@click.option(
    "-n", "--limit", type=click.IntRange(0), metavar="N", default=5, show_default=True, help="Number of rows."
)
def head(table: str, limit: int, call: Call) -> None:
    """The first rows of TABLE, over all files at PATHS in their order.

    TABLE is a path in the files (/units) or an alias (trials, epochs, invalid_times, electrodes). PATHS are
    files, folders, globs, URLs, dandi: names or a catalog.
    """
    with cluster(call):
        _print(table, limit, call)


@click.command(
    cls=Command, cluster=True, rows=True,
    example='lazynwb-dask query units --where "snr > 3" --columns unit_id,location s3://lab/catalog\n'
            "lazynwb-dask query units --where \"location == 'VISp'\" --limit 0 --format csv dandi:000409",
)  # fmt: skip
@click.argument("table")
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(0),
    metavar="N",
    default=LIMIT,
    show_default=True,
    help="At most so many rows; 0 for all.",
)
def query(table: str, limit: int, call: Call) -> None:
    """The rows of TABLE that satisfy a condition, over all files at PATHS.

    Only the columns that are used are read, and large ones only for the rows that pass. If there are more than
    --limit rows, a message on stderr says so, and "truncated" in JSON is true.
    """
    with cluster(call):
        if _print(table, limit or None, call):
            say(f"There are more than {limit} rows: --limit N prints more, --limit 0 all, export writes them.")


@click.command(
    cls=Command, rows=True, formats=("table", "json"),
    example='lazynwb-dask explain units --where "presence_ratio > 0.9" --columns spike_times s3://lab/sessions/',
)  # fmt: skip
@click.argument("table")
def explain(table: str, call: Call) -> None:
    """What a query of TABLE would read: files, columns, requests and bytes, without reading it."""
    from lazynwb_dask.api.explain import explain

    told = explain(call.read(table))
    if call.format == "json":
        write_object({"command": "explain", **dataclasses.asdict(told)})
    else:
        echo(printable(str(told)))


def _print(table: str, limit: int | None, call: Call) -> bool:
    """Print rows, and return whether there are more than so many."""
    from lazynwb_dask.nwb.names import table_path
    from lazynwb_dask.stream.batches import batches

    frame, left, more = call.read(table), limit, False

    def rows() -> Iterator[pd.DataFrame]:
        nonlocal left, more
        # one row more than is printed, to know whether there is one
        for part in batches(frame, None if limit is None else limit + 1):
            there = part if left is None else part.iloc[:left]
            more = len(there) < len(part)
            left = None if left is None else left - len(there)
            yield there
        tell_left_out(frame)

    about = {"limit": limit, "table": table_path(table), "where": call.table.get("filters")}
    print_rows(rows(), call, "rows", truncated=lambda: more, **about)
    return more
