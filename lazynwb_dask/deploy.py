"""Specifications of clusters, as plain dictionaries: nothing here talks to a cloud.

`deploy/` in the repository holds the image, manifests and scripts that go with this; `docs/deploy.md`
tells how to use them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dask.config import interpret_value
from dask.utils import parse_bytes, parse_timedelta

from lazynwb_dask.config import _defaults
from lazynwb_dask.util.suggest import near_or_all

__all__ = ["kube_cluster_spec"]

_GIB = 1 << 30
_MIB = 1 << 20

# The scheduler's Service is called `{name}-scheduler`, which has to be a label of DNS.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
_OBJECT_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
_SETTING = re.compile(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*")
_SECRET_WORDS = frozenset(
    {"credential", "credentials", "passphrase", "password", "secret", "token"}
)

# What a pod takes beside the worker's limit: the nanny that watches over the worker.
_NANNY = 256 * _MIB
_SCRATCH = "/scratch"
# Of the scratch volume, not for Dask's spilled data: the cache of files' metadata, temporary files.
_SCRATCH_RESERVE = 2 * _GIB
_USER = 1000  # of the image

# How the clouds label nodes that may vanish; some also taint them so.
_SPOT_NODES = {
    "cloud.google.com/gke-spot": "true",
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "kubernetes.azure.com/scalesetpriority": "spot",
}

# Dask's own and the API. Through it the operator scales, whatever version of Dask itself runs on.
_SCHEDULER_ROUTES = [
    "distributed.http.scheduler.prometheus",
    "distributed.http.scheduler.info",
    "distributed.http.scheduler.json",
    "distributed.http.scheduler.api",
    "distributed.http.health",
    "distributed.http.proxy",
    "distributed.http.statics",
]

# Before a pod ends its worker hands on its tasks and data. SIGTERM alone ends it at once: what it
# held is computed again, and its end is held against the tasks that it ran.
_RETIRE = (
    "import os; from distributed import Client; "
    "Client(timeout='10s').retire_workers(names=[os.environ['DASK_WORKER_NAME']])"
)


def kube_cluster_spec(
    name: str,
    *,
    image: str,
    n_workers: int = 4,
    threads: int = 2,
    memory: str | int = "8 GiB",
    scratch: str | int = "10 GiB",
    scheduler_memory: str | int = "4 GiB",
    service_account: str | None = None,
    secret: str | None = None,
    spot: bool = False,
    node_selector: Mapping[str, str] | None = None,
    config: Mapping[str, object] | None = None,
    idle_timeout: str | float = 0,
) -> dict[str, Any]:
    """Describe a cluster for the Dask Kubernetes operator.

    The result is a ``DaskCluster`` resource for ``KubeCluster(custom_cluster_spec=...)``; as YAML it
    is a manifest for ``kubectl apply``. It holds no credentials: pods get them from the service
    account's role, or from a Kubernetes Secret.

    Parameters
    ----------
    name
        Of the cluster: lower case letters, digits and hyphens, at most 53.
    image
        Of scheduler and workers, with lazynwb_dask installed (``deploy/Dockerfile`` builds one).
        The client should run the same versions: best the same image.
    n_workers
        Pods at the start. Scale later with ``KubeCluster.scale`` or ``adapt``, or with a
        ``DaskAutoscaler``.
    threads
        Of each worker, and the cores that its pod requests.
    memory
        Of each worker's pod, requested and limit alike. The worker itself is given 256 MiB less.
    scratch
        Of each worker's pod: an ``emptyDir`` for spilled data and the cache of files' metadata.
    scheduler_memory
        Of the scheduler's pod, requested and limit alike.
    service_account
        Workers' Kubernetes service account, bound to a role that may read the data.
    secret
        A Kubernetes Secret whose entries become workers' environment variables, such as
        ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``.
    spot
        Let workers run on nodes that may be taken away, prefer these, and keep the scheduler off
        them.
    node_selector
        Labels of the nodes that workers run on.
    config
        Settings of Dask and of lazynwb_dask on scheduler and workers, by their full names, such as
        ``"lazynwb-dask.connections"``.
    idle_timeout
        Delete the cluster once it was idle for so long, as ``"1 h"``; 0: never.

    Returns
    -------
    dict
        Plain dictionaries, lists, strings and numbers.

    Raises
    ------
    ValueError
        Where an argument would make a cluster that can't start, or would put a secret in the
        specification.

    Examples
    --------
    >>> spec = kube_cluster_spec(
    ...     "nwb",
    ...     image="registry.example.org/lazynwb-dask:0.1.0",
    ...     n_workers=20,
    ...     threads=4,
    ...     memory="16 GiB",
    ...     service_account="nwb-reader",
    ...     spot=True,
    ...     config={"lazynwb-dask.connections": 128},
    ... )
    >>> worker = spec["spec"]["worker"]
    >>> worker["replicas"], worker["spec"]["serviceAccountName"]
    (20, 'nwb-reader')
    >>> worker["spec"]["containers"][0]["resources"]["limits"]
    {'memory': '16Gi', 'ephemeral-storage': '10Gi'}
    >>> worker["spec"]["containers"][0]["args"][:6]
    ['dask', 'worker', '--name', '$(DASK_WORKER_NAME)', '--nthreads', '4']

    With the operator and dask-kubernetes installed::

        from dask_kubernetes.operator import KubeCluster

        with KubeCluster(custom_cluster_spec=spec, namespace="analysis") as cluster:
            client = cluster.get_client()
    """
    _check_name(name)
    _check_image(image)
    _check_count("n_workers", n_workers, least=0)
    _check_count("threads", threads, least=1)
    _check_object("service_account", service_account)
    _check_object("secret", secret)
    memory = _size("memory", memory, least=_GIB)
    scratch = _size("scratch", scratch, least=2 * _SCRATCH_RESERVE)
    scheduler_memory = _size("scheduler_memory", scheduler_memory, least=_GIB)
    idle = _seconds("idle_timeout", idle_timeout)

    settings: dict[str, object] = {"lazynwb-dask.cache-directory": f"{_SCRATCH}/lazynwb-dask"}
    if spot:
        # a task is not to blame for the nodes it was on
        settings["distributed.scheduler.allowed-failures"] = 10
    own = _checked(config or {})

    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {"name": name},
        "spec": {
            "idleTimeout": idle,
            "scheduler": _scheduler(
                name,
                image,
                scheduler_memory,
                spot,
                {"distributed.scheduler.http.routes": _SCHEDULER_ROUTES, **settings, **own},
            ),
            "worker": {
                "replicas": n_workers,
                # Azure's workload identity asks for this label; elsewhere it means nothing
                "metadata": {"labels": {"azure.workload.identity/use": "true"}}
                if service_account
                else {},
                "spec": _worker(
                    image,
                    threads,
                    memory,
                    scratch,
                    service_account,
                    secret,
                    spot,
                    dict(node_selector or {}),
                    {
                        # a full scratch pauses a worker; an overfull one would have it evicted
                        "distributed.worker.memory.max-spill": scratch - _SCRATCH_RESERVE,
                        **settings,
                        **own,
                    },
                ),
            },
        },
    }


def _scheduler(
    name: str, image: str, memory: int, spot: bool, settings: Mapping[str, object]
) -> dict[str, Any]:
    container = _container("scheduler", image, ["dask", "scheduler"], settings, dashboard=8787)
    container["ports"].append({"name": "tcp-comm", "containerPort": 8786, "protocol": "TCP"})
    container["resources"] = {
        "requests": {"cpu": "1", "memory": _quantity(memory)},
        "limits": {"memory": _quantity(memory)},
    }
    container["readinessProbe"] = _probe(period=5, failures=3)
    container["livenessProbe"] = _probe(period=20, failures=9)

    pod = _pod(container, _quantity(_GIB))
    if spot:
        off = [
            {"key": key, "operator": "NotIn", "values": [value]}
            for key, value in _SPOT_NODES.items()
        ]
        pod["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": off}]
                }
            }
        }
    return {
        # without its scheduler a computation is lost: no node is to be emptied under it
        "metadata": {
            "annotations": {
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "karpenter.sh/do-not-disrupt": "true",
            }
        },
        "spec": pod,
        "service": {
            "type": "ClusterIP",
            "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
            "ports": [
                {"name": port, "protocol": "TCP", "port": number, "targetPort": port}
                for port, number in (("tcp-comm", 8786), ("http-dashboard", 8787))
            ],
        },
    }


def _worker(
    image: str,
    threads: int,
    memory: int,
    scratch: int,
    service_account: str | None,
    secret: str | None,
    spot: bool,
    node_selector: Mapping[str, str],
    settings: Mapping[str, object],
) -> dict[str, Any]:
    arguments = {
        # the operator removes the pod of a retired worker by this name
        "--name": "$(DASK_WORKER_NAME)",
        "--nthreads": str(threads),
        "--memory-limit": f"{(memory - _NANNY) // _MIB}MiB",
        "--local-directory": _SCRATCH,
        "--dashboard-address": ":8788",
    }
    command = ["dask", "worker", *(part for pair in arguments.items() for part in pair)]
    container = _container("worker", image, command, settings, dashboard=8788)
    sizes = {"memory": _quantity(memory), "ephemeral-storage": _quantity(scratch)}
    # no limit of cores: decoding may use what the node has to spare
    container["resources"] = {"requests": {"cpu": str(threads), **sizes}, "limits": dict(sizes)}
    # lenient: a worker that decodes may be slow to answer, and its nanny restarts one that died
    container["livenessProbe"] = _probe(period=30, failures=10)
    container["lifecycle"] = {"preStop": {"exec": {"command": ["python", "-c", _RETIRE]}}}
    if secret:
        container["envFrom"] = [{"secretRef": {"name": secret}}]

    pod = _pod(container, _quantity(scratch))
    # two minutes are what AWS grants; other clouds cut it short
    pod["terminationGracePeriodSeconds"] = 120
    if service_account:
        pod["serviceAccountName"] = service_account
    if node_selector:
        pod["nodeSelector"] = dict(node_selector)
    if spot:
        pod["tolerations"] = [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}
            for key, value in _SPOT_NODES.items()
        ]
        pod["affinity"] = {
            "nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "preference": {
                            "matchExpressions": [{"key": key, "operator": "In", "values": [value]}]
                        },
                    }
                    for key, value in _SPOT_NODES.items()
                ]
            }
        }
    return pod


def _container(
    name: str, image: str, command: list[str], settings: Mapping[str, object], *, dashboard: int
) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        # args, not command: the image's entry point passes on signals
        "args": command,
        "env": [
            {"name": "TMPDIR", "value": _SCRATCH},
            *(
                {"name": _variable(key), "value": _text(key, value)}
                for key, value in settings.items()
            ),
        ],
        "ports": [{"name": "http-dashboard", "containerPort": dashboard, "protocol": "TCP"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": _SCRATCH}],
    }


def _pod(container: dict[str, Any], scratch: str) -> dict[str, Any]:
    return {
        "containers": [container],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": scratch}}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # no pod speaks to Kubernetes; the tokens of cloud roles are mounted apart from this one
        "automountServiceAccountToken": False,
        # else a Service called dask-... would become a variable DASK_..., and so a setting of Dask
        "enableServiceLinks": False,
    }


def _probe(*, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": "/health", "port": "http-dashboard"},
        "initialDelaySeconds": 5,
        "periodSeconds": period,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }


def _checked(config: Mapping[str, object]) -> dict[str, object]:
    """Settings with known names, none of them a secret."""
    known = _defaults()
    for key in config:
        if not isinstance(key, str) or not _SETTING.fullmatch(key):
            raise ValueError(
                f"config: {key!r} is not the name of a setting, which are as 'lazynwb-dask.retries'"
            )
        section, _, rest = key.replace("_", "-").partition(".")
        if section in known:
            raise ValueError(f"config: {key!r} is called 'lazynwb-dask.{section}'")
        if section == "lazynwb-dask" and rest not in known:
            hint = near_or_all(rest, known)
            raise ValueError(f"config: {key!r}: lazynwb-dask has no setting {rest!r}{hint}")
        if _SECRET_WORDS & set(re.split(r"[-_.]", key)):
            raise ValueError(
                f"config: {key!r} looks like a secret, and everyone who may see the cluster sees "
                "its settings; put it into a Kubernetes Secret and give that as secret="
            )
    return dict(config)


def _variable(key: str) -> str:
    """The environment variable of a setting.

    >>> _variable("lazynwb-dask.in-flight")
    'DASK_LAZYNWB_DASK__IN_FLIGHT'
    """
    return "DASK_" + key.replace(".", "__").replace("-", "_").upper()


def _text(key: str, value: object) -> str:
    """A value as Dask reads it back from the environment.

    >>> _text("a.b", "64 KiB"), _text("a.b", 5), _text("a.b", "5"), _text("a.b", None)
    ('64 KiB', '5', "'5'", 'None')
    """
    if isinstance(value, str) and interpret_value(value) == value:
        return value
    text = repr(value)
    if interpret_value(text) != value:
        raise ValueError(
            f"config: {key!r} is a {type(value).__name__}, which an environment variable can't "
            "hold; give a string, a number, a boolean, None, or a list or dict of these"
        )
    return text


def _quantity(size: int) -> str:
    """Bytes as Kubernetes writes them.

    >>> _quantity(16 << 30), _quantity(1536 << 20), _quantity(1_000_000_001)
    ('16Gi', '1536Mi', '1000000001')
    """
    for unit, factor in (("Gi", _GIB), ("Mi", _MIB), ("Ki", 1 << 10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _size(argument: str, value: str | int, *, least: int) -> int:
    try:
        size = parse_bytes(value)
    except (ValueError, TypeError, AttributeError):
        size = None
    if size is None or isinstance(value, bool):
        raise ValueError(f"{argument}={value!r} is not a size, such as '8 GiB'") from None
    if size < least:
        raise ValueError(f"{argument}={value!r} is less than the {_quantity(least)}B that it takes")
    return int(size)


def _seconds(argument: str, value: str | float) -> int:
    try:
        seconds = parse_timedelta(value)
    except (ValueError, TypeError, AttributeError, KeyError):
        seconds = None
    if seconds is None or isinstance(value, bool) or not 0 <= seconds < float("inf"):
        raise ValueError(f"{argument}={value!r} is not a time, such as '1 h', or 0 for never")
    # rounded up, since 0 means never
    return -int(-seconds // 1)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"name={name!r}: a cluster is named in lower case letters, digits and hyphens, at most "
            "53 of them, a letter first and no hyphen last"
        )


def _check_image(image: str) -> None:
    if not isinstance(image, str) or not image or re.search(r"\s|^[-/:@]|[/:@]$|://", image):
        raise ValueError(
            f"image={image!r} is not an image, such as 'registry.example.org/lazynwb-dask:0.1.0'"
        )


def _check_count(argument: str, value: int, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{argument}={value!r} is not a whole number of at least {least}")


def _check_object(argument: str, value: str | None) -> None:
    if value is not None and not (isinstance(value, str) and _OBJECT_NAME.fullmatch(value)):
        raise ValueError(
            f"{argument}={value!r} is not the name of a Kubernetes object (lower case letters, "
            "digits, hyphens and dots); the contents belong into that object, not in here"
        )
