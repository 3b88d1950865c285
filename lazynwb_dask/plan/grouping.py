"""Which files are of one session: by what they say themselves, or as the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from lazynwb_dask.errors import ColumnNotFoundError
from lazynwb_dask.model.source import Source, local_url, shown
from lazynwb_dask.plan.sessions import session_table
from lazynwb_dask.scan.fields import Field
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.sources.expand import absolute
from lazynwb_dask.util.suggest import near_or_all

SESSION = "session_id"


def column_of(by: Any) -> str:
    """The name of the column that says which session a row is of."""
    if isinstance(by, str):
        return by
    if isinstance(by, (Mapping, pd.Series)):
        return SESSION
    raise TypeError(f"by={by!r}: 'session_id', or a mapping from file to session, such as a dict or a Series")


def session_of(scans: Sequence[Scan], by: Any, table: pd.DataFrame | None = None) -> dict[str, str]:
    """The session of each file of some scans. A file of which none is known is alone. Files are read, unless
    `by` is a mapping, or the table of their sessions is given."""
    urls = list(dict.fromkeys(url for scan in scans for url in scan.files.urls))
    name = column_of(by)
    if isinstance(by, str):
        if table is None or not {"_nwb_path", name} <= {*table.columns} or {*urls} - {*table["_nwb_path"]}:
            table = session_table(scans)
        found = _told(table, name, urls)
    else:
        found = {_path(path): value for path, value in by.items() if not pd.isna(value)}
        if urls and not any(url in found for url in urls):
            raise ValueError(
                "by=: it says of no file which session it is of. Files are named as in the column _nwb_path: "
                f"{shown(urls[0])}"
            )
    return {url: str(found.get(url, url)) for url in urls}


def _path(path: Any) -> str:
    """A file as it is named in `_nwb_path`, of a user's mapping."""
    (named,) = absolute([path])
    return named.url if isinstance(named, Source) else local_url(named)


def _told(table: pd.DataFrame, name: str, urls: Sequence[str]) -> dict[str, str]:
    if name not in table.columns:
        hint = near_or_all(name, table.columns)
        raise ColumnNotFoundError(f"by={name!r}: sessions have no such column{hint}")
    rows = table[table["_nwb_path"].isin(urls) & table[name].notna()]
    if name == SESSION and "subject_id" in rows.columns:
        subjects = rows.dropna(subset="subject_id").groupby(name)["subject_id"].unique()
        for session, of in subjects[subjects.map(len) > 1].items():
            raise ValueError(
                f"by={name!r}: {session!r} is a session of several subjects ({', '.join(of)}). Give a "
                "mapping from file to session: with sessions = read_sessions(paths).compute().set_index("
                "'_nwb_path'), by=sessions.subject_id + '/' + sessions.session_id"
            )
    return dict(zip(rows["_nwb_path"], rows[name], strict=True))


def with_sessions_of(scan: Scan, name: str, sessions: Mapping[str, str]) -> Scan:
    """The scan with the session of each file as a column."""
    values = pa.array([sessions[url] for url in scan.files.urls], pa.string())
    held = scan.files.facts.get(name)
    if name in scan.fields and (held is None or not held.cast(pa.string()).equals(values)):
        raise ValueError(
            f"by=: the frame has a column {name!r} already, which isn't the session of each file: rename it"
        )
    return scan if held is not None else scan.with_facts([Field(name, pa.string())], [values])


def by_session(table: pd.DataFrame, scans: Sequence[Scan], by: Any) -> pd.DataFrame:
    """A table with rows for sessions, or for other files of them, as one with a row for each file of some
    scans. Of several rows of a session that counts which says most."""
    name = column_of(by)
    sessions = session_of(scans, by, table)
    if not isinstance(by, str) and "_nwb_path" in table.columns:
        own = table[name] if name in table.columns else None
        mapped = table["_nwb_path"].map({_path(path): value for path, value in by.items()})
        table = table.assign(**{name: mapped if own is None else mapped.fillna(own)})
    if name not in table.columns:
        raise ColumnNotFoundError(f"by=: sessions= has no column {name!r}")
    best = table.iloc[table.isna().sum(axis=1).argsort(kind="stable").to_numpy()].drop_duplicates(name)
    rows = best.set_index(name).reindex(list(sessions.values())).reset_index()
    return rows.assign(_nwb_path=pd.array(list(sessions), dtype="str"))
