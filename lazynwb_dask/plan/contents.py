"""The objects in files as a table; for a single file also as a tree in notebooks."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd

from lazynwb_dask.errors import Failure
from lazynwb_dask.metadata import queries
from lazynwb_dask.model.source import Source, shown
from lazynwb_dask.nwb.contents import OTHER, TABLE, TIMESERIES
from lazynwb_dask.plan.each_file import each_file
from lazynwb_dask.plan.report import Shown
from lazynwb_dask.storage.access import FileAccess

COLUMNS = {  # with the pandas dtype of each
    "path": "string", "kind": "string", "neurodata_type": "string", "rows": "Int64",
    "shape": "object", "dtype": "string", "columns": "object", "stored_bytes": "Int64",
    "decoded_bytes": "Int64", "rate": "float64", "timestamps": "string", "unit": "string",
    "description": "string", "problem": "string",
}  # fmt: skip
_ICONS = {TABLE: "▦", TIMESERIES: "∿", OTHER: "▪"}


class Contents(Shown):
    """The objects of one file, shown as a tree in notebooks. A part of them is no tree any more."""

    def _repr_html_(self) -> str:
        name = html.escape(str(self.attrs.get("name", "")))
        return f"<div><strong>{name}</strong>{_list(_tree(self))}</div>"


def list_objects(
    sources: Sequence[Source], access: FileAccess, on_error: str
) -> tuple[list[tuple[Source, list[dict[str, Any]]]], list[Failure]]:
    """The objects of each file, in source order without duplicates, and the files that can't be read."""
    distinct = list(dict.fromkeys(sources))
    return each_file(distinct, partial(queries.list_objects, access=access), on_error)


def of_one(source: Source, objects: Sequence[dict[str, Any]]) -> Contents:
    data = {}
    for name, dtype in COLUMNS.items():
        values = [entry.get(name) for entry in objects]
        if name == "shape":
            values = [None if v is None else tuple(v) for v in values]
        data[name] = pd.Series(values, dtype=dtype)
    found = Contents(data)
    found.attrs["name"] = shown(source.url)
    return found


def of_each(files: Sequence[tuple[Source, Sequence[dict[str, Any]]]]) -> pd.DataFrame:
    """The objects of all files, one file after the other, with the column `_nwb_path`."""
    parts = [pd.DataFrame(of_one(*file)).assign(_nwb_path=file[0].url) for file in files]
    return pd.concat(parts, ignore_index=True).astype({"_nwb_path": "string"})


def of_many(files: Sequence[tuple[Source, Sequence[dict[str, Any]]]]) -> pd.DataFrame:
    """In how many files each object is, the most frequent first."""
    seen: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for source, objects in files:
        for entry in objects:
            seen[entry["path"], entry["kind"]].append((shown(source.url), entry))
    rows = []
    for (path, kind), found in seen.items():
        held = [entry for _, entry in found]
        stored = [entry.get("stored_bytes") for entry in held]
        rows.append(
            {
                "path": path,
                "kind": kind,
                "neurodata_type": ", ".join(dict.fromkeys(e["neurodata_type"] for e in held)),
                "files": len(held),
                "missing": len(files) - len(held),
                "rows": sum(e.get("rows") or 0 for e in held) if kind != OTHER else None,
                "dtype": ", ".join(dict.fromkeys(e["dtype"] for e in held if "dtype" in e)),
                "stored_bytes": None if None in stored else sum(filter(None, stored)),
                "decoded_bytes": sum(e.get("decoded_bytes") or 0 for e in held),
                "example": found[0][0],
            }
        )
    kinds = {
        "path": "string", "kind": "string", "neurodata_type": "string", "files": "int64",
        "missing": "int64", "rows": "Int64", "dtype": "string", "stored_bytes": "Int64",
        "decoded_bytes": "int64", "example": "string",
    }  # fmt: skip
    table = pd.DataFrame(rows, columns=list(kinds)).astype(kinds)
    return table.sort_values("files", ascending=False, kind="stable", ignore_index=True)


def _tree(frame: pd.DataFrame) -> dict[str, Any]:
    """The objects nested by the parts of their paths; the object itself has the key ""."""
    root: dict[str, Any] = {}
    for entry in frame.to_dict("records"):
        here = root
        for part in str(entry["path"]).strip("/").split("/"):
            here = here.setdefault(part, {})
        here[""] = entry
    return root


def _list(tree: dict[str, Any]) -> str:
    items = []
    for name, below in tree.items():
        if name == "":
            continue
        entry = below.get("")
        label = f"<code>{html.escape(name)}</code>"
        if entry is not None:
            label = f"{_ICONS.get(entry['kind'], '')} {label} {_about(entry)}"
        inner = _list(below) if len(below) > (entry is not None) else ""
        if inner:
            opened = " open" if entry is None or entry["kind"] == OTHER else ""
            items.append(f"<li><details{opened}><summary>{label}</summary>{inner}</details></li>")
        else:
            items.append(f"<li>{label}</li>")
    return f'<ul style="list-style: none">{"".join(items)}</ul>'


def _about(entry: dict[str, Any]) -> str:
    facts = [] if pd.isna(entry["neurodata_type"]) else [str(entry["neurodata_type"])]
    if entry["kind"] == TABLE:
        facts.append(f"{entry['rows']} rows x {len(entry['columns'] or ())} columns")
    elif entry["shape"] is not None:
        facts.append(" x ".join(map(str, entry["shape"])))
    facts += [str(entry[key]) for key in ("dtype", "unit") if not pd.isna(entry[key])]
    if not pd.isna(entry["rate"]):
        facts.append(f"{entry['rate']:g} Hz")
    if not pd.isna(entry["decoded_bytes"]) and entry["decoded_bytes"]:
        facts.append(_size(int(entry["decoded_bytes"])))
    text = html.escape(", ".join(facts))
    hint = "" if pd.isna(entry["description"]) else str(entry["description"])
    return f'<span title="{html.escape(hint, quote=True)}" style="opacity: 0.7">{text}</span>'


def _size(nbytes: int) -> str:
    """
    >>> _size(999), _size(1_500_000)
    ('999 B', '1.5 MB')
    """
    size, unit = float(nbytes), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g} {unit}"
