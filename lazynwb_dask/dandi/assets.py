"""The assets that names mean, as sources."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fsspec.utils import glob_translate

from lazynwb_dask.dandi.archive import Asset, asset_of, list_assets, version_of
from lazynwb_dask.dandi.names import Name, parse
from lazynwb_dask.errors import NWBFileNotFoundError
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.archives import AssetURL, is_id
from lazynwb_dask.util.threads import at_once

_NWB = (".nwb", ".nwb.zarr")  # what a folder or glob contributes


def find(texts: Sequence[str], access: FileAccess, metadata: bool = False) -> dict[str, list[Asset]]:
    """The assets that each name means, sorted by path. All names of one version of a dandiset cost one listing,
    of the paths that begin as all of them do. Raises NWBFileNotFoundError for a name without assets."""
    found = {text: assets for text, (_, assets) in _found(texts, access, metadata).items()}
    for text, assets in found.items():
        if not assets:
            raise _nothing(text)
    return found


def find_sources(texts: Sequence[str], access: FileAccess) -> dict[str, list[Source]]:
    """The files that each name means, with sizes and the ids of their blobs. Of one that is named in full and
    isn't there, the reader says so."""
    sources = {}
    for text, (name, assets) in _found(texts, access, False).items():
        if not assets and (not name.path.endswith(_NWB) or re.search(r"[*?[]", name.path)):
            raise _nothing(text)
        named = AssetURL(name.archive, name.dandiset, name.version, name.path)
        sources[text] = [asset.source for asset in assets] or [Source(str(named))]
    return sources


def _nothing(text: str) -> NWBFileNotFoundError:
    return NWBFileNotFoundError(
        f"{text}: no NWB file (*.nwb) and no Zarr store (*.nwb.zarr) is there. Check the path, and the "
        "dandiset's version; a file with another name must be named in full."
    )


def _found(texts: Sequence[str], access: FileAccess, metadata: bool) -> dict[str, tuple[Name, list[Asset]]]:
    """For each name itself, with its version, and its assets."""
    names = {text: parse(text) for text in texts}
    lists: dict[Name, list[str]] = defaultdict(list)
    for name in names.values():
        lists[name._replace(path="")].append(name.path)
    work = [partial(_listed, one, paths, access, metadata) for one, paths in lists.items()]
    held = dict(zip(lists, at_once(work), strict=True))
    found = {}
    for text, name in names.items():
        version, listed = held[name._replace(path="")]
        found[text] = name._replace(version=version), _chosen(name, listed)
    return found


def _listed(
    name: Name, paths: Sequence[str], access: FileAccess, metadata: bool
) -> tuple[str, dict[str, Asset]]:
    """A dandiset's version, and those of its assets that may be meant, by path."""
    if name.asset:
        return "", {"": asset_of(name, access)}
    first, last = (choose(re.split(r"[*?[]", path)[0].strip("/") for path in paths) for choose in (min, max))
    same = [a == b for a, b in zip(first, last, strict=False)]
    begin = first[: [*same, False].index(False)]
    name = name._replace(version=version_of(name, access))
    return name.version, {asset.path: asset for asset in list_assets(name, begin, access, metadata)}


def _chosen(name: Name, listed: Mapping[str, Asset]) -> list[Asset]:
    path = name.path.strip("/")
    if (path or name.asset) and path in listed:
        return [listed[path]]
    matches = re.compile(glob_translate(path)).match if path else lambda _: True
    typed = re.search(r"\.\w+$", path) is not None
    return [
        asset
        for asset in listed.values()
        if any(matches(part) for part in _beginnings(asset.path))
        and (asset.path.endswith(_NWB) or (typed and matches(asset.path)))
    ]


def _beginnings(path: str) -> list[str]:
    """A path and the folders that it is in."""
    return [path, *[path[: slash.start()] for slash in re.finditer("/", path)]]


def paths_of(frame: Any) -> list[str | Source]:
    """The files of a table that has a row for each: of assets, or of sessions. Raises TypeError for others."""
    if "_nwb_path" not in frame.columns and frame.index.name == "_nwb_path":
        frame = frame.reset_index()
    if "_nwb_path" not in frame.columns:
        raise TypeError("paths: a table of files needs the column _nwb_path")
    if bad := {str(url) for url in frame["_nwb_path"] if not isinstance(url, str)}:
        raise TypeError(f"paths: the column _nwb_path has values that are not paths: {', '.join(sorted(bad))}")
    columns = [frame[name] if name in frame.columns else [None] * len(frame) for name in ("size", "blob_id")]
    return [
        Source(url, int(size), blob) if is_id(blob) and not (size is None or size != size) else url
        for url, size, blob in zip(frame["_nwb_path"], *columns, strict=True)
    ]
