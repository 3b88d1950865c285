"""A cluster of Coiled, for as long as this runs.

    python deploy/on_coiled.py s3://bucket/sessions/

Coiled installs what is installed here on its machines, this package included, and hands on a
short-lived token of the local AWS credentials. With an image instead: container=.
"""

from __future__ import annotations

import sys

import coiled

import lazynwb_dask


def main(paths: list[str]) -> None:
    with coiled.Cluster(
        name="nwb",
        n_workers=[1, 40],
        worker_cpu=4,
        worker_memory="16 GiB",
        worker_disk_size="30 GiB",
        scheduler_memory="8 GiB",
        # where the data is: other regions are slow and cost by the gigabyte
        region="us-west-2",
        spot_policy="spot_with_fallback",
        idle_timeout="20 minutes",
        environ={"DASK_LAZYNWB_DASK__CONNECTIONS": "128"},
    ) as cluster:
        client = cluster.get_client()
        client.get_versions(check=True)
        units = lazynwb_dask.read_nwb(paths, "/units")
        print(units[units.presence_ratio >= 0.7].groupby("_nwb_path").size().compute())


if __name__ == "__main__":
    main(sys.argv[1:])
