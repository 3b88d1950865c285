"""The server's side of a Dask Gateway on Kubernetes: gateway.extraConfig of its Helm chart."""

from dask_gateway_server.options import Float, Integer, Mapping, Options

c = get_config()  # noqa: F821 (of traitlets, which runs this file)

# current versions of Dask have no commands dask-scheduler and dask-worker any more
c.KubeClusterConfig.scheduler_cmd = ["dask", "scheduler"]
c.KubeClusterConfig.worker_cmd = ["dask", "worker"]
c.KubeClusterConfig.image = "registry.example.org/lazynwb-dask:0.1.0"
c.KubeClusterConfig.idle_timeout = 3600
c.KubeClusterConfig.worker_extra_pod_config = {
    "serviceAccountName": "nwb-reader",
    "tolerations": [
        {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    ],
    "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "10Gi"}}],
}
c.KubeClusterConfig.worker_extra_container_config = {
    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]
}


def configure(options):
    return {
        "worker_cores": options.worker_cores,
        "worker_memory": f"{options.worker_memory} G",
        "environment": options.environment,
    }


c.Backend.cluster_options = Options(
    Integer("worker_cores", 2, min=1, max=16, label="Cores of a worker"),
    Float("worker_memory", 8, min=1, max=64, label="Memory of a worker (GiB)"),
    Mapping("environment", {}, label="Environment variables"),
    handler=configure,
)
