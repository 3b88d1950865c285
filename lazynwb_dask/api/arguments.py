"""Arguments of the public functions: understood and checked here, handed down whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import pyarrow as pa
from dask.utils import parse_bytes

from lazynwb_dask import config
from lazynwb_dask.catalog.catalog import Catalog
from lazynwb_dask.cluster.client import memory_per_thread
from lazynwb_dask.errors import NWBError
from lazynwb_dask.metadata.queries import list_tables
from lazynwb_dask.model.series_view import Shown
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.names import table_path
from lazynwb_dask.predicate.filters_argument import from_filters
from lazynwb_dask.scan.request import TableRequest
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options
from lazynwb_dask.util.suggest import listed

BLOCKS = 8  # of those that fit into the memory of one thread

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Catalog  # or a table with _nwb_path


def check_bools(**given: Any) -> None:
    """Raise TypeError unless all are True or False."""
    for name, value in given.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name}={value!r}: must be True or False")


def check_frame(call: str, frame: Any) -> None:
    """Raise TypeError unless this is a frame, or something else, of Dask."""
    if not hasattr(type(frame), "expr"):
        raise TypeError(f"{call}: give a frame of read_nwb that is not computed, not {type(frame).__name__}")


def byte_count(name: str, value: Any, least: int = 1) -> int:
    """A number of bytes. Raises ValueError, or TypeError for what is neither a number nor text."""
    problem = f"{name}={value!r}: give a number of bytes, at least {least}, or text such as '128 MiB'"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, str, np.number)):
        raise TypeError(problem)
    try:
        found = int(parse_bytes(value) if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        raise ValueError(problem) from None
    if found < least:
        raise ValueError(problem)
    return found


def names_of(name: str, value: Any, what: str = "column") -> list[str]:
    """One or several names as a list. Raises TypeError for anything else."""
    names = [value] if isinstance(value, str) else value
    if isinstance(names, (bytes, Mapping)) or not isinstance(names, Iterable):
        raise TypeError(f"{name}={value!r}: must be the name of a {what}, or a list of names")
    names = list(names)
    if not all(isinstance(one, str) for one in names):
        raise TypeError(f"{name}={names!r}: must be the name of a {what}, or a list of names")
    return names


def file_access(paths: Paths, storage_options: Mapping[str, Any] | None) -> FileAccess:
    """How files are reached: by the options given, else by those that a catalog was opened with."""
    if storage_options is None and isinstance(paths, Catalog):
        return config.file_access(paths.index.folder.access.options)
    return config.file_access(Options(storage_options))


def sources_of(paths: Paths, access: FileAccess) -> Sequence[Source]:
    """The files that the user means."""
    return paths.sources if isinstance(paths, Catalog) else expand(paths, access)


def one_source(path: str | os.PathLike[str], access: FileAccess) -> Source:
    """The file that is meant. Raises ValueError if these are several."""
    source, *more = expand(path, access)
    if more:
        count, first = 1 + len(more), shown(source.url)
        raise ValueError(f"{path}: this takes one file; these are {count}. Name one, such as {first}")
    return source


def check_named(table: Any, paths: Paths, access: FileAccess) -> None:
    """Raise ValueError, with the tables that there are, if no table is named."""
    if table is None or (isinstance(table, (str, Sequence)) and not table):
        there = ""
        with suppress(NWBError):
            first = sources_of(paths, access)[0]
            there = f" In {shown(first.url)} there are: {listed(list_tables(first, access))}"
        raise ValueError(f"table={table!r}: name a table.{there}")


def table_request(
    table: Any,
    *,
    columns: str | Sequence[str] | None,
    filters: Any,
    schema: Any,
    blocksize: int | str | None,
    view: Shown | None,
    **policies: Any,
) -> TableRequest:
    """What a call of `read_nwb` asks of a table.

    Raises
    ------
    TypeError, ValueError
        An argument that can't be understood; names it, and what it may be.
    """
    if columns is not None:
        columns = tuple(names_of("columns", columns))
    check_bools(allow_external_links=policies.get("allow_external_links", False))
    return TableRequest(
        partial(_chosen, table) if callable(table) else table,
        columns,
        None if filters is None else from_filters(filters),
        _schema(schema),
        None if blocksize is None else _fitting(byte_count("blocksize", blocksize)),
        view=view,
        **policies,
    )


def _chosen(choose: Callable[[list[str]], Any], paths: list[str]) -> str | None:
    found = choose(paths)
    if found is None or isinstance(found, str):
        return found
    raise TypeError(f"table=: the function returned {found!r}: it must return one of the paths, or None")


def _schema(schema: Any) -> int | Mapping[str, Any] | pa.Schema | None:
    if schema is None or isinstance(schema, (Mapping, pa.Schema)):
        return schema
    if isinstance(schema, (int, np.integer)) and not isinstance(schema, bool):
        if schema < 1:
            raise ValueError(f"schema={schema}: at least one file is needed to infer a schema")
        return int(schema)
    raise TypeError(
        f"schema={schema!r}: must be None, a number of files, a dict of columns to types, or a pyarrow.Schema"
    )


def _fitting(blocksize: int) -> int:
    """A block size at which a few blocks for each thread fit into the memory of the cluster's workers."""
    share = memory_per_thread()
    return blocksize if share is None else max(min(blocksize, share // BLOCKS), 1)


def knows_table(paths: Paths, request: TableRequest) -> TypeGuard[Catalog]:
    """Whether paths are a catalog that knows all that is asked of a table.

    A catalog is of tables as they are: not of TimeSeries shown otherwise, or of other files' data.
    """
    if not isinstance(paths, Catalog) or request.view is not None or request.allow_external_links:
        return False
    if not (request.schema is None or isinstance(request.schema, Mapping)):
        return False
    if callable(request.table):
        return paths.manifest.keeps.tables is None
    return paths.holds([table_path(name) for name in request.table_names])
