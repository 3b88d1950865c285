"""Writes parts by Dask's tasks, one each: in this process, in others, or on the workers of a cluster."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import dask
from dask.callbacks import Callback

from lazynwb_dask import config
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.cluster.client import active_client, completed
from lazynwb_dask.cluster.secrets_plugin import share
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.export.part import SCRATCH, Part, Written, write_part
from lazynwb_dask.model.source import is_local, shown
from lazynwb_dask.util.concurrently import progress_bar
from lazynwb_dask.util.locks import Lock


def write_parts(parts: Sequence[Part], folder: Folder, on_error: str, told: Callable[[Written], None]) -> None:
    """Write all parts. `told` is called with each as it is complete; the first error ends it."""
    if not parts:
        return
    read = {rows.scan.options for part in parts for rows in part.rows if rows.scan is not None}
    for options in {folder.access.options, *read}:
        share(options)
    bar, lock = progress_bar(len(parts), "Writing", unit="part"), Lock()
    bar.disable = bar.disable or not config.get("progress")

    def done(written: Written) -> None:
        with lock:
            _check_here(written, folder)
            told(written)
            bar.update()

    # what travels are the URL and the options, whose secrets workers are given apart
    work = [partial(write_part, part, folder.url, folder.access.options, on_error) for part in parts]
    try:
        client = active_client()
        if client is not None:
            for written in completed(client, client.compute(_tasks(work))):
                done(written)
        elif dask.config.get("scheduler", None) in ("processes", "multiprocessing"):
            with Callback(posttask=lambda key, result, *args: done(result)):
                dask.compute(*_tasks(work))
        else:
            # noted where it is written: also after an error of another, while this one still runs
            _here([partial(_then, one, done) for one in work])
    finally:
        bar.close()
        if is_local(folder.url):
            with suppress(OSError):
                os.rmdir(folder.url_of(SCRATCH))


def _tasks(work: Sequence[Callable[[], Any]]) -> list[Any]:
    run, count = uuid.uuid4().hex, len(work)
    return [
        # of tasks that depend on nothing, Dask begins with the last key
        dask.delayed(one, pure=False, traverse=False)(dask_key_name=f"write-part-{run}-{count - i:06}")
        for i, one in enumerate(work)
    ]


def _then(work: Callable[[], Written], done: Callable[[Written], None]) -> None:
    done(work())


def _here(work: Sequence[Callable[[], None]]) -> None:
    tasks = _tasks(work)
    if dask.config.get("scheduler", None) or dask.config.get("pool", None):
        dask.compute(*tasks)
        return
    # once this pool is closed, no task runs any more after an error of another
    with ThreadPoolExecutor(dask.config.get("num_workers", None) or dask.system.CPU_COUNT) as pool:
        dask.compute(*tasks, scheduler="threads", pool=pool)


def _check_here(written: Written, folder: Folder) -> None:
    """Raise if a worker wrote a local file that this machine doesn't see."""
    if written.bytes and is_local(folder.url) and not os.path.exists(folder.url_of(written.path)):
        raise NWBReadError(
            f"{shown(folder.url)}: a worker wrote {written.path} into its own folder of that name: name a "
            "folder that workers share with this machine, or a URL such as s3://..."
        )
