"""Writes parts by Dask's tasks, one each: in this process, in others, or on the workers of a cluster."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import dask
from dask.callbacks import Callback

from lazynwb_dask import config
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.cluster.client import active_client
from lazynwb_dask.cluster.secrets_plugin import share
from lazynwb_dask.errors import NWBReadError
from lazynwb_dask.export.part import Part, Written, write_part
from lazynwb_dask.model.source import is_local, shown
from lazynwb_dask.util.concurrently import progress_bar


def write_parts(parts: Sequence[Part], folder: Folder, on_error: str, told: Callable[[Written], None]) -> None:
    """Write all parts. `told` is called with each as it is complete; the first error ends it."""
    if not parts:
        return
    for options in {
        folder.access.options,
        *(one.scan.options for part in parts for one in part.rows if one.scan),
    }:
        share(options)
    bar = progress_bar(len(parts), "Writing", unit="part")
    bar.disable = bar.disable or not config.get("progress")

    def done(written: Written) -> None:
        _check_here(written, folder)
        told(written)
        bar.update()

    # what travels are the URL and the options, whose secrets workers are given apart
    work = [
        dask.delayed(
            partial(write_part, part, folder.url, folder.access.options, on_error), pure=False, traverse=False
        )(dask_key_name=f"write-part-{uuid.uuid4().hex}")
        for part in parts
    ]
    try:
        client = active_client()
        if client is None:
            _in_processes_or_threads(work, done)
        else:
            _by_cluster(client, work, done)
    finally:
        bar.close()


def _by_cluster(client: Any, work: Sequence[Any], done: Callable[[Written], None]) -> None:
    from distributed import as_completed

    futures = client.compute(list(work))
    try:
        for future in as_completed(futures):
            done(future.result())
    finally:
        client.cancel(futures)


def _in_processes_or_threads(work: Sequence[Any], done: Callable[[Written], None]) -> None:
    def told(key: Any, result: Any, *args: Any) -> None:
        if isinstance(result, Written):
            done(result)

    if dask.config.get("scheduler", None) or dask.config.get("pool", None):
        with Callback(posttask=told):
            dask.compute(*work)
        return
    # once this pool is closed, no task runs any more after an error of another
    with Callback(posttask=told), ThreadPoolExecutor(dask.system.CPU_COUNT) as pool:
        dask.compute(*work, scheduler="threads", pool=pool)


def _check_here(written: Written, folder: Folder) -> None:
    """Raise if a worker wrote a local file that this machine doesn't see."""
    if written.bytes and is_local(folder.url) and not os.path.exists(folder.url_of(written.path)):
        raise NWBReadError(
            f"{shown(folder.url)}: a worker wrote {written.path} into its own folder of that name: name a "
            "folder that workers share with this machine, or a URL such as s3://..."
        )
