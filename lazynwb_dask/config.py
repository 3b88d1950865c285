"""Settings, in Dask's configuration under `lazynwb-dask`. `lazynwb_dask.yaml` has the defaults and describes
each setting. They can be changed in YAML files, by environment variables (`DASK_LAZYNWB_DASK__RETRIES=9`) or in
code (`dask.config.set({"lazynwb-dask.retries": 9})`). Each worker uses its own configuration."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import sys
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import dask.config
from dask.utils import parse_bytes, parse_timedelta

from lazynwb_dask.storage import Settings
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.archives import set_archives
from lazynwb_dask.storage.options import Options
from lazynwb_dask.storage.settings import IsolatedSettings
from lazynwb_dask.util import lru
from lazynwb_dask.util.suggest import did_you_mean
from lazynwb_dask.util.warn import warn

_warned: set[str] = set()  # settings that aren't known: one warning of each in a process


@functools.cache
def defaults() -> Mapping[str, Any]:
    """The defaults in the YAML file, which are also added to Dask's configuration."""
    import yaml

    held = yaml.safe_load(files(__package__).joinpath("lazynwb_dask.yaml").read_text())
    dask.config.update_defaults(held)
    defaults: Mapping[str, Any] = held["lazynwb-dask"]
    return defaults


def get(key: str) -> Any:
    # on exit, a `dask.config.set` context also removes defaults that were added within
    return dask.config.get(f"lazynwb-dask.{key}", default=defaults()[key])


def _open_files() -> int:
    """How many files and connections this process may have open at a time."""
    try:
        import resource
    except ImportError:  # on Windows
        return 8192
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def settings() -> Settings:
    """The settings for reading. Also applies `memory-cache` and `dandi-instances` to this process."""
    given = dask.config.get("lazynwb-dask", default=None) or {}
    for key in sorted({str(key).replace("_", "-") for key in given} - set(defaults())):
        if key not in _warned:
            _warned.add(key)
            text = f"lazynwb-dask.{key} is not a setting and has no effect{did_you_mean(key, defaults())}"
            if multiprocessing.parent_process() is None:
                warn(text)
            else:  # a worker's log has it, but not those of a LocalCluster, where this process has warned
                logging.getLogger("distributed.worker").info(text)
    lru.set_limit(parse_bytes(get("memory-cache")))
    set_archives(get("dandi-instances") or {})
    plain = Settings(
        connections=min(int(get("connections")), _open_files() // 4),
        gap=parse_bytes(get("gap")),
        split=parse_bytes(get("split")),
        in_flight=parse_bytes(get("in-flight")),
        timeout=float(parse_timedelta(get("timeout"))),
        retries=int(get("retries")),
        deadline=float(parse_timedelta(get("deadline"))),
        sorted_timestamps=bool(get("sorted-timestamps")),
        follow_links=bool(get("follow-links")),
    )
    if not get("isolate"):
        return plain
    return IsolatedSettings(
        **vars(plain),
        isolate_memory=parse_bytes(get("isolate-memory")),
        isolate_deadline=float(parse_timedelta(get("isolate-deadline"))),
    )


def file_access(options: Options) -> FileAccess:
    return FileAccess(options, settings())
