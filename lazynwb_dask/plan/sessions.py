"""Many files' sessions as one table, with a row for each file. Standard fields have a fixed type: text,
list of texts, or time. The types of other fields, which extensions add, are unified as those of tables
are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lazynwb_dask import config
from lazynwb_dask.decode.convert import convert
from lazynwb_dask.errors import Failure
from lazynwb_dask.metadata.queries import read_session
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.session import LINKS, SUBJECT, Session
from lazynwb_dask.plan.checks import warn_of_links
from lazynwb_dask.plan.each_file import each_file
from lazynwb_dask.plan.schema import common
from lazynwb_dask.plan.user_types import parse_type
from lazynwb_dask.scan.fields import Field
from lazynwb_dask.scan.scan import Scan
from lazynwb_dask.scan.to_pandas import series
from lazynwb_dask.storage.access import FileAccess

TIME = pa.timestamp("us", "UTC")
_TEXT, _TEXTS, _TIMES = pa.string(), pa.list_(pa.string()), pa.list_(TIME)

_OF_SESSION: Mapping[tuple[str, str], pa.DataType] = {
    ("/", "identifier"): _TEXT, ("/general", "session_id"): _TEXT,
    ("/", "session_start_time"): TIME, ("/", "session_description"): _TEXT,
    ("/", "timestamps_reference_time"): TIME, ("/", "file_create_date"): _TIMES,
    ("/general", "experiment_description"): _TEXT, ("/general", "experimenter"): _TEXTS,
    ("/general", "institution"): _TEXT, ("/general", "lab"): _TEXT,
    ("/general", "keywords"): _TEXTS, ("/general", "notes"): _TEXT,
    ("/general", "pharmacology"): _TEXT, ("/general", "protocol"): _TEXT,
    ("/general", "related_publications"): _TEXTS, ("/general", "data_collection"): _TEXT,
    ("/general", "slices"): _TEXT, ("/general", "source_script"): _TEXT,
    ("/general", "stimulus"): _TEXT, ("/general", "surgery"): _TEXT, ("/general", "virus"): _TEXT,
    ("/", "nwb_version"): _TEXT,
}  # fmt: skip
_OF_SUBJECT: Mapping[tuple[str, str], pa.DataType] = {
    (SUBJECT, name): TIME if name == "date_of_birth" else _TEXT
    for name in (
        "subject_id", "age", "age_reference", "date_of_birth", "description", "genotype", "sex",
        "species", "strain", "weight",
    )
}  # fmt: skip
_STANDARD = {**_OF_SESSION, **_OF_SUBJECT}


def read_sessions(
    sources: Sequence[Source], access: FileAccess, on_error: str = "raise"
) -> tuple[list[Session], list[Failure]]:
    """The sessions in source order, and the files that can't be read. See `each_file`."""
    found, failed = each_file(sources, partial(read_session, access=access), on_error)
    warn_of_fields(found)
    return found, failed


def fields_of(sessions: Sequence[Session]) -> dict[tuple[str, str], Field]:
    """The columns by their origin: the standard's fields, then all others, sorted."""
    found = {
        (group, name) for s in sessions for group in s.fields for name in s.fields[group] if group != LINKS
    }
    # in an order that doesn't depend on that of the files
    keys = [*_STANDARD, *sorted(found - _STANDARD.keys())]
    names: dict[str, tuple[str, str]] = {"_nwb_path": ("", "")}
    fields = {}
    for key in keys:
        group, name = key
        while name in names:  # the standard's come first
            name = f"{group.rpartition('/')[2] or 'root'}_{name}"
        names[name] = key
        kind = _STANDARD.get(key) or type_of([_value(s, key) for s in sessions])
        if kind is not None:
            fields[key] = Field(name, kind, nullable=True)
    return fields


def _value(session: Session, key: tuple[str, str]) -> Any:
    return session.fields.get(key[0], {}).get(key[1])


