"""Packages that only some functions need: extras of this one."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def optional(package: str, call: str, extra: str = "") -> ModuleType:
    """A package with an extra, of its name if none is given; or an ImportError that says how to install it."""
    try:
        return import_module(package)
    except ImportError as exc:
        if exc.name != package:
            raise
        raise ImportError(
            f"{call} needs {package}, which isn't installed: pip install 'lazynwb-dask[{extra or package}]'",
            name=package,
        ) from exc
