"""Which TimeSeries of a file a name means."""

from __future__ import annotations

from collections.abc import Sequence

from lazynwb_dask.errors import TableNotFoundError
from lazynwb_dask.metadata.queries import open_file
from lazynwb_dask.model.index import TableIndex
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.jobs import IndexTable, ListLinks, ListSeries
from lazynwb_dask.nwb.names import table_path
from lazynwb_dask.nwb.series import SERIES
from lazynwb_dask.plan.checks import warn_of_links
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.util.suggest import did_you_mean, listed

_LINKS = ("acquisition", "stimulus/presentation", "stimulus/templates")  # with links to series


def find(
    source: Source, name: str | None, match_all: bool, access: FileAccess
) -> tuple[Source, list[TableIndex]]:
    """The source, with size and version, and the indexes of the series of a file that a name means.

    The name is a path, its end, or a part of it (see `matching`); None: all series. Raises
    TableNotFoundError if none matches, or without `match_all` more than one.
    """
    file = open_file(source, access)
    where = shown(source.url)
    if name is not None and not match_all:
        table = file.run(IndexTable((table_path(name),)))
        if table is not None:
            if SERIES not in table.attributes:
                raise TableNotFoundError(f"{where}: {table.path} is a table; read_nwb reads it")
            return file.source, [table]
    paths = file.run(ListSeries())
    chosen = matching(paths, name)
    if match_all:
        warn_of_links([(file.source, file.run(ListLinks()).value)], "TimeSeries")
    if name is not None and not chosen:
        # links to series are not listed
        linked = file.run(IndexTable(tuple(f"/{at}/{name.strip('/')}" for at in _LINKS)))
        if linked is not None and SERIES in linked.attributes:
            return file.source, [linked]
        hint = did_you_mean(f"/{name.strip('/')}", paths)
        raise TableNotFoundError(f"{where}: no TimeSeries {name}{hint} Its TimeSeries: {listed(paths)}")
    if len(chosen) != 1 and not match_all:
        what = "each of them" if name is None else repr(name)
        raise TableNotFoundError(
            f"{where}: {what} means {len(chosen)} TimeSeries: {listed(chosen)}. Give a path, or match_all=True"
        )
    found = [file.run(IndexTable((path,))) for path in chosen]
    return file.source, [table for table in found if table is not None]


def matching(paths: Sequence[str], name: str | None) -> list[str]:
    """The paths that a name means: it, else those that end in it, else those that contain it.

    >>> matching(["/acquisition/lfp", "/processing/ecephys/lfp", "/acquisition/lfp_raw"], "lfp")
    ['/acquisition/lfp', '/processing/ecephys/lfp']
    """
    if name is None:
        return list(paths)
    bare = name.strip("/")
    tests = (
        lambda path: path == f"/{bare}",
        lambda path: path.endswith(f"/{bare}"),
        lambda path: bare.lower() in path.lower(),
    )
    return next((found for test in tests if (found := [p for p in paths if test(p)])), [])
