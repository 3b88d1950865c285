"""A cluster by the Dask Kubernetes operator, for as long as this runs.

    python deploy/on_kubernetes.py s3://bucket/sessions/

`daskcluster.yaml` is the same cluster as a manifest.
"""

from __future__ import annotations

import sys

import lazynwb_dask

SPEC = lazynwb_dask.deploy.kube_cluster_spec(
    "nwb",
    image="registry.example.org/lazynwb-dask:0.1.0",
    n_workers=4,
    threads=4,
    memory="16 GiB",
    service_account="nwb-reader",
    spot=True,
    # nodes take minutes to come: ask for as many as a minute's work wants, not five seconds'
    config={"distributed.adaptive.target-duration": "60s"},
    idle_timeout="1 h",
)


def main(paths: list[str]) -> None:
    from dask_kubernetes.operator import KubeCluster

    with KubeCluster(
        custom_cluster_spec=SPEC, namespace="analysis", resource_timeout=300
    ) as cluster:
        cluster.adapt(minimum=1, maximum=40)
        client = cluster.get_client()
        client.get_versions(check=True)
        units = lazynwb_dask.read_nwb(paths, "/units")
        print(units[units.presence_ratio >= 0.7].groupby("_nwb_path").size().compute())


if __name__ == "__main__":
    main(sys.argv[1:])