def table(sessions: Sequence[Session]) -> tuple[pd.DataFrame, list[str]]:
    """The sessions as a table, one row each in order, the file's path last; and the texts that should be
    times, but can't be parsed."""
    data, odd = {}, []
    for key, field in fields_of(sessions).items():
        values = [as_type(_value(s, key), field.type) for s in sessions]
        for session, value in zip(sessions, values, strict=True):
            if value is None and field.type in (TIME, _TIMES) and _value(session, key):
                text = str(_value(session, key))[:40]
                odd.append(f"{shown(session.source.url)}: {field.name} {text!r}")
        data[field.name] = series([pa.array(values, field.type)], field)
    urls = pa.array([s.source.url for s in sessions], pa.string())
    data["_nwb_path"] = series([urls], Field("_nwb_path", pa.string()))
    return pd.DataFrame(data, copy=False), odd


def warn_of_fields(sessions: Iterable[Session]) -> None:
    """Warn of fields that are missing since links aren't followed."""
    linked = []
    for session in sessions:
        links = session.links.items()
        mine = [(p, why) for p, why in links if p.startswith("/general") or ("/", p.strip("/")) in _STANDARD]
        linked.append((session.source, mine))
    warn_of_links(linked, "session and subject fields")


def parse_time(text: str) -> datetime | None:
    """An ISO 8601 time in UTC, which is also assumed if it has no zone. None if it is no time.

    >>> parse_time("2023-01-09T09:30:12.345-08:00")
    datetime.datetime(2023, 1, 9, 17, 30, 12, 345000, tzinfo=datetime.timezone.utc)
    >>> parse_time("2023-01-09")
    datetime.datetime(2023, 1, 9, 0, 0, tzinfo=datetime.timezone.utc)
    >>> parse_time("yesterday")
    """
    try:
        found = datetime.fromisoformat(text.strip())
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def type_of(values: Iterable[Any]) -> pa.DataType | None:
    """The type that holds all values of a field; None if there are no values."""
    kinds = {_kind(v) for v in values if v is not None} - {pa.null(), None}
    if not kinds:
        return None
    return common(kinds) or pa.string()


def _kind(value: Any) -> pa.DataType | None:
    if isinstance(value, list):
        inner = type_of(value)
        return None if inner is None else pa.list_(inner)
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -(2**63) <= value < 2**63 else pa.float64()
    return pa.float64() if isinstance(value, float) else pa.string()


def as_type(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_list(kind):
        found = [as_type(v, kind.value_type) for v in (value if isinstance(value, list) else [value])]
        return None if kind == _TIMES and None in found else found
    if isinstance(value, list):
        if kind != pa.string() and kind != TIME:
            return None
        if len(value) != 1:
            return str(value) if kind == pa.string() else None
        return as_type(value[0], kind)
    if kind == TIME:
        return parse_time(value) if isinstance(value, str) else None
    if kind == pa.string():
        return str(value)
    if pa.types.is_floating(kind):
        return float(value)
    return int(value) if pa.types.is_integer(kind) and not isinstance(value, np.floating) else value


def facts(
    table: pd.DataFrame, columns: Sequence[str], urls: Sequence[str]
) -> tuple[list[Field], list[pa.Array]]:
    """Columns of a session table made by `read_sessions`, with one value for each URL. Values are missing
    for files that the table doesn't have."""
    first = table.drop_duplicates("_nwb_path").set_index("_nwb_path")
    rows = first.index.get_indexer(pd.Index(list(urls)))
    picks = pa.array(rows, mask=rows < 0)
    fields, values = [], []
    for name in columns:
        held = pa.array(first[name], from_pandas=True)
        if isinstance(held, pa.ChunkedArray):
            held = held.combine_chunks()
        field = Field(name, parse_type(held.type), nullable=True)
        fields.append(field)
        values.append(convert(held.take(picks), field.type))
    return fields, values


def session_table(scans: Sequence[Scan]) -> pd.DataFrame:
    """The session table of the files of some scans, each file once."""
    found: list[Session] = []
    seen: set[str] = set()
    for scan in scans:
        new = [i for i, url in enumerate(scan.files.urls) if url not in seen]
        seen.update(scan.files.urls)
        sources = [scan.files.source(i) for i in new]
        access = config.file_access(scan.options)
        found += read_sessions(sources, access, scan.request.on_error)[0]
    return table(found)[0]
