"""Sends secrets to the workers of a Dask cluster. Imported only where there is one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import cloudpickle  # type: ignore[import-untyped]  # comes with Dask
from distributed import Worker, WorkerPlugin, default_client

from .options import remember

_sent: set[tuple[str, str]] = set()


class Secrets(WorkerPlugin):  # type: ignore[misc]  # distributed is untyped here
    """Puts secrets into the vault of each worker that there is or will be."""

    idempotent = True

    def __init__(self, held: Mapping[str, dict[str, Any]]) -> None:
        self._held = dict(held)

    def __repr__(self) -> str:
        return "Secrets()"

    def setup(self, worker: Worker) -> None:
        remember(self._held)


def send(held: Mapping[str, dict[str, Any]]) -> None:
    """Share secrets with the active cluster, each of them once per client."""
    try:
        client = default_client()
    except ValueError:  # no client
        return
    if client.asynchronous or client.status != "running":
        return
    for token, secret in held.items():
        if (client.id, token) in _sent:
            continue
        plugin = Secrets({token: secret})
        try:
            cloudpickle.dumps(plugin)
        except Exception as error:
            warnings.warn(
                "storage_options hold an object that can't be sent to Dask's workers "
                f"({type(error).__name__}): they will need credentials of their own.",
                stacklevel=4,
            )
        else:
            client.register_plugin(plugin, name=f"lazynwb-dask-{token[:16]}")
        _sent.add((client.id, token))
