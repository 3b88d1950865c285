"""A cluster of a Dask Gateway whose server is configured by `gateway_config.py`.

python deploy/on_gateway.py https://gateway.example.org s3://bucket/sessions/
"""

from __future__ import annotations

import sys

from dask_gateway import Gateway

import lazynwb_dask


def main(address: str, paths: list[str]) -> None:
    gateway = Gateway(address=address, auth="jupyterhub")
    options = gateway.cluster_options()
    options.worker_cores = 4
    options.worker_memory = 16
    options.environment = {"DASK_LAZYNWB_DASK__CONNECTIONS": "128"}
    with gateway.new_cluster(cluster_options=options, shutdown_on_close=True) as cluster:
        cluster.adapt(minimum=1, maximum=40)
        client = cluster.get_client()
        units = lazynwb_dask.read_nwb(paths, "/units")
        print(units[units.presence_ratio >= 0.7].groupby("_nwb_path").size().compute())
        client.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
