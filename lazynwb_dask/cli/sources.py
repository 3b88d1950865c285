"""Which files a command is about: those that it was given, or those that the project's file names."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lazynwb_dask.api.arguments import Paths
    from lazynwb_dask.cli.options import Call

PROJECT = "lazynwb.toml"  # which lazynwb 1.0 reads too
TEMPLATE = """\
version = 1

[source]
# Files, folders, globs, URLs or dandi: names, relative to this file's folder.
paths = []

[source.local]
# root = "data"
# glob = "**/*.nwb"

[source.dandi]
# dandiset_id = "000363"
# version = "draft"
# path_pattern = "sub-*/*.nwb"
"""
_KEYS = {
    "": {"version", "source", "commands"},
    "source": {"paths", "local", "dandi"},
    "source.local": {"root", "glob"},
    "source.dandi": {"dandiset_id", "version", "path_pattern", "anonymous_s3"},
}
_IS_FILE = (".nwb", ".json", ".h5", ".hdf5", ".zarr")
_MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class Project:
    """The project's file: where it is or would be, and the paths that it names."""

    path: Path
    exists: bool
    paths: tuple[str, ...]


def project() -> Project:
    """The project's file of this folder, or of the nearest one above."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        found = folder / PROJECT
        if found.is_file():
            return Project(found, True, _parsed(found))
    return Project(here / PROJECT, False, ())


def given(call: Call) -> tuple[str, ...]:
    """What the user means by files. Raises UsageError if nothing says."""
    if call.paths:
        return call.paths
    found = project()
    if found.paths:
        return found.paths
    raise click.UsageError(
        f"name files, folders, globs, URLs, dandi: names or a catalog; or have a {PROJECT} name them "
        "(lazynwb-dask config init)"
    )


def paths(call: Call) -> Paths:
    """What the user means, as the functions of lazynwb_dask take it: a catalog, one path or several."""
    names = given(call)
    if len(names) > 1:
        if found := next(filter(_is_catalog_here, names), None):
            raise click.UsageError(f"{found} is a catalog: give it as the only path")
        return list(names)
    return opened(names[0], call.storage_options) or names[0]


def opened(name: str, storage_options: Any) -> Any:
    """The catalog in a folder; None if there is none."""
    from lazynwb_dask.api.catalogs import open_catalog
    from lazynwb_dask.dandi.names import is_name
    from lazynwb_dask.model.source import is_local

    if is_name(name):
        return None
    if is_local(name):
        can_be = _is_catalog_here(name)
    elif name.startswith(("http:", "https:")):
        can_be = name.endswith("/")
    else:
        can_be = not (name.rstrip("/").endswith(_IS_FILE) or _MAGIC & {*name} or "::" in name)
    if not can_be:
        return None
    try:
        return open_catalog(name, storage_options=storage_options)
    except (FileNotFoundError, PermissionError):  # stores refuse what isn't there to those who may not list
        return None


def _is_catalog_here(name: str) -> bool:
    from lazynwb_dask.catalog.tables_schema import MANIFEST
    from lazynwb_dask.model.source import is_local, local_path

    return is_local(name) and os.path.isfile(os.path.join(os.path.expanduser(local_path(name)), MANIFEST))


def _parsed(path: Path) -> tuple[str, ...]:
    try:
        held = tomllib.loads(path.read_text("utf-8"))
        source = _table(held, "", "source")
        local, dandi = _table(source, "source", "local"), _table(source, "source", "dandi")
        parts = {"": held, "source": source, "source.local": local, "source.dandi": dandi}
        for where, part in parts.items():
            _check(part, where)
        if held.get("version", 1) != 1:
            raise ValueError(f"version is {held['version']}; this version reads 1")
    except ValueError as exc:  # of the parser, too
        raise ValueError(f"{path}: {exc}") from None
    if source.get("paths"):
        return tuple(_beside(path, text) for text in source["paths"])
    if local.get("root") or local.get("glob"):
        return (_beside(path, f"{local.get('root', '.')}/{local.get('glob', '**/*.nwb')}"),)
    if dandi.get("dandiset_id"):
        version = f"@{dandi['version']}" if dandi.get("version") else ""
        below = f"/{dandi['path_pattern']}" if dandi.get("path_pattern") else ""
        return (f"dandi:{dandi['dandiset_id']}{version}{below}",)
    return ()


def _beside(path: Path, name: str) -> str:
    from lazynwb_dask.dandi.names import is_name
    from lazynwb_dask.model.source import is_local, local_path

    if is_name(name) or not is_local(name):
        return name
    return os.path.join(path.parent, os.path.expanduser(local_path(name)))


def _table(held: dict[str, Any], where: str, key: str) -> dict[str, Any]:
    found = held.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{f'{where}.{key}'.lstrip('.')} must be a table")
    return found


def _check(held: dict[str, Any], where: str) -> None:
    for key, value in held.items():
        name = f"{where}.{key}".lstrip(".")
        if key not in _KEYS[where]:
            raise ValueError(
                f"{name} is not a setting of [{where or 'the file'}]: {', '.join(sorted(_KEYS[where]))}"
            )
        if name == "source.paths" and not (
            isinstance(value, list) and all(isinstance(text, str) for text in value)
        ):
            raise ValueError(f"{name} must be a list of strings")
        if where.startswith("source.") and key != "anonymous_s3" and not isinstance(value, str):
            raise ValueError(f"{name} must be a string")
