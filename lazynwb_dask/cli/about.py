"""What there is to know of this installation: `info` and `config`."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from lazynwb_dask import __version__
from lazynwb_dask.cli import sources
from lazynwb_dask.cli.options import Call
from lazynwb_dask.cli.output import echo, printable, write_object
from lazynwb_dask.cli.running import Command, Group, say

PACKAGES = (
    "aiohttp", "click", "dask", "distributed", "fsspec", "h5py", "numcodecs", "numpy", "pandas", "pyarrow",
    "s3fs",
)  # fmt: skip


@click.command(
    cls=Command, files=False, formats=("table", "json"),
    example="lazynwb-dask info\nlazynwb-dask info --empty-cache",
)  # fmt: skip
@click.option("--empty-cache", is_flag=True, help="Delete the cache of files' metadata.")
def info(empty_cache: bool, call: Call) -> None:
    """Versions, settings, and the cache of files' metadata."""
    from lazynwb_dask import config
    from lazynwb_dask.plan.index_cache import index_cache

    cache = index_cache()
    if empty_cache and cache is not None:
        say(f"{cache.empty()} files deleted from {cache.folder}")
    files, size = (0, 0) if cache is None else cache.usage()
    held: dict[str, Any] = {
        "cache": {
            "empty": "lazynwb-dask info --empty-cache",
            "enabled": cache is not None,
            "files": files,
            "folder": None if cache is None else str(cache.folder),
            "size": size,
        },
        "command": "info",
        "settings": {f"lazynwb-dask.{key}": config.get(key) for key in sorted(config.defaults())},
        "versions": {
            "lazynwb-dask": __version__,
            "platform": platform.platform(),
            "python": sys.version.split()[0],
            **{name: _version(name) for name in PACKAGES},
        },
    }
    _print(held, call)


@click.group(cls=Group)
def config() -> None:
    """The file lazynwb.toml: the default PATHS of a project."""


@config.command(cls=Command, files=False, formats=("table", "json"), example="lazynwb-dask config init")
@click.option("--force", is_flag=True, help="Overwrite the file.")
def init(force: bool, call: Call) -> None:
    """Write a template of lazynwb.toml into this folder."""
    path = Path.cwd() / sources.PROJECT
    if path.exists() and not force:
        raise ValueError(f"{path}: exists already; --force overwrites it")
    path.write_text(sources.TEMPLATE, "utf-8")
    _print({"command": "config init", "config": {"path": str(path), "version": 1}}, call)


@config.command(cls=Command, files=False, formats=("table", "json"), example="lazynwb-dask config show")
def show(call: Call) -> None:
    """Show the lazynwb.toml of this folder or the nearest parent folder, and its paths."""
    found = sources.project()
    about = {"exists": found.exists, "path": str(found.path), "version": 1}
    _print({"command": "config show", "config": about, "paths": list(found.paths)}, call)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _print(held: dict[str, Any], call: Call) -> None:
    if call.format == "json":
        write_object(held)
        return
    for name, value in held.items():
        if isinstance(value, dict):
            echo(f"{name}")
            wide = max(map(len, value), default=0)
            for key, text in value.items():
                echo(printable(f"  {key:<{wide}}  {'' if text is None else text}"))
        elif name != "command":
            echo(name)
            for text in value:
                echo(printable(f"  {text}"))
