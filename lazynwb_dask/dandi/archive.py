"""What an archive tells of dandisets and assets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from lazynwb_dask.dandi.names import Name
from lazynwb_dask.errors import NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.source import Source, links
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.archives import DRAFT, SCHEME, AssetURL, is_id
from lazynwb_dask.storage.dandi_api import get_json
from lazynwb_dask.util.threads import at_once

PAGE = 1000  # assets of one request
PAGES = 8  # requests at a time: an archive answers "too many" to more
MOST = 10_000_000  # assets of a dandiset: whatever declares more is damaged
TRIES = 3  # listings of a draft that changes meanwhile


class Asset(NamedTuple):
    """One asset: a blob, or a Zarr store."""

    url: AssetURL
    path: str
    size: int
    id: str
    blob: str | None
    zarr: str | None
    about: Mapping[str, Any]  # what else the archive tells of it

    @property
    def source(self) -> Source:
        if self.zarr is not None and not self.url.archive.bucket:
            raise NWBReadError(
                f"{self.url}: a Zarr store in a bucket that isn't known: name it in the setting dandi-instances"
            )
        if self.zarr is not None:
            return Source(self.url.archive.zarr(self.zarr))
        return Source(str(self.url), self.size, self.blob)


def version_of(name: Name, access: FileAccess) -> str:
    """The version that is named, else the one published last, else the draft."""
    if name.version:
        return name.version
    url = f"{SCHEME}{name.archive.name}/{name.dandiset}"
    about = get_json(url, name.archive, f"dandisets/{name.dandiset}/", {}, access)
    published = about.get("most_recent_published_version") if isinstance(about, dict) else None
    if isinstance(published, dict) and isinstance(published.get("version"), str):
        return str(published["version"])
    return DRAFT


def list_assets(name: Name, prefix: str, access: FileAccess, metadata: bool = False) -> list[Asset]:
    """The assets of a dandiset's version whose paths begin with a prefix, sorted by path."""
    url = f"{SCHEME}{name.archive.name}/{name.dandiset}@{name.version}"
    query = {"page_size": str(PAGE), "order": "path"}
    if metadata:
        query["metadata"] = "true"
    if prefix:
        query["path"] = prefix
    where = f"dandisets/{name.dandiset}/versions/{name.version}/assets/"

    def page(number: int) -> list[Any]:
        return _results(get_json(url, name.archive, where, {**query, "page": str(number)}, access), url)

    for _ in range(TRIES):
        first = get_json(url, name.archive, where, query, access)
        rows = _results(first, url)
        count = first.get("count")
        if not isinstance(count, int) or not len(rows) <= count <= MOST or (count and not rows):
            raise _odd(url)
        pages = -(-count // len(rows)) if rows else 1
        try:
            for more in at_once([partial(page, number) for number in range(2, pages + 1)], PAGES):
                rows += more
        except NWBFileNotFoundError:  # there are fewer pages now
            continue
        found = {asset.path: asset for asset in (_asset(row, name, url) for row in rows)}
        if len(found) == count:
            return sorted(found.values(), key=lambda asset: asset.path)
    raise NWBReadError(f"{url}: its list of assets changed while it was read, {TRIES} times. Try again later.")


def asset_of(name: Name, access: FileAccess) -> Asset:
    """The asset that is named by its id."""
    url = str(AssetURL(name.archive, asset=name.asset))
    return _asset(get_json(url, name.archive, f"assets/{name.asset}/info/", {}, access), name, url)


def _results(answer: Any, url: str) -> list[Any]:
    rows = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise _odd(url)
    return rows


def _asset(row: Any, name: Name, url: str) -> Asset:
    if not isinstance(row, dict):
        raise _odd(url)
    path, size, asset = row.get("path"), row.get("size"), row.get("asset_id")
    blob, zarr = row.get("blob"), row.get("zarr")
    if not (isinstance(path, str) and path and isinstance(size, int) and 0 <= size < 1 << 63):
        raise _odd(url)
    if not isinstance(asset, str) or not is_id(asset) or is_id(blob) == is_id(zarr):
        raise _odd(url)
    where = AssetURL(name.archive, name.dandiset, name.version, path, name.asset)
    if len(links(str(where))) > 1 or path != as_text(path):  # a path that names other files, or is none
        raise _odd(url)
    return Asset(where, path, size, asset, blob, zarr, row)


def as_text(text: str) -> str:
    """A text of JSON, which may have halves of characters."""
    return text.encode("utf-8", "replace").decode()


def _odd(url: str) -> NWBReadError:
    return NWBReadError(f"{url}: the archive's answer isn't what DANDI's interface promises")
