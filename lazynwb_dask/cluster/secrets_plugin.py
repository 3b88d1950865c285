"""Sends secrets to the workers of a Dask cluster."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from lazynwb_dask.storage.options import Options
from lazynwb_dask.util.warn import warn

_sent: set[tuple[str, str]] = set()


def share(options: Options) -> None:
    """Give secrets to all current and later workers of the active cluster, once for each client, over the
    cluster's own connections (use TLS if that matters). Does nothing without a cluster or without
    secrets."""
    held = options.secrets
    if held and "distributed" in sys.modules:
        send(held)


def send(held: Mapping[str, dict[str, Any]]) -> None:
    import cloudpickle  # type: ignore[import-untyped]  # comes with Dask
    from distributed import default_client

    from lazynwb_dask.cluster._plugin import Secrets

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
            warn(
                "storage_options hold an object that can't be sent to Dask's workers "
                f"({type(error).__name__}): they need credentials of their own."
            )
        else:
            client.register_plugin(plugin, name=f"lazynwb-dask-{token[:16]}")
        _sent.add((client.id, token))
