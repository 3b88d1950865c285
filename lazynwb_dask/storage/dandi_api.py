"""Requests to the REST interface of DANDI's archives, with the retries and errors of reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from lazynwb_dask.model.source import shown
from lazynwb_dask.storage import retried
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.archives import Archive
from lazynwb_dask.storage.counters import Tally
from lazynwb_dask.storage.dandi import asked, parsed
from lazynwb_dask.storage.runtime import process


def get_json(url: str, archive: Archive, path: str, query: Mapping[str, str], access: FileAccess) -> Any:
    """What the REST interface answers to a GET, retried as reads are. `url` is the name in errors."""

    def ask(filesystem: Any, _: str) -> Any:
        shared, settings = process(), access.settings
        shared.filesystems[id(filesystem)] = filesystem
        settings.count(shown(url), Tally(requests=1))
        work = partial(asked, filesystem, archive, path, query, settings.timeout)
        body, _target = shared.run(work, settings.is_cancelled)
        settings.count(shown(url), Tally(bytes=len(body)))
        return parsed(body)

    return retried(url, access, ask)
