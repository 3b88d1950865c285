"""The worker plugin that holds secrets. Imported only where there is a cluster, as it needs distributed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed import Worker, WorkerPlugin

from lazynwb_dask.storage.options import remember


class Secrets(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped here
    """Adds secrets to those that `storage.options` keeps in each worker, also in workers that start later."""

    idempotent = True

    def __init__(self, held: Mapping[str, dict[str, Any]]) -> None:
        self._held = dict(held)

    def __repr__(self) -> str:
        return "Secrets()"

    def setup(self, worker: Worker) -> None:
        remember(self._held)
