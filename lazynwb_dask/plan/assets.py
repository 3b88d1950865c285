"""Assets of dandisets as a table, with what their archive tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from lazynwb_dask.dandi.archive import Asset, as_text
from lazynwb_dask.dandi.assets import find
from lazynwb_dask.dandi.names import is_name
from lazynwb_dask.plan.sessions import TIME, parse_time
from lazynwb_dask.scan.fields import Field
from lazynwb_dask.scan.to_pandas import series
from lazynwb_dask.storage.access import FileAccess

PREFIX = "dandi_"  # of the columns on the rows of a frame
_TEXTS = pa.list_(pa.string())
_FIELDS = [
    Field("path", pa.string()), Field("size", pa.int64()), Field("modified", TIME, nullable=True),
    *[Field(name, pa.string(), nullable=True) for name in ("subject", "species", "sex", "age", "session")],
    Field("start_time", TIME, nullable=True), Field("variables", _TEXTS, nullable=True),
    Field("asset_id", pa.string()), Field("blob_id", pa.string(), nullable=True),
    Field("zarr_id", pa.string(), nullable=True), Field("_nwb_path", pa.string()),
]  # fmt: skip


def table(assets: Sequence[Asset]) -> pd.DataFrame:
    """One row for each asset, in order."""
    rows = [_row(asset) for asset in assets]
    data = {f.name: series([pa.array([row[f.name] for row in rows], f.type)], f) for f in _FIELDS}
    return pd.DataFrame(data, copy=False)


def of_files(urls: Iterable[str], access: FileAccess) -> pd.DataFrame:
    """The same of those files that are assets, with columns as they are called on the rows of a frame."""
    found = find([url for url in urls if is_name(url)], access, metadata=True)
    return on_rows(table([asset for assets in found.values() for asset in assets]))


def on_rows(assets: pd.DataFrame) -> pd.DataFrame:
    return assets.rename(columns=lambda name: name if name == "_nwb_path" else f"{PREFIX}{name}")


def _row(asset: Asset) -> dict[str, Any]:
    about = asset.about.get("metadata")
    about = about if isinstance(about, Mapping) else {}
    subjects = _listed(about, "wasAttributedTo", "Participant")
    sessions = _listed(about, "wasGeneratedBy", "Session")
    return {
        "path": asset.path,
        "size": asset.size,
        "modified": _time(asset.about.get("modified")),
        "subject": _joined(one.get("identifier") for one in subjects),
        "species": _joined(_in(one.get("species"), "name") for one in subjects),
        "sex": _joined(_in(one.get("sex"), "name") for one in subjects),
        "age": _joined(_in(one.get("age"), "value") for one in subjects),
        "session": _joined(one.get("identifier") or one.get("name") for one in sessions),
        "start_time": next(filter(None, (_time(one.get("startDate")) for one in sessions)), None),
        "variables": _variables(about.get("variableMeasured")),
        "asset_id": asset.id,
        "blob_id": asset.blob,
        "zarr_id": asset.zarr,
        "_nwb_path": asset.source.url,
    }


def _listed(about: Mapping[str, Any], name: str, kind: str) -> list[Mapping[str, Any]]:
    """The objects of one kind in a list of DANDI's schema."""
    held = about.get(name)
    rows = held if isinstance(held, list) else []
    return [row for row in rows if isinstance(row, Mapping) and row.get("schemaKey", kind) == kind]


def _in(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else value


def _joined(values: Iterable[Any]) -> str | None:
    """One text; several of them with commas."""
    texts = dict.fromkeys(as_text(str(value)) for value in values if value not in (None, ""))
    return ", ".join(texts) or None


def _variables(held: Any) -> list[str] | None:
    rows = held if isinstance(held, list) else []
    return [as_text(str(name)) for row in rows if (name := _in(row, "value"))] or None


def _time(text: Any) -> Any:
    return parse_time(text) if isinstance(text, str) else None
