"""What the folders and files of an export are called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from lazynwb_dask.model.source import shown

NAME = 150  # letters of a name, at most
SESSIONS = "sessions"  # the table of sessions, which has no path in a file
SESSIONS_FILE = f"{SESSIONS}/{SESSIONS}.parquet"
_NULL = "__HIVE_DEFAULT_PARTITION__"  # what readers take for no name
_PART = re.compile(r"[^/]+-[0-9a-f]{16}\.parquet")


def session_column(columns: Iterable[str]) -> str:
    """What the folders of sessions are called: not as a column of the table.

    >>> session_column(["id", "session"])
    'nwb_session'
    """
    there = {name.lower() for name in columns}  # as SQL has names
    return next(name for name in ("session", "nwb_session", "nwb_session_") if name not in there)


def session_name(url: str, fields: Mapping[str, Mapping[str, Any]]) -> str:
    """The session of a file: its session_id, else its identifier, else its file's name."""
    for group, name in (("/general", "session_id"), ("/", "identifier")):
        found = fields.get(group, {}).get(name)
        if isinstance(found, list) and len(found) == 1:
            found = found[0]
        if found is not None and not isinstance(found, list) and str(found) not in ("", _NULL):
            return str(found).encode("utf-8", "backslashreplace").decode()
    return stem(url)


def stem(url: str) -> str:
    """The name of a file, without what is after its first dot."""
    path = shown(url).rstrip("/")
    return PurePosixPath(path).stem or path


def folder_name(name: str) -> str:
    """A name as part of a path, percent-encoded, as readers of Parquet decode it.

    >>> folder_name("a/b c"), folder_name(".."), folder_name("_x")
    ('a%2Fb%20c', '%2E.', '%5Fx')
    """
    quoted = quote(name, safe="", errors="backslashreplace").replace("~", "%7E")
    if quoted[:1] in (".", "_"):  # such files are hidden from some readers
        quoted = f"%{ord(quoted[0]):02X}{quoted[1:]}"
    if len(quoted) <= NAME:
        return quoted or "%20"
    return f"{quote(name[: NAME // 9], safe='', errors='backslashreplace')}-{digest(name)}"


def table_folders(tables: Sequence[str]) -> dict[str, str]:
    """The folder of each table: its path, or one name for a table within another, whose files are not its.

    >>> table_folders(["/units", "/events", "/events/events", "sessions"])
    {'/units': 'units', '/events': 'events', '/events/events': '%2Fevents%2Fevents', 'sessions': 'sessions'}
    """
    folders = {}
    for table in tables:
        names = table.strip("/").split("/")
        above = {"/".join(["", *names[:i]]) for i in range(1, len(names))}
        apart = not above.isdisjoint(tables) or table == f"/{SESSIONS}"
        folders[table] = folder_name(table) if apart else "/".join(map(folder_name, names))
    return folders


def part_name(label: str, key: str) -> str:
    """The name of a Parquet file, by what it is of.

    >>> part_name("sub-1 a", "/data/sub-1 a.nwb")
    'sub-1%20a-e43ecc3cd2965622.parquet'
    """
    return f"{folder_name(label[: NAME // 3])}-{digest(key)}.parquet"


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


def is_part(path: str, folders: Container[str] | None = None) -> bool:
    """Whether a path below the folder of an export is as those of parts are: in one of some tables' folders,
    if these are given.

    >>> is_part("units/session=1/a-e43ecc3cd2965622.parquet", ["units"]), is_part("units/mine.parquet")
    (True, False)
    >>> is_part("pilot/units/session=1/a-e43ecc3cd2965622.parquet", ["units"])
    False
    """
    place, _, name = path.rpartition("/")
    if path != SESSIONS_FILE and not _PART.fullmatch(name):
        return False
    above, _, last = place.rpartition("/")
    return folders is None or (above if "=" in last else place) in folders
