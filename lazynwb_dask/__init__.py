"""Hundreds of NWB files as one lazy Dask DataFrame: only the columns and rows that a query needs are read.

NWB files are local files, files on web servers, in S3 or other stores, or in the DANDI archive; HDF5, Zarr or
LINDI. The five functions to know:

- ``list_tables(path)``: which tables a file has; ``contents(path)``: everything else, too.
- ``read_nwb(paths, "/units")``: one table of many files as a Dask DataFrame. ``frame.compute()`` reads it.
- ``read_sessions(paths)``: session and subject metadata, one row for each file.
- ``align_events(units, trials)``: spikes around events; ``psth(units, trials)``: mean rates.
- ``explain(frame)``: what ``frame.compute()`` would read, in requests and bytes.

The frames have an accessor ``nwb``: ``units.spike_times.nwb.len()``, ``units.nwb.report()``. All errors are of
the class ``NWBError``, or are a ``TypeError`` or ``ValueError`` for a wrong argument.

>>> import lazynwb_dask
>>> from lazynwb_dask.datasets import make_sessions
>>> paths = make_sessions("sessions", n=3)
>>> units = lazynwb_dask.read_nwb(paths, "/units")
>>> good = units[(units.presence_ratio >= 0.95) & (units.snr > 2)]
>>> good[["unit_id", "location", "spike_times"]].compute().columns.tolist()
['unit_id', 'location', 'spike_times']
"""

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
