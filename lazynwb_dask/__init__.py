"""Hundreds of NWB files as one lazy Dask DataFrame: only the columns and rows that a query needs are read."""

import pkgutil as _pkgutil
import re as _re
from importlib import import_module as _import_module

from ._version import __version__ as __version__

# Public names and where they are from. They are imported on first use: importing the package takes no time.
_NAMES = (_pkgutil.get_data(__name__, "__init__.pyi") or b"").decode()
_HOMES = {name: home for home, name in _re.findall(r"^from (\S+) import (\w+) as \2$", _NAMES, _re.MULTILINE)}

__all__ = ["__version__", *(name for name, home in _HOMES.items() if home != __name__)]  # its modules are not


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOMES[name] == __name__:
        return _import_module(f"{__name__}.{name}")
    value = globals()[name] = getattr(_import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*_HOMES, *(name for name in globals() if name.startswith("__"))})
