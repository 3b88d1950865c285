"""A cluster by the Dask Kubernetes operator, for as long as this runs.

    python deploy/on_kubernetes.py s3://bucket/sessions/

The cluster is described in `daskcluster.yaml`. Edit that file first: the image, the numbers, the
service account.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dask_kubernetes.operator import KubeCluster

import lazynwb_dask

MANIFEST = Path(__file__).with_name("daskcluster.yaml")


def main(paths: list[str]) -> None:
    with KubeCluster(custom_cluster_spec=str(MANIFEST), namespace="analysis", resource_timeout=300) as cluster:
        cluster.adapt(minimum=1, maximum=40)
        client = cluster.get_client()
        client.get_versions(check=True)
        units = lazynwb_dask.read_nwb(paths, "/units")
        print(units[units.presence_ratio >= 0.7].groupby("_nwb_path").size().compute())


if __name__ == "__main__":
    main(sys.argv[1:])
