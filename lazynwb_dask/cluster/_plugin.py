"""The plugin that gives secrets to workers. Imported only if there is a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed import Worker, WorkerPlugin

from lazynwb_dask.storage.options import add_secrets


class Secrets(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped here
    """Adds secrets to each worker, including workers that start later."""

    idempotent = True

    def __init__(self, held: Mapping[str, dict[str, Any]]) -> None:
        self._held = dict(held)

    def __repr__(self) -> str:
        return "Secrets()"

    def setup(self, worker: Worker) -> None:
        add_secrets(self._held)
