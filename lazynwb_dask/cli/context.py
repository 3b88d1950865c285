"""What an analyst, or a program that writes analyses, must know of some files."""

from __future__ import annotations

import json
import shlex
from typing import Any

import click

from lazynwb_dask import __version__
from lazynwb_dask.cli import sources
from lazynwb_dask.cli.options import Call
from lazynwb_dask.cli.output import echo, json_rows, printable, write_object
from lazynwb_dask.cli.running import Command
from lazynwb_dask.cli.tables import schema_of, series_of, tables_of

NOTES = (
    "Tables of all files are one: _nwb_path tells the file of a row, _table_index the row in that file.",
    "read_nwb reads metadata only. What a computation needs is read when it runs: the columns that it uses, "
    "and of large ones only the rows that its conditions leave.",
    "Put conditions on plain columns first, then ask for ragged ones such as spike_times.",
    "`missing` counts the files that lack a table or a column: their rows are missing, or null.",
    "dtypes are those of pandas; list<...>[pyarrow] are ragged columns, with .list accessors.",
    "Times are seconds from the session's timestamps_reference_time, unless a description says otherwise.",
    "JSON is written to stdout, messages to stderr.",
)


@click.command(
    cls=Command, formats=("table", "json"), example="lazynwb-dask context dandi:000409 > context.json"
)
def context(call: Call) -> None:
    """Describe the files at PATHS for an analysis: tables, columns, types, and how to read them."""
    given = sources.given(call)
    tables = json_rows(tables_of(call))
    for table in tables:
        columns = schema_of(table["path"], call)[["name", "dtype", "files", "missing", "description", "unit"]]
        table["columns"] = json_rows(columns)
    held: dict[str, Any] = {
        "command": "context",
        "notes": list(NOTES),
        "paths": list(given),
        "python": _python(given, tables),
        "recommended_workflow": _commands(given, tables),
        "series": json_rows(series_of(call)),
        "table_count": len(tables),
        "tables": tables,
        "version": __version__,
    }
    if call.format == "json":
        write_object(held)
    else:
        echo(printable(_text(held)))


def _python(given: tuple[str, ...], tables: list[dict[str, Any]]) -> str:
    path = tables[0]["path"] if tables else "/units"
    named = [column["name"] for column in tables[0]["columns"]] if tables else []
    paths = json.dumps(given[0] if len(given) == 1 else list(given), ensure_ascii=False)
    return "\n".join(
        [
            "import lazynwb_dask",
            "",
            f"frame = lazynwb_dask.read_nwb({paths}, {json.dumps(path)})",
            f"frame = frame[{json.dumps([*named[:3], '_nwb_path'])}]",
            "frame.head()  # or .compute(), or any other method of a Dask DataFrame",
        ]
    )


def _commands(given: tuple[str, ...], tables: list[dict[str, Any]]) -> list[str]:
    path = tables[0]["path"] if tables else "/units"
    each = [["paths"], ["tables"], ["schema", path], ["head", path], ["query", path], ["explain", path]]
    return [shlex.join(["lazynwb-dask", *words, *given]) for words in each]


def _text(held: dict[str, Any]) -> str:
    lines = [f"Files: {', '.join(held['paths'])}", ""]
    for table in held["tables"]:
        lines.append(f"{table['path']}: {table['rows']} rows in {table['files']} files")
        for column in table["columns"]:
            about = "  ".join(filter(None, [column["dtype"], column["unit"], column["description"]]))
            lines.append(f"  {column['name']}: {about}")
        lines.append("")
    lines += [f"{one['path']}: {one['neurodata_type']} in {one['files']} files" for one in held["series"]]
    lines += ["", "Next:", *[f"  {command}" for command in held["recommended_workflow"]]]
    lines += ["", "In Python:", *[f"  {line}" for line in held["python"].splitlines()]]
    return "\n".join([*lines, "", *[f"- {note}" for note in held["notes"]]])
