"""Send secrets to the workers of the active Dask cluster."""

from __future__ import annotations

import warnings

from lazynwb_dask.cluster.client import active_client
from lazynwb_dask.storage.options import Options

_sent: set[tuple[str, str]] = set()


def share(options: Options) -> None:
    """Send the secrets of some options to all workers of the active cluster, also to those that start later.

    They travel over the cluster's own connections (use TLS where that matters), each once per client.
    Without a cluster, or without secrets, nothing happens.
    """
    held, client = options.secrets, active_client()
    if not held or client is None or client.status != "running":
        return
    import cloudpickle  # type: ignore[import-untyped]  # comes with Dask

    from lazynwb_dask.cluster._plugin import Secrets

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
                stacklevel=3,
            )
        else:
            client.register_plugin(plugin, name=f"lazynwb-dask-{token[:16]}")
        _sent.add((client.id, token))
